"""What a trained detector says of pictures and videos that nobody has labelled."""

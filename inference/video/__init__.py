"""Videos: reading frames and scoring them."""

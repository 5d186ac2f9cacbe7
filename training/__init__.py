"""One training run: the loop, resume, validation, logs and signals."""

"""Make a small data set without a download."""

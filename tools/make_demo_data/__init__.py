"""Make a small dataset without a download."""

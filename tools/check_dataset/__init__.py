"""Check folders of images before a training."""

"""Measure speed and memory of this project against a plain PyTorch loop."""

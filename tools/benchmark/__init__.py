"""Speed and memory of this project, measured against a plain PyTorch loop."""

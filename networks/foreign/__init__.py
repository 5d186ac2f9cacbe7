"""Checkpoint files of other programs: plain data beside the weights, and files that are none."""

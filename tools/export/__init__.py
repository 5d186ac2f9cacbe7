"""Export a checkpoint for use elsewhere."""

"""Speed and memory against the plain recipe."""

"""Parts of tools.benchmark: contestants, each in a process of its own, and what they are measured against."""

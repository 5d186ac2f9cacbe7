"""Metrics, test runs, attention statistics and comparisons."""

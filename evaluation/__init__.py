"""Metrics, evaluation runs, attention statistics, reports and pictures."""

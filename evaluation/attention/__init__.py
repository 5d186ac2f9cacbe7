"""Attention weights of a model: statistics, differences, controls, verdicts."""

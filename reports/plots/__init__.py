"""Plots, each drawn from plain arrays into a file."""

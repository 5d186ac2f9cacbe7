"""Typed command-line options."""

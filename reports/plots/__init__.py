"""Plots, each drawn from plain arrays into a file."""

import logging

# what matplotlib says of its fonts and folders must not reach the terminal
logging.getLogger("matplotlib").addHandler(logging.NullHandler())

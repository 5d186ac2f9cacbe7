"""Command-line tools around the detector, one job each; run them as `python -m tools.NAME`."""

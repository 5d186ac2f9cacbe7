"""Hypothesis' profile for `make fuzz`."""

from hypothesis import settings

settings.register_profile("fuzz", max_examples=4_000, print_blob=True)

"""Options of scripts that draw plots of a checkpoint."""

import dataclasses

from options.base_options import CheckpointOptions
from options.flags import flag


@dataclasses.dataclass(frozen=True, kw_only=True)
class FigureOptions(CheckpointOptions):
    """Options that test.py and visualize_attention.py share."""

    pdf: bool = flag(False, "write all plots as PDF, too")

    @property
    def formats(self) -> tuple[str, ...]:
        """Return the formats of every plot; empty = PNG only (see `reports.plots.style.save`)."""
        return ("png", "pdf") if self.pdf else ()

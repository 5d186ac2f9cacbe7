"""Options of scripts that draw figures of a checkpoint."""

import dataclasses

from options.base_options import CheckpointOptions
from options.flags import flag


@dataclasses.dataclass(frozen=True, kw_only=True)
class FigureOptions(CheckpointOptions):
    """What test.py and visualize_attention.py share."""

    pdf: bool = flag(False, "write all figures as PDF, too")

    @property
    def formats(self) -> tuple[str, ...]:
        """Of every figure; empty for PNG alone (see `reports.plots.style.save`)."""
        return ("png", "pdf") if self.pdf else ()

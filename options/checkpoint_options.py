"""Options of scripts that read a checkpoint."""

import dataclasses

from options.base_options import MODEL_TYPES, NO_CHECKPOINT, BaseOptions, RunOptions
from options.flags import flag, whole


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointOptions(RunOptions, BaseOptions):
    """Options of scripts that read checkpoints of labelled images.

    A checkpoint holds its architecture. Flags of the architecture must agree with it.
    """

    model_path: tuple[str, ...] | None = flag(
        None,
        "one or more checkpoints or folders that tools.export wrote, or a quoted glob pattern",
        nargs="+",
        metavar="PATH",
    )
    protocol: str | None = flag(
        None,
        "preprocessing protocol (default: the suite's published one, else that of the calibration,"
        " else native size)",
    )
    model_type: str | None = flag(None, "refuse checkpoints of another type", choices=MODEL_TYPES)
    feature_dim: int | None = flag(
        None, "refuse checkpoints of another feature dimension", parse=whole(1)
    )
    attention_reduction: int | None = flag(
        None, "refuse checkpoints of another attention reduction", parse=whole(1)
    )
    attention_residual: bool | None = flag(
        None, "refuse checkpoints without the residual fusion", switch=True
    )
    backbone: str | None = flag(None, "refuse checkpoints of another backbone")

    def problem(self) -> str | None:
        return NO_CHECKPOINT if not self.model_path and not self.name else super().problem()


@dataclasses.dataclass(frozen=True, kw_only=True)
class FigureOptions(CheckpointOptions):
    """Options that test.py and visualize_attention.py share."""

    pdf: bool = flag(False, "write all plots as PDF, too")

    @property
    def formats(self) -> tuple[str, ...]:
        """Return the formats of every plot; empty = PNG only (see `reports.plots.style.save`)."""
        return ("png", "pdf") if self.pdf else ()

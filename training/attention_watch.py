"""Warn of attention that stays uniform or collapsed during training."""

from collections.abc import Mapping, Sequence

from numpy.typing import NDArray

from evaluation.attention.groups import group_statistics
from evaluation.attention.kinds import COLLAPSED, NEARLY_ALL, UNIFORM
from networks.npr import scale_keys, scale_label

# follow "attention has" in the warning
STILL_UNIFORM, STILL_COLLAPSED = "been uniform", "given one scale nearly everything"


class AttentionWatch:
    """Warns of attention that was uniform or collapsed for `patience` epochs in a row.

    It warns once per such period.

    Args:
        patience: number of epochs after which to warn, at least 1.

    Raises:
        ValueError: patience below 1.
    """

    def __init__(self, patience: int = 3) -> None:
        if patience < 1:
            raise ValueError(f"a patience of {patience} epochs; pass 1 or more")
        self.patience = patience
        self._kind, self._epochs = "", 0

    def state(self) -> dict[str, str | int]:
        """Return kind ('' if nothing is wrong) and epochs (number in a row)."""
        return {"kind": self._kind, "epochs": self._epochs}

    def restore(self, state: Mapping[str, str | int]) -> None:
        """Resume from what `state` returned."""
        self._kind, self._epochs = str(state["kind"]), int(state["epochs"])

    def after_epoch(self, weights: NDArray, scales: Sequence[float]) -> str | None:
        """Return a warning, or None.

        Args:
            weights: attention [N, S] on validation images, N >= 1.
            scales: S of them; with one scale there is never a warning.
        """
        kind, numbers = stuck(weights, scales) or ("", "")
        self._epochs = self._epochs + 1 if kind == self._kind else 1
        self._kind = kind
        if not kind or self._epochs != self.patience:
            return None
        epochs = f"{self.patience} epoch{'s' * (self.patience != 1)}"
        return f"attention has {kind} for {epochs}: {numbers}; see docs/attention.md for what helps"


def stuck(weights: NDArray, scales: Sequence[float]) -> tuple[str, str] | None:
    """Return `STILL_UNIFORM` or `STILL_COLLAPSED`, and the numbers; None if nothing is wrong.

    The thresholds are those of `attention_verdicts`.

    Args:
        weights: attention [N, S].
        scales: S of them.
    """
    if len(scales) < 2:
        return None
    statistics = group_statistics(weights, scale_keys(tuple(scales)), resamples=0)
    key, top = max(statistics["scales"].items(), key=lambda pair: pair[1]["nearly_all"])
    if top["nearly_all_low"] >= COLLAPSED:
        share = f"{top['nearly_all']:.0%} of the images"
        return STILL_COLLAPSED, f"scale {scale_label(key)} gets at least {NEARLY_ALL:g} in {share}"
    mean = statistics["entropy"]["relative_mean"]
    if mean >= UNIFORM:
        return STILL_UNIFORM, f"an image's entropy is {mean:.1%} of its maximum"
    return None

"""Attention that does nothing for epochs on end, noticed while a model trains."""

from collections.abc import Sequence

from numpy.typing import NDArray

from evaluation.attention_statistics import NEARLY_ALL, group_statistics
from evaluation.attention_verdict import COLLAPSED, DECIDE, UNIFORM
from networks.npr import scale_keys

UNIFORM_SAID, COLLAPSED_SAID = "been uniform", "given one scale nearly everything"
PATIENCE = 3
"""Epochs in a row after which it is said."""


class AttentionWatch:
    """Says, once each time, that attention has been uniform or has collapsed for `PATIENCE` epochs (see `attention_verdicts`)."""

    def __init__(self) -> None:
        self._kind, self._epochs = "", 0

    def after_epoch(self, weights: NDArray, scales: Sequence[float]) -> str | None:
        """A warning, or None. weights: [N, S] on validation images, N >= 1; one scale has nothing to choose from."""
        kind, what = stuck(weights, scales) or ("", "")
        self._epochs = self._epochs + 1 if kind == self._kind else 1
        self._kind = kind
        if not kind or self._epochs != PATIENCE:
            return None
        flags = " or ".join(f"{name} ({why})" for name, why in (DECIDE[0], DECIDE[1]))
        right = "; it may be right: compare with equal scales, --npr_scales " + ",".join(["0.5"] * len(scales))
        return f"attention has {kind} for {PATIENCE} epochs: {what}; {flags} may help{right if kind == UNIFORM_SAID else ''}"


def stuck(weights: NDArray, scales: Sequence[float]) -> tuple[str, str] | None:
    """What is wrong with attention [N, S], in words, by the thresholds of `attention_verdicts`; None if it is at work."""
    if len(scales) < 2:
        return None
    found = group_statistics(weights, scale_keys(tuple(scales)), resamples=0)
    key, top = max(found["scales"].items(), key=lambda pair: pair[1]["nearly_all"])
    if top["nearly_all"] >= COLLAPSED:
        return COLLAPSED_SAID, f"scale {key} gets at least {NEARLY_ALL:g} in {top['nearly_all']:.0%} of the images"
    if found["entropy"]["relative_mean"] >= UNIFORM:
        return UNIFORM_SAID, f"an image's entropy is {found['entropy']['relative_mean']:.1%} of its maximum"
    return None

"""Attention that does nothing for epochs on end, noticed while a model trains."""

from collections.abc import Mapping, Sequence

from numpy.typing import NDArray

from evaluation.attention.advice import DIVERSITY, WIDER, against_equal_scales
from evaluation.attention.statistics import NEARLY_ALL, group_statistics
from evaluation.attention.verdict import COLLAPSED, UNIFORM
from networks.npr import scale_keys, scale_label

UNIFORM_SAID, COLLAPSED_SAID = "been uniform", "given one scale nearly everything"


class AttentionWatch:
    """Says, once each time, that attention has been uniform or has collapsed for `patience` epochs
    (see `attention_verdicts`).

    Args:
        patience: epochs in a row after which it is said, at least 1.

    Raises:
        ValueError: patience below 1.
    """

    def __init__(self, patience: int = 3) -> None:
        if patience < 1:
            raise ValueError(f"a patience of {patience} epochs: at least 1 is needed")
        self.patience = patience
        self._kind, self._epochs = "", 0

    def state(self) -> dict[str, str | int]:
        """What `restore` needs to go on counting: kind (what attention has done, '' if nothing is
        wrong) and epochs (in a row)."""
        return {"kind": self._kind, "epochs": self._epochs}

    def restore(self, state: Mapping[str, str | int]) -> None:
        """Go on from what `state` gave."""
        self._kind, self._epochs = str(state["kind"]), int(state["epochs"])

    def after_epoch(self, weights: NDArray, scales: Sequence[float]) -> str | None:
        """A warning, or None. weights: [N, S] on validation images, N >= 1; one scale has nothing
        to choose from."""
        kind, what = stuck(weights, scales) or ("", "")
        self._epochs = self._epochs + 1 if kind == self._kind else 1
        self._kind = kind
        if not kind or self._epochs != self.patience:
            return None
        flags = " or ".join(f"{name} ({why})" for name, why in (DIVERSITY, WIDER))
        control = against_equal_scales(scales) if kind == UNIFORM_SAID else ()
        right = "".join(
            f"; it may be right: compare with equal scales, {name}" for name, _ in control
        )
        epochs = f"{self.patience} epoch{'s' * (self.patience != 1)}"
        return f"attention has {kind} for {epochs}: {what}; {flags} may help{right}"


def stuck(weights: NDArray, scales: Sequence[float]) -> tuple[str, str] | None:
    """What is wrong with attention [N, S], in words, by the thresholds of `attention_verdicts`;
    None if it is at work."""
    if len(scales) < 2:
        return None
    found = group_statistics(weights, scale_keys(tuple(scales)), resamples=0)
    key, top = max(found["scales"].items(), key=lambda pair: pair[1]["nearly_all"])
    if top["nearly_all_low"] >= COLLAPSED:
        share = f"{top['nearly_all']:.0%} of the images"
        return COLLAPSED_SAID, f"scale {scale_label(key)} gets at least {NEARLY_ALL:g} in {share}"
    if found["entropy"]["relative_mean"] >= UNIFORM:
        return (
            UNIFORM_SAID,
            f"an image's entropy is {found['entropy']['relative_mean']:.1%} of its maximum",
        )
    return None

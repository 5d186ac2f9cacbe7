"""Map logits to probabilities and verdicts, by constants fitted on validation images."""

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit

MAX_CONSTANT = 1e12  # above this, a constant in a checkpoint is an error
REAL, UNSURE, GENERATED = "real", "unsure", "generated"


@dataclass(frozen=True)
class Calibration:
    """Temperature scaling (Guo et al., ICML 2017), a threshold and an unsure band.

    Probabilities hold for data of which half is generated.

    Args:
        temperature: T > 0; the probability of "generated" is sigmoid(logit / T).
        threshold: probability in [0, 1] with the best balanced accuracy within `max_false_alarms`.
        lower: the verdict is "real" up to this probability, never if this is below 0.
        upper: the verdict is "generated" from this probability on, never if this is above 1. It is
            >= lower; between them the verdict is "unsure".
        target_error: share in [0, 1] of wrong verdicts that the band allows, among "generated"
            verdicts and among "real" ones.
        ece_before: expected calibration error in [0, 1] of sigmoid(logit).
        ece_after: expected calibration error in [0, 1] of the probability.
        n_real: number of real images in the fit.
        n_fake: number of generated images in the fit.
        data: name of the dataset of the fit.
        protocol: name and version of its preprocessing.
        max_false_alarms: largest share in [0, 1] of the real images of any set above the threshold;
            1 = no limit.
        side: longest side in pixels of the images of the fit; 0 = not recorded.
        larger: False: larger images get the verdict "unsure", because too many real ones were
            called generated.
    """

    temperature: float
    threshold: float
    lower: float
    upper: float
    target_error: float
    ece_before: float
    ece_after: float
    n_real: int
    n_fake: int
    data: str
    protocol: str
    max_false_alarms: float = 1.0
    side: int = 0
    larger: bool = True

    def probabilities(self, logits: ArrayLike) -> NDArray[np.float64]:
        """Return probabilities of "generated", in the shape of the logits."""
        return expit(np.asarray(logits, np.float64) / self.temperature)

    @property
    def score_threshold(self) -> float:
        """Return the threshold as a score, sigmoid(logit), in [0, 1]."""
        return float(expit(self.temperature * logit(self.threshold)))

    def verdict(self, probability: float) -> str:
        """Return `REAL`, `UNSURE` or `GENERATED`."""
        if probability >= self.upper:
            return GENERATED
        return REAL if probability <= self.lower else UNSURE

    def beyond(self, width: int, height: int) -> bool:
        """Return True for an image larger than those of the fit, sides in pixels."""
        return 0 < self.side < max(width, height)

    @property
    def rule(self) -> str:
        """Return the rule of `verdict` as text."""
        generated, real = f'never "{GENERATED}"', f'never "{REAL}"'
        if self.upper <= 1:
            generated = f'"{GENERATED}" from {self.upper:.3f} on'
        if self.lower >= 0:
            real = f'"{REAL}" up to {self.lower:.3f}'
        unsure = f', "{UNSURE}" between' if self.lower < self.upper else ""
        limit = (
            "" if self.larger else f'; "{UNSURE}" for images with a side above {self.side} pixels'
        )
        return f"{generated}, {real}{unsure}{limit}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values by field name."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Calibration":
        """Return the calibration that `to_dict` gave these values.

        Raises:
            TypeError, ValueError: the values are not those of a calibration.
        """
        if differing := {field.name for field in fields(cls)} ^ set(values):
            names = ", ".join(sorted(map(str, differing)))
            raise ValueError(
                f"missing or unknown fields: {names}; run python -m tools.calibrate again"
            )
        calibration = cls(**values)
        for field in fields(cls):
            value = values[field.name]
            kind: Any = int | float if field.type is float else field.type
            if not isinstance(value, kind) or isinstance(value, bool) != (field.type is bool):
                raise TypeError(f"{field.name} is a {type(value).__name__}")
            if not isinstance(value, str) and not (
                abs(value) <= MAX_CONSTANT and math.isfinite(value)
            ):
                raise ValueError(f"{field.name} is out of range")
        shares = ("threshold", "target_error", "ece_before", "ece_after", "max_false_alarms")
        for name in shares:
            if not 0 <= values[name] <= 1:
                raise ValueError(f"{name} is not in [0, 1]")
        if calibration.temperature <= 0 or calibration.lower > calibration.upper:
            raise ValueError("temperature or band is out of range")
        if min(calibration.n_real, calibration.n_fake, calibration.side) < 0:
            raise ValueError("a number of images or pixels is negative")
        return calibration

"""What a model's logits mean as probabilities, and when it had better not decide: constants fitted
on validation images."""

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit

LARGEST = 1e12
"""No constant of a calibration is larger."""
REAL, UNSURE, GENERATED = "real", "unsure", "generated"
"""The three verdicts."""


@dataclass(frozen=True)
class Calibration:
    """Temperature scaling (Guo et al., ICML 2017, arXiv 1706.04599), a threshold, and a band in
    which no verdict is given.

    Args:
        temperature: T > 0; the probability of "generated" is sigmoid(logit / T + log(prior / (1 -
            prior))).
        threshold: probability in [0, 1] that parts real from generated best, within
            `max_false_alarms`.
        lower, upper: up to `lower` the verdict is "real", from `upper` on "generated", "unsure"
            between; lower <= upper. Below 0 and above 1 they are never reached.
        target_error: share of wrong verdicts in [0, 1] for which the band was chosen, among the
            images that get "generated" and among those that get "real".
        ece_before, ece_after: expected calibration error in [0, 1], of sigmoid(logit) and of the
            probability.
        n_real, n_fake: images it was fitted on. data: what they were. protocol: their
            preprocessing, name and version.
        prior: share of generated images, in (0, 1), among the images that the probabilities are
            meant for.
        max_false_alarms: share of the real images of any set in [0, 1] that may lie above the
            threshold; 1 is no limit.
        confidence: 0 if the share of wrong verdicts itself was held against target_error, else the
            confidence of its upper bound.
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
    prior: float = 0.5
    confidence: float = 0.0
    max_false_alarms: float = 1.0

    def probabilities(self, logits: ArrayLike) -> NDArray[np.float64]:
        """Logits -> probabilities of "generated", of the same shape."""
        return expit(np.asarray(logits, np.float64) / self.temperature + logit(self.prior))

    @property
    def score_threshold(self) -> float:
        """The threshold as a score, sigmoid(logit), in [0, 1]."""
        return float(expit(self.temperature * (logit(self.threshold) - logit(self.prior))))

    def verdict(self, probability: float) -> str:
        """One of `REAL`, `UNSURE`, `GENERATED`."""
        if probability >= self.upper:
            return GENERATED
        return REAL if probability <= self.lower else UNSURE

    @property
    def rule(self) -> str:
        """When `verdict` says what, in words."""
        said = [
            f'"{GENERATED}" from {self.upper:.3f} on' if self.upper <= 1 else f'never "{GENERATED}"'
        ]
        said.append(f'"{REAL}" up to {self.lower:.3f}' if self.lower >= 0 else f'never "{REAL}"')
        return (
            f'{", ".join(said)}, "{UNSURE}" between' if self.lower < self.upper else ", ".join(said)
        )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Calibration":
        """The inverse of `to_dict`.

        Raises:
            TypeError, ValueError: the values describe no calibration.
        """
        found = cls(**values)
        for field in fields(cls):
            value = getattr(found, field.name)
            kind: Any = {float: int | float, int: int, str: str}[field.type]  # type: ignore[index]
            if not isinstance(value, kind) or isinstance(value, bool):
                raise TypeError(f"{field.name} is a {type(value).__name__}")
            if not isinstance(value, str) and not (abs(value) <= LARGEST and math.isfinite(value)):
                raise ValueError(f"{field.name} is out of range")
        shares = (found.threshold, found.target_error, found.ece_before, found.ece_after, found.confidence,
                  found.max_false_alarms)  # fmt: skip
        if (
            found.temperature <= 0
            or found.lower > found.upper
            or not all(0 <= share <= 1 for share in shares)
        ):
            raise ValueError("temperature, band, or a share in [0, 1] is out of range")
        if not 0 < found.prior < 1 or min(found.n_real, found.n_fake) < 0:
            raise ValueError("prior, or a number of images, is out of range")
        return found

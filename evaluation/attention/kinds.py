"""Kinds of verdicts on attention, the thresholds that define them, and the evidence for one.

docs/attention.md explains what each kind means for a model and what may help.
"""

from dataclasses import asdict, dataclass
from typing import Any

KINDS = (
    "collapsed", "uniform", "one scale dominates", "varies by image", "varies by generator",
    "varies by class", "fixed", "too few images",
)  # fmt: skip
MIN_IMAGES_FOR_VERDICT = 10  # below this, statistics are noise
NEARLY_ALL = 0.9  # a scale with at least this weight takes nearly everything
UNIFORM = 0.98
"""Uniform: the mean entropy of an image's weights is at least this share of ln S, with its whole
interval (three scales: weights within about 0.1)."""
COLLAPSED = 0.9
"""Collapsed: one scale gets `NEARLY_ALL` of the weight in this share of the images, with the whole
interval (96 of 100 images, or all of 36)."""
DOMINANT = 0.25
"""One scale dominates: its mean weight is at least this share of the way from 1/S to 1, with its
whole interval (three scales: 0.5)."""
VARIES = 0.2
"""Varies by image: standard deviation within generator and class (root mean square over scales),
with its whole interval, as a share of sqrt(S - 1) / S, the largest for weights with mean 1/S. Three
scales: 0.094. Uniform attention has less."""
DIFFERENT = 0.05
"""Varies by generator or class: Jensen-Shannon distance between the mean of a group and that of the
others, beyond chance, or of groups that differ significantly. For three scales it is a shift of
about 0.06 between 0.33 and the others."""
SIGNIFICANT = 0.05  # p-values below this
AS_MUCH = 0.8  # from this share of the fake images' distance on, real images differ as much
LEADS = 0.1
"""A scale leads for a generator if its interval lies above that of every other, and its mean weight
has come this share of the way from 1/S to 1."""


@dataclass(frozen=True)
class Evidence:
    """A number, the threshold it is compared with, and the side ('>=' or '<') of the verdict."""

    name: str
    value: float
    threshold: float
    side: str

    @property
    def holds(self) -> bool:
        """True if the number is on the verdict's side."""
        return (self.value >= self.threshold) == (self.side == ">=")


@dataclass(frozen=True)
class Verdict:
    """A kind of `KINDS`, a sentence with numbers, and the evidence for it."""

    kind: str
    sentence: str
    evidence: tuple[Evidence, ...] = ()

    @property
    def holds(self) -> bool:
        """True if all evidence holds."""
        return all(evidence.holds for evidence in self.evidence)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self) | {"evidence": [asdict(evidence) for evidence in self.evidence]}

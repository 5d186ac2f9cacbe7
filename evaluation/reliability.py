"""Measure the agreement of probabilities with labels, both classes weighted equally.

The share of generated images in a folder is arbitrary. So each class has half of the weight,
however many images it has.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from evaluation.metrics import ECE_BINS, expected_calibration_error


def class_weights(labels: NDArray) -> NDArray:
    """Return the weight [N] of each image: each class sums to one half."""
    return 0.5 / np.bincount(labels, minlength=2)[labels]


def balanced_share(share: Any, label: int, n_real: int, n_fake: int) -> Any:
    """Return a share of images with a label as it would be with equally frequent classes.

    Args:
        share: number or array in [0, 1].
        label: 0 real, 1 generated.
        n_real: number of real images in the sample.
        n_fake: number of generated images in the sample.
    """
    weight = (1 / n_real, 1 / n_fake)
    with_label, others = share * weight[label], (1 - share) * weight[1 - label]
    return with_label / (with_label + others)


@dataclass(frozen=True)
class Share:
    """A share of images, corrected to equally frequent classes.

    Args:
        count: number of images with the property.
        total: number of images counted.
        value: the share in [0, 1]; None without images.
        low: lower end of its 95 % confidence interval; None where it is not computed.
        high: upper end.
    """

    count: int
    total: int
    value: float | None = None
    low: float | None = None
    high: float | None = None


def share_of_label(count: int, total: int, label: int, n_real: int, n_fake: int) -> Share:
    """Return the share of a label with the interval of Clopper and Pearson (1934).

    Args:
        count: number of images with the label among `total`.
        total: number of images counted.
        label: 0 real, 1 generated.
        n_real: number of real images in the sample.
        n_fake: number of generated images in the sample.
    """
    if not total:
        return Share(count, total)
    ends = binomtest(count, total).proportion_ci(0.95, "exact")
    shares = balanced_share(np.array([count / total, ends.low, ends.high]), label, n_real, n_fake)
    return Share(count, total, *map(float, shares))


@dataclass(frozen=True)
class Bin:
    """The images with probabilities in one bin of a reliability diagram.

    Args:
        start: lowest probability of the bin.
        end: start of the next bin.
        n_real: number of real images.
        n_fake: number of generated images.
        mean: mean probability; None without images.
        generated: share of generated images.
    """

    start: float
    end: float
    n_real: int
    n_fake: int
    mean: float | None
    generated: Share

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "from": self.start,
            "to": self.end,
            "n_real": self.n_real,
            "n_fake": self.n_fake,
            "mean_probability": self.mean,
            "share_generated": self.generated.value,
        }


@dataclass(frozen=True)
class Reliability:
    """Probabilities against the share of generated images, in `ECE_BINS` bins of equal width.

    Args:
        ece: expected calibration error in [0, 1].
        bins: in rising order of the probability.
    """

    ece: float
    bins: tuple[Bin, ...]


def reliability(labels: NDArray, probabilities: NDArray) -> Reliability:
    """Compare probabilities with labels, both classes weighted equally.

    Args:
        labels: [N] integers, 0 real, 1 generated, both present.
        probabilities: [N] of "generated", in [0, 1].
    """
    weights = class_weights(labels)
    n_real, n_fake = (int(count) for count in np.bincount(labels, minlength=2))
    edges = np.linspace(0, 1, ECE_BINS + 1)
    index = np.digitize(probabilities, edges[1:-1])
    bins = []
    for k in range(ECE_BINS):
        inside = index == k
        total, fake = int(inside.sum()), int(labels[inside].sum())
        mean = float(np.average(probabilities[inside], weights=weights[inside])) if total else None
        share = share_of_label(fake, total, 1, n_real, n_fake)
        bins.append(Bin(float(edges[k]), float(edges[k + 1]), total - fake, fake, mean, share))
    return Reliability(
        float(expected_calibration_error(labels, probabilities, weights=weights)), tuple(bins)
    )

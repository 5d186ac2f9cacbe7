"""A calibration with what shows how far to trust it: figures of the images it was fitted on, and by
cross-fitting."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from tabulate import tabulate

from evaluation.calibration import (
    FOLDS,
    NEVER_GENERATED,
    NEVER_REAL,
    Mix,
    Reliability,
    Share,
    chance_ece,
    cross_fitted,
    fit_calibration,
    reliability,
    verdict_shares,
)
from networks.calibration import GENERATED, REAL, UNSURE, Calibration

FEW = 100
"""Images of a class below which the figures are rough."""


@dataclass(frozen=True)
class Assessment:
    """A calibration and its figures.

    Args:
        calibration: fitted on all images; its `ece_after` is by cross-fitting. mix: of the images.
        before, after: bins of sigmoid(logit), and of the cross-fitted probabilities.
        chance: ECE that a perfectly calibrated detector has with so many images, mean and 95 %
            quantile.
        fitted, held_out: shares of wrong verdicts (see `verdict_shares`) on the images of the fit,
            and by cross-fitting.
    """

    calibration: Calibration
    mix: Mix
    before: Reliability
    after: Reliability
    chance: tuple[float, float]
    fitted: dict[str, Share]
    held_out: dict[str, Share]

    def to_dict(self) -> dict[str, Any]:
        """Plain values; None for what is undefined."""
        bins = {
            name: _plain_bins(of) for name, of in (("before", self.before), ("after", self.after))
        }
        verdicts = {
            name: {verdict: asdict(share) for verdict, share in shares.items()}
            for name, shares in (("fitted", self.fitted), ("cross_fitted", self.held_out))
        }
        chance = {"mean": self.chance[0], "quantile_95": self.chance[1]}
        return {
            "calibration": self.calibration.to_dict(),
            "folds": FOLDS,
            "chance_ece": chance,
            "verdicts": verdicts,
            "reliability": bins,
        }


def assess(labels: NDArray, logits: NDArray, target_error: float, prior: float = 0.5, confidence: float = 0.0,
           data: str = "", protocol: str = "", groups: NDArray | None = None,
           max_false_alarms: float = 1.0) -> Assessment:  # fmt: skip
    """Fit a calibration and measure it; arguments and errors are those of `fit_calibration`. FOLDS
    images per class at least."""
    logits = logits.astype(np.float64)
    found = fit_calibration(
        labels, logits, target_error, prior, confidence, data, protocol, groups, max_false_alarms
    )
    mix = Mix(found.n_real, found.n_fake, prior)
    probabilities, verdicts = cross_fitted(labels, logits, found, groups)
    before, after = reliability(labels, expit(logits), mix), reliability(labels, probabilities, mix)
    of_fit = found.probabilities(logits)
    given = np.array([found.verdict(p) for p in of_fit], dtype=object)
    return Assessment(
        replace(found, ece_after=after.ece),
        mix,
        before,
        after,
        chance_ece(of_fit, mix),
        verdict_shares(labels, given, mix),
        verdict_shares(labels, verdicts, mix),
    )


def _plain_bins(bins: Reliability) -> list[dict[str, Any]]:
    return [
        {
            "from": float(bins.edges[k]),
            "to": float(bins.edges[k + 1]),
            "n_real": int(bins.n_real[k]),
            "n_fake": int(bins.n_fake[k]),
            "mean_probability": None if np.isnan(bins.mean[k]) else float(bins.mean[k]),
            "share_generated": None if np.isnan(bins.generated[k]) else float(bins.generated[k]),
        }
        for k in range(len(bins.mean))
    ]


def report(assessment: Assessment) -> str:
    """The assessment as text for a terminal."""
    found = assessment.calibration
    mean, worst = assessment.chance
    meant = f"meant for pictures of which {100 * found.prior:.3g} % are generated"
    odds = math.log(found.prior / (1 - found.prior))
    shift = "" if found.prior == 0.5 else f" {'-' if odds < 0 else '+'} {abs(odds):.3f}"
    goal = f"at most {_percent(found.target_error)} of each verdict wrong"
    goal += (
        f", by the upper bound at confidence {found.confidence:g}"
        if found.confidence
        else ", on these images"
    )
    limited = found.max_false_alarms < 1
    within = (
        f" with at most {_percent(found.max_false_alarms)} of each set's real images above it"
        if limited
        else ""
    )
    rows = [
        ["images", f"{found.n_real:,} real, {found.n_fake:,} generated: {found.data}; protocol {found.protocol}"],
        ["probability", f"sigmoid(logit / {found.temperature:.4g}{shift}), {meant}"],
        ["threshold", f"{found.threshold:.4f}, the best balanced accuracy{within} (a score of {found.score_threshold:.4f})"],
        ["unsure", f"{_band(found)}: {goal}"],
        ["ECE", f"{found.ece_before:.4f} before, {found.ece_after:.4f} after, by cross-fitting ({FOLDS} folds)"],
        ["", f"(a perfectly calibrated detector would have {mean:.4f} with so few images, in 95 % of cases up to {worst:.4f})"],
    ]  # fmt: skip
    tables = []
    for verdict in (GENERATED, REAL):
        tables.append(
            [
                verdict,
                *(_wrong(shares[verdict]) for shares in (assessment.fitted, assessment.held_out)),
            ]
        )
    tables.append(
        [UNSURE, *(_unsure(shares[UNSURE]) for shares in (assessment.fitted, assessment.held_out))]
    )
    headers = ["verdict", "on these images", "by cross-fitting"]
    return (
        f"{tabulate(rows, tablefmt='plain')}\n\n{tabulate(tables, headers, disable_numparse=True)}"
    )


def _band(found: Calibration) -> str:
    if found.lower == NEVER_REAL and found.upper == NEVER_GENERATED:
        return "always"
    if found.lower == NEVER_REAL:
        return f"below {found.upper:.4f}"
    if found.upper == NEVER_GENERATED:
        return f"above {found.lower:.4f}"
    return f"{found.lower:.4f} to {found.upper:.4f}" if found.lower < found.upper else "never"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _wrong(share: Share) -> str:
    if share.value is None or share.low is None or share.high is None:
        return "never given"
    return f"{share.count:,} of {share.total:,} wrong: {_percent(share.value)} ({_percent(share.low)} to {_percent(share.high)})"


def _unsure(share: Share) -> str:
    return f"{share.count:,} of {share.total:,} images: {_percent(share.value or 0)}"


def doubts(assessment: Assessment) -> Iterator[str]:
    """What makes the calibration doubtful, in words."""
    found = assessment.calibration
    if min(found.n_real, found.n_fake) < FEW:
        yield f"fewer than {FEW} images of a class: threshold, band and ECE are rough, see the intervals"
    for verdict, other, missing in (
        (GENERATED, 0, found.upper == NEVER_GENERATED),
        (REAL, 1, found.lower == NEVER_REAL),
    ):
        given, target = assessment.fitted[verdict].total, _percent(found.target_error)
        if missing:
            share = "the upper bound of the wrong share" if found.confidence else "the wrong share"
            yield (
                f'no band keeps {share} of "{verdict}" at {target}: that verdict is never given; more images, or a larger'
                " --target_error"
            )
        elif not found.confidence and assessment.mix.share(1 / given, other) > found.target_error:
            yield (
                f'"{verdict}" was given to {given} images, too few to show a wrong share of {target}: a single wrong one would'
                " be more; --confidence 0.95 asks for evidence"
            )
    if found.ece_after > assessment.chance[1]:
        yield (
            f"ECE {found.ece_after:.3f} after calibration is more than chance explains ({assessment.chance[1]:.3f}): a"
            " temperature alone does not make these scores probabilities"
        )

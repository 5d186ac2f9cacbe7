"""Format a measured calibration for the terminal, with its warnings."""

from collections.abc import Iterator

from tabulate import tabulate

from evaluation.calibration import NEVER_GENERATED, NEVER_REAL, Measured
from evaluation.reliability import Share
from networks.calibration import GENERATED, REAL, UNSURE, Calibration

MIN_IMAGES_PER_CLASS = 100  # below this, threshold, band and ECE are rough


def report(measured: Measured) -> str:
    """Return the calibration and its verdicts as text."""
    calibration = measured.calibration
    target = _percent(calibration.target_error)
    images = (
        f"{calibration.n_real:,} real, {calibration.n_fake:,} generated: {calibration.data};"
        f" protocol {calibration.protocol}"
    )
    threshold = f"{calibration.threshold:.4f} (score {calibration.score_threshold:.4f})"
    limit = ""
    if calibration.max_false_alarms < 1:
        limit = (
            f", at most {_percent(calibration.max_false_alarms)} of each set's real images above it"
        )
    rows = [
        ["images", images],
        ["probability", f"sigmoid(logit / {calibration.temperature:.4g})"],
        ["threshold", f"{threshold}: best balanced accuracy{limit}"],
        ["unsure", f"{_band(calibration)}: at most {target} of each verdict wrong on these images"],
        ["ECE", f"{calibration.ece_before:.4f} before, {calibration.ece_after:.4f} after"],
    ]
    verdicts = [
        [GENERATED, _wrong(measured.verdicts[GENERATED])],
        [REAL, _wrong(measured.verdicts[REAL])],
        [UNSURE, _unsure(measured.verdicts[UNSURE])],
    ]
    headers = ["verdict", "on these images (95 % confidence interval)"]
    tables = (
        tabulate(rows, tablefmt="plain"),
        tabulate(verdicts, headers, disable_numparse=True),
    )
    return "\n\n".join(tables)


def _band(calibration: Calibration) -> str:
    lower, upper = calibration.lower, calibration.upper
    if lower == NEVER_REAL and upper == NEVER_GENERATED:
        return "always"
    if lower == NEVER_REAL:
        return f"below {upper:.4f}"
    if upper == NEVER_GENERATED:
        return f"above {lower:.4f}"
    return f"{lower:.4f} to {upper:.4f}" if lower < upper else "never"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _wrong(share: Share) -> str:
    if share.value is None or share.low is None or share.high is None:
        return "never given"
    interval = f"{_percent(share.low)} to {_percent(share.high)}"
    return f"{share.count:,} of {share.total:,} wrong: {_percent(share.value)} ({interval})"


def _unsure(share: Share) -> str:
    return f"{share.count:,} of {share.total:,} images: {_percent(share.value or 0)}"


def warnings(calibration: Calibration) -> Iterator[str]:
    """Yield the reasons to trust the calibration less, each with its remedy."""
    if min(calibration.n_real, calibration.n_fake) < MIN_IMAGES_PER_CLASS:
        yield (
            f"fewer than {MIN_IMAGES_PER_CLASS} images of a class, so threshold, band and ECE are"
            " rough; add validation images"
        )
    never = {
        GENERATED: calibration.upper == NEVER_GENERATED,
        REAL: calibration.lower == NEVER_REAL,
    }
    for verdict in (name for name, is_never in never.items() if is_never):
        yield (
            f'"{verdict}" is never given: no band keeps its wrong share at'
            f" {_percent(calibration.target_error)}; add images or raise --target_error"
        )

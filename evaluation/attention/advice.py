"""What may help attention that does little: flags, and why."""

from collections.abc import Sequence

Advice = tuple[str, str]
"""Flags of train.py (or of the script that they begin with), and why."""

DIVERSITY = (
    "--attention_diversity_weight 0.1",
    "makes attention differ between images, without a gain where we measured it: the mean AUC was 2.3 points below that of uniform "
    "weights (change [-5.3, +0.7] over three seeds, docs/research-log.md, 1)",
)
WIDER = ("--feature_dim 256", "more features per branch to decide by")
OTHER_START = ("--seed 1", "another initialization: does attention end up the same?")
UNIFORM_MAY_CHANGE = (
    DIVERSITY,
    WIDER,
    ("--attention_reduction 1", "a wider hidden layer of the attention"),
    (
        "--niter 100",
        "longer training, or twice the epochs that it had: attention may not have moved yet",
    ),
    OTHER_START,
    ("--init_type kaiming", "another kind of initialization"),
)
LOOK = (
    "visualize_attention.py --save_npr_maps",
    "look at the NPR maps to verify: do the scales see the same? If they tell equally much, uniform attention is optimal",
)


def against_equal_scales(scales: Sequence[float]) -> tuple[Advice, ...]:
    """The control of as many branches at one scale; none for a model that is one."""
    if len(set(scales)) < 2:
        return ()
    flags = f"--npr_scales {','.join(['0.5'] * len(scales))}"
    return ((flags, "the control of equal scales: what it does as well is not due to the scales"),)


def one_branch(scale: float, why: str) -> Advice:
    """A model of this scale alone."""
    return (f"--npr_scales {float(scale)!r}", why)

"""What attention does, in words, from its statistics: thresholds and tests, so that the same attention gets the same verdict.

Guides read attention by eye: all weights near 1/S are uniform; weights that vary from image to image adapt, which is good; a
high weight at 0.25 means coarse artifacts, as of GANs that grow progressively, at 0.5 the scale of the single-scale detector, at
0.75 fine artifacts of subtle up-sampling. The constants below say the same in numbers, for any scales.
"""

from dataclasses import dataclass
from typing import Any

from evaluation.attention_leanings import leanings, reading
from evaluation.attention_statistics import NEARLY_ALL

KINDS = ("collapsed", "uniform", "one scale dominates", "varies by image", "varies by generator", "varies by class", "fixed",
         "too few images")  # fmt: skip
UNIFORM = 0.98
"""Uniform: an image's entropy is on average at least this share of ln S, with the whole interval (three: within 0.1 or so)."""
DOMINANT = 0.25
"""One scale dominates: its mean weight m has come this share of the way from 1/S to 1, with the whole interval (0.5 of three)."""
COLLAPSED = 0.95
"""Collapsed: one scale takes `NEARLY_ALL` of this share of the images."""
VARIES = 0.2
"""Varies by image: standard deviation within generator and class (root mean square over scales), as a share of the largest that
weights with mean 1/S can have, sqrt(S - 1) / S. Three scales: 0.094. Uniform attention cannot reach it."""
DIFFERENT = 0.05
"""Varies by generator or class: Jensen-Shannon distance of the groups' means from that of all images, beyond what chance gives.
Of three scales it is a shift of about 0.06 between 0.33 and the others."""
SIGNIFICANT = 0.05
NAMED = 3
"""So many generators are named in a sentence."""

DECIDE = (
    ("--attention_diversity_weight 0.1", "makes attention differ between images; where we tried, AUC did not rise"),
    ("--feature_dim 256", "more features per branch to decide by"),
    ("--attention_reduction 1", "a wider hidden layer of the attention"),
    ("--niter", "more epochs than now: attention may not have moved yet"),
)


@dataclass(frozen=True)
class Evidence:
    """A figure (None: undefined), the threshold it was held against (None: for information), and on which side the kind lies."""

    name: str
    value: float | None
    threshold: float | None = None
    side: str = ""

    @property
    def holds(self) -> bool:
        """Whether the figure is on the kind's side of its threshold; always without one."""
        if self.threshold is None:
            return True
        return self.value is not None and (
            self.value >= self.threshold if self.side == ">=" else self.value < self.threshold
        )


@dataclass(frozen=True)
class Verdict:
    """A kind of `KINDS`, a sentence with numbers, evidence that all holds, and advice: (flags of train.py, why)."""

    kind: str
    sentence: str
    evidence: tuple[Evidence, ...]
    advice: tuple[tuple[str, str], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        evidence = [{"name": e.name, "value": e.value, "threshold": e.threshold, "side": e.side} for e in self.evidence]
        advice = [{"flags": flags, "why": why} for flags, why in self.advice]
        return {"kind": self.kind, "sentence": self.sentence, "evidence": evidence, "advice": advice}


def attention_verdicts(statistics: dict[str, Any], controls: dict[str, Any] | None = None) -> list[Verdict]:
    """The verdicts that hold, in the order of `KINDS`; at least one. Several may: attention can vary by image and by generator.

    Uniform and collapsed attention get no other verdict: what varies there is too small to matter.

    Args:
        statistics: of `attention_statistics`. controls: of `attention_controls` for the same images, for advice.

    Raises:
        ValueError: one scale only, whose weight is always 1.
    """
    keys, pooled = statistics["keys"], statistics["pooled"]
    count = len(keys)
    if count < 2:
        raise ValueError("attention over one scale says nothing")
    everything = pooled["groups"]["all"]
    of_scales, entropy = everything["scales"], everything["entropy"]
    top = max(keys, key=lambda key: of_scales[key]["mean"])
    means = ", ".join(f"{of_scales[key]['mean']:.2f} at {key}" for key in keys)
    scale = statistics["scales"][keys.index(top)]
    equal = f"--npr_scales {','.join(['0.5'] * count)}"
    control = (equal, "the control of equal scales: what it does as well is not due to the scales")

    collapsed = Evidence(
        f"share of images that give {top} at least {NEARLY_ALL:g}", of_scales[top]["nearly_all"], COLLAPSED, ">="
    )
    if collapsed.holds:
        said = f"attention has collapsed: scale {top} ({reading(scale, statistics['scales'])}) gets at least {NEARLY_ALL:g} in"
        sentence = f"{said} {collapsed.value:.0%} of the images; mean weights {means}"
        alone = (f"--npr_scales {top}", "one branch alone: is it as good?")
        return [Verdict("collapsed", sentence, (collapsed,), (DECIDE[0], alone, control))]
    share = entropy["relative_low"] if entropy["relative_low"] is not None else entropy["relative_mean"]
    uniform = Evidence("entropy per image over ln S, lower end", share, UNIFORM, ">=")
    if uniform.holds:
        said = f"attention is uniform: an image's entropy is {entropy['relative_mean']:.1%} of its maximum"
        sentence = f"{said}; mean weights {means}"
        return [_uniform(sentence, uniform, control, controls)]

    verdicts = []
    low = of_scales[top]["low"] if of_scales[top]["low"] is not None else of_scales[top]["mean"]
    next_high = max(of_scales[key]["mean" if of_scales[key]["high"] is None else "high"] for key in keys if key != top)
    dominant = (
        Evidence(f"mean weight of {top}, lower end", low, (1 + (count - 1) * DOMINANT) / count, ">="),
        Evidence("its distance from the next one's upper end", low - next_high, 0.0, ">="),
    )
    if all(one.holds for one in dominant):
        sentence = f"scale {top} dominates ({reading(scale, statistics['scales'])}): mean weights {means}"
        verdicts.append(Verdict("one scale dominates", sentence, dominant, (*_alone(top, controls), control)))
    within = pooled["within_std"]
    spread = None if within is None else (sum(value**2 for value in within.values()) / count) ** 0.5
    varies = Evidence(
        "standard deviation within generator and class", spread, VARIES * (count - 1) ** 0.5 / count, ">="
    )
    if varies.holds:
        shares = ", ".join(f"{of_scales[key]['top']:.0%} for {key}" for key in keys)
        sentence = (
            f"attention varies from image to image by {spread:.2f} within generator and class; highest weight: {shares}"
        )
        verdicts.append(Verdict("varies by image", sentence + _matters(controls), (varies,), (control,)))
    if (evidence := _differ(statistics["between"]["overall"])) is not None:
        pairs = statistics["between"]["pairs"]
        apart = sum(pair["p_holm"] < SIGNIFICANT for pair in pairs)
        said = (
            f"attention differs between generators (p = {evidence[0].value:.2g}; {apart} of {len(pairs)} pairs apart)"
        )
        verdicts.append(Verdict("varies by generator", f"{said}: {_who_leans(statistics)}", evidence, (control,)))
    classes = statistics["classes"]
    if (evidence := _differ(classes)) is not None:
        said = f"attention differs between real and generated images: distance {classes['distance']:.2f}, p = {classes['p']:.2g}"
        verdicts.append(Verdict("varies by class", said, evidence, (control,)))
    if verdicts:
        return verdicts
    if spread is None:
        return [
            Verdict(
                "too few images",
                f"images that are alike in generator and class are too few to tell: {everything['count']} in all",
                (),
                (),
            )
        ]
    below = Evidence(varies.name, spread, varies.threshold, "<")
    sentence = f"attention is nearly the same for all images, neither uniform nor on one scale: mean weights {means}"
    return [Verdict("fixed", sentence, (below,), (DECIDE[0], control))]


def _uniform(sentence: str, evidence: Evidence, control: tuple[str, str], controls: dict[str, Any] | None) -> Verdict:
    """Uniform is right where attention does not matter, and ranking is no better with one branch alone or without one."""
    if controls is None or controls["attention"] != "no":
        return Verdict("uniform", sentence, (evidence,), (*DECIDE, control))
    other = [one for one in controls["conditions"] if one["name"].startswith(("only_", "without_"))]
    if better := [one for one in other if one["matters"] == "harms"]:
        return Verdict("uniform", f"{sentence}; yet {better[0]['sentence']}", (evidence,), (*DECIDE, control))
    right = "no branch alone ranks better, nor do all but one, and attention does not matter here: uniform is right"
    return Verdict("uniform", f"{sentence}; {right}", (evidence,), (control,))


def _alone(key: str, controls: dict[str, Any] | None) -> tuple[tuple[str, str], ...]:
    found = [one for one in (controls or {"conditions": []})["conditions"] if one["name"] == f"only_{key}"]
    enough = [one for one in found if one["matters"] in ("no", "harms")]
    return tuple((f"--npr_scales {key}", "alone it is as good: one branch is enough") for _ in enough)


def _matters(controls: dict[str, Any] | None) -> str:
    said = {
        "no": "; that does not change the scores' ranking",
        "helps": "; that helps",
        "harms": "; that harms",
        "unclear": "; whether that matters is unclear",
    }
    return said.get(str(controls["attention"]), "") if controls else ""


def _differ(test: dict[str, float] | None) -> tuple[Evidence, ...] | None:
    """Evidence that groups differ, beyond chance and enough to care; None if they do not."""
    if test is None:
        return None
    beyond = max(0.0, test["statistic"] - test["expected"]) ** 0.5
    evidence = (
        Evidence("p (permutations)", test["p"], SIGNIFICANT, "<"),
        Evidence("distance beyond chance", beyond, DIFFERENT, ">="),
    )
    return evidence if all(one.holds for one in evidence) else None


def _who_leans(statistics: dict[str, Any]) -> str:
    leaning = leanings(statistics)
    parts = []
    for key in statistics["keys"]:
        names = [one["generator"] for one in leaning if one["key"] == key]
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        if names:
            parts.append(f"{key} leads for {', '.join(names[:NAMED])}{more}")
    return "; ".join(parts) or "none of them leans to one scale"

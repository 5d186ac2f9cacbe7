"""What attention does, in words, from its statistics: thresholds and tests, so that the same
attention gets the same verdict.

Guides read attention by eye: all weights near 1/S are uniform; weights that vary from image to image adapt, which is good; a
high weight at 0.25 means coarse artifacts, as of GANs that grow progressively, at 0.5 the scale of the single-scale detector, at
0.75 fine artifacts of subtle up-sampling. The constants below say the same in numbers, for any scales.
"""

from dataclasses import dataclass
from typing import Any

from evaluation.attention.advice import (
    DIVERSITY,
    LOOK,
    OTHER_START,
    UNIFORM_MAY_CHANGE,
    Advice,
    against_equal_scales,
    one_branch,
)
from evaluation.attention.controls import ATTENTION_CONDITIONS
from evaluation.attention.leanings import leanings, reading
from evaluation.attention.statistics import FEWEST_IMAGES, NEARLY_ALL
from networks.npr import scale_label

KINDS = ("collapsed", "uniform", "one scale dominates", "varies by image", "varies by generator", "varies by class", "fixed",
         "too few images")  # fmt: skip
UNIFORM = 0.98
"""Uniform: an image's entropy is on average at least this share of ln S, with the whole interval
(three: within 0.1 or so)."""
DOMINANT = 0.25
"""One scale dominates: its mean weight m has come this share of the way from 1/S to 1, with the
whole interval (0.5 of three)."""
COLLAPSED = 0.9
"""Collapsed: one scale takes `NEARLY_ALL` of this share of the images, with the whole interval (96
of 100 images, or all of 36)."""
VARIES = 0.2
"""Varies by image: standard deviation within generator and class (root mean square over scales),
with the whole interval, as a share of the largest that weights with mean 1/S can have, sqrt(S - 1)
/ S. Three scales: 0.094. Uniform attention has less."""
DIFFERENT = 0.05
"""Varies by generator or class: Jensen-Shannon distance between the mean of a group and that of the
others, beyond what chance gives, or of groups that surely differ. Of three scales it is a shift of
about 0.06 between 0.33 and the others."""
SIGNIFICANT = 0.05
AS_MUCH = 0.8
"""Real images differ between sets as much as generated ones: by at least this share of their
distance."""
NAMED = 3
"""So many generators are named in a sentence."""


@dataclass(frozen=True)
class Evidence:
    """A figure (None: undefined), the threshold it was held against (None: for information), and on
    which side the kind lies."""

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
    """A kind of `KINDS`, a sentence with numbers, evidence that all holds, and advice: (flags,
    why)."""

    kind: str
    sentence: str
    evidence: tuple[Evidence, ...] = ()
    advice: tuple[Advice, ...] = ()

    @property
    def holds(self) -> bool:
        return all(one.holds for one in self.evidence)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        evidence = [
            {"name": e.name, "value": e.value, "threshold": e.threshold, "side": e.side}
            for e in self.evidence
        ]
        advice = [{"flags": flags, "why": why} for flags, why in self.advice]
        return {
            "kind": self.kind,
            "sentence": self.sentence,
            "evidence": evidence,
            "advice": advice,
        }


def attention_verdicts(
    statistics: dict[str, Any], controls: dict[str, Any] | None = None
) -> list[Verdict]:
    """The verdicts that hold, in the order of `KINDS`; at least one. Several may: attention can
    vary by image and by generator.

    They are about all images together, each once, so that a set with more images counts more; only
    'varies by generator' takes each generator for one. Collapsed and uniform attention can also
    vary by generator or class, and nothing else.

    Args:
        statistics: of `attention_statistics`. controls: of `attention_controls` for the same
            images, for advice.

    Raises:
        ValueError: one scale only, whose weight is always 1.
    """
    if len(statistics["keys"]) < 2:
        raise ValueError("attention over one scale says nothing")
    count = statistics["pooled"]["groups"]["all"]["count"]
    if count < FEWEST_IMAGES:
        said = f"{count} image{'s' * (count != 1)}: too few to say what attention does; at least {FEWEST_IMAGES} are needed"
        return [Verdict("too few images", said)]
    case = _Case(statistics, controls)
    groups = [
        verdict for verdict in (case.by_generator(), case.by_class()) if verdict and verdict.holds
    ]
    for whole in (case.collapsed(), case.uniform()):
        if whole.holds:
            return [whole, *groups]
    single = [
        verdict for verdict in (case.dominates(), case.by_image()) if verdict and verdict.holds
    ]
    return [*single, *groups] or [case.fixed()]


class _Case:
    """Each kind of verdict on one model's attention, whether it holds or not; None where there is
    no figure for it."""

    def __init__(self, statistics: dict[str, Any], controls: dict[str, Any] | None) -> None:
        self.statistics, self.controls = statistics, controls
        self.keys, self.scales, self.pooled = (
            statistics["keys"],
            statistics["scales"],
            statistics["pooled"],
        )
        self.count, everything = len(self.keys), self.pooled["groups"]["all"]
        self.of_scales, self.entropy = everything["scales"], everything["entropy"]
        self.top = max(self.keys, key=lambda key: self.of_scales[key]["mean"])
        self.scale, self.label = self.scales[self.keys.index(self.top)], scale_label(self.top)
        self.read = reading(self.scale, self.scales)
        self.means = ", ".join(
            f"{self.of_scales[key]['mean']:.2f} at {scale_label(key)}" for key in self.keys
        )
        self.control = against_equal_scales(self.scales)

    def collapsed(self) -> Verdict:
        top = self.of_scales[self.top]
        name = f"share of images that give {self.label} at least {NEARLY_ALL:g}, lower end"
        sentence = (
            f"attention has collapsed: scale {self.label} ({self.read}) gets at least {NEARLY_ALL:g} in "
            f"{top['nearly_all']:.0%} of the images; mean weights {self.means}"
        )
        alone = one_branch(self.scale, "one branch alone: is it as good?")
        evidence = (Evidence(name, top["nearly_all_low"], COLLAPSED, ">="),)
        return Verdict(
            "collapsed", sentence, evidence, (DIVERSITY, OTHER_START, alone, *self.control)
        )

    def uniform(self) -> Verdict:
        """Uniform is right where attention does not matter, and ranking is no better with one
        branch alone or without one."""
        share = _either(self.entropy["relative_low"], self.entropy["relative_mean"])
        evidence = (Evidence("entropy per image over ln S, lower end", share, UNIFORM, ">="),)
        said = f"attention is uniform: an image's entropy is {self.entropy['relative_mean']:.1%} of its maximum"
        said, advice = (
            f"{said}; mean weights {self.means}",
            (*UNIFORM_MAY_CHANGE, LOOK, *self.control),
        )
        conditions = self.controls["conditions"] if self.controls else []
        if conditions and all(
            one["matters"] == "no" for one in conditions if one["name"] in ATTENTION_CONDITIONS
        ):
            others = [one for one in conditions if one["name"] not in ATTENTION_CONDITIONS]
            if better := [one for one in others if one["matters"] == "harms"]:
                said = f"{said}; yet {better[0]['sentence']}"
            elif all(one["matters"] in ("no", "helps") for one in others):
                said += "; no branch alone ranks better, nor do all but one, and attention does not matter here: uniform is right"
                advice = (LOOK, *self.control)
        return Verdict("uniform", said, evidence, advice)

    def dominates(self) -> Verdict:
        top, others = (
            self.of_scales[self.top],
            [self.of_scales[key] for key in self.keys if key != self.top],
        )
        low = _either(top["low"], top["mean"])
        next_high = max(_either(one["high"], one["mean"]) for one in others)
        evidence = (
            Evidence(
                f"mean weight of {self.label}, lower end",
                low,
                (1 + (self.count - 1) * DOMINANT) / self.count,
                ">=",
            ),
            Evidence("its distance from the next one's upper end", low - next_high, 0.0, ">="),
        )
        sentence = f"scale {self.label} dominates ({self.read}): mean weights {self.means}"
        conditions = self.controls["conditions"] if self.controls else []
        enough = any(
            one["name"] == f"only_{self.top}" and one["matters"] in ("no", "harms")
            for one in conditions
        )
        alone = (
            (one_branch(self.scale, "alone it is as good: one branch is enough"),) if enough else ()
        )
        return Verdict("one scale dominates", sentence, evidence, (*alone, *self.control))

    def by_image(self) -> Verdict | None:
        if (spread := self.pooled["within_spread"]) is None:
            return None
        low = _either(spread["low"], spread["value"])
        evidence = (
            Evidence(
                "standard deviation within generator and class, lower end", low, self.varying, ">="
            ),
        )
        shares = ", ".join(
            f"{self.of_scales[key]['top']:.0%} for {scale_label(key)}" for key in self.keys
        )
        said = f"attention varies from image to image by {spread['value']:.2f} within generator and class; highest weight: {shares}"
        return Verdict(
            "varies by image",
            said + _matters((self.controls or {}).get("per_image")),
            evidence,
            self.control,
        )

    @property
    def varying(self) -> float:
        """The standard deviation from which on attention varies."""
        return VARIES * (self.count - 1) ** 0.5 / self.count

    def by_generator(self) -> Verdict | None:
        between = self.statistics["between"]
        if (evidence := _apart(between)) is None:
            return None
        pairs, names = (
            between["pairs"],
            {f"{g['family']}/{g['name']}": g["name"] for g in self.statistics["generators"]},
        )
        most = max(
            between["from_rest"], key=lambda one: (one["p_holm"] < SIGNIFICANT, one["distance"])
        )
        differ = sum(pair["p_holm"] < SIGNIFICANT for pair in pairs)
        found = f"p = {evidence[0].value:.2g}; {differ} of {len(pairs)} pairs apart"
        farthest = f"farthest from the rest: {names[most['generator']]}, by {most['distance']:.2f}"
        sentence = f"attention differs between generators ({found}; {farthest}): {_who_leans(self.statistics)}"
        per_generator = (self.controls or {}).get("per_generator")
        sentence += _matters(per_generator and per_generator["matters"]) + self._real_images()
        return Verdict("varies by generator", sentence, evidence, self.control)

    def _real_images(self) -> str:
        """What the same test on real images says: where they differ alike, sets may differ by what
        they show."""
        fake, real = self.statistics["between"], self.statistics["between_real"]
        if (evidence := _apart(real)) is None:
            return ""
        if not all(one.holds for one in evidence):
            return "; the sets' real images do not differ"
        by, of_fake = _largest(real), _largest(fake)
        figures = f"({by:.2f} against {of_fake:.2f})"
        if by >= AS_MUCH * of_fake:
            return f"; the sets' real images differ as much {figures}: it may be what they show, not the generators"
        return f"; the sets' real images differ, too, but less {figures}"

    def by_class(self) -> Verdict | None:
        if (classes := self.statistics["classes"]) is None:
            return None
        beyond = max(0.0, classes["statistic"] - classes["expected"]) ** 0.5
        evidence = (
            Evidence("p (permutations)", classes["p"], SIGNIFICANT, "<"),
            Evidence("distance beyond chance", beyond, DIFFERENT, ">="),
        )
        said = f"attention differs between real and generated images: distance {classes['distance']:.2f}, p = {classes['p']:.2g}"
        return Verdict("varies by class", said, evidence, self.control)

    def fixed(self) -> Verdict:
        if (spread := self.pooled["within_spread"]) is None:
            return Verdict(
                "too few images",
                "no generator has two images of a class: too few to tell what attention does",
            )
        high, means = _either(spread["high"], spread["value"]), f"mean weights {self.means}"
        evidence = Evidence(
            "standard deviation within generator and class, upper end", high, self.varying, "<"
        )
        if not evidence.holds:
            ends = (
                f"{spread['value']:.3f} [{_either(spread['low'], spread['value']):.3f}, {high:.3f}]"
            )
            said = f"attention may be fixed or vary from image to image, by {ends} (threshold {self.varying:.3f})"
            return Verdict("too few images", f"{said}: too few images to tell; {means}")
        sentence = f"attention is nearly the same for all images, neither surely uniform nor surely on one scale: {means}"
        return Verdict("fixed", sentence, (evidence,), (DIVERSITY, OTHER_START, *self.control))


def _either(end: float | None, value: float) -> float:
    """The end of an interval, or the value itself where there is none."""
    return value if end is None else end


def _matters(kind: str | None) -> str:
    said = {
        "no": "; that does not change the scores' ranking",
        "helps": "; that helps",
        "harms": "; that harms",
        "unclear": "; whether that matters is unclear",
    }
    return said[kind] if kind else ""


def _largest(between: dict[str, Any]) -> float:
    """The largest distance of a generator from the rest, beyond chance."""
    overall = between["overall"]
    return max(0.0, overall["largest"] - overall["largest_expected"]) ** 0.5


def _apart(between: dict[str, Any]) -> tuple[Evidence, ...] | None:
    """Evidence that generators differ, beyond chance and enough to care, whether it holds or not;
    None where there is no test."""
    if (overall := between["overall"]) is None:
        return None
    distance = Evidence(
        "largest distance of a generator from the rest, beyond chance",
        _largest(between),
        DIFFERENT,
        ">=",
    )
    if not distance.holds:
        tests = (*between["pairs"], *between["from_rest"])
        surely = max((one["distance"] for one in tests if one["p_holm"] < SIGNIFICANT), default=0.0)
        distance = Evidence(
            "largest distance among those that differ (Holm)", surely, DIFFERENT, ">="
        )
    return Evidence("p (permutations)", overall["p"], SIGNIFICANT, "<"), distance


def _who_leans(statistics: dict[str, Any]) -> str:
    leaning = leanings(statistics)
    parts = []
    for key in statistics["keys"]:
        names = [one["generator"] for one in leaning if one["key"] == key]
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        if names:
            parts.append(f"{scale_label(key)} leads for {', '.join(names[:NAMED])}{more}")
    return "; ".join(parts) or "none of them leans to one scale"

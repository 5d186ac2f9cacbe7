"""Verdicts in words on what attention does, by thresholds and tests on its statistics.

The constants below are the definitions of the words. docs/attention.md says what the words mean for
a model and what may help.
"""

from dataclasses import asdict, dataclass
from typing import Any

from evaluation.attention.controls import ATTENTION_CONDITIONS
from evaluation.attention.leanings import from_uniform, leanings, reading
from evaluation.attention.statistics import MIN_IMAGES_FOR_VERDICT, NEARLY_ALL
from networks.npr import scale_label

KINDS = ("collapsed", "uniform", "one scale dominates", "varies by image", "varies by generator", "varies by class", "fixed",
         "too few images")  # fmt: skip
UNIFORM = 0.98
"""Uniform: an image's entropy is on average at least this share of ln S, with the whole interval
(three scales: weights within 0.1 or so)."""
DOMINANT = 0.25
"""One scale dominates: its mean weight has come this share of the way from 1/S to 1, with the whole
interval (0.5 of three)."""
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
SIGNIFICANT = 0.05  # p-values below this
AS_MUCH = 0.8  # real images differ as much as fake ones from this share of their distance on
NAMED = 3  # generators named in a sentence


@dataclass(frozen=True)
class Evidence:
    """A number, the threshold it was held against, and the side ('>=' or '<') of the verdict."""

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
    """A kind of `KINDS`, a sentence with numbers, and evidence that all holds."""

    kind: str
    sentence: str
    evidence: tuple[Evidence, ...] = ()

    @property
    def holds(self) -> bool:
        return all(one.holds for one in self.evidence)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self) | {"evidence": [asdict(one) for one in self.evidence]}


def attention_verdicts(
    statistics: dict[str, Any], controls: dict[str, Any] | None = None
) -> list[Verdict]:
    """Return the verdicts that hold, in the order of `KINDS`; at least one.

    Several may hold: attention can vary by image and by generator. They are about all images
    together, each once, so that a set with more images counts more; only 'varies by generator'
    takes each generator for one. Collapsed and uniform attention can also vary by generator or
    class, and nothing else.

    Args:
        statistics: of `attention_statistics`.
        controls: of `attention_controls` for the same images, to say whether it matters.

    Raises:
        ValueError: one scale only, whose weight is always 1.
    """
    if len(statistics["keys"]) < 2:
        raise ValueError("attention over one scale says nothing")
    count = statistics["pooled"]["groups"]["all"]["count"]
    if count < MIN_IMAGES_FOR_VERDICT:
        few = f"{count} image{'s' * (count != 1)}: too few to say what attention does"
        return [Verdict("too few images", f"{few}; at least {MIN_IMAGES_FOR_VERDICT} are needed")]
    case = _Case(statistics, controls)
    groups = [one for one in (case.by_generator(), case.by_class()) if one and one.holds]
    for whole in (case.collapsed(), case.uniform()):
        if whole.holds:
            return [whole, *groups]
    single = [one for one in (case.dominates(), case.by_image()) if one and one.holds]
    return [*single, *groups] or [case.fixed()]


class _Case:
    """Each kind of verdict on one model's attention, whether it holds or not; None where it is
    undefined."""

    def __init__(self, statistics: dict[str, Any], controls: dict[str, Any] | None) -> None:
        self.statistics, self.controls = statistics, controls or {}
        self.keys, self.spread = statistics["keys"], statistics["pooled"]["within_spread"]
        everything = statistics["pooled"]["groups"]["all"]
        self.of_scales, self.entropy = everything["scales"], everything["entropy"]
        self.top = max(self.keys, key=lambda key: self.of_scales[key]["mean"])
        scale = statistics["scales"][self.keys.index(self.top)]
        self.named = f"scale {scale_label(self.top)} ({reading(scale, statistics['scales'])})"
        means = [f"{self.of_scales[key]['mean']:.2f} at {scale_label(key)}" for key in self.keys]
        self.means = f"mean weights {', '.join(means)}"
        # the standard deviation from which on attention varies
        self.varying = VARIES * (len(self.keys) - 1) ** 0.5 / len(self.keys)

    def collapsed(self) -> Verdict:
        top, label = self.of_scales[self.top], scale_label(self.top)
        name = f"share of images that give {label} at least {NEARLY_ALL:g}, lower end"
        most = f"gets at least {NEARLY_ALL:g} in {top['nearly_all']:.0%} of the images"
        sentence = f"attention has collapsed: {self.named} {most}; {self.means}"
        evidence = Evidence(name, top["nearly_all_low"], COLLAPSED, ">=")
        return Verdict("collapsed", sentence, (evidence,))

    def uniform(self) -> Verdict:
        """Uniform is right where attention does not matter, and ranking is no better with one
        branch alone or without one."""
        mean = self.entropy["relative_mean"]
        share = _either(self.entropy["relative_low"], mean)
        evidence = Evidence("entropy per image over ln S, lower end", share, UNIFORM, ">=")
        share_of_maximum = f"an image's entropy is {mean:.1%} of its maximum"
        sentence = f"attention is uniform: {share_of_maximum}; {self.means}"
        conditions = self.controls.get("conditions", [])
        of_attention = [one for one in conditions if one["name"] in ATTENTION_CONDITIONS]
        of_branches = [one for one in conditions if one not in of_attention]
        if of_attention and all(one["matters"] == "no" for one in of_attention):
            if better := [one for one in of_branches if one["matters"] == "harms"]:
                sentence += f"; yet {better[0]['sentence']}"
            elif all(one["matters"] in ("no", "helps") for one in of_branches):
                sentence += (
                    "; no branch alone ranks better, nor do all but one, and attention does not "
                    "matter here: uniform is right"
                )
        return Verdict("uniform", sentence, (evidence,))

    def dominates(self) -> Verdict:
        top = self.of_scales[self.top]
        low = _either(top["low"], top["mean"])
        others = [self.of_scales[key] for key in self.keys if key != self.top]
        lead = low - max(_either(one["high"], one["mean"]) for one in others)
        name = f"mean weight of {scale_label(self.top)}, lower end"
        evidence = (
            Evidence(name, low, from_uniform(DOMINANT, len(self.keys)), ">="),
            Evidence("its distance from the next one's upper end", lead, 0.0, ">="),
        )
        return Verdict("one scale dominates", f"{self.named} dominates: {self.means}", evidence)

    def by_image(self) -> Verdict | None:
        if self.spread is None:
            return None
        low = _either(self.spread["low"], self.spread["value"])
        name = "standard deviation within generator and class, lower end"
        tops = [f"{self.of_scales[key]['top']:.0%} for {scale_label(key)}" for key in self.keys]
        sentence = (
            f"attention varies from image to image by {self.spread['value']:.2f} within generator "
            f"and class; highest weight: {', '.join(tops)}{_matters(self.controls.get('per_image'))}"
        )
        return Verdict("varies by image", sentence, (Evidence(name, low, self.varying, ">="),))

    def by_generator(self) -> Verdict | None:
        between = self.statistics["between"]
        if (evidence := _apart(between)) is None:
            return None
        rest, generators = between["from_rest"], self.statistics["generators"]
        names = {f"{one['family']}/{one['name']}": one["name"] for one in generators}
        differ = [one for one in rest if one["p_holm"] < SIGNIFICANT]
        most = max(differ or rest, key=lambda one: one["distance"])
        per_generator = self.controls.get("per_generator") or {}
        sentence = (
            f"attention differs between generators (p = {evidence[0].value:.2g}; {len(differ)} of "
            f"{len(rest)} apart from the rest; farthest: {names[most['generator']]}, "
            f"by {most['distance']:.2f}): {_who_leans(self.statistics)}"
            f"{_matters(per_generator.get('matters'))}{self._real_images()}"
        )
        return Verdict("varies by generator", sentence, evidence)

    def _real_images(self) -> str:
        """Say how much the sets' real images differ: where they differ as much, sets may differ by
        what they show."""
        real = self.statistics["between_real"]
        if (evidence := _apart(real)) is None:
            return ""
        if not all(one.holds for one in evidence):
            return "; the sets' real images do not differ"
        by, of_fake = _largest(real), _largest(self.statistics["between"])
        numbers = f"({by:.2f} against {of_fake:.2f})"
        if by >= AS_MUCH * of_fake:
            cause = "it may be what they show, not the generators"
            return f"; the sets' real images differ as much {numbers}: {cause}"
        return f"; the sets' real images differ, too, but less {numbers}"

    def by_class(self) -> Verdict | None:
        if (classes := self.statistics["classes"]) is None:
            return None
        beyond = max(0.0, classes["statistic"] - classes["expected"]) ** 0.5
        evidence = (
            Evidence("p (permutations)", classes["p"], SIGNIFICANT, "<"),
            Evidence("distance beyond chance", beyond, DIFFERENT, ">="),
        )
        by = f"distance {classes['distance']:.2f}, p = {classes['p']:.2g}"
        sentence = f"attention differs between real and fake images: {by}"
        return Verdict("varies by class", sentence, evidence)

    def fixed(self) -> Verdict:
        if self.spread is None:
            few = "no generator has two images of a class: too few to tell what attention does"
            return Verdict("too few images", few)
        value = self.spread["value"]
        low, high = (_either(self.spread[end], value) for end in ("low", "high"))
        name = "standard deviation within generator and class, upper end"
        evidence = Evidence(name, high, self.varying, "<")
        if not evidence.holds:
            by = f"{value:.3f} [{low:.3f}, {high:.3f}] (threshold {self.varying:.3f})"
            sentence = f"attention may be fixed or vary from image to image, by {by}"
            return Verdict("too few images", f"{sentence}: too few images to tell; {self.means}")
        sentence = "attention is nearly the same for all images, neither surely uniform nor surely"
        return Verdict("fixed", f"{sentence} on one scale: {self.means}", (evidence,))


def _either(end: float | None, value: float) -> float:
    """Return the end of an interval, or the value itself where it is missing."""
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
    """Return the largest distance of a generator from the rest, beyond chance."""
    overall = between["overall"]
    return max(0.0, overall["largest"] - overall["largest_expected"]) ** 0.5


def _apart(between: dict[str, Any]) -> tuple[Evidence, ...] | None:
    """Return evidence that generators differ, beyond chance and enough to care, whether it holds or
    not; None without a test."""
    if (overall := between["overall"]) is None:
        return None
    name = "largest distance of a generator from the rest, beyond chance"
    distance = Evidence(name, _largest(between), DIFFERENT, ">=")
    if not distance.holds:
        differ = [o["distance"] for o in between["from_rest"] if o["p_holm"] < SIGNIFICANT]
        name = "largest distance among those that differ (Holm)"
        distance = Evidence(name, max(differ, default=0.0), DIFFERENT, ">=")
    return Evidence("p (permutations)", overall["p"], SIGNIFICANT, "<"), distance


def _who_leans(statistics: dict[str, Any]) -> str:
    leaning, parts = leanings(statistics), []
    for key in statistics["keys"]:
        names = [one["generator"] for one in leaning if one["key"] == key]
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        if names:
            parts.append(f"{scale_label(key)} leads for {', '.join(names[:NAMED])}{more}")
    return "; ".join(parts) or "none of them leans to one scale"

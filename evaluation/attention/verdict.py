"""Verdicts on a model's attention, by thresholds and tests on its statistics."""

from typing import Any

from evaluation.attention.controls import ATTENTION_CONDITIONS
from evaluation.attention.groups import from_uniform, leanings, reading
from evaluation.attention.kinds import (
    AS_MUCH,
    COLLAPSED,
    DIFFERENT,
    DOMINANT,
    MIN_IMAGES_FOR_VERDICT,
    NEARLY_ALL,
    SIGNIFICANT,
    UNIFORM,
    VARIES,
    Evidence,
    Verdict,
)
from networks.npr import scale_label

NAMED = 3  # generators named in a sentence; the others are counted
MATTERS = {
    None: "",
    "no": "; that does not change the scores' ranking",
    "helps": "; that helps",
    "harms": "; that harms",
    "unclear": "; whether that matters is unclear",
}
"""{result of `what_matters`: what it adds to a sentence}"""


def attention_verdicts(
    statistics: dict[str, Any], controls: dict[str, Any] | None = None
) -> list[Verdict]:
    """Return the verdicts that hold, in the order of `KINDS`; at least one.

    Several may hold: attention can vary by image and by generator. Verdicts are about all images
    together, each once, so that a set with more images counts more. Only 'varies by generator'
    counts each generator as one. Collapsed or uniform attention can also vary by generator or
    class; no other verdict goes with it.

    Args:
        statistics: of `attention_statistics`.
        controls: of `attention_controls` for the same images; adds whether the variation matters.

    Raises:
        ValueError: one scale only, whose weight is always 1.
    """
    if len(statistics["keys"]) < 2:
        raise ValueError("attention over one scale is always 1, so it says nothing")
    count = statistics["pooled"]["groups"]["all"]["count"]
    if count < MIN_IMAGES_FOR_VERDICT:
        few = f"{count} image{'s' * (count != 1)}: too few to say what attention does"
        return [Verdict("too few images", f"{few}; at least {MIN_IMAGES_FOR_VERDICT} are needed")]
    case = _Case(statistics, controls)
    by_group = [v for v in (case.by_generator(), case.by_class()) if v and v.holds]
    for verdict in (case.collapsed(), case.uniform()):
        if verdict.holds:
            return [verdict, *by_group]
    others = [v for v in (case.dominates(), case.by_image()) if v and v.holds]
    return [*others, *by_group] or [case.fixed()]


class _Case:
    """Candidates for verdicts on one model's attention: each method returns one kind.

    A candidate may hold or not. It is None where it is undefined.
    """

    def __init__(self, statistics: dict[str, Any], controls: dict[str, Any] | None) -> None:
        self.statistics, self.controls = statistics, controls or {}
        self.keys, self.spread = statistics["keys"], statistics["pooled"]["within_spread"]
        all_images = statistics["pooled"]["groups"]["all"]
        self.of_scales, self.entropy = all_images["scales"], all_images["entropy"]
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
        """Return 'uniform', with a note if uniform weights are the right choice.

        They are where attention does not matter, and where no branch alone and no branch less gives
        a better ranking.
        """
        mean = self.entropy["relative_mean"]
        share = _either(self.entropy["relative_low"], mean)
        evidence = Evidence("entropy per image over ln S, lower end", share, UNIFORM, ">=")
        share_of_maximum = f"an image's entropy is {mean:.1%} of its maximum"
        sentence = f"attention is uniform: {share_of_maximum}; {self.means}"
        conditions = self.controls.get("conditions", [])
        of_attention = [c for c in conditions if c["name"] in ATTENTION_CONDITIONS]
        of_branches = [c for c in conditions if c not in of_attention]
        if of_attention and all(c["matters"] == "no" for c in of_attention):
            if better := [c for c in of_branches if c["matters"] == "harms"]:
                sentence += f"; yet {better[0]['sentence']}"
            elif all(c["matters"] in ("no", "helps") for c in of_branches):
                sentence += (
                    "; no branch alone ranks better, nor do all but one, and attention does not "
                    "matter here: uniform is right"
                )
        return Verdict("uniform", sentence, (evidence,))

    def dominates(self) -> Verdict:
        top = self.of_scales[self.top]
        low = _either(top["low"], top["mean"])
        others = [self.of_scales[key] for key in self.keys if key != self.top]
        lead = low - max(_either(other["high"], other["mean"]) for other in others)
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
            f"and class; highest weight: {', '.join(tops)}{MATTERS[self.controls.get('per_image')]}"
        )
        return Verdict("varies by image", sentence, (Evidence(name, low, self.varying, ">="),))

    def by_generator(self) -> Verdict | None:
        between = self.statistics["between"]
        if (evidence := _apart(between)) is None:
            return None
        rest, generators = between["from_rest"], self.statistics["generators"]
        names = {f"{g['family']}/{g['name']}": g["name"] for g in generators}
        differ = [row for row in rest if row["p_holm"] < SIGNIFICANT]
        most = max(differ or rest, key=lambda row: row["distance"])
        per_generator = self.controls.get("per_generator") or {}
        sentence = (
            f"attention differs between generators (p = {evidence[0].value:.2g}; {len(differ)} of "
            f"{len(rest)} apart from the rest; farthest: {names[most['generator']]}, "
            f"by {most['distance']:.2f}): {_who_leans(self.statistics)}"
            f"{MATTERS[per_generator.get('matters')]}{self._real_images()}"
        )
        return Verdict("varies by generator", sentence, evidence)

    def _real_images(self) -> str:
        """Return a note on how much the sets' real images differ.

        Where they differ as much as the fake ones, the content of the sets may be the cause.
        """
        real = self.statistics["between_real"]
        if (evidence := _apart(real)) is None:
            return ""
        if not all(item.holds for item in evidence):
            return "; the sets' real images do not differ"
        by, of_fake = (_largest(b["overall"]) for b in (real, self.statistics["between"]))
        numbers = f"({by:.2f} against {of_fake:.2f})"
        if by >= AS_MUCH * of_fake:
            cause = "it may be what they show, not the generators"
            return f"; the sets' real images differ as much {numbers}: {cause}"
        return f"; the sets' real images differ, too, but less {numbers}"

    def by_class(self) -> Verdict | None:
        if (classes := self.statistics["classes"]) is None:
            return None
        beyond = _beyond_chance(classes["statistic"], classes["expected"])
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
        if evidence.holds:
            sentence = (
                "attention is nearly the same for all images, neither surely uniform nor surely on "
                f"one scale: {self.means}"
            )
            return Verdict("fixed", sentence, (evidence,))
        by = f"{value:.3f} [{low:.3f}, {high:.3f}] (threshold {self.varying:.3f})"
        sentence = f"attention may be fixed or vary from image to image, by {by}"
        return Verdict("too few images", f"{sentence}: too few images to tell; {self.means}")


def _either(end: float | None, value: float) -> float:
    """Return the end of an interval, or the value itself where the interval is missing."""
    return value if end is None else end


def _beyond_chance(divergence: float, expected: float) -> float:
    """Return the distance that is left of a divergence without its mean by chance."""
    return max(0.0, divergence - expected) ** 0.5


def _largest(overall: dict[str, float]) -> float:
    """Return the largest distance of a generator from the rest, beyond chance."""
    return _beyond_chance(overall["largest"], overall["largest_expected"])


def _apart(between: dict[str, Any]) -> tuple[Evidence, ...] | None:
    """Return the evidence that generators differ, beyond chance and by enough to matter.

    It may hold or not; None without a test.
    """
    if (overall := between["overall"]) is None:
        return None
    name = "largest distance of a generator from the rest, beyond chance"
    distance = Evidence(name, _largest(overall), DIFFERENT, ">=")
    if not distance.holds:
        differ = [o["distance"] for o in between["from_rest"] if o["p_holm"] < SIGNIFICANT]
        name = "largest distance among those that differ (Holm)"
        distance = Evidence(name, max(differ, default=0.0), DIFFERENT, ">=")
    return Evidence("p (permutations)", overall["p"], SIGNIFICANT, "<"), distance


def _who_leans(statistics: dict[str, Any]) -> str:
    leaning, parts = leanings(statistics), []
    for key in statistics["keys"]:
        names = [row["generator"] for row in leaning if row["key"] == key]
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        if names:
            parts.append(f"{scale_label(key)} leads for {', '.join(names[:NAMED])}{more}")
    return "; ".join(parts) or "none of them leans to one scale"

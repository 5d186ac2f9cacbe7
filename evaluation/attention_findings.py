"""What one model attends to on a test's images: statistics, verdicts and controls; in files, in pictures, and as parts of a page.

All of it follows from labels, scores, attention and branch logits, so from one pass over the images and from predictions.csv.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.image_sets import unique_names
from evaluation.attended import Attended
from evaluation.attention_controls import attention_controls
from evaluation.attention_leanings import leanings
from evaluation.attention_statistics import attention_statistics
from evaluation.attention_tables import (
    controls_table,
    correlation_table,
    generator_table,
    verdict_tables,
    write_tables,
)
from evaluation.attention_verdict import SIGNIFICANT, Verdict, attention_verdicts
from evaluation.html import Picture, Section
from evaluation.names import escaped, unescaped
from evaluation.runs import TestRun
from evaluation.summary import ScoredSet

FINDINGS_FILE = "attention.json"
MOST_DRAWS = 200_000_000
"""Images times resamples behind the controls' intervals, so that they cost less than a minute; more images get fewer resamples."""
FEWEST_RESAMPLES = 100


@dataclass(frozen=True)
class AttentionFindings:
    """Everything that is said about the attention of a model with two scales or more.

    Args:
        sets: what it follows from. scales: S. statistics: of `attention_statistics`. controls: of `attention_controls`, None
            without branch logits or without a set of both classes.
    """

    sets: Sequence[Attended]
    scales: tuple[float, ...]
    statistics: dict[str, Any]
    controls: dict[str, Any] | None
    verdicts: list[Verdict]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "verdicts": [verdict.to_dict() for verdict in self.verdicts],
            "leanings": leanings(self.statistics),
            "statistics": self.statistics,
            "controls": self.controls,
        }


def attention_findings(
    sets: Sequence[Attended],
    scales: Sequence[float],
    fusion: dict[str, Any] | None,
    seed: int = 0,
    resamples: int = 1000,
) -> AttentionFindings | None:
    """Statistics, controls and verdicts; None where there is nothing to say: one scale, or no image.

    Names of sets become `escaped`, unless they are.

    Args:
        fusion: bias and residual of the model (`fusion` in metrics.json), None where unknown. resamples: 0 for no intervals.
    """
    sets = [replace(one, name=_safe(one.name), family=_safe(one.family)) for one in sets if len(one.labels)]
    if len(scales) < 2 or not sets:
        return None
    statistics = attention_statistics(sets, scales, seed, resamples)
    controls = None
    if fusion and all(one.branch_logits is not None for one in sets):
        draws = max(FEWEST_RESAMPLES, MOST_DRAWS // sum(len(one.labels) for one in sets))
        controls = attention_controls(
            sets, scales, float(fusion["bias"]), bool(fusion["residual"]), seed, min(resamples, draws)
        )
    return AttentionFindings(sets, tuple(scales), statistics, controls, attention_verdicts(statistics, controls))


def _safe(name: str) -> str:
    return name if escaped(unescaped(name)) == name else escaped(name)


def findings_of_run(run: TestRun) -> AttentionFindings | None:
    """`attention_findings` of a test run; None for a model without attention."""
    scales = run.head["model"].get("scales")
    if not run.attention or not scales:
        return None
    names = unique_names(run.sets)
    sets = [_by_name(names[one.key], one) for one in sorted(run.sets, key=lambda one: one.key)]
    settings = run.head["bootstrap"]
    return attention_findings(sets, scales, run.head.get("fusion"), settings["seed"], settings["resamples"])


def _by_name(name: str, scored: ScoredSet) -> Attended:
    """A set with its images in the order of their names, because what is drawn at random follows their order."""
    order = np.argsort(np.array(scored.paths, dtype=object), kind="stable")
    columns = (scored.labels, scored.scores, scored.attention, scored.branch_logits)
    labels, scores, weights, branches = (None if column is None else column[order] for column in columns)
    assert labels is not None and scores is not None and weights is not None
    return Attended(name, scored.suite, labels, scores, weights, branches, tuple(scored.paths[row] for row in order))


def write_findings(found: AttentionFindings, folder: Path) -> None:
    """Write attention.json and the files of `write_tables`."""
    text = json.dumps(found.to_dict(), indent=2, allow_nan=False) + "\n"
    (folder / FINDINGS_FILE).write_text(text, encoding="utf-8")
    write_tables(folder, found.statistics, found.controls, found.verdicts)


def draw_findings(found: AttentionFindings, folder: Path, formats: Sequence[str] = ()) -> list[Picture]:
    """Means with intervals; of several generators also heat map and distances; with controls, what they change.

    Raises:
        ImportError: matplotlib or seaborn is missing.
    """
    from evaluation.attention_plots import plot_attention_means
    from evaluation.difference_plots import plot_control_changes
    from evaluation.plots import plot_attention_heatmap

    statistics, scales = found.statistics, found.scales
    generators = {one["name"]: one for one in statistics["generators"]}
    path = plot_attention_means(
        {
            name: {label: _means(one["groups"][label]) for label in ("real", "fake") if one["groups"][label]}
            for name, one in generators.items()
        },
        scales,
        folder / "attention_means.png",
        formats=formats,
    )
    pictures = [Picture(path, "mean attention of every scale with its 95 % interval, real and generated images apart")]
    if len(generators) > 1:
        fakes = {n: one["groups"]["fake"] or one["groups"]["all"] for n, one in generators.items()}
        real = statistics["pooled"]["groups"]["real"]
        path = plot_attention_heatmap(
            {name: _means(group)[0] for name, group in fakes.items()},
            scales,
            folder / "attention_heatmap.png",
            groups={name: one["family"] for name, one in generators.items()},
            real={"of all generators": _means(real)[0]} if real else None,
            formats=formats,
        )
        pictures.append(Picture(path, "mean attention on the generated images of each generator"))
        pictures += _distances(found, folder, formats)
    if found.controls:
        changes = {
            one["label"]: (100 * one["change"], _points(one["low"]), _points(one["high"]))
            for one in found.controls["conditions"]
            if one["change"] is not None
        }
        if changes:
            path = plot_control_changes(changes, folder / "attention_controls.png", formats=formats)
            pictures.append(
                Picture(path, "change of the mean AUC when attention is replaced, or branches are left out")
            )
    return pictures


def _points(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _means(group: dict[str, Any]) -> NDArray:
    """[3, S]: mean, and the ends of its interval (the mean itself where there is none)."""
    rows = [(one["mean"], one["low"], one["high"]) for one in group["scales"].values()]
    return np.array(
        [[m, m if low is None else min(low, m), m if high is None else max(high, m)] for m, low, high in rows]
    ).T


def _distances(found: AttentionFindings, folder: Path, formats: Sequence[str]) -> list[Picture]:
    from evaluation.difference_plots import plot_distances

    pairs = found.statistics["between"]["pairs"]
    keys = list(dict.fromkeys(key for pair in pairs for key in (pair["a"], pair["b"])))
    if not keys:
        return []
    names = {one.key: one.name for one in found.sets}
    table, significant = np.zeros((len(keys), len(keys))), np.zeros((len(keys), len(keys)), dtype=bool)
    for pair in pairs:
        a, b = keys.index(pair["a"]), keys.index(pair["b"])
        table[a, b] = table[b, a] = pair["distance"]
        significant[a, b] = significant[b, a] = pair["p_holm"] < SIGNIFICANT
    path = plot_distances(
        table, [names[key] for key in keys], folder / "attention_distances.png", significant, formats=formats
    )
    return [Picture(path, "Jensen-Shannon distance between the generators' mean attention; dots: significant")]


def attention_sections(found: AttentionFindings, pictures: Sequence[Picture]) -> list[Section]:
    """The parts of a page that say and show it."""
    text = (
        "Which scales count, and for which generators, by stated thresholds and tests. What is said of all images counts each "
        "once, so that a set with more of them counts more. attention.json has all figures, attention_*.csv have them as tables."
    )
    statistics = found.statistics
    sections = [Section("Attention", text, verdict_tables(statistics, found.verdicts))]
    shown = [picture for picture in pictures if picture.path.stem == "attention_controls"]
    if found.controls:
        text = (
            "The same branches with other weights, computed from what each branch said; mean over the generators. Beside it, how "
            "far logits move on average: raising those of generated images, or lowering those of real ones, tells them apart."
        )
        sections.append(Section("Does attention matter?", text, [controls_table(found.controls)], shown))
    text = "Entropy as a share of its maximum; distances (Jensen-Shannon) and tests are of generated images."
    tables = [generator_table(statistics), correlation_table(statistics)]
    sections.append(Section("Attention in figures", text, tables))
    return [*sections, Section("Attention in pictures", "", pictures=[one for one in pictures if one not in shown])]

"""Attention's numbers as text, CSV and JSON files, and as tables of a page."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.attention.findings import FINDINGS_FILE, AttentionFindings
from evaluation.attention.groups import group_statistics, leanings
from evaluation.attention.kinds import Evidence, Verdict
from evaluation.attention.statistics import POOLED
from evaluation.names import relative_name
from evaluation.scores import Scores, images_once
from networks.npr import scale_keys, scale_label
from reports.html import Cell, Picture, Section, Table, TableRow, plain_rows
from util import atomic_file

Row = dict[str, Any]


def statistics_text(sets: Sequence[Scores], scales: Sequence[float]) -> str:
    """Return the text of attention_statistics.txt, with each image once.

    It has mean and standard deviation per scale of all, real and fake images.
    """
    everything, uniform = images_once(sets), np.log(len(scales))
    lines = [
        "Attention weight statistics",
        f"images: {everything.generator}",
        "mean ± standard deviation per scale",
        "",
    ]
    labels = everything.labels
    for name, rows in (("all", labels >= 0), ("real", labels == 0), ("fake", labels == 1)):
        if rows.any():
            group = group_statistics(everything.weights[rows], scale_keys(tuple(scales)), 0)
            entropy = f"entropy {group['entropy']['mean']:.4f} nats (uniform: {uniform:.4f})"
            lines.append(f"{name} ({group['count']} images), {entropy}")
            for key, of_scale in group["scales"].items():
                weight = f"{of_scale['mean']:.4f} ± {of_scale['std']:.4f}"
                lines.append(f"  Scale {scale_label(key)}: {weight}")
    return "\n".join(lines) + "\n"


def write_weights(path: Path, scored: Scores, scales: Sequence[float], root: Path) -> None:
    """Write a line per image of a set: path, label, score, and the attention to each scale.

    Args:
        path: of the CSV file.
        scored: the set; the names of its images are paths.
        scales: S scales.
        root: folder that the paths in the file are relative to.
    """
    keys = scale_keys(tuple(scales))
    with atomic_file(path, newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "score", *(f"attention_{key}" for key in keys)])
        rows = zip(scored.paths, scored.labels, scored.scores, scored.weights, strict=True)
        for image, label, score, weights in rows:
            numbers = map(repr, map(float, (score, *weights)))
            writer.writerow([relative_name(image, root), label, *numbers])


def write_findings(findings: AttentionFindings, folder: Path) -> None:
    """Write attention.json and attention_statistics.csv."""
    with atomic_file(folder / FINDINGS_FILE) as file:
        file.write(json.dumps(findings.to_dict(), indent=2, allow_nan=False) + "\n")
    rows = statistics_rows(findings.statistics)
    with atomic_file(folder / "attention_statistics.csv", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def statistics_rows(statistics: Row) -> list[Row]:
    """Return a row for each generator (`POOLED` last), group and scale of `attention_statistics`.

    Only the rows for all images of all generators have within_std. The accuracy is that of all
    images of the generator.
    """
    rows = []
    for generator in _with_pooled(statistics):
        about = {"generator": generator["name"], "family": generator["family"]}
        for name, group in generator["groups"].items():
            if group is None:
                continue
            counts = {"group": name, "count": group["count"], "accuracy": generator["accuracy"]}
            entropy = {f"entropy_{key}": value for key, value in group["entropy"].items()}
            entropy["mutual_information"] = group["mutual_information"]
            within = (name == "all" and generator.get("within_std")) or {}
            for key, of_scale in group["scales"].items():
                more = {"within_std": within.get(key)}
                rows.append(about | counts | {"scale": key} | of_scale | entropy | more)
    return rows


def _with_pooled(statistics: Row) -> list[Row]:
    return [*statistics["generators"], {"name": POOLED, "family": "", **statistics["pooled"]}]


def verdict_tables(statistics: Row, verdicts: Sequence[Verdict]) -> list[Table]:
    """Return the table of verdicts with their evidence, and that of the leading scales."""
    rows = [
        [verdict.kind, verdict.sentence, "; ".join(map(_evidence, verdict.evidence))]
        for verdict in verdicts
    ]
    tables = [Table(["attention", "what is seen", "evidence"], plain_rows(rows), prose=True)]
    leading = [
        [
            leaning["generator"],
            scale_label(leaning["key"]),
            f"{leaning['mean']:.3f} [{leaning['low']:.3f}, {leaning['high']:.3f}]",
            leaning["reading"],
        ]
        for leaning in leanings(statistics)
        if leaning["key"] is not None
    ]
    if leading:
        headers = ["generator", "scale", "mean weight", "usual reading"]
        tables.append(Table(headers, plain_rows(leading), "Which scale leads", prose=True))
    return tables


def _evidence(evidence: Evidence) -> str:
    side = "at least" if evidence.side == ">=" else "below"
    return f"{evidence.name}: {evidence.value:.3g} ({side} {evidence.threshold:.3g})"


def generator_table(statistics: Row) -> Table:
    """Return mean and standard deviation of each generator's attention.

    The same of fake images alone stands small below.
    """
    keys = statistics["keys"]
    rest = {distance["generator"]: distance for distance in statistics["between"]["from_rest"]}
    headers = ["generator", "images", "accuracy %", *map(scale_label, keys), "entropy %"]
    rows = []
    for generator in _with_pooled(statistics):
        everything, real, fake = (generator["groups"][name] for name in ("all", "real", "fake"))
        counts = f"{real['count'] if real else 0} real, {fake['count'] if fake else 0} fake"
        compared = rest.get(f"{generator['family']}/{generator['name']}")
        cells = [
            Cell(generator["name"]),
            Cell(f"{generator['count']:,}", counts),
            Cell(f"{100 * generator['accuracy']:.1f}"),
            *(
                Cell(_weight(everything, key), f"fake {_weight(fake, key)}" if fake else "")
                for key in keys
            ),
            Cell(f"{100 * everything['entropy']['relative_mean']:.1f}"),
            *(Cell(f"{compared[n]:.3g}" if compared else "-") for n in ("distance", "p_holm")),
        ]
        rows.append(TableRow(cells, strong=generator["name"] == POOLED and not generator["family"]))
    title = "Mean weight ± standard deviation"
    return Table([*headers, "distance from the rest", "p (Holm)"], rows, title)


def _weight(group: Row, key: str) -> str:
    return f"{group['scales'][key]['mean']:.3f} ± {group['scales'][key]['std']:.3f}"


def correlation_table(statistics: Row) -> Table:
    """Return rank correlations over all images within generators, and over generators."""
    score = statistics["pooled"]["with_score"]
    columns = score["real"], score["fake"], statistics["with_accuracy"]
    rows = [
        [scale_label(key), *(_correlation(column[key]) for column in columns)]
        for key in statistics["keys"]
    ]
    headers = ["weight of", "score of real images", "score of fake images", "accuracy"]
    title = (
        "Rank correlation of a scale's weight with scores (within generators), and of its mean "
        "with accuracy (over generators)"
    )
    return Table(headers, plain_rows(rows), title)


def _correlation(correlation: Row | None) -> str:
    if correlation is None:
        return "-"
    return f"{correlation['rho']:+.2f} (p = {correlation['p']:.2g}, n = {correlation['n']:,})"


def controls_table(controls: Row) -> Table:
    """Return the effect of each control as a sentence, with the mean change of the logits."""
    rows = []
    for condition in controls["conditions"]:
        changes = (condition["logit_change_real"], condition["logit_change_fake"])
        logits = ["-" if value is None else f"{value:+.2f}" for value in changes]
        rows.append([condition["label"], condition["sentence"], *logits])
    if per_generator := controls["per_generator"]:
        rows.append(["per generator", per_generator["sentence"], "-", "-"])
    headers = ["control", "what it changes", "logits of real images", "of fake images"]
    return Table(headers, plain_rows(rows), prose=True)


def attention_sections(findings: AttentionFindings, pictures: Sequence[Picture]) -> list[Section]:
    """Return the sections of a page about the findings.

    Args:
        findings: numbers to show.
        pictures: plots of `reports.attention_plots.draw_attention`.
    """
    statistics = findings.statistics
    text = (
        "Which scales count, and for which generators, by stated thresholds and tests. An image "
        "that several generators share counts once; a set with more images counts more. "
        "docs/attention.md says what the words mean and what may help. All numbers are in "
        "attention.json, those of groups of images in attention_statistics.csv."
    )
    sections = [Section("Attention", text, verdict_tables(statistics, findings.verdicts))]
    of_controls = [picture for picture in pictures if picture.path.stem == "attention_controls"]
    if findings.controls:
        text = (
            "The same branches with other weights, from the logit of each branch; mean over the "
            "generators. Beside it, how far logits move on average: raising those of fake images, "
            "or lowering those of real ones, tells them apart."
        )
        table = controls_table(findings.controls)
        sections.append(Section("Does attention matter?", text, [table], of_controls))
    text = (
        "Entropy is a share of its maximum; "
        "distances (Jensen-Shannon) and tests are of fake images."
    )
    tables = [generator_table(statistics), correlation_table(statistics)]
    others = [picture for picture in pictures if picture not in of_controls]
    return [
        *sections,
        Section("Attention in numbers", text, tables),
        Section("Attention in plots", "", pictures=others),
    ]

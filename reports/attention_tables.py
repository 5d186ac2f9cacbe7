"""Attention's numbers as text, CSV and JSON files, and as tables of a page."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.attention.findings import FINDINGS_FILE, AttentionFindings
from evaluation.attention.images import images_once
from evaluation.attention.leanings import leanings
from evaluation.attention.statistics import POOLED, group_statistics
from evaluation.attention.verdict import Evidence, Verdict
from evaluation.names import relative_name
from evaluation.scores import Scores
from networks.npr import scale_keys, scale_label
from reports.html import Cell, Picture, Section, Table, TableRow, plain_rows
from util import atomic_file

Row = dict[str, Any]


def statistics_text(sets: Sequence[Scores], scales: Sequence[float]) -> str:
    """Return the text of attention_statistics.txt: mean and std per scale of all, real and fake
    images, each image once."""
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
            found = group_statistics(everything.weights[rows], scale_keys(tuple(scales)), 0)
            entropy = f"entropy {found['entropy']['mean']:.4f} nats (uniform: {uniform:.4f})"
            lines.append(f"{name} ({found['count']} images), {entropy}")
            for key, of_scale in found["scales"].items():
                weight = f"{of_scale['mean']:.4f} ± {of_scale['std']:.4f}"
                lines.append(f"  Scale {scale_label(key)}: {weight}")
    return "\n".join(lines) + "\n"


def write_weights(path: Path, one: Scores, scales: Sequence[float], root: Path) -> None:
    """Write a line per image of a set: path, label, score, and the attention to each scale.

    Args:
        path: of the CSV file.
        one: its images are paths.
        scales: S of them.
        root: folder that the paths in the file are relative to.
    """
    keys = scale_keys(tuple(scales))
    with atomic_file(path, newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "score", *(f"attention_{key}" for key in keys)])
        rows = zip(one.paths, one.labels, one.scores, one.weights, strict=True)
        for image, label, score, weights in rows:
            numbers = map(repr, map(float, (score, *weights)))
            writer.writerow([relative_name(image, root), label, *numbers])


def write_findings(found: AttentionFindings, folder: Path) -> None:
    """Write attention.json and attention_statistics.csv."""
    with atomic_file(folder / FINDINGS_FILE) as file:
        file.write(json.dumps(found.to_dict(), indent=2, allow_nan=False) + "\n")
    rows = statistics_rows(found.statistics)
    with atomic_file(folder / "attention_statistics.csv", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def statistics_rows(statistics: Row) -> list[Row]:
    """Return a row for each generator (`POOLED` last), group and scale of `attention_statistics`.

    within_std is for all images of all generators only, accuracy is that of all images.
    """
    rows = []
    for one in _with_pooled(statistics):
        about = {"generator": one["name"], "family": one["family"]}
        for group, found in one["groups"].items():
            if found is None:
                continue
            counts = {"group": group, "count": found["count"], "accuracy": one["accuracy"]}
            entropy = {f"entropy_{name}": value for name, value in found["entropy"].items()}
            entropy["mutual_information"] = found["mutual_information"]
            within = (group == "all" and one.get("within_std")) or {}
            for key, of_scale in found["scales"].items():
                more = {"within_std": within.get(key)}
                rows.append(about | counts | {"scale": key} | of_scale | entropy | more)
    return rows


def _with_pooled(statistics: Row) -> list[Row]:
    return [*statistics["generators"], {"name": POOLED, "family": "", **statistics["pooled"]}]


def verdict_tables(statistics: Row, verdicts: Sequence[Verdict]) -> list[Table]:
    """Return the verdicts with their evidence, and which scale leads for which generator."""
    rows = [
        [verdict.kind, verdict.sentence, "; ".join(map(_evidence, verdict.evidence))]
        for verdict in verdicts
    ]
    tables = [Table(["attention", "what is seen", "evidence"], plain_rows(rows), prose=True)]
    leading = [
        [
            one["generator"],
            scale_label(one["key"]),
            f"{one['mean']:.3f} [{one['low']:.3f}, {one['high']:.3f}]",
            one["reading"],
        ]
        for one in leanings(statistics)
        if one["key"] is not None
    ]
    if leading:
        headers = ["generator", "scale", "mean weight", "usual reading"]
        tables.append(Table(headers, plain_rows(leading), "Which scale leads", prose=True))
    return tables


def _evidence(one: Evidence) -> str:
    side = "at least" if one.side == ">=" else "below"
    return f"{one.name}: {one.value:.3g} ({side} {one.threshold:.3g})"


def generator_table(statistics: Row) -> Table:
    """Return mean and standard deviation of each generator's attention; fake images alone below."""
    keys = statistics["keys"]
    rest = {one["generator"]: one for one in statistics["between"]["from_rest"]}
    headers = ["generator", "images", "accuracy %", *map(scale_label, keys), "entropy %"]
    rows = []
    for one in _with_pooled(statistics):
        everything, real, fake = (one["groups"][name] for name in ("all", "real", "fake"))
        counts = f"{real['count'] if real else 0} real, {fake['count'] if fake else 0} fake"
        compared = rest.get(f"{one['family']}/{one['name']}")
        cells = [
            Cell(one["name"]),
            Cell(f"{one['count']:,}", counts),
            Cell(f"{100 * one['accuracy']:.1f}"),
            *(
                Cell(_weight(everything, key), f"fake {_weight(fake, key)}" if fake else "")
                for key in keys
            ),
            Cell(f"{100 * everything['entropy']['relative_mean']:.1f}"),
            *(Cell(f"{compared[n]:.3g}" if compared else "-") for n in ("distance", "p_holm")),
        ]
        rows.append(TableRow(cells, strong=one["name"] == POOLED and not one["family"]))
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


def _correlation(found: Row | None) -> str:
    if found is None:
        return "-"
    return f"{found['rho']:+.2f} (p = {found['p']:.2g}, n = {found['n']:,})"


def controls_table(controls: Row) -> Table:
    """Return what each control changes, in words, with how far it moves the logits."""
    rows = []
    for one in controls["conditions"]:
        moved = (one["logit_change_real"], one["logit_change_fake"])
        logits = ["-" if value is None else f"{value:+.2f}" for value in moved]
        rows.append([one["label"], one["sentence"], *logits])
    if found := controls["per_generator"]:
        rows.append(["per generator", found["sentence"], "-", "-"])
    headers = ["control", "what it changes", "logits of real images", "of fake images"]
    return Table(headers, plain_rows(rows), prose=True)


def attention_sections(found: AttentionFindings, pictures: Sequence[Picture]) -> list[Section]:
    """Return the parts of a page that tell and show the findings.

    Args:
        found: what to tell.
        pictures: plots of `reports.attention_page.draw_attention`.
    """
    statistics = found.statistics
    text = (
        "Which scales count, and for which generators, by stated thresholds and tests. An image "
        "that several generators share counts once; a set with more images counts more. "
        "docs/attention.md says what the words mean and what may help. All numbers are in "
        "attention.json, those of groups of images in attention_statistics.csv."
    )
    sections = [Section("Attention", text, verdict_tables(statistics, found.verdicts))]
    of_controls = [picture for picture in pictures if picture.path.stem == "attention_controls"]
    if found.controls:
        text = (
            "The same branches with other weights, from the logit of each branch; mean over the "
            "generators. Beside it, how far logits move on average: raising those of fake images, "
            "or lowering those of real ones, tells them apart."
        )
        table = controls_table(found.controls)
        sections.append(Section("Does attention matter?", text, [table], of_controls))
    text = "Entropy is a share of its maximum; distances (Jensen-Shannon) and tests are of fake images."
    tables = [generator_table(statistics), correlation_table(statistics)]
    others = [picture for picture in pictures if picture not in of_controls]
    return [
        *sections,
        Section("Attention in numbers", text, tables),
        Section("Attention in plots", "", pictures=others),
    ]

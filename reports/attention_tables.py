"""Attention's statistics, controls and verdicts as tables: rows for CSV files, and parts of a page."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluation.attention.findings import FINDINGS_FILE, AttentionFindings
from evaluation.attention.leanings import leanings
from evaluation.attention.statistics import POOLED
from evaluation.attention.verdict import Verdict
from networks.npr import scale_label
from reports.html import Cell, Picture, Section, Table, TableRow, plain_rows

Row = dict[str, Any]
FIGURES = ("logit_change", "logit_change_real", "logit_change_fake", "auc", "change", "low", "high")
TESTS = (
    "test",
    "of",
    "a",
    "b",
    "distance",
    "p",
    "p_holm",
    "statistic",
    "expected",
    "largest",
    "largest_expected",
)
CORRELATIONS = ("of", "with", "generator", "family", "group", "scale", "rho", "p", "n")
VERDICTS = ("kind", "sentence", "evidence", "value", "side", "threshold", "advice")


def write_tables(
    folder: Path, statistics: Row, controls: Row | None, verdicts: Sequence[Verdict]
) -> None:
    """Write attention_{statistics,tests,correlations,verdicts}.csv and, with controls,
    attention_controls.csv."""
    rows = statistics_rows(statistics)
    _write_csv(folder / "attention_statistics.csv", list(rows[0]), rows)
    _write_csv(folder / "attention_tests.csv", TESTS, comparison_rows(statistics))
    _write_csv(folder / "attention_correlations.csv", CORRELATIONS, correlation_rows(statistics))
    _write_csv(folder / "attention_verdicts.csv", VERDICTS, verdict_rows(verdicts))
    if controls:
        _write_csv(
            folder / "attention_controls.csv",
            ("condition", "generator", "family", *FIGURES),
            controls_rows(controls),
        )


def _write_csv(path: Path, columns: Sequence[str], rows: Sequence[Row]) -> None:
    """What a row has not is left empty."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)


def statistics_rows(statistics: Row) -> list[Row]:
    """The groups of `attention_statistics`: a row for each generator (`POOLED` last), group and
    scale.

    within_std is for all images of all generators only, accuracy is that of all images.
    """
    rows = []
    for one in _with_pooled(statistics):
        for group, found in one["groups"].items():
            if found is None:
                continue
            about = {
                "generator": one["name"],
                "family": one["family"],
                "group": group,
                "count": found["count"],
            }
            entropy = {f"entropy_{name}": value for name, value in found["entropy"].items()}
            about["accuracy"] = one["accuracy"]
            within = (group == "all" and one.get("within_std")) or {}
            for key, of_scale in found["scales"].items():
                more = {
                    "mutual_information": found["mutual_information"],
                    "within_std": within.get(key, ""),
                }
                rows.append(about | {"scale": key} | of_scale | entropy | more)
    return rows


def _with_pooled(statistics: Row) -> list[Row]:
    return [*statistics["generators"], {"name": POOLED, "family": "", **statistics["pooled"]}]


def comparison_rows(statistics: Row) -> list[Row]:
    """All tests: 'overall' between generators, 'from rest' of each generator (a), 'pair' of two (a,
    b), of their generated and of their real images, and 'class' between real and generated images.
    """
    rows: list[Row] = []
    for between in (statistics["between"], statistics["between_real"]):
        about = {"of": between["of"]}
        if between["overall"]:
            rows.append({"test": "overall"} | about | between["overall"])
        rest = [
            {"a" if name == "generator" else name: v for name, v in one.items()}
            for one in between["from_rest"]
        ]
        rows += [{"test": "from rest"} | about | one for one in rest]
        rows += [{"test": "pair"} | about | one for one in between["pairs"]]
    if statistics["classes"]:
        rows.append({"test": "class", "of": "real and fake", **statistics["classes"]})
    return rows


def correlation_rows(statistics: Row) -> list[Row]:
    """Rank correlations of weight and score, per generator, class and scale, and of mean weight and
    accuracy over generators."""
    rows = []
    for one in _with_pooled(statistics):
        about = {"of": "weight", "with": "score", "generator": one["name"], "family": one["family"]}
        for group, of_scales in one["with_score"].items():
            rows += [
                about | {"group": group, "scale": key} | (found or {})
                for key, found in of_scales.items()
            ]
    about = {
        "of": "mean weight",
        "with": "accuracy",
        "generator": POOLED,
        "family": "",
        "group": "all",
    }
    return rows + [
        about | {"scale": key} | (found or {}) for key, found in statistics["with_accuracy"].items()
    ]


def verdict_rows(verdicts: Sequence[Verdict]) -> list[Row]:
    """A row for each verdict's evidence, then its advice."""
    rows: list[Row] = []
    for verdict in verdicts:
        about = {"kind": verdict.kind, "sentence": verdict.sentence}
        rows += [
            about
            | {
                "evidence": one.name,
                "value": one.value,
                "side": one.side,
                "threshold": one.threshold,
            }
            for one in verdict.evidence
        ]
        # no cell begins with "-"
        advice = [about | {"advice": f"try {flags}: {why}"} for flags, why in verdict.advice]
        rows += advice or [about] * (not verdict.evidence)
    return rows


def controls_rows(controls: Row) -> list[Row]:
    """`attention_controls`: a row for each condition and generator, the mean over generators first."""
    rows = [
        {"condition": one["name"], "generator": of_one["name"], "family": of_one["family"]}
        | {name: of_one[name] for name in FIGURES}
        for one in controls["conditions"]
        for of_one in [one | {"name": "mean", "family": ""}, *one["by_generator"]]
    ]
    if found := controls["per_generator"]:
        about = {
            "condition": "shuffled_across against shuffled_within",
            "generator": "mean",
            "family": "",
        }
        rows.append(about | {name: found[name] for name in ("change", "low", "high")})
    return rows


def verdict_tables(statistics: Row, verdicts: Sequence[Verdict]) -> list[Table]:
    """What is seen with its evidence, and which scale leads for which generator."""
    said = [
        [
            verdict.kind,
            verdict.sentence,
            "; ".join(
                _evidence(one.name, one.value, one.threshold, one.side) for one in verdict.evidence
            ),
            "; ".join(f"{flags}: {why}" for flags, why in verdict.advice),
        ]
        for verdict in verdicts
    ]
    tables = [
        Table(
            ["attention", "what is seen", "evidence", "flags that may help"],
            plain_rows(said),
            prose=True,
        )
    ]
    rows = [
        [
            one["generator"],
            scale_label(one["key"]),
            f"{one['mean']:.3f} [{one['low']:.3f}, {one['high']:.3f}]",
            one["reading"],
        ]
        for one in leanings(statistics)
        if one["key"] is not None
    ]
    if rows:
        tables.append(
            Table(
                ["generator", "scale", "mean weight", "meaning"],
                plain_rows(rows),
                "Which scale leads",
                True,
            )
        )
    return tables


def _evidence(name: str, value: float | None, threshold: float | None, side: str) -> str:
    shown = "undefined" if value is None else f"{value:.3g}"
    return f"{name}: {shown}" + (
        "" if threshold is None else f" ({'at least' if side == '>=' else 'below'} {threshold:.3g})"
    )


def generator_table(statistics: Row) -> Table:
    """Mean and standard deviation of each generator's attention, all of its images; below them that
    of the generated ones."""
    keys, rest = (
        statistics["keys"],
        {one["generator"]: one for one in statistics["between"]["from_rest"]},
    )
    headers = [
        "generator",
        "images",
        "accuracy %",
        *map(scale_label, keys),
        "entropy %",
        "distance from the rest",
        "p (Holm)",
    ]
    rows = []
    for one in _with_pooled(statistics):
        everything, fake, real = (one["groups"][name] for name in ("all", "fake", "real"))
        counts = f"{real['count'] if real else 0} real, {fake['count'] if fake else 0} generated"
        found = rest.get(f"{one['family']}/{one['name']}")
        cells = [
            Cell(one["name"]),
            Cell(f"{one['count']:,}", counts),
            Cell(f"{100 * one['accuracy']:.1f}"),
            *(
                Cell(_weight(everything, key), f"generated {_weight(fake, key)}" if fake else "")
                for key in keys
            ),
            Cell(f"{100 * everything['entropy']['relative_mean']:.1f}"),
            *(Cell(f"{found[name]:.3g}" if found else "-") for name in ("distance", "p_holm")),
        ]
        rows.append(TableRow(cells, strong=one["name"] == POOLED and not one["family"]))
    return Table(headers, rows, "Mean weight ± standard deviation")


def _weight(group: Row, key: str) -> str:
    return f"{group['scales'][key]['mean']:.3f} ± {group['scales'][key]['std']:.3f}"


def correlation_table(statistics: Row) -> Table:
    """Rank correlations over all images within generators, and over generators."""
    score = statistics["pooled"]["with_score"]
    rows = [
        [
            scale_label(key),
            *map(
                _correlation,
                (score["real"][key], score["fake"][key], statistics["with_accuracy"][key]),
            ),
        ]
        for key in statistics["keys"]
    ]
    headers = [
        "weight of",
        "score of real images",
        "score of generated images",
        "accuracy, over generators",
    ]
    title = "Rank correlation of a scale's weight with scores (within generators), and of its mean with accuracy"
    return Table(headers, plain_rows(rows), title)


def _correlation(found: Row | None) -> str:
    return (
        "-" if found is None else f"{found['rho']:+.2f} (p = {found['p']:.2g}, n = {found['n']:,})"
    )


def controls_table(controls: Row) -> Table:
    """What each control changes, in words, with how far it moves the logits."""
    rows = [
        [
            one["label"],
            one["sentence"],
            *(_signed(one[f"logit_change_{of}"]) for of in ("real", "fake")),
        ]
        for one in controls["conditions"]
    ]
    if found := controls["per_generator"]:
        rows.append(["per generator", found["sentence"], "-", "-"])
    headers = ["control", "what it changes", "logits of real images", "of generated images"]
    return Table(headers, plain_rows(rows), prose=True)


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2f}"


def write_findings(found: AttentionFindings, folder: Path) -> None:
    """Write attention.json and the files of `write_tables`."""
    text = json.dumps(found.to_dict(), indent=2, allow_nan=False) + "\n"
    (folder / FINDINGS_FILE).write_text(text, encoding="utf-8")
    write_tables(folder, found.statistics, found.controls, found.verdicts)


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
        sections.append(
            Section("Does attention matter?", text, [controls_table(found.controls)], shown)
        )
    text = "Entropy as a share of its maximum; distances (Jensen-Shannon) and tests are of generated images."
    tables = [generator_table(statistics), correlation_table(statistics)]
    sections.append(Section("Attention in figures", text, tables))
    return [
        *sections,
        Section(
            "Attention in pictures", "", pictures=[one for one in pictures if one not in shown]
        ),
    ]

"""The model card of the shipped detector: Markdown from its numbers and the pool's tables."""

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from tabulate import tabulate

from evaluation.names import escaped, markdown
from networks.checkpoint import LoadedModel, stored_calibration
from networks.model_folder import WEIGHTS_FILE
from tools.pretrained.pool import TRAINED

WIDTH = 100  # characters of a line of the card
SOURCES_FILE = "sources.csv"  # set, repository, licence


def interval(values: dict[str, float]) -> str:
    """Return an AUC with its interval, as in '0.81 [0.76, 0.85]'."""
    return f"{values['auc']:.2f} [{values['low']:.2f}, {values['high']:.2f}]"


def percentage(values: dict[str, float]) -> str:
    """Return a share with its interval in percent, as in '4 % [1, 9]'."""
    return f"{100 * values['share']:.0f} % [{100 * values['low']:.0f}, {100 * values['high']:.0f}]"


def table(rows: list[dict[str, Any]]) -> str:
    """Return rows as a Markdown table."""
    return tabulate(rows, "keys", "github", disable_numparse=True)


def sets_table(numbers: dict[str, Any]) -> str:
    """Return the table of all sets with both classes."""
    rows = []
    for row in numbers["sets"]:
        aucs = {
            ("as it is" if name == "clean" else f"JPEG {name.split(':')[1]}"): interval(auc)
            for name, auc in row["auc"].items()
        }
        rows.append(
            {
                "set": row["set"],
                "real + generated": f"{row['real']} + {row['generated']}",
                **{f"AUC {name}": text for name, text in aucs.items()},
                "found at 5 % false positives": f"{100 * row['found_at_5']:.0f} %",
                "found at the threshold": percentage(row["found"]),
            }
        )
    return table(rows)


def decoders_table(numbers: dict[str, Any]) -> str:
    """Return the table of AUCs by decoder."""
    return table(
        [
            {"decoder": name, "generated": row["generated"], "AUC": interval(row)}
            for name, row in numbers["decoders"].items()
        ]
    )


def real_sources_table(numbers: dict[str, Any]) -> str:
    """Return the table of false positives by real source."""
    return table(
        [
            {
                "real source": name,
                "crops": row["n"],
                "source pictures": row["pictures"],
                "called generated": percentage(row),
            }
            for name, row in numbers["sources"].items()
        ]
    )


def training_list(pool: Path, classes: Sequence[str]) -> str:
    """Return a list of the class folders of training, with numbers of images by generator."""
    with open(pool / "provenance.csv", newline="", encoding="utf-8") as file:
        generators = {row["path"]: row["generator"] for row in csv.DictReader(file)}
    lines = []
    for name in classes:
        counts: Counter[str] = Counter()
        for path in sorted((pool / "train" / name).glob("*/*")):
            known = "real" if path.parent.name.startswith("0") else "generated"
            counts[generators.get(str(path.relative_to(pool)), known)] += 1
        real = counts.pop("real", 0)
        by = ", ".join(f"{markdown(escaped(g))} {n}" for g, n in counts.most_common())
        text = f"- **{name}**: real {real}; {by}"
        lines.append(fill(text, WIDTH, subsequent_indent="  ", break_on_hyphens=False))
    return "\n".join(lines)


def licences_table(pool: Path) -> str:
    """Return the table of sources with their stated licences."""
    with open(pool / SOURCES_FILE, newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    cells = [[markdown(escaped(cell)) for cell in row] for row in rows]
    return tabulate(cells[1:], cells[0], "github", disable_numparse=True)


def model_card(loaded: LoadedModel, numbers: dict[str, Any], pool: Path, recipe: str) -> str:
    """Return README.md of the shipped detector.

    Args:
        loaded: the folder's model, with its calibration.
        numbers: see `tools.pretrained.__main__.measured`.
        pool: folder of the images, with their tables.
        recipe: name of the preset it was trained with.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown; names from the pool are escaped above
    )
    calibration = stored_calibration(loaded)
    assert calibration is not None
    return environment.get_template("model_card.md").render(
        numbers=numbers,
        by_seed=", ".join(
            f"seed {seed}: {auc:.3f}" for seed, auc in numbers["mean_dev_auc_by_seed"].items()
        ),
        scales=", ".join(f"{scale:g}" for scale in loaded.config.scales),
        parameters=sum(value.numel() for value in loaded.model.parameters()),
        epochs=loaded.epoch,
        recipe=recipe,
        seed=loaded.meta["options"]["seed"],
        calibration=calibration,
        rule=calibration.rule,
        weights_file=WEIGHTS_FILE,
        training=training_list(pool, TRAINED),
        licences=licences_table(pool),
        sets=sets_table(numbers),
        decoders=decoders_table(numbers),
        real_sources=real_sources_table(numbers),
        percentage=percentage,
        percent=lambda value: f"{100 * value:.0f} %",
    )

"""Presets of train.py's flags (--recipe NAME), each a TOML file in this folder."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

from options.flags import shown_value
from util import read_text

FOLDER = Path(__file__).resolve().parent
PUBLISHED = "published"
NOT_IN_PRESETS = (
    "recipe",
    "list_recipes",
    "dataroot",
    "name",
    "suffix",
    "checkpoints_dir",
    "continue_train",
    "epoch",
    "new_optim",
)
"""Flags that identify the run; a preset cannot set them."""
NOT_THE_RECIPE = (
    *NOT_IN_PRESETS,
    "seed",
    "test_dataroot",
    "gpu_ids",
    "num_threads",
    "cache",
    "loss_freq",
    "save_latest_freq",
    "save_epoch_freq",
    "attention_log_freq",
    "attention_patience",
)
"""Flags in which two runs with the same training may differ.

Of the dataroot, the folder's own name may not differ.
"""
CONTRADICTIONS = {
    "no_resize": ("loadSize",),
    "loadSize": ("no_resize",),
    "no_crop": ("cropSize", "degrade", "repeat_small"),
    "cropSize": ("no_crop",),
    "repeat_small": ("no_crop",),
    "delr_freq": ("lr_schedule",),
}
"""Flags on the command line, each with the flags of a preset that it drops."""


@dataclass(frozen=True)
class Preset:
    """Named values of train.py's flags.

    Attributes:
        name: value of --recipe.
        about: one sentence.
        flags: values by flag name; True sets a switch, False leaves it alone.
    """

    name: str
    about: str
    flags: dict[str, Any]

    def words(self) -> list[str]:
        """Return the flags as words of a command line."""
        words = []
        for name, value in self.flags.items():
            if value is True:
                words.append(f"--{name}")
            elif value is not False:
                words += [f"--{name}", shown_value(value)]
        return words


def load_preset(text: str) -> Preset:
    """Load a preset by its name, or from a custom .toml file.

    Raises:
        ValueError: unknown name, or not a preset; the message says what would be right.
    """
    path = Path(text) if text.endswith(".toml") else FOLDER / f"{text}.toml"
    if not path.is_file():
        raise ValueError(
            f"unknown preset; pass one of {', '.join(preset_names())}, or a .toml file"
        )
    try:
        values = tomllib.loads(read_text(path))
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot be read as TOML ({error})") from None
    about, flags = values.pop("about", ""), values.pop("flags", None)
    if values or not isinstance(about, str) or not isinstance(flags, dict):
        raise ValueError("a preset has about = 'one sentence' and a table [flags], nothing else")
    return Preset(path.stem, about, flags)


def preset_names() -> list[str]:
    """List the presets that come with the project, the default first."""
    names = sorted(path.stem for path in FOLDER.glob("*.toml"))
    return sorted(names, key=lambda name: name != PUBLISHED)


def describe_presets() -> str:
    """Format the table of --list_recipes."""
    rows = [
        [preset.name, preset.about, " ".join(preset.words()) or "none: train.py's defaults"]
        for preset in map(load_preset, preset_names())
    ]
    return tabulate(rows, ["recipe", "what it is for", "flags"], maxcolwidths=[None, 50, 60])

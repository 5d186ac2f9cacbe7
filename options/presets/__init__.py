"""Training recipes: named sets of train.py's flags, each a TOML file; flags on the command line win
over them."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

from options.flags import shown_value

FOLDER = Path(__file__).resolve().parent
PUBLISHED = "published"


@dataclass(frozen=True)
class Recipe:
    """What --recipe stands for.

    Attributes:
        about: one sentence. flags: train.py's, by name; True for a switch, which False leaves
            alone.
    """

    name: str
    about: str
    flags: dict[str, Any]

    def words(self) -> list[str]:
        """The flags as words of a command line."""
        found = []
        for name, value in self.flags.items():
            if value is not False:
                found += [f"--{name}"] if value is True else [f"--{name}", shown_value(value)]
        return found


def load_recipe(text: str) -> Recipe:
    """A recipe by its name, or from a .toml file of one's own.

    Raises:
        ValueError: there is none, or the file is no recipe; the message says what would be right.
    """
    path = Path(text) if text.endswith(".toml") else FOLDER / f"{text}.toml"
    if not path.is_file():
        raise ValueError(
            f"no such recipe; give one of {', '.join(recipe_names())}, or a .toml file of your own"
        )
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot be read as TOML ({error})") from None
    about, flags = values.pop("about", ""), values.pop("flags", None)
    if values or not isinstance(about, str) or not isinstance(flags, dict):
        raise ValueError(
            "a recipe has about = 'one sentence' and a table [flags], and nothing else"
        )
    return Recipe(path.stem, about, flags)


def recipe_names() -> list[str]:
    """The recipes that come with the project, the default first."""
    return sorted(
        (path.stem for path in FOLDER.glob("*.toml")), key=lambda name: (name != PUBLISHED, name)
    )


def describe_recipes() -> str:
    """The table of --list_recipes."""
    recipes = [load_recipe(name) for name in recipe_names()]
    rows = [
        [recipe.name, recipe.about, " ".join(recipe.words()) or "none: train.py's defaults"]
        for recipe in recipes
    ]
    return tabulate(rows, ["recipe", "what it is for", "flags"], maxcolwidths=[None, 50, 60])

"""Group test runs by recipe: runs of one recipe differ only in their seed."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from evaluation.comparison.runs import TIME_STAMP, Recipe, Result, read_result
from evaluation.names import escaped
from util import UserError


def read_recipes(
    paths: Sequence[Path], baseline: str | None = None, grouped: bool = True
) -> list[Recipe]:
    """Read test runs and group them by recipe, the baseline first.

    Results of one checkpoint on different sets are one run; runs that differ only in their seed are
    one recipe.

    Args:
        paths: at least two folders (or metrics.json files).
        baseline: label or run name of the baseline; None: the first.
        grouped: False to make each run a recipe of its own.

    Raises:
        UserError: fewer than two paths, a path given twice, a file that does not fit, one
            checkpoint twice on the same set under the same settings, or an unknown baseline.
    """
    if len(paths) < 2:
        raise UserError(
            f"results {' '.join(map(str, paths))}: pass at least two folders, the baseline first"
        )
    results = [read_result(path) for path in paths]
    files = Counter(result.paths[0].resolve() for result in results)
    twice = [result.paths[0] for result in results if files[result.paths[0].resolve()] > 1]
    if twice:
        raise UserError(f"results {twice[0]}: given twice; pass each once")
    recipes: list[list[Result]] = []
    for result in results:
        _put(result, recipes, grouped)
    labelled = [
        Recipe(label, tuple(group)) for label, group in zip(_labels(recipes), recipes, strict=True)
    ]
    if baseline is None:
        return labelled
    chosen = [
        recipe
        for recipe in labelled
        if baseline in (recipe.label, *(result.name for result in recipe.results))
    ]
    if len(chosen) != 1:
        known = ", ".join(recipe.label for recipe in labelled)
        raise UserError(f"--baseline {baseline}: matches no recipe; choose one of {known}")
    return chosen + [recipe for recipe in labelled if recipe is not chosen[0]]


def _labels(recipes: Sequence[Sequence[Result]]) -> list[str]:
    """Return the shortest distinct label of each recipe."""
    names = [" + ".join(result.name for result in group) for group in recipes]
    folders = [escaped(str(group[0].paths[0].parent)) for group in recipes]
    names = _unique(names, [f"{n} ({f})" for n, f in zip(names, folders, strict=True)])
    short = []
    for group in recipes:
        label = TIME_STAMP.sub("", group[0].name) if len(group) == 1 else group[0].label
        how = group[0].document.get("equalize")
        short.append(f"{label}, equalize {how}" if how else label)
    return _unique(short, names)


def _put(result: Result, recipes: list[list[Result]], grouped: bool) -> None:
    """Add a result to its recipe: to the run of the same checkpoint, or as another run.

    Args:
        result: to add.
        recipes: changed in place.
        grouped: see `read_recipes`.

    Raises:
        UserError: the recipe has this checkpoint's result on one of the sets already.
    """
    for group in recipes:
        if group[0].recipe != result.recipe or not all(
            result.agrees_with(other) for other in group
        ):
            continue
        for number, other in enumerate(group):
            if other.checkpoint != result.checkpoint:
                continue
            if both := [key for key in result.sets if key in other.sets]:
                files = " and ".join(escaped(str(path)) for path in (*other.paths, *result.paths))
                raise UserError(
                    f"{files}: the same checkpoint, tested in the same way on {both[0]}; "
                    "pass one of them"
                )
            sets, protocols = other.sets | result.sets, other.protocols | result.protocols
            paths = (*other.paths, *result.paths)
            group[number] = dataclasses.replace(other, paths=paths, sets=sets, protocols=protocols)
            return
        if grouped:
            group.append(result)
            return
    recipes.append([result])


def _unique(names: Sequence[str], longer: Sequence[str]) -> list[str]:
    count = Counter(names)
    return [name if count[name] == 1 else long for name, long in zip(names, longer, strict=True)]

"""Write a checkpoint as files that others can use: an ONNX graph, or safetensors weights, with a
model card.

    python -m tools.export --model_path checkpoints/RUN/model_epoch_best.pth --output exported/my_detector
    python -m tools.export --model_path M.pth --output DIR --format onnx --size 256 256    # for programs that need one size
    python -m tools.export --model_path M.pth --output DIR --format safetensors --overwrite

The folder holds config.json and README.md (a model card in Hugging Face's form) beside

    model.onnx          for onnxruntime and the like: takes a picture's bytes, of any size, in batches (docs/export.md)
    model.safetensors   weights without code; load_detector(DIR) and test.py --model_path DIR read the folder

It takes its place when it is whole and has been checked: the graph by onnxruntime against PyTorch
on random sizes and pictures (no output differs by more than 1e-4, or nothing is written), the
weights by loading them. Calibrate before you export.

Exit status: 0 written, 2 the command line or the checkpoint is wrong or a check failed, 130
interrupted.
"""

import argparse
import os
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from networks.checkpoint import LoadedModel, load_model, stored_calibration
from networks.model_folder import (
    CONFIG_FILE,
    INSTALL,
    WEIGHTS_FILE,
    write_config,
    write_model_folder,
)
from options.base_options import CheckpointOptions, OneLineParser
from options.flags import comma_list, scale
from tools.export.model_card import model_card, public_config
from tools.export.onnx import (
    TOLERANCE,
    Size,
    export_onnx,
    graph_calibration,
    largest_difference,
    smallest_side,
)
from util import UserError, log, run_script, start_logging, writing

ONNX_FILE, CARD_FILE = "model.onnx", "README.md"
OURS = {ONNX_FILE, WEIGHTS_FILE, CONFIG_FILE, CARD_FILE}
NEEDED = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "safetensors": ("safetensors",)}
"""Packages of each format."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    description, rest = (__doc__ or "").split("\n\n    ", 1)
    made = OneLineParser(
        prog="python -m tools.export",
        description=description,
        epilog=f"examples:\n    {rest}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument(
        "--model_path", type=Path, required=True, metavar="PATH", help="the checkpoint"
    )
    made.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to make")
    made.add_argument(
        "--format",
        choices=(*NEEDED, "both"),
        default="both",
        help="what to write (default: %(default)s)",
    )
    made.add_argument("--size", nargs="+", default=["dynamic"], metavar="N",
                      help="of the graph's pictures: height and width in pixels, or dynamic for any (default)")  # fmt: skip
    made.add_argument("--npr_scales", type=comma_list(scale), metavar="SCALES",
                      help="of checkpoints of the earlier code, which do not hold them")  # fmt: skip
    made.add_argument("--overwrite", action="store_true", help="replace an earlier export")
    return made


def graph_size(given: Sequence[str]) -> Size | None:
    """What --size says, None for any.

    Raises:
        UserError: it is neither 'dynamic' nor two sides in pixels.
    """
    if list(given) == ["dynamic"]:
        return None
    sides = [int(side) for side in given if side.isdecimal() and len(side) < 6]
    if len(given) != 2 or len(sides) != 2 or min(sides) < 1:
        raise UserError(
            f"--size {' '.join(given)}: give dynamic, or height and width in pixels, such as --size 256 256"
        )
    return sides[0], sides[1]


def require_packages(formats: Sequence[str]) -> None:
    """Raises UserError where a package is missing that these formats need."""
    missing = [name for kind in formats for name in NEEDED[kind] if find_spec(name) is None]
    if missing:
        raise UserError(f"--format {'/'.join(formats)}: needs {', '.join(missing)}; run: {INSTALL}")


def checked_output(output: Path, source: Path, overwrite: bool) -> Path:
    """The folder to make, links followed; with `overwrite` it may hold an earlier export, and
    nothing else.

    Raises:
        UserError: something is in the way.
    """
    place = Path(os.path.realpath(output))
    if place.exists() and source.exists() and place.samefile(source):
        raise UserError(f"--output {output}: is the model itself; give another folder")
    if place.exists() and not place.is_dir():
        raise UserError(f"--output {output}: is a file; give a folder to make")
    with writing(output):
        held = {path.name for path in place.iterdir()} if place.exists() else set()
    if held and not overwrite:
        raise UserError(
            f"--output {output}: exists and holds {min(held)}; give another, or --overwrite"
        )
    if held and (others := held - OURS or (held if CONFIG_FILE not in held else set())):
        raise UserError(
            f"--output {output}: not overwritten, because it holds {min(others)}, which is no export; give another"
        )
    return place


def fill(
    folder: Path, loaded: LoadedModel, name: str, formats: Sequence[str], size: Size | None
) -> None:
    """Write all files into a new folder, and check them.

    Args:
        name: what the folder will be called.

    Raises:
        UserError: the network cannot be exported, or what was written gives other answers. OSError:
            a file cannot be written.
    """
    config = plain_config(loaded)
    if "safetensors" in formats:
        write_model_folder(folder, loaded.model.state_dict(), config)
        check_weights(folder, loaded)
    else:
        write_config(folder, config)
    if "onnx" in formats:
        log.info("exporting %s to ONNX ...", loaded.name)
        warn_of_calibration(loaded)
        graph = export_onnx(loaded, size, config)
        difference = largest_difference(graph, loaded, size)
        log.info(
            "onnxruntime and PyTorch differ by %.1e at most, on random pictures (%.0e is allowed)",
            difference,
            TOLERANCE,
        )
        if not difference <= TOLERANCE:
            fixed = "" if size else "; try a fixed size, such as --size 224 224"
            raise UserError(
                f"--format onnx: the graph's outputs differ by {difference:.1e} from PyTorch's{fixed}"
            )
        (folder / ONNX_FILE).write_bytes(graph)
    card = model_card(loaded, config, name, "onnx" in formats, "safetensors" in formats, size)
    (folder / CARD_FILE).write_text(card, encoding="utf-8", errors="backslashreplace")


def warn_of_calibration(loaded: LoadedModel) -> None:
    """Say why the graph of a calibrated checkpoint gives no probability, if it does not."""
    found = stored_calibration(loaded)
    if found is not None and graph_calibration(loaded) is None:
        log.warning(
            "warning: %s is calibrated for protocol %s, and the graph takes pictures as they are: it gets no output"
            " probability; calibrate with --protocol native for one",
            loaded.path,
            found.protocol,
        )


def plain_config(loaded: LoadedModel) -> dict[str, Any]:
    """See `public_config`.

    Raises:
        UserError: the checkpoint holds what JSON cannot say, such as NaN.
    """
    config = public_config(loaded)
    for key, value in config.items():
        if (wrong := not_json(value)) is not None:
            raise UserError(
                f"--model_path {loaded.path}: its {key} holds {wrong}, which JSON cannot say"
            )
    return config


def not_json(value: Any) -> str | None:
    """What of nested values JSON cannot say; None if it can say all."""
    if isinstance(value, dict | list | tuple):
        parts = [*value, *value.values()] if isinstance(value, dict) else value
        return next((wrong for part in parts if (wrong := not_json(part)) is not None), None)
    finite = not isinstance(value, float) or abs(value) < float("inf")
    return None if finite and isinstance(value, str | int | float | None) else f"{value!r}"[:100]


def check_weights(folder: Path, loaded: LoadedModel) -> None:
    """Raises UserError where a written folder gives other weights than the model's."""
    again = load_model(folder).model.state_dict()
    changed = [
        name
        for name, value in loaded.model.state_dict().items()
        if not torch.equal(again[name], value)
    ]
    if changed:
        raise UserError(f"--format safetensors: {changed[0]} is not what was written")


def take_place(made: Path, place: Path) -> None:
    """Put a finished folder where it belongs; what was there goes aside, beside `made`, and comes
    back if that fails."""
    aside = made.with_name("before")
    if place.exists():
        place.rename(aside)
    try:
        made.rename(place)
    except OSError:
        if aside.exists():
            aside.rename(place)
        raise


def main(argv: Sequence[str] | None = None) -> int:
    """Export; returns 0."""
    opt = parser().parse_args(argv)
    start_logging()
    size = graph_size(opt.size)
    formats = tuple(NEEDED) if opt.format == "both" else (opt.format,)
    require_packages(formats)
    place = checked_output(opt.output, opt.model_path, opt.overwrite)
    loaded = load_model(opt.model_path, CheckpointOptions(npr_scales=opt.npr_scales))
    if size and min(size) < smallest_side(loaded):
        raise UserError(
            f"--size {size[0]} {size[1]}: the smallest scale needs sides of {smallest_side(loaded)} pixels"
        )
    with writing(opt.output):
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{place.name}.") as scratch:
            made = Path(scratch) / "made"
            made.mkdir()
            fill(made, loaded, place.name, formats, size)
            take_place(made, place)
    log.info("written: %s", ", ".join(str(opt.output / name) for name in sorted(os.listdir(place))))
    return 0


if __name__ == "__main__":
    run_script(main)

"""Export a checkpoint as an ONNX graph and safetensors weights, with a model card.

    python -m tools.export --model_path checkpoints/RUN/model_epoch_best.pth \\
        --output exported/my_detector
    # for programs that need one size
    python -m tools.export --model_path M.pth --output DIR --format onnx --size 256 256
    python -m tools.export --model_path M.pth --output DIR --format safetensors --overwrite

The folder holds config.json, README.md (a model card in Hugging Face's form), and

    model.onnx          for onnxruntime and similar: takes the bytes of images of any size, in
                        batches (docs/export.md)
    model.safetensors   weights without code; load_detector(DIR) and test.py --model_path DIR read
                        the folder

The folder appears when it is complete and checked. The outputs of the graph in onnxruntime must
agree with those of PyTorch to 1e-4 on random images, and the weights are loaded again. Calibrate
before you export.

Exit status: 0 written, 2 the command line or the checkpoint is wrong or a check failed, 130
interrupted.
"""

import json
import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from networks.checkpoint import LoadedModel, load_model, stored_calibration
from networks.model_folder import CONFIG_FILE, WEIGHTS_FILE, write_config, write_model_folder
from options.base_options import RunOptions
from options.flags import OneLineParser, comma_list, scale, tool_parser
from tools.export.model_card import model_card, public_config
from tools.export.onnx import (
    TOLERANCE,
    Size,
    export_onnx,
    graph_calibration,
    largest_difference,
    smallest_side,
)
from util import UserError, atomic_folder, log, run_script, start_logging, writing

ONNX_FILE, CARD_FILE = "model.onnx", "README.md"
OURS = {ONNX_FILE, WEIGHTS_FILE, CONFIG_FILE, CARD_FILE}  # files that --overwrite may replace
FORMATS = ("onnx", "safetensors")
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def parser() -> OneLineParser:
    """Return the parser of the command line."""
    parser = tool_parser("export", __doc__)
    parser.add_argument(
        "--model_path", type=Path, required=True, metavar="PATH", help="checkpoint to export"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to make")
    parser.add_argument(
        "--format",
        choices=(*FORMATS, "both"),
        default="both",
        help="what to write (default: %(default)s)",
    )
    parser.add_argument(
        "--size",
        nargs="+",
        default=["dynamic"],
        metavar="N",
        help="image size of the graph: height and width in pixels, or dynamic for any (default)",
    )
    parser.add_argument(
        "--npr_scales",
        type=comma_list(scale),
        metavar="SCALES",
        help="scales of a checkpoint of the earlier code, which does not hold them",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier export")
    return parser


def graph_size(words: Sequence[str]) -> Size | None:
    """Return height and width from the words of --size; None: any size.

    Raises:
        UserError: the words are neither 'dynamic' nor two sides in pixels.
    """
    if list(words) == ["dynamic"]:
        return None
    sides = [int(side) for side in words if side.isdecimal() and len(side) < 6]
    if len(words) != 2 or len(sides) != 2 or min(sides) < 1:
        raise UserError(
            f"--size {' '.join(words)}: pass dynamic, or height and width in pixels, "
            "such as --size 256 256"
        )
    return sides[0], sides[1]


def require_packages() -> None:
    """Raise UserError if a package is missing that a graph needs."""
    if missing := [name for name in ONNX_PACKAGES if find_spec(name) is None]:
        raise UserError(
            f"--format onnx: needs {', '.join(missing)};"
            " run: pip install -r requirements/export.txt"
        )


def checked_output(output: Path, source: Path, overwrite: bool) -> Path:
    """Return the folder to make, links resolved.

    Args:
        output: folder to make. It may exist if it is empty.
        source: the checkpoint.
        overwrite: `output` may also hold an earlier export, and nothing else.

    Raises:
        UserError: `output` is a file, or the model, or holds anything else.
    """
    folder = Path(os.path.realpath(output))
    if folder.exists() and source.exists() and folder.samefile(source):
        raise UserError(f"--output {output}: is the model itself; pass another folder")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output {output}: is a file; pass a folder to make")
    with writing(output):
        held = {path.name for path in folder.iterdir()} if folder.exists() else set()
    if held and not overwrite:
        raise UserError(
            f"--output {output}: exists and holds {min(held)}; pass another folder, or --overwrite"
        )
    if held and (others := held - OURS or (held if CONFIG_FILE not in held else set())):
        raise UserError(
            f"--output {output}: not overwritten, because {min(others)} in it is not an export; "
            "pass another folder"
        )
    return folder


def fill(
    folder: Path, loaded: LoadedModel, name: str, formats: tuple[str, ...], size: Size | None
) -> None:
    """Write all files into a new folder, and check them.

    Args:
        folder: folder to fill.
        loaded: the model.
        name: name of the finished folder.
        formats: "onnx" and "safetensors", or one of them.
        size: image size of the graph; None: any.

    Raises:
        UserError: the network cannot be exported, or the written model gives other outputs.
        OSError: a file cannot be written.
    """
    config = public_config(loaded, name)
    try:
        json.dumps(config, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"--model_path {loaded.path}: holds values that JSON cannot hold ({error})"
        ) from None
    if "safetensors" in formats:
        write_model_folder(folder, loaded.model.state_dict(), config)
        check_weights(folder, loaded)
    else:
        write_config(folder, config)
    if "onnx" in formats:
        (folder / ONNX_FILE).write_bytes(checked_graph(loaded, size, config))
    card = model_card(loaded, config, formats, size)
    (folder / CARD_FILE).write_text(card, encoding="utf-8", errors="backslashreplace")


def checked_graph(loaded: LoadedModel, size: Size | None, config: dict[str, Any]) -> bytes:
    """Return the ONNX graph after comparing its outputs with PyTorch's.

    Raises:
        UserError: the network cannot be exported, or the graph gives other outputs.
    """
    log.info("exporting %s to ONNX ...", loaded.name)
    calibration = stored_calibration(loaded)
    if calibration is not None and graph_calibration(loaded) is None:
        log.warning(
            "warning: %s is calibrated for protocol %s, but the graph takes images as they are, "
            "so it gets no output probability; calibrate with --protocol native for one",
            loaded.path,
            calibration.protocol,
        )
    graph = export_onnx(loaded, size, config)
    difference = largest_difference(graph, loaded, size)
    log.info(
        "onnxruntime and PyTorch differ by at most %.1e on random images (%.0e is allowed)",
        difference,
        TOLERANCE,
    )
    if not difference <= TOLERANCE:
        advice = "" if size else "; try a fixed size, such as --size 224 224"
        raise UserError(
            f"--format onnx: the graph's outputs differ by {difference:.1e} from PyTorch's{advice}"
        )
    return graph


def check_weights(folder: Path, loaded: LoadedModel) -> None:
    """Raise UserError if a written folder gives other weights than the model's."""
    written = load_model(folder).model.state_dict()
    for name, value in loaded.model.state_dict().items():
        if not torch.equal(written[name], value):
            raise UserError(f"--format safetensors: {name} differs from the model's after writing")


def main(argv: Sequence[str] | None = None) -> int:
    """Export the checkpoint; return 0."""
    opt = parser().parse_args(argv)
    start_logging()
    size = graph_size(opt.size)
    formats = FORMATS if opt.format == "both" else (opt.format,)
    if "onnx" in formats:
        require_packages()
    output = checked_output(opt.output, opt.model_path, opt.overwrite)
    loaded = load_model(opt.model_path, RunOptions(npr_scales=opt.npr_scales))
    if size and min(size) < smallest_side(loaded):
        raise UserError(
            f"--size {size[0]} {size[1]}: the smallest scale needs sides of "
            f"{smallest_side(loaded)} pixels; pass a larger size"
        )
    with writing(opt.output), atomic_folder(output) as folder:
        fill(folder, loaded, output.name, formats, size)
    written = sorted(os.listdir(output))
    log.info("written: %s", ", ".join(str(opt.output / name) for name in written))
    return 0


if __name__ == "__main__":
    run_script(main)

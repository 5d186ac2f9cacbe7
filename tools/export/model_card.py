"""What is told of a model to others: config.json and a model card, out of its checkpoint and
without anything of this machine."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from tabulate import tabulate

from data.protocols import trained_protocol
from device import versions
from evaluation.metrics import LABELS
from evaluation.names import escaped, markdown
from networks.checkpoint import LoadedModel, stored_calibration
from networks.factory import MULTISCALE
from networks.model_folder import FORMAT
from options.flags import shown_value
from options.train_options import TrainOptions
from tools.export.onnx import OPSET, Size, graph_calibration, output_names, smallest_side

OF_THE_MACHINE = ("checkpoints_dir", "cache", "test_dataroot", "num_threads", "gpu_ids")
"""Options of training that say where and on what it ran, not what it did."""
OF_THE_RUN = ("dataroot", "name", "suffix", "classes", "continue_train", "epoch", "loss_freq", "save_latest_freq",
              "save_epoch_freq", "attention_log_freq")  # fmt: skip
"""Those that a recipe need not repeat."""
HOMES = ("home", "users", "root")
"""Folders whose content is named after people, in small letters."""


def public_config(loaded: LoadedModel) -> dict[str, Any]:
    """The content of config.json but the digests of files: plain values; see
    `networks.model_folder`."""
    meta, calibration = loaded.meta, stored_calibration(loaded)
    return {
        "format": FORMAT,
        "name": without_folders(loaded.name),
        "model_config": loaded.config.to_dict(),
        "protocol": without_folders(trained_protocol(loaded).to_dict()),
        "calibration": None if calibration is None else without_folders(calibration.to_dict()),
        "epoch": loaded.epoch,
        "val_threshold": meta.get("val_threshold"),
        "val_metrics": _numbers(meta.get("val_metrics")),
        "options": public_options(meta.get("options")),
        "versions": without_folders(meta.get("versions"))
        if isinstance(meta.get("versions"), dict)
        else None,
        "exported_with": {
            name: value for name, value in versions().items() if name not in ("cpu", "threads")
        },
        "checkpoint_sha256": loaded.sha256,
    }


def _numbers(values: Any) -> dict[str, float | None] | None:
    """What of a dictionary are figures by name."""
    if not isinstance(values, dict):
        return None
    known = (*LABELS, "n_real", "n_fake", "threshold")
    return {
        name: values[name]
        for name in known
        if type(values.get(name)) in (int, float, type(None)) and name in values
    }


def public_options(options: Any) -> dict[str, Any] | None:
    """train.py's options as a checkpoint holds them, without `OF_THE_MACHINE`; of paths only the
    last name."""
    if not isinstance(options, dict):
        return None
    names = [
        field.name for field in dataclasses.fields(TrainOptions) if field.name not in OF_THE_MACHINE
    ]
    return {name: without_folders(options[name]) for name in names if name in options}


def without_folders(value: Any) -> Any:
    """Nested plain values; of every text with a path in it what follows the last separator, unless
    it names a home folder."""
    if isinstance(value, dict):
        return {without_folders(key): without_folders(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_folders(item) for item in value]
    if not isinstance(value, str):
        return value
    *folders, last = re.split(r"[/\\]+", value.rstrip("/\\")) or [""]
    return (
        ""
        if (folders and folders[-1].lower() in HOMES) or last == "~" or last == Path.home().name
        else last
    )


def model_card(
    loaded: LoadedModel,
    config: dict[str, Any],
    folder: str,
    onnx: bool,
    weights: bool,
    size: Size | None,
) -> str:
    """README.md of an exported folder, in Hugging Face's form: Markdown with YAML in front.

    Args:
        config: see `public_config`. folder: its name. onnx, weights: which files it holds. size: of
            the graph's pictures.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"), undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, autoescape=False,
    )  # fmt: skip  # Markdown: every text from outside goes through `shown`
    height, width = size or ("H", "W")
    metrics, epoch, chosen = config["val_metrics"] or {}, config["epoch"], config["val_threshold"]
    text = {
        "name": shown(config["name"]) or "Detector",
        "folder": re.sub(r'["\\]', "", escaped(folder)),
        "tags": ["image-forensics", "generated-image-detection", "npr", *["onnx"] * onnx, *["safetensors"] * weights],
        "model": _model_lines(loaded),
        "recipe": _recipe(config["options"]),
        "epochs": "" if epoch is None else f"; {epoch} epoch{'s' * (epoch != 1)} were finished",
        "data": _data(config["options"]),
        "metrics": _table([(label, metrics[name]) for name, label in LABELS.items() if metrics.get(name) is not None]),
        "threshold": "" if chosen is None else f", but acc@val at {chosen:.3f}, which was chosen on these very pictures",
        "metrics_of": f"{_count(metrics, 'n_real')} real and {_count(metrics, 'n_fake')} generated pictures.",
        "calibration": _calibration(config["calibration"], graph_calibration(loaded) is not None),
        "has_onnx": onnx, "has_weights": weights, "opset": OPSET, "height": height, "width": width,
        "smallest": smallest_side(loaded),
        "outputs": ", ".join(f"`{name}`" for name in output_names(loaded)),
    }  # fmt: skip
    return environment.get_template("model_card.md").render(text)


def shown(text: Any) -> str:
    """A text from outside as Markdown shows it: on one line, nothing in it steers."""
    return markdown(escaped(str(text)))


def _table(rows: Sequence[tuple[str, Any]]) -> str:
    cells = [[name, f"{value:.4f}" if isinstance(value, float) else value] for name, value in rows]
    return tabulate(cells, ["figure", "value"], "github", disable_numparse=True) if rows else ""


def _count(metrics: dict[str, Any], name: str) -> str:
    return "an unknown number of" if metrics.get(name) is None else f"{metrics[name]:,}"


def _model_lines(loaded: LoadedModel) -> list[str]:
    config, protocol = loaded.config, trained_protocol(loaded)
    scales = ", ".join(f"{scale:g}" for scale in config.scales)
    parameters = sum(value.numel() for value in loaded.model.parameters())
    if config.model_type == MULTISCALE:
        kind = f"Residuals at the scales {scales}, one branch each ({shown(config.backbone)}), fused by attention"
    else:
        kind = f"The published single-scale network: residual at the scale {scales}"
    steps = [f"resized to {protocol.resize}" * (protocol.resize is not None)]
    steps += [f"crops of {protocol.crop}" * (protocol.crop is not None)]
    geometry = ", ".join(filter(None, steps)) or "native size"
    mean, std = (
        ", ".join(f"{value:g}" for value in values) for values in (protocol.mean, protocol.std)
    )
    return [
        f"{kind}; {parameters:,} parameters.",
        f"In training pictures were seen so: {geometry} (protocol {shown(protocol.name)}, version {protocol.version}).",
        f"Normalisation of values in [0, 1]: mean {mean}; standard deviation {std}.",
    ]


def _recipe(options: dict[str, Any] | None) -> str:
    """The options that differ from the defaults, as a table; empty where there are none."""
    defaults = TrainOptions().to_dict()
    rows = [
        [f"`--{name}`", shown(shown_value(value))]
        for name, value in (options or {}).items()
        if name not in OF_THE_RUN and value != defaults[name]
    ]
    return tabulate(rows, ["option", "value"], "github", disable_numparse=True) if rows else ""


def _data(options: dict[str, Any] | None) -> str:
    options = options or {}
    root, classes = options.get("dataroot"), options.get("classes")
    if not root:
        return "The checkpoint does not say."
    named = isinstance(classes, list) and classes
    which = (
        f"its class folders {', '.join(map(shown, classes or []))}"
        if named
        else "all its class folders"
    )
    return f"Trained on a folder called {shown(root)} ({which}). The checkpoint does not say more of it."


def _calibration(calibration: dict[str, Any] | None, native: bool) -> str:
    """Args: native: it was fitted for pictures at their own size."""
    if calibration is None:
        return "None: scores are sigmoid(logit), which need not be probabilities."
    c = calibration
    rows = [("temperature", c["temperature"]), ("threshold", c["threshold"]),
            ('"real" up to', c["lower"]), ('"generated" from', c["upper"]),
            ("aimed at a share of wrong verdicts of", c["target_error"]), ("ECE before", c["ece_before"]),
            ("ECE after", c["ece_after"])]  # fmt: skip
    said = 'The probability of "generated" is sigmoid(logit / temperature)'
    fitted = f"fitted on {c['n_real']:,} real and {c['n_fake']:,} generated pictures of {shown(c['data'])}, {shown(c['protocol'])}"
    held = "" if native else (
        " It holds for pictures preprocessed in that way only: those at their own size, which `load_detector` takes by default and"
        " an ONNX graph always, get a score and no probability."
    )  # fmt: skip
    return f"{said}, {fitted}.{held}\n\n{_table(rows)}"

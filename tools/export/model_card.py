"""config.json and the model card of an exported model.

Both hold known-safe fields of the checkpoint only: numbers, and words that this project chose. Text
that users chose, such as names of folders, classes and runs, is not exported.
"""

import json
import math
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

PUBLIC_OPTIONS = (
    *("model_type", "npr_scales", "feature_dim", "attention_reduction", "attention_residual"),
    *("init_type", "init_gain", "attention_entropy_weight", "attention_diversity_weight"),
    *("batch_size", "optim", "lr", "beta1", "niter", "lr_schedule", "delr_freq", "sync_bn"),
    *("accumulation_steps", "skip_nonfinite", "epoch_count", "earlystop_epoch"),
    *("attention_patience", "new_optim", "seed", "precision", "compile", "fast"),
    *("loadSize", "cropSize", "no_resize", "no_crop", "rz_interp", "class_bal", "serial_batches"),
    *("no_flip", "data_aug", "blur_prob", "blur_sig", "jpg_prob", "jpg_method", "jpg_qual"),
    *("degrade", "repeat_small"),
)
"""Options of train.py that describe the training without naming folders or data."""
LIBRARIES = ("torch", "torchvision", "numpy", "pillow")


def public_config(loaded: LoadedModel, name: str) -> dict[str, Any]:
    """Return the content of config.json, without the digests of files, as plain values for JSON.

    Args:
        loaded: the exported model.
        name: name of the exported model.
    """
    meta, calibration = loaded.meta, stored_calibration(loaded)
    return {
        "format": FORMAT,
        "name": name,
        "model_config": loaded.config.to_dict(),
        "protocol": trained_protocol(loaded).to_dict(),
        # `data` names folders
        "calibration": None if calibration is None else calibration.to_dict() | {"data": ""},
        "epoch": loaded.epoch,
        "val_threshold": meta.get("val_threshold"),
        "val_metrics": _metrics(meta.get("val_metrics")),
        "options": _known(meta.get("options"), PUBLIC_OPTIONS),
        "versions": _known(meta.get("versions"), LIBRARIES),
        "exported_with": _known(versions(), LIBRARIES),
        "checkpoint_sha256": loaded.sha256,
    }


def _known(values: Any, names: tuple[str, ...]) -> dict[str, Any] | None:
    """Return the items of a dictionary with these names; None if `values` is not a dictionary."""
    if not isinstance(values, dict):
        return None
    return {name: values[name] for name in names if name in values}


def _metrics(values: Any) -> dict[str, float | None] | None:
    """Return the finite metrics and the numbers of images; undefined metrics are None."""
    known = _known(values, (*LABELS, "n_real", "n_fake", "threshold"))
    if known is None:
        return None
    return {
        name: value if type(value) in (int, float) and math.isfinite(value) else None
        for name, value in known.items()
    }


def model_card(
    loaded: LoadedModel, config: dict[str, Any], formats: tuple[str, ...], size: Size | None
) -> str:
    """Return README.md of an exported folder in Hugging Face's form: Markdown with YAML in front.

    Args:
        loaded: the exported model.
        config: see `public_config`.
        formats: "onnx" and "safetensors", or one of them.
        size: image size of the graph; None: any.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown; text that this project did not write is escaped below
    )
    metrics = config["val_metrics"] or {}
    calibration = config["calibration"] or {}
    calibration_rows = (
        ("temperature", "temperature"),
        ("threshold", "threshold"),
        ('"real" up to', "lower"),
        ('"generated" from', "upper"),
        ("aimed at a share of wrong verdicts of", "target_error"),
        ("ECE before", "ece_before"),
        ("ECE after", "ece_after"),
    )
    height, width = size or ("H", "W")
    return environment.get_template("model_card.md").render(
        config,
        title=markdown(escaped(config["name"])),
        folder=json.dumps(config["name"]),
        formats=formats,
        multiscale=loaded.config.model_type == MULTISCALE,
        backbone=markdown(escaped(loaded.config.backbone)),
        scales=", ".join(f"{scale:g}" for scale in loaded.config.scales),
        parameters=sum(value.numel() for value in loaded.model.parameters()),
        trained=trained_protocol(loaded),
        recipe=_table("option", _changed_options(config["options"] or {})),
        metrics=_table("metric", {text: metrics.get(name) for name, text in LABELS.items()}),
        n_real=metrics.get("n_real"),
        n_fake=metrics.get("n_fake"),
        calibration_table=_table(
            "constant", {text: calibration.get(name) for text, name in calibration_rows}
        ),
        native=graph_calibration(loaded) is not None,
        opset=OPSET,
        height=height,
        width=width,
        smallest=smallest_side(loaded),
        outputs=", ".join(f"`{name}`" for name in output_names(loaded)),
    )


def _changed_options(options: dict[str, Any]) -> dict[str, str]:
    """Return the options that differ from train.py's defaults, by flag."""
    defaults = TrainOptions().to_dict()
    return {
        f"`--{name}`": markdown(escaped(shown_value(value)))
        for name, value in options.items()
        if value != defaults[name]
    }


def _table(heading: str, values: dict[str, Any]) -> str:
    """Return a Markdown table of the values that are not None; empty if all are None."""
    rows = [
        (name, f"{value:.4f}" if isinstance(value, float) else value)
        for name, value in values.items()
        if value is not None
    ]
    return tabulate(rows, [heading, "value"], "github", disable_numparse=True) if rows else ""

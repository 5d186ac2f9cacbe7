"""From a checkpoint and folders of images to a `TestRun`."""

import shlex
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import sklearn
from numpy.typing import NDArray

import distributed
from data import evaluation_loader
from data.degradations import CLEAN, NOTHING, Degradation, parse_degradation, robustness_grid
from data.image_sets import FAKE, REAL, ImageSet
from data.protocols import evaluation_protocol, trained_protocol
from device import autocast_dtype, versions
from evaluation.format_leak import format_leak, is_leak
from evaluation.names import escaped, relative_name
from evaluation.result_files import SCHEMA, TestRun, bootstrap_settings
from evaluation.scoring import Predictions, predict_variants
from evaluation.summary import ScoredSet
from networks.checkpoint import LoadedModel
from networks.factory import MULTISCALE
from networks.fast import InferenceModel, place_model
from networks.multiscale_npr import AttentionMultiScaleNPR
from networks.npr import scale_keys
from options.test_options import TestOptions
from util import UserError, log


def run_test(
    loaded: LoadedModel,
    dataroot: Path,
    sets: Sequence[ImageSet],
    opt: TestOptions,
    leaks: dict[str, float | None] | None = None,
) -> TestRun:
    """Score one checkpoint on each set in turn, under the set's protocol (see
    `evaluation_protocol`).

    Of several processes, each scores its part, and all return the same run. Collective, see
    `distributed`.

    Args:
        opt: protocol and geometry flags, --equalize, --robustness, --bootstrap, batch size,
            precision, device.
        leaks: what `format_leaks` found, to be kept with the results.

    Raises:
        UserError: no image of any set can be read.
    """
    equalize = equalization(opt.equalize)
    variants = [
        equalize.then(condition)
        for condition in (robustness_grid() if opt.robustness else [NOTHING])
    ]
    device = distributed.device(opt.gpu_ids)
    place_model(loaded.model, device, autocast_dtype(opt.precision, device))
    if len(variants) > 1:
        log.info(
            "scoring every picture in %d ways, so this takes about %d times as long",
            len(variants),
            len(variants),
        )
    compiled = opt.compile or opt.fast
    normalise = trained_protocol(loaded).normalise  # that of every set's protocol
    share = max(1, distributed.share_of(opt.batch_size))
    forward = InferenceModel(loaded.model, share, compiled, normalise) if compiled else None
    scored: dict[str, list[ScoredSet]] = {variant.name: [] for variant in variants}
    # by file and condition: sets may share files
    skipped: dict[tuple[str, str], dict[str, str]] = {}
    left_out: dict[str, int] = {}
    protocols: dict[str, Any] = {}
    for images in sets:
        protocol = evaluation_protocol(trained_protocol(loaded), images.suite, opt)
        loader = evaluation_loader(
            images, protocol, opt.batch_size, opt.num_threads, variants, opt.cache, opt.on_bad_image
        )
        said = predict_variants(
            loaded.model, loader, opt.precision, progress=images.generator, forward=forward
        )
        of_set = _skipped(said, variants, dataroot)
        skipped |= {(one["path"], one.get("condition", "")): one for one in of_set}
        left_out[f"{escaped(images.suite)}/{escaped(images.generator)}"] = len(said[0].left_out)
        if not len(said[0].labels):
            log.warning("left out %s: none of its images could be read", images.key)
            continue
        for variant, predictions in zip(variants, said, strict=True):
            # a picture without a score when clean must not count elsewhere
            both = np.isin(predictions.indices, said[0].indices)
            if both.any():
                scored[variant.name].append(_scored(images, predictions, dataroot, both))
        protocols[scored[CLEAN][-1].key] = protocol.to_dict()
    if not scored[CLEAN]:
        raise UserError(f"--dataroot {dataroot}: none of its images could be read and scored")
    head = _head(loaded, dataroot, opt) | {"protocol": protocols}
    head |= {"format_leak": leaks or {}, "skipped": list(skipped.values()), "left_out": left_out}
    attention = loaded.config.model_type == MULTISCALE
    columns = (
        tuple(f"attention_{key}" for key in scale_keys(loaded.config.scales)) if attention else ()
    )
    robust = {name: sets for name, sets in scored.items() if sets} if opt.robustness else {}
    if isinstance(loaded.model, AttentionMultiScaleNPR):
        bias, residual = loaded.model.classifier.bias, loaded.model.attention_fusion.residual
        head |= {"fusion": {"bias": bias.item(), "residual": residual}}
    return TestRun(head, scored[CLEAN], robust, columns)


def equalization(text: str | None) -> Degradation:
    """What --equalize does to every picture of both classes before anything else: jpeg:Q or webp:Q.

    Raises:
        UserError: something else.
    """
    if text is None:
        return NOTHING
    try:
        found = parse_degradation(text)
    except ValueError:
        found = NOTHING
    if [kind for kind, *_ in found.steps] not in (["jpeg"], ["webp"]):
        raise UserError(
            f"--equalize {text}: give jpeg:Q or webp:Q with a quality from 1 to 100, such as jpeg:90"
        )
    return found


def format_leaks(sets: Sequence[ImageSet], equalized: bool = False) -> dict[str, float | None]:
    """`format_leak` of each set by its (escaped) key, with a warning where the files' encoding
    tells its classes apart."""
    leaks: dict[str, float | None] = {}
    for images in sets:
        key = f"{escaped(images.suite)}/{escaped(images.generator)}"
        leaks[key] = auc = format_leak(images)
        if is_leak(auc, images.labels.count(REAL), images.labels.count(FAKE)):
            advice = (
                "equalised here"
                if equalized
                else "score again with --equalize jpeg:90 and report both"
            )
            what = "file format, size and compression alone tell real from fake"
            log.warning("%s: %s with AUC %.2f; %s", key.removeprefix("/"), what, auc, advice)
    return leaks


def _scored(images: ImageSet, said: Predictions, dataroot: Path, chosen: NDArray) -> ScoredSet:
    weights, branches = said.attention_weights, said.branch_logits
    return ScoredSet(
        escaped(images.suite),
        escaped(images.generator),
        tuple(relative_name(images.paths[index], dataroot) for index in said.indices[chosen]),
        said.labels[chosen],
        said.logits[chosen],
        said.scores[chosen],
        None if weights is None else weights[chosen],
        None if branches is None else branches[chosen],
    )


def _skipped(
    said: Sequence[Predictions], variants: Sequence[Degradation], dataroot: Path
) -> list[dict[str, str]]:
    """Files without a score, sorted; a degradation is named where the picture has a score without
    it."""
    skipped = [
        {"path": relative_name(path, dataroot), "reason": why}
        for path, why in sorted(said[0].left_out.items())
    ]
    for variant, predictions in zip(variants, said, strict=True):
        skipped += [
            {"path": relative_name(path, dataroot), "reason": why, "condition": variant.name}
            for path, why in sorted(predictions.left_out.items())
            if path not in said[0].left_out
        ]
    return skipped


def _head(loaded: LoadedModel, dataroot: Path, opt: TestOptions) -> dict[str, Any]:
    model = {"name": escaped(loaded.name), "path": escaped(str(loaded.path)), "epoch": loaded.epoch}
    return {
        "schema": SCHEMA,
        "date": datetime.now().isoformat(sep=" ", timespec="minutes"),
        "command": escaped(shlex.join(sys.argv)),
        "model": model | loaded.config.to_dict() | {"training": loaded.meta.get("options")},
        "dataroot": escaped(str(dataroot)),
        "classes": list(opt.classes),
        "precision": opt.precision,
        "equalize": opt.equalize,
        "grid": [condition.name for condition in robustness_grid()] if opt.robustness else [],
        "checkpoint_sha256": loaded.sha256,
        "versions": versions() | {"scikit-learn": sklearn.__version__, "scipy": scipy.__version__},
        "threshold": loaded.meta.get("val_threshold"),
        "bootstrap": bootstrap_settings(opt.bootstrap, opt.seed),
    }

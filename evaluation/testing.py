"""Test checkpoints on datasets: each gives a `TestRun`."""

import shlex
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import sklearn
import torch

import distributed
from data.degradations import CLEAN, NOTHING, Degradation, parse_degradation, robustness_grid
from data.image_sets import FAKE, REAL, ImageSet
from data.layouts import find_test_sets
from data.loader import class_names, evaluation_loader
from data.protocols import trained_protocol
from data.transforms import Protocol
from device import autocast_dtype, memory_advice, versions
from evaluation.fitting import fitting_protocol, suite_protocol
from evaluation.format_leak import format_leak, is_leak
from evaluation.names import escaped, relative_name
from evaluation.result_files import SCHEMA, TestRun, bootstrap_settings
from evaluation.scores import Scores
from evaluation.scoring import predict_variants
from evaluation.usable import unusable
from networks.checkpoint import LoadedModel, load_model
from networks.fast import InferenceModel, place_model
from networks.multiscale_npr import AttentionMultiScaleNPR
from networks.npr import scale_keys
from networks.run_folder import find_checkpoints
from options.test_options import TestOptions
from util import UserError, log, writable_folder

Report = Callable[[TestRun, Path, Path, Sequence[str]], Path]
"""Write a run to a folder: (run, results_dir, dataroot, formats) -> the folder."""


def models_and_sets(opt: TestOptions) -> tuple[list[LoadedModel], Path, list[ImageSet]]:
    """Return the loaded checkpoints, the folder of the sets, and the sets to test them on."""
    writable_folder(Path(opt.results_dir))
    checkpoints = find_checkpoints(opt.model_path, opt.name, opt.epoch, opt.checkpoints_dir)
    models = [load_model(path, opt) for path in checkpoints]
    trained_on = [loaded.trained_on for loaded in models]
    return models, *find_test_sets(opt.dataroot, opt.classes, class_names(opt), trained_on)


def run_tests(
    models: Sequence[LoadedModel],
    dataroot: Path,
    sets: Sequence[ImageSet],
    opt: TestOptions,
    report: Report,
) -> list[Path]:
    """Test each checkpoint and report it on rank 0. Collective, see `distributed`.

    Args:
        models: the checkpoints.
        dataroot: folder that holds the sets.
        sets: to test them on.
        opt: see `run_test`; also the folder and formats of the report.
        report: writes each run.

    Returns:
        The folder of each checkpoint's results; empty on other ranks.
    """
    first = distributed.rank() == 0
    leaks = format_leaks(sets, equalized=opt.equalize is not None) if first else None
    folders = []
    for loaded in models:
        with memory_advice(opt.batch_size):
            run = run_test(loaded, dataroot, sets, opt, leaks)
        if first:
            folders.append(report(run, Path(opt.results_dir), dataroot, opt.formats))
    return folders


def run_test(
    loaded: LoadedModel,
    dataroot: Path,
    sets: Sequence[ImageSet],
    opt: TestOptions,
    leaks: dict[str, float | None] | None = None,
) -> TestRun:
    """Score one checkpoint on each set in turn, under the set's protocol.

    With several processes, each scores its share, and all return the same run. Collective, see
    `distributed`.

    Args:
        loaded: the checkpoint.
        dataroot: folder that holds the sets.
        sets: to test it on.
        opt: protocol and geometry flags, --equalize, --robustness, --bootstrap, batch size,
            precision, device.
        leaks: `format_leaks` of the sets, stored with the results.

    Raises:
        UserError: every set has lost all images, or all of a class.
    """
    equalize = equalization(opt.equalize)
    variants = [
        equalize.then(condition)
        for condition in (robustness_grid() if opt.robustness else [NOTHING])
    ]
    if len(variants) > 1:
        text = (
            "--robustness: scoring every image in %d versions, which takes about %d times as long"
        )
        log.info(text, len(variants), len(variants))
    forward = _place(loaded, opt)
    scored: dict[str, list[Scores]] = {variant.name: [] for variant in variants}
    # keyed by file and condition, because sets may share files
    skipped: dict[tuple[str, str], dict[str, str]] = {}
    n_skipped: dict[str, int] = {}
    protocols: dict[str, Any] = {}
    lost: list[str] = []
    fitting = cache(partial(fitting_protocol, loaded))  # a warning per protocol
    for images in sets:
        protocol = fitting(suite_protocol(loaded, images.suite, opt))
        of_variants = _score_set(loaded, images, protocol, variants, dataroot, opt, forward)
        clean = of_variants[0]
        rows = _skipped(of_variants, variants)
        skipped |= {(row["path"], row.get("condition", "")): row for row in rows}
        n_skipped[clean.key] = len(clean.skipped)
        names = [relative_name(path, dataroot) for path in images.paths]
        if why := unusable(names, images.labels, clean.skipped):
            log.warning("%s: %s", images.key.removeprefix("/"), why)
            lost.append(why)
        if not clean.paths:
            continue
        protocols[clean.key] = protocol.to_dict()
        for variant, of_variant in zip(variants, of_variants, strict=True):
            if of_variant.paths:
                scored[variant.name].append(of_variant)
    if len(lost) == len(sets):
        raise UserError(f"{dataroot}: {lost[0]}")
    head = _head(loaded, dataroot, opt) | {"protocol": protocols}
    head |= {"format_leak": leaks or {}, "skipped": list(skipped.values()), "left_out": n_skipped}
    columns: tuple[str, ...] = ()
    if isinstance(loaded.model, AttentionMultiScaleNPR):
        columns = tuple(f"attention_{key}" for key in scale_keys(loaded.config.scales))
        bias, residual = loaded.model.classifier.bias, loaded.model.attention_fusion.residual
        head |= {"fusion": {"bias": bias.item(), "residual": residual}}
    robust = {name: sets for name, sets in scored.items() if sets} if opt.robustness else {}
    return TestRun(head, scored[CLEAN], robust, columns)


def _score_set(
    loaded: LoadedModel,
    images: ImageSet,
    protocol: Protocol,
    variants: Sequence[Degradation],
    dataroot: Path,
    opt: TestOptions,
    forward: InferenceModel | None,
) -> list[Scores]:
    """Return the scores of a set in each variant, without images that have no clean score."""
    # cuDNN would try out its algorithms again for each size
    torch.backends.cudnn.benchmark = opt.fast and protocol.one_size
    loader = evaluation_loader(
        images, protocol, opt.batch_size, opt.num_threads, variants, opt.cache, opt.on_bad_image
    )
    outputs = predict_variants(loaded.model, loader, opt.precision, images.generator, forward)
    clean, *others = [o.for_files(images.suite, images.generator, dataroot) for o in outputs]
    readable = set(clean.paths)
    kept = [np.array([path in readable for path in scores.paths], dtype=bool) for scores in others]
    return [clean, *(scores.take(rows) for scores, rows in zip(others, kept, strict=True))]


def _place(loaded: LoadedModel, opt: TestOptions) -> InferenceModel | None:
    """Move a model to its device; return its compiled form with --compile or --fast."""
    device = distributed.device(opt.gpu_ids)
    place_model(loaded.model, device, autocast_dtype(opt.precision, device))
    if not (opt.compile or opt.fast):
        return None
    share = max(1, distributed.share_of(opt.batch_size))
    # every set's protocol normalises in the same way
    return InferenceModel(loaded.model, share, True, trained_protocol(loaded).normalise)


def equalization(text: str | None) -> Degradation:
    """Return the re-encoding of --equalize, which comes before everything else.

    Args:
        text: jpeg:Q or webp:Q, Q from 1 to 100; None for no re-encoding.

    Raises:
        UserError: another text.
    """
    if text is None:
        return NOTHING
    try:
        encoding = parse_degradation(text)
    except ValueError:
        encoding = NOTHING
    if [kind for kind, *_ in encoding.steps] not in (["jpeg"], ["webp"]):
        raise UserError(
            f"--equalize {text}: pass jpeg:Q or webp:Q with a quality from 1 to 100, "
            "such as jpeg:90"
        )
    return encoding


def format_leaks(sets: Sequence[ImageSet], equalized: bool = False) -> dict[str, float | None]:
    """Return the `format_leak` of each set by its escaped key; warn of each that is a leak.

    Args:
        sets: the datasets.
        equalized: True with --equalize; changes the advice of the warning.
    """
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


def _skipped(scored: Sequence[Scores], variants: Sequence[Degradation]) -> list[dict[str, str]]:
    """Return path and reason of the files without a score, sorted.

    A file that has a clean score but misses another has the name of the degradation as `condition`.
    """
    clean = scored[0].skipped
    skipped = [{"path": path, "reason": why} for path, why in sorted(clean.items())]
    for variant, of_variant in zip(variants, scored, strict=True):
        skipped += [
            {"path": path, "reason": why, "condition": variant.name}
            for path, why in sorted(of_variant.skipped.items())
            if path not in clean
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

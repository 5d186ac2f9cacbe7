"""Show the attention of models on labelled images, with visualize_attention.py's options."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from data.folders import folder_name
from data.image_sets import ImageSet, sample_evenly, unique_names
from data.layouts import find_test_sets
from data.loader import class_names, evaluation_loader
from data.transforms import Protocol
from device import autocast_dtype, choose_device, seed_everything
from evaluation.attention.findings import attention_findings
from evaluation.attention.images import scale_maps
from evaluation.fitting import fitting_protocol, suite_protocol
from evaluation.names import escaped, relative_name
from evaluation.scores import Scores
from evaluation.scoring import predict
from evaluation.usable import unusable
from networks.checkpoint import LoadedModel, load_model
from networks.fast import place_model
from networks.multiscale_npr import AttentionMultiScaleNPR
from networks.run_folder import find_checkpoints
from options.visualize_options import VisualizeOptions
from reports import attention_page as page
from reports import attention_plots
from reports.attention_tables import statistics_text, write_findings, write_weights
from reports.drawing import Drawer
from reports.html import Picture
from util import UserError, atomic_file, log


def visualize_models(opt: VisualizeOptions) -> None:
    """Write statistics and plots of each model.

    Raises:
        UserError: a model has no attention, two have one name, or no image can be read.
    """
    seed_everything(opt.seed)
    checkpoints = find_checkpoints(opt.model_path, opt.name, opt.epoch, opt.checkpoints_dir)
    models = [load_model(path, opt) for path in checkpoints]
    for loaded in models:
        if not isinstance(loaded.model, AttentionMultiScaleNPR):
            kind = loaded.config.model_type
            raise UserError(f"--model_path {loaded.path}: a {kind} model has no attention to show")
    trained_on = [loaded.trained_on for loaded in models]
    root, sets = find_test_sets(opt.dataroot, opt.classes, class_names(opt), trained_on)
    out = Path(opt.output_dir or Path("visualizations") / folder_name(root))
    names = [loaded.name for loaded in models]
    if len(set(names)) < len(names):
        twice = max(names, key=names.count)
        raise UserError(f"--model_path: two models are called {twice}; show them one at a time")
    for loaded in models:
        folder = out / loaded.name if len(models) > 1 else out
        visualize(loaded, root, sets, folder, opt)
        # last, so that the pipeline takes these plots as finished
        with atomic_file(folder / "opt.txt", errors="surrogateescape") as file:
            file.write(f"{shlex.join(sys.argv)}\n{opt.dump()}\n")
        log.info("written: %s", folder)


def visualize(
    loaded: LoadedModel, root: Path, sets: Sequence[ImageSet], out: Path, opt: VisualizeOptions
) -> None:
    """Write statistics and plots of one model's attention.

    Args:
        loaded: a model with attention.
        root: folder of the data.
        sets: of images; several get a folder each.
        out: folder of the results, made if it is missing.
        opt: preprocessing, sampling and device.

    Raises:
        UserError: every set has lost all images, or all of a class.
    """
    draw = Drawer()
    device = choose_device(opt.gpu_ids)
    model: Any = place_model(loaded.model, device, autocast_dtype(opt.precision, device))
    scales, formats, several = loaded.config.scales, opt.formats, len(sets) > 1
    # names as in test.py, safe in every file
    safe = [
        replace(images, suite=escaped(images.suite), generator=escaped(images.generator))
        for images in sets
    ]
    folders, names = unique_names(sets), unique_names(safe)
    scored_sets: dict[Path, Scores] = {}
    skipped: dict[str, str] = {}
    lost: list[str] = []
    fitting = cache(partial(fitting_protocol, loaded))  # a warning per protocol
    plots: list[Picture] = []
    maps: list[list[Picture]] = []
    for images, written in zip(sets, safe, strict=True):
        protocol = fitting(suite_protocol(loaded, images.suite, opt))
        sample = sample_evenly(images, opt.num_samples, opt.seed)
        prediction = _predict_sample(model, sample, protocol, names[written.key], opt)
        scored = replace(prediction, suite=written.suite, generator=names[written.key])
        skipped |= scored.skipped
        if why := unusable(sample.paths, sample.labels, scored.skipped):
            log.warning("%s: %s", scored.generator, why)
            lost.append(why)
        if not scored.paths:
            continue
        folder = out / folders[images.key] if several else out
        folder.mkdir(parents=True, exist_ok=True)
        scored_sets[folder] = scored
        write_weights(folder / "attention_weights.csv", scored, scales, root)
        if several:
            _write_statistics(loaded, [scored], scored.skipped, root, folder)
            draw(attention_plots.draw_distribution, [scored], scales, folder, formats)
        per_image = draw(page.draw_attention_per_image, scored, scales, folder, formats)
        if per_image is not None and not several:
            plots.append(per_image)
        if opt.save_npr_maps:
            maps.append(_draw_maps(draw, model, scored, protocol, folder, opt))
    if len(lost) == len(sets):
        raise UserError(f"--dataroot {root}: {lost[0]}")
    _write_statistics(loaded, list(scored_sets.values()), skipped, root, out)
    _write_findings(draw, loaded, model, scored_sets, root, out, opt, plots, maps)


def _predict_sample(
    model: Any, sample: ImageSet, protocol: Protocol, name: str, opt: VisualizeOptions
) -> Scores:
    """Return the scores and attention of a sample of a set."""
    loader = evaluation_loader(
        sample,
        protocol,
        opt.batch_size,
        opt.num_threads,
        cache=opt.cache,
        on_bad_image=opt.on_bad_image,
    )
    return predict(model, loader, opt.precision, progress=name)


def _draw_maps(
    draw: Drawer,
    model: Any,
    scored: Scores,
    protocol: Protocol,
    folder: Path,
    opt: VisualizeOptions,
) -> list[Picture]:
    """Draw the residual maps and evidence of --num_maps images of a set."""
    images = ImageSet("", "", scored.paths, tuple(scored.labels.tolist()))
    chosen = sample_evenly(images, opt.num_maps, opt.seed)
    seen = scale_maps(model, evaluation_loader(chosen, protocol, batch_size=1), protocol)
    return page.draw_maps(
        draw, seen, chosen.paths, scored.generator, model.scales, folder, opt.formats
    )


def _write_findings(
    draw: Drawer,
    loaded: LoadedModel,
    model: Any,
    scored_sets: Mapping[Path, Scores],
    root: Path,
    out: Path,
    opt: VisualizeOptions,
    plots: Sequence[Picture],
    maps: Sequence[Sequence[Picture]],
) -> None:
    """Write what all sets together show, and the page with all plots.

    Args:
        draw: skips plots that fail.
        loaded: the model as loaded.
        model: the model on its device.
        scored_sets: scores by the folder of their plots.
        root: folder of the data.
        out: folder of the results.
        opt: seed and formats.
        plots: further plots of the page.
        maps: sheets of residual maps.
    """
    sets, scales, formats = list(scored_sets.values()), loaded.config.scales, opt.formats
    fusion = {"bias": model.classifier.bias.item(), "residual": model.attention_fusion.residual}
    findings = attention_findings(sets, scales, fusion, opt.seed)
    if findings is None:
        draw(attention_plots.draw_distribution, sets, scales, out, formats)
        log.info("no findings about attention: the model has one scale")
        return
    write_findings(findings, out)
    drawn = attention_plots.draw_attention(draw, findings, out, loaded.path.parent, formats)
    sheets = [
        draw(page.draw_sheet, scored, scales, folder, formats)
        for folder, scored in scored_sets.items()
    ]
    title, data = f"Attention of {escaped(loaded.name)}", escaped(str(root))
    report = out / "attention_report.html"
    page.write_page(
        findings, title, data, [*drawn, *plots], [sheet for sheet in sheets if sheet], maps, report
    )
    for verdict in findings.verdicts:
        log.info("%s", verdict.sentence)


def _write_statistics(
    loaded: LoadedModel,
    sets: Sequence[Scores],
    skipped: Mapping[str, str],
    root: Path,
    folder: Path,
) -> None:
    """Write and log attention_statistics.txt."""
    text = f"model: {escaped(loaded.name)}\n{statistics_text(sets, loaded.config.scales)}"
    text += f"\nskipped: {len(skipped)} files\n"
    text += "".join(f"  {relative_name(path, root)}: {why}\n" for path, why in skipped.items())
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_file(folder / "attention_statistics.txt") as file:
        file.write(text)
    log.info("\n%s", text)

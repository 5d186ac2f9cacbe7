"""The files of visualize_attention.py: statistics, weights, pictures and a page for one generator or a suite of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from data import evaluation_loader
from data.decode import read_image
from data.image_sets import ImageSet, sample_evenly, unique_names
from data.protocols import evaluation_protocol
from data.transforms import Protocol
from evaluation.attention import statistics_text, write_attention_csv
from evaluation.attention_findings import attention_findings, attention_sections, draw_findings, write_findings
from evaluation.attention_plots import plot_attention_training
from evaluation.attention_statistics import Attended
from evaluation.evaluate import Predictions, predict
from evaluation.event_log import read_scalars
from evaluation.html import Page, Picture
from evaluation.monitor import FIXED, VALIDATION
from evaluation.names import escaped, relative_name
from evaluation.plots import plot_attention_distribution, plot_attention_per_image, plot_npr_maps
from evaluation.sheet_plots import plot_image_sheet, typical_and_surprising
from networks.cam import class_activation_maps
from networks.checkpoint import LoadedModel
from networks.detector import trained_protocol
from networks.fast import place_model
from networks.multiscale_npr import AttentionMultiScaleNPR
from networks.npr import scale_keys
from options.visualize_options import VisualizeOptions
from util import UserError, autocast_dtype, choose_device, log

MOST_SHEETS = 12
"""Generators of which images are shown on the page, which holds every picture."""


@dataclass(frozen=True)
class SetAttention:
    """Attention on the sampled images of one set."""

    images: ImageSet
    protocol: Protocol
    predictions: Predictions

    @property
    def weights(self) -> NDArray:
        """[N, S]"""
        assert self.predictions.attention_weights is not None
        return self.predictions.attention_weights


class AttentionReport:
    """Draws and writes what one model attends to, below one folder.

    Args:
        loaded: a model with attention. opt: preprocessing, sampling and device. root: data root that paths are relative to.
        folder: where everything goes, made when needed.

    Raises:
        UserError: the model has no attention.
    """

    def __init__(self, loaded: LoadedModel, opt: VisualizeOptions, root: Path, folder: Path) -> None:
        if not isinstance(loaded.model, AttentionMultiScaleNPR):
            raise UserError(f"--model_path {loaded.path}: a {loaded.config.model_type} model has no attention to show")
        self.loaded, self.opt, self.root, self.folder = loaded, opt, root, folder
        device = choose_device(opt.gpu_ids)
        self.model = place_model(loaded.model, device, autocast_dtype(opt.precision, device))
        self.scales = loaded.config.scales
        self.formats: Sequence[str] = ("png", "pdf") if opt.pdf else ()

    def write(self, sets: list[ImageSet]) -> None:
        """One set: everything in the folder. Several: a folder for each, and the whole above them. A page with the findings."""
        names = unique_names(sets)
        several = len(sets) > 1
        found: dict[str, SetAttention] = {}
        for images in sets:
            name = names[images.key]
            attended = self._attend(images)
            if not len(attended.predictions.labels):
                log.warning("left out %s: none of its sampled images could be read", name)
                continue
            found[name] = attended
            self._write_set(found[name], name, self.folder / name if several else self.folder)
        if not found:
            raise UserError(f"--dataroot {self.root}: none of its images could be read")
        if several:
            self._write_whole(found)
        self._write_page(found)

    def _attend(self, images: ImageSet) -> SetAttention:
        sampled = sample_evenly(images, self.opt.num_samples, self.opt.seed)
        protocol = evaluation_protocol(trained_protocol(self.loaded), images.suite, self.opt)
        opt = self.opt
        loader = evaluation_loader(
            sampled, protocol, opt.batch_size, opt.num_threads, cache=opt.cache, on_bad_image=opt.on_bad_image
        )
        return SetAttention(
            sampled, protocol, predict(self.model, loader, self.opt.precision, progress=images.generator)
        )

    def _write_set(self, found: SetAttention, name: str, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        said = found.predictions
        self._write_statistics(folder, name, found.weights, said.labels, said.left_out)
        write_attention_csv(folder / "attention_weights.csv", found.images, said, self.scales, self.root)
        picture = folder / "attention_per_image.png"
        plot_attention_per_image(
            found.weights, said.labels, said.scores, self.scales, picture, title=name, formats=self.formats
        )
        if self.opt.save_npr_maps:
            self._write_npr_maps(found, folder / "npr_artifacts")

    def _write_statistics(
        self, folder: Path, title: str, weights: NDArray, labels: NDArray, left_out: dict[str, str]
    ) -> None:
        text = f"model: {self.loaded.name}\n" + statistics_text(title, weights, labels, self.scales)
        text += f"\nleft out: {len(left_out)} files\n" + "".join(
            f"  {relative_name(path, self.root)}: {why}\n" for path, why in left_out.items()
        )
        path = folder / "attention_statistics.txt"
        path.write_text(text, encoding="utf-8")
        log.info("\n%s", text)
        picture = folder / "attention_distribution.png"
        plot_attention_distribution(weights, labels, self.scales, picture, title=title, formats=self.formats)

    def _write_npr_maps(self, found: SetAttention, folder: Path) -> None:
        """Residual maps of up to --num_maps of the sampled images, half of them generated."""
        readable = [found.images.paths[index] for index in found.predictions.indices]
        kept = ImageSet(
            found.images.suite, found.images.generator, tuple(readable), tuple(found.predictions.labels.tolist())
        )
        chosen = sample_evenly(kept, self.opt.num_maps, self.opt.seed)
        device = next(self.model.parameters()).device
        folder.mkdir(parents=True, exist_ok=True)
        loader = evaluation_loader(chosen, found.protocol, batch_size=1)
        for batch in tqdm(
            loader.batches(), total=len(loader), desc="residual maps", leave=False, unit="image", disable=None
        ):
            images = loader.images(batch, device)
            seen = self.model.get_scale_contributions(images)
            maps, weights, logits = seen["npr_maps"], seen["attention_weights"], seen["prediction"]
            assert isinstance(maps, dict) and isinstance(weights, torch.Tensor) and isinstance(logits, torch.Tensor)
            index = int(batch.indices[0])
            kind = "fake" if int(batch.labels[0]) else "real"
            # any name, and with ours around it no longer than a name may be
            stem = escaped(Path(chosen.paths[index]).stem)[:80]
            plot_npr_maps(
                found.protocol.denormalise(images[0]),
                {key: residual[0] for key, residual in maps.items()},
                weights[0],
                self.scales,
                folder / f"{index:03d}_{kind}_{stem}.png",
                title=f"{kind}: {stem}, score {float(logits.sigmoid()):.3f}",
                cams=class_activation_maps(self.model, images)[0],
                formats=self.formats,
            )

    def _write_whole(self, found: dict[str, SetAttention]) -> None:
        """Statistics over all generators."""
        weights = np.concatenate([one.weights for one in found.values()])
        labels = np.concatenate([one.predictions.labels for one in found.values()])
        left_out = {path: why for one in found.values() for path, why in one.predictions.left_out.items()}
        self._write_statistics(self.folder, f"all {len(found)} generators", weights, labels, left_out)

    def _write_page(self, found: dict[str, SetAttention]) -> None:
        """attention_report.html, with what it shows as files beside it; a model with one scale has nothing to be found."""
        sets = [
            Attended(
                name,
                one.images.suite,
                one.predictions.labels,
                one.predictions.scores,
                one.weights,
                one.predictions.branch_logits,
                tuple(one.images.paths[index] for index in one.predictions.indices),
            )
            for name, one in found.items()
        ]
        fusion = {"bias": self.model.classifier.bias.item(), "residual": self.model.attention_fusion.residual}
        findings = attention_findings(sets, self.scales, fusion, self.opt.seed)
        if findings is None:
            log.info("no findings about attention: there is one scale")
            return
        write_findings(findings, self.folder)
        pictures = [*draw_findings(findings, self.folder, self.formats), *self._sheets(found), *self._training()]
        for name in ("attention_distribution", "attention_per_image"):
            if (path := self.folder / f"{name}.png").is_file():
                pictures.append(Picture(path, name.replace("_", " ")))
        count = sum(len(one.labels) for one in sets)
        subtitle = f"on {escaped(str(self.root))}: {count:,} images of {len(sets)} generator{'s' * (len(sets) != 1)}"
        page = Page(f"Attention of {self.loaded.name}", subtitle, attention_sections(findings, pictures))
        (self.folder / "attention_report.html").write_text(page.render(), encoding="utf-8")
        for verdict in findings.verdicts:
            log.info("%s", verdict.sentence)
            for flags, why in verdict.advice:
                log.info("  %s: %s", flags, why)

    def _sheets(self, found: dict[str, SetAttention]) -> list[Picture]:
        """The images whose attention is most typical of their generator, and those where it is most surprising; up to 6 each."""
        pictures = []
        for name, one in list(found.items())[:MOST_SHEETS]:
            blocks = {}
            for heading, chosen in zip(("typical", "surprising"), typical_and_surprising(one.weights, 6), strict=True):
                blocks[f"most {heading} attention"] = [
                    (
                        read_image(one.images.paths[one.predictions.indices[row]]),
                        one.weights[row],
                        one.predictions.scores[row],
                    )
                    for row in chosen
                ]
            folder = self.folder / name if len(found) > 1 else self.folder
            picture = folder / "attention_images.png"
            path = plot_image_sheet(blocks, self.scales, picture, title=name, formats=self.formats)
            pictures.append(Picture(path, f"{name}: images with the most typical and the most surprising attention"))
        return pictures

    def _training(self) -> list[Picture]:
        """Attention on the validation images after every epoch, if the checkpoint lies in its run's folder.

        Runs logged by earlier versions have it for a fixed batch of them only, by step.
        """
        logged = {tag: dict(values) for tag, values in read_scalars(self.loaded.path.parent / "val").items()}
        keys = scale_keys(self.scales)
        for images, time, what in ((VALIDATION, "epoch", "the validation images"), (FIXED, "step", "a fixed batch")):
            tags = [f"{images}/{name}_{key}" for name in ("mean", "std") for key in keys]
            columns = [logged.get(tag, {}) for tag in (f"{images}/entropy", *tags)]
            times = logged.get("epoch", {}) if time == "epoch" else {step: float(step) for step in columns[0]}
            history: dict[float, Any] = {}
            for step in sorted(set.intersection(set(times), *map(set, columns))):
                entropy, *moments = (column[step] for column in columns)
                history[times[step]] = moments[: len(keys)], moments[len(keys) :], entropy
            if history:
                picture = self.folder / "attention_training.png"
                path = plot_attention_training(history, self.scales, picture, time, formats=self.formats)
                return [Picture(path, f"attention on {what} during training")]
        return []

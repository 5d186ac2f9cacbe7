"""The files of visualize_attention.py: statistics, weights, pictures and a page for one generator
or a suite of them."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path

import torch
from tqdm import tqdm

from data import evaluation_loader
from data.decode import read_image
from data.image_sets import ImageSet, sample_evenly, unique_names
from data.protocols import evaluation_protocol, trained_protocol
from data.transforms import Protocol
from device import autocast_dtype, choose_device
from evaluation.attention.findings import AttentionFindings, attention_findings
from evaluation.attention.weights import statistics_text, write_attention_csv
from evaluation.names import escaped, relative_name
from evaluation.scores import Scores
from evaluation.scoring import predict
from networks.cam import evidence
from networks.checkpoint import LoadedModel
from networks.fast import place_model
from networks.multiscale_npr import AttentionMultiScaleNPR
from options.visualize_options import VisualizeOptions
from reports.attention_figures import draw_attention, draw_distribution, images_once, title_of
from reports.attention_tables import attention_sections, write_findings
from reports.html import Page, Picture, Section
from reports.plots.maps import plot_npr_maps
from reports.plots.sheets import plot_image_sheet, typical_and_surprising
from reports.plots.weights import plot_attention_per_image
from util import UserError, log

MOST_SHEETS, MOST_MAPS = 12, 6
"""Pictures of single images on the page, which holds every picture: sheets of a generator's images,
and residual maps."""


class AttentionReport:
    """Draws and writes what one model attends to, below one folder.

    Args:
        loaded: a model with attention. opt: preprocessing, sampling and device. root: data root
            that paths are relative to.
        folder: where everything goes, made when needed.

    Raises:
        UserError: the model has no attention.
    """

    def __init__(
        self, loaded: LoadedModel, opt: VisualizeOptions, root: Path, folder: Path
    ) -> None:
        if not isinstance(loaded.model, AttentionMultiScaleNPR):
            raise UserError(
                f"--model_path {loaded.path}: a {loaded.config.model_type} model has no attention to show"
            )
        self.loaded, self.opt, self.root, self.folder = loaded, opt, root, folder
        device = choose_device(opt.gpu_ids)
        self.model = place_model(loaded.model, device, autocast_dtype(opt.precision, device))
        self.scales = loaded.config.scales
        self.formats = opt.formats

    def write(self, sets: list[ImageSet]) -> None:
        """One set: everything in the folder. Several: a folder for each, and the whole above them.
        A page with the findings."""
        several = len(sets) > 1
        # as in test.py: what is written about a set is safe in every file
        safe = [
            replace(one, suite=escaped(one.suite), generator=escaped(one.generator)) for one in sets
        ]
        folders, names = unique_names(sets), unique_names(safe)
        found: dict[Path, Scores] = {}  # by the folder for what is said of a set alone
        per_image: list[Picture] = []
        maps: list[list[Picture]] = []
        for images, written in zip(sets, safe, strict=True):
            name, folder = (
                names[written.key],
                self.folder / folders[images.key] if several else self.folder,
            )
            protocol = evaluation_protocol(trained_protocol(self.loaded), images.suite, self.opt)
            one = self._attend(images, protocol, name, written.suite)
            if one is None:
                log.warning("left out %s: none of its sampled images could be read", name)
                continue
            found[folder] = one
            per_image.append(self._write_set(one, folder))
            if several:
                self._write_statistics([one], folder)
                draw_distribution([one], self.scales, folder, self.formats)
            if self.opt.save_npr_maps:
                maps.append(self._write_maps(one, protocol, folder))
        if not found:
            raise UserError(f"--dataroot {self.root}: none of its images could be read")
        self._write_statistics(list(found.values()), self.folder)
        self._write_findings(found, [] if several else per_image, maps)

    def _attend(self, images: ImageSet, protocol: Protocol, name: str, suite: str) -> Scores | None:
        """Score a sample, under names that may stand in every file; None where no image could be
        read."""
        opt = self.opt
        sampled = sample_evenly(images, opt.num_samples, opt.seed)
        loader = evaluation_loader(
            sampled,
            protocol,
            opt.batch_size,
            opt.num_threads,
            cache=opt.cache,
            on_bad_image=opt.on_bad_image,
        )
        scores = predict(self.model, loader, opt.precision, progress=images.generator)
        if scores.attention is None:
            return None
        return replace(scores, suite=suite, generator=name)

    def _write_set(self, one: Scores, folder: Path) -> Picture:
        folder.mkdir(parents=True, exist_ok=True)
        write_attention_csv(folder / "attention_weights.csv", one, self.scales, self.root)
        path = plot_attention_per_image(
            one.attention,
            one.labels,
            one.scores,
            self.scales,
            folder / "attention_per_image.png",
            title=one.generator,
            formats=self.formats,
        )
        return Picture(path, "attention to every scale on every image, and its score")

    def _write_statistics(self, sets: Sequence[Scores], folder: Path) -> None:
        text = f"model: {escaped(self.loaded.name)}\n" + statistics_text(
            title_of(sets), *images_once(sets), self.scales
        )
        skipped = {path: why for one in sets for path, why in one.skipped.items()}
        text += f"\nleft out: {len(skipped)} files\n" + "".join(
            f"  {relative_name(path, self.root)}: {why}\n" for path, why in skipped.items()
        )
        (folder / "attention_statistics.txt").write_text(text, encoding="utf-8")
        log.info("\n%s", text)

    def _write_maps(self, one: Scores, protocol: Protocol, folder: Path) -> list[Picture]:
        """Residual maps of up to --num_maps of the sampled images, half of them generated; these
        and real ones take turns."""
        kept = ImageSet(one.suite, one.generator, one.paths, tuple(one.labels.tolist()))
        chosen = sample_evenly(kept, self.opt.num_maps, self.opt.seed)
        device = next(self.model.parameters()).device
        pictures: dict[str, list[Picture]] = {"fake": [], "real": []}
        loader = evaluation_loader(chosen, protocol, batch_size=1)
        for batch in tqdm(
            loader.batches(),
            total=len(loader),
            desc="residual maps",
            leave=False,
            unit="image",
            disable=None,
        ):
            images = loader.images(batch, device)
            seen, found = self.model.get_scale_contributions(images), evidence(self.model, images)
            maps, weights, logits = seen["npr_maps"], seen["attention_weights"], seen["prediction"]
            assert (
                isinstance(maps, dict)
                and isinstance(weights, torch.Tensor)
                and isinstance(logits, torch.Tensor)
            )
            index = int(batch.indices[0])
            kind = "fake" if int(batch.labels[0]) else "real"
            # any name, and with ours around it no longer than a name may be
            stem = escaped(Path(chosen.paths[index]).stem)[:80]
            path = plot_npr_maps(
                protocol.denormalise(images[0]),
                {key: residual[0] for key, residual in maps.items()},
                weights[0],
                self.scales,
                folder / "npr_artifacts" / f"{index:03d}_{kind}_{stem}.png",
                title=f"{kind}: {stem}, score {float(logits.sigmoid()):.3f}",
                cams=found.maps[0],
                adds=found.adds[0],
                exact=found.exact,
                formats=self.formats,
            )
            pictures[kind].append(
                Picture(path, f"residual maps of {one.generator}, {kind}: {stem}")
            )
        pairs = zip_longest(pictures["fake"], pictures["real"])
        return [picture for pair in pairs for picture in pair if picture]

    def _write_findings(
        self, found: dict[Path, Scores], per_image: list[Picture], maps: list[list[Picture]]
    ) -> None:
        """attention_report.html, with what it shows as files beside it; a model with one scale has
        nothing to be found."""
        sets = list(found.values())
        fusion = {
            "bias": self.model.classifier.bias.item(),
            "residual": self.model.attention_fusion.residual,
        }
        findings = attention_findings(sets, self.scales, fusion, self.opt.seed)
        if findings is None:
            draw_distribution(sets, self.scales, self.folder, self.formats)
            log.info("no findings about attention: there is one scale")
            return
        write_findings(findings, self.folder)
        pictures = (
            draw_attention(findings, self.folder, self.loaded.path.parent, self.formats) + per_image
        )
        sheets = [self._sheet(one, folder) for folder, one in found.items()]
        self._write_page(findings, pictures, sheets, maps)
        for verdict in findings.verdicts:
            log.info("%s", verdict.sentence)
            for flags, why in verdict.advice:
                log.info("  %s: %s", flags, why)

    def _write_page(
        self,
        findings: AttentionFindings,
        pictures: list[Picture],
        sheets: list[Picture],
        maps: list[list[Picture]],
    ) -> None:
        text = "Images whose attention is nearest to the mean of their generator, and those farthest from it."
        if len(sheets) > MOST_SHEETS:
            text += f" Shown: the first {MOST_SHEETS} of {len(sheets)} generators; each folder has its attention_images.png."
        sections = [
            *attention_sections(findings, pictures),
            Section("Typical and surprising images", text, pictures=sheets[:MOST_SHEETS]),
        ]
        count = sum(map(len, maps))
        if count:
            each = max(1, MOST_MAPS // len(maps))
            shown = [picture for of_set in maps for picture in of_set[:each]][:MOST_MAPS]
            text = "Single images: the residual at every scale, and where its evidence is."
            if len(shown) < count:
                text += f" Shown: {len(shown)} of {count}; npr_artifacts/ in the folder of each generator has all."
            sections.append(Section("Residual maps", text, pictures=shown))
        images = sum(len(one.labels) for one in findings.sets)
        generators = f"{len(findings.sets)} generator{'s' * (len(findings.sets) != 1)}"
        subtitle = f"on {escaped(str(self.root))}: {images:,} images of {generators}"
        page = Page(f"Attention of {escaped(self.loaded.name)}", subtitle, sections)
        (self.folder / "attention_report.html").write_text(page.render(), encoding="utf-8")

    def _sheet(self, one: Scores, folder: Path) -> Picture:
        """The images whose attention is most typical of their generator, and those where it is most
        surprising; up to 6 each."""
        assert one.attention is not None
        blocks = {}
        chosen = typical_and_surprising(one.attention, 6)
        for heading, rows in zip(("typical", "surprising"), chosen, strict=True):
            blocks[f"most {heading} attention"] = [
                (
                    read_image(one.paths[row]),
                    one.attention[row],
                    one.scores[row],
                    one.labels[row],
                )
                for row in rows
            ]
        picture = folder / "attention_images.png"
        path = plot_image_sheet(
            blocks, self.scales, picture, title=one.generator, formats=self.formats
        )
        return Picture(
            path, f"{one.generator}: images with the most typical and the most surprising attention"
        )

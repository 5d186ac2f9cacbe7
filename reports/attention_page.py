"""The page of visualize_attention.py, and the plots of single images that it shows."""

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from pathlib import Path

from data.decode import read_image
from evaluation.attention.findings import AttentionFindings
from evaluation.attention.images import ScaleMaps, typical_and_surprising
from evaluation.names import escaped
from evaluation.scores import Scores
from reports.attention_tables import attention_sections
from reports.drawing import Drawer
from reports.html import Page, Picture, Section
from util import atomic_file

# limits: the page embeds its plots, so it would grow too large
MAX_SHEETS = 12
MAX_MAPS = 6
SHEET_IMAGES = 6  # in a row of a sheet
MAX_STEM = 80  # characters of an image's name in its plot's file name, which may have 255 bytes


def draw_attention_per_image(
    scored: Scores, scales: Sequence[float], folder: Path, formats: Sequence[str] = ()
) -> Picture:
    """Draw attention_per_image.png of one set."""
    from reports.plots.attention import plot_attention_per_image

    path = plot_attention_per_image(
        scored.weights, scored.labels, scored.scores, scales, folder / "attention_per_image.png",
        scored.generator, formats,
    )  # fmt: skip
    return Picture(path, "attention to each scale on each image, and its score")


def draw_sheet(
    scored: Scores, scales: Sequence[float], folder: Path, formats: Sequence[str] = ()
) -> Picture:
    """Draw attention_images.png of one set: its most typical and most surprising images.

    Args:
        scored: the set; its `paths` are readable files.
        scales: S scales.
        folder: of the plot.
        formats: see `reports.plots.style.save`.
    """
    from reports.plots.images import plot_image_sheet

    blocks = {}
    chosen = typical_and_surprising(scored.weights, SHEET_IMAGES)
    for heading, rows in zip(("most typical", "most surprising"), chosen, strict=True):
        images = [
            (read_image(scored.paths[i]), scored.weights[i], scored.scores[i], scored.labels[i])
            for i in rows
        ]
        if images:
            blocks[heading] = images
    path = plot_image_sheet(
        blocks, scales, folder / "attention_images.png", scored.generator, formats
    )
    return Picture(
        path, f"{scored.generator}: images with the most typical and most surprising attention"
    )


def draw_maps(
    draw: Drawer,
    maps: Iterable[ScaleMaps],
    paths: Sequence[str],
    name: str,
    scales: Sequence[float],
    folder: Path,
    formats: Sequence[str] = (),
) -> list[Picture]:
    """Draw npr_artifacts/*.png of one set; return fake and real images alternating.

    Args:
        draw: skips those that fail.
        maps: of each image.
        paths: the file of each image index.
        name: of the set.
        scales: of the model.
        folder: of the plots.
        formats: see `reports.plots.style.save`.
    """
    plots: dict[str, list[Picture]] = {"fake": [], "real": []}
    for image in maps:
        kind = "fake" if image.label else "real"
        stem = escaped(Path(paths[image.index]).stem)[:MAX_STEM]
        target = folder / "npr_artifacts" / f"{image.index:03d}_{kind}_{stem}.png"
        title = f"{kind}: {stem}, score {image.score:.3f}"
        path = draw(_draw_map, image, scales, target, title, formats)
        if path is not None:
            plots[kind].append(Picture(path, f"residual maps of {name}, {kind}: {stem}"))
    pairs = zip_longest(plots["fake"], plots["real"])
    return [plot for pair in pairs for plot in pair if plot]


def _draw_map(
    image: ScaleMaps, scales: Sequence[float], target: Path, title: str, formats: Sequence[str]
) -> Path:
    from reports.plots.images import plot_npr_maps

    return plot_npr_maps(
        image.image, image.residuals, image.weights, scales, target, title,
        image.cams, image.adds, image.exact, formats,
    )  # fmt: skip


def write_page(
    findings: AttentionFindings,
    title: str,
    data: str,
    plots: Sequence[Picture],
    sheets: Sequence[Picture],
    maps: Sequence[Sequence[Picture]],
    path: Path,
) -> None:
    """Write attention_report.html.

    Args:
        findings: numbers to show.
        title: of the page.
        data: name of the data.
        plots: of all sets together, and of the images of a single set.
        sheets: of `draw_sheet`, one per set; `MAX_SHEETS` are shown.
        maps: of `draw_maps`, for each set; `MAX_MAPS` are shown, as many of each set as fit.
        path: of the page.
    """
    text = "Images nearest to their generator's mean attention, and those farthest from it."
    if len(sheets) > MAX_SHEETS:
        text += (
            f" Shown: the first {MAX_SHEETS} of {len(sheets)} generators; each folder has its"
            " attention_images.png."
        )
    sections = [
        *attention_sections(findings, plots),
        Section("Typical and surprising images", text, pictures=sheets[:MAX_SHEETS]),
    ]
    count = sum(map(len, maps))
    if count:
        each = max(1, MAX_MAPS // len(maps))
        shown = [plot for of_set in maps for plot in of_set[:each]][:MAX_MAPS]
        text = (
            "Single images: each scale's residual, and where in the image the scale finds evidence."
        )
        if len(shown) < count:
            text += (
                f" Shown: {len(shown)} of {count}; npr_artifacts/ in the folder of each generator"
                " has all."
            )
        sections.append(Section("Residual maps", text, pictures=shown))
    images = sum(len(scored.labels) for scored in findings.sets)
    generators = f"{len(findings.sets)} generator{'s' * (len(findings.sets) != 1)}"
    page = Page(title, f"on {data}: {images:,} images of {generators}", sections)
    with atomic_file(path) as file:
        file.write(page.render())

"""Pictures of attention: what their axes show, that every text is readable, and that bad input is
refused."""

import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from reports.plots import style as plotting
from reports.plots import video as video_plots
from reports.plots import weights as plots
from tests.helpers import plot_checks
from tests.helpers.plot_checks import Draw, legend_texts

SCALES = {
    1: [0.5],
    3: [0.25, 0.5, 0.75],
    4: [0.1, 0.25, 0.5, 0.75],
    6: [0.1, 0.2, 0.3, 0.4, 0.5, 0.6],
    8: [0.125, 0.25, 0.375, 0.5, 0.5, 0.5, 0.75, 0.875],
}
texts, draw = plot_checks.texts, plot_checks.draw  # fixtures


def dirichlet(count: int, scales: int) -> np.ndarray:
    return np.random.default_rng(0).dirichlet(np.ones(scales) * 3, size=count)


def test_scale_labels_number_repeated_scales() -> None:
    assert plots.scale_labels([0.5, 0.5, 0.5]) == ["0.5x", "0.5x #2", "0.5x #3"]
    assert plots.scale_labels([0.25, 0.5, 0.25]) == ["0.25x", "0.5x", "0.25x #2"]


@pytest.mark.parametrize(("generators", "scales"), [(1, 1), (1, 3), (12, 3), (38, 8)])
def test_heatmap_shows_each_weight_on_one_range(draw: Draw, generators: int, scales: int) -> None:
    names = [f"UniversalFakeDetect/glide_{i}" if i % 3 else f"gan_{i}" for i in range(generators)]
    weights = dirichlet(generators, scales)
    attention = {
        name: torch.tensor(w, requires_grad=True) for name, w in zip(names, weights, strict=True)
    }
    figure = draw(plots.plot_attention_heatmap, attention, SCALES[scales])
    heat, bar = figure.axes
    mesh = heat.collections[0]
    bottom, top = mesh.get_clim()
    assert (
        bottom == 0
        and 0 <= top - weights.max() < 0.1
        and round(top * 10) == pytest.approx(top * 10)
    )
    np.testing.assert_allclose(np.asarray(mesh.get_array()).reshape(weights.shape), weights)
    assert [text.get_text() for text in heat.texts] == [f"{w:.3f}" for w in weights.ravel()]
    assert [text.get_text() for text in heat.get_yticklabels()] == names
    assert [text.get_text() for text in heat.get_xticklabels()] == plots.scale_labels(
        SCALES[scales]
    )
    assert bar.get_ylabel() == "attention weight"


@pytest.mark.parametrize("scales", [1, 8])
@pytest.mark.parametrize("families", [1, 3])
def test_heatmap_groups_generators_under_the_name_of_their_family(
    draw: Draw, families: int, scales: int
) -> None:
    """Families are interleaved in the input; a family may be longer than its generators' names."""
    suites = ["A suite with quite a long name", "GAN", "b/c"][:families]
    names = [f"{suites[i % families]}/{i}" for i in range(36)] + ["of no family"]
    weights = dict(zip(names, dirichlet(37, scales), strict=True))
    groups = {name: name.rpartition("/")[0] for name in names[:-1]}
    real = {"GAN": dirichlet(1, scales)[0]}
    figure = draw(
        plots.plot_attention_heatmap,
        weights,
        SCALES[scales],
        groups=groups,
        real=real,
        title="a model",
    )
    heat = figure.axes[0]
    lines = [
        (label.get_text(), label.get_fontweight() == "bold") for label in heat.get_yticklabels()
    ]
    expected = [("real images", True), ("GAN", False), ("", True), ("of no family", False)]
    rows = [real["GAN"], weights["of no family"]]
    for suite in suites:
        members = [name for name in names if groups.get(name) == suite]
        expected += [(suite, True), *((name.rpartition("/")[2], False) for name in members)]
        rows += [weights[name] for name in members]
    assert lines == expected
    shown = np.ma.filled(heat.collections[0].get_array(), np.nan).reshape(len(lines), scales)
    bold = [is_bold for _, is_bold in lines]
    assert np.isnan(shown[bold]).all()
    np.testing.assert_allclose(shown[~np.array(bold)], rows)
    assert [text.get_text() for text in heat.texts] == [f"{w:.3f}" for w in np.ravel(rows)]


@pytest.mark.parametrize(
    ("count", "scales", "classes"), [(1, 1, 1), (1, 3, 1), (40, 3, 2), (60, 8, 2)]
)
def test_distribution_has_a_box_and_a_violin_per_scale_and_class(
    draw: Draw, count: int, scales: int, classes: int
) -> None:
    weights, labels = dirichlet(count, scales), np.arange(count) % 2
    figure = draw(
        plots.plot_attention_distribution, weights, labels, SCALES[scales], title="progan/car"
    )
    box, violin = figure.axes
    boxes = sorted(
        (line.get_xdata().mean(), *np.percentile(line.get_ydata(), [0, 100]))
        for line in box.lines
        if len(line.get_xdata()) == 5 and line.get_linestyle() != "None"
    )
    violins = [body for body in violin.collections if isinstance(body, PolyCollection)]
    assert len(boxes) == scales * classes and len(violins) == (scales * classes if count > 2 else 0)
    assert legend_texts(figure) == ["real", "fake"][:classes] + ["uniform"]
    for i, (place, low, high) in enumerate(boxes):  # by scale, and real before fake
        scale, label = divmod(i, classes)
        assert abs(place - scale) < 0.3
        expected = np.percentile(weights[labels == label][:, scale], [25, 75])
        np.testing.assert_allclose([low, high], expected, atol=2e-6, rtol=0)
    for body in violins:
        heights, places = body.get_paths()[0].vertices[:, 1], body.get_paths()[0].vertices[:, 0]
        scale = round(places.mean())
        label = int(places.mean() > scale) if classes == 2 else 0
        of_class = weights[labels == label][:, scale]
        np.testing.assert_allclose(
            [heights.min(), heights.max()], [of_class.min(), of_class.max()], atol=2e-6
        )
        np.testing.assert_allclose(body.get_edgecolor()[0][:3], plotting.palette(2)[label])
    for axes in (box, violin):
        line = next(line for line in axes.lines if line.get_label() == "uniform")
        assert set(line.get_ydata()) == {1 / scales}
        assert axes.get_ylim()[0] <= 0 and axes.get_ylim()[1] >= 1
        assert [text.get_text() for text in axes.get_xticklabels()] == plots.scale_labels(
            SCALES[scales]
        )


@pytest.mark.parametrize(
    "spread", [0, 1e-12, 1e-200], ids=["constant", "rounding noise", "underflow"]
)
def test_violins_of_constant_weights_are_drawn(draw: Draw, spread: float) -> None:
    noise = np.random.default_rng(0).random((30, 2)) * spread
    figure = draw(plots.plot_attention_distribution, noise + [0, 0.5], np.zeros(30), [0.25, 0.5])
    lines = [line for line in figure.axes[1].lines if line.get_label() != "uniform"]
    np.testing.assert_allclose(
        [line.get_ydata() for line in lines], np.repeat([[0.0], [0.5]], 2, axis=1), atol=1e-6
    )
    assert {line.get_color() for line in lines} == {plotting.palette(2)[0]}


def heights_above(vertices: np.ndarray, count: int) -> list[float]:
    """The upper edge of an outline of steps over the middle of each of `count` images; its vertices
    follow each other."""
    flat = np.isclose(vertices[:-1, 1], vertices[1:, 1])
    steps = [
        (min(a, b), max(a, b), y)
        for a, b, y in zip(vertices[:-1, 0], vertices[1:, 0], vertices[:-1, 1], strict=True)
    ]
    steps = [step for step, is_flat in zip(steps, flat, strict=True) if is_flat]
    return [max(y for low, high, y in steps if low < image + 0.5 < high) for image in range(count)]


@pytest.mark.parametrize(("count", "scales"), [(1, 1), (2, 3), (60, 3), (300, 8)])
def test_attention_per_image_stacks_sorted_weights(draw: Draw, count: int, scales: int) -> None:
    weights, rng = dirichlet(count, scales), np.random.default_rng(2)
    labels, scores = np.arange(count) % 2, rng.random(count)
    figure = draw(
        plots.plot_attention_per_image, weights, labels, scores, SCALES[scales], title="progan"
    )
    bars, strip, colour_bar = figure.axes
    tops = np.array(
        [heights_above(band.get_paths()[0].vertices, count) for band in bars.collections]
    )
    drawn = np.diff(tops, axis=0, prepend=0).T

    def rank(i: int) -> tuple[int, int, float]:
        return labels[i], int(np.argmax(weights[i])), -max(weights[i])

    order = sorted(range(count), key=rank)
    np.testing.assert_allclose(drawn, weights[order], atol=1e-12)
    np.testing.assert_allclose(strip.images[0].get_array()[0], scores[order])
    assert strip.images[0].get_clim() == (0, 1)
    assert "score" in colour_bar.get_ylabel()
    assert legend_texts(figure) == plots.scale_labels(SCALES[scales])
    if count > 1:
        real = int((labels == 0).sum())
        assert {x for line in bars.lines for x in line.get_xdata()} == {real}
        assert [text.get_text() for text in bars.texts] == [
            f"← real (n={real})",
            f"fake (n={count - real}) →",
        ]


@pytest.mark.parametrize(("labels", "text"), [([0, 0], "real (n=2)"), ([1, 1], "fake (n=2)")])
def test_attention_per_image_of_one_class_has_no_divider(
    draw: Draw, labels: list[int], text: str
) -> None:
    figure = draw(plots.plot_attention_per_image, dirichlet(2, 3), labels, [0.1, 0.9], SCALES[3])
    assert not figure.axes[0].lines
    assert [shown.get_text() for shown in figure.axes[0].texts] == [text]


@pytest.mark.parametrize("real", [1, 99])
def test_divider_near_an_edge_stays_readable(draw: Draw, real: int) -> None:
    labels = np.arange(100) >= real
    draw(plots.plot_attention_per_image, dirichlet(100, 3), labels, np.full(100, 0.5), SCALES[3])


def heatmap(**changed: object) -> dict[str, object]:
    return {"mean_attentions": {"progan": [0.5, 0.5]}, "scales": [0.25, 0.5]} | changed


def images(**changed: object) -> dict[str, object]:
    return {
        "weights": [[0.5, 0.5]],
        "labels": [0],
        "scores": [0.1],
        "scales": [0.25, 0.5],
    } | changed


@pytest.mark.parametrize(
    ("plot", "arguments", "message"),
    [
        (plots.plot_attention_heatmap, heatmap(mean_attentions={}), "mean_attentions is empty"),
        (
            plots.plot_attention_heatmap,
            heatmap(scales=[0.5]),
            r"'progan'.* shape \[2\], expected \[1\]",
        ),
        (plots.plot_attention_heatmap, heatmap(mean_attentions={"a": [np.nan, 1]}), "NaN"),
        (plots.plot_attention_heatmap, heatmap(real={"a": [1.0]}), r"real\['a'\] has shape \[1\]"),
        (plots.plot_attention_per_image, images(labels=[2]), "labels must be 0"),
        (plots.plot_attention_per_image, images(labels=[0, 1]), "labels has shape"),
        (plots.plot_attention_per_image, images(scores=[3.7]), "scores spans 3.7"),
        (plots.plot_attention_per_image, images(weights=np.zeros((0, 2)), labels=[]), "not empty"),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    plot: Callable[..., Path], arguments: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        plot(**arguments, save_path=tmp_path / "picture.png")
    assert not list(tmp_path.iterdir())


def test_a_long_title_is_wrapped(draw: Draw, texts: dict[Text, Bbox]) -> None:
    title = "GANGen-Detection/StarGAN/" + "a_very_long_file_name_" * 10
    draw(
        plots.plot_attention_per_image,
        dirichlet(4, 3),
        [0, 0, 1, 1],
        np.zeros(4),
        SCALES[3],
        title=title,
    )
    assert title in [text.get_text().replace("\n", "") for text in texts]


def test_names_that_are_not_utf8_are_drawn(draw: Draw, texts: dict[Text, Bbox]) -> None:
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    draw(plots.plot_attention_heatmap, {name: [1.0]}, [0.5])
    assert "caf?" in [text.get_text() for text in texts]
    draw(plots.plot_attention_distribution, [[1.0]], [0], [0.5], title=name)
    assert "caf?" in [text.get_text() for text in texts]


def test_dollar_signs_in_names_are_no_formulas(draw: Draw, texts: dict[Text, Bbox]) -> None:
    # as a formula it could not be parsed
    draw(plots.plot_attention_heatmap, {"a$\\frac{$": [1.0]}, [0.5])
    assert "a$\\frac{$" in [text.get_text() for text in texts]


def test_drawing_threads_take_turns_and_leave_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two threads draw, the second beginning within the first's time and ending after it, if it
    may."""
    began = {"first": threading.Event(), "second": threading.Event()}
    ended, save = threading.Event(), video_plots.save

    def saved(figure: Figure, path: Path, title: str, formats: Sequence[str]) -> Path:
        name = path.stem
        began[name].set()
        if name == "first":
            assert not began["second"].wait(0.5)
        else:
            ended.wait(0.5)
        assert matplotlib.rcParams["text.parse_math"] is False
        return save(figure, path, title, formats)

    def drawing(name: str) -> None:
        if name == "second":
            assert began["first"].wait(120)
        video_plots.plot_video([0.0, 1.0], [0.1, 0.9], 0.5, 0.5, tmp_path / f"{name}.png")
        if name == "first":
            ended.set()

    monkeypatch.setattr(video_plots, "save", saved)
    before = dict(matplotlib.rcParams)
    with ThreadPoolExecutor(2) as threads:
        done = [threads.submit(drawing, name) for name in began]
    problems = [future.exception() for future in done]
    changed = {name for name, value in before.items() if matplotlib.rcParams[name] != value}
    matplotlib.rcParams.update(before)  # not to trouble other tests
    assert not changed and problems == [None, None]
    one_calls_another = plotting.STYLE(
        plotting.STYLE(lambda: matplotlib.rcParams["text.parse_math"])
    )
    assert one_calls_another() is False


def test_suffix_chooses_the_format(tmp_path: Path) -> None:
    attention = {"progan": [0.4, 0.6]}
    assert (
        plots.plot_attention_heatmap(attention, [0.25, 0.5], tmp_path / "bare")
        == tmp_path / "bare.png"
    )
    pdf = plots.plot_attention_heatmap(attention, [0.25, 0.5], str(tmp_path / "figure.pdf"))
    assert pdf.read_bytes().startswith(b"%PDF")


def test_formats_make_a_file_each(tmp_path: Path) -> None:
    """The second is laid out like the first, and no date in it makes two of the same figure differ."""
    written = []
    for name in ("one.png", "two"):
        arguments = dirichlet(4, 3), [0, 0, 1, 1], [0.1] * 4, SCALES[3], tmp_path / name
        path = plots.plot_attention_per_image(*arguments, formats=("png", ".pdf"))
        assert (
            path == tmp_path / f"{name.removesuffix('.png')}.png"
            and path.read_bytes().startswith(b"\x89PNG")
        )
        written.append(path.with_suffix(".pdf").read_bytes())
    assert (
        written[0] == written[1] and written[0].startswith(b"%PDF") and b"/Type3" not in written[0]
    )
    assert len(list(tmp_path.iterdir())) == 4


def test_a_failed_write_keeps_the_earlier_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = plots.plot_attention_heatmap({"progan": [1.0]}, [0.5], tmp_path / "heat.png")
    before = path.read_bytes()

    write_bytes = Path.write_bytes

    def full_disk(target: Path, data: bytes) -> None:
        write_bytes(target, data[:100])
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="no space"):
        plots.plot_attention_heatmap({"stylegan": [0.5, 0.5]}, [0.25, 0.5], path)
    assert path.read_bytes() == before


def test_pictures_need_no_display(tmp_path: Path) -> None:
    path = tmp_path / "heat.png"
    code = f"from reports.plots import weights; weights.plot_attention_heatmap({{'a': [1.0]}}, [0.5], {str(path)!r})"
    # and no DISPLAY
    environment = {"MPLBACKEND": "tkagg", "PATH": "", "MPLCONFIGDIR": matplotlib.get_cachedir()}
    place = Path(plots.__file__).parents[2]
    drawn = subprocess.run(
        [sys.executable, "-c", code], cwd=place, env=environment, capture_output=True, text=True
    )
    assert drawn.returncode == 0, drawn.stderr
    assert path.is_file()

"""Properties of all plots: formats, titles, threads, and files that stay whole."""

import importlib
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from reports.plots import style
from reports.plots.attention import plot_attention_distribution, plot_attention_heatmap
from tests.conftest import REPOSITORY
from tests.helpers import plot_checks
from tests.helpers.plot_checks import Draw

texts, draw = plot_checks.texts, plot_checks.draw  # fixtures
WEIGHTS, LABELS = np.random.default_rng(0).dirichlet([3, 3], 20), np.arange(20) % 2


def test_scale_labels_number_repeated_scales() -> None:
    assert style.scale_labels([0.5, 0.25, 0.5, 0.5]) == ["0.5x", "0.25x", "0.5x #2", "0.5x #3"]


def test_titles_are_wrapped_and_printable(draw: Draw, texts: dict[Text, Bbox]) -> None:
    title = "caf\udce9 a$\\frac{$ " + "a_very_long_file_name_" * 10
    draw(plot_attention_distribution, WEIGHTS, LABELS, [0.25, 0.5], title=title)
    drawn = [text.get_text().replace("\n", "") for text in texts]
    assert title.replace("\udce9", "?").replace(" ", "") in [
        name.replace(" ", "") for name in drawn
    ]


def test_names_are_drawn_by_a_font_that_has_them_else_as_codes(
    draw: Draw, texts: dict[Text, Bbox], recwarn: pytest.WarningsRecorder
) -> None:
    """U+1D49C is in fonts that come with matplotlib, though not in the default one; hardly a
    machine has a font for Linear A."""
    names = dict(zip(("\U0001d49c", "\U00010600", "é Ж"), WEIGHTS, strict=False))
    draw(plot_attention_heatmap, names, [0.25, 0.5])
    drawn = {text.get_text(): text.get_fontfamily() for text in texts}
    assert {"\U0001d49c", "\\U00010600", "é Ж"} <= set(drawn)
    assert {"DejaVu Math TeX Gyre", "STIXGeneral"} & set(drawn["\U0001d49c"])
    draw(plot_attention_distribution, WEIGHTS, LABELS, [0.25, 0.5], title="\U00010600")
    assert "\\U00010600" in {text.get_text() for text in texts}
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]


def test_drawing_threads_take_turns_and_leave_the_settings() -> None:
    began, ended = threading.Event(), []

    def slow() -> None:
        began.set()
        time.sleep(0.3)
        assert matplotlib.rcParams["text.parse_math"] is False
        ended.append("slow")

    before = dict(matplotlib.rcParams)
    with ThreadPoolExecutor(2) as threads:
        drawing = threads.submit(style.STYLE(style.STYLE(slow)))  # one may call another
        assert began.wait(120)
        threads.submit(style.STYLE(lambda: ended.append("quick")))
    drawing.result()
    assert ended == ["slow", "quick"] and dict(matplotlib.rcParams) == before


def test_every_plot_draws_in_this_style() -> None:
    for path in (REPOSITORY / "reports" / "plots").glob("*.py"):
        module = importlib.import_module(f"reports.plots.{path.stem}")
        plots = [value for name, value in vars(module).items() if name.startswith("plot_")]
        assert all(hasattr(plot, "__wrapped__") for plot in plots), path
        # figures are made without pyplot, which would look for a display
        assert "pyplot" not in " ".join(re.findall("import.*", path.read_text()))


def test_formats_make_a_file_each(tmp_path: Path) -> None:
    """No date in the PDF makes two of the same figure differ."""
    written = []
    for name in ("one.png", "two"):
        path = plot_attention_heatmap(
            {"progan": WEIGHTS[0]}, [0.25, 0.5], tmp_path / name, formats=("png", ".pdf")
        )
        assert path == tmp_path / f"{name.removesuffix('.png')}.png"
        assert path.read_bytes().startswith(b"\x89PNG")
        written.append(path.with_suffix(".pdf").read_bytes())
    assert written[0] == written[1] and written[0].startswith(b"%PDF")
    assert b"/Type3" not in written[0] and len(list(tmp_path.iterdir())) == 4
    pdf = plot_attention_heatmap({"progan": WEIGHTS[0]}, [0.25, 0.5], str(tmp_path / "three.pdf"))
    assert pdf.read_bytes().startswith(b"%PDF")


def test_a_failed_write_keeps_the_earlier_plot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = plot_attention_heatmap({"progan": np.array([1.0])}, [0.5], tmp_path / "heat.png")
    before = path.read_bytes()

    def full_disk(*args: object, **more: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.replace", full_disk)
    with pytest.raises(OSError, match="no space"):
        plot_attention_heatmap({"stylegan": np.array([0.5, 0.5])}, [0.25, 0.5], path)
    assert path.read_bytes() == before

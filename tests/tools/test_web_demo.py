"""What the web page says, without a browser (tests/tools/test_web_page.py has one)."""

import dataclasses
import json
import re
import shutil
import socket
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from html import escape, unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import tools.web_demo.answers as answers
import tools.web_demo.examples as examples
from inference.detector import Detector, load_detector
from tests.helpers.web_files import calibration, draw, film, save_web_model
from tests.robustness.test_offline import from_elsewhere
from tools.web_demo import __main__ as web_demo
from tools.web_demo.answers import Limits, NoAnswer, about, answer, percent, problem, shares_text
from tools.web_demo.examples import MOST, draw_examples, examples_of
from tools.web_demo.models import Models, facts
from util import UserError, log

LIMITS = Limits(seconds=10, frames=8)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_web_model(tmp_path_factory.mktemp("web") / "run_one" / "model_epoch_last.pth")


@pytest.fixture(scope="module")
def detector(checkpoint: Path) -> Detector:
    return load_detector(checkpoint, "cpu")


def text_of(html: str) -> str:
    """What a person reads, spaces made one."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())


def with_band(detector: Detector, lower: float, upper: float) -> Detector:
    made = Detector(detector.loaded, torch.device("cpu"), detector.protocol)
    made.calibration = calibration(lower, upper)
    return made


def test_a_picture_gets_score_bars_and_panel(detector: Detector, tmp_path: Path) -> None:
    path = draw(tmp_path / "one.png")
    html = answer(detector, path, LIMITS)
    text = text_of(html)
    said = detector.outputs(path)
    score = float(torch.sigmoid(torch.tensor(said.logits[0])))
    assert ("Generated" if score > 0.5 else "Real") in text
    assert f"Score {score:.2f} from 0 (real) to 1 (generated)" in text and "uncalibrated" in text
    assert "Probability" not in text and "one.png, 56 x 40 pixels" in text
    for scale, weight in zip(("0.25", "0.5", "0.75"), said.attention_weights[0], strict=True):
        assert f" {scale} {100 * weight:.0f} %" in text
    assert "small: 56x40 pixels" in text
    pictures = re.findall(r'<img [^>]*src="data:image/png;base64,[^"]+"[^>]*>', html)
    assert len(pictures) == 2 and all(re.search(r'alt="[^"]+"', picture) for picture in pictures)
    assert not from_elsewhere(html)


@pytest.mark.parametrize(
    ("band", "headline"),
    [((-1.0, 0.0), "Generated"), ((1.0, 2.0), "Real"), ((-1.0, 2.0), "Unsure")],
)
def test_a_calibrated_detector_says_a_probability(
    detector: Detector, tmp_path: Path, band: tuple[float, float], headline: str
) -> None:
    path = draw(tmp_path / "one.png")
    calibrated = with_band(detector, *band)
    html = answer(calibrated, path, LIMITS)
    assert headline in text_of(html) and {"Generated", "Real", "Unsure"} & set(
        text_of(html).split()
    ) == {headline}
    assert f"Probability of being generated: {percent(calibrated.probability(path)[0])}" in text_of(
        html
    )
    assert "uncalibrated" not in html
    left, right = re.findall(r'class="band" style="left:([\d.]+)%;right:([\d.]+)%"', html)[0]
    assert 0 <= float(left) <= 100 - float(right) <= 100


@pytest.mark.parametrize(
    ("share", "words"),
    [(0.0, "less than 1 %"), (0.004, "less than 1 %"), (0.01, "1 %"), (0.5, "50 %"), (0.99, "99 %")]
    + [(0.996, "more than 99 %"), (1.0, "more than 99 %")],
)
def test_no_percentage_promises_certainty(share: float, words: str) -> None:
    assert percent(share) == words


def test_shares_leave_out_what_does_not_occur() -> None:
    assert (
        shares_text({"real": 0.875, "unsure": 0.0, "generated": 0.125})
        == "88 % are called real, 12 % generated"
    )
    assert shares_text({"real": 0.0, "unsure": 1.0, "generated": 0.0}) == "100 % are called unsure"


def test_names_are_text_and_nothing_else(detector: Detector, tmp_path: Path) -> None:
    path = draw(tmp_path / "<img src=x onerror=alert(1)>.png")
    html = answer(detector, path, LIMITS)
    assert "<img src=x" not in html and escape(path.name) in html
    assert "<b>" not in problem("<b>")
    loaded = dataclasses.replace(
        detector.loaded, meta={"options": {"dataroot": "a/<script>", "classes": ["<i>"]}}
    )
    assert "<script>" not in about(Detector(loaded, torch.device("cpu"), detector.protocol))


@pytest.mark.parametrize("kind", ["text", "empty", "cut", "missing", "small", "folder"])
def test_what_cannot_be_judged_says_why(detector: Detector, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "file.png"
    if kind == "text":
        path.write_text("no picture")
    elif kind == "empty":
        path.touch()
    elif kind == "cut":
        path.write_bytes(draw(tmp_path / "whole.png").read_bytes()[:2000])
    elif kind == "small":
        draw(path, 3, 3)
    elif kind == "folder":
        path.mkdir()
    with pytest.raises(NoAnswer, match=r"^file\.png cannot be (read|judged): ") as raised:
        answer(detector, path, LIMITS)
    assert str(tmp_path) not in str(raised.value) and "\n" not in str(raised.value)


def test_a_video_is_known_by_its_content(detector: Detector, tmp_path: Path) -> None:
    from inference.video.scoring import predict_video

    path = film(tmp_path / "film.png")
    html = answer(detector, path, LIMITS)
    found = predict_video(detector, path, max_frames=LIMITS.frames)
    assert len(found.frames) == 3  # one a second, for three seconds
    assert f"Score {found.score:.2f}" in text_of(html) and "median of 3 frames" in text_of(html)
    assert shares_text(found.shares) in text_of(html)
    assert html.count("data:image/png;base64,") == 1 and str(tmp_path) not in html
    assert not from_elsewhere(html)


def test_long_and_large_videos_are_limited(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = film(tmp_path / "film.mp4")
    with pytest.raises(NoAnswer, match=r"film\.mp4 .*3 s.* 2 s"):
        answer(detector, path, Limits(seconds=2, frames=8))
    assert "median of 2 frames" in text_of(answer(detector, path, Limits(seconds=10, frames=2)))
    monkeypatch.setattr(answers, "VIDEO_PIXELS", 3 * 64 * 64)
    assert "median of 3 frames" in text_of(answer(detector, path, LIMITS))


def test_without_pyav_videos_are_refused(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "film.mp4"
    path.write_bytes(b"\0\0\0\x18ftypmp42" + bytes(200))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(NoAnswer, match="Videos are not read on this machine"):
        answer(detector, path, LIMITS)


def too_much(kind: str) -> None:
    if kind == "GPU":
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB")
    np.empty(2**50) if kind == "NumPy" else torch.empty(2**50)  # more than any address space has


@pytest.mark.parametrize("kind", ["GPU", "NumPy", "CPU"])
@pytest.mark.parametrize("step", ["predict_images", "explain", "predict_video"])
def test_want_of_memory_is_an_answer(
    kind: str, step: str, detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = film(tmp_path / "large.mp4") if step == "predict_video" else draw(tmp_path / "large.png")
    monkeypatch.setattr(answers, step, lambda *_, **__: too_much(kind))
    with pytest.raises(NoAnswer, match=f"^{path.name} .*not enough memory"):
        answer(detector, path, LIMITS)


@pytest.mark.parametrize("kind", ["GPU", "NumPy", "CPU"])
def test_want_of_memory_for_another_detector_is_an_answer(
    kind: str, checkpoint: Path, detector: Detector, tmp_path: Path
) -> None:
    """And when there is memory again, the detector is there."""
    pytest.importorskip("gradio")
    from tools.web_demo.page import _Handler

    full = True
    models = Models([checkpoint], lambda path: too_much(kind) if full else detector)  # type: ignore[arg-type, return-value]
    handler, path = _Handler(models, [], LIMITS), str(draw(tmp_path / "one.png"))
    for html in handler.again(path, models.names[0]):
        assert text_of(html) == "No answer. This detector cannot be loaded: not enough memory."
    full = False
    assert all("No answer" not in html for html in handler.again(path, models.names[0]))


def test_other_errors_are_not_taken_for_want_of_memory(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "explain", lambda *_: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(RuntimeError, match="inconsistent tensor size"):
        answer(detector, draw(tmp_path / "one.png"), LIMITS)


class Overlap:
    """Stands in for an answer: takes a while, and notes how many are being worked on at once."""

    def __init__(self) -> None:
        self.now = self.peak = self.done = 0
        self._lock = threading.Lock()

    def __call__(self, *_: Any) -> str:
        with self._lock:
            self.now += 1
            self.peak = max(self.peak, self.now)
        time.sleep(0.3)
        with self._lock:
            self.now -= 1
            self.done += 1
        return "answered"


def request(url: str, body: bytes = b"", kind: str = "application/json") -> bytes:
    asked = urllib.request.Request(url, body or None, {"Content-Type": kind})
    with urllib.request.urlopen(asked, timeout=120) as answered:
        return answered.read()


def test_one_is_answered_at_a_time(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Upload, example and another detector, each asked for by somebody else at the same time."""
    pytest.importorskip("gradio")
    for name in ("GRADIO_ANALYTICS_ENABLED", "GRADIO_TEMP_DIR", "NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "*")
    (tmp_path / "examples").mkdir()
    draw(tmp_path / "examples" / "one.png")
    words = [
        "--model_path",
        str(checkpoint),
        "--examples",
        str(tmp_path / "examples"),
        "--gpu_ids",
        "-1",
    ]
    page = web_demo.build(web_demo.parser().parse_args(words), tmp_path)
    overlap = Overlap()
    monkeypatch.setattr("tools.web_demo.page.answer", overlap)
    port = web_demo.free_port("127.0.0.1", 0)
    page.launch(
        server_name="127.0.0.1",
        server_port=port,
        prevent_thread_lock=True,
        quiet=True,
        ssr_mode=False,
    )
    try:
        address = f"http://127.0.0.1:{port}/"
        api = f"{address}gradio_api/"
        events = {
            one["targets"][0][1]: one["id"]
            for one in json.loads(request(f"{address}config"))["dependencies"]
        }
        name, form = (
            checkpoint.parent.name,
            b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n',
        )
        (uploaded,) = json.loads(
            request(f"{api}upload", form + b"x\r\n--x--\r\n", "multipart/form-data; boundary=x")
        )
        file = {"path": uploaded, "meta": {"_type": "gradio.FileData"}}

        def ask(event: str, data: list[Any], session: str) -> None:
            chosen = {"index": 0, "value": None, "selected": True} if event == "select" else None
            body = {
                "data": data,
                "fn_index": events[event],
                "session_hash": session,
                "event_data": chosen,
            }
            request(f"{api}queue/join", json.dumps(body).encode())
            assert b'"success":true' in request(f"{api}queue/data?session_hash={session}").replace(
                b": ", b":"
            )

        ask("select", [name], "a")  # so that there is a picture for another detector to look at
        with ThreadPoolExecutor() as visitors:
            asked = [
                ("upload", [file, name], "b"),
                ("select", [name], "c"),
                ("change", [None, name], "a"),
            ]
            list(visitors.map(lambda words: ask(*words), asked))
    finally:
        page.close(verbose=False)
    assert (overlap.done, overlap.peak) == (4, 1)


def test_facts_come_from_the_checkpoint(detector: Detector) -> None:
    found = {fact.label: fact.text for fact in facts(detector)}
    assert found["Trained on"] == "my_photos (car, cat), 7 epochs"
    assert (
        "accuracy 0.875" in found["On validation pictures"]
        and "40 real and 1,200" in found["On validation pictures"]
    )
    assert found["Model"].endswith("0.25, 0.5, 0.75") and found["Calibration"].startswith("none")
    assert "secret" not in about(detector)
    assert (
        "on 30 real and 31 generated pictures"
        in {f.label: f.text for f in facts(with_band(detector, 0, 1))}["Calibration"]
    )


@pytest.mark.parametrize(
    "meta", [{}, {"options": 3, "val_metrics": [1]}, {"options": {"dataroot": 1, "classes": 2}}]
)
def test_a_checkpoint_that_says_little(detector: Detector, meta: dict[str, Any]) -> None:
    loaded = dataclasses.replace(detector.loaded, meta=meta)
    found = {
        fact.label: fact.text
        for fact in facts(Detector(loaded, torch.device("cpu"), detector.protocol))
    }
    assert (
        "does not say" in found["Trained on"] and "does not say" in found["On validation pictures"]
    )


def test_models_are_loaded_when_wanted_and_kept(
    checkpoint: Path, detector: Detector, tmp_path: Path
) -> None:
    other = tmp_path / "other.pth"
    shutil.copy(checkpoint, other)
    asked: list[Path] = []

    def load(path: Path) -> Detector:
        asked.append(path)
        return detector

    models = Models([checkpoint, other], load)
    assert models.names == [checkpoint.parent.name, "other"] and not asked
    assert models["other"] is detector and models["other"] is detector and asked == [other]
    with pytest.raises(UserError, match="no such file"):
        Models([tmp_path / "none.pth"], load)
    with pytest.raises(UserError, match=r"is called other, too"):
        Models([other, other], load)


def test_examples_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examples, "SIDE", 64)
    found = draw_examples(tmp_path)
    assert [example.caption for example in found] == ["real"] * 3 + ["generated"] * 3
    pictures = [np.asarray(Image.open(example.path).convert("RGB")) for example in found]
    assert all(picture.shape == (64, 64, 3) for picture in pictures)
    assert len({picture.tobytes() for picture in pictures}) == 6


def test_examples_of_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        examples_of(tmp_path / "none")
    (tmp_path / "a.png").write_text("no picture")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="holds no picture"):
        examples_of(tmp_path)
    for number in range(MOST + 2):
        draw(tmp_path / f"b{number:02d}.jpg", 8, 8)
    assert [example.caption for example in examples_of(tmp_path)] == [
        f"b{number:02d}.jpg" for number in range(MOST)
    ]


def test_a_taken_port_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"--port {port}: Address already in use"):
            web_demo.free_port("127.0.0.1", port)
    with pytest.raises(UserError, match="--host 192.0.2.1"):
        web_demo.free_port("192.0.2.1", 0)


def test_without_gradio_the_requirements_are_named(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "tools.web_demo.page", raising=False)
    for name in ("GRADIO_ANALYTICS_ENABLED", "GRADIO_TEMP_DIR"):
        monkeypatch.setenv(name, "")
    with pytest.raises(UserError, match=r"pip install -r requirements-web\.txt"):
        web_demo.main(["--model_path", str(checkpoint)])


@pytest.mark.parametrize(
    "words",
    [[], ["--port", "70000"], ["--max_mb", "0"], ["--queue", "0"], ["--max_frames", "0"], ["--protocol", "none"], ["--share"]],
)  # fmt: skip
def test_wrong_flags_are_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        web_demo.main([*(["--model_path", "M.pth"] if words else []), *words])
    assert ended.value.code == 2 and len(capsys.readouterr().err.splitlines()) == 1


def test_another_trouble_is_not_called_the_detectors(
    checkpoint: Path,
    detector: Detector,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    pytest.importorskip("gradio")
    from tools.web_demo import page

    def no_space(*_: object) -> str:
        raise UserError("/tmp/x: No space left on device")

    monkeypatch.setattr(page, "answer", no_space)
    monkeypatch.setattr(log, "propagate", True)
    handler = page._Handler(Models([checkpoint], lambda path: detector), [], LIMITS)
    html, _ = handler.again(
        str(draw(tmp_path / "one.png")), Models([checkpoint], lambda path: detector).names[0]
    )
    assert text_of(html).startswith("No answer. This cannot be answered; the terminal")
    assert "No space left" in caplog.text and "No space left" not in html

"""The web page without a browser (tests/tools/test_web_page.py has one)."""

import dataclasses
import json
import re
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from html import escape, unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import tools.web_demo.answers as answers
from inference.detector import Detector, load_detector
from tests.helpers.web_files import calibration, draw, film, save_web_model
from tests.robustness.test_offline import from_elsewhere
from tools.web_demo import __main__ as web_demo
from tools.web_demo.answers import Limits, answer, facts, paragraphs, percent
from tools.web_demo.examples import EXAMPLES, MOST, copy_examples
from util import UserError, log

CPU = torch.device("cpu")
LIMITS = Limits(megabytes=1, seconds=10, frames=8)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_web_model(tmp_path_factory.mktemp("web") / "run_one" / "model_epoch_last.pth")


@pytest.fixture(scope="module")
def detector(checkpoint: Path) -> Detector:
    return load_detector(checkpoint, "cpu")


def text_of(html: str) -> str:
    """Return what a person reads, with single spaces."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())


def with_band(detector: Detector, lower: float, upper: float) -> Detector:
    calibrated = Detector(detector.loaded, CPU, detector.protocol)
    calibrated.calibration = calibration(lower, upper)
    return calibrated


def test_an_image_gets_score_attention_and_panel(detector: Detector, tmp_path: Path) -> None:
    path = draw(tmp_path / "one.png")
    html, attention, panel = answer(detector, path, LIMITS)
    text, score = text_of(html), detector.score(path)[0]
    assert ("Generated" if score > 0.5 else "Real") in text
    assert f"Score {score:.2f} from 0 (real) to 1 (generated)" in text
    assert "not calibrated" in text and "Probability" not in text
    assert "one.png, 56 x 40 pixels" in text and "small: 56x40 pixels" in text
    with torch.no_grad():
        pixels = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)
        images = detector.protocol.normalise(pixels[None])
        weights = detector.model(images, return_attention=True)[1][0].tolist()
    assert attention == pytest.approx(dict(zip(("0.25", "0.5", "0.75"), weights, strict=True)))
    assert panel is not None and panel.width > 500 and not from_elsewhere(html)


@pytest.mark.parametrize(
    ("band", "headline"),
    [((-1.0, 0.0), "Generated"), ((1.0, 2.0), "Real"), ((-1.0, 2.0), "Unsure")],
)
def test_a_calibrated_detector_gives_a_probability(
    detector: Detector, tmp_path: Path, band: tuple[float, float], headline: str
) -> None:
    path = draw(tmp_path / "one.png")
    calibrated = with_band(detector, *band)
    text = text_of(answer(calibrated, path, LIMITS).html)
    assert {"Generated", "Real", "Unsure"} & set(text.split()) == {headline}
    assert f"Probability of being generated: {percent(calibrated.probability(path)[0])}." in text
    assert calibrated.calibration is not None and calibrated.calibration.rule in text
    assert "calibrated" not in text


@pytest.mark.parametrize(
    ("share", "words"),
    [(0.0, "less than 1 %"), (0.004, "less than 1 %"), (0.01, "1 %"), (0.5, "50 %"), (0.99, "99 %")]
    + [(0.996, "more than 99 %"), (1.0, "more than 99 %")],
)
def test_no_percentage_promises_certainty(share: float, words: str) -> None:
    assert percent(share) == words


def test_names_are_text_and_nothing_else(detector: Detector, tmp_path: Path) -> None:
    path = draw(tmp_path / "<img src=x onerror=alert(1)>.png")
    html = answer(detector, path, LIMITS).html
    assert "<img src=x" not in html and escape(path.name) in html
    loaded = dataclasses.replace(
        detector.loaded, meta={"options": {"dataroot": "a/<script>", "classes": ["<i>"]}}
    )
    html = paragraphs(facts(Detector(loaded, torch.device("cpu"), detector.protocol)))
    assert "<script>" not in html and "<i>" not in html and "&lt;script&gt;" in html


CONTENTS: dict[str, Callable[[Path], object]] = {
    "text": lambda path: path.write_text("no image"),
    "cut": lambda path: path.write_bytes(draw(path).read_bytes()[:2000]),
    "missing": lambda path: None,
    "small": lambda path: draw(path, 3, 3),
    "folder": lambda path: path.mkdir(),
}


@pytest.mark.parametrize("kind", CONTENTS)
def test_a_file_without_an_answer_says_why(
    respond: Callable[..., list[Any]], tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "file.png"
    CONTENTS[kind](path)
    html, attention, panel, known = respond(path)
    assert re.match(r"No answer\. file\.png cannot be scored: \w", text_of(html))
    assert str(tmp_path) not in html and "my_photos" in known
    assert not attention.visible and not panel.visible


def test_a_video_is_known_by_its_content(detector: Detector, tmp_path: Path) -> None:
    path = film(tmp_path / "film.png")
    html, attention, plot = answer(detector, path, LIMITS)
    text = text_of(html)
    assert "median of 3 frames" in text  # one a second, for three seconds
    assert re.search(r"of these, (100 % (real|generated)|\d+ % real, \d+ % generated)\.", text)
    assert re.search(r"Score 0\.\d\d ", text) and "film.png, 64 x 64 pixels, mpeg4" in text
    assert sum(attention.values()) == pytest.approx(1, abs=1e-5)
    assert plot is not None and plot.width > 500 and str(tmp_path) not in html


def test_long_and_large_videos_are_limited(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = film(tmp_path / "film.mp4")
    with pytest.raises(ValueError, match=r"3 s.* 2 s"):
        answer(detector, path, LIMITS._replace(seconds=2))
    assert "median of 2 frames" in text_of(answer(detector, path, LIMITS._replace(frames=2)).html)
    monkeypatch.setattr(answers, "VIDEO_PIXELS", 3 * 64 * 64)
    assert "median of 3 frames" in text_of(answer(detector, path, LIMITS).html)


def test_without_pyav_videos_are_refused(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "film.mp4"
    path.write_bytes(b"\0\0\0\x18ftypmp42" + bytes(200))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ValueError, match="Videos are not read on this machine"):
        answer(detector, path, LIMITS)


def too_much(kind: str) -> None:
    if kind == "GPU":
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB")
    np.empty(2**50) if kind == "NumPy" else torch.empty(2**50)  # more than any address space has


@pytest.fixture
def respond(detector: Detector) -> Callable[..., list[Any]]:
    """Return `respond` of the page with a detector, or with another way to load one."""
    page = pytest.importorskip("tools.web_demo.page")
    return lambda path, load=lambda name: detector: page.respond(load, LIMITS, str(path), "one")


@pytest.mark.parametrize("kind", ["GPU", "NumPy", "CPU"])
def test_too_little_memory_is_an_answer(
    kind: str, respond: Callable[..., list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = draw(tmp_path / "large.png")
    assert "not enough memory" in respond(path, lambda name: too_much(kind))[0]
    monkeypatch.setattr(answers, "explain", lambda *_: too_much(kind))
    assert "not enough memory" in respond(path)[0]


def test_paths_of_the_machine_stay_in_the_terminal(
    respond: Callable[..., list[Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def no_space(*_: object) -> None:
        raise UserError("/tmp/x: No space left on device")

    monkeypatch.setattr(answers, "draw", no_space)
    monkeypatch.setattr(log, "propagate", True)
    html = respond(draw(tmp_path / "one.png"))[0]
    assert "No answer" in html and "terminal" in html and "No space left" not in html
    assert "No space left" in caplog.text


class Client:
    """Asks a served page as a browser would, and as none would."""

    def __init__(self, url: str) -> None:
        self.url, self.api = url, f"{url}gradio_api/"
        self.events = {
            event["targets"][0][1]: event["id"]
            for event in json.loads(self.request(f"{url}config"))["dependencies"]
        }

    def request(self, url: str, body: bytes = b"", kind: str = "application/json") -> bytes:
        asked = urllib.request.Request(url, body or None, {"Content-Type": kind})
        with urllib.request.urlopen(asked, timeout=120) as answered:
            return answered.read()

    def upload(self) -> dict[str, Any]:
        """Return what stands for an uploaded file."""
        form = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
        kind = "multipart/form-data; boundary=x"
        (path,) = json.loads(self.request(f"{self.api}upload", form + b"x\r\n--x--\r\n", kind))
        return file_at(path)

    def ask(self, event: str, data: list[Any], session: str, chosen: Any = None) -> dict[str, Any]:
        """Return the end of an event in the words of Gradio's queue."""
        body = {
            "data": data,
            "fn_index": self.events[event],
            "session_hash": session,
            "event_data": chosen,
        }
        self.request(f"{self.api}queue/join", json.dumps(body).encode())
        lines = self.request(f"{self.api}queue/data?session_hash={session}").splitlines()
        return next(json.loads(line[5:]) for line in lines if b"process_completed" in line)


def file_at(path: str) -> dict[str, Any]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


@pytest.fixture(scope="module")
def client(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A page with an example, served by this process."""
    pytest.importorskip("gradio")
    folder = tmp_path_factory.mktemp("client")
    (folder / "examples of a folder").mkdir()
    draw(folder / "examples of a folder" / "one.png")
    words = ["--model_path", str(checkpoint), "--gpu_ids", "-1"]
    words += ["--examples", str(folder / "examples of a folder")]
    names = ("GRADIO_ANALYTICS_ENABLED", "GRADIO_TEMP_DIR", "NO_PROXY", "no_proxy")
    with pytest.MonkeyPatch.context() as environment:
        for name in names:
            environment.setenv(name, "*")
        page = web_demo.build(web_demo.parser().parse_args(words), folder)
        page.launch(
            server_name="127.0.0.1",
            prevent_thread_lock=True,
            quiet=True,
            ssr_mode=False,
            run_history=False,
        )
        yield Client(page.local_url)
        page.close(verbose=False)


def test_one_is_answered_at_a_time(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    busy = threading.Lock()

    def answer_slowly(*_: object) -> answers.Answer:
        if not busy.acquire(blocking=False):
            raise RuntimeError("two at once")
        time.sleep(0.3)
        busy.release()
        return answers.Answer("answered", {}, None)

    monkeypatch.setattr("tools.web_demo.page.answer", answer_slowly)
    uploaded = client.upload()
    with ThreadPoolExecutor() as visitors:
        ends = visitors.map(lambda name: client.ask("change", [uploaded, "run_one"], name), "abc")
        assert all(end["success"] for end in ends)


def test_an_example_is_chosen_and_answered(client: Client) -> None:
    chosen = client.ask("select", [], "s", {"index": 0, "value": None, "selected": True})
    html, *_ = client.ask("change", [*chosen["output"]["data"], "run_one"], "s")["output"]["data"]
    assert "one.png, 56 x 40 pixels" in html


def test_no_address_is_fetched_and_no_other_file_read(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even from huggingface.co, which Gradio trusts."""
    import httpx

    attempts: list[Any] = []

    async def fetch(transport: object, request: Any) -> Any:
        attempts.append(request.url)
        raise OSError("no network")

    monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", fetch)
    addresses = ["https://huggingface.co/x.png", "http://192.0.2.1/x.png", "http://a.example/x.png"]
    for path in [*addresses, str(draw(tmp_path / "mine.png"))]:
        with pytest.raises(urllib.error.HTTPError) as refused:
            client.request(f"{client.api}file={path}")
        assert refused.value.code == 403
        end = client.ask("change", [file_at(path), "run_one"], "s")
        assert not end["success"] and "data" not in end["output"]
    assert not attempts


def test_facts_come_from_the_checkpoint(detector: Detector) -> None:
    text = "\n".join(facts(detector))
    for words in (
        "Trained on: my_photos (car, cat)",
        "Epochs: 7",
        "accuracy 0.875",
        "on 40 real and 1,200 generated images",
        "0.25, 0.5, 0.75",
        "Calibration: none",
    ):
        assert words in text
    assert "secret" not in text
    assert "on 30 real and 31 generated images" in "\n".join(facts(with_band(detector, 0, 1)))
    empty = Detector(dataclasses.replace(detector.loaded, meta={}), CPU, detector.protocol)
    for name in ("Trained on", "Epochs", "Validation"):
        assert f"{name}: the checkpoint does not say" in "\n".join(facts(empty))
    assert "Trained on: see pretrained/README.md" in facts(load_detector())


def test_checkpoints_are_named(checkpoint: Path, tmp_path: Path) -> None:
    other = save_web_model(tmp_path / "other.pth")
    assert web_demo.named([checkpoint, other]) == {"run_one": checkpoint, "other": other}
    with pytest.raises(UserError, match="no such file"):
        web_demo.named([tmp_path / "none.pth"])
    with pytest.raises(UserError, match="also called other; rename"):
        web_demo.named([other, other])


def test_examples_of_a_folder(tmp_path: Path) -> None:
    source = tmp_path / "images"
    with pytest.raises(UserError, match="no such folder"):
        copy_examples(source, tmp_path)
    (source / "folder").mkdir(parents=True)
    (source / "a.png").write_text("no image")
    with pytest.raises(UserError, match="no image"):
        copy_examples(source, tmp_path)
    paths = [draw(source / f"b_{number:02d}.jpg", 8, 8) for number in range(MOST + 2)][:MOST]
    copied = copy_examples(source, tmp_path)
    assert [example.caption for example in copied] == [f"b {number:02d}" for number in range(MOST)]
    assert [copy.read_bytes() for copy, _ in copied] == [path.read_bytes() for path in paths]
    assert len(list(EXAMPLES.glob("*.jpg"))) == 8  # those of the page without --examples


def test_a_taken_port_is_an_error() -> None:
    gradio = pytest.importorskip("gradio")
    with socket.create_server(("127.0.0.1", 0)) as taken, gradio.Blocks() as page:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"--port {port}: .*pass another"):
            web_demo.serve(page, "127.0.0.1", port, 1)


def test_without_gradio_the_requirements_are_named(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "tools.web_demo.page", raising=False)
    for name in ("GRADIO_ANALYTICS_ENABLED", "GRADIO_TEMP_DIR"):
        monkeypatch.setenv(name, "")
    with pytest.raises(UserError, match=r"pip install -r requirements/web\.txt"):
        web_demo.main(["--model_path", str(checkpoint)])


@pytest.mark.parametrize(
    "words",
    [["--port", "70000"], ["--max_mb", "0"], ["--queue", "0"], ["--max_frames", "0"], ["--protocol", "none"], ["--share"]],
)  # fmt: skip
def test_wrong_flags_are_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        web_demo.main(["--model_path", "M.pth", *words])
    assert ended.value.code == 2 and len(capsys.readouterr().err.splitlines()) == 1

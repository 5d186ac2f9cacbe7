"""The web page in headless Chromium, driven by Playwright, and the process that serves it."""

import dataclasses
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from inference.detector import load_detector
from tests.conftest import REPOSITORY
from tests.helpers.web_files import calibration, draw, film, save_web_model

pytestmark = pytest.mark.ci

LOOPBACK_ONLY = '''
"""Imported by Python as it starts: every attempt to reach another machine is noted, and fails."""
import os, socket, sys

HERE = ("127.0.0.1", "::1", "localhost")


def refuse(event, arguments):
    address = None
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.bind"):
        address = arguments[1][0] if arguments[0].family in (socket.AF_INET, socket.AF_INET6) else None
    elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        address = arguments[0]
    if address is not None and address not in HERE:
        with open(os.environ["ATTEMPTS"], "a") as file:
            file.write(f"{event} {address!r}\\n")
        raise OSError(f"no network: {event}")


sys.addaudithook(refuse)
'''
MAX_MB = 0.5
PHONE = (360, 740)
TOO_WIDE = """[...document.querySelectorAll('html, body, body *')].filter(
    one => one.scrollWidth > innerWidth && !one.closest('.scroll') && getComputedStyle(one).textOverflow !== 'ellipsis'
).map(one => one.outerHTML.slice(0, 100))"""
"""Elements wider than the window, even if cut off; not the panel, which scrolls, nor shortened
names."""


def blocked(folder: Path) -> dict[str, str]:
    """Return an environment in which Python reaches this machine only; attempts to reach others are
    noted in folder/attempts."""
    (folder / "block").mkdir(parents=True)
    (folder / "block" / "sitecustomize.py").write_text(LOOPBACK_ONLY)
    path = os.pathsep.join([str(folder / "block"), str(REPOSITORY)])
    return {**os.environ, "PYTHONPATH": path, "ATTEMPTS": str(folder / "attempts")}


@dataclasses.dataclass
class Served:
    """A served page: its process, its address, and the file of attempts to reach other machines."""

    process: subprocess.Popen[str]
    url: str
    attempts: Path


@contextmanager
def serving(folder: Path, *words: str) -> Iterator[Served]:
    """Run the tool in a process that reaches this machine only."""
    pytest.importorskip("gradio")
    environment = blocked(folder) | {"TMPDIR": str(folder / "tmp")}
    (folder / "tmp").mkdir()
    command = [sys.executable, "-m", "tools.web_demo", "--port", "0", *words]
    with open(folder / "errors", "w") as errors:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("http://127.0.0.1:"), line + (folder / "errors").read_text()
        yield Served(process, line.split()[0], folder / "attempts")
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_web_model(tmp_path_factory.mktemp("page") / "run_one" / "model_epoch_last.pth")


@pytest.fixture(scope="module")
def served(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A page with two detectors, the second of them calibrated so that it is never sure."""
    folder = tmp_path_factory.mktemp("served")
    save_web_model(folder / "calibrated.pth", calibration=calibration(-1, 2).to_dict())
    (folder / "examples").mkdir()
    for number in range(2):
        draw(folder / "examples" / f"example {number}.png", 64, 64, seed=number)
    words = [
        "--model_path",
        str(checkpoint),
        str(folder / "calibrated.pth"),
        "--examples",
        str(folder / "examples"),
    ]
    with serving(folder / "run", *words, "--max_mb", str(MAX_MB), "--max_seconds", "10") as page:
        yield page


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    executable = shutil.which("chromium")
    if executable is None:
        pytest.skip("needs the program chromium")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield browser
        browser.close()


class Visit:
    """A browser window with the page; requests to other addresses are refused and noted."""

    def __init__(
        self, browser: Any, url: str, width: int = 1280, height: int = 900, scheme: str = "light"
    ) -> None:
        self.foreign: list[str] = []
        self._context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme
        )
        self._context.route("**/*", lambda route: self._pass(route, url))
        self.page = self._context.new_page()
        self.page.goto(url)
        self.page.wait_for_selector("#upload input[type=file]", state="attached")
        self.page.wait_for_timeout(500)  # until handlers of events are in place

    def _pass(self, route: Any, url: str) -> None:
        if route.request.url.startswith((url, "data:", "blob:")):
            route.continue_()
        else:
            self.foreign.append(route.request.url)
            route.abort()

    def upload(self, path: Path) -> None:
        self.page.set_input_files("#upload input[type=file]", str(path))

    def read(self, selector: str = "h2, .problem") -> str:
        """Return the answer, when it is there."""
        self.page.wait_for_selector(f"#answer :is({selector})", timeout=120_000)
        return " ".join(self.page.inner_text("#answer").split())

    def clear(self) -> None:
        self.page.click("#upload button[aria-label='Clear']")
        self.page.wait_for_selector("#upload input[type=file]", state="attached")

    def close(self) -> None:
        self._context.close()


@pytest.fixture
def visit(chromium: Any, served: Served) -> Iterator[Visit]:
    visit = Visit(chromium, served.url)
    yield visit
    assert not visit.foreign
    visit.close()


@pytest.mark.slow
@pytest.mark.parametrize(("address", "reached"), [("192.0.2.1", False), ("127.0.0.1", True)])
def test_the_block_works(address: str, reached: bool, tmp_path: Path) -> None:
    code = f"import socket; s = socket.socket(); s.settimeout(1); s.connect_ex(('{address}', 9))"
    ran = subprocess.run(
        [sys.executable, "-c", code], env=blocked(tmp_path), capture_output=True, text=True
    )
    assert (ran.returncode == 0) == reached, ran.stderr
    assert (tmp_path / "attempts").exists() != reached


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
def test_upload_and_read_the_verdict_on_a_phone(
    scheme: str, chromium: Any, served: Served, checkpoint: Path, tmp_path: Path
) -> None:
    visit = Visit(chromium, served.url, *PHONE, scheme)
    path = draw(tmp_path / f"{'a_long_name_' * 8}.png")
    visit.upload(path)
    score = float(load_detector(checkpoint, "cpu").score(path)[0])
    verdict, text = "Generated" if score > 0.5 else "Real", visit.read()
    for words in (verdict, f"Score {score:.2f}", f"{path.name}, 56 x 40 pixels"):
        assert words in text
    shown = "[...document.querySelectorAll('#panel img')].some(image => image.naturalWidth > 0)"
    visit.page.wait_for_function(shown)
    assert "my_photos (car, cat)" in visit.page.inner_text("#facts")
    assert visit.page.locator("footer").count() == 0
    assert visit.page.evaluate(TOO_WIDE) == [] and visit.page.evaluate("innerWidth") == PHONE[0]
    # the page scrolls to the verdict once it is laid out
    heading = "document.querySelector('#answer h2').getBoundingClientRect()"
    in_view = f"{heading}.top >= 0 && {heading}.bottom <= innerHeight"
    visit.page.wait_for_function(in_view, timeout=10_000)
    colour = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", colour)[:3])) < 200) == (scheme == "dark")
    visit.clear()
    visit.page.wait_for_function("document.querySelector('#answer').innerText.trim() === ''")
    assert not visit.foreign and not served.attempts.exists()
    visit.close()


@pytest.mark.slow
def test_after_bad_files_the_page_goes_on(visit: Visit, tmp_path: Path) -> None:
    large = draw(tmp_path / "large.png", 600, 600)
    assert large.stat().st_size > MAX_MB * 2**20
    visit.upload(large)
    visit.page.wait_for_selector("text=exceed the maximum allowed size")
    visit.clear()
    bad = tmp_path / "letter.png"
    bad.write_text("Dear reader")
    visit.upload(bad)
    assert visit.read().startswith("No answer. letter.png cannot be scored: ")
    visit.clear()
    visit.upload(film(tmp_path / "film.mp4"))
    assert "median of 3 frames" in visit.read("h2")  # one a second


@pytest.mark.slow
def test_the_server_refuses_too_large_an_upload(served: Served, tmp_path: Path) -> None:
    """Also from those who do not ask the browser."""
    large = draw(tmp_path / "large.png", 600, 600).read_bytes()
    form = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    body = form + large + b"\r\n--x--\r\n"
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(f"{served.url}gradio_api/upload", body, kind))
    assert refused.value.code == 413


@pytest.mark.slow
def test_examples_and_another_detector(visit: Visit) -> None:
    visit.page.click("#examples button >> nth=1")
    assert "example 1.png" in visit.read() and "not calibrated" in visit.read()
    visit.page.click("input[aria-label='Detector']")
    visit.page.click("[role=option] >> nth=1")
    text = visit.read("h2.unsure")
    assert "Unsure" in text and "Probability of being generated" in text and "example 1.png" in text
    assert "on 30 real and 31 generated images" in visit.page.inner_text("#facts")


@pytest.mark.slow
def test_ctrl_c_ends_it_and_leaves_no_upload(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "examples").mkdir()
    draw(tmp_path / "examples" / "one.png")
    words = ["--model_path", str(checkpoint), "--examples", str(tmp_path / "examples")]
    with serving(tmp_path / "run", *words) as served:
        assert urllib.request.urlopen(served.url).status == 200
        assert list((tmp_path / "run" / "tmp").glob("web_demo_*"))
        served.process.send_signal(signal.SIGINT)
        assert served.process.wait(120) == 130
        assert not list((tmp_path / "run" / "tmp").glob("web_demo_*"))
        assert (tmp_path / "run" / "errors").read_text() == "interrupted\n"
        assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
            "block",
            "errors",
            "tmp",
        ]

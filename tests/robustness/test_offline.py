"""No script asks for anything over a network, and nothing that is written loads anything from one."""

import html.parser
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

pytestmark = pytest.mark.ci

BLOCK = '''
"""Imported by Python as it starts: every attempt to reach another machine is noted, and fails."""
import os, socket, sys, traceback

ADDRESSED = {"socket.connect", "socket.sendto", "socket.sendmsg", "socket.bind"}
LOOK_UPS = {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo"}


def refuse(event, arguments):
    outside = event in ADDRESSED and arguments[0].family in (socket.AF_INET, socket.AF_INET6)
    if outside or event in LOOK_UPS:
        with open(os.environ["ATTEMPTS"], "a") as file:
            file.write(f"{event} {arguments[-1]!r}\\n" + "".join(traceback.format_stack(limit=8)))
        raise OSError(f"no network: {event}")


sys.addaudithook(refuse)
'''
"""An audit hook sees what the socket module does in C, too, cannot be taken off, and stays in
forked workers."""

RUN = """
import glob, json, runpy, sys
for module, *words in json.loads(sys.argv[1]):
    sys.argv = [module, *(found for word in words for found in (glob.glob(word) or [word]))]
    try:
        if module.endswith(".py"):
            runpy.run_path(module, run_name="__main__")
        else:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        assert not end.code, (sys.argv, end.code)
"""
"""Scripts and modules one after the other, as the shell would run them, but in one process, which
is faster."""

TINY = [
    "--no_resize",
    "--cropSize",
    "32",
    "--batch_size",
    "4",
    "--gpu_ids",
    "-1",
    "--num_threads",
    "2",
]
TRAIN = [str(REPOSITORY / "train.py"), "--dataroot", "data", "--name", "m", "--niter", "1", *TINY]
MODEL = "checkpoints/m_*/model_epoch_last.pth"
EVALUATE = [
    "--dataroot",
    "data/test/pixel_shuffle",
    "--gpu_ids",
    "-1",
    "--batch_size",
    "4",
    "--model_path",
    MODEL,
]
PIPELINE = [
    ["tools.make_demo_data", "--output", "data", "--train", "4", "--val", "2", "--test", "4", "--size", "32", "--workers", "2"],
    ["tools.check_dataset", "data"],
    [*TRAIN, "--model_type", "multiscale_attention", "--feature_dim", "16", "--cache", "cache"],
    [str(REPOSITORY / "test.py"), *EVALUATE, "checkpoints/m_*/model_epoch_best.pth", "--num_threads", "2"],
    [str(REPOSITORY / "visualize_attention.py"), *EVALUATE, "--output_dir", "pictures", "--num_samples", "4",
     "--save_npr_maps", "--num_maps", "1"],
    ["tools.recompute", "results/*_best_pixel_shuffle"],
    ["tools.compare_results", "results/*/", "--output", "comparison"],
]  # fmt: skip


class Offline:
    """A folder where Python runs without a network, and a record of attempts to reach one."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.attempts = folder, folder / "attempts"
        (folder / "block").mkdir(parents=True)
        (folder / "block" / "sitecustomize.py").write_text(BLOCK)
        (folder / "run.py").write_text(RUN)

    def python(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join([str(self.folder / "block"), str(REPOSITORY)])
        environment = {**os.environ, "PYTHONPATH": path, "ATTEMPTS": str(self.attempts)}
        ran = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert not check or ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-4000:]
        return ran

    def tried(self) -> str:
        return self.attempts.read_text() if self.attempts.exists() else ""


@pytest.mark.parametrize(
    "code",
    [
        "socket.create_connection(('192.0.2.1', 80), timeout=1)",  # an address kept for examples
        "socket.socket(socket.AF_INET6).connect(('::1', 80))",
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 9))",
        "socket.gethostbyname('example.org')",
        "urllib.request.urlopen('http://example.org')",
    ],
)
def test_the_block_refuses(code: str, tmp_path: Path) -> None:
    """In a child of a child, as a loading worker is one."""
    offline = Offline(tmp_path)
    inner = f"import os, socket, urllib.request\nif os.fork() == 0:\n    {code}\nelse:\n    os._exit(os.wait()[1] >> 8)"
    ran = offline.python("-c", inner, check=False)
    assert ran.returncode != 0 and "no network: socket." in ran.stderr
    assert offline.tried().startswith("socket.")


def test_sockets_within_the_machine_are_allowed(tmp_path: Path) -> None:
    offline = Offline(tmp_path)
    offline.python(
        "-c", "import socket; a, b = socket.socketpair(); a.sendall(b'x'); assert b.recv(1) == b'x'"
    )
    assert not offline.tried()


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Offline:
    """Run all scripts, one after the other, without a network."""
    offline = Offline(tmp_path_factory.mktemp("offline"))
    offline.python("run.py", json.dumps(PIPELINE))
    return offline


def test_nothing_asks_for_a_network(pipeline: Offline) -> None:
    assert not pipeline.tried()
    for pattern in ("data/demo.json", MODEL, "cache/*", "results/*/report.html", "pictures/npr_artifacts/*.png",
                    "comparison/comparison.md"):  # fmt: skip
        assert list(pipeline.folder.glob(pattern)), pattern


class Page(html.parser.HTMLParser):
    """Collects the addresses that a browser fetches to show a page, not those of links to follow."""

    def __init__(self, text: str) -> None:
        super().__init__()
        in_styles = re.findall(r"url\(\s*[\"']?([^)\"']*)|@import\s+(\S+)", text)
        self.fetched = ["".join(address) for address in in_styles]
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        names = {"src", "srcset", "data", "poster", "background", "xlink:href", "http-equiv"}
        if tag != "a":
            names.add("href")
        self.fetched += [value or "" for name, value in attributes if name in names]


def from_elsewhere(text: str) -> list[str]:
    """Return the addresses that a page fetches, but for what it holds itself."""
    return [address for address in Page(text).fetched if not address.startswith(("data:", "#"))]


@pytest.mark.parametrize(
    "text",
    [
        "<script src='https://example.org/x.js'></script>",
        "<link rel=stylesheet href=//example.org/x.css>",
        "<style>body { background: url(https://example.org/x.png) }</style>",
        "<style>@import 'https://example.org/x.css';</style>",
        "<p style=\"background: url('x.png')\">",
        "<svg><image href='https://example.org/x.png'/></svg>",
        "<meta http-equiv=refresh content='0; url=https://example.org'>",
    ],
)
def test_what_a_page_fetches_is_found(text: str) -> None:
    assert from_elsewhere(text)
    assert not from_elsewhere(
        "<a href='https://example.org'>a link</a><img src='data:image/png;base64,'>"
    )


def test_what_is_written_loads_nothing(pipeline: Offline) -> None:
    pages = list(pipeline.folder.rglob("*.html"))
    assert pages and any("<img" in page.read_text(encoding="utf-8") for page in pages)
    for page in pages:
        assert not from_elsewhere(page.read_text(encoding="utf-8")), page
    tables = [path for path in pipeline.folder.rglob("*") if path.suffix in (".md", ".tex")]
    assert {path.suffix for path in tables} == {".md", ".tex"}
    for path in tables:
        text = path.read_text(encoding="utf-8")
        for picture in re.findall(r"!\[[^\]]*\]\(([^)\s]+)|\\includegraphics[^{]*\{([^}]*)", text):
            assert (path.parent / "".join(picture)).is_file(), (path, picture)
        assert "<" not in text or not from_elsewhere(text), path


@pytest.mark.slow
def test_other_backbones_ask_for_no_weights(tmp_path: Path) -> None:
    """Networks of torchvision and timm have weights to download; none are."""
    offline = Offline(tmp_path)
    train = [
        *TRAIN,
        "--model_type",
        "multiscale_attention",
        "--test_dataroot",
        "data/test/pixel_shuffle",
    ]
    backbones = [[*train, "--backbone", name] for name in ("resnet18", "mobilenetv3_small_050")]
    fast = [*PIPELINE[3], "--fast"]
    offline.python("run.py", json.dumps([PIPELINE[0], *backbones, PIPELINE[2], fast]))
    assert not offline.tried()

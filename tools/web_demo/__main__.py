"""Serve a web page that predicts images and videos: drop one, read the verdict, its probability,
the attention of the scales, residual maps and evidence.

The page needs no network and, unless --host says otherwise, answers this machine only. It needs
Gradio (requirements/web.txt), and PyAV for videos (requirements/video.txt).

    # on this machine, with the shipped detector
    python -m tools.web_demo
    # several detectors to choose from, and images of your own as examples
    python -m tools.web_demo --model_path A.pth B.pth --examples my_images
    # for the local network (everybody in it can use the page, unencrypted)
    python -m tools.web_demo --model_path A.pth --host 0.0.0.0 --port 8080

Exit status: 2 wrong command line, something is missing or the port is in use; 130 Ctrl-C.
"""

import argparse
import os
import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from data.protocols import EVALUATION_PROTOCOLS
from device import choose_device
from inference.detector import Detector, load_detector
from networks.checkpoint import model_name
from networks.run_folder import shipped_detector
from options.base_options import PRECISIONS
from options.flags import OneLineParser, gpu_list, number, tool_parser, whole
from tools.web_demo.answers import Limits
from tools.web_demo.examples import EXAMPLES, copy_examples
from util import UserError, log, run_script, start_logging


def parser() -> OneLineParser:
    """Return the parser of the command line."""
    parser = tool_parser("web_demo", __doc__)
    parser.add_argument(
        "--model_path",
        type=Path,
        nargs="+",
        metavar="M.pth",
        help="checkpoints to choose from; the first is loaded at the start, others on first use"
        " (default: the shipped detector, pretrained/)",
    )
    parser.add_argument(
        "--examples",
        type=Path,
        default=EXAMPLES,
        metavar="DIR",
        help="folder whose first 12 images are offered (default: docs/examples)",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen at; 0.0.0.0: every address of this machine (default: %(default)s,"
        " this machine only)",
    )
    parser.add_argument(
        "--port",
        type=whole(0, 65535),
        default=7860,
        help="port to listen at; 0: any free one (default: %(default)s)",
    )
    parser.add_argument(
        "--max_mb",
        type=number(above=0),
        default=20,
        help="largest upload in megabytes (default: %(default)s)",
    )
    parser.add_argument(
        "--max_seconds",
        type=number(above=0),
        default=300,
        help="longest video (default: %(default)s)",
    )
    parser.add_argument(
        "--max_frames",
        type=whole(1),
        default=64,
        help="most frames of a video to use; fewer if they are larger than full HD (default:"
        " %(default)s)",
    )
    parser.add_argument(
        "--queue",
        type=whole(1),
        default=20,
        help="requests that may wait; one is answered at a time (default: %(default)s)",
    )
    parser.add_argument(
        "--protocol",
        choices=list(EVALUATION_PROTOCOLS),
        help="preprocessing (default: that of the calibration, else native)",
    )
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="fp32",
        help="number format (default: %(default)s)",
    )
    parser.add_argument(
        "--gpu_ids", type=gpu_list, help="GPU to use, -1 = CPU (default: a GPU where there is one)"
    )
    return parser


def named(paths: Sequence[Path]) -> dict[str, Path]:
    """Return checkpoints by the names that the page shows.

    Raises:
        UserError: a checkpoint is missing, or two have the same name.
    """
    checkpoints: dict[str, Path] = {}
    for path in paths:
        if not path.exists():
            raise UserError(f"--model_path {path}: no such file")
        name = model_name(path)
        if name in checkpoints:
            raise UserError(f"--model_path {path}: also called {name}; rename {checkpoints[name]}")
        checkpoints[name] = path
    return checkpoints


def build(options: argparse.Namespace, folder: Path) -> Any:
    """Return the page (a `gradio.Blocks`); uploads and drawn examples go into `folder`.

    Raises:
        UserError: Gradio is missing, or a checkpoint or the folder of examples cannot be used.
    """
    # before Gradio is imported: it would report its use
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(folder / "uploads")
    try:
        from tools.web_demo.page import build_page
    except ImportError as error:
        raise UserError(
            f"the web page needs Gradio ({error}): pip install -r requirements/web.txt"
        ) from None
    paths = named(options.model_path or [shipped_detector()])
    device = None if options.gpu_ids is None else choose_device(options.gpu_ids)

    @cache
    def load(name: str) -> Detector:
        return load_detector(paths[name], device, options.protocol, options.precision)

    load(next(iter(paths)))  # an error in it is for the terminal
    examples = copy_examples(options.examples, folder)
    limits = Limits(options.max_mb, options.max_seconds, options.max_frames)
    return build_page(list(paths), load, examples, limits, options.queue)


def serve(page: Any, host: str, port: int, max_mb: float) -> None:
    """Serve the page until a signal ends the process.

    It is served by Gradio's own `launch`: Gradio 6.31 that is mounted in another application hands
    out every file of the machine.

    Raises:
        UserError: the address cannot be used.
    """
    from tools.web_demo.page import CSS, THEME

    # Gradio asks its own server whether it runs
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "*"
    try:
        page.launch(
            server_name=f"[{host}]" if ":" in host else host,
            server_port=port or None,
            max_file_size=int(max_mb * 2**20),
            theme=THEME,
            css=CSS,
            footer_links=[],
            share=False,
            run_history=False,
            mcp_server=False,
            enable_monitoring=False,
            pwa=False,
            ssr_mode=False,
            num_workers=0,
            quiet=True,
            prevent_thread_lock=True,
        )
    except OSError as error:
        raise UserError(
            f"--host {host} --port {port}: cannot listen there; pass another ({error})"
        ) from None
    try:
        if host not in ("127.0.0.1", "localhost", "::1"):
            log.warning("--host %s: everybody who reaches it can use the page, unencrypted", host)
        log.info("%s (Ctrl-C ends it)", page.local_url)
        threading.Event().wait()
    finally:
        page.close(verbose=False)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve the page; return when it has ended."""
    options = parser().parse_args(argv)
    start_logging()
    with TemporaryDirectory(prefix="web_demo_") as folder:
        serve(build(options, Path(folder)), options.host, options.port, options.max_mb)
    return 0


if __name__ == "__main__":
    run_script(main)

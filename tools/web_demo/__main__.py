"""A web page that judges pictures and videos: drop one, see verdict, probability, attention,
residual maps and evidence.

It runs on this machine, asks nothing of the network, and listens to nobody else unless --host says
so. Needs Gradio (requirements-web.txt); videos need PyAV (requirements-video.txt).
"""

import argparse
import os
import socket
import threading
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from data.protocols import EVALUATION_PROTOCOLS
from device import choose_device
from inference.detector import Detector, load_detector
from options.base_options import PRECISIONS, OneLineParser
from options.flags import gpu_list, number, whole
from tools.web_demo.answers import Limits
from tools.web_demo.examples import draw_examples, examples_of
from tools.web_demo.models import Models
from util import UserError, log, run_script, start_logging

LOOPBACK = ("127.0.0.1", "localhost", "::1")
EPILOG = """examples:
  on this machine:
    python -m tools.web_demo --model_path checkpoints/my_model_*/model_epoch_last.pth
  several detectors to choose from, own pictures as examples:
    python -m tools.web_demo --model_path A.pth B.pth --examples my_pictures
  for the local network (everybody in it can use the page, and nothing is encrypted):
    python -m tools.web_demo --model_path A.pth --host 0.0.0.0 --port 8080

Exit status: 2 the command line is wrong, something is missing or the port is in use, 130 ended by Ctrl-C.
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = OneLineParser(
        prog="python -m tools.web_demo",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--model_path",
        type=Path,
        nargs="+",
        required=True,
        metavar="M.pth",
        help="checkpoints to choose from; each is loaded when it is first used",
    )
    parser.add_argument(
        "--examples",
        type=Path,
        metavar="DIR",
        help="folder whose first 12 pictures are offered; left out: six are drawn at the start (a few seconds)",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen at; 0.0.0.0 = all of this machine (default: %(default)s, this machine alone)",
    )
    parser.add_argument(
        "--port",
        type=whole(0, 65535),
        default=7860,
        help="port to listen at; 0 = any free one (default: %(default)s)",
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
        help="frames of a video that are looked at; fewer if they are larger than full HD (default: %(default)s)",
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
        default="native",
        help="preprocessing (default: %(default)s)",
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


def free_port(host: str, port: int) -> int:
    """The port, or with 0 any free one.

    Raises:
        UserError: the port is taken, or the host is none of this machine's addresses.
    """
    try:
        with socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET
        ) as listening:
            return listening.getsockname()[1]
    except OSError as error:
        raise UserError(
            f"--host {host} --port {port}: {error.strerror}; another port, or --port 0 for any free one"
        ) from None


def show(page: Any, host: str, port: int, max_mb: float) -> None:
    """Serve the page until a signal ends it.

    Gradio's own `launch`, because only that makes it refuse paths of files that nobody uploaded
    (mounted in another application, Gradio 6.31 hands out every file of the machine).
    """
    from tools.web_demo.page import CSS, THEME

    # Gradio asks its own server whether it is there
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "*"
    try:
        page.launch(
            server_name=f"[{host}]" if ":" in host else host, server_port=port, max_file_size=int(max_mb * 2**20),
            theme=THEME, css_paths=CSS, prevent_thread_lock=True, quiet=True, share=False, ssr_mode=False,
            num_workers=0, mcp_server=False, pwa=False, run_history=False, enable_monitoring=False, footer_links=[],
        )  # fmt: skip
    except OSError as error:
        raise UserError(f"--port {port}: {error}") from None
    try:
        if host not in LOOPBACK:
            log.warning(
                "--host %s: everybody who reaches this machine can use the page, unencrypted", host
            )
        log.info("%s (Ctrl-C ends it)", page.local_url)
        threading.Event().wait()
    finally:
        page.close(verbose=False)


def build(options: argparse.Namespace, folder: Path) -> Any:
    """The page that the command line asks for. Uploads and drawn examples will lie in `folder`."""
    # before Gradio is imported: it would report its use
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(folder / "uploads")
    try:
        from tools.web_demo.page import build_page
    except ImportError as error:
        raise UserError(
            f"the web page needs Gradio ({error}): pip install -r requirements-web.txt"
        ) from None
    device = None if options.gpu_ids is None else choose_device(options.gpu_ids)

    def load(path: Path) -> Detector:
        return load_detector(path, device, options.protocol, options.precision)

    models = Models(options.model_path, load)
    models[models.names[0]]  # what cannot be used had better be known now
    examples = examples_of(options.examples) if options.examples else draw_examples(folder)
    limits = Limits(options.max_seconds, options.max_frames)
    return build_page(models, examples, limits, options.max_mb, options.queue)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve the page; returns when it has been told to end."""
    options = parser().parse_args(argv)
    start_logging()
    with TemporaryDirectory(prefix="web_demo_") as folder:
        port = free_port(options.host, options.port)
        show(build(options, Path(folder)), options.host, port, options.max_mb)
    return 0


if __name__ == "__main__":
    run_script(main)

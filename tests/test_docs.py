"""The README's links and promises."""

import re
import subprocess

from torch.distributed.run import get_args_parser

from options.predict_options import PredictOptions
from options.test_options import TestOptions
from options.train_options import TrainOptions
from options.visualize_options import VisualizeOptions
from tests.conftest import REPOSITORY
from tools import calibrate, compare_results, make_heldout, recompute
from tools.benchmark import __main__ as benchmark
from tools.check_dataset import __main__ as check_dataset
from tools.export import __main__ as export
from tools.make_demo_data import __main__ as make_demo_data
from tools.make_fakes import __main__ as make_fakes
from tools.web_demo import __main__ as web_demo

TOOLS = (benchmark, calibrate, check_dataset, compare_results, export, make_demo_data, make_fakes, make_heldout, recompute,
         web_demo)  # fmt: skip
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def test_linked_files_are_in_the_repository() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.split()
    titles = [
        re.sub(r"[^\w -]", "", title.lower())
        for title in re.findall("^##+ (.*)$", README, re.MULTILINE)
    ]
    headings = {"#" + title.replace(" ", "-") for title in titles}
    assert links
    assert set(links) <= {*tracked, *headings}


def test_nothing_is_left_to_fill_in() -> None:
    assert not re.findall(r"@[A-Z]+@", README)


def test_every_flag_that_is_named_exists() -> None:
    known = {
        name
        for parser in (
            *(
                options.parser()
                for options in (TrainOptions, TestOptions, VisualizeOptions, PredictOptions)
            ),
            get_args_parser(),  # of torchrun
            *(tool.parser() for tool in TOOLS),
        )
        for name in parser._option_string_actions
    }
    text = re.sub("^#SBATCH.*$", "", README, flags=re.MULTILINE)
    named = set(re.findall(r"(?<![\w-])--[a-zA-Z_]+", text))
    assert named - known <= {
        "--dry",
        "--help",
        "--cpus",
    }  # --dry-run and --help of the shell script; srun's --cpus-per-task


def test_make_targets_that_are_named_exist() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    for target in re.findall(r"(?:`|^)make ([a-z-]+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target

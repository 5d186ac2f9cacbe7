"""README and docs: their links, flags and commands exist, and they are as wide as agreed."""

import re
from pathlib import Path

import pytest
from torch.distributed.run import get_args_parser

from options.predict_options import PredictOptions
from options.test_options import TestOptions
from options.train_options import TrainOptions
from options.visualize_options import VisualizeOptions
from tests.conftest import REPOSITORY
from tools import calibrate, compare_results, make_heldout, recompute, shortcuts
from tools.benchmark import __main__ as benchmark
from tools.check_dataset import __main__ as check_dataset
from tools.export import __main__ as export
from tools.make_demo_data import __main__ as make_demo_data
from tools.make_fakes import __main__ as make_fakes
from tools.pretrained import __main__ as pretrained
from tools.web_demo import __main__ as web_demo

TOOLS = (benchmark, calibrate, check_dataset, compare_results, export, make_demo_data, make_fakes, make_heldout, pretrained,
         recompute, shortcuts, web_demo)  # fmt: skip
README = REPOSITORY / "README.md"
PAGES = [README, REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
LOG = REPOSITORY / "docs" / "research-log.md"  # names flags of earlier commits
OTHERS = {  # of other programs: the pipeline's, srun's, git's, pip's and the tests' own
    "--dry", "--help", "--cpus", "--kills", "--minutes", "--upgrade", "--disable", "--require",
}  # fmt: skip


def of_page(page: Path) -> str:
    return page.name


def anchors(text: str) -> set[str]:
    titles = re.findall("^##+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=of_page)
def test_linked_files_and_headings_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)]+)\)", re.sub("```.*?```", "", text, flags=re.DOTALL)):
        place, _, heading = link.partition("#")
        if "://" in link:
            continue
        target = (page.parent / place).resolve() if place else page
        assert target.exists(), link
        assert not heading or heading in anchors(target.read_text(encoding="utf-8")), link


@pytest.mark.parametrize("page", PAGES, ids=of_page)
def test_pages_are_at_most_100_columns_wide(page: Path) -> None:
    lines = page.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if len(line) > 100 and not line.startswith("|")] == []


def test_readme_is_one_page() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 160


@pytest.mark.parametrize("page", [page for page in PAGES if page != LOG], ids=of_page)
def test_every_flag_that_is_named_exists(page: Path) -> None:
    known = {
        name
        for parser in (
            *(options.parser() for options in (TrainOptions, TestOptions, VisualizeOptions, PredictOptions)),
            get_args_parser(),  # of torchrun
            *(tool.parser() for tool in TOOLS),
        )
        for name in parser._option_string_actions
    }  # fmt: skip
    text = re.sub("^#SBATCH.*$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert set(re.findall(r"(?<![\w-])--[a-zA-Z_]+", text)) - known <= OTHERS


@pytest.mark.parametrize("page", PAGES, ids=of_page)
def test_make_targets_that_are_named_exist(page: Path) -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    for target in re.findall(r"(?:`|^)make ([a-z-]+)", page.read_text(), re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target

"""The check for machines with a GPU: what it does without one, and where a part fails."""

import json
from pathlib import Path

import pytest
import torch

from tests import gpu_check
from util import UserError


def test_without_a_gpu_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="no CUDA device; --rehearse"):
        gpu_check.main([])


def test_each_part_is_written_also_failures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(check: gpu_check.Check) -> str:
        check.end = 0
        return "done"

    monkeypatch.setattr(
        gpu_check.Check,
        "parts",
        lambda check: iter(
            [
                ("step", lambda: check.step("single_scale", 2, {})),
                ("fails", lambda: check.run("-c", "print(5); 1 / 0")),
                ("late", lambda: late(check)),
                ("no time", dict),
            ]
        ),
    )
    assert gpu_check.main(["--rehearse", "--output", str(tmp_path / "out.json")]) == 1
    parts = json.loads((tmp_path / "out.json").read_text())["parts"]
    assert parts["step"]["kernels"] > 100 and parts["step"]["images_per_second"] > 0
    assert "status 1: 5" in parts["fails"]["error"] and "ZeroDivisionError" in str(parts["fails"])
    assert (parts["late"], parts["no time"]) == ("done", None)


def test_a_file_that_cannot_be_written_ends_it_before_the_first_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_check.Check, "gpu_tests", lambda check: pytest.fail("measured"))
    with pytest.raises(UserError, match="missing/out.json: cannot be written"):
        gpu_check.main(["--rehearse", "--output", str(tmp_path / "missing" / "out.json")])
    with pytest.raises(SystemExit, match="2"):
        gpu_check.main(["--rehearse", "--minutes", "-1"])

"""Precision and the one-line errors of scripts."""

import pytest
import torch

from util import UserError, autocast_dtype, run_script


def test_precision_names_and_tf32() -> None:
    cpu = torch.device("cpu")
    assert autocast_dtype("bf16", cpu) is torch.bfloat16
    assert autocast_dtype("fp16", cpu) is torch.float16
    assert autocast_dtype("fp32", cpu) is None
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("native", (True, False))
def test_auto_is_bf16_where_the_hardware_has_it(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert autocast_dtype("auto", torch.device("cpu")) is (torch.bfloat16 if native else None)


@pytest.mark.parametrize(("error", "status"), [(UserError("--flag 1: no"), 2), (KeyboardInterrupt(), 130)])
def test_exit_status(error: BaseException, status: int, capsys: pytest.CaptureFixture) -> None:
    def main() -> int:
        raise error

    with pytest.raises(SystemExit) as stopped:
        run_script(main)
    assert stopped.value.code == status
    assert len(capsys.readouterr().err.strip().splitlines()) == 1

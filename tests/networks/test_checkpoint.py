"""Checkpoints: what is in them, which old forms load, and what is refused."""

import pickle
from pathlib import Path

import pytest
import torch

from networks import checkpoint as loading
from networks.checkpoint import load_model
from networks.multiscale_npr import attention_multiscale_npr18
from networks.resnet import resnet50
from networks.run_folder import find_checkpoints, make_run_folder, newest_run_folder
from options.test_options import TestOptions
from util import UserError

PLAIN = (str, int, float, bool, type(None), torch.Tensor)


def flags(**values: object) -> TestOptions:
    return TestOptions(model_path=("x",), **values)


def leaves(value: object) -> list[object]:
    if isinstance(value, dict):
        return [leaf for key, item in value.items() for leaf in [key, *leaves(item)]]
    if isinstance(value, list | tuple):
        return [leaf for item in value for leaf in leaves(item)]
    return [value]


def test_content_is_plain_and_on_the_cpu(trained: Path) -> None:
    values = torch.load(trained / "model_epoch_last.pth")  # today's default refuses pickled code
    assert {"model_state_dict", "optimizer_state_dict", "epoch", "loss"} <= set(values)
    assert values["epoch"] == 2
    assert all(type(leaf) in PLAIN for leaf in leaves(values))
    assert all(
        leaf.device.type == "cpu" for leaf in leaves(values) if isinstance(leaf, torch.Tensor)
    )
    assert set(values["model_state_dict"]) == set(attention_multiscale_npr18().state_dict())
    assert values["model_config"]["scales"] == [0.25, 0.5, 0.75]
    assert values["protocol"]["resize"] == 32
    assert 0 <= values["val_threshold"] <= 1
    assert all(type(version) is str for version in values["versions"].values())


@pytest.mark.parametrize("form", ("bare", "model", "model_state_dict"))
@pytest.mark.parametrize("prefix", ("", "module.", "module._orig_mod."))
def test_published_forms_give_the_same_logits(form: str, prefix: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = resnet50().eval()
    weights = {prefix + name: value for name, value in model.state_dict().items()}
    torch.save(
        weights if form == "bare" else {form: weights, "total_steps": 7}, tmp_path / "NPR.pth"
    )
    loaded = load_model(tmp_path / "NPR.pth")
    x = torch.randn(2, 3, 64, 64)
    assert loaded.config.model_type == "single_scale"
    assert torch.equal(loaded.model(x), model(x))
    assert loaded.name == "NPR"


def test_earlier_multiscale_form(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading.log, "propagate", True)
    model = attention_multiscale_npr18(feature_dim=64, reduction=2).eval()
    path = tmp_path / "old.pth"
    torch.save(
        {
            "model_state_dict": model.state_dict(),
            "optimizer_state_dict": {},
            "epoch": 3,
            "loss": 0.1,
        },
        path,
    )
    loaded = load_model(path)
    assert loaded.config.scales == (0.25, 0.5, 0.75)
    assert (loaded.config.feature_dim, loaded.config.attention_reduction) == (64, 2)
    assert "does not say its scales" in caplog.text
    x = torch.randn(1, 3, 40, 40)
    assert torch.equal(loaded.model(x), model(x))
    other = load_model(path, flags(npr_scales=(0.2, 0.4, 0.6)))
    assert other.config.scales == (0.2, 0.4, 0.6)
    assert not torch.equal(other.model(x), model(x))


def test_earlier_form_with_two_branches_needs_its_scales(tmp_path: Path) -> None:
    path = tmp_path / "two.pth"
    torch.save(attention_multiscale_npr18(scales=[0.25, 0.5]).state_dict(), path)
    with pytest.raises(UserError, match="--npr_scales: missing.*2 branches"):
        load_model(path)
    with pytest.raises(UserError, match="3 scales.*2 branches"):
        load_model(path, flags(npr_scales=(0.25, 0.5, 0.75)))
    assert load_model(path, flags(npr_scales=(0.25, 0.5))).config.scales == (0.25, 0.5)


@pytest.mark.parametrize(
    "contradiction",
    [
        {"npr_scales": (0.25, 0.5)},
        {"npr_scales": (0.5, 0.25, 0.75)},
        {"model_type": "single_scale"},
        {"feature_dim": 64},
        {"attention_reduction": 8},
        {"attention_residual": True},
        {"backbone": "resnet18"},
    ],
)
def test_flags_that_contradict_the_checkpoint_are_errors(
    trained: Path, contradiction: dict
) -> None:
    with pytest.raises(UserError, match=f"--{next(iter(contradiction))}.*contradicts"):
        load_model(trained / "model_epoch_last.pth", flags(**contradiction))
    agreeing = flags(npr_scales=(0.25, 0.5, 0.75), model_type="multiscale_attention")
    assert load_model(trained / "model_epoch_last.pth", agreeing).epoch == 2


class Payload:
    """Would create a file when unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.target,))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_pickled_code_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "owned"
    torch.save({"model_state_dict": Payload(target)}, tmp_path / "bad.pth")
    (tmp_path / "raw.pth").write_bytes(pickle.dumps(Payload(target)))
    for name in ("bad.pth", "raw.pth"):
        with pytest.raises(UserError, match="refused|not a readable"):
            load_model(tmp_path / name)
    assert not target.exists()


def test_weights_that_do_not_fit_are_listed(trained: Path, tmp_path: Path) -> None:
    values = torch.load(trained / "model_epoch_last.pth")
    weights = values["model_state_dict"]
    weights["classifier.weight"] = torch.zeros(1, 7)
    weights["extra"] = torch.zeros(1)
    del weights["classifier.bias"], values["format"], values["digest"]  # as other programs write
    torch.save(values, tmp_path / "model_epoch_last.pth")
    with pytest.raises(UserError) as error:
        load_model(tmp_path / "model_epoch_last.pth")
    for part in (
        "missing classifier.bias",
        "unexpected extra",
        "classifier.weight is [1, 7] instead of [1, 128]",
    ):
        assert part in str(error.value)


def test_other_networks_and_non_checkpoints_are_refused(tmp_path: Path) -> None:
    torch.save({"a.weight": torch.zeros(2)}, tmp_path / "other.pth")
    torch.save(torch.zeros(3), tmp_path / "tensor.pth")
    with pytest.raises(UserError, match="another network"):
        load_model(tmp_path / "other.pth")
    with pytest.raises(UserError, match="holds a Tensor"):
        load_model(tmp_path / "tensor.pth")
    with pytest.raises(UserError, match="no such file"):
        load_model(tmp_path / "missing.pth")


def test_names_of_models(trained: Path, tmp_path: Path) -> None:
    assert load_model(trained / "model_epoch_last.pth").name == trained.name
    assert load_model(trained / "model_epoch_best.pth").name == f"{trained.name}_best"


def test_newest_run_folder_is_exactly_name_and_stamp(tmp_path: Path) -> None:
    for name in (
        "a_2026_01_01_00_00_00",
        "a_2026_03_01_00_00_00",
        "a_b_2027_01_01_00_00_00",
        "a_2028",
        "a",
    ):
        (tmp_path / name).mkdir()
    assert newest_run_folder(tmp_path, "a", "--name").name == "a_2026_03_01_00_00_00"
    with pytest.raises(UserError, match="--name.*no run folder"):
        newest_run_folder(tmp_path, "c", "--name")


def test_two_runs_in_one_second_get_two_folders(tmp_path: Path) -> None:
    assert make_run_folder(tmp_path, "x") != make_run_folder(tmp_path, "x")


def test_checkpoints_by_glob_and_by_name(trained: Path) -> None:
    pattern = str(trained / "model_epoch_*.pth")
    paths = find_checkpoints((pattern, str(trained / "model_epoch_last.pth")), None, "last", "")
    assert sorted(path.name for path in paths) == ["model_epoch_best.pth", "model_epoch_last.pth"]
    assert find_checkpoints(None, "tiny", "latest", str(trained.parent)) == [
        trained / "model_epoch_last.pth"
    ]
    with pytest.raises(UserError, match="nothing_"):
        find_checkpoints(("nothing_*",), None, "last", "")

"""A checkpoint as files for others: the same scores, nothing of the machine, and nothing but models
read back."""

import dataclasses
import hashlib
import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import interpolate

import tools.export.__main__ as export
from data.protocols import EVALUATION_PROTOCOLS
from inference import load_detector
from networks import ModelConfig, build_model
from networks.calibration import Calibration
from networks.checkpoint import load_model
from networks.checkpoint_file import read_checkpoint, save_checkpoint
from networks.model_folder import CONFIG_FILE, WEIGHTS_FILE
from networks.npr import grid_period, npr_residual, reduced_size
from options.train_options import TrainOptions
from tests.conftest import REPOSITORY
from tools.export.model_card import PUBLIC_OPTIONS
from tools.export.npr_indices import IndexedNPR
from tools.export.onnx import OPSET, OnnxGraph, largest_difference, output_names
from util import UserError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

ODD = ModelConfig("multiscale_attention", (0.3, 0.7, 0.7), 8, 4, attention_residual=True)
ODD_SCALES = (0.1, 0.3, 1 / 3, 0.7, 0.9, 1 / 49)
SECRETS = ("alice", "/srv", "C:\\", "bob")
OPTIONS = TrainOptions(lr=0.003, niter=7, classes=("car", "../alice/cat"), seed=5).to_dict() | {
    "dataroot": "/srv/alice/My Pictures/",
    "checkpoints_dir": "C:\\Users\\bob\\checkpoints",
    "cache": "/srv/alice/cache",
    "test_dataroot": "/srv/alice/test",
    "train_split": "/Users/alice",
    "made up": "/srv/alice",
}
CALIBRATION = Calibration(
    2.5, 0.4, 0.2, 0.9, 0.05, 0.1, 0.02, 30, 31, "/srv/alice/val", "native v1"
)


def write_checkpoint(path: Path, config: ModelConfig, seed: int = 0, **more: Any) -> Path:
    """Save a model with random weights and statistics, whose logits differ from image to image."""
    torch.manual_seed(seed)
    model = build_model(config).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = None  # statistics are the mean of all batches
    with torch.no_grad():
        for strength in (0.3, 1.0, 2.0):
            model(strength * torch.randn(4, 3, 96, 96))
        for name, weight in model.named_parameters():
            if name.startswith(("classifier.", "fc1.")):
                weight.mul_(3)
    values = {"model_state_dict": model.state_dict(), "model_config": config.to_dict()}
    save_checkpoint(path, values | more)
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a calibrated multi-scale checkpoint with paths of people's machines in it."""
    metrics = {"n_real": 30, "n_fake": 31, "acc": 0.8125, "auc": None, "threshold": 0.4}
    return write_checkpoint(
        tmp_path_factory.mktemp("alice") / "model_epoch_last.pth", ODD, options=OPTIONS, epoch=7,
        val_metrics=metrics | {"where": "/srv/alice"}, val_threshold=0.4,
        calibration=CALIBRATION.to_dict(), versions={"torch": "2.0", "at": "/srv/alice/torch"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def plain_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkpoint that says nothing but what a model needs, with metrics of no use."""
    path = tmp_path_factory.mktemp("plain") / "m.pth"
    return write_checkpoint(path, ODD, seed=1, val_metrics={"auc": float("nan"), "ap": "x"})


@pytest.fixture(scope="module")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder with both formats, which tests only read."""
    folder = tmp_path_factory.mktemp("out") / "my_detector"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tools.export.onnx.CHECKED_SIZES", 2)  # tests of their own compare more
        patch.setattr("tools.export.onnx.LARGEST_SIDE", 64)
        assert export.main(["--model_path", str(checkpoint), "--output", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def session(exported: Path) -> Any:
    return graph_session(exported)


def nearest_twice(size: int, scale: float) -> Tensor:
    """The row that PyTorch's own resizing puts in the place of each of `size` rows, which are the
    first of whole periods."""
    full = math.ceil(size / grid_period(scale)) * grid_period(scale)
    rows = torch.arange(full, dtype=torch.float32)[None, None]
    down = interpolate(rows, size=reduced_size(full, scale), mode="nearest")
    return interpolate(down, size=full, mode="nearest").flatten()[:size].long()


@given(st.floats(1e-3, 1, exclude_max=True), st.integers(1, 4096))
def test_indices_are_pytorchs_for_any_scale(scale: float, size: int) -> None:
    if reduced_size(size, scale):
        assert torch.equal(IndexedNPR(scale).kept(size), nearest_twice(size, scale))


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(ODD_SCALES), st.integers(49, 90), st.integers(49, 90), st.booleans())
def test_residual_by_indices_is_the_residual(
    scale: float, height: int, width: int, last: bool
) -> None:
    images = torch.randn(2, 3, height, width)
    images = images.to(memory_format=torch.channels_last) if last else images
    assert torch.equal(IndexedNPR(scale)(images), npr_residual(images, scale))


@pytest.mark.slow
def test_the_graph_computes_these_indices_for_all_sizes() -> None:
    """ONNX in onnxruntime, not PyTorch: constants in single precision, or left out for being nearly
    1, would show here."""

    class Indices(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.each = nn.ModuleList(IndexedNPR(scale) for scale in ODD_SCALES)

        def forward(self, rows: Tensor) -> list[Tensor]:
            return [residual.kept(rows.shape[0]) for residual in self.each]  # type: ignore[operator]

    program = torch.onnx.export(
        Indices().eval(), (torch.zeros(120),), dynamo=True, dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
        opset_version=OPSET, input_names=["rows"], verbose=False,
    )  # fmt: skip
    assert program is not None
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    for size in range(1, 4097):
        outputs = session.run(None, {"rows": np.zeros(size, np.float32)})
        for scale, kept in zip(ODD_SCALES, outputs, strict=True):
            if reduced_size(size, scale):
                assert np.array_equal(kept, nearest_twice(size, scale).numpy()), (size, scale)


def test_a_calibration_for_another_protocol_stays_out_of_the_graph(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The graph takes images as they are; `load_detector` preprocesses them."""
    other = dataclasses.replace(CALIBRATION, protocol="crop224 v1")
    values = read_checkpoint(checkpoint) | {"calibration": other.to_dict()}
    save_checkpoint(path := tmp_path / "other.pth", values)
    loaded = load_model(path)
    with torch.inference_mode():
        outputs = OnnxGraph(loaded)(torch.zeros(1, 3, 48, 48, dtype=torch.uint8))
    assert len(outputs) == 3 and output_names(loaded) == ["logit", "score", "attention"]
    assert load_detector(path, "cpu").calibration == other
    assert load_detector(path, "cpu", protocol="native").calibration is None
    monkeypatch.setattr(export, "export_onnx", lambda *_: b"")
    monkeypatch.setattr(export, "largest_difference", lambda *_: 0.0)
    words = ["--model_path", str(path), "--output", str(tmp_path / "out"), "--format", "onnx"]
    assert export.main(words) == 0
    assert "gets no output probability" in " ".join(capsys.readouterr().out.split())
    card = (tmp_path / "out" / "README.md").read_text()
    assert "get a score and no probability" in card and "`probability`" not in card
    assert json.loads((tmp_path / "out" / CONFIG_FILE).read_text())["calibration"] is not None


def graph_session(folder: Path) -> Any:
    return onnxruntime.InferenceSession(
        str(folder / "model.onnx"), providers=["CPUExecutionProvider"]
    )


@pytest.mark.parametrize(
    ("batch", "height", "width"), [(1, 4, 5), (3, 33, 64), (2, 211, 97), (5, 48, 48)]
)
def test_graph_and_model_agree(
    batch: int, height: int, width: int, checkpoint: Path, session: Any
) -> None:
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (batch, 3, height, width), dtype=np.uint8)
    logit, score, attention, probability = session.run(None, {"images": pixels})
    outputs = load_detector(checkpoint, "cpu").outputs(torch.from_numpy(pixels))
    assert np.abs(logit - outputs.logits).max() <= 1e-4
    assert np.abs(attention - outputs.attention_weights).max() <= 1e-4
    assert np.allclose(score, 1 / (1 + np.exp(-outputs.logits)), atol=1e-5)
    assert np.allclose(probability, CALIBRATION.probabilities(outputs.logits), atol=1e-5)
    # agreeing on a constant would show nothing
    assert batch == 1 or np.std(outputs.logits) > 1e-3


def test_graph_refuses_too_small_images(session: Any) -> None:
    with pytest.raises(Exception, match="out of data bounds"):
        session.run(None, {"images": np.zeros((1, 3, 3, 4), np.uint8)})


def test_graph_is_a_plain_one_and_says_what_is_inside(checkpoint: Path, exported: Path) -> None:
    model = onnx.load(exported / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert {(entry.domain, entry.version) for entry in model.opset_import} == {("", OPSET)}
    assert "Resize" not in {node.op_type for node in model.graph.node}
    shapes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    one = ["batch"]
    assert shapes == {"images": ["batch", 3, "height", "width"], "logit": one, "score": one,
                      "attention": ["batch", 3], "probability": one}  # fmt: skip
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    metadata = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    expected = {
        "scales": [0.3, 0.7, 0.7],
        "classes": ["real", "generated"],
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "checkpoint_sha256": load_model(checkpoint).sha256,
        "name": "my_detector",
        "size": "any",
        "smallest_side": 4,
        "format": "npr-detector/1",
    }
    assert expected.items() <= metadata.items() and metadata["calibration"]["temperature"] == 2.5


def test_folder_gives_the_checkpoints_logits_bit_for_bit(checkpoint: Path, exported: Path) -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (side, 90, 3), dtype=np.uint8) for side in (20, 64, 131)]
    before, after = load_detector(checkpoint, "cpu"), load_detector(exported, "cpu")
    assert np.array_equal(before.outputs(images).logits, after.outputs(images).logits)
    assert np.array_equal(before.probability(images), after.probability(images))
    assert (after.name, after.scales) == ("my_detector", before.scales)
    assert after.protocol == before.protocol
    assert after.loaded.epoch == 7 and after.loaded.meta["val_threshold"] == 0.4


@pytest.mark.usefixtures("without_pictures")
def test_test_takes_the_folder(exported: Path, dataroot: Path, tmp_path: Path) -> None:
    import test

    words = ["--model_path", str(exported), "--dataroot", str(dataroot / "test" / "gan")]
    words += ["--gpu_ids", "-1", "--num_threads", "0", "--bootstrap", "0", "--results_dir"]
    assert test.main([*words, str(tmp_path)]) == 0
    (document,) = tmp_path.glob("my_detector_*/metrics.json")
    assert json.loads(document.read_text())["threshold"] == 0.4


def test_nothing_of_the_machine_is_told(exported: Path, checkpoint: Path) -> None:
    for path in exported.iterdir():
        content = path.read_bytes()
        for secret in (*SECRETS, str(checkpoint.parent.parent), str(REPOSITORY)):
            assert secret.encode() not in content, (path.name, secret)
    config = json.loads((exported / CONFIG_FILE).read_text())
    assert config["options"]["lr"] == 0.003 and config["options"]["seed"] == 5
    assert not set(config["options"]) - set(PUBLIC_OPTIONS)
    assert config["versions"] == {"torch": "2.0"} and config["calibration"]["data"] == ""


def test_public_options_are_options_whose_values_nobody_makes_up() -> None:
    """A new text option must not reach the card because somebody lists it: texts have choices."""
    fields = {field.name: field for field in dataclasses.fields(TrainOptions)}
    assert set(PUBLIC_OPTIONS) <= set(fields)
    texts = {name for name in PUBLIC_OPTIONS if fields[name].type in ("str", str, "str | None")}
    free = {name for name in texts if fields[name].metadata["cli"]["choices"] is None}
    assert not free


def test_card_says_what_the_checkpoint_says(exported: Path) -> None:
    card = re.sub(" +", " ", (exported / "README.md").read_text())
    front, body = card.removeprefix("---\n").split("\n---\n", 1)
    assert re.fullmatch(r"(?:(?:[a-z_]+:(?: [a-z-]+)?|- [a-z-]+)\n)+", front + "\n"), front
    assert "pipeline_tag: image-classification\n" in front and "\n- onnx\n- safetensors" in front
    titles = re.findall("^## (.*)$", body, re.MULTILINE)
    assert titles == ["Recipe", "Data", "Validation", "Calibration", "How to use", "Limits",
                      "Citation"]  # fmt: skip
    for words in (
        "`--lr` | 0.003",
        "Finished epochs: 7.",
        "30 real and 31 generated",
        "0.8125",
        "| temperature",
        "\nH and W are at least 4 (",
        "`attention`, `probability`",
        'load_detector("my_detector")',
    ):
        assert words in body, words
    assert "AUC" not in body and "--beta1" not in body  # undefined, and the default


def test_card_invents_nothing(plain_checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "a](http:x) <b>`\n# title"
    assert run(plain_checkpoint, out) == 0
    card = (out / "README.md").read_text()
    assert card.count("The checkpoint does not say.") == 2 and "None: scores are sigmoid" in card
    prose = re.sub("```python\n.*?```", "", card, flags=re.DOTALL)
    assert "\n# a" in card and "<b>" not in prose.replace("\\<b\\>", "") and "\n# title" not in card
    assert {path.name for path in out.iterdir()} == {CONFIG_FILE, WEIGHTS_FILE, "README.md"}
    assert "model.onnx" not in card
    # metrics that are not numbers are undefined
    config = json.loads((out / CONFIG_FILE).read_text())
    assert config["val_metrics"] == {"ap": None, "auc": None}


def changed_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / CONFIG_FILE).read_text()) | changes
    (folder / CONFIG_FILE).write_text(json.dumps(config))


def changed_weights(folder: Path, change: Any) -> None:
    """Other weights with the digest that fits them."""
    weights = load_file(folder / WEIGHTS_FILE)
    save_file(change(weights), folder / WEIGHTS_FILE)
    digest = hashlib.sha256((folder / WEIGHTS_FILE).read_bytes()).hexdigest()
    changed_config(folder, sha256={WEIGHTS_FILE: digest})


HOSTILE = {
    "no weights": (lambda f: (f / WEIGHTS_FILE).unlink(), "holds no model.safetensors"),
    "no config": (lambda f: (f / CONFIG_FILE).unlink(), "without config.json"),
    "another format": (
        lambda f: changed_config(f, format="npr-detector/9"),
        "'npr-detector/9' instead of",
    ),
    "not json": (lambda f: (f / CONFIG_FILE).write_text("{"), "not readable"),
    "a list": (lambda f: (f / CONFIG_FILE).write_text("[1]"), "its format is 'None'"),
    "deep": (lambda f: (f / CONFIG_FILE).write_text("[" * 100_000), "not readable"),
    "NaN": (lambda f: changed_config(f, val_threshold=float("nan")), "holds NaN"),
    "not UTF-8": (lambda f: (f / CONFIG_FILE).write_bytes(b'{"format": "\xff"}'), "not readable"),
    "huge config": (
        lambda f: (f / CONFIG_FILE).write_text(" " * 2_000_000),
        "more than 1,048,576 bytes",
    ),
    "config is a folder": (
        lambda f: ((f / CONFIG_FILE).unlink(), (f / CONFIG_FILE).mkdir()),
        "without config.json",
    ),
    "model_config is a list": (lambda f: changed_config(f, model_config=[]), "no model_config"),
    "model_config is empty": (lambda f: changed_config(f, model_config={}), "describes no model"),
    "huge model": (
        lambda f: changed_config(f, model_config=ODD.to_dict() | {"feature_dim": 10**9}),
        "does not fit the model",
    ),
    "protocol is a list": (lambda f: changed_config(f, protocol=[1]), "its protocol is a list"),
    "protocol is made up": (
        lambda f: changed_config(f, protocol={"name": 1}),
        "its protocol is not valid",
    ),
    "calibration is text": (
        lambda f: changed_config(f, calibration="x"),
        "its calibration is a str",
    ),
    "epoch is text": (lambda f: changed_config(f, epoch="x"), "its epoch is a str"),
    "sha256 is text": (lambda f: changed_config(f, sha256="x"), "damaged, or changed"),
    "sha256 is missing": (lambda f: changed_config(f, sha256={}), "damaged, or changed"),
    "one bit": (lambda f: flip_last_bit(f / WEIGHTS_FILE), "damaged, or changed"),
    "cut": (
        lambda f: (f / WEIGHTS_FILE).write_bytes((f / WEIGHTS_FILE).read_bytes()[:-9]),
        "no readable weights",
    ),
    "empty": (lambda f: (f / WEIGHTS_FILE).write_bytes(b""), "no readable weights"),
    "huge header": (
        lambda f: (f / WEIGHTS_FILE).write_bytes((2**62).to_bytes(8, "little") + b"{}"),
        "no readable weights",
    ),
    "a pickle": (
        lambda f: torch.save({"a": torch.zeros(1)}, f / WEIGHTS_FILE),
        "no readable weights",
    ),
    "NaN weights": (
        lambda f: changed_weights(
            f, lambda w: w | {"classifier.bias": torch.tensor([float("nan")])}
        ),
        "NaN or infinite weights",
    ),
    "wrong shape": (
        lambda f: changed_weights(f, lambda w: w | {"classifier.bias": torch.zeros(7)}),
        r"classifier.bias is \[7\]",
    ),
    "missing weight": (
        lambda f: changed_weights(
            f, lambda w: {n: v for n, v in w.items() if n != "classifier.bias"}
        ),
        "missing classifier.bias",
    ),
    "odd type": (
        lambda f: changed_weights(
            f, lambda w: w | {"classifier.bias": torch.zeros(1, dtype=torch.complex64)}
        ),
        "weights of type torch.complex64",
    ),
}


def flip_last_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_folders_are_refused_in_a_line(kind: str, exported: Path, tmp_path: Path) -> None:
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        shutil.copy(exported / name, tmp_path)
    harm, reason = HOSTILE[kind]
    harm(tmp_path)
    with pytest.raises(UserError, match=reason) as caught:
        load_detector(tmp_path, "cpu")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000


def test_writing_says_what_to_install(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        export, "find_spec", lambda name: None if name == "onnxruntime" else object()
    )
    with pytest.raises(UserError, match="onnxruntime.* pip install -r requirements/export.txt"):
        export.main(["--model_path", str(checkpoint), "--output", str(tmp_path / "out")])
    assert not list(tmp_path.iterdir())


def test_a_graph_that_differs_is_not_written(
    plain_checkpoint: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = (exported / "model.onnx").read_bytes()
    monkeypatch.setattr(export, "export_onnx", lambda *_: graph)
    monkeypatch.setattr("tools.export.onnx.LARGEST_SIDE", 64)
    monkeypatch.setattr("tools.export.onnx.CHECKED_SIZES", 2)
    monkeypatch.setattr("tools.export.onnx.graph_calibration", lambda _: CALIBRATION)
    words = ["--model_path", str(plain_checkpoint), "--output", str(tmp_path / "out")]
    with pytest.raises(UserError, match="outputs differ by .* try a fixed size"):
        export.main(words)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ("logit", "score", "attention", "probability"))
def test_every_output_is_compared(
    name: str, checkpoint: Path, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tools.export.onnx.CHECKED_SIZES", 1)
    graph, loaded = onnx.load(exported / "model.onnx"), load_model(checkpoint)
    assert largest_difference(graph.SerializeToString(), loaded, (48, 56)) <= 1e-4
    source = next(node for node in graph.graph.node if name in node.output)
    source.output[list(source.output).index(name)] = "exact"
    for node in graph.graph.node:
        node.input[:] = ["exact" if value == name else value for value in node.input]
    graph.graph.node.append(onnx.helper.make_node("Add", ["exact", "little"], [name]))
    little = onnx.numpy_helper.from_array(np.array(2e-4, np.float32), "little")
    graph.graph.initializer.append(little)
    difference = largest_difference(graph.SerializeToString(), loaded, (48, 56))
    assert difference == pytest.approx(2e-4, rel=0.2)


def run(checkpoint: Path, output: Path, *flags: str) -> int:
    words = ["--model_path", str(checkpoint), "--output", str(output), "--format", "safetensors"]
    return export.main([*words, *flags])


def test_overwriting(
    plain_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "deep" / "out"
    assert run(plain_checkpoint, out) == 0
    with pytest.raises(UserError, match="README.md.* --overwrite"):
        run(plain_checkpoint, out)
    # a run that ends early leaves the earlier export
    (out / "README.md").write_text("old")
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(export, "check_weights", lambda *_: 1 / 0)
        run(plain_checkpoint, out, "--overwrite")
    assert (out / "README.md").read_text() == "old"
    assert run(plain_checkpoint, out, "--overwrite") == 0
    assert (out / "README.md").read_text() != "old"
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    (out / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"notes.txt.* export"):
        run(plain_checkpoint, out, "--overwrite")
    (tmp_path / "readme_only").mkdir()
    (tmp_path / "readme_only" / "README.md").write_text("mine")
    with pytest.raises(UserError, match=r"README.md.* export"):
        run(plain_checkpoint, tmp_path / "readme_only", "--overwrite")


@pytest.mark.parametrize(
    ("flags", "says"),
    (
        (["--size", "0", "5"], "--size 0 5: pass dynamic, or height and width"),
        (["--size", "256"], "--size 256: pass dynamic"),
        (["--size", "big", "5"], "--size big 5"),
        (["--size", "3", "300"], "--size 3 300: the smallest scale needs sides of 4 pixels"),
        (["--output", "{checkpoint}"], "is the model itself"),
        (["--output", "{checkpoint}/x"], "cannot be written"),
        (["--model_path", "nowhere.pth"], "--model_path nowhere.pth: no such file"),
        (["--npr_scales", "0.5,0.5,0.5"], "contradicts"),
    ),
)
def test_wrong_command_lines(flags: list[str], says: str, checkpoint: Path, tmp_path: Path) -> None:
    argv = ["--model_path", str(checkpoint), "--output", str(tmp_path / "out")]
    with pytest.raises(UserError, match=says):
        export.main([*argv, *(flag.replace("{checkpoint}", str(checkpoint)) for flag in flags)])
    assert not (tmp_path / "out").exists()


def test_what_json_cannot_hold(tmp_path: Path) -> None:
    protocol = EVALUATION_PROTOCOLS["native"].to_dict() | {"resize": float("nan")}
    path = write_checkpoint(tmp_path / "m.pth", ODD, protocol=protocol)
    with pytest.raises(UserError, match="--model_path .*m.pth: .* JSON cannot hold"):
        run(path, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["m.pth"]


def test_example_without_the_project(checkpoint: Path, exported: Path, tmp_path: Path) -> None:
    """The guide's code block as it stands, in a folder with nothing but the graph and images."""
    guide = (REPOSITORY / "docs" / "export.md").read_text(encoding="utf-8")
    (code,) = re.findall("```python\n(.*?)```", guide, re.DOTALL)
    shutil.copy(exported / "model.onnx", tmp_path)
    pixels = np.random.default_rng(2).integers(0, 256, (70, 51, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(pixels[:3]).save(tmp_path / "small.png")
    (tmp_path / "example.py").write_text(code + "print('torch' in sys.modules)\n")
    command = [sys.executable, "example.py", "small.png", "a.png"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    score = load_detector(checkpoint, "cpu").score(pixels)[0]
    assert ran.stdout.splitlines() == [
        "my_detector with scales [0.3, 0.7, 0.7]",
        "small.png: too small, its sides need 4 pixels",
        f"a.png: {score:.4f}",
        "False",
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    (
        ModelConfig(),
        ModelConfig("multiscale_attention", (0.1, 0.9), 16, 2),
        ModelConfig("multiscale_attention", (1 / 3,), 16, 4, backbone="shufflenet_v2_x0_5"),
        ModelConfig("multiscale_attention", (0.5, 0.7), 16, 4, backbone="mobilenet_v3_small"),
    ),
    ids=lambda config: f"{config.model_type}-{config.backbone}",
)
def test_other_networks(config: ModelConfig, tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "m.pth", config)
    argv = ["--model_path", str(path), "--output", str(tmp_path / "out"), "--format", "onnx"]
    assert export.main(argv) == 0
    pixels = np.random.default_rng(4).integers(0, 256, (3, 3, 131, 260), dtype=np.uint8)
    expected = load_detector(path, "cpu").outputs(torch.from_numpy(pixels)).logits
    (logits,) = graph_session(tmp_path / "out").run(["logit"], {"images": pixels})
    assert np.abs(logits - expected).max() <= 1e-4 and np.std(logits) > 1e-3

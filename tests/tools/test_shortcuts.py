"""Shortcuts: what they see, what they do not, and the detector beside them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from evaluation.trivial_features import FEATURES, trivial_features
from inference import load_detector
from networks import ModelConfig
from tests.conftest import make_set, save_model
from tools import shortcuts
from util import UserError


def write_set(folder: Path, fake_level: int, count: int = 40) -> Path:
    """Write noise whose two classes differ by brightness alone."""
    rng = np.random.default_rng(len(str(folder)))
    for name, level in (("0_real", 100), ("1_fake", fake_level)):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            shown = level + rng.integers(-20, 21) + 10 * rng.standard_normal((32, 32, 3))
            Image.fromarray(shown.clip(0, 255).astype(np.uint8)).save(
                folder / name / f"{index}.png"
            )
    return folder


def test_shortcuts_find_brightness_and_nothing_in_equal_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_set(tmp_path / "train" / "a", 160)
    write_set(tmp_path / "test" / "bright", 160)
    write_set(tmp_path / "test" / "equal", 100)
    write_set(tmp_path / "test" / "real_only", 100)
    (tmp_path / "test" / "real_only" / "1_fake").rename(tmp_path / "elsewhere")
    monkeypatch.setattr(shortcuts, "EPOCHS", 3)
    output = tmp_path / "aucs.json"
    words = ["--dataroot", str(tmp_path), "--sets", str(tmp_path / "test"), "--seeds", "1"]
    model = save_model(tmp_path / "m.pth", ModelConfig("multiscale_attention", (0.5,), 16, 4))
    words += ["--model_path", str(model), "--output", str(output)]
    assert shortcuts.main(words) == 0
    bright, equal = json.loads(output.read_text())
    for name in ("features", "trees", "thumbnails"):
        assert bright[name] > 0.95 and 0.25 < equal[name] < 0.75, name
    assert bright["real"] == bright["generated"] == 40
    images = sorted((tmp_path / "test" / "bright").glob("*/*"))
    labels = [path.parent.name == "1_fake" for path in images]
    assert bright[str(model)] == pytest.approx(
        roc_auc_score(labels, load_detector(model).score(images))
    )
    printed = capsys.readouterr().out
    assert "one class: real_only" in printed and "| bright" in printed and "| equal" in printed


def test_blockiness_is_that_of_jpeg(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    smooth = np.asarray(
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((64, 64))
    )
    Image.fromarray(smooth).save(tmp_path / "a.png")
    Image.fromarray(smooth).save(tmp_path / "a.jpg", quality=20)
    # moved by half a block, the grid is where the feature does not look
    with Image.open(tmp_path / "a.jpg") as image:
        image.crop((4, 4, 60, 60)).save(tmp_path / "moved.png")
    plain, blocky, moved = (
        trivial_features(tmp_path / name)[FEATURES.index("blockiness")]
        for name in ("a.png", "a.jpg", "moved.png")
    )
    assert blocky > plain + 0.5 and blocky > moved + 0.5


def test_sets_of_one_class_alone_are_refused(tmp_path: Path) -> None:
    make_set(tmp_path / "train" / "a", 2)
    make_set(tmp_path / "test" / "only", 2)
    (tmp_path / "test" / "only" / "1_fake").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="no set with images of both classes"):
        shortcuts.main(["--dataroot", str(tmp_path), "--sets", str(tmp_path / "test")])

"""The shipped detector's making: halves and intervals by source picture, the folder, its card."""

import csv
import json
from collections import defaultdict
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from scipy.special import logit
from scipy.stats import binomtest

from inference import load_detector
from inference.prediction import NamedImage, predict_images
from networks import ModelConfig, build_model
from networks.checkpoint_file import save_checkpoint
from networks.model_folder import WEIGHTS_FILE
from options.train_options import TrainOptions
from tests.conftest import draw_image
from tools.pretrained import __main__ as pretrained
from tools.pretrained import measuring
from tools.pretrained.pool import PoolImage, first_half, read_pool
from util import UserError

MULTI = ModelConfig("multiscale_attention", (0.5, 0.75), 16, 4)


def image(label: int, picture: str, crop: int = 0, source: str = "camera") -> PoolImage:
    kind = "real" if label == 0 else "gan"
    return PoolImage(f"dev/a/{label}/{picture}_{crop}", label, "dev/a", kind, picture, source)


def test_halves_keep_pictures_together_and_share_each_source() -> None:
    images = [
        image(0, f"{source}/{n}", crop, source)
        for source, count in (("camera", 11), ("phone", 4), ("single", 1))
        for n in range(count)
        for crop in range(1 + n % 3)
    ] + [image(1, f"gan/{n}") for n in range(9)]
    halves = defaultdict(set)
    pictures = defaultdict(set)
    for part, chosen in zip(images, first_half(images), strict=True):
        halves[part.picture].add(chosen)
        pictures[part.source if part.label == 0 else "gan", chosen].add(part.picture)
    assert all(len(chosen) == 1 for chosen in halves.values())
    for source, count in (("camera", 11), ("phone", 4), ("single", 1), ("gan", 9)):
        assert len(pictures[source, True]) == (count + 1) // 2
        assert len(pictures[source, False]) == count // 2
    assert first_half(images) == first_half(images)


def test_intervals_do_not_shrink_with_more_crops_of_a_picture() -> None:
    rng = np.random.default_rng(0)
    logits = rng.standard_normal(60) + np.repeat([0, 1], 30)
    once = [image(int(n >= 30), f"p{n}") for n in range(60)]
    often = [image(int(n >= 30), f"p{n}", crop) for n in range(60) for crop in range(4)]
    single = measuring.auc_with_interval(once, logits)
    crops = measuring.auc_with_interval(often, np.repeat(logits, 4))
    assert crops == pytest.approx(single, abs=1e-12)
    hits = logits[:30] > 0.5
    counted = binomtest(int(hits.sum()), 30).proportion_ci(0.95, "exact")
    for part, values in ((once[:30], hits), (often[:120], np.repeat(hits, 4))):
        row = measuring.share(part, values)
        assert (row["low"], row["high"]) == pytest.approx((counted.low, counted.high))
    assert measuring.share(often[:120], np.zeros(120))["low"] == 0
    assert measuring.share(often[:120], np.ones(120))["high"] == 1
    # four crops that are taken for four pictures: half as wide
    taken = [image(part.label, f"{part.picture}_{n}") for n, part in enumerate(often)]
    wrong = measuring.auc_with_interval(taken, np.repeat(logits, 4))
    assert wrong["high"] - wrong["low"] < 0.65 * (single["high"] - single["low"])


def test_found_at_five_percent_is_counted_by_hand() -> None:
    labels = np.repeat([0, 1], [40, 4])
    logits = np.concatenate([np.arange(40.0), [37.5, 38.5, 50, -1]])
    # two of forty real images may lie above: those of logits 38 and 39
    assert measuring.found_at(labels, logits) == 0.75
    assert measuring.found_at(labels, logits, 0.02) == 0.25


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """A pool of noise, of 32x32 pixels; whole photographs of 64x64."""
    rng, root, rows = np.random.default_rng(0), tmp_path / "pool", []
    folders = {
        "val/web": ("phone", 20),
        "dev/playground_v2": ("camera", 30),
        "dev/camera_real_only": ("camera", 20),
        "dev/camera_whole_real_only": ("camera", 6),
        "train/web": ("phone", 3),
    }
    for folder, (source, count) in folders.items():
        for name in ("0_real",) if "only" in folder else ("0_real", "1_fake"):
            (root / folder / name).mkdir(parents=True)
            for index in range(count):
                fake = name == "1_fake"
                path = root / folder / name / f"{folder[-3:]}_{index:03d}.png"
                draw_image(rng, fake, 64 if "whole" in folder else 32).save(path)
                generator = folder.split("/")[1] if fake else "real"
                picture = f"{generator if fake else source}/{index // 2}"
                if folder != "val/web":  # like files whose provenance is not in the table
                    rows.append([path.relative_to(root), int(fake), generator, picture, ""])
    with open(root / "provenance.csv", "w", newline="") as file:
        csv.writer(file).writerows(
            [["path", "label", "generator", "source_picture", "prompt"], *rows]
        )
    (root / "sources.csv").write_text("set,repository,licence as stated there\na,b|c,none stated\n")
    return root


def test_the_folder_holds_what_its_card_says(
    pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = TrainOptions(classes=("web",), seed=1, dataroot=str(pool)).to_dict()
    checkpoints = {}
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = build_model(MULTI)
        # untrained ones rank these images the wrong way round
        model.load_state_dict(
            {k: -v if "classifier" in k else v for k, v in model.state_dict().items()}
        )
        values = {"model_state_dict": model.state_dict(), "model_config": MULTI.to_dict()}
        checkpoints[seed] = tmp_path / f"{seed}.pth"
        save_checkpoint(checkpoints[seed], values | {"epoch": 1, "options": options})
    monkeypatch.setattr(pretrained, "trained", lambda pool, seed, folder: checkpoints[seed])
    monkeypatch.setattr(pretrained, "SIDE", 32)
    monkeypatch.setattr(measuring, "RESAMPLES", 20)
    output = tmp_path / "shipped"
    words = ["--pool", str(pool), "--seeds", "0,1", "--output", str(output)]
    assert pretrained.main(words) == 0
    first = {path.name: path.read_bytes() for path in output.iterdir()}
    assert set(first) == pretrained.OURS
    assert pretrained.main(words) == 0
    assert {path.name: path.read_bytes() for path in output.iterdir()} == first

    numbers = json.loads(first["measured.json"])
    best = max(numbers["mean_dev_auc_by_seed"], key=numbers["mean_dev_auc_by_seed"].__getitem__)
    original = torch.load(checkpoints[int(best)], weights_only=True)["model_state_dict"]
    for name, value in load_file(output / WEIGHTS_FILE).items():
        statistic = name.endswith(("running_mean", "running_var", "num_batches_tracked"))
        assert value.dtype == (original[name].dtype if statistic else torch.float16)
        assert torch.equal(value, original[name].to(value.dtype))

    # the threshold, counted again from the shipped file
    detector, images = load_detector(output, "cpu"), read_pool(pool)
    assert detector.calibration is not None
    logits = np.array([detector.outputs(str(pool / part.path)).logits[0] for part in images])
    threshold = logit(detector.calibration.score_threshold)
    half = first_half(images)
    for chosen in (True, False):
        above = defaultdict(list)
        for part, value, of_half in zip(images, logits, half, strict=True):
            if of_half == chosen and part.label == 0 and "whole" not in part.set:
                above[part.source].append(value > threshold)
        for source, values in above.items():
            if chosen:
                assert np.mean(values) <= 0.05, source
            else:
                assert numbers["sources"][source]["share"] == pytest.approx(np.mean(values))
                assert numbers["sources"][source]["n"] == len(values)
    whole = [
        value > threshold for part, value in zip(images, logits, strict=True) if "whole" in part.set
    ]
    assert numbers["whole_photographs"]["share"] == pytest.approx(np.mean(whole))
    assert numbers["whole_photographs"]["fitted"] == sum(
        of_half for part, of_half in zip(images, half, strict=True) if "whole" in part.set
    )
    assert detector.calibration.larger == (np.mean(whole) <= 0.05)
    large = NamedImage("a", Image.new("RGB", (80, 40)))
    assert predict_images(detector, [large])[0].tiles_above is not None

    card = first["README.md"].decode()
    for text in ("dev/playground_v2", "20 + 20", "camera", "none stated", "web", r"b\|c"):
        assert text in card, text
    assert "{{" not in card and "{%" not in card


def test_a_run_is_resumed_only_if_it_is_the_same_training(
    pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in pretrained.TRAINED:
        (pool / "train" / name).mkdir(exist_ok=True)
    commands = []

    def train(command: list[str], **_: object) -> CompletedProcess:
        commands.append(command[2:])
        if "--continue_train" not in command:
            run = tmp_path / "shipped_s1_2026_01_01_00_00_00"
            run.mkdir()
            options = TrainOptions().parse(command[2:], print_options=False).to_dict()
            save_checkpoint(run / "model_epoch_last.pth", {"options": options})
        return CompletedProcess(command, 0)

    monkeypatch.setattr(pretrained.subprocess, "run", train)
    path = pretrained.trained(pool, 1, tmp_path)
    assert pretrained.trained(pool, 1, tmp_path) == path
    assert [command[-1] == "--continue_train" for command in commands] == [False, True]
    moved = pool.rename(tmp_path / "other")
    with pytest.raises(UserError, match=r"--dataroot was \S+pool, is \S+other.*--checkpoints_dir"):
        pretrained.trained(moved, 1, tmp_path)
    assert len(commands) == 2


def test_what_is_not_ours_is_not_replaced(pool: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(UserError, match=r"holds thesis.tex; pass another folder"):
        pretrained.main(["--pool", str(pool), "--output", str(tmp_path / "mine")])
    (pool / "provenance.csv").unlink()
    with pytest.raises(UserError, match="holds no provenance.csv"):
        pretrained.main(["--pool", str(pool), "--output", str(tmp_path / "new")])

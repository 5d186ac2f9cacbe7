"""Tables of paths and labels as --dataroot."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import test as test_script
import train
from data import create_dataloader
from data.image_sets import ClassNames
from data.label_file import label_sets, label_split, read_rows
from data.layouts import find_test_sets
from evaluation.scores import Scores
from options.train_options import TrainOptions
from tests.conftest import TINY, draw_image
from util import UserError


def table(folder: Path, text: str | bytes, count: int = 4) -> Path:
    """Write labels.csv beside img/real_N.png and img/fake_N.png."""
    (folder / "img").mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        for name in ("real", "fake"):
            draw_image(rng, name == "fake").save(folder / "img" / f"{name}_{number}.png")
    file = folder / "labels.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def rows(count: int, more: str = "") -> str:
    """One row per image; `more` follows the label."""
    lines = [f"img/{c}_{n}.png,{c}{more}\n" for n in range(count) for c in ("real", "fake")]
    return "".join(lines)


PLAIN = "path,label\nimg/real_0.png,0\nimg/fake_0.png,1\n"


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        PLAIN.encode("utf-8-sig"),
        PLAIN.encode("utf-16"),
        PLAIN.replace(",", ";"),
        PLAIN.replace(",", "\t"),
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("path,label", "Path, Label").replace(".png,", ".png, "),
        PLAIN.replace(",0", ",REAL").replace(",1", ",Fakes"),
        PLAIN.replace(",0", ",human").replace(",1", ",ai_generated"),
        PLAIN.replace(",0", ",0.0").replace(",1", ",1.0"),
        PLAIN.replace("img/", "img\\"),
        PLAIN.replace("img/real_0.png", '"img/../img/real_0.png"').rstrip() + "\n\n\n",
        "label,note,path\n0,x,./img/real_0.png\n1,,img/fake_0.png\n",
        "\n\n" + PLAIN,
        "sep=;\r\n" + PLAIN.replace(",", ";"),
        PLAIN.replace(",0", ",0,,").replace(",1", ",1, "),
    ],
)
def test_tables_as_people_have_them(text: str | bytes, tmp_path: Path) -> None:
    (images,) = label_sets(table(tmp_path, text))
    paths = (f"{tmp_path}/img/real_0.png", f"{tmp_path}/img/fake_0.png")
    assert (images.key, images.paths, images.labels) == ("/labels", paths, (0, 1))


def test_flags_name_other_labels(tmp_path: Path) -> None:
    file = table(tmp_path, "path,label\nimg/real_0.png,1\nimg/fake_0.png,Flux\n")
    (images,) = label_sets(file, names=ClassNames(("1",), ("flux",)))
    assert images.labels == (0, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("img/real_0.png,0\nimg/fake_0.png,1\n", "line 1: names no columns path and label"),
        ("path,label,Label\nimg/real_0.png,0,1\n", "line 1: names column label twice"),
        ("path,lable\nimg/real_0.png,0\n", "line 1: names no columns path and label"),
        ("path,label\nimg/real_0.png,maybe\n", "line 2: label 'maybe'.*0 or real.*--real_names"),
        ("path,label\nimg/real_0.png\n", "line 2: label '' is unknown"),
        ("path,label\n,0\n", "line 2: has no path"),
        ("\nsep=,\n\npath,label\n,0\n", "line 5: has no path"),
        ("path,label,split\nimg/real_0.png,0,dev\n", "line 2: split 'dev'.*write train, val"),
        ("path,label,split\nimg/real_0.png,0,val\nimg/fake_0.png,1,\n", "line 3: has no split"),
        ("path,label,generator\nimg/real_0.png,0,../x\n", "line 2: generator '../x'"),
        ("path,label\nimg/a,b.png,0\n", "line 2: has 3 cells.*quotes"),
        ('path,label\n"img/real_0.png,0\nimg/fake_0.png,1\n', "line 3: is not CSV"),
        ("path,label\n", "has no rows"),
        (b"\x89PNG\r\n\x1a\n\xff\xfe\xfa", "is not a text in UTF-8.*CSV UTF-8.*columns path,label"),
        (PLAIN + "img/x.png,0\nimg/y.png,1\n", "2 of 4 files are missing, .*line 4: .*img/x.png"),
        (PLAIN + "img/./real_0.png,1\n", "line 4: .*is fake here and real in line 2"),
        (
            "path,label,split\nimg/real_0.png,0,train\nimg/fake_0.png,1,val\nimg/real_0.png,0,val",
            "line 4: .*real_0.png is val here and train in line 2",
        ),
    ],
)  # fmt: skip
def test_wrong_tables_name_the_line_and_the_remedy(
    text: str | bytes, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=rf"labels.csv(:|, ).*{message}|labels.csv, {message}"):
        read_rows(table(tmp_path, text))


def test_an_image_is_known_by_any_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "link").symlink_to(table(tmp_path, PLAIN).parent / "img")
    monkeypatch.chdir(tmp_path)
    for other in (f"{tmp_path}/img", "link"):
        Path("labels.csv").write_text(f"{PLAIN}{other}/real_0.png,1\n")
        with pytest.raises(UserError, match="line 4: .*is fake here and real in line 2"):
            read_rows(Path("labels.csv"))


def test_a_tenth_of_each_generator_and_class_is_drawn_for_validation(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    lines = [f"img/real_{n}.png,0,coco" for n in range(30)]
    lines += [f"img/fake_{n}.png,1,{'sd' if n < 20 else 'flux'}" for n in range(30)]
    text = "\n".join(["path,label,generator", *lines])
    file = table(tmp_path, text, 30)
    parts = {split: label_split(file, split) for split in ("train", "val")}
    assert parts["val"].labels.count(0) == 3 and parts["val"].labels.count(1) == 3
    assert len({*parts["train"].paths, *parts["val"].paths}) == 60
    flux = [path for path in parts["val"].paths if int(path.split("_")[-1][:-4]) >= 20]
    assert sum("fake" in path for path in flux) == 1
    (message,) = caplog.messages
    assert "no column split, so 6 of 60 images are val (10 %" in message
    # neither the order of the rows nor the place of the file matters
    file.write_text("\n".join(["path,label,generator", *reversed(lines)]))
    monkeypatch.chdir(tmp_path)
    again = label_split(Path("labels.csv"), "val")
    assert {os.path.abspath(path) for path in again.paths} == set(parts["val"].paths)


def test_generators_without_real_images_share_those_of_the_others(tmp_path: Path) -> None:
    text = "path,label,generator\nimg/real_0.png,0,\nimg/real_1.png,0,coco\nimg/fake_0.png,1,sd\n"
    text += "img/fake_1.png,1,flux\nimg/real_2.png,0,own\nimg/fake_2.png,1,own\n"
    sets = {images.key: images for images in label_sets(table(tmp_path, text))}
    assert {key: images.labels for key, images in sets.items()} == {
        "labels/sd": (0, 0, 1), "labels/flux": (0, 0, 1), "labels/own": (0, 1),
    }  # fmt: skip
    # in training, each image once
    assert len(sets["labels/sd"].of_class(0).paths) == 2
    with pytest.raises(UserError, match="--classes x: not a generator.*sd, flux, own|own, sd"):
        label_sets(tmp_path / "labels.csv", ("x",))
    (chosen,) = label_sets(tmp_path / "labels.csv", ("sd",))
    assert chosen.labels == (0, 0, 1)


@pytest.mark.parametrize(
    ("splits", "read"),
    [("train val test", {2}), ("train val", {1}), ("train Validation", {1}), ("", {0, 1, 2})],
)
def test_testing_reads_test_else_val_else_all_rows(
    splits: str, read: set[int], tmp_path: Path
) -> None:
    names = splits.split()
    lines = ["path,label,split" if names else "path,label"]
    for number in range(len(names) or 3):
        split = f",{names[number]}" if names else ""
        lines += [f"img/{c}_{number}.png,{c}{split}" for c in ("real", "fake")]
    root, (images,) = find_test_sets(str(table(tmp_path, "\n".join(lines))))
    assert {int(path[-5]) for path in images.paths} == read
    scores = Scores("", "", images.paths, np.array(images.labels), np.zeros(len(images.paths)))
    named = scores.for_files("s", "g", root)
    assert named.paths[0] == f"img/real_{min(read)}.png"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label,split\n" + rows(2, ",train"), "no real images with split val"),
        ("path,label\nimg/real_0.png,0\nimg/real_1.png,0\n", "no fake images with split train"),
    ],
)
def test_training_needs_both_classes_in_train_and_val(
    text: str, message: str, tmp_path: Path
) -> None:
    options = TrainOptions(dataroot=str(table(tmp_path, text)), num_threads=0)
    with pytest.raises(UserError, match=message):
        for split in ("train", "val"):
            create_dataloader(options, split=split)


def test_train_resume_and_test(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A stopped training resumes as exactly as with folders, and the results name the images."""
    file = table(tmp_path, "path,label\n" + rows(12), 12)
    runs = tmp_path / "runs"

    def trained(name: str, *words: str) -> Path:
        flags = ["--dataroot", str(file), "--checkpoints_dir", str(runs), "--name", name, *TINY]
        cache = ["--cache", str(tmp_path / "cache")]
        assert train.main([*flags, *cache, *words]) == 0
        (folder,) = runs.glob(f"{name}_*")
        return folder

    straight = trained("a", "--niter", "2")
    trained("b", "--niter", "1")
    resumed = trained("b", "--niter", "2", "--continue_train")
    assert "other images or labels" not in capsys.readouterr().out
    weights = [
        torch.load(folder / "model_epoch_last.pth")["model_state_dict"]
        for folder in (straight, resumed)
    ]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    words = ["--model_path", str(straight / "model_epoch_last.pth"), "--dataroot", str(file)]
    words += ["--results_dir", str(tmp_path / "out"), "--bootstrap", "0", *TINY]
    assert test_script.main(words) == 0
    (folder,) = (path for path in (tmp_path / "out").iterdir() if path.is_dir())
    assert folder.name.endswith("_labels")
    # those that training drew for validation: 10 % of 12
    assert json.loads((folder / "metrics.json").read_text())["pooled"]["n_fake"] == 1
    (name,) = re.findall(r"img/real_\d+.png", (folder / "predictions.csv").read_text())
    _, (images,) = find_test_sets(str(file), trained_on=[str(file)])
    assert images.paths[0] == str(file.parent / name)
    file.write_text(file.read_text() + "img/../img/real_0.png,real\nimg/fake_12.png,1\n")
    draw_image(np.random.default_rng(1), True).save(tmp_path / "img" / "fake_12.png")
    trained("b", "--niter", "3", "--continue_train")
    assert "--continue_train: --dataroot has other images or labels" in capsys.readouterr().out

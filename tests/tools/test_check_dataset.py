"""The check of datasets: layouts as the scripts read them, every finding, and commands that fix
them."""

import json
import os
import subprocess
from collections import Counter
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.layouts import find_test_sets
from data.splits import load_set
from tests.conftest import draw_image, make_dataroot
from tools.check_dataset import __main__ as tool
from tools.check_dataset.examine import Diagnosis, examine
from tools.check_dataset.findings import Finding, move_command
from util import run_script

FRESH = count()


def draw(path: Path, seed: int | None = None, **save: object) -> Path:
    """Write an image of 8x8 pixels, another one each time unless a seed is given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(10_000 + next(FRESH) if seed is None else seed)
    draw_image(rng, False, 8).save(path, **save)
    return path


def fill(root: Path, *folders: str, number: int = 2) -> Path:
    for folder in folders:
        for index in range(number):
            draw(root / folder / f"{index}.png")
    return root


def pair(folder: str = ".", real: str = "0_real", fake: str = "1_fake") -> tuple[str, str]:
    return f"{folder}/{real}", f"{folder}/{fake}"


def look(root: Path) -> Diagnosis:
    return examine(root, 2)


def kinds(diagnosis: Diagnosis) -> dict[str, Finding]:
    """Return findings by kind, without the format leak: on a few images that AUC is chance."""
    return {
        finding.kind: finding for finding in diagnosis.findings if finding.kind != "format_leak"
    }


def fix(diagnosis: Diagnosis) -> None:
    """Run every command that was printed."""
    commands = [command for finding in diagnosis.findings for command in finding.commands]
    assert commands
    for command in commands:
        subprocess.run(["bash", "-euc", command], check=True, stdin=subprocess.DEVNULL)


# layouts

FOREN = tuple(
    c
    for g in ("progan/car", "progan/cat", "biggan", "crn", "san")
    for c in pair(f"ForenSynths_test/{g}")
)
INNER = ("ADM/imagenet_adm", "glide/imagenet_glide")
GENIMAGE = tuple(
    c for g in INNER for s in ("train", "val") for c in pair(f"GenImage/{g}/{s}", "nature", "ai")
)
UFD = ("UFD/imagenet/0_real", "UFD/laion/0_real", "UFD/guided/1_fake", "UFD/dalle/1_fake", "UFD/ldm_200/1_fake",
       "UFD/ldm_100/1_fake")  # fmt: skip


@pytest.mark.parametrize(
    ("folders", "start", "about", "read"),
    [
        (pair("x", "REAL", "FAKE"), "x", "one set", {"": 1}),
        ((*pair("progan/car"), *pair("progan/cat")), "progan", "one set", {"": 1}),
        (FOREN, "ForenSynths_test", "a suite of 4 generators", {"": 4}),
        ((*FOREN, *pair("Diffusion1kStep/ddpm")), ".", "a folder of 2 suites", {"": 5}),
        (pair("x/cat", "Real images", "AI-generated"), ".", "one set", {"": 1}),
        (("d/lsun/real", "d/lsun/adm", "d/lsun/ldm"), "d", "a suite of 2 generators", {"": 2}),
        (UFD, "UFD", "a suite of 4 generators", {"": 4}),
        (pair("Chameleon/test"), ".", "one set", {"": 1}),
        (pair("Training"), ".", "one set", {"": 1}),
        ((*pair("r/train/car"), *pair("r/val/car"), *pair("r/test/gan"), *pair("r/test/sd")), "r",
         "a training root with train/, val/, test/", {"train": 1, "val": 1, "test": 2}),
    ],
)  # fmt: skip
def test_layouts(
    folders: tuple[str, ...], start: str, about: str, read: dict[str, int], tmp_path: Path
) -> None:
    """The sets are those of the scripts, and nothing is wrong with them."""
    root = fill(tmp_path, *folders) / start
    diagnosis = look(root)
    assert diagnosis.about == about
    readings = [report.reading for report in diagnosis.sets]
    assert Counter(reading.split for reading in readings) == read
    assert kinds(diagnosis).keys() <= {"suite"}
    assert (diagnosis.status, diagnosis.files) == (0, 2 * len(set(folders)))
    training = "train" in read
    tested = find_test_sets(str(root / "test" if training else root))[1]
    by_script = {"test.py": tested}
    if training:
        by_script["train.py"] = [load_set(root / "train"), load_set(root / "val")]
    for script, sets in by_script.items():
        read_sets = [images for _, reader, images in readings if reader == script]
        paths = [{path for images in group for path in images.paths} for group in (read_sets, sets)]
        assert paths[0] == paths[1]


def test_splits_that_are_not_tested_are_noted(tmp_path: Path) -> None:
    diagnosis = look(fill(tmp_path, *GENIMAGE) / "GenImage")
    assert diagnosis.files == 2 * 2 * 2 and diagnosis.status == 0
    finding = kinds(diagnosis)["other_split"]
    assert finding.severity == "note" and "8 images that test.py does not read" in finding.message
    assert {item.folder.split("/")[2] for item in finding.items} == {"train"}


def test_suites_have_their_table_and_protocol(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path, *FOREN, *GENIMAGE)
    assert tool.main([str(tmp_path)]) == 0
    text = capsys.readouterr().out
    table = (
        "4 sets of ForenSynths (Table 1 of the NPR paper), protocol resize256: resize to 256x256"
    )
    assert table in text
    assert "2 sets of GenImage, protocol genimage-tile" in text


def test_counts_per_set_and_content_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_dataroot(tmp_path, count=3, size=8)
    assert tool.main([str(tmp_path)]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    for name, number in (("train", "6"), ("train/car", "3"), ("val/cat", "3"), ("test/gan", "3")):
        assert [name, number, number] in rows


def test_shared_real_folders_are_no_duplicates(tmp_path: Path) -> None:
    fill(tmp_path, *UFD, "d/lsun/real", "d/lsun/adm", "d/lsun/ldm")
    for root in (tmp_path / "UFD", tmp_path / "d", tmp_path / "d" / "lsun"):
        assert kinds(look(root)).keys() <= {"suite"}
    # the same by hand: links to one folder of real images
    fill(tmp_path, *pair("linked/a"), "linked/b/1_fake")
    (tmp_path / "linked" / "b" / "0_real").symlink_to(tmp_path / "linked" / "a" / "0_real")
    diagnosis = look(tmp_path / "linked")
    assert (kinds(diagnosis), diagnosis.files) == ({}, 6)
    assert [report.counts for report in diagnosis.sets] == [(2, 2), (2, 2)]


# counts


def test_missing_classes_and_imbalance(tmp_path: Path) -> None:
    fill(tmp_path, *pair("train/car"), "train/cat/0_real", "val/car/0_real", "test/sd/0_real")
    fill(tmp_path, *pair("test/gan"), number=1)
    fill(tmp_path, "test/gan/0_real", number=10)
    (tmp_path / "test" / "sd" / "1_fake").mkdir()
    diagnosis = look(tmp_path)
    assert diagnosis.status == 1
    assert [(f.kind, f.severity) for f in diagnosis.findings if f.kind != "format_leak"] == [
        ("empty_class", "problem"),
        ("one_class", "problem"),
        ("one_class_content", "warning"),
        ("imbalance", "warning"),
        ("one_class", "warning"),
    ]
    assert "10 times" in kinds(diagnosis)["imbalance"].message
    assert (
        "test/sd/1_fake: a class folder without images" in kinds(diagnosis)["empty_class"].message
    )


# files


def test_unreadable_files_and_wrong_suffixes(tmp_path: Path) -> None:
    fill(tmp_path, *pair())
    content = (tmp_path / "0_real" / "0.png").read_bytes()
    (tmp_path / "0_real" / "cut.png").write_bytes(content[: len(content) // 2])
    (tmp_path / "1_fake" / "text.jpg").write_text("no picture")
    (tmp_path / "1_fake" / "gone.png").symlink_to("nowhere.png")
    os.mkfifo(tmp_path / "1_fake" / "pipe.png")
    draw(tmp_path / "1_fake" / "really.png", format="JPEG")
    draw(tmp_path / "1_fake" / "fine.JPEG", format="JPEG")
    diagnosis = look(tmp_path)
    findings = kinds(diagnosis)
    assert findings.keys() == {"unreadable", "suffix"} and diagnosis.status == 1
    reasons = {item.paths[0]: item.note for item in findings["unreadable"].items}
    bad = {"0_real/cut.png", "1_fake/text.jpg", "1_fake/gone.png", "1_fake/pipe.png"}
    assert reasons.keys() == bad and "truncated" in reasons["0_real/cut.png"]
    (item,) = findings["suffix"].items
    assert (item.paths, item.note) == (("1_fake/really.png",), "is JPEG")
    assert findings["suffix"].severity == "note"


def test_equal_images(tmp_path: Path) -> None:
    fill(tmp_path, *pair("train/car"), *pair("val/car"), *pair("test/gan"), *pair("test/sd"))
    draw(tmp_path / "train/car/0_real/same.png", seed=1)
    draw(tmp_path / "train/car/0_real/again.webp", seed=1, lossless=True)  # the same pixels
    draw(tmp_path / "train/car/0_real/leak.png", seed=2)
    draw(tmp_path / "test/gan/0_real/leak.bmp", seed=2)
    draw(tmp_path / "test/gan/0_real/shared.png", seed=3)
    draw(tmp_path / "test/sd/0_real/shared.png", seed=3)
    draw(tmp_path / "val/car/0_real/both.png", seed=4)
    draw(tmp_path / "val/car/1_fake/both.png", seed=4)
    os.link(tmp_path / "train/car/1_fake/0.png", tmp_path / "test/gan/1_fake/linked.png")
    groups = {
        (kind, finding.severity): {frozenset(item.paths) for item in finding.items}
        for kind, finding in kinds(look(tmp_path)).items()
    }
    assert groups == {
        ("label_conflict", "problem"): {
            frozenset({"val/car/0_real/both.png", "val/car/1_fake/both.png"})
        },
        ("leak", "problem"): {
            frozenset({"train/car/0_real/leak.png", "test/gan/0_real/leak.bmp"}),
            frozenset({"train/car/1_fake/0.png", "test/gan/1_fake/linked.png"}),
        },
        ("duplicate", "warning"): {
            frozenset({"train/car/0_real/same.png", "train/car/0_real/again.webp"})
        },
        ("shared", "note"): {
            frozenset({"test/gan/0_real/shared.png", "test/sd/0_real/shared.png"})
        },
    }


# misplaced things, and what fixes them


@pytest.mark.parametrize(
    ("good", "bad", "kind"),
    [
        (pair("g", "nature", "ai"), ("g/0_fake/deep/er",), "class_name"),
        (("g/0_real",), ("g/0_real images", "g/1_fake"), "class_name"),
        (
            (*pair("train/car"), *pair("val/car")),
            ("train/car/real_images", "train/car/fake_images"),
            "class_name",
        ),
        ((), ("0_real/1_fake", "0_real"), "nested"),
        ((*pair("train/car"), *pair("test/gan")), pair("valid/car"), "split_name"),
        ((), (*pair("Train"), *pair("Validation")), "split_name"),
        (("Train/car/0_real",), ("Train/car/0_real/1_fake", *pair("Validation/car")), "nested"),
    ],
)
def test_commands_fix_what_was_found(
    good: tuple[str, ...], bad: tuple[str, ...], kind: str, tmp_path: Path
) -> None:
    """Each command is run; the finding is gone, and no image is lost."""
    root = fill(tmp_path / "it's $HOME; my set", *good, *bad)
    images = len(list(root.rglob("*.png")))
    diagnosis = look(root)
    commands = kinds(diagnosis)[kind].commands
    assert commands and all(command.startswith("mv -n -- ") for command in commands)
    fix(diagnosis)
    after = look(root)
    assert kinds(after).keys() <= {"one_class", "no_val"}
    assert after.files == len(list(root.rglob("*.png"))) == images


@pytest.mark.parametrize("name", ["new\nline", os.fsdecode(b"\xff\xe4"), "\x1b[31m"])
def test_names_that_cannot_be_printed_get_no_command(name: str, tmp_path: Path) -> None:
    root = fill(tmp_path / name, *pair("g"), "g/reals")
    finding = kinds(look(root))["class_name"]
    assert finding.items[0].folder == "g/reals" and not finding.commands


@pytest.mark.parametrize("name", ["two words", "it's", "$HOME `id`", "-n", "ü ñ", "\\", "*", ";"])
def test_commands_hold_any_printable_name(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    (command,) = move_command(name, f"{name} moved")
    subprocess.run(["sh", "-euc", command], check=True, cwd=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f"{name} moved"]


@pytest.mark.parametrize(
    ("folders", "note"),
    [
        ((*pair("train"), *pair("val"), "extra/fakes"), "not in train/, val/ or test/"),
        ((*pair("gan"), "sd/pictures"), "in no class folder"),
        ((*pair("gan"), "gan/more/0_real"), "deeper than the class folders that are read"),
        ((*pair("gan"), "Real-ESRGAN"), "in no class folder"),
        ((*pair("gan"), "fakes"), "in no class folder"),
    ],
)
def test_where_it_cannot_be_told_nothing_is_advised(
    folders: tuple[str, ...], note: str, tmp_path: Path
) -> None:
    findings = kinds(look(fill(tmp_path, *folders)))
    assert note in findings["unread"].items[0].note
    assert not any(finding.commands for finding in findings.values())


def test_links_inside_of_class_folders_are_not_followed(tmp_path: Path) -> None:
    fill(tmp_path, *pair("set"), "elsewhere")
    (tmp_path / "set" / "0_real" / "more").symlink_to(tmp_path / "elsewhere")
    (item,) = kinds(look(tmp_path / "set"))["unread"].items
    assert "behind a link" in item.note and len(item.paths) == 2


def test_suffixes_that_are_not_read(tmp_path: Path) -> None:
    root = fill(tmp_path, *pair())
    wrong = ("a.jpe", "plain", "new\nline", os.fsdecode(b"x\xff"), "photo.v2")
    for name in wrong:
        draw(root / "0_real" / name, format="JPEG")
    draw(root / "1_fake" / "one.JPG_large", format="PNG")
    draw(root / "1_fake" / "fine.JPG", format="JPEG")
    draw(root / "1_fake" / "moving.gif", format="GIF")
    (root / "1_fake" / "notes").write_text("BM is how a bitmap begins")
    os.mkfifo(root / "1_fake" / "pipe")
    findings = kinds(look(root))
    assert findings.keys() == {"no_suffix", "not_read"}
    assert {item.note for item in findings["no_suffix"].items} == {"is JPEG", "is PNG"}
    assert len(findings["no_suffix"].items) == len(wrong) + 1
    assert "(.gif 1, no suffix 2)" in findings["not_read"].message


def test_a_flat_folder_is_no_layout(tmp_path: Path) -> None:
    draw(tmp_path / "real_0.png")
    draw(tmp_path / "fake_0.png")
    findings = kinds(look(tmp_path))
    assert findings.keys() == {"layout", "unread"}
    assert all("0_real/ and 1_fake/" in finding.message for finding in findings.values())


def test_nothing_is_ever_overwritten(tmp_path: Path) -> None:
    fill(tmp_path, "g/1_fake", "g/0_real/1_fake", "h/0_real", "h/0_real/reals", "h/reals")
    findings = kinds(look(tmp_path))
    assert {"nested", "unread"} <= findings.keys()
    assert not any(finding.commands for finding in findings.values())


@pytest.mark.parametrize(("splits", "kind"), [("train", "no_val"), ("val", "no_train")])
def test_a_split_is_missing(splits: str, kind: str, tmp_path: Path) -> None:
    finding = kinds(look(fill(tmp_path, *pair(f"{splits}/car"), *pair(f"{splits}/cat"))))[kind]
    assert finding.severity == "problem" and not finding.commands
    assert kind.removeprefix("no_") + "/ is missing" in finding.message


def test_hidden_and_system_files_are_only_counted(tmp_path: Path) -> None:
    fill(tmp_path, *pair(), "__MACOSX/0_real", ".cache/0_real")
    for name in (".DS_Store", "Thumbs.db", "._0.png"):
        (tmp_path / "0_real" / name).write_text("x")
    findings = kinds(look(tmp_path))
    assert findings.keys() == {"ignored"}
    assert "(.DS_Store 1, Thumbs.db 1, __MACOSX 1, hidden 2)" in findings["ignored"].message


@pytest.mark.parametrize("place", (".", "gan/0_real"))
def test_links_in_a_circle_end(place: str, tmp_path: Path) -> None:
    fill(tmp_path, *pair("gan"), *pair("sd"))
    (tmp_path / place / "circle").symlink_to(tmp_path)
    diagnosis = look(tmp_path)
    finding = kinds(diagnosis)["left_out"]
    assert "circle" in finding.message and finding.severity == "warning"
    assert diagnosis.files == 8


# formats


def formatted_set(root: Path, fake: dict[str, object], suffix: str) -> Path:
    """Real photographs as JPEG files of quality 95 without chroma subsampling, and generated ones
    as told."""
    rng = np.random.default_rng(0)
    for folder, save, ending in (
        ("0_real", {"quality": 95, "subsampling": 0}, ".jpg"),
        ("1_fake", fake, suffix),
    ):
        (root / folder).mkdir(parents=True)
        for index in range(40):
            smooth = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize(
                (32, 32)
            )
            smooth.save(root / folder / f"{index}{ending}", **save)
    return root


def test_classes_of_different_formats_are_told_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = formatted_set(tmp_path / "set", {}, ".png")
    Image.new("RGB", (32, 32)).save(root / "0_real" / "one.png")
    assert tool.main([str(root), "--json", str(tmp_path / "x.json")]) == 0
    text = capsys.readouterr().out
    assert "JPEG 97.6%, PNG 2.4%" in text
    assert "test.py --equalize jpeg:90" in text
    document = json.loads((tmp_path / "x.json").read_text())
    (images,) = document["sets"]
    assert images["format_leak"] > 0.9
    real, fake = images["formats"]["real"], images["formats"]["fake"]
    assert (real["kinds"], fake["kinds"]) == (
        {"JPEG": 40 / 41, "PNG": 1 / 41},
        {"PNG": 1.0},
    )
    assert real["quality"] == {"median": 95.0, "lowest": 95.0, "highest": 95.0}
    assert (real["subsamplings"], fake["subsamplings"]) == ({"4:4:4": 1.0}, {})
    assert fake["quality"] is None
    assert (real["width"]["median"], real["sizes"]) == (32.0, 1)
    sizes = [path.stat().st_size / 32**2 for path in (root / "0_real").iterdir()]
    assert real["bytes_per_pixel"] == pytest.approx(np.median(sizes))


# the command line


def test_json_has_every_name_and_the_terminal_a_few(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = fill(tmp_path / "set", *pair("gan"))
    for index in range(5):
        (root / "gan" / "0_real" / f"bad\n{index}.png").write_bytes(b"")
    words = [str(root), "--list", "2", "--json", str(tmp_path / "x.json"), "--num_threads", "1"]
    assert tool.main(words) == 1
    text = capsys.readouterr().out
    assert text.count("bad\\x0a") == 2
    assert "... and 3 more" in text
    document = json.loads((tmp_path / "x.json").read_text())
    assert document["status"] == 1
    (finding,) = [finding for finding in document["findings"] if finding["kind"] == "unreadable"]
    names = [[f"gan/0_real/bad\\x0a{index}.png"] for index in range(5)]
    assert [item["paths"] for item in finding["items"]] == names
    (images,) = document["sets"]
    expected = {"n_real": 7, "n_fake": 2, "protocol": "native", "generator": "gan"}
    assert expected.items() <= images.items()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["missing"], "missing: no such folder"),
        (["empty"], "empty: no images"),
        (["set", "--num_threads", "0"], "--num_threads: 0 is not"),
        (["set", "--list", "-1"], "--list: -1 is not"),
        (["set", "--json", "no/where.json"], "--json no/where.json"),
    ],
)
def test_wrong_command_lines_are_one_line_and_status_2(
    words: list[str],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "set", *pair())
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit) as stopped:
        run_script(lambda: tool.main(words))
    assert stopped.value.code == 2
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1 and expected in printed.err and not printed.out


def test_the_folder_may_be_given_in_any_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = fill(tmp_path / "-set", *pair(), "reals")
    monkeypatch.chdir(root)
    for folder in (".", "../-set/", str(root)):
        findings = kinds(look(Path(folder)))
        assert findings.keys() == {"class_name"}
        assert findings["class_name"].items[0].folder == "reals"
    monkeypatch.chdir(tmp_path)
    fix(look(Path("-set")))
    assert not kinds(look(root))


def test_splits_within_class_folders_are_said(tmp_path: Path) -> None:
    fill(tmp_path, "real/train", "real/val", "fake/train", number=1)
    finding = kinds(look(tmp_path))["split_in_class"]
    assert [item.paths[0] for item in finding.items] == ["fake/train", "real/train", "real/val"]

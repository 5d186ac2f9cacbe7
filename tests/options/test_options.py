"""Command lines: old ones parse, wrong ones say what would be right, and every flag that is shown
has a reader."""

import ast
import dataclasses
import re
from pathlib import Path

import pytest

from options.base_options import Options
from options.flags import OTHER_NAMES, tool_parser
from options.predict_options import PredictOptions
from options.test_options import TestOptions
from options.train_options import TrainOptions
from options.visualize_options import VisualizeOptions
from tests.conftest import REPOSITORY

ALL = (TrainOptions, TestOptions, VisualizeOptions, PredictOptions)


def error_line(capsys: pytest.CaptureFixture, options: type[Options], argv: list[str]) -> str:
    """The one line that a wrong command line ends with; checks status 2."""
    with pytest.raises(SystemExit) as stopped:
        options().parse(argv)
    assert stopped.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


def attributes_read() -> set[str]:
    """Names read as attributes (or by getattr with a literal) anywhere outside options/ and tests/."""
    names: set[str] = set()
    for path in REPOSITORY.rglob("*.py"):
        if not {"options", "tests", ".venv"} & set(path.relative_to(REPOSITORY).parts):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                    names.add(node.attr)
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    names.add(node.value)
    return names


@pytest.mark.parametrize("options", ALL)
def test_every_shown_flag_has_a_reader(options: type[Options]) -> None:
    read = attributes_read() | {"run_name"}
    # read by TrainOptions.run_name
    read |= {"name", "suffix"} if "run_name" in attributes_read() else set()
    unread = {field.name for field in dataclasses.fields(options)} - read
    assert not unread


def test_published_training_command(dataroot: Path, capsys: pytest.CaptureFixture) -> None:
    argv = (
        f"--name 4class --dataroot {dataroot} --classes car,cat --batch_size 32 --delr_freq 10 --lr 0.0002 --niter 50 "
        "--mode binary --arch res50 --rz_interp bilinear --blur_prob 0.1 --blur_sig 0.0,3.0 --jpg_prob 0.1 "
        "--jpg_method cv2,pil --jpg_qual 30,100 --class_bal --loadSize 256 --cropSize 224 --gpu_ids 0 --epoch latest "
        "--num_threads 8 --checkpoints_dir ./checkpoints --serial_batches --resize_or_crop scale_and_crop --no_flip "
        "--init_type normal --init_gain 0.02 --suffix x --earlystop_epoch 15 --data_aug --optim adam --new_optim "
        "--loss_freq 400 --save_latest_freq 2000 --save_epoch_freq 20 --epoch_count 1 --last_epoch -1 "
        "--train_split train --val_split val --beta1 0.9"
    )
    opt = TrainOptions().parse(argv.split())
    assert (opt.batch_size, opt.delr_freq, opt.lr, opt.niter, opt.classes) == (
        32,
        10,
        0.0002,
        50,
        ("car", "cat"),
    )
    assert (opt.blur_sig, opt.jpg_qual, opt.jpg_method) == ((0.0, 3.0), (30, 100), ("cv2", "pil"))
    warnings = capsys.readouterr().err.splitlines()
    retired = "--mode, --arch, --resize_or_crop, --last_epoch: accepted for old command lines"
    assert warnings[0] == f"warning: {retired}, without effect"
    assert warnings[1] == "warning: --epoch, --new_optim: without effect; add --continue_train"


def test_published_testing_command(dataroot: Path, capsys: pytest.CaptureFixture) -> None:
    argv = "--model_path NPR.pth --batch_size 16 --no_resize --no_crop --eval --earlystop_epoch 15 --lr 1e-5 --niter 0"
    opt = TestOptions().parse([*argv.split(), "--dataroot", str(dataroot)])
    assert (opt.model_path, opt.no_resize, opt.no_crop) == (("NPR.pth",), True, True)
    assert "--eval, --lr, --niter, --earlystop_epoch" in capsys.readouterr().err


def test_published_defaults() -> None:
    opt = TrainOptions()
    published = {"batch_size": 64, "num_threads": 8, "lr": 0.0001, "beta1": 0.9, "niter": 1000, "delr_freq": 20,
                 "loss_freq": 400, "save_latest_freq": 2000, "save_epoch_freq": 20, "optim": "adam", "seed": 100,
                 "train_split": "train", "val_split": "val", "name": "experiment_name", "gpu_ids": (0,)}  # fmt: skip
    assert {name: getattr(opt, name) for name in published} == published
    inactive = ("init_type", "init_gain", "earlystop_epoch", "blur_prob", "jpg_prob", "data_aug")
    assert not any(getattr(opt, name) for name in inactive)


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        ("--batchsize 4", ["--batchsize", "--batch_size"]),
        ("--npr_scale 0.5", ["--npr_scale", "--npr_scales"]),
        ("--nonsense 4", ["--nonsense"]),
        ("--pretrained x", ["--pretrained", "did you mean --init_from?"]),
        ("--init_from no.pth", ["--init_from no.pth", "no such file"]),
        ("--init_from=", ["argument --init_from ", "no such file"]),
        ("--load_model x", ["did you mean --init_from?"]),
        ("--resume_from_checkpoint x", ["did you mean --continue_train?"]),
        ("--test_dir x", ["did you mean --test_dataroot?"]),
        ("--resume", ["--resume", "did you mean --continue_train?"]),
        ("--epochs 4", ["--epochs", "did you mean --niter?"]),
        ("--lr_decay=4", ["did you mean --delr_freq?"]),
        ("--batch-size 4", ["did you mean --batch_size?"]),
        ("-b 4", ["-b", "did you mean --batch_size?"]),
        ("--crop_size 4", ["did you mean --cropSize?"]),
        ("--Workers 4", ["did you mean --num_threads?"]),
        ("--batch_size 0", ["--batch_size", "0", "from 1 up"]),
        ("--batch_size four", ["--batch_size", "'four'", "whole number"]),
        ("--lr -1", ["--lr", "-1", "> 0"]),
        ("--lr nan", ["--lr", "nan"]),
        ("--npr_scales 0.5,1.5", ["--npr_scales", "'1.5'", "between 0 and 1"]),
        ("--npr_scales 0.5,0.5_2", ["--npr_scales", "'0.5_2'", "between 0 and 1"]),
        ("--scales ,", ["--npr_scales", "comma-separated"]),
        ("--jpg_qual 30,60,90", ["--jpg_qual", "at most 2"]),
        ("--blur_prob 1.5", ["--blur_prob", "1.5", "<= 1"]),
        ("--optim lion", ["--optim", "lion", "adam"]),
        ("--model_type two_scale", ["--model_type", "single_scale"]),
        ("--gpu_ids x", ["--gpu_ids", "x", "-1 = CPU"]),
        ("--dataroot /no/such/place", ["--dataroot", "/no/such/place", "no such folder"]),
        ("--loadSize 64 --cropSize 96", ["--cropSize", "96", "64"]),
        ("--cropSize 300", ["--cropSize", "300", "256"]),
        ("--loadSize 64 --no_resize", ["--loadSize", "--no_resize"]),
        ("--jpg_qual 100,30", ["--jpg_qual", "30,100"]),
        ("--model_type multiscale_attention --npr_scales 0.001", ["--npr_scales", "0.001", "224"]),
        ("--suffix {batch_size:q}", ["--suffix"]),
        ("--suffix {dataroot}/y", ["--suffix", "slashes"]),
        ("--train_split training", ["--train_split", "training"]),
        ("--suffix {nothing}", ["--suffix", "nothing"]),
        ("--feature_dim 2", ["--attention_reduction", "--feature_dim"]),
        ("--name a/b", ["--name", "a/b"]),
        ("--degrade 0.5 --no_crop", ["argument --degrade 0.5: ", "--no_crop"]),
        ("--repeat_small --no_crop", ["argument --repeat_small: ", "--no_crop"]),
    ],
)
def test_wrong_training_flags_end_with_one_line(
    argv: str, parts: list[str], dataroot: Path, capsys: pytest.CaptureFixture
) -> None:
    line = error_line(capsys, TrainOptions, ["--dataroot", str(dataroot), *argv.split()])
    assert all(part in line for part in parts), line


def test_missing_model_and_data_are_named(capsys: pytest.CaptureFixture) -> None:
    assert "--model_path" in error_line(capsys, TestOptions, [])
    assert "--dataroot" in error_line(capsys, VisualizeOptions, ["--model_path", "m.pth"])


def test_options_do_not_change_and_parsing_makes_nothing(
    dataroot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    opt = TrainOptions().parse(["--dataroot", str(dataroot)])
    with pytest.raises(dataclasses.FrozenInstanceError):
        opt.lr = 1.0  # type: ignore[misc]
    assert not list(tmp_path.iterdir())


def test_dump_marks_what_is_not_default(dataroot: Path) -> None:
    dump = (
        TrainOptions()
        .parse(["--dataroot", str(dataroot), "--lr", "0.5"], print_options=False)
        .dump()
        .splitlines()
    )
    marked = [line.split(":")[0].strip() for line in dump if "[default" in line]
    assert marked == ["dataroot", "lr"]


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        ("--npr_scales 0.5", ["--npr_scales: ", "--model_type single_scale"]),
        ("--jpg_qual 50 --blur_sig 1", ["--jpg_qual: ", "--blur_sig: "]),
        ("--lr_schedule cosine --delr_freq 5", ["--delr_freq: ", "--lr_schedule cosine"]),
        ("--jpg_qual 50 --data_aug", []),
    ],
)
def test_flags_without_effect_are_warned_about(
    argv: str, parts: list[str], dataroot: Path, capsys: pytest.CaptureFixture
) -> None:
    TrainOptions().parse(["--dataroot", str(dataroot), *argv.split()])
    warning = capsys.readouterr().err
    assert all(part in warning for part in parts) and bool(parts) == bool(warning)


def test_spellings_of_scales_and_gpu() -> None:
    visualize = [
        "--model_path",
        "m.pth",
        "--dataroot",
        ".",
        "--scales",
        "0.25,0.5",
        "--gpu_id",
        "-1",
    ]
    opt = VisualizeOptions().parse(visualize)
    assert (opt.npr_scales, opt.gpu_ids) == ((0.25, 0.5), ())


def test_suffix_is_filled_in(dataroot: Path) -> None:
    argv = ["--dataroot", str(dataroot), "--name", "n", "--suffix", "b{batch_size}_{model_type}"]
    assert TrainOptions().parse(argv).run_name() == "n_b64_single_scale"


PREDICT = "--model_path m.pth"


@pytest.mark.parametrize(
    ("argv", "paths"),
    (
        (f"a {PREDICT} b --format csv c --gpu_ids -1", ("a", "b", "c")),
        (f"{PREDICT} --null -", ("-",)),
        (f"{PREDICT} -- -a.png --b", ("-a.png", "--b")),
    ),
)
def test_paths_stand_anywhere(argv: str, paths: tuple[str, ...]) -> None:
    assert PredictOptions().parse(argv.split(), print_options=False).paths == paths


@pytest.mark.parametrize(
    ("argv", "parts"),
    (
        (PREDICT, ["PATH", "missing"]),
        (f"{PREDICT} a --formt csv", ["--formt", "did you mean --format"]),
        (f"{PREDICT} n.pth a", ["PATH n.pth", "--model_path", "quotes"]),
        (f"{PREDICT} - -", ["PATH -", "twice"]),
        (f"{PREDICT} a --null", ["--null", "PATH -"]),
        (f"{PREDICT} a --overwrite", ["--overwrite", "--output", "--explain"]),
        (f"{PREDICT} a --output a", ["--output a", "another file"]),
        (f"{PREDICT} b ./x/../a --output a", ["--output a", "another file"]),
        (f"{PREDICT} a --fps 0", ["--fps", "> 0"]),
        (f"{PREDICT} a --num_threads 0", ["--num_threads", "from 1 up"]),
    ),
)
def test_wrong_prediction_flags_end_with_one_line(
    argv: str, parts: list[str], capsys: pytest.CaptureFixture
) -> None:
    line = error_line(capsys, PredictOptions, argv.split())
    assert all(part in line for part in parts), line


@pytest.mark.parametrize("options", ALL)
def test_help_shows_every_flag_in_a_named_group(options: type[Options]) -> None:
    text = options.parser().format_help()
    assert "examples:" in text
    assert not any(f"--{name} " in text for name in options.retired)
    headings = re.findall(r"^([a-z ]+):$", text, re.MULTILINE)
    assert {"model", "data", "run", "hardware"} <= set(headings)
    general = text.split("options:\n")[1].split("\n\n")[0]
    assert re.findall(r"^  (-\S+)", general, re.MULTILINE) == ["-h,"]
    for field in dataclasses.fields(options):
        if not field.metadata["cli"]["positional"]:
            assert len(re.findall(rf"^  --{field.name}\b", text, re.MULTILINE)) == 1, field.name


def test_a_tools_help_comes_from_its_docstring(capsys: pytest.CaptureFixture) -> None:
    parser = tool_parser(
        "any_tool", "Does this.\n\n    python -m tools.any_tool DIR\n\nWrites: that."
    )
    parser.add_argument("--flag", help="of the tool")
    help_text = parser.format_help()
    assert help_text.startswith("usage: python -m tools.any_tool ")
    parts = (
        "Does this.",
        "of the tool",
        "examples:\n    python -m tools.any_tool DIR",
        "Writes: that.",
    )
    assert sorted(parts, key=help_text.index) == list(parts)
    with pytest.raises(SystemExit) as stopped:
        parser.parse_args(["--fla", "x"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_other_tools_names_lead_to_a_flag_that_is_there(capsys: pytest.CaptureFixture) -> None:
    flags = {field.name for options in ALL for field in dataclasses.fields(options)}
    assert set(OTHER_NAMES) <= flags
    line = error_line(capsys, TestOptions, ["--model_path", "m.pth", "--weights", "m.pth"])
    assert "did you mean --model_path?" in line
    line = error_line(capsys, TestOptions, ["--model_path", "m.pth", "--test_dir", "x"])
    assert "did you mean --dataroot?" in line
    line = error_line(capsys, PredictOptions, ["--model_path", "m.pth", "a.png", "--out", "x"])
    assert "did you mean --output?" in line
    tool = tool_parser("compare_results", None)
    tool.add_argument("--overwrite", action="store_true")
    with pytest.raises(SystemExit):
        tool.parse_args(["--force"])
    assert "unknown argument --force; did you mean --overwrite?" in capsys.readouterr().err


def test_flags_that_make_a_gpu_faster() -> None:
    assert TrainOptions().faster_on_gpu() == "--precision auto --fast --cache DIR"
    assert TrainOptions(precision="bf16", cache="x").faster_on_gpu() == "--fast"
    assert not TrainOptions(precision="fp16", cache="x", fast=True).faster_on_gpu()

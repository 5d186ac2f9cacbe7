"""Presets: the published one is the defaults, train.py accepts each, custom files are checked,
and given flags win."""

import dataclasses
from pathlib import Path

import pytest

import train
from options.presets import load_preset, preset_names
from options.train_options import TrainOptions


def parsed(root: Path, *words: str) -> TrainOptions:
    return TrainOptions().parse(["--dataroot", str(root), *words], print_options=False)


def refusal(capsys: pytest.CaptureFixture, root: Path, *words: str) -> str:
    """The one line that a wrong recipe ends with; checks status 2."""
    with pytest.raises(SystemExit) as stopped:
        parsed(root, *words)
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_the_published_recipe_is_the_default_and_changes_nothing(dataroot: Path) -> None:
    assert preset_names()[0] == "published"
    assert (
        parsed(dataroot)
        == parsed(dataroot, "--recipe", "published")
        == TrainOptions(dataroot=str(dataroot))
    )


@pytest.mark.parametrize("name", preset_names())
def test_every_recipe_sets_what_it_says(dataroot: Path, name: str) -> None:
    recipe, opt = load_preset(name), parsed(dataroot, "--recipe", name)
    plain = TrainOptions(dataroot=str(dataroot), recipe=name)
    changed = {
        field.name
        for field in dataclasses.fields(opt)
        if getattr(opt, field.name) != getattr(plain, field.name)
    }
    assert changed == set(recipe.flags)
    for flag_name, value in recipe.flags.items():
        assert getattr(opt, flag_name) == (tuple(value) if isinstance(value, list) else value)
    assert recipe.about


def test_given_flags_win_over_those_of_the_recipe(dataroot: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text(
        'about = "mine"\n[flags]\nlr = 0.5\nniter = 7\nnpr_scales = [0.25, 0.5]\nno_flip = true\n'
    )
    opt = parsed(
        dataroot, "--niter", "9", "--recipe", str(own), "--model_type", "multiscale_attention"
    )
    assert (opt.lr, opt.niter, opt.npr_scales, opt.no_flip) == (0.5, 9, (0.25, 0.5), True)


@pytest.mark.parametrize("encoding", ("utf-8-sig", "utf-16"))
def test_custom_recipes_as_editors_save_them(dataroot: Path, tmp_path: Path, encoding: str) -> None:
    own = tmp_path / "own.toml"
    own.write_text('about = "größer"\n[flags]\nlr = 0.5\n', encoding=encoding)
    assert parsed(dataroot, "--recipe", str(own)).lr == 0.5


def test_a_given_flag_replaces_what_it_contradicts(dataroot: Path, tmp_path: Path) -> None:
    opt = parsed(dataroot, "--recipe", "robust", "--loadSize", "256")
    assert (opt.loadSize, opt.no_resize, opt.cropSize) == (256, False, 128)
    opt = parsed(dataroot, "--recipe", "robust", "--no_crop")
    assert (opt.no_crop, opt.cropSize, opt.degrade) == (True, None, 0)
    (tmp_path / "own.toml").write_text("[flags]\nno_crop = true\n")
    opt = parsed(dataroot, "--recipe", str(tmp_path / "own.toml"), "--repeat_small")
    assert (opt.no_crop, opt.repeat_small) == (False, True)
    opt = parsed(dataroot, "--recipe", "robust", "--delr_freq", "5")
    assert (opt.lr_schedule, opt.delr_freq, opt.niter) == ("step", 5, 20)


def test_false_leaves_a_switch_alone(dataroot: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text("[flags]\nno_flip = false\n")
    assert parsed(dataroot, "--recipe", str(own)) == TrainOptions(
        dataroot=str(dataroot), recipe=str(own)
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[flags]\nlr = -1\n", "argument --lr: -1 is not a number > 0"),
        ("[flags]\nlearning_rate = 1\n", "unknown argument --learning_rate"),
        ('[flags]\nname = "x"\n', "name: not allowed in a preset"),
        ('[flags]\n"name=x" = true\n', "unknown argument --name=x"),
        ("[flags]\nhelp = true\n", "unknown argument --help"),
        ("[flags]\nmode = 1\n", "unknown argument --mode"),
        ("[flags]\nniter = 20.0\n", "'20.0' is not a whole number"),
        ("lr = 1\n", "a preset has about = "),
        ("[flags\n", "cannot be read as TOML"),
    ],
)
def test_wrong_recipes_end_with_one_line(
    dataroot: Path, tmp_path: Path, capsys: pytest.CaptureFixture, text: str, message: str
) -> None:
    own = tmp_path / "own.toml"
    own.write_text(text)
    line = refusal(capsys, dataroot, "--recipe", str(own))
    assert f"--recipe {own}" in line and message in line


def test_an_unknown_recipe_is_told_which_there_are(
    dataroot: Path, capsys: pytest.CaptureFixture
) -> None:
    line = refusal(capsys, dataroot, "--recipe", "best")
    assert "--recipe best" in line and "pass one of published" in line


@pytest.mark.parametrize("word", ("--recipe=--", "--recipe"))
def test_no_value_is_one_line(dataroot: Path, capsys: pytest.CaptureFixture, word: str) -> None:
    assert "argument --recipe: " in refusal(capsys, dataroot, word)


def test_the_list_shows_all(capsys: pytest.CaptureFixture) -> None:
    assert train.main(["--list_recipes"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in preset_names()) and "train.py's defaults" in printed

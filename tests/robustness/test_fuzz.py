"""Damaged files in short (`make fuzz` has many more), and properties of options, layouts and
preprocessing."""

import contextlib
import dataclasses
import io
import json
import mmap
import os
import random
import signal
import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from data.layouts import find_test_sets
from data.transforms import Augmentation, Protocol
from networks.checkpoint_file import read_checkpoint, save_checkpoint
from options.base_options import INTERPOLATIONS, Options
from options.flags import shown_value
from options.predict_options import PredictOptions
from options.test_options import TestOptions
from options.train_options import TrainOptions
from options.visualize_options import VisualizeOptions
from tests.robustness.fuzz_checkpoints import CHECKPOINTS, forms
from tests.robustness.fuzz_engine import Failed, Kind, report, run, write_case
from tests.robustness.fuzz_images import IMAGES, foreign, image_case, seeds
from util import UserError, log


def test_damaged_files_are_read_or_refused() -> None:
    pictures, checkpoints = run(
        {IMAGES: range(200), CHECKPOINTS: range(30)}, seed=0, minutes=10, method="forkserver"
    )
    assert not pictures.failures + checkpoints.failures, report([pictures, checkpoints], 0, 0)
    assert (pictures.cases, checkpoints.cases) == (200, 30)
    assert pictures.outcomes["read"] >= len(seeds()) - 1
    assert sum(
        count for outcome, count in pictures.outcomes.items() if outcome.startswith("left out")
    ) > len(foreign())
    assert checkpoints.outcomes["loaded"] > len(forms())
    assert (
        sum(
            count
            for outcome, count in checkpoints.outcomes.items()
            if outcome.startswith("refused")
        )
        > 10
    )


def test_a_case_is_the_same_every_time(tmp_path: Path) -> None:
    undamaged = len(seeds()) + len(foreign())
    cases = [image_case(3, number)[1] for number in range(undamaged, undamaged + 50)]
    seeds.cache_clear()
    assert cases == [image_case(3, number)[1] for number in range(undamaged, undamaged + 50)]
    assert [image_case(3, number)[1] for number in range(len(seeds()))] == list(seeds().values())
    assert len({image_case(seed, undamaged)[1] for seed in range(20)}) > 15

    def checkpoints(folder: Path) -> list[bytes]:
        forms.cache_clear()
        random.seed(time.time_ns())  # other cases may have drawn from it
        return [write_case(CHECKPOINTS, 3, number, folder).read_bytes() for number in (7, 30, 31)]

    assert checkpoints(tmp_path / "a") == checkpoints(tmp_path / "b")


SHORT = (Phase.explicit, Phase.reuse, Phase.generate)
"""Without shrinking, which can take minutes where every example makes files."""
kept: list[bytes] = []


def write_number(seed: int, number: int, folder: Path) -> Path:
    path = folder / "case.txt"
    path.write_text(str(number))
    return path


def misbehave(path: Path, number: int) -> str:
    match number:
        case 1:
            raise KeyError("not documented")
        case 2:
            os.kill(os.getpid(), signal.SIGSEGV)
        case 3:
            time.sleep(60)
        case 4:
            Path(tempfile.mkstemp()[1]).write_text("left")
        case 5:
            path.write_bytes(b"x" * 100)
        case 6:
            with mmap.mmap(-1, 200 * 2**20) as block:  # not from memory that was freed before
                for _ in range(200):
                    block.write(bytes(2**20))
        case 7:
            raise Failed("a wrong result")
    return "fine"


def leak(path: Path, number: int) -> str:
    kept.append(bytes(range(256)) * 512)  # 128 KiB
    return "fine"


def test_what_no_case_may_do_is_noticed(tmp_path: Path) -> None:
    wild = Kind("wild", write_number, misbehave, seconds=2, mib=100)
    (found,) = run({wild: range(9)}, seed=0, minutes=10, output=tmp_path, method="fork")
    failures = {case.number: case.failure for case in found.failures}
    assert sorted(failures) == list(range(1, 8))
    parts = ("KeyError: 'not documented'", "died, exit status -11", "not done after 2 s", "left files behind: tmp", "was changed",
             "MiB of memory", "a wrong result")  # fmt: skip
    for number, part in enumerate(parts, start=1):
        assert part in failures[number]
    assert (found.cases, found.outcomes["fine"]) == (9, 2)
    assert (tmp_path / "wild-0-2.txt").read_text() == "2"
    assert "--seed 0 --only wild:2" in report([found], 0, 0)


@pytest.mark.slow
def test_memory_that_grows_is_noticed() -> None:
    leaking = Kind("leaking", write_number, leak, growth_mib=8, look_every=20)
    (found,) = run({leaking: range(200)}, seed=0, minutes=10, method="fork")
    assert [case.failure[:11] for case in found.failures] == ["memory grew"]


# options

ALL = (TrainOptions, TestOptions, VisualizeOptions, PredictOptions)
WORDS = ("0", "1", "-1", "32", "64", "256", "4294967296", "0.5", "0.25,0.5", "1.5", "nan", "1e999", "-0", "", " ", ",", "x",
         "30,100", "100,30", "bilinear", "bilinear,lanczos", "pil", "cv2,pil", "adam", "bf16", "fp32", "best", "car,cat",
         "a/b", "{lr}", "{", "\n", "two\nlines", "\x1b[2J", "\udcff", "é", "0x10", "١", "1_0", "light", "single_scale",
         "multiscale_attention", "native", "jpeg:90", "train", "val", ".", "--", "-", "-x", "--seed", "=", "%s")  # fmt: skip


def command_lines(options: type[Options]) -> st.SearchStrategy[list[str]]:
    """Flags with values that fit, flags with values that may not, and words in any order."""
    names = [name for action in options.parser()._actions for name in action.option_strings]
    odd = st.sampled_from([*names, "--batchsize", "--l", "stray"])
    pair = st.tuples(odd, st.sampled_from(WORDS)).flatmap(
        lambda p: st.sampled_from([list(p), ["=".join(p)], [p[0]]])
    )
    fitting = st.sampled_from(dataclasses.fields(options)).flatmap(fitting_words)
    return st.lists(st.one_of(fitting, fitting, fitting, pair), max_size=6).map(
        lambda parts: sum(parts, [])
    )


def fitting_words(field: dataclasses.Field) -> st.SearchStrategy[list[str]]:
    name, cli = f"--{field.name}", field.metadata["cli"]
    if cli["positional"]:
        return st.sampled_from([word for word in WORDS if not word.startswith("-")]).map(
            lambda word: [word]
        )
    if cli["switch"]:
        return st.just([name])
    if cli["choices"]:
        return st.sampled_from(cli["choices"]).map(lambda word: [name, word])

    def accepted(word: str) -> bool:
        try:
            return not word.startswith("-") and (
                cli["parse"] is None or cli["parse"](word) is not None
            )
        except Exception:
            return False

    return st.sampled_from([word for word in WORDS if accepted(word)]).map(
        lambda word: [name, word]
    )


def words_of(opt: Options) -> list[str]:
    """A command line that stands for these options."""
    words, last = [], []
    for field in dataclasses.fields(opt):
        value, cli = getattr(opt, field.name), field.metadata["cli"]
        if value == field.default:
            continue
        if cli["positional"]:
            last = ["--", *value]
        elif cli["nargs"]:
            words += [f"--{field.name}", *value]
        elif cli["switch"]:
            words.append(f"--{field.name}")
        else:
            words.append(
                f"--{field.name}={'-1' if field.name == 'gpu_ids' and not value else shown_value(value)}"
            )
    return words + last


@pytest.mark.parametrize("options", ALL)
@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_command_line_gives_options_or_one_line(
    options: type[Options], dataroot: Path, data: st.DataObject
) -> None:
    data_flags, model_flags = ["--dataroot", str(dataroot)], ["--model_path", "m.pth"]
    argv = {TrainOptions: data_flags, PredictOptions: [*model_flags, "a.png"]}.get(
        options, data_flags + model_flags
    )
    argv = data.draw(st.sampled_from([argv, argv, argv, []])) + data.draw(command_lines(options))
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        try:
            opt = options().parse(argv)
        except SystemExit as stopped:
            opt, status = None, stopped.code
    told = errors.getvalue().split("\n")
    assert told.pop() == ""
    if opt is None and status == 0:
        assert {"-h", "--help"} & set(argv)
        return
    others = [line for line in told if not line.startswith("warning: ")]
    if opt is None:
        assert status == 2 and len(others) == 1 and ": error: " in others[0], told
        assert others[0].isprintable(), others
        return
    assert not others
    assert len(out.getvalue().splitlines()) >= len(dataclasses.fields(options)) + 2
    with contextlib.redirect_stderr(io.StringIO()):
        assert options().parse(words_of(opt), print_options=False) == opt
    stored = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in opt.to_dict().items()
    }
    assert options(**stored) == opt
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(opt, data.draw(st.sampled_from(dataclasses.fields(options))).name, None)


# layouts

FOLDERS = ("0_real", "1_fake", "REAL", "Fake", "nature", "ai", "train", "val", "test", "images", "recons", "dire", "car", "cat",
           "progan", "ProGAN", "stylegan2", "biggan", "ADM", "adm", "Glide", "VQDM", "ddpm", "ldm_100", "laion", "imagenet",
           "dalle", "guided", "GenImage", "ForenSynths_test", "UniversalFakeDetect", "DiffusionForensics", "Chameleon",
           "diffusion_datasets", ".hidden", "a b", "ü", "\udcff", "mine")  # fmt: skip
TREES = st.lists(
    st.tuples(
        st.lists(st.sampled_from(FOLDERS), min_size=1, max_size=5),
        st.sampled_from(["a.png", "B.JPG", "notes.txt", ".c.png", None]),
    ),
    min_size=1,
    max_size=14,
)
PAIRS = st.lists(st.sampled_from(FOLDERS), max_size=3).map(
    lambda folder: [([*folder, name], "a.png") for name in ("0_real", "1_fake")]
)
LINKS = st.lists(
    st.tuples(st.integers(0, 99), st.integers(0, 99), st.sampled_from(FOLDERS)), max_size=4
)


@settings(max_examples=80, deadline=5000, phases=SHORT)
@given(TREES, PAIRS, LINKS, st.integers(0, 99), st.sampled_from([(), (), ("car",), ("car", "cat")]))
def test_any_tree_gives_sets_of_files_or_a_users_error(
    tree: list, pairs: list, links: list, start: int, classes: tuple[str, ...]
) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "root"
        for folders, name in [*tree, *pairs]:
            folder = root.joinpath(*folders)
            folder.mkdir(parents=True, exist_ok=True)
            if name is not None:
                (folder / name).write_bytes(b"")
        places = [
            root,
            *sorted(path for path in root.rglob("*") if path.is_dir() and "/." not in str(path)),
        ]
        for source, target, name in links:  # also to what lies above
            with contextlib.suppress(FileExistsError):
                (places[source % len(places)] / name).symlink_to(places[target % len(places)])
        given_root = places[start % len(places)] if start > 60 else root
        try:
            with mock.patch.object(
                log, "disabled", True
            ):  # what pytest keeps of it must be UTF-8 where workers report it
                found_root, sets = find_test_sets(str(given_root), classes)
        except UserError as error:
            assert str(error)
            return
        assert found_root == given_root and sets
        assert len({found.key for found in sets}) == len(sets)
        for found in sets:
            assert found.paths and len(found.paths) == len(found.labels) == len(set(found.paths))
            assert set(found.labels) <= {0, 1}
            assert all(
                os.path.isfile(path) and path.startswith(str(given_root.parent))
                for path in found.paths
            )
            assert all(
                path.lower().endswith((".png", ".jpg")) and "/." not in path for path in found.paths
            )


# preprocessing


@st.composite
def pictures(draw: st.DrawFn) -> Image.Image:
    width, height, mode = (
        draw(st.integers(1, 40)),
        draw(st.integers(1, 40)),
        draw(st.sampled_from(["RGB", "L", "P", "RGBA"])),
    )
    pixels = np.random.default_rng(draw(st.integers(0, 99))).integers(
        0, 256, (height, width, 3), dtype=np.uint8
    )
    return Image.fromarray(pixels).convert(mode).convert("RGB")


AUGMENTATIONS = st.builds(
    Augmentation,
    flip=st.booleans(),
    blur_prob=st.sampled_from([0.0, 0.5, 1.0]),
    blur_sigma=st.sampled_from([(0.5,), (0.0, 3.0)]),
    jpeg_prob=st.sampled_from([0.0, 0.5, 1.0]),
    jpeg_quality=st.sampled_from([(75,), (1, 100)]),
)
PROTOCOLS = st.builds(
    Protocol,
    name=st.text(max_size=5),
    resize=st.none() | st.integers(1, 40),
    crop=st.none() | st.integers(1, 40),
    tile=st.booleans(),
    interpolation=st.lists(st.sampled_from(INTERPOLATIONS), min_size=1, max_size=2).map(tuple),
    mean=st.tuples(*[st.floats(0, 1, width=32)] * 3),
    std=st.tuples(*[st.floats(0.125, 1, width=32)] * 3),
    augment=st.none() | AUGMENTATIONS,
    version=st.integers(1, 3),
)


def obvious(image: Image.Image, protocol: Protocol) -> np.ndarray | None:
    """Evaluation's uint8 [H, W, 3], one pixel at a time; None where the picture is too small."""
    if protocol.resize is not None:
        filters = {"bilinear": 2, "bicubic": 3, "lanczos": 1, "nearest": 0}  # Pillow's numbers
        image = image.resize(
            (protocol.resize,) * 2, Image.Resampling(filters[protocol.interpolation[0]])
        )
    pixels = np.asarray(image)
    height, width = pixels.shape[:2]
    if protocol.crop is None:
        return pixels
    size = protocol.crop
    if min(height, width) < size:
        if not protocol.tile:
            return None
        rows, columns = -(-size // height) * height, -(-size // width) * width
    else:
        rows, columns = height, width
    top, left = round((rows - size) / 2), round((columns - size) / 2)
    return np.array(
        [[pixels[(top + y) % height, (left + x) % width] for x in range(size)] for y in range(size)]
    )


@settings(max_examples=120, deadline=None)
@given(pictures(), PROTOCOLS)
def test_evaluation_equals_an_obvious_version(image: Image.Image, protocol: Protocol) -> None:
    protocol = protocol.for_evaluation()
    wanted = obvious(image, protocol)
    if wanted is None:
        with pytest.raises(ValueError, match="fewer than"):
            protocol(image)
        return
    pixels = protocol.pixels(image)
    assert pixels.dtype == torch.uint8
    assert np.array_equal(pixels.numpy().transpose(1, 2, 0), wanted)
    seen = protocol(image, np.random.default_rng(0))
    assert seen.dtype == torch.float32
    expected = (wanted / 255 - np.array(protocol.mean)) / np.array(protocol.std)
    assert np.allclose(seen.numpy().transpose(1, 2, 0), expected, atol=2e-5)
    assert torch.allclose(protocol.denormalise(seen), pixels / 255, atol=1e-5)


@settings(max_examples=120, deadline=None)
@given(pictures(), PROTOCOLS, st.integers(0, 99))
def test_training_is_a_window_and_follows_from_its_generator(
    image: Image.Image, protocol: Protocol, seed: int
) -> None:
    whole = obvious(image, dataclasses.replace(protocol, crop=None))
    small = protocol.crop is not None and min(whole.shape[:2]) < protocol.crop
    assume(protocol.augment is not None and (protocol.tile or not small))
    found = protocol.pixels(image, np.random.default_rng(seed))
    assert found.dtype == torch.uint8
    side = (protocol.crop, protocol.crop) if protocol.crop else whole.shape[:2]
    assert tuple(found.shape) == (3, *side)
    assert torch.equal(found, protocol.pixels(image, np.random.default_rng(seed)))
    if protocol.begins_alike:  # what a cache keeps, and what is done with it
        assert torch.equal(
            found,
            protocol.finish(protocol.for_evaluation().begin(image), np.random.default_rng(seed)),
        )
    changed = (
        protocol.augment.blur_prob
        or protocol.augment.jpeg_prob
        or len(set(protocol.interpolation)) > 1
        or small
    )
    if not changed:
        windows = np.lib.stride_tricks.sliding_window_view(whole, (*side, 3))
        ways = [found] if not protocol.augment.flip else [found, found.flip(-1)]
        assert any(
            (windows == way.numpy().transpose(1, 2, 0)).all((-1, -2, -3)).any() for way in ways
        )


@settings(max_examples=40, deadline=None)
@given(PROTOCOLS)
def test_a_protocol_survives_a_checkpoint_and_json(protocol: Protocol) -> None:
    assert Protocol.from_dict(json.loads(json.dumps(protocol.to_dict()))) == protocol
    with tempfile.TemporaryDirectory() as scratch:
        save_checkpoint(Path(scratch) / "a.pth", {"protocol": protocol.to_dict()})
        assert Protocol.from_dict(read_checkpoint(Path(scratch) / "a.pth")["protocol"]) == protocol

"""Damaged files in a process of their own, and properties of options, layouts and preprocessing.

`make fuzz` runs the same tests with more examples.
"""

import contextlib
import dataclasses
import io
import math
import os
import re
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from data.batches import SampleKey
from data.datasets import ImageDataset, collate
from data.decode import UnreadableImage, read_format, read_image
from data.layouts import find_test_sets
from data.transforms import Augmentation, Protocol
from options.base_options import INTERPOLATIONS, Options
from options.predict_options import PredictOptions
from options.test_options import TestOptions
from options.train_options import TrainOptions
from options.visualize_options import VisualizeOptions
from tests.robustness.checkpoint_files import (
    damaged_checkpoints,
    load_and_test,
    valid_checkpoints,
)
from tests.robustness.image_files import IMAGE_FILES, damaged_image_files
from tests.robustness.isolation import MIB, File, IsolatedReader
from util import UserError, log

QUICK = settings.get_current_profile_name() != "fuzz"
EXAMPLES = settings.default.max_examples
WITHOUT_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)
"""Shrinking takes minutes where every example makes files."""
FILES = {
    "deadline": None,
    "derandomize": QUICK,  # the same files every time in `make test`
    "phases": WITHOUT_SHRINKING,
    "suppress_health_check": list(HealthCheck),
}


def read_in_every_way(path: Path) -> str:
    """Read an image file: UnreadableImage with a reason on one line, or RGB pixels; in a dataset,
    too."""
    with contextlib.suppress(UnreadableImage):
        assert read_format(str(path)).width > 0
    protocol = Protocol(
        "fuzz", resize=24, crop=16, augment=Augmentation(blur_prob=0.5, jpeg_prob=0.5)
    )
    dataset = ImageDataset([str(path)], [1], protocol)
    batches, skipped, _ = collate([dataset[SampleKey(0, 0)]])
    try:
        image = read_image(str(path))
    except UnreadableImage as error:
        reason = str(error)
        assert reason.isprintable() and path.name not in reason, reason
        assert not batches and skipped == [(0, 0, reason)]
        return "skipped"
    assert image.mode == "RGB"
    assert np.asarray(image).shape == (image.height, image.width, 3)
    (batch,) = batches
    assert batch.pixels.shape == (1, 3, 16, 16)
    return "read"


def outcomes_of(reader: IsolatedReader, files: st.SearchStrategy[File], examples: int) -> Counter:
    """Read files that a strategy makes, and count what becomes of them."""
    outcomes: Counter[str] = Counter()

    @settings(max_examples=examples, **FILES)
    @given(files)
    def read(file: File) -> None:
        outcomes[reader(file).partition(":")[0]] += 1

    read()
    return outcomes


def test_damaged_images_are_read_or_skipped() -> None:
    valid = File("image.png", IMAGE_FILES["PNG RGB"].data)
    with contextlib.closing(IsolatedReader(read_in_every_way, valid)) as reader:
        outcomes = outcomes_of(reader, damaged_image_files(), EXAMPLES)
    assert min(outcomes["read"], outcomes["skipped"]) > EXAMPLES // 5


@pytest.mark.filterwarnings("ignore")
def test_damaged_checkpoints_are_loaded_or_refused() -> None:
    valid = valid_checkpoints()
    with contextlib.closing(IsolatedReader(load_and_test, valid[0], 40, 512)) as reader:
        assert {reader(file) for file in valid} == {"loaded"}
        outcomes = outcomes_of(reader, damaged_checkpoints(), EXAMPLES // 2)
    assert outcomes["loaded"] and outcomes["refused"]


def misbehave(path: Path) -> str:
    actions: dict[str, Callable[[], object]] = {
        "behaves": lambda: None,
        "raises": lambda: {}["not documented"],
        "crashes": lambda: os.kill(os.getpid(), signal.SIGSEGV),
        "hangs": lambda: time.sleep(60),
        "leaves": tempfile.mkstemp,
        "changes": lambda: path.write_bytes(b"x"),
        "opens": lambda: os.open(path, os.O_RDONLY),
        "swells": lambda: b"x" * (200 * MIB),
    }
    actions[path.stem]()
    return path.stem


def test_what_no_reader_may_do_is_noticed() -> None:
    messages = {
        "raises": "KeyError: 'not documented'",
        "crashes": "process died",
        "hangs": "took longer than 2 s",
        "leaves": "left behind: .*tmp",
        "changes": "file was changed",
        "opens": "left open",
        "swells": "a peak of .* MiB",
    }
    with contextlib.closing(IsolatedReader(misbehave, File("behaves", b"data"), 2, 100)) as reader:
        for kind, message in messages.items():
            with pytest.raises(AssertionError, match=message) as failure:
                reader(File(kind, b"data"))
            (path,) = re.findall(r"the file is kept: (\S+)\)", str(failure.value))
            assert Path(path).read_bytes() == b"data"
            shutil.rmtree(Path(path).parent)
            assert reader(File("behaves", b"data")) == "behaves"


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
    if cli["switch"]:
        return st.just([name])
    values = cli["choices"] or [word for word in WORDS if accepted(cli["parse"], word)]
    flag = [] if cli["positional"] else [name]
    return st.sampled_from(values).map(lambda word: [*flag, word])


def accepted(parse: Callable[[str], Any] | None, word: str) -> bool:
    try:
        return not word.startswith("-") and (parse is None or parse(word) is not None)
    except Exception:
        return False


@pytest.mark.parametrize("options", ALL)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
    *lines, after_last = errors.getvalue().split("\n")
    assert after_last == ""
    if opt is None and status == 0:
        assert {"-h", "--help"} & set(argv)
        return
    error_lines = [line for line in lines if not line.startswith("warning: ")]
    if opt is None:
        (line,) = error_lines
        assert status == 2 and ": error: " in line and line.isprintable()
        return
    assert not error_lines
    assert len(out.getvalue().splitlines()) >= len(dataclasses.fields(options)) + 2
    stored = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in opt.to_dict().items()
    }
    assert options(**stored) == opt


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


@settings(deadline=5000, phases=WITHOUT_SHRINKING)
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
        dataroot = places[start % len(places)] if start > 60 else root
        try:
            # what pytest keeps of the log must be UTF-8 where workers report it
            with mock.patch.object(log, "disabled", True):
                found_root, sets = find_test_sets(str(dataroot), classes)
        except UserError as error:
            assert str(error)
            return
        assert found_root == dataroot and sets
        assert len({images.key for images in sets}) == len(sets)
        for images in sets:
            assert len(images.paths) == len(images.labels) == len(set(images.paths)) > 0
            assert set(images.labels) <= {0, 1}
            for path in images.paths:
                assert os.path.isfile(path) and path.startswith(str(dataroot.parent))
                assert path.lower().endswith((".png", ".jpg")) and "/." not in path


# preprocessing


@st.composite
def images(draw: st.DrawFn) -> Image.Image:
    shape = draw(st.integers(1, 40)), draw(st.integers(1, 40)), 3
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    return Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))


PROTOCOLS = st.builds(
    Protocol,
    name=st.text(max_size=5),
    resize=st.none() | st.integers(1, 40),
    crop=st.none() | st.integers(1, 40),
    tile=st.booleans(),
    interpolation=st.lists(st.sampled_from(INTERPOLATIONS), min_size=1, max_size=2).map(tuple),
    mean=st.tuples(*[st.floats(0, 1, width=32)] * 3),
    std=st.tuples(*[st.floats(0.125, 1, width=32)] * 3),
    version=st.integers(1, 3),
)


def obvious(image: Image.Image, protocol: Protocol) -> np.ndarray | None:
    """Return evaluation's uint8 [H, W, 3], one pixel at a time; None for too small an image."""
    if protocol.resize is not None:
        filters = {"bilinear": 2, "bicubic": 3, "lanczos": 1, "nearest": 0}  # Pillow's numbers
        resample = Image.Resampling(filters[protocol.interpolation[0]])
        image = image.resize((protocol.resize, protocol.resize), resample)
    pixels, size = np.asarray(image), protocol.crop
    if size is None:
        return pixels
    height, width = rows, columns = pixels.shape[:2]
    if min(height, width) < size:
        if not protocol.tile:
            return None
        rows, columns = math.ceil(size / height) * height, math.ceil(size / width) * width
    top, left = round((rows - size) / 2), round((columns - size) / 2)
    return np.array(
        [[pixels[(top + y) % height, (left + x) % width] for x in range(size)] for y in range(size)]
    )


@settings(deadline=None)
@given(images(), PROTOCOLS)
def test_evaluation_equals_an_obvious_version(image: Image.Image, protocol: Protocol) -> None:
    protocol = protocol.for_evaluation()
    expected = obvious(image, protocol)
    if expected is None:
        with pytest.raises(ValueError, match="fewer than"):
            protocol(image)
        return
    pixels = protocol.pixels(image)
    assert pixels.dtype == torch.uint8
    assert np.array_equal(pixels.numpy().transpose(1, 2, 0), expected)
    normalised = protocol(image, np.random.default_rng(0))
    assert normalised.dtype == torch.float32
    by_hand = (expected / 255 - np.array(protocol.mean)) / np.array(protocol.std)
    assert np.allclose(normalised.numpy().transpose(1, 2, 0), by_hand, atol=2e-5)
    assert torch.allclose(protocol.denormalise(normalised), pixels / 255, atol=1e-5)

"""Layouts, preprocessing, order of images, and files that cannot be read."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms as T

from data import create_dataloader, evaluation_loader
from data.batches import EpochSampler, ProcessBatches, balancing_weights
from data.degradations import pil_jpeg
from data.image_sets import ClassNames, ImageSet, unique_names
from data.layouts import find_sets, find_test_sets
from data.loader import ImageLoader, class_names
from data.protocols import evaluation_protocol, training_protocol
from data.splits import load_set, load_split
from data.transforms import IMAGENET_MEAN, IMAGENET_STD, Augmentation, Protocol, tiled
from options.test_options import TestOptions
from options.train_options import TrainOptions
from tests.conftest import draw_image, make_set
from util import UserError

PUBLISHED_TEST = T.Compose(
    [T.Resize((64, 64)), T.CenterCrop(48), T.ToTensor(), T.Normalize(IMAGENET_MEAN, IMAGENET_STD)]
)


def noise(width: int = 90, height: int = 70, seed: int = 0) -> Image.Image:
    return Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    )


def train_options(root: Path, **values: object) -> TrainOptions:
    values = {
        "loadSize": 32,
        "cropSize": 32,
        "batch_size": 4,
        "num_threads": 0,
        "gpu_ids": (),
    } | values
    return TrainOptions(dataroot=str(root), **values)


def test_evaluation_equals_torchvisions_composition() -> None:
    ours = Protocol("x", resize=64, crop=48)(noise())
    assert torch.equal(ours, PUBLISHED_TEST(noise()))


def test_training_equals_one_of_the_published_outcomes() -> None:
    """Resize 256, random crop 224, random flip: our tensor is some window of the resized picture,
    mirrored or not."""
    protocol = training_protocol(TrainOptions())
    resized = T.Compose(
        [T.Resize((256, 256)), T.ToTensor(), T.Normalize(IMAGENET_MEAN, IMAGENET_STD)]
    )(noise())
    seen = set()
    for seed in range(8):
        ours = protocol(noise(), np.random.default_rng(seed))
        windows = resized.unfold(1, 224, 1).unfold(2, 224, 1)  # [3, 33, 33, 224, 224]
        for flipped, candidate in ((False, ours), (True, ours.flip(2))):
            hits = (
                (windows[:, :, :, 0, :2] == candidate[:, None, None, 0, :2])
                .all(0)
                .all(-1)
                .nonzero()
            )
            for top, left in hits.tolist():
                if torch.equal(windows[:, top, left], candidate):
                    seen.add((flipped, top, left))
    assert len(seen) == 8
    assert {flipped for flipped, _, _ in seen} == {False, True}


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 40))
def test_tiling_reaches_the_crop_and_repeats(width: int, height: int, size: int) -> None:
    small = noise(width, height)
    big = tiled(T.functional.pil_to_tensor(small), size).numpy().transpose(1, 2, 0)
    assert min(big.shape[:2]) >= size
    rows, columns = np.arange(big.shape[0]) % height, np.arange(big.shape[1]) % width
    assert np.array_equal(big, np.asarray(small)[rows][:, columns])


def test_an_image_smaller_than_its_crop_is_refused_unless_tiled() -> None:
    with pytest.raises(ValueError, match="90x70.*224x224"):
        Protocol("x", crop=224)(noise())
    assert Protocol("x", crop=224, tile=True)(noise()).shape == (3, 224, 224)


def test_small_images_are_repeated_before_they_are_changed_at_random() -> None:
    """In training, small and large images go through the same changes."""
    opt = TrainOptions(no_resize=True, cropSize=64, no_flip=True, degrade=1.0, repeat_small=True)
    protocol, small = training_protocol(opt), noise(32, 48)
    large = Image.fromarray(np.tile(np.asarray(small), (2, 2, 1)))
    for seed in range(3):
        one, other = (protocol(image, np.random.default_rng(seed)) for image in (small, large))
        assert one.shape == (3, 64, 64) and torch.equal(one, other)


def test_a_protocol_survives_a_checkpoint_and_draws_its_interpolation() -> None:
    flags = {"data_aug": True, "no_flip": True, "loadSize": 64, "cropSize": 64}
    protocol = training_protocol(TrainOptions(rz_interp=("nearest", "bicubic"), **flags))
    stored = json.loads(json.dumps(protocol.to_dict()))
    assert Protocol.from_dict(stored) == protocol and stored == protocol.to_dict()
    plain = replace(protocol, augment=Augmentation(flip=False))
    results = {plain(noise(), np.random.default_rng(seed)).numpy().tobytes() for seed in range(8)}
    assert len(results) == 2
    assert Protocol.from_dict(Protocol("native").to_dict()) == Protocol("native")


def test_blur_and_jpeg_run_when_asked_and_only_then() -> None:
    def pixels(**values: object) -> np.ndarray:
        protocol = Protocol("x", augment=Augmentation(flip=False, **values))
        return protocol.pixels(noise(), np.random.default_rng(0)).numpy().transpose(1, 2, 0)

    original = np.asarray(noise())
    assert np.array_equal(pixels(), original)
    assert np.array_equal(
        pixels(jpeg_prob=1.0, jpeg_quality=(60,)), np.asarray(pil_jpeg(noise(), 60))
    )
    blurred = pixels(blur_prob=1.0, blur_sigma=(2.0,)).astype(float)
    assert blurred.std() < 0.3 * original.std()
    channel = T.GaussianBlur(17, 2.0)(T.ToTensor()(noise()) * 255).numpy().transpose(1, 2, 0)
    inner = (slice(10, -10), slice(10, -10))
    assert np.abs(blurred[inner] - channel[inner]).max() <= 0.6


def test_augmentation_flags_act_only_when_given(caplog: pytest.LogCaptureFixture) -> None:
    assert training_protocol(TrainOptions()).augment == Augmentation()
    wang = training_protocol(TrainOptions(data_aug=True)).augment
    assert wang == Augmentation(True, 0.5, (0.0, 3.0), 0.5, (30, 100))
    mixed = training_protocol(TrainOptions(data_aug=True, jpg_prob=0.1, no_flip=True)).augment
    assert mixed == Augmentation(False, 0.5, (0.0, 3.0), 0.1, (30, 100))
    assert training_protocol(TrainOptions(jpg_prob=1.0)).augment == Augmentation(jpeg_prob=1.0)


def test_augmentation_is_a_function_of_seed_epoch_and_index(dataroot: Path) -> None:
    def images(epoch: int = 3, **flags: Any) -> torch.Tensor:
        """Return the images of an epoch in the order of the files."""
        options = {"loadSize": 40, "seed": 7, "serial_batches": True} | flags
        loader = create_dataloader(train_options(dataroot, **options))
        loader.sampler.set_epoch(epoch)
        return torch.cat([images for images, _ in loader])

    alone = images()
    assert torch.equal(alone, images(num_threads=2)) and torch.equal(alone, images(batch_size=5))
    assert not torch.equal(alone, images(epoch=4)) and not torch.equal(alone, images(seed=8))


@given(st.integers(1, 50), st.integers(0, 5), st.integers(0, 60))
def test_sampler_goes_on_where_it_stopped(size: int, epoch: int, start: int) -> None:
    complete, rest = EpochSampler(size, 3, shuffle=True), EpochSampler(size, 3, shuffle=True)
    complete.set_epoch(epoch)
    rest.set_epoch(epoch, start)
    keys = list(complete)
    assert sorted(key.index for key in keys) == list(range(size))
    assert list(rest) == keys[start:] and len(rest) == len(keys[start:])


@given(
    size=st.integers(2, 40),
    batch_size=st.integers(2, 9),
    world_size=st.integers(1, 4),
    done=st.integers(0, 5),
)
def test_no_process_gets_a_single_image_where_two_are_needed(
    size: int, batch_size: int, world_size: int, done: int
) -> None:
    """Batches are those of one process, of usual size but for the last; a resume has the rest."""
    sampler = EpochSampler(size, seed=1, shuffle=True)
    order = [key.index for key in sampler]
    alone = [[key.index for key in batch] for batch in ProcessBatches(sampler, batch_size, least=2)]
    usual = [order[start : start + batch_size] for start in range(0, size, batch_size)]
    if len(usual[-1]) == 1:
        usual[-2:] = [usual[-2] + usual[-1]]
    assert alone == usual
    ranks = [ProcessBatches(sampler, batch_size, r, world_size, 2) for r in range(world_size)]
    for batch, *parts in zip(alone, *ranks, strict=True):
        assert sorted(key.index for part in parts for key in part) == sorted(batch)
        assert all(len(part) != 1 for part in parts)
    done = min(done, len(alone) - 1)
    sampler.set_epoch(0, start=done * batch_size)
    rest = ProcessBatches(sampler, batch_size, least=2)
    assert [[key.index for key in batch] for batch in rest] == alone[done:]
    assert len(rest) == len(alone) - done


def test_samplers_keep_the_order_shuffle_each_epoch_or_balance_classes() -> None:
    assert [key.index for key in EpochSampler(5)] == [0, 1, 2, 3, 4]
    shuffled = EpochSampler(100, seed=1, shuffle=True)
    first = [key.index for key in shuffled]
    shuffled.set_epoch(1)
    assert [key.index for key in shuffled] != first
    labels = [0] * 9000 + [1] * 1000
    balanced = EpochSampler(10_000, 0, weights=balancing_weights(labels))
    assert 0.47 < np.mean([labels[key.index] for key in balanced]) < 0.53


def build(root: Path, *folders: str) -> Path:
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
        draw_image(np.random.default_rng(0), False, 8).save(root / folder / "a.png")
    return root


def pair(folder: str, real: str = "0_real", fake: str = "1_fake") -> tuple[str, str]:
    return f"{folder}/{real}", f"{folder}/{fake}"


@pytest.mark.parametrize(
    ("folders", "start", "expected"),
    [
        (pair("x"), "x", ["/x"]),
        ((*pair("progan/car"), *pair("progan/cat")), "progan", ["/progan"]),
        ((*pair("mine/gan"), *pair("mine/sd")), "mine", ["mine/gan", "mine/sd"]),
        (("one/gan/0_real",), "one", ["one/gan"]),
        (
            (*pair("ForenSynths_test/progan/car"), *pair("ForenSynths_test/biggan")),
            "ForenSynths_test",
            ["ForenSynths/biggan", "ForenSynths/progan"],
        ),
        (
            (*pair("root/DiffusionForensics/ddpm"), *pair("root/Diffusion1kStep/ddpm")),
            "root",
            ["Diffusion1kStep/ddpm", "DiffusionForensics/ddpm"],
        ),
        ((*pair("root/A/gan"), *pair("root/B/sd")), "root", ["A/gan", "B/sd"]),
        (pair("GenImage/ADM/val", "nature", "ai"), "GenImage", ["GenImage/ADM"]),
        (
            pair("UniversalFakeDetect/dalle"),
            "UniversalFakeDetect/dalle",
            ["UniversalFakeDetect/dalle"],
        ),
        (pair("plain", "real", "fake"), "plain", ["/plain"]),
        (("deep/0_real/sub", "deep/1_fake/sub"), "deep", ["/deep"]),
        (pair("CIFAKE/test", "REAL", "FAKE"), "CIFAKE", ["/CIFAKE"]),
        # as their archives unpack, under whatever name
        (
            tuple(
                c
                for g in ("progan/car", "biggan", "crn", "san", "gaugan")
                for c in pair(f"CNN_synth_testset/{g}")
            ),
            "CNN_synth_testset",
            [f"ForenSynths/{g}" for g in ("progan", "biggan", "crn", "san", "gaugan")],
        ),
        (
            tuple(c for g in ("AttGAN", "BEGAN", "S3GAN", "SNGAN") for c in pair(f"data2/{g}")),
            "data2",
            [f"GANGen-Detection/{g}" for g in ("AttGAN", "BEGAN", "S3GAN", "SNGAN")],
        ),
        (
            (
                *(f"diffusion_datasets/{g}/0_real" for g in ("imagenet", "laion")),
                *(f"diffusion_datasets/{g}/1_fake" for g in ("guided", "dalle", "ldm_100")),
            ),
            "diffusion_datasets",
            [f"UniversalFakeDetect/{g}" for g in ("guided", "dalle", "ldm_100")],
        ),
        (
            tuple(
                f"DiffusionForensics/images/test/{f}"
                for f in ("lsun/real", "lsun/adm/1", "lsun/if", "in/real", "in/adm")
            ),
            "DiffusionForensics",
            [f"DiffusionForensics/{g}" for g in ("lsun_adm", "lsun_if", "in_adm")],
        ),
        (
            ("x/lsun/real", "x/lsun/adm", "x/lsun/ldm"),
            "x/lsun",
            [f"DiffusionForensics/lsun_{g}" for g in ("adm", "ldm")],
        ),
        (
            tuple(
                c
                for g in ("DALLE", "ddpm", "midjourney", "guided-diffusion")
                for c in pair(f"step/{g}")
            ),
            "step",
            [f"Diffusion1kStep/{g}" for g in ("DALLE", "ddpm", "midjourney", "guided-diffusion")],
        ),
        (
            tuple(
                c
                for g in ("progan/car", "ADM", "VQDM", "wukong")
                for c in pair(f"AIGCDetect_testset/test/{g}")
            ),
            "AIGCDetect_testset",
            [f"AIGCDetectBenchmark/{g}" for g in ("progan", "ADM", "VQDM", "wukong")],
        ),
        (
            (
                *pair("d/SD/imagenet_ai_0419_sdv4/val", "nature", "ai"),
                *pair("d/SD/imagenet_ai_0419_sdv4/train", "nature", "ai"),
            ),
            "d/SD/imagenet_ai_0419_sdv4",
            ["GenImage/imagenet_ai_0419_sdv4"],
        ),
        (pair("Chameleon/test"), "Chameleon", ["Chameleon/Chameleon"]),
        (pair("Chameleon/test"), "Chameleon/test", ["Chameleon/Chameleon"]),
        # a few of the names, or one that no suite has, are not enough to be taken for a suite
        ((*pair("own/progan"), *pair("own/biggan")), "own", ["own/progan", "own/biggan"]),
        (
            tuple(c for g in ("ddpm", "ldm", "adm", "pndm", "mine") for c in pair(f"own/{g}")),
            "own",
            [f"own/{g}" for g in ("ddpm", "ldm", "adm", "pndm", "mine")],
        ),
        (("own/reals/0_real", "own/fakes/1_fake"), "own", ["own/reals", "own/fakes"]),
        # names that suites of several protocols share decide nothing, those of one do
        (
            tuple(
                c
                for g in ("progan", "stylegan", "biggan", "whichfaceisreal")
                for c in pair(f"own/{g}")
            ),
            "own",
            [f"own/{g}" for g in ("progan", "stylegan", "biggan", "whichfaceisreal")],
        ),
        (
            tuple(c for g in ("ADM", "Glide", "VQDM", "wukong") for c in pair(f"own/{g}")),
            "own",
            [f"AIGCDetectBenchmark/{g}" for g in ("ADM", "Glide", "VQDM", "wukong")],
        ),
        (
            pair("GenImage/Midjourney/imagenet_midjourney/val", "nature", "ai"),
            "GenImage",
            ["GenImage/Midjourney"],
        ),
        (pair("ForenSynths_test/progan/car"), "ForenSynths_test/progan/car", ["ForenSynths/car"]),
    ],
)
def test_layouts(
    folders: tuple[str, ...],
    start: str,
    expected: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = build(tmp_path, *folders) / start
    monkeypatch.chdir(root)
    for path in (root, Path(".")):
        sets = find_sets(path)
        assert sorted(images.key for images in sets) == sorted(expected)
        for images in sets:
            for name, label in zip(images.paths, images.labels, strict=True):
                folders = Path(os.path.abspath(name)).relative_to(tmp_path).as_posix().lower()
                assert label == {"0_real", "real", "nature"}.isdisjoint(folders.split("/"))


@pytest.mark.parametrize(
    ("folders", "start", "expected"),
    (
        (
            ("a/imagenet/0_real", "a/laion/0_real", "a/guided/1_fake", "a/dalle/1_fake"),
            "a",
            {"dalle": {"laion/0_real": 0, "dalle/1_fake": 1}}
            | {"guided": {"imagenet/0_real": 0, "guided/1_fake": 1}},
        ),
        # one generator of it alone
        (
            ("diffusion_datasets/laion/0_real", "diffusion_datasets/dalle/1_fake"),
            "diffusion_datasets/dalle",
            {"dalle": {"laion/0_real": 0, "dalle/1_fake": 1}},
        ),
        (
            ("lsun/real", "lsun/adm/sub", "lsun/if"),
            "lsun",
            {"lsun_adm": {"lsun/real": 0, "adm/sub": 1}, "lsun_if": {"lsun/real": 0, "lsun/if": 1}},
        ),
    ),
)
def test_generators_share_their_real_images(
    folders: tuple[str, ...], start: str, expected: dict[str, dict[str, int]], tmp_path: Path
) -> None:
    origins = {
        images.generator: {
            "/".join(Path(path).parts[-3:-1]): label
            for path, label in zip(images.paths, images.labels, strict=True)
        }
        for images in find_sets(build(tmp_path, *folders) / start)
    }
    assert origins == expected


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        # DIRE, a content or several, as its archive unpacks
        (("{split}/real", "{split}/adm"), {"real": 0, "adm": 1}),
        (
            ("{split}/lsun/real", "{split}/lsun/adm", "{split}/lsun/if", *pair("{split}/in")),
            {"lsun/real": 0, "lsun/adm": 1, "lsun/if": 1, "0_real": 0, "1_fake": 1},
        ),
        (("DIRE/images/{split}/in/real", "DIRE/images/{split}/in/mine"), {"real": 0, "mine": 1}),
        # one real folder for several generators
        (
            ("{split}/laion/0_real", "{split}/dalle/1_fake", "{split}/ldm_100/1_fake"),
            {"laion/0_real": 0, "dalle/1_fake": 1, "ldm_100/1_fake": 1},
        ),
        # generators with and without content folders
        (
            (*pair("{split}/progan/car"), *pair("{split}/biggan")),
            {"car/0_real": 0, "car/1_fake": 1, "biggan/0_real": 0, "biggan/1_fake": 1},
        ),
        (
            (*pair("ADM/x/{split}", "nature", "ai"), *pair("sd/x/{split}", "nature", "ai")),
            {f"{g}/x/{{split}}/{c}": c == "ai" for g in ("ADM", "sd") for c in ("nature", "ai")},
        ),
    ],
)
def test_training_reads_the_layouts_of_suites(
    layout: tuple[str, ...], expected: dict[str, int], tmp_path: Path
) -> None:
    """Each file comes once, also real images that generators share; val is read from val only."""
    for split in ("train", "val"):
        build(tmp_path, *(folder.format(split=split) for folder in layout))
    opt = TrainOptions().parse(["--dataroot", str(tmp_path)], print_options=False)
    for split in ("train", "val"):
        dataset = create_dataloader(opt, split=split).dataset
        labels = {
            next(
                end for end in expected if path.endswith(f"{end.format(split=split)}/a.png")
            ): label
            for path, label in zip(dataset.paths, dataset.labels, strict=True)
        }
        assert labels == expected and len(dataset.paths) == len(expected)
        assert all(f"/{split}/" in path for path in dataset.paths)


def test_a_suite_without_the_split_is_no_training_folder(tmp_path: Path) -> None:
    build(tmp_path, *pair("ADM/train"), *pair("ADM/val"), *pair("sd"))
    message = "sd/0_real/a.png is not in one either; .* those that have train/ by --classes"
    with pytest.raises(UserError, match=f"no folder train/, and .*{message}"):
        create_dataloader(train_options(tmp_path))


@pytest.mark.parametrize(
    ("real", "fake"),
    [
        *(("reals", "fakes"), ("0_reals", "1_fakes"), ("Human", "AI"), ("natural", "synthetic")),
        *(("camera", "Generated"), ("0-Real Images", "ai_generated_images"), ("REAL", "1_fakes")),
        *(("nature", "AIGC"), ("0_real", "synth"), ("real_train", "fake_train")),
    ],
)
def test_usual_names_of_class_folders(real: str, fake: str, tmp_path: Path) -> None:
    """They are read in training and in testing, but for content folders of these names."""
    content = (*pair("{}/cat", real, fake), *pair("{}/human"), *pair("{}/generated"))
    build(tmp_path, *(folder.format(split) for split in ("train", "test") for folder in content))
    sets = find_sets(tmp_path / "test")
    assert [images.key for images in sets] == [f"test/{g}" for g in ("cat", "generated", "human")]
    for images in (*sets, load_split(tmp_path, "train")):
        for path, label in zip(images.paths, images.labels, strict=True):
            assert label == (Path(path).parent.name in (fake, "1_fake"))
    assert len(load_split(tmp_path, "train").paths) == 6


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        # an exact name comes first, wherever it is
        ((*pair("progan"), "generated", "natural"), {"/progan"}),
        (("human/0_real", "human/1_fake", "ai_made/1_fake"), {"/ai_made", "/human"}),
        # a usual name of one class alone decides nothing beside other folders
        ((*pair("biggan", "reals", "fakes"), "synthetic"), {"/biggan"}),
        # of names alike, the outermost
        (("reals/natural", "fakes/generated"), {""}),
        (pair("x/val", "reals", "fakes"), {"/x"}),
        (("real", "fake", "fakes"), {""}),
    ],
)
def test_usual_names_change_nothing_that_was_read(
    folders: tuple[str, ...], expected: set[str], tmp_path: Path
) -> None:
    sets = find_sets(build(tmp_path / "own", *folders))
    assert {images.key for images in sets} == {
        f"own{name}" if name else "/own" for name in expected
    }


@pytest.mark.parametrize("contents", [("nature", "city"), ("nature", "ai"), ("Real", "anime")])
@pytest.mark.parametrize("names", [("0_real", "1_fake"), ("reals", "fakes")])
def test_content_folders_with_the_name_of_a_class(
    contents: tuple[str, ...], names: tuple[str, str], tmp_path: Path
) -> None:
    folders = [f"{split}/{c}" for split in ("train", "test") for c in contents]
    build(tmp_path, *(sub for folder in folders for sub in pair(folder, *names)))
    sets = find_sets(tmp_path / "test")
    assert {images.generator for images in sets} == set(contents)
    for images in (*sets, load_split(tmp_path, "train")):
        assert images.labels.count(0) == images.labels.count(1) == len(images.paths) // 2
        for path, label in zip(images.paths, images.labels, strict=True):
            assert label == (Path(path).parent.name == names[1])


NAMED = {"real_names": ("Photos", "coco"), "fake_names": ("flux", "Real-ESRGAN")}


def test_names_of_class_folders_by_flags(tmp_path: Path) -> None:
    for split in ("train", "val"):
        build(tmp_path, *pair(f"{split}/cat", "photos", "FLUX"), f"{split}/dog/coco")
        build(tmp_path, f"{split}/dog/real-esrgan", f"{split}/dog/other")
    loader = create_dataloader(train_options(tmp_path, **NAMED))
    assert sorted(loader.dataset.labels) == [0, 0, 1, 1]
    options = TestOptions(model_path=("x",), dataroot=str(tmp_path / "val"), num_threads=0, **NAMED)
    _, sets = find_test_sets(options.dataroot, (), class_names(options))
    assert [sorted(images.labels) for images in sets] == [[0, 1], [0, 1]]
    with pytest.raises(UserError, match="no class folders.*--real_names and --fake_names"):
        create_dataloader(train_options(tmp_path))
    with pytest.raises(SystemExit, match="2"):
        TestOptions().parse(["--model_path", "x", "--real_names", "A,b", "--fake_names", "a"])


def test_folders_that_are_not_read_are_named_in_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    suite = build(
        tmp_path / "my suite",
        *pair("progan"),
        *pair("stylegan", "0_real", "1_fakes"),
        *pair("biggan", "reals", "fakes"),
        *("flux", "sd/deep/er", "progan/more", ".hidden", "progan/0_real/below"),
        *(*pair("split/val"), *pair("split/train")),
    )
    caplog.set_level("INFO")
    _, sets = find_test_sets(str(suite), names=ClassNames(real=("zzz",)))
    assert all(sorted(set(images.labels)) == [0, 1] for images in sets) and len(sets) == 4
    (line,) = caplog.messages
    unread = [str(suite / folder) for folder in ("flux", "progan/more", "sd/deep/er")]
    assert f"not read, though they hold images: {', '.join(unread)};" in line
    assert f"python -m tools.check_dataset '{suite}' --real_names zzz shows more" in line


def test_training_names_the_folders_that_it_does_not_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for split in ("train", "val", "test"):
        build(tmp_path, *pair(f"{split}/cat"), f"{split}/flux")
    build(tmp_path, "Extra/a")
    (tmp_path / "link").symlink_to(build(tmp_path.with_name(f"{tmp_path.name}_linked"), "."))
    for split in (None, "val"):
        caplog.clear()
        create_dataloader(train_options(tmp_path), split=split)
        (line,) = caplog.messages
        unread = [f"{tmp_path}/{name}" for name in ("link", "Extra/a", "train/flux")]
        assert all(name in line for name in ([f"{tmp_path}/val/flux"] if split else unread))
        assert f"{tmp_path}/test" not in line and "0_real" not in line and line.count("flux") == 1
    caplog.clear()
    create_dataloader(train_options(tmp_path, classes=("cat",)))
    assert not caplog.messages


@pytest.mark.parametrize("read", [load_set, find_sets])
def test_each_of_the_chosen_folders_has_class_folders(read: Any, tmp_path: Path) -> None:
    build(tmp_path, *pair("cat"), *pair("dog", "photos", "flux"), "horse")
    message = r"--classes dog,horse: no class folders in .*/dog: expected .*--real_names"
    with pytest.raises(UserError, match=message):
        read(tmp_path, classes=("cat", "dog", "horse"))
    read(tmp_path, classes=("cat",))


@pytest.mark.parametrize("split", ["train", "val"])
def test_training_needs_both_classes_in_each_folder(
    split: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("train", "val"):
        build(tmp_path, *pair(f"{name}/cat"), *pair(f"{name}/dog"))
    cat = tmp_path / split / "cat"
    (cat / "0_real" / "a.png").unlink()
    build(tmp_path, f"{split}/cat/photographs")
    with pytest.raises(UserError, match="cat: has no real images.*--allow_one_class_folders"):
        create_dataloader(train_options(tmp_path), split=split)
    assert f"not read, though they hold images: {cat}/photographs" in caplog.text
    allowed = train_options(tmp_path, allow_one_class_folders=True)
    assert sorted(create_dataloader(allowed, split=split).dataset.labels) == [0, 1, 1]
    shutil.rmtree(tmp_path / split / "dog")
    with pytest.raises(UserError, match=f"{split}/ has no real"):
        create_dataloader(allowed, split=split)


def test_names_and_tables_of_the_sets_of_several_suites(tmp_path: Path) -> None:
    suites = ("ForenSynths_test", "GANGen-Detection", "DiffusionForensics")
    suites += ("UniversalFakeDetect", "Diffusion1kStep_test")
    build(tmp_path, *pair("Diffusion1kStep_test/ddpm"))
    build(tmp_path, *(folder for suite in suites for folder in pair(f"{suite}/g")))
    sets = find_sets(tmp_path)
    assert {images.suite: images.table for images in sets} == {
        suite.removesuffix("_test"): f"Table {number}" for number, suite in enumerate(suites, 1)
    }
    assert sorted(unique_names(sets).values()) == sorted(
        ["ddpm", *(f"{suite.removesuffix('_test')}_g" for suite in suites)]
    )
    # A_x may be suite A's x or suite C's A_x
    keys = ("A/x", "B/x", "C/A_x", "A/y")
    ambiguous = [ImageSet(*key.split("/"), (), ()) for key in keys]
    assert unique_names(ambiguous) == {key: key for key in keys}


@pytest.mark.parametrize(
    ("folders", "message"),
    (
        ((), "no class folders"),
        (("0_real",), "no images"),
        ((*pair("ForenSynths/g"), *pair("ForenSynths_test/g")), "occurs twice"),
        (pair("train/car"), "is a training folder.*pass a folder of generators"),
        ((*pair("train/car"), *pair("test/gan")), "is a training folder.*pass .*test"),
    ),
)
def test_folders_that_cannot_be_tested(
    folders: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    build(tmp_path, *folders)
    if folders == ("0_real",):
        (tmp_path / "0_real" / "a.png").unlink()
    with pytest.raises(UserError, match=message):
        find_test_sets(str(tmp_path))


def test_an_empty_generator_does_not_keep_a_suite_from_being_tested(tmp_path: Path) -> None:
    root = build(tmp_path, *pair("suite/good"))
    (root / "suite" / "empty" / "0_real").mkdir(parents=True)
    assert [images.generator for images in find_sets(root / "suite")] == ["good"]


DIRE = tuple(
    f"{content}/{name}" for content in ("lsun", "in") for name in ("real", "adm", "mystery")
)


COPIES = ("DIRE/recons/test/in/adm", "DIRE/dire/test/in/real")


@pytest.mark.parametrize(
    ("place", "beside"),
    [
        ("DIRE/images/test", ()),
        ("DIRE/images/test", COPIES),
        ("DIRE/images", ()),
        ("DIRE/images", COPIES),
        ("DIRE", ()),
        ("DiffusionForensics/Images/test", ()),
    ],
)
@pytest.mark.parametrize("start", ("", "suite"))
def test_dire_as_distributed(
    place: str, beside: tuple[str, ...], start: str, tmp_path: Path
) -> None:
    """Every generator is a set of its own, whatever lies beside; so it is in a folder of suites,
    alone or with another."""
    suite = place.split("/")[0]
    root = build(tmp_path / "all", *(f"{place}/{folder}" for folder in DIRE), *beside)
    expected = {f"DiffusionForensics/{c}_{g}" for c in ("lsun", "in") for g in ("adm", "mystery")}
    for other in ((), pair("Chameleon/test")):
        build(root, *other)
        sets = find_sets(root / suite if start else root)
        others = {"Chameleon/Chameleon"} if other and not start else set()
        assert {images.key for images in sets} == expected | others
        assert all(sorted(images.labels) == [0, 1] for images in sets)


@pytest.mark.parametrize(
    ("start", "key"),
    [
        ("", "GenImage/ADM"),
        ("GenImage", "GenImage/ADM"),
        ("GenImage/ADM", "GenImage/ADM"),
        ("GenImage/ADM/imagenet_adm", "GenImage/imagenet_adm"),
        ("GenImage/ADM/imagenet_adm/val", "GenImage/imagenet_adm"),
    ],
)
def test_a_set_of_genimage_has_its_name_from_wherever_it_is_given(
    start: str, key: str, tmp_path: Path
) -> None:
    folder = "GenImage/ADM/imagenet_adm"
    root = build(
        tmp_path / "data",
        *pair(f"{folder}/val", "nature", "ai"),
        *pair(f"{folder}/train", "nature", "ai"),
    )
    assert [images.key for images in find_sets(root / start)] == [key]


def test_a_folder_that_cannot_be_listed_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret, scandir = make_set(tmp_path / "x", 1) / "0_real" / "secret", os.scandir
    secret.mkdir()

    def denied(path: str) -> object:
        if Path(path) == secret:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(UserError, match="secret: .*Permission denied"):
        load_set(tmp_path / "x")


def test_default_test_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="--dataroot"):
        find_test_sets(None)
    build(tmp_path, *pair("datasets/my_training/train/car"), *pair("datasets/test/stylegan"))
    root, (images,) = find_test_sets(None)
    assert (root, images.key) == (Path("datasets"), "test/stylegan")
    build(tmp_path, *pair("datasets/Generalization_Test/GANGen-Detection/AttGAN"))
    root, (images,) = find_test_sets(None)
    assert (root.name, images.key) == ("Generalization_Test", "GANGen-Detection/AttGAN")


@pytest.mark.parametrize(
    ("suite", "flags", "name", "geometry"),
    (
        ("ForenSynths", {}, "resize256", (256, None, False)),
        ("DiffusionForensics", {}, "resize256", (256, None, False)),
        ("UniversalFakeDetect", {}, "resize256", (256, None, False)),
        ("Diffusion1kStep", {}, "resize256", (256, None, False)),
        ("GANGen-Detection", {}, "native", (None, None, False)),
        ("AIGCDetectBenchmark", {}, "native", (None, None, False)),
        ("GenImage", {}, "genimage-tile", (None, 224, True)),
        ("GenImage", {"cropSize": 128}, "genimage-tile+flags", (None, 128, True)),
        ("unknown", {}, "native", (None, None, False)),
        ("ForenSynths", {"protocol": "native"}, "native", (None, None, False)),
        ("ForenSynths", {"protocol": "crop224"}, "crop224", (256, 224, False)),
        ("ForenSynths", {"no_resize": True}, "resize256+flags", (None, None, False)),
        ("ForenSynths", {"rz_interp": ("bicubic",)}, "resize256+flags", (256, None, False)),
        ("unknown", {"rz_interp": ("bicubic",)}, "native", (None, None, False)),
        ("unknown", {"loadSize": 128, "cropSize": 96}, "native+flags", (128, 96, False)),
        ("unknown", {"protocol": "enlarged"}, "enlarged", (None, None, False)),
        ("unknown", {"protocol": "enlarged", "loadSize": 64}, "enlarged+flags", (64, None, False)),
        (
            "unknown",
            {"protocol": "enlarged", "rz_interp": ("bicubic",)},
            "enlarged+flags",
            (None, None, False),
        ),
        ("unknown", {"cropSize": 96, "repeat_small": True}, "native+flags", (None, 96, True)),
        ("unknown", {"repeat_small": True}, "native", (None, None, False)),
        ("GenImage", {"repeat_small": True}, "genimage-tile", (None, 224, True)),
    ),
)
def test_geometry_of_evaluation(
    suite: str, flags: dict, name: str, geometry: tuple[int | None, int | None, bool]
) -> None:
    trained = Protocol("mine", resize=99, mean=(0.5, 0.5, 0.5))
    protocol = evaluation_protocol(trained, suite, TestOptions(model_path=("x",), **flags))
    assert (protocol.resize, protocol.crop, protocol.tile) == geometry
    enlarged = flags.get("protocol") == "enlarged" and "loadSize" not in flags
    assert protocol.enlarge == (1.25 if enlarged else 1)
    resized = enlarged or protocol.resize is not None
    assert protocol.interpolation == (
        flags.get("rz_interp", ("bilinear",)) if resized else ("bilinear",)
    )
    assert (protocol.name, protocol.mean, protocol.augment) == (name, trained.mean, None)


def test_unknown_protocol_is_named() -> None:
    with pytest.raises(UserError, match="--protocol nothing.*native.*crop224"):
        evaluation_protocol(Protocol("x"), "", TestOptions(model_path=("x",), protocol="nothing"))


def test_a_loader_of_training_and_validation_options(dataroot: Path, tmp_path: Path) -> None:
    loader = create_dataloader(train_options(dataroot), split="train")
    assert loader.dataset.protocol.augment is None
    assert [key.index for key in loader.sampler] == list(range(16))
    loader = create_dataloader(train_options(dataroot, classes=("cat",)))
    assert len(loader.dataset) == 8 and all("cat" in path for path in loader.dataset.paths)
    with pytest.raises(UserError, match="--classes dog.*car, cat"):
        create_dataloader(train_options(dataroot, classes=("dog",)))
    build(tmp_path, "train/car/0_real", "val/car/0_real")
    with pytest.raises(UserError, match="no fake"):
        create_dataloader(train_options(tmp_path))
    build(tmp_path, *pair("sd4/train", "nature", "ai"), *pair("sd4/val", "nature", "ai"))
    (batch,) = create_dataloader(train_options(tmp_path / "sd4"))  # GenImage
    assert batch[0].shape == (2, 3, 32, 32) and sorted(batch[1].tolist()) == [0, 1]


def test_a_loader_of_test_options_uses_the_suites_protocol(dataroot: Path, tmp_path: Path) -> None:
    def loader(dataroot: Path) -> ImageLoader:
        flags = {"model_path": ("x",), "num_threads": 0, "batch_size": 3}
        return create_dataloader(TestOptions(dataroot=str(dataroot), **flags))

    labels = torch.cat([labels for _, labels in loader(dataroot / "test" / "gan")])
    assert labels.tolist() == [0] * 4 + [1] * 4
    build(tmp_path, *pair("DiffusionForensics/ddpm"), *pair("DiffusionForensics/ldm"))
    ((images, _),) = loader(tmp_path / "DiffusionForensics" / "ddpm")
    assert images.shape == (2, 3, 256, 256)
    with pytest.raises(UserError, match="has 2 sets"):
        loader(tmp_path / "DiffusionForensics")


def test_native_sizes_in_one_batch_are_grouped(tmp_path: Path) -> None:
    (tmp_path / "0_real").mkdir()
    for name, size in (("a", (30, 20)), ("b", (16, 16)), ("c", (30, 20))):
        noise(*size).save(tmp_path / "0_real" / f"{name}.png")
    loader = evaluation_loader(load_set(tmp_path), Protocol("native"), batch_size=3)
    shapes = [(tuple(batch.pixels.shape), batch.indices.tolist()) for batch in loader.batches()]
    assert shapes == [((2, 3, 20, 30), [0, 2]), ((1, 3, 16, 16), [1])]


def test_bad_files_are_skipped_and_named(tmp_path: Path) -> None:
    make_set(tmp_path, 3)
    content = (tmp_path / "0_real" / "000.png").read_bytes()
    bad = {"empty.png": b"", "text.jpg": b"not an image", "truncated.png": content[:60]}
    for name, beginning in (bad | {"notes.txt": b"not called an image"}).items():
        (tmp_path / "1_fake" / name).write_bytes(beginning)
    os.mkfifo(tmp_path / "0_real" / "pipe.png")  # opening it would wait for ever
    loader = evaluation_loader(load_set(tmp_path), Protocol("native"), batch_size=2)
    assert sum(len(batch.labels) for batch in loader.batches()) == 6
    assert {Path(path).name for path in loader.left_out} == {*bad, "pipe.png"}
    assert all("\n" not in why and why for why in loader.left_out.values())


def test_classes_choose_contents_of_a_suites_generators(tmp_path: Path) -> None:
    root = build(
        tmp_path,
        *pair("ForenSynths/progan/car"),
        *pair("ForenSynths/progan/cat"),
        *pair("ForenSynths/biggan"),
    )
    sets = find_sets(root / "ForenSynths", ("car",))
    counts = {images.generator: len(images.paths) for images in sets}
    assert counts == {"biggan": 2, "progan": 2}
    with pytest.raises(UserError, match="--classes dog: no generator"):
        find_sets(root / "ForenSynths", ("dog",))


def test_minibench_is_found_and_readable(minibench: Path) -> None:
    _, sets = find_test_sets(str(minibench / "test"))
    counts = {s.generator: (s.labels.count(0), s.labels.count(1)) for s in sets}
    assert counts == {"bsds_real_only": (100, 0), "cyclegan": (50, 50), "sd1": (67, 67)}
    loader = evaluation_loader(sets[0], Protocol("native"), batch_size=32)
    assert sum(len(batch.labels) for batch in loader.batches()) == 100
    assert not loader.left_out


@pytest.mark.parametrize("cache", [False, True])
def test_both_classes_get_random_degradations_in_training(tmp_path: Path, cache: bool) -> None:
    make_set(tmp_path / "train" / "car", 40, 48)
    folder = str(tmp_path / "cache") if cache else None

    def images(**flags: Any) -> list[torch.Tensor]:
        fixed = {"no_flip": True, "no_resize": True, "serial_batches": True, "loadSize": None}
        loader = create_dataloader(train_options(tmp_path, cache=folder, **fixed, **flags))
        return [image for batch in loader.batches() for image in batch.pixels]

    originals, crops = images(no_crop=True, cropSize=None), images(degrade=0.5, cropSize=32)
    changed = [not is_window(*pair) for pair in zip(crops, originals, strict=True)]
    for label in (0, 1):  # left alone with probability 0.5 * 0.75 * 0.75 * 0.5
        assert 24 <= sum(changed[40 * label : 40 * (label + 1)]) <= 40


def is_window(part: torch.Tensor, image: torch.Tensor) -> bool:
    """Return True if [3, h, w] is cut out of [3, H, W]."""
    windows = image.unfold(1, part.shape[1], 1).unfold(2, part.shape[2], 1)
    return bool((windows == part[:, None, None]).all(-1).all(-1).all(0).any())


def test_memory_is_pinned_for_a_gpu_only(dataroot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU of a machine with a GPU, pinning would open the GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    pinned: list[Any] = []
    monkeypatch.setattr(
        "torch.utils.data._utils.pin_memory.pin_memory",
        lambda data, *_: pinned.append(data) or data,
    )
    opt = TrainOptions(dataroot=str(dataroot), gpu_ids=(), num_threads=0)
    for loader in (create_dataloader(opt), create_dataloader(opt, split="val")):
        pinned.clear()
        assert list(loader.steps()) and list(loader.full_batches()) and not pinned
        assert list(loader._steps(torch.device("cuda"))) and pinned

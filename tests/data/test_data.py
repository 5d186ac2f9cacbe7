"""Layouts, preprocessing, order of images, and files that cannot be read."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms as T

from data import create_dataloader, evaluation_loader
from data.degradations import pil_jpeg
from data.image_sets import ImageSet, unique_names
from data.layouts import find_sets, find_test_sets, load_set
from data.protocols import EVALUATION_PROTOCOLS, evaluation_protocol, training_protocol
from data.samplers import EpochSampler, balancing_weights
from data.transforms import IMAGENET_MEAN, IMAGENET_STD, Augmentation, Protocol, tiled
from options.test_options import TestOptions
from options.train_options import TrainOptions
from tests.conftest import draw_image, make_set
from util import UserError

PUBLISHED_TEST = T.Compose(
    [T.Resize((64, 64)), T.CenterCrop(48), T.ToTensor(), T.Normalize(IMAGENET_MEAN, IMAGENET_STD)]
)


def picture(width: int = 90, height: int = 70, seed: int = 0) -> Image.Image:
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
    ours = Protocol("x", resize=64, crop=48)(picture())
    assert torch.equal(ours, PUBLISHED_TEST(picture()))


def test_training_equals_one_of_the_published_outcomes() -> None:
    """Resize 256, random crop 224, random flip: our tensor is some window of the resized picture,
    mirrored or not."""
    protocol = training_protocol(TrainOptions())
    resized = T.Compose(
        [T.Resize((256, 256)), T.ToTensor(), T.Normalize(IMAGENET_MEAN, IMAGENET_STD)]
    )(picture())
    seen = set()
    for seed in range(8):
        ours = protocol(picture(), np.random.default_rng(seed))
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


def test_protocol_survives_a_checkpoint() -> None:
    protocol = training_protocol(TrainOptions(data_aug=True, rz_interp=("bilinear", "nearest")))
    assert Protocol.from_dict(protocol.to_dict()) == protocol
    assert Protocol.from_dict(Protocol("native").to_dict()) == Protocol("native")


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 40))
def test_tiling_reaches_the_crop_and_repeats(width: int, height: int, size: int) -> None:
    small = picture(width, height)
    big = tiled(T.functional.pil_to_tensor(small), size).numpy().transpose(1, 2, 0)
    assert min(big.shape[:2]) >= size
    rows, columns = np.arange(big.shape[0]) % height, np.arange(big.shape[1]) % width
    assert np.array_equal(big, np.asarray(small)[rows][:, columns])


def test_picture_smaller_than_its_crop_is_refused_unless_tiled() -> None:
    with pytest.raises(ValueError, match="90x70.*224x224"):
        Protocol("x", crop=224)(picture())
    assert Protocol("x", crop=224, tile=True)(picture()).shape == (3, 224, 224)


def test_blur_and_jpeg_run_when_asked_and_only_then() -> None:
    def pixels(**values: object) -> np.ndarray:
        protocol = Protocol("x", augment=Augmentation(flip=False, **values))
        return protocol.pixels(picture(), np.random.default_rng(0)).numpy().transpose(1, 2, 0)

    original = np.asarray(picture())
    assert np.array_equal(pixels(), original)
    assert np.array_equal(
        pixels(jpeg_prob=1.0, jpeg_quality=(60,)), np.asarray(pil_jpeg(picture(), 60))
    )
    blurred = pixels(blur_prob=1.0, blur_sigma=(2.0,)).astype(float)
    assert blurred.std() < 0.3 * original.std()
    channel = T.GaussianBlur(17, 2.0)(T.ToTensor()(picture()) * 255).numpy().transpose(1, 2, 0)
    inner = (slice(10, -10), slice(10, -10))
    assert np.abs(blurred[inner] - channel[inner]).max() <= 0.6


def test_augmentation_flags_act_only_when_given(caplog: pytest.LogCaptureFixture) -> None:
    assert training_protocol(TrainOptions()).augment == Augmentation()
    wang = training_protocol(TrainOptions(data_aug=True)).augment
    assert wang == Augmentation(True, 0.5, (0.0, 3.0), 0.5, (30, 100))
    mixed = training_protocol(TrainOptions(data_aug=True, jpg_prob=0.1, no_flip=True)).augment
    assert mixed == Augmentation(False, 0.5, (0.0, 3.0), 0.1, (30, 100))
    assert training_protocol(TrainOptions(jpg_prob=1.0)).augment == Augmentation(jpeg_prob=1.0)


def test_resize_interpolation_is_drawn_of_several() -> None:
    protocol = training_protocol(
        TrainOptions(loadSize=64, cropSize=64, no_flip=True, rz_interp=("nearest", "bicubic"))
    )
    results = {
        protocol(picture(), np.random.default_rng(seed)).numpy().tobytes() for seed in range(10)
    }
    assert len(results) == 2


def test_augmentation_is_a_function_of_seed_epoch_and_index(dataroot: Path) -> None:
    def first_images(workers: int, epoch: int, seed: int = 7, batch_size: int = 4) -> torch.Tensor:
        opt = train_options(
            dataroot, loadSize=40, num_threads=workers, seed=seed, batch_size=batch_size
        )
        loader = create_dataloader(opt)
        loader.sampler.set_epoch(epoch)
        return torch.cat([images for images, _ in loader])

    alone = first_images(0, epoch=3)
    assert torch.equal(alone, first_images(2, epoch=3))
    assert torch.equal(alone, first_images(0, epoch=3, batch_size=5))
    assert not torch.equal(alone, first_images(0, epoch=4))
    assert not torch.equal(alone, first_images(0, epoch=3, seed=8))


@given(st.integers(1, 50), st.integers(0, 5), st.integers(0, 60))
def test_sampler_goes_on_where_it_stopped(size: int, epoch: int, start: int) -> None:
    whole, rest = EpochSampler(size, 3, shuffle=True), EpochSampler(size, 3, shuffle=True)
    whole.set_epoch(epoch)
    rest.set_epoch(epoch, start)
    keys = list(whole)
    assert sorted(key.index for key in keys) == list(range(size))
    assert list(rest) == keys[start:]
    assert len(rest) == len(keys[start:])


def test_sampler_order() -> None:
    assert [key.index for key in EpochSampler(5)] == [0, 1, 2, 3, 4]
    shuffled = EpochSampler(100, seed=1, shuffle=True)
    first = [key.index for key in shuffled]
    shuffled.set_epoch(1)
    assert [key.index for key in shuffled] != first


def test_class_balance() -> None:
    labels = [0] * 9000 + [1] * 1000
    drawn = [
        labels[key.index] for key in EpochSampler(10_000, 0, weights=balancing_weights(labels))
    ]
    assert 0.47 < np.mean(drawn) < 0.53


def test_loader_gives_normalised_floats_and_labels(dataroot: Path) -> None:
    images, labels = next(iter(create_dataloader(train_options(dataroot))))
    assert images.shape == (4, 3, 32, 32)
    assert images.dtype == torch.float32
    assert labels.shape == (4,)
    lowest, highest = (
        -max(np.divide(IMAGENET_MEAN, IMAGENET_STD)),
        max((1 - np.array(IMAGENET_MEAN)) / IMAGENET_STD),
    )
    assert lowest - 1e-4 <= images.min() < 0 < images.max() <= highest + 1e-4


def test_classes_choose_folders(dataroot: Path) -> None:
    assert len(create_dataloader(train_options(dataroot)).dataset) == 16
    assert len(create_dataloader(train_options(dataroot, classes=("cat",))).dataset) == 8
    with pytest.raises(UserError, match="--classes dog.*car, cat"):
        create_dataloader(train_options(dataroot, classes=("dog",)))


def test_labels_follow_the_folders(dataroot: Path) -> None:
    images = load_set(dataroot / "train")
    assert all(
        label == ("1_fake" in path) for path, label in zip(images.paths, images.labels, strict=True)
    )


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
    ],
)
def test_layouts(folders: tuple[str, ...], start: str, expected: list[str], tmp_path: Path) -> None:
    sets = find_sets(build(tmp_path, *folders) / start)
    assert sorted(found.key for found in sets) == sorted(expected)


def test_shared_real_images_are_those_of_each_generators_origin(tmp_path: Path) -> None:
    folders = ("imagenet/0_real", "laion/0_real", "guided/1_fake", "dalle/1_fake")
    sets = find_sets(build(tmp_path / "UniversalFakeDetect", *folders))
    origins = {
        found.generator: {
            Path(p).parts[-3]: label for p, label in zip(found.paths, found.labels, strict=True)
        }
        for found in sets
    }
    assert origins == {"guided": {"imagenet": 0, "guided": 1}, "dalle": {"laion": 0, "dalle": 1}}


def test_generators_beside_real_share_its_images(tmp_path: Path) -> None:
    root = build(tmp_path, "lsun/real", "lsun/adm/sub")
    (found,) = find_sets(root / "lsun")
    assert [
        (Path(p).relative_to(root).as_posix(), n)
        for p, n in zip(found.paths, found.labels, strict=True)
    ] == [
        ("lsun/real/a.png", 0),
        ("lsun/adm/sub/a.png", 1),
    ]


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
        assert {found.key for found in sets} == expected | (
            {"Chameleon/Chameleon"} if other and not start else set()
        )
        assert all(found.labels in ((0, 1), (1, 0)) for found in sets)


def test_real_beside_other_folders_is_no_suite(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (found,) = find_sets(build(tmp_path, "b/real", "b/midjourney", "b/flux", "b/sdxl") / "b")
    assert (found.key, found.labels) == ("/b", (0,))
    assert "only real/" in caplog.text and "flux, sdxl" in caplog.text


def test_names_that_suites_of_other_protocols_share_make_none(tmp_path: Path) -> None:
    shared = [
        c for g in ("progan", "stylegan", "biggan", "whichfaceisreal") for c in pair(f"own/{g}")
    ]
    assert {found.suite for found in find_sets(build(tmp_path, *shared) / "own")} == {"own"}
    newer = [c for g in ("ADM", "Glide", "Midjourney", "VQDM", "wukong") for c in pair(f"aigc/{g}")]
    assert {found.suite for found in find_sets(build(tmp_path, *newer) / "aigc")} == {
        "AIGCDetectBenchmark"
    }


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
    assert [found.key for found in find_sets(root / start)] == [key]


def test_one_generator_of_shared_real_images_alone(tmp_path: Path) -> None:
    root = build(
        tmp_path / "diffusion_datasets",
        "laion/0_real",
        "imagenet/0_real",
        "dalle/1_fake",
        "guided/1_fake",
    )
    (found,) = find_sets(root / "dalle")
    assert (found.key, found.labels) == (
        "UniversalFakeDetect/dalle",
        (0, 1),
    ) and "laion" in found.paths[0]


def test_the_same_set_in_two_of_the_default_folders_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("datasets/one", "datasets/two"):
        build(
            tmp_path,
            *pair(f"{place}/ADM/val", "nature", "ai"),
            *pair(f"{place}/VQDM/val", "nature", "ai"),
        )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="GenImage/ADM, GenImage/VQDM .*twice"):
        find_test_sets(None)


def test_names_of_sets_are_distinct() -> None:
    sets = [
        ImageSet(suite, name, (), ())
        for suite, name in (("A", "x"), ("B", "x"), ("C", "A_x"), ("A", "y"))
    ]
    assert unique_names(sets) == {key: key for key in ("A/x", "B/x", "C/A_x", "A/y")}


def test_a_folder_that_cannot_be_listed_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_set(tmp_path / "x", 1)
    (tmp_path / "x" / "0_real" / "secret").mkdir()
    scandir = os.scandir

    def denied(path: str) -> object:
        if str(path).endswith("secret"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(UserError, match="secret: .*Permission denied"):
        load_set(tmp_path / "x")


def test_another_interpolation_is_not_the_named_protocol() -> None:
    for protocol, name in (("resize256", "resize256+flags"), ("native", "native")):
        opt = TestOptions(model_path=("x",), protocol=protocol, rz_interp=("bicubic",))
        assert evaluation_protocol(Protocol("x"), "", opt).name == name


def test_a_suite_known_by_its_generators_gets_its_protocol(tmp_path: Path) -> None:
    root = build(tmp_path, *(c for g in ("adm", "ldm", "pndm", "sdv2") for c in pair(g)))
    opt = TestOptions(model_path=("x",))
    assert {evaluation_protocol(Protocol("x"), s.suite, opt).name for s in find_sets(root)} == {
        "resize256"
    }


def test_tables_of_suites(tmp_path: Path) -> None:
    suites = (
        "ForenSynths_test",
        "GANGen-Detection",
        "DiffusionForensics",
        "UniversalFakeDetect",
        "Diffusion1kStep_test",
    )
    build(tmp_path, *(folder for suite in suites for folder in pair(f"{suite}/g")))
    tables = {found.suite: found.table for found in find_sets(tmp_path)}
    assert tables == {
        "ForenSynths": "Table 1", "GANGen-Detection": "Table 2", "DiffusionForensics": "Table 3",
        "UniversalFakeDetect": "Table 4", "Diffusion1kStep": "Table 5",
    }  # fmt: skip


def test_generator_of_two_suites_gets_its_suite_as_prefix(tmp_path: Path) -> None:
    folders = ("DiffusionForensics/ddpm", "Diffusion1kStep/ddpm", "Diffusion1kStep/midjourney")
    build(tmp_path, *(folder for name in folders for folder in pair(name)))
    names = unique_names(find_sets(tmp_path))
    assert sorted(names.values()) == [
        "Diffusion1kStep_ddpm",
        "DiffusionForensics_ddpm",
        "midjourney",
    ]


def test_default_test_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="--dataroot"):
        find_test_sets(None)
    build(tmp_path, *pair("datasets/my_training/train/car"), *pair("datasets/test/stylegan"))
    root, sets = find_test_sets(None)
    assert (str(root), [found.key for found in sets]) == ("datasets", ["test/stylegan"])
    build(tmp_path, *pair("datasets/Generalization_Test/GANGen-Detection/AttGAN"))
    root, sets = find_test_sets(None)
    assert (root.name, [found.key for found in sets]) == (
        "Generalization_Test",
        ["GANGen-Detection/AttGAN"],
    )


def test_training_folder_is_no_test_folder(dataroot: Path) -> None:
    with pytest.raises(UserError, match="is a training folder.*test"):
        find_test_sets(str(dataroot))


def test_folders_without_images_or_classes_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no class folders"):
        find_sets(tmp_path)
    (tmp_path / "0_real").mkdir()
    with pytest.raises(UserError, match="no images"):
        find_sets(tmp_path)


def test_training_needs_both_classes(tmp_path: Path) -> None:
    build(tmp_path, "train/car/0_real", "val/car/0_real")
    with pytest.raises(UserError, match="no fake"):
        create_dataloader(train_options(tmp_path))


@pytest.mark.parametrize(
    ("suite", "flags", "resize", "crop", "tile"),
    [
        ("ForenSynths", {}, 256, None, False),
        ("DiffusionForensics", {}, 256, None, False),
        ("UniversalFakeDetect", {}, 256, None, False),
        ("Diffusion1kStep", {}, 256, None, False),
        ("GANGen-Detection", {}, None, None, False),
        ("AIGCDetectBenchmark", {}, None, None, False),
        ("GenImage", {}, None, 224, True),
        ("GenImage", {"cropSize": 128}, None, 128, True),
        ("unknown", {}, None, None, False),
        ("ForenSynths", {"protocol": "native"}, None, None, False),
        ("ForenSynths", {"protocol": "crop224"}, 256, 224, False),
        ("ForenSynths", {"no_resize": True}, None, None, False),
        ("unknown", {"loadSize": 128, "cropSize": 96}, 128, 96, False),
        ("ForenSynths", {"protocol": "crop224", "no_crop": True}, 256, None, False),
    ],
)
def test_geometry_of_evaluation(
    suite: str, flags: dict, resize: int | None, crop: int | None, tile: bool
) -> None:
    trained = Protocol("mine", resize=99, mean=(0.5, 0.5, 0.5))
    chosen = evaluation_protocol(trained, suite, TestOptions(model_path=("x",), **flags))
    assert (chosen.resize, chosen.crop, chosen.tile, chosen.mean) == (
        resize,
        crop,
        tile,
        (0.5, 0.5, 0.5),
    )
    assert chosen.augment is None


def test_unknown_protocol_is_named() -> None:
    with pytest.raises(UserError, match="--protocol nothing.*native"):
        evaluation_protocol(Protocol("x"), "", TestOptions(model_path=("x",), protocol="nothing"))
    assert {"native", "crop224", "genimage-tile"} <= set(EVALUATION_PROTOCOLS)


def test_bad_files_are_left_out_and_named(tmp_path: Path) -> None:
    make_set(tmp_path, 3)
    whole = (tmp_path / "0_real" / "000.png").read_bytes()
    (tmp_path / "0_real" / "empty.png").write_bytes(b"")
    (tmp_path / "0_real" / "text.jpg").write_text("not an image")
    (tmp_path / "1_fake" / "truncated.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "1_fake" / "notes.txt").write_text("no image, and not called one")
    os.mkfifo(tmp_path / "0_real" / "pipe.png")  # opening it would wait for ever
    loader = evaluation_loader(load_set(tmp_path), Protocol("native"), batch_size=2)
    batches = list(loader.batches())
    assert sum(len(batch.labels) for batch in batches) == 6
    assert {Path(path).name for path in loader.left_out} == {
        "empty.png",
        "text.jpg",
        "truncated.png",
        "pipe.png",
    }
    assert all("\n" not in why and why for why in loader.left_out.values())


@pytest.mark.parametrize("mode", ("L", "LA", "P", "RGBA", "CMYK", "I;16", "1"))
def test_other_colour_modes_become_rgb(mode: str, tmp_path: Path) -> None:
    base = picture(20, 10)
    image = base.convert("L").convert("I").convert("I;16") if mode == "I;16" else base.convert(mode)
    path = tmp_path / ("a.tif" if mode in ("CMYK", "I;16") else "a.png")
    image.save(path)
    from data.decode import read_image

    assert read_image(str(path)).mode == "RGB"
    assert read_image(str(path)).size == (20, 10)


def test_native_sizes_in_one_batch_are_grouped(tmp_path: Path) -> None:
    for name, size in (("a", (30, 20)), ("b", (16, 16)), ("c", (30, 20))):
        (tmp_path / "0_real").mkdir(exist_ok=True)
        picture(*size).save(tmp_path / "0_real" / f"{name}.png")
    loader = evaluation_loader(load_set(tmp_path), Protocol("native"), batch_size=3)
    shapes = [(tuple(batch.pixels.shape), batch.indices.tolist()) for batch in loader.batches()]
    assert shapes == [((2, 3, 20, 30), [0, 2]), ((1, 3, 16, 16), [1])]


def test_options_variant_is_a_copy(dataroot: Path) -> None:
    opt = train_options(dataroot)
    assert dataclasses.replace(opt, batch_size=2).batch_size == 2
    assert opt.batch_size == 4


def test_test_options_load_all_of_the_dataroot(dataroot: Path) -> None:
    opt = TestOptions(
        model_path=("x",), dataroot=str(dataroot / "test" / "gan"), batch_size=3, num_threads=0
    )
    labels = torch.cat([labels for _, labels in create_dataloader(opt)])
    assert labels.tolist() == [0] * 4 + [1] * 4


def test_suite_is_recognised_from_inside_and_from_deep_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = (
        build(tmp_path, *pair("ForenSynths_test/progan/car"), *pair("ForenSynths_test/biggan"))
        / "ForenSynths_test"
    )
    monkeypatch.chdir(root)
    assert [found.key for found in find_sets(Path("."))] == [
        "ForenSynths/biggan",
        "ForenSynths/progan",
    ]
    assert [found.key for found in find_sets(root / "progan" / "car")] == ["ForenSynths/car"]


def test_loader_of_test_options_uses_the_suites_protocol(tmp_path: Path) -> None:
    build(tmp_path, *pair("DiffusionForensics/ddpm"), *pair("DiffusionForensics/ldm"))
    common = {"model_path": ("x",), "num_threads": 0}
    one = TestOptions(dataroot=str(tmp_path / "DiffusionForensics" / "ddpm"), **common)
    assert next(iter(create_dataloader(one)))[0].shape == (2, 3, 256, 256)
    with pytest.raises(UserError, match="has 2 sets"):
        create_dataloader(TestOptions(dataroot=str(tmp_path / "DiffusionForensics"), **common))


def test_classes_choose_contents_of_a_suites_generators(tmp_path: Path) -> None:
    root = build(
        tmp_path,
        *pair("ForenSynths/progan/car"),
        *pair("ForenSynths/progan/cat"),
        *pair("ForenSynths/biggan"),
    )
    counts = {
        found.generator: len(found.paths) for found in find_sets(root / "ForenSynths", ("car",))
    }
    assert counts == {"biggan": 2, "progan": 2}
    with pytest.raises(UserError, match="--classes dog: no generator"):
        find_sets(root / "ForenSynths", ("dog",))


def test_same_set_under_two_spellings_is_refused(tmp_path: Path) -> None:
    root = build(tmp_path, *pair("ForenSynths/g"), *pair("ForenSynths_test/g"))
    with pytest.raises(UserError, match="occurs twice"):
        find_sets(root)


def test_an_empty_generator_does_not_keep_a_suite_from_being_tested(tmp_path: Path) -> None:
    root = build(tmp_path, *pair("suite/good"))
    (root / "suite" / "empty" / "0_real").mkdir(parents=True)
    assert [found.generator for found in find_sets(root / "suite")] == ["good"]


def test_genimage_with_its_inner_folder(tmp_path: Path) -> None:
    root = build(tmp_path, *pair("GenImage/Midjourney/imagenet_midjourney/val", "nature", "ai"))
    (found,) = find_sets(root / "GenImage")
    assert (found.key, found.labels) == ("GenImage/Midjourney", (1, 0))


def test_training_on_genimages_folders(tmp_path: Path) -> None:
    inner = "stable_diffusion_v_1_4/imagenet_ai_0419_sdv4"
    build(tmp_path, *pair(f"{inner}/train", "nature", "ai"), *pair(f"{inner}/val", "nature", "ai"))
    loader = create_dataloader(train_options(tmp_path / inner, loadSize=32, cropSize=32))
    (images, labels), *_ = loader
    assert images.shape == (2, 3, 32, 32) and sorted(labels.tolist()) == [0, 1]
    assert all("train" in path for path in loader.dataset.paths)


def test_training_root_without_val_is_refused(tmp_path: Path) -> None:
    build(tmp_path, *pair("train/car"))
    with pytest.raises(UserError, match="is a training folder"):
        find_test_sets(str(tmp_path))


def test_validation_on_the_training_split_is_not_augmented(dataroot: Path) -> None:
    loader = create_dataloader(train_options(dataroot), split="train")
    assert loader.dataset.protocol.augment is None
    assert [key.index for key in loader.sampler] == list(range(16))


def test_minibench_is_found_and_readable(minibench: Path) -> None:
    _, sets = find_test_sets(str(minibench / "test"))
    found = {s.generator: (s.labels.count(0), s.labels.count(1)) for s in sets}
    assert found == {"bsds_real_only": (100, 0), "cyclegan": (50, 50), "sd1": (67, 67)}
    loader = evaluation_loader(sets[0], Protocol("native"), batch_size=32)
    assert sum(len(batch.labels) for batch in loader.batches()) == 100
    assert not loader.left_out


@pytest.mark.parametrize("cache", [False, True])
def test_both_classes_get_random_histories_in_training(tmp_path: Path, cache: bool) -> None:
    make_set(tmp_path / "train" / "car", 40, 48)
    make_set(tmp_path / "val" / "car", 1)
    options = {
        "no_flip": True,
        "no_resize": True,
        "serial_batches": True,
        "cache": str(tmp_path / "cache") if cache else None,
    }
    originals, seen = [], []
    for degrade, cropped in ((0.0, {"no_crop": True, "cropSize": None}), (0.5, {"cropSize": 32})):
        loader = create_dataloader(
            train_options(tmp_path, degrade=degrade, loadSize=None, **{**options, **cropped})
        )
        pictures = [pixels for batch in loader.batches() for pixels in batch.pixels]
        (seen if degrade else originals).extend(pictures)
    changed = [not window_of(part, whole) for part, whole in zip(seen, originals, strict=True)]
    for label in (0, 1):  # left alone with probability 0.5 * 0.75 * 0.75 * 0.5
        assert 24 <= sum(changed[40 * label : 40 * (label + 1)]) <= 40


def window_of(part: torch.Tensor, whole: torch.Tensor) -> bool:
    """Whether [3, h, w] is cut out of [3, H, W]."""
    windows = whole.unfold(1, part.shape[1], 1).unfold(2, part.shape[2], 1)
    return bool((windows == part[:, None, None]).all(-1).all(-1).all(0).any())

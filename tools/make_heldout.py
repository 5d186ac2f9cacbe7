"""Make a validation suite of unseen up-samplers, compression and resizing, without a download.

Photographs of DATAROOT/val pass through small auto-encoders, which are trained here on the
photographs of DATAROOT/train and whose decoders up-sample in three ways. Photographs and fakes of
DATAROOT/val pass through WebP, through noise, and through a resize that training does not have.
--photographs adds real photographs of other sources, which a detector may call generated only
because they are unfamiliar. Choose between detectors by this suite, and keep the test set for the
end.

    python -m tools.make_heldout --dataroot ./datasets/ForenSynths_train_val --classes car,cat \\
        --photographs ~/Pictures --output ./datasets/heldout
    python test.py --name my_model --dataroot ./datasets/heldout

Writes, all images as PNG:
    OUTPUT/seen{,_webp,_resized,_noisy}/{0_real,1_fake}/   DATAROOT/val as it is, and degraded
    OUTPUT/rebuilt_{transposed,nearest,shuffled}/{0_real,1_fake}/
                                                           its photographs, and their copies
    OUTPUT/rebuilt_NAME_webp/{0_real,1_fake}/              the same after WebP
    OUTPUT/elsewhere{,_shrunk}/{0_real,1_fake}/            parts of the images in --photographs, as
                                                           they are and shrunk first, and the fakes
                                                           of DATAROOT/val, likewise
    OUTPUT/heldout.json                                    settings, and PSNR of each auto-encoder
                                                           in dB
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as TF
from tqdm import tqdm

from data.decode import UnreadableImage, read_image
from data.degradations import NOTHING, Degradation, parse_degradation
from data.image_sets import FAKE, REAL, WRITTEN_CLASS_FOLDERS, ImageSet
from data.splits import load_set
from inference.inputs import Inputs
from options.flags import OneLineParser
from tools.make_fakes.autoencoders import (
    CROP,
    STEPS,
    UP_SAMPLERS,
    AutoEncoder,
    rebuilt,
    train_autoencoder,
)
from tools.make_fakes.rebuilding import (
    mean_squared_error,
    photographs,
    psnr,
    rebuilding_parser,
    require_new,
    require_splits,
    save,
    training_photographs,
    warn_of_noise,
    write_report,
)
from util import UserError, atomic_folder, log, printable, run_script, start_logging, writing

BEFORE = parse_degradation("resize:0.8:lanczos")  # applied to photographs before they are rebuilt
SEEN = {
    "seen": "clean",
    "seen_webp": "webp:70",
    "seen_resized": "resize:0.8:lanczos",
    "seen_noisy": "noise:3",
}
REBUILT_WEBP = parse_degradation("webp:80")
ELSEWHERE, SHRUNK = "elsewhere", "elsewhere_shrunk"
PART = 256  # side in pixels of the parts of photographs of other sources
GRID = 8  # parts start on the grid of JPEG
SHORT_SIDE = 320  # pixels; larger photographs of other sources are shrunk to it


def write_degraded(
    folder: Path,
    images: ImageSet,
    degradation: Degradation,
    seed: int,
    progress: Callable[[], object] = lambda: None,
) -> None:
    """Write each image of a set after a degradation; skip unreadable ones with a warning.

    Args:
        folder: folder to make, with class folders.
        images: the set.
        degradation: applied to each image.
        seed: seed of the degradation.
        progress: called after each image.
    """
    for number, (path, label) in enumerate(zip(images.paths, images.labels, strict=True)):
        try:
            image = degradation(read_image(path), np.random.default_rng((seed, number)))
        except UnreadableImage as error:
            log.warning("skipped %s (%s)", printable(path), error)
        else:
            save(image, folder / WRITTEN_CLASS_FOLDERS[label], number)
        progress()


def write_rebuilt(
    output: Path, name: str, model: AutoEncoder, validation: ImageSet, seed: int
) -> float:
    """Write photographs and their copies by an auto-encoder, as they are and after WebP.

    Args:
        output: folder of the suite.
        name: folder to make, beside NAME_webp.
        model: the auto-encoder.
        validation: set with the photographs.
        seed: seed of the shrinking.

    Returns:
        The PSNR of the copies in dB.

    Raises:
        UserError: no photograph is large enough.
    """
    errors = []
    for number, pixels in enumerate(photographs(validation, BEFORE, seed)):
        copy = rebuilt(model, pixels)
        errors.append(mean_squared_error(copy, pixels))
        for label, values in ((REAL, pixels), (FAKE, copy)):
            image = TF.to_pil_image(values)
            save(image, output / name / WRITTEN_CLASS_FOLDERS[label], number)
            save(
                REBUILT_WEBP(image, np.random.default_rng(0)),
                output / f"{name}_webp" / WRITTEN_CLASS_FOLDERS[label],
                number,
            )
    if not errors:
        raise UserError(
            f"--dataroot: no photograph of val/ has {CROP} pixels a side after shrinking; "
            "pass a dataset with larger images"
        )
    return psnr(errors)


def part(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Return a random part with sides of at most `PART` pixels that starts on the grid of JPEG."""
    width, height = (min(PART, side) for side in image.size)
    left, top = (
        GRID * int(rng.integers((side - PART) // GRID + 1)) if side > PART else 0
        for side in image.size
    )
    return image.crop((left, top, left + width, top + height))


def shrunk(image: Image.Image) -> Image.Image:
    """Shrink an image to a short side of `SHORT_SIDE` pixels; a small one by `BEFORE`."""
    if min(image.size) * 0.8 <= SHORT_SIDE:
        return BEFORE(image, np.random.default_rng(0))
    return TF.resize(image, [SHORT_SIDE], InterpolationMode.LANCZOS)


def write_elsewhere(output: Path, folder: Path, generated: ImageSet, seed: int) -> int:
    """Write parts of photographs of other sources, and generated images as the other class.

    Args:
        output: folder of the suite.
        folder: photographs of other sources.
        generated: set of generated images.
        seed: seed of all that is drawn.

    Returns:
        The number of photographs.

    Raises:
        UserError: no image in `folder` can be read.
    """
    count = 0
    for number, source in enumerate(
        tqdm(Inputs([str(folder)]), desc=ELSEWHERE, disable=None, leave=False)
    ):
        try:
            image = read_image(source.path)
        except UnreadableImage as error:
            log.warning("skipped %s (%s)", printable(source.path), error)
            continue
        for name, variant in ((ELSEWHERE, image), (SHRUNK, shrunk(image))):
            save(
                part(variant, np.random.default_rng((seed, number))),
                output / name / WRITTEN_CLASS_FOLDERS[REAL],
                number,
            )
        count += 1
    if not count:
        raise UserError(f"--photographs {folder}: no image in it can be read; pass another folder")
    for name, degradation in ((ELSEWHERE, NOTHING), (SHRUNK, BEFORE)):
        write_degraded(output / name, generated, degradation, seed)
    return count


def parser() -> OneLineParser:
    """Return the parser of the command line."""
    parser = rebuilding_parser("make_heldout", __doc__, steps=STEPS, seed=0)
    parser.add_argument(
        "--photographs",
        type=Path,
        help="folder of real photographs of other sources (default: none)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Make the suite; return 0."""
    args = parser().parse_args(argv)
    start_logging()
    require_splits(args.dataroot)
    if args.photographs is not None and not args.photographs.is_dir():
        raise UserError(f"--photographs {args.photographs}: no such folder; pass one that exists")
    require_new(args.output)
    with writing(args.output), atomic_folder(args.output) as folder:
        validation = load_set(args.dataroot / "val", classes=args.classes)
        training = training_photographs(
            load_set(args.dataroot / "train", classes=args.classes), BEFORE, args.seed
        )
        if args.photographs is not None:
            count = write_elsewhere(folder, args.photographs, validation.of_class(FAKE), args.seed)
            log.info("photographs of other sources: %d", count)
        decibel = {}
        total = len(UP_SAMPLERS) * args.steps + len(SEEN) * len(validation.paths)
        with tqdm(total=total, disable=None, desc="held-out suite", leave=False) as bar:
            for name, degradation in SEEN.items():
                write_degraded(
                    folder / name, validation, parse_degradation(degradation), args.seed, bar.update
                )
            for name in UP_SAMPLERS:
                model = train_autoencoder(name, training, args.seed, args.steps, bar.update)
                decibel[name] = write_rebuilt(folder, name, model, validation, args.seed)
                log.info("%s: PSNR %.2f dB", name, decibel[name])
        warn_of_noise(decibel)
        write_report(folder / "heldout.json", args, decibel)
    log.info("written: %s", args.output)
    return 0


if __name__ == "__main__":
    run_script(main)

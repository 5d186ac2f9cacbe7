"""Make a validation suite of what a detector has not been trained on: other up-samplers,
compression and resizing; no download.

Photographs of DATAROOT/val are passed through small auto-encoders, trained here on those of
DATAROOT/train, whose decoders up-sample in three ways. Photographs and fakes of DATAROOT/val go
through WebP, and through another resize than training has. --photographs adds real photographs of
other sources, which a detector may call generated only because they are unfamiliar. Choose between
detectors by this suite, and keep the test set for the end.

    python -m tools.make_heldout --dataroot ./datasets/ForenSynths_train_val --classes car,cat \\
        --photographs ~/Pictures --output ./datasets/heldout
    python test.py --name my_model --dataroot ./datasets/heldout

Writes, all images as PNG:
    OUTPUT/seen{,_webp,_resized,_noisy}/{0_real,1_fake}/   DATAROOT/val as it is, and degraded
    OUTPUT/rebuilt_{transposed,nearest,shuffled}/{0_real,1_fake}/
                                                           its photographs, and the same rebuilt
    OUTPUT/rebuilt_NAME_webp/{0_real,1_fake}/              the same after WebP
    OUTPUT/elsewhere{,_shrunk}/{0_real,1_fake}/            parts of the images in --photographs, as
                                                           they are and shrunk before, beside the
                                                           fakes of DATAROOT/val, likewise
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
from data.image_sets import FAKE, REAL, ImageSet
from data.layouts import load_set
from inference.inputs import Inputs
from options.base_options import OneLineParser
from tools.make_fakes.autoencoders import (
    CROP,
    STEPS,
    UP_SAMPLERS,
    AutoEncoder,
    rebuilt,
    train_autoencoder,
)
from tools.make_fakes.rebuilding import (
    CLASS_FOLDERS,
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

BEFORE = parse_degradation("resize:0.8:lanczos")
"""Of photographs that are rebuilt, and of those beside them."""
SEEN = {
    "seen": "clean",
    "seen_webp": "webp:70",
    "seen_resized": "resize:0.8:lanczos",
    "seen_noisy": "noise:3",
}
REBUILT_WEBP = parse_degradation("webp:80")
ELSEWHERE, SHRUNK = "elsewhere", "elsewhere_shrunk"
PART, GRID, SHORT_SIDE = 256, 8, 320
"""Pixels: sides of the parts of photographs of other sources, the grid that they start on (that of
JPEG), and the short side that photographs are shrunk to before, where they are larger."""


def write_degraded(
    folder: Path,
    images: ImageSet,
    degradation: Degradation,
    seed: int,
    progress: Callable[[], object] = lambda: None,
) -> None:
    """Each picture of a set after a degradation."""
    for number, (path, label) in enumerate(zip(images.paths, images.labels, strict=True)):
        try:
            picture = degradation(read_image(path), np.random.default_rng((seed, number)))
        except UnreadableImage as error:
            log.warning("left out %s (%s)", printable(path), error)
        else:
            save(picture, folder / CLASS_FOLDERS[label], number)
        progress()


def write_rebuilt(
    output: Path, name: str, model: AutoEncoder, validation: ImageSet, seed: int
) -> float:
    """Photographs and their copies by an auto-encoder, as they are and after WebP; the PSNR of the
    copies in dB."""
    errors = []
    for number, pixels in enumerate(photographs(validation, BEFORE, seed)):
        made = rebuilt(model, pixels)
        errors.append(mean_squared_error(made, pixels))
        for label, values in ((REAL, pixels), (FAKE, made)):
            picture = TF.to_pil_image(values)
            save(picture, output / name / CLASS_FOLDERS[label], number)
            save(
                REBUILT_WEBP(picture, np.random.default_rng(0)),
                output / f"{name}_webp" / CLASS_FOLDERS[label],
                number,
            )
    if not errors:
        raise UserError(
            f"--dataroot: no photograph of val/ has {CROP} pixels a side after shrinking"
        )
    return psnr(errors)


def part(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A random part with sides of `PART` pixels, or less where there are no more, that starts on
    the grid of JPEG."""
    width, height = (min(PART, side) for side in image.size)
    left, top = (
        GRID * int(rng.integers((side - PART) // GRID + 1)) if side > PART else 0
        for side in image.size
    )
    return image.crop((left, top, left + width, top + height))


def shrunk(image: Image.Image) -> Image.Image:
    """To a short side of `SHORT_SIDE` pixels; smaller ones as `BEFORE` does."""
    if min(image.size) * 0.8 <= SHORT_SIDE:
        return BEFORE(image, np.random.default_rng(0))
    return TF.resize(image, [SHORT_SIDE], InterpolationMode.LANCZOS)


def write_elsewhere(output: Path, folder: Path, generated: ImageSet, seed: int) -> int:
    """Parts of photographs of other sources beside generated pictures; how many there are.

    Raises:
        UserError: no picture in `folder` can be read.
    """
    count = 0
    for number, found in enumerate(
        tqdm(Inputs([str(folder)]), desc=ELSEWHERE, disable=None, leave=False)
    ):
        try:
            picture = read_image(found.path)
        except UnreadableImage as error:
            log.warning("left out %s (%s)", printable(found.path), error)
            continue
        for name, whole_picture in ((ELSEWHERE, picture), (SHRUNK, shrunk(picture))):
            save(
                part(whole_picture, np.random.default_rng((seed, number))),
                output / name / CLASS_FOLDERS[REAL],
                number,
            )
        count += 1
    if not count:
        raise UserError(f"--photographs {folder}: no picture in it can be read")
    for name, degradation in ((ELSEWHERE, NOTHING), (SHRUNK, BEFORE)):
        write_degraded(output / name, generated, degradation, seed)
    return count


def parser() -> OneLineParser:
    """Return the parser of the command line."""
    made = rebuilding_parser("make_heldout", __doc__, steps=STEPS, seed=0)
    made.add_argument(
        "--photographs",
        type=Path,
        help="folder of real photographs of other sources; none when left out",
    )
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Make the suite; returns 0."""
    args = parser().parse_args(argv)
    start_logging()
    require_splits(args.dataroot)
    if args.photographs is not None and not args.photographs.is_dir():
        raise UserError(f"--photographs {args.photographs}: no such folder")
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

"""Make a validation suite of what a detector has not been trained on: other up-samplers, compression and resizing, no download.

Photographs of DATAROOT/val are passed through small auto-encoders, trained here on those of DATAROOT/train, whose decoders
up-sample in three ways; and its photographs and generated pictures go through WebP, and through another resize than training has.
Choose between detectors by these, and keep the test set for the end.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor
from torchvision.transforms import functional as TF
from tqdm import tqdm

from data.decode import UnreadableImage, read_image
from data.degradations import Degradation, parse_degradation
from data.image_sets import FAKE, REAL, ImageSet
from data.layouts import load_set
from tools._autoencoders import STEPS, UP_SAMPLERS, rebuilt, train_autoencoder
from tools._rebuilding import CLASS_FOLDERS, photographs_of, psnr, require_splits, save
from util import UserError, log, printable, run_script, start_logging

BEFORE = parse_degradation("resize:0.8:lanczos")
"""Of photographs that are rebuilt, and of those beside them."""
SEEN = {"seen": "clean", "seen_webp": "webp:70", "seen_resized": "resize:0.8:lanczos", "seen_noisy": "noise:3"}
REBUILT_WEBP = parse_degradation("webp:80")
EPILOG = f"""
made, all PNG:
  OUTPUT/{{{",".join(SEEN)}}}/{{0_real,1_fake}}/      DATAROOT/val as it is, and degraded
  OUTPUT/{{{",".join(UP_SAMPLERS)}}}/{{0_real,1_fake}}/   its photographs, and the same rebuilt
  OUTPUT/NAME_webp/{{0_real,1_fake}}/                 the same after WebP, for each of those three
  OUTPUT/heldout.json                                 settings, and PSNR of each auto-encoder in dB

examples:
  python -m tools.make_heldout --dataroot ./datasets/ForenSynths_train_val --classes car,cat --output ./datasets/heldout
  python test.py --name my_model --dataroot ./datasets/heldout
"""


def write_degraded(
    folder: Path, images: ImageSet, degradation: Degradation, seed: int, progress: Callable[[], object]
) -> None:
    """Each picture of a set after a degradation."""
    for number, (path, label) in enumerate(zip(images.paths, images.labels, strict=True)):
        try:
            picture = degradation(read_image(path), np.random.default_rng((seed, number)))
        except UnreadableImage as error:
            log.warning("left out %s (%s)", printable(path), error)
            continue
        save(picture, folder / CLASS_FOLDERS[label], number)
        progress()


def write_rebuilt(output: Path, name: str, photographs: Sequence[Tensor], made: Sequence[Tensor]) -> None:
    """Photographs and their copies, as they are and after WebP."""
    for label, pictures in ((REAL, photographs), (FAKE, made)):
        for number, pixels in enumerate(pictures):
            picture = TF.to_pil_image(pixels)
            save(picture, output / name / CLASS_FOLDERS[label], number)
            save(
                REBUILT_WEBP(picture, np.random.default_rng(0)), output / f"{name}_webp" / CLASS_FOLDERS[label], number
            )


def main(argv: Sequence[str] | None = None) -> int:
    """Make the suite; returns 0."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.make_heldout",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--dataroot", type=Path, required=True, help="folder that holds train/ and val/")
    parser.add_argument(
        "--classes", type=lambda text: tuple(text.split(",")), default=(), help="class folders; all when left out"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder to make; must not exist")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"training steps of each auto-encoder ({STEPS})")
    parser.add_argument("--seed", type=int, default=0, help="of the auto-encoders and the noise (0)")
    args = parser.parse_args(argv)
    start_logging()
    require_splits(args.dataroot, args.output)
    if args.steps < 1:
        raise UserError(f"--steps {args.steps}: must be at least 1")
    validation = load_set(args.dataroot / "val", classes=args.classes)
    training = photographs_of(load_set(args.dataroot / "train", classes=args.classes), BEFORE, args.seed)
    photographs = photographs_of(validation, BEFORE, args.seed)
    found = {}
    total = len(UP_SAMPLERS) * args.steps + len(SEEN) * len(validation.paths)
    with tqdm(total=total, disable=None, desc="held-out suite", leave=False) as progress:
        for name, degradation in SEEN.items():
            write_degraded(args.output / name, validation, parse_degradation(degradation), args.seed, progress.update)
        for name in UP_SAMPLERS:
            model = train_autoencoder(name, training, args.seed, args.steps, progress.update)
            made = list(map(partial(rebuilt, model), photographs))
            write_rebuilt(args.output, name, photographs, made)
            found[name] = round(psnr(photographs, made), 2)
            log.info("%s: PSNR %.2f dB", name, found[name])
    settings = {"seed": args.seed, "steps": args.steps, "dataroot": str(args.dataroot), "classes": list(args.classes)}
    (args.output / "heldout.json").write_text(json.dumps({"settings": settings, "psnr": found}, indent=2) + "\n")
    log.info("written: %s", args.output)
    return 0


if __name__ == "__main__":
    run_script(main)

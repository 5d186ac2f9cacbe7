"""Make generated pictures to train on from the photographs of a training set: rebuilt by auto-encoders, no download.

Each photograph is shrunk a little and passed through one of several small auto-encoders, trained here on the training photographs;
their decoders up-sample as those of generators do. Photograph and copy show the same, so that only the trace differs
(Zhang et al., WIFS 2019, arXiv 1907.06515; Rajan et al., ICLR 2025, arXiv 2410.11835).
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as TF
from tqdm import tqdm

from data.image_sets import FAKE, REAL, subfolders
from data.layouts import load_set
from tools._autoencoders import UP_SAMPLERS, AutoEncoder, rebuilt, train_autoencoder
from tools._rebuilding import CLASS_FOLDERS, photographs_of, psnr, require_splits, save
from util import UserError, log, run_script, start_logging

STEPS = 700
SHRINK = (0.6, 0.95)
"""Factors of both sides."""
INTERPOLATIONS = (InterpolationMode.BILINEAR, InterpolationMode.BICUBIC)
CLASS = "rebuilt"
EPILOG = f"""
made:
  OUTPUT/{{train,val}}/{CLASS}/{{0_real,1_fake}}/*.png   photographs, shrunk, and the same rebuilt
  OUTPUT/{{train,val}}/CLASS                           links to the classes of DATAROOT, so that OUTPUT is a data root of its own
  OUTPUT/fakes.json                                  settings, and PSNR of each auto-encoder in dB

examples:
  python -m tools.make_fakes --dataroot ./datasets/ForenSynths_train_val --classes car,cat --output ./datasets/with_fakes
  python train.py --name robust --recipe robust --model_type multiscale_attention --dataroot ./datasets/with_fakes
"""


def shrink(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Both sides times a random factor, by a random interpolation."""
    factor, mode = rng.uniform(*SHRINK), INTERPOLATIONS[int(rng.integers(len(INTERPOLATIONS)))]
    return TF.resize(image, [max(1, round(side * factor)) for side in image.size[::-1]], mode)


def write_split(
    dataroot: Path, output: Path, classes: tuple[str, ...], models: Sequence[AutoEncoder], seed: int
) -> dict[int, float]:
    """Photographs and copies of a split, each by a model drawn for it; the PSNR of each model's in dB, by its number."""
    photographs = photographs_of(load_set(dataroot, classes=classes), shrink, seed)
    drawn = np.random.default_rng((seed, len(photographs))).integers(len(models), size=len(photographs))
    made = [rebuilt(models[which], pixels) for which, pixels in zip(drawn, photographs, strict=True)]
    for label, pictures in ((REAL, photographs), (FAKE, made)):
        for number, pixels in enumerate(pictures):
            save(TF.to_pil_image(pixels), output / CLASS / CLASS_FOLDERS[label], number)
    for folder in subfolders(dataroot):
        if not classes or folder.name in classes:
            (output / folder.name).symlink_to(folder.resolve(), target_is_directory=True)
    of = {which: np.flatnonzero(drawn == which) for which in np.unique(drawn).tolist()}
    return {which: psnr([photographs[i] for i in those], [made[i] for i in those]) for which, those in of.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Make the pictures; returns 0."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.make_fakes",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--dataroot", type=Path, required=True, help="folder that holds train/ and val/")
    parser.add_argument(
        "--classes", type=lambda text: tuple(text.split(",")), default=(), help="class folders; all when left out"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder to make; must not exist")
    parser.add_argument("--up_samplers", type=lambda text: tuple(text.split(",")), default=tuple(UP_SAMPLERS),
                        help=f"of the auto-encoders' decoders, of {','.join(UP_SAMPLERS)}; all when left out")  # fmt: skip
    parser.add_argument("--steps", type=int, default=STEPS, help=f"training steps of each auto-encoder ({STEPS})")
    parser.add_argument("--seed", type=int, default=1, help="of the auto-encoders and all that is drawn (1)")
    args = parser.parse_args(argv)
    start_logging()
    require_splits(args.dataroot, args.output)
    if args.steps < 1:
        raise UserError(f"--steps {args.steps}: must be at least 1")
    if unknown := [name for name in args.up_samplers if name not in UP_SAMPLERS]:
        raise UserError(f"--up_samplers {','.join(unknown)}: unknown; of {','.join(UP_SAMPLERS)}")
    photographs = photographs_of(load_set(args.dataroot / "train", classes=args.classes), shrink, args.seed)
    with tqdm(total=len(args.up_samplers) * args.steps, disable=None, desc="auto-encoders", leave=False) as progress:
        models = [
            train_autoencoder(name, photographs, args.seed, args.steps, progress.update) for name in args.up_samplers
        ]
    found = {}
    for split in ("train", "val"):
        decibel = write_split(args.dataroot / split, args.output / split, args.classes, models, args.seed)
        found[split] = {args.up_samplers[which]: round(value, 2) for which, value in decibel.items()}
        log.info("%s: PSNR in dB %s", split, found[split])
    settings = {"seed": args.seed, "steps": args.steps, "dataroot": str(args.dataroot), "classes": list(args.classes)}
    (args.output / "fakes.json").write_text(json.dumps({"settings": settings, "psnr": found}, indent=2) + "\n")
    log.info("written: %s", args.output)
    return 0


if __name__ == "__main__":
    run_script(main)

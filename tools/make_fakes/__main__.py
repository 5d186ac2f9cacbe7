"""Make fakes for training: photographs of a training set rebuilt by auto-encoders, no download.

Each photograph is shrunk a little and passed through one of several small auto-encoders. They are
trained here on the training photographs: first to rebuild them, then against a discriminator, so
that copies are as sharp as photographs. Their decoders up-sample as those of generators do.
Photograph and copy show the same content, so only the trace differs (Zhang et al., WIFS 2019, arXiv
1907.06515; Rajan et al., ICLR 2025, arXiv 2410.11835). docs/research-log.md measures what detectors
gain and lose by them.

    python -m tools.make_fakes --dataroot ./datasets/ForenSynths_train_val --classes car,cat \\
        --output ./datasets/with_fakes
    python train.py --name robust --recipe robust --model_type multiscale_attention \\
        --dataroot ./datasets/with_fakes

Writes:
    OUTPUT/{train,val}/rebuilt/{0_real,1_fake}/*.png   shrunk photographs, and their copies
    OUTPUT/{train,val}/CLASS                           links to the classes of DATAROOT (a DATAROOT
                                                       without classes is linked as "originals"),
                                                       so that OUTPUT is a data root
    OUTPUT/fakes.json                                  settings, and PSNR of each auto-encoder in dB
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as TF
from tqdm import tqdm

from data.folders import class_folders
from data.image_sets import FAKE, REAL, WRITTEN_CLASS_FOLDERS, subfolders
from data.splits import load_set
from options.flags import OneLineParser, names, whole
from tools.make_fakes.adversarial import STEPS as ADVERSARIAL_STEPS
from tools.make_fakes.adversarial import train_adversarially
from tools.make_fakes.autoencoders import UP_SAMPLERS, AutoEncoder, rebuilt, train_autoencoder
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
from util import UserError, atomic_folder, log, run_script, start_logging, writing

STEPS = 400  # fewer than in make_heldout: adversarial steps follow
SHRINK = (0.6, 0.95)  # smallest and largest factor of both sides
INTERPOLATIONS = (InterpolationMode.BILINEAR, InterpolationMode.BICUBIC)
CLASS = "rebuilt"  # class folder of the new images


def shrink(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Resize an image by a random factor of `SHRINK` with a random interpolation."""
    factor, mode = rng.uniform(*SHRINK), INTERPOLATIONS[int(rng.integers(len(INTERPOLATIONS)))]
    return TF.resize(image, [max(1, round(side * factor)) for side in image.size[::-1]], mode)


def write_split(
    dataroot: Path,
    output: Path,
    classes: tuple[str, ...],
    models: dict[str, AutoEncoder],
    seed: int,
) -> dict[str, float]:
    """Write shrunk photographs and copies of a split, and link its classes.

    Args:
        dataroot: folder of the split, with images to read.
        output: folder of the split to write.
        classes: class folders to use; empty: all.
        models: auto-encoders by name, one of which is drawn for each photograph.
        seed: seed of all that is drawn.

    Returns:
        The PSNR of each model's copies in dB.
    """
    rng, model_names = np.random.default_rng(seed), list(models)
    errors: dict[str, list[float]] = {}
    for number, pixels in enumerate(photographs(load_set(dataroot, classes=classes), shrink, seed)):
        name = model_names[int(rng.integers(len(model_names)))]
        copy = rebuilt(models[name], pixels)
        errors.setdefault(name, []).append(mean_squared_error(copy, pixels))
        for label, image in ((REAL, pixels), (FAKE, copy)):
            save(TF.to_pil_image(image), output / CLASS / WRITTEN_CLASS_FOLDERS[label], number)
    # missing if no photograph was large enough
    output.mkdir(parents=True, exist_ok=True)
    originals = (
        {"originals": dataroot}
        if class_folders(dataroot)
        else {sub.name: sub for sub in subfolders(dataroot)}
    )
    for name, folder in originals.items():
        if not classes or name in classes:
            (output / name).symlink_to(folder.resolve(), target_is_directory=True)
    return {name: psnr(of_model) for name, of_model in sorted(errors.items())}


def parser() -> OneLineParser:
    """Return the parser of the command line."""
    parser = rebuilding_parser("make_fakes", __doc__, steps=STEPS, seed=1)
    parser.add_argument(
        "--up_samplers",
        type=names,
        default=tuple(UP_SAMPLERS),
        help="comma-separated up-samplers of the decoders, an auto-encoder each "
        f"(default: {','.join(UP_SAMPLERS)})",
    )
    parser.add_argument(
        "--adversarial_steps",
        type=whole(0),
        default=ADVERSARIAL_STEPS,
        help="further training steps against a discriminator; 0 leaves copies blurred "
        f"(default: {ADVERSARIAL_STEPS})",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Make the fakes; return 0."""
    args = parser().parse_args(argv)
    start_logging()
    require_splits(args.dataroot)
    if unknown := [name for name in args.up_samplers if name not in UP_SAMPLERS]:
        raise UserError(
            f"--up_samplers {','.join(unknown)}: unknown; pass some of {','.join(UP_SAMPLERS)}"
        )
    for split in ("train", "val"):
        if (args.dataroot / split / CLASS).exists():
            raise UserError(
                f"--dataroot {args.dataroot}: has {split}/{CLASS} already; "
                "pass a folder without rebuilt images"
            )
    require_new(args.output)
    with writing(args.output), atomic_folder(args.output) as folder:
        training = training_photographs(
            load_set(args.dataroot / "train", classes=args.classes), shrink, args.seed
        )
        models = {}
        total = len(args.up_samplers) * (args.steps + args.adversarial_steps)
        with tqdm(total=total, disable=None, desc="auto-encoders", leave=False) as bar:
            for name in args.up_samplers:
                model = train_autoencoder(name, training, args.seed, args.steps, bar.update)
                models[name] = train_adversarially(
                    model, training, args.adversarial_steps, bar.update
                )
        decibel = {}
        for split in ("train", "val"):
            decibel[split] = write_split(
                args.dataroot / split, folder / split, args.classes, models, args.seed
            )
            log.info("%s: PSNR in dB %s", split, decibel[split])
        warn_of_noise(decibel["train"], " or fewer --adversarial_steps")
        write_report(folder / "fakes.json", args, decibel)
    log.info("written: %s", args.output)
    return 0


if __name__ == "__main__":
    run_script(main)

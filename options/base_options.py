"""Options shared by all scripts, and the parser of a command line to typed, frozen options."""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from options.flags import (
    OneLineParser,
    add_to_parser,
    comma_list,
    flag,
    gpu_list,
    names,
    one_of,
    scale,
    shown_value,
    unknown_flag,
    whole,
)

RETIRED_ANYWHERE = ("mode", "arch", "resize_or_crop", "last_epoch", "eval")
INTERPOLATIONS = ("bilinear", "bicubic", "lanczos", "nearest")
PRECISIONS = ("fp32", "bf16", "fp16", "auto")
NO_CHECKPOINT = (
    "argument --model_path: missing; pass the checkpoint to load, such as"
    " checkpoints/RUN/model_epoch_last.pth"
)
MODEL_TYPES = ("single_scale", "multiscale_attention")

GROUPS = {
    "model": "model_path model_type npr_scales feature_dim attention_reduction attention_residual "
    "backbone init_from init_type init_gain",
    "data": "dataroot train_split val_split test_dataroot classes real_names fake_names "
    "allow_one_class_folders class_bal serial_batches loadSize cropSize no_resize no_crop "
    "repeat_small rz_interp protocol list_protocols on_bad_image cache equalize robustness "
    "num_samples null fps max_frames",
    "augmentation": "no_flip data_aug blur_prob blur_sig jpg_prob jpg_method jpg_qual degrade",
    "optimisation": "recipe list_recipes niter optim lr beta1 lr_schedule delr_freq "
    "accumulation_steps sync_bn skip_nonfinite attention_entropy_weight "
    "attention_diversity_weight epoch_count earlystop_epoch",
    "run": "name suffix seed checkpoints_dir continue_train epoch new_optim loss_freq "
    "save_latest_freq save_epoch_freq attention_log_freq attention_patience results_dir bootstrap "
    "output_dir save_npr_maps num_maps pdf format output explain overwrite",
    "hardware": "gpu_ids precision batch_size num_threads compile fast",
}
"""Titles of --help's argument groups and the flags in each, in the order shown."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options as typed fields.

    `parse` reads them from a command line; `dataclasses.replace` makes a variant.
    """

    isTrain: ClassVar[bool] = False
    examples: ClassVar[str] = ""
    description: ClassVar[str] = ""
    retired: ClassVar[tuple[str, ...]] = ()

    gpu_ids: tuple[int, ...] = flag(
        (0,),
        "GPU to use, counted within CUDA_VISIBLE_DEVICES; -1 = CPU;"
        " under torchrun each process uses the GPU of its local rank",
        parse=gpu_list,
    )
    precision: str = flag(
        "fp32",
        "number format; auto = bf16 if the hardware supports it, else fp32",
        choices=PRECISIONS,
    )
    checkpoints_dir: str = flag("./checkpoints", "folder of run folders")

    def __post_init__(self) -> None:
        # argparse collects several values into a list
        for field in dataclasses.fields(self):
            if isinstance(value := getattr(self, field.name), list):
                object.__setattr__(self, field.name, tuple(value))

    @classmethod
    def parser(cls) -> argparse.ArgumentParser:
        """Return the argument parser of these options, in the groups of --help."""
        fields = {field.name: field for field in dataclasses.fields(cls)}
        positional = [field for field in fields.values() if field.metadata["cli"]["positional"]]
        parser = OneLineParser(
            usage=" ".join(["%(prog)s [--flag value ...]", *("PATH ..." for _ in positional)]),
            description=cls.description,
            epilog=cls.examples,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        for field in positional:
            add_to_parser(parser, field)
            del fields[field.name]
        for title, names_of_group in GROUPS.items():
            group = parser.add_argument_group(title)
            for name in names_of_group.split():
                if name in fields:
                    add_to_parser(group, fields.pop(name))
        assert not fields, f"flags without a group: {', '.join(fields)}"
        for name in cls.retired:
            parser.add_argument(
                f"--{name}",
                nargs="?",
                const=True,
                default=argparse.SUPPRESS,
                help=argparse.SUPPRESS,
            )
        return parser

    def parse(self, argv: Sequence[str] | None = None, print_options: bool = True) -> Self:
        """Parse and check a command line; options of `self` are the defaults.

        Args:
            argv: words after the script's name; None = those of the running program.
            print_options: print every option and mark those that differ from the default.

        Returns:
            New options. No file is written and no GPU is chosen.

        Raises:
            SystemExit: status 2, after one line with the flag, the value and what would be right.
        """
        parser = self.parser()
        argv = sys.argv[1:] if argv is None else argv
        for word in argv:
            # argparse does not read -- as a value
            if word.startswith("--") and word.endswith("=--"):
                parser.error(f"argument {word.removesuffix('=--')}: -- is not a value")
        chosen, unknown = self._split(parser, list(argv))
        if unknown:
            parser.error(unknown_flag(parser, unknown))
        retired = [f"--{name}" for name in self.retired if chosen.pop(name, None) is not None]
        if retired:
            print(
                f"warning: {', '.join(retired)}: accepted for old command lines, without effect",
                file=sys.stderr,
            )
        opt = dataclasses.replace(self, **(self.preset_values(chosen) | chosen))
        problem = opt.problem()
        if problem:
            parser.error(problem)
        for line in opt.warnings():
            print(f"warning: {line}", file=sys.stderr)
        if print_options:
            print(opt.dump())
        return opt

    def preset_values(self, chosen: dict[str, Any]) -> dict[str, Any]:
        """Return values that the chosen flags imply; the chosen ones win over them."""
        return {}

    def _split(
        self, parser: argparse.ArgumentParser, argv: list[str]
    ) -> tuple[dict[str, Any], list[str]]:
        """Return the values on the command line by field, and the unknown words.

        A positional field takes words anywhere, and all words after --.
        """
        fields = dataclasses.fields(self)
        positional = next(
            (field.name for field in fields if field.metadata["cli"]["positional"]), None
        )
        if positional is None:
            words, unknown = parser.parse_known_args(argv)
            return vars(words), unknown
        # argparse forgets -- where words stand between flags
        end = argv.index("--") if "--" in argv else len(argv)
        words, unknown = parser.parse_known_intermixed_args(argv[:end])
        chosen = vars(words)
        chosen[positional] = [*chosen.get(positional, ()), *argv[end + 1 :]]
        return chosen, unknown

    def problem(self) -> str | None:
        """Return the error of a combination of values, as 'flag value: remedy'; None if valid."""
        return None

    def warnings(self) -> list[str]:
        """Return warnings about combinations that run, but not as users may expect."""
        return []

    def dump(self) -> str:
        """Return all options as text, one a line, with the default beside those that differ."""
        lines = ["----------------- Options ---------------"]
        for field in sorted(dataclasses.fields(self), key=lambda field: field.name.lower()):
            value = getattr(self, field.name)
            note = "" if value == field.default else f"\t[default: {shown_value(field.default)}]"
            lines.append(f"{field.name:>30}: {shown_value(value):<30}{note}".rstrip(" "))
        return "\n".join([*lines, "----------------- End -------------------"])

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values by field name, for a checkpoint."""
        values = dataclasses.asdict(self)
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
        }


def is_folder_or_file(path: str) -> bool:
    """Return True for a folder of images or a table of their paths and labels."""
    return Path(path).is_dir() or Path(path).is_file()


@dataclasses.dataclass(frozen=True, kw_only=True)
class BaseOptions(Options):
    """Options that train.py, test.py and visualize_attention.py share: images and preprocessing."""

    retired: ClassVar[tuple[str, ...]] = RETIRED_ANYWHERE

    dataroot: str | None = flag(None, "folder of images")
    batch_size: int = flag(
        64, "images per forward pass, over all processes together", parse=whole(1)
    )
    num_threads: int = flag(
        8,
        "workers that load images, per process; never more in all than there are cores",
        parse=whole(0),
    )
    seed: int = flag(100, "seed of all random numbers", parse=whole(0, 2**32 - 1))
    loadSize: int | None = flag(
        None,
        "resize both sides to this many pixels (default: 256 in training, else by protocol)",
        parse=whole(1),
    )
    cropSize: int | None = flag(
        None,
        "then crop a square of this many pixels (default: 224 in training, else by protocol)",
        parse=whole(1),
    )
    no_resize: bool = flag(False, "do not resize")
    no_crop: bool = flag(False, "do not crop")
    repeat_small: bool = flag(
        False, "repeat images smaller than the crop until they cover it (default: skip them)"
    )
    rz_interp: tuple[str, ...] = flag(
        ("bilinear",),
        f"interpolation of the resize: {', '.join(INTERPOLATIONS)};"
        " of several, training draws one per image",
        parse=comma_list(one_of(*INTERPOLATIONS)),
    )
    cache: str | None = flag(
        None,
        "folder for decoded images, so that every file is decoded once and not every epoch"
        " (default: no cache)",
    )
    on_bad_image: str = flag(
        "skip",
        "for a file that cannot be decoded (docs/files.md): skip = log its name and continue,"
        " fail = end the run",
        choices=("skip", "fail"),
    )
    classes: tuple[str, ...] = flag(
        (), "class folders to use, such as car,cat (default: all)", parse=names
    )
    real_names: tuple[str, ...] = flag(
        (),
        "further names of folders of real images, such as photos,coco, beside the usual ones"
        " (docs/data.md)",
        parse=names,
    )
    fake_names: tuple[str, ...] = flag(
        (), "further names of folders of generated images, such as flux,sd35", parse=names
    )

    def problem(self) -> str | None:
        if self.no_resize and self.loadSize is not None:
            return f"argument --loadSize {self.loadSize}: contradicts --no_resize; pass one of them"
        if self.no_crop and self.cropSize is not None:
            return f"argument --cropSize {self.cropSize}: contradicts --no_crop; pass one of them"
        if self.repeat_small and self.no_crop:
            return "argument --repeat_small: needs a crop; leave out --no_crop"
        if (
            self.loadSize is not None
            and self.cropSize is not None
            and self.cropSize > self.loadSize
        ):
            return (
                f"argument --cropSize {self.cropSize}: must not exceed --loadSize {self.loadSize}"
            )
        if both := {n.lower() for n in self.real_names} & {n.lower() for n in self.fake_names}:
            return f"argument --fake_names {','.join(sorted(both))}: also in --real_names; pass one"
        if self.dataroot is not None and not is_folder_or_file(self.dataroot):
            return (
                f"argument --dataroot {self.dataroot}: no such folder;"
                " pass the folder that holds the images, or a CSV file of paths and labels"
            )
        return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOptions(Options):
    """Options that choose a checkpoint by the name of its run."""

    name: str | None = flag(
        None, "instead of --model_path: use the newest run with this name in --checkpoints_dir"
    )
    epoch: str = flag(
        "last", "with --name: checkpoint to load: last, best or a number ('latest' means 'last')"
    )
    npr_scales: tuple[float, ...] | None = flag(
        None,
        "NPR scales; needed only for checkpoints of the earlier code, which do not store them",
        parse=comma_list(scale),
        aliases=("--scales",),
    )

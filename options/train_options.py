"""Options of train.py."""

import dataclasses
import importlib.util
from pathlib import Path
from typing import Any, ClassVar

from options.base_options import MODEL_TYPES, BaseOptions, is_folder_or_file
from options.flags import (
    comma_list,
    ends_of_range,
    flag,
    number,
    one_of,
    scale,
    unknown_flag,
    whole,
)
from options.presets import CONTRADICTIONS, NOT_IN_PRESETS, PUBLISHED, load_preset

INIT_TYPES = ("normal", "xavier", "kaiming", "orthogonal")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainOptions(BaseOptions):
    """Options of a training run; `TrainOptions().parse()` reads the command line."""

    isTrain: ClassVar[bool] = True
    description: ClassVar[str] = "Train a detector of generated images by their NPR residual."
    examples: ClassVar[str] = """examples:
  the published single-scale detector:
    python train.py --name baseline --dataroot ./datasets/ForenSynths_train_val \\
        --classes car,cat,chair,horse --batch_size 32 --lr 0.0002 --niter 50
  three scales fused by attention:
    python train.py --name three --model_type multiscale_attention --npr_scales 0.25,0.5,0.75 \\
        --dataroot DIR --niter 50
  a preset that is more robust to compression and resizing, and the list of presets:
    python train.py --name robust --recipe robust --model_type multiscale_attention --dataroot DIR
    python train.py --list_recipes
  resume the newest run of that name:
    python train.py --name three --model_type multiscale_attention --dataroot DIR --niter 50 \\
        --continue_train
  fine-tune a detector on other data:
    python train.py --name tuned --init_from checkpoints/RUN/model_epoch_best.pth \\
        --model_type multiscale_attention --dataroot DIR --lr 0.00002 --niter 10
  on four GPUs, 16 of the 64 images of a batch on each:
    torchrun --nproc_per_node=4 train.py --name three --model_type multiscale_attention \\
        --dataroot DIR --batch_size 64
"""

    dataroot: str = flag(
        "./dataset/",
        "folder with the train and val splits, <split>/<class>/{0_real,1_fake}/, or a CSV file with"
        " the columns path,label[,generator][,split] (docs/data.md)",
    )
    name: str = flag(
        "experiment_name", "name of the run; its folder is CHECKPOINTS_DIR/NAME_<time stamp>/"
    )
    suffix: str = flag(
        "", "added to the name; {flag} is replaced by that flag's value, as in b{batch_size}"
    )
    recipe: str = flag(
        PUBLISHED,
        "preset of flags, by name or as a custom .toml file; flags on the command line win over it",
    )
    list_recipes: bool = flag(False, "print the presets with their flags and exit")
    # model
    model_type: str = flag(
        "single_scale",
        "single_scale = the published detector; multiscale_attention = scales fused by attention",
        choices=MODEL_TYPES,
    )
    npr_scales: tuple[float, ...] | None = flag(
        None,
        "with --model_type multiscale_attention: its scales, numbers in (0,1) that may repeat"
        " (default: 0.25,0.5,0.75)",
        parse=comma_list(scale),
        aliases=("--scales",),
    )
    feature_dim: int = flag(128, "features per branch", parse=whole(1))
    attention_reduction: int = flag(
        4,
        "hidden units of the attention = feature_dim / VALUE; smaller = more capacity",
        parse=whole(1),
    )
    attention_residual: bool = flag(
        False, "add the mean of the branches to their attention-weighted sum"
    )
    backbone: str = flag(
        "light", "branch network: light, or a torchvision or timm classifier by name"
    )
    init_from: str | None = flag(
        None,
        "start from the weights of this checkpoint, with a fresh optimizer; tensors that do not fit"
        " are named and newly initialised (default: start from random weights)",
    )
    init_type: str | None = flag(
        None,
        "initialise all weights this way (default: each layer's own initialisation)",
        choices=INIT_TYPES,
    )
    init_gain: float | None = flag(
        None, "gain of --init_type (default: 0.02)", parse=number(above=0)
    )
    # loss
    attention_entropy_weight: float = flag(
        0.0,
        "weight of an entropy bonus in the loss; above 0 it rewards *uniform* attention",
        parse=number(),
    )
    attention_diversity_weight: float = flag(
        0.0,
        "weight of a loss term that rewards few scales per image and all scales over the batch"
        " (docs/research-log.md: it does, but AUC did not rise)",
        parse=number(minimum=0),
    )
    # optimisation
    optim: str = flag("adam", "optimizer", choices=("adam", "sgd"))
    lr: float = flag(0.0001, "initial learning rate", parse=number(above=0))
    beta1: float = flag(0.9, "Adam's beta1", parse=number(minimum=0, maximum=0.999999))
    niter: int = flag(1000, "epochs", parse=whole(1))
    lr_schedule: str = flag(
        "step",
        "step: see --delr_freq; cosine: half a cosine from --lr to 0 over --niter epochs"
        " (Loshchilov and Hutter, 2017)",
        choices=("step", "cosine"),
    )
    delr_freq: int = flag(
        20, "multiply the learning rate by 0.9 every this many epochs, down to 1e-6", parse=whole(1)
    )
    sync_bn: bool = flag(
        False,
        "several processes on GPUs: BatchNorm over the whole batch"
        " (default: over each process' part of it)",
    )
    accumulation_steps: int = flag(1, "batches per optimizer step", parse=whole(1))
    skip_nonfinite: int = flag(
        0,
        "skip up to this many optimizer steps with a NaN or infinite loss or gradient per run, then"
        " stop; on a GPU, more than 0 makes every step wait for the previous one",
        parse=whole(0),
    )
    epoch_count: int = flag(1, "start at the epoch of this number, from 1", parse=whole(1))
    earlystop_epoch: int | None = flag(
        None,
        "stop after this many epochs without a better validation AP (default: never)",
        parse=whole(1),
    )
    # data
    train_split: str = flag("train", "folder of training images in --dataroot")
    val_split: str = flag("val", "folder of validation images in --dataroot")
    test_dataroot: str | None = flag(
        None, "also test the trained model on this folder of generators (default: no test)"
    )
    allow_one_class_folders: bool = flag(
        False,
        "train although a folder with class folders has real or generated images only; its content"
        " then tells the class",
    )
    class_bal: bool = flag(False, "draw real and fake images equally often")
    serial_batches: bool = flag(False, "use the images in order instead of shuffled")
    no_flip: bool = flag(False, "no random horizontal flip")
    data_aug: bool = flag(
        False,
        "random blur and JPEG, each with probability 0.5 unless --blur_prob, --jpg_prob are set",
    )
    blur_prob: float | None = flag(
        None, "probability of a Gaussian blur", parse=number(minimum=0, maximum=1)
    )
    blur_sig: tuple[float, ...] | None = flag(
        None,
        "standard deviation of the blur in pixels, or a range such as 0.0,3.0 (default: 0.5, with"
        " --data_aug 0.0,3.0)",
        parse=ends_of_range(number(minimum=0)),
    )
    jpg_prob: float | None = flag(
        None, "probability of a JPEG compression", parse=number(minimum=0, maximum=1)
    )
    jpg_method: tuple[str, ...] = flag(
        ("pil",),
        "JPEG encoder: pil, cv2 (needs OpenCV), or both; of both, one is drawn per image",
        parse=comma_list(one_of("pil", "cv2")),
    )
    jpg_qual: tuple[int, ...] | None = flag(
        None,
        "JPEG quality, or a range such as 30,100 (default: 75, with --data_aug 30,100)",
        parse=ends_of_range(whole(1, 100)),
    )
    degrade: float = flag(
        0.0,
        "probability of shrinking an image and of compressing it as JPEG, and half of it for resizing"
        " and blur; real and fake alike",
        parse=number(minimum=0, maximum=1),
    )
    # run
    continue_train: bool = flag(False, "resume the newest run with this --name")
    epoch: str = flag(
        "last",
        "with --continue_train: checkpoint to resume: last, best or a number ('latest' means"
        " 'last')",
    )
    new_optim: bool = flag(False, "with --continue_train: start with a fresh optimizer")
    loss_freq: int = flag(400, "log the training loss every this many steps", parse=whole(1))
    save_latest_freq: int = flag(
        2000, "save the last checkpoint every this many steps, and every epoch", parse=whole(1)
    )
    save_epoch_freq: int = flag(20, "keep a checkpoint every this many epochs", parse=whole(1))
    attention_log_freq: int = flag(
        5,
        "log attention on a fixed validation batch every this many epochs; 0 = never",
        parse=whole(0),
    )
    attention_patience: int = flag(
        3,
        "warn when attention was uniform, or on one scale, for this many epochs in a row",
        parse=whole(1),
    )
    compile: bool = flag(
        False, "compile the model with torch.compile; if that fails, run it uncompiled"
    )
    fast: bool = flag(
        False,
        "use the fastest algorithms, deterministic or not; on GPUs also compile;"
        " on one GPU without accumulation also use CUDA graphs",
    )

    def preset_values(self, chosen: dict[str, Any]) -> dict[str, Any]:
        """Return the values of --recipe, without those that the chosen flags contradict."""
        parser = self.parser()
        name = chosen.get("recipe", self.recipe)
        parser.prog += f": --recipe {name}"
        try:
            preset = load_preset(name)
        except ValueError as error:
            parser.error(f"argument --recipe {name}: {error}")
        fields = {field.name for field in dataclasses.fields(self)}
        for flag_name in preset.flags:
            if flag_name in NOT_IN_PRESETS:
                parser.error(f"{flag_name}: not allowed in a preset; pass it on the command line")
            if flag_name not in fields:
                parser.error(unknown_flag(parser, [f"--{flag_name}"]))
        values = vars(parser.parse_args(preset.words()))
        dropped = {other for flag_name in chosen for other in CONTRADICTIONS.get(flag_name, ())}
        return {flag_name: value for flag_name, value in values.items() if flag_name not in dropped}

    def problem(self) -> str | None:
        if self.list_recipes:
            return None
        root = Path(self.dataroot)
        if (problem := super().problem()) is not None:
            return problem
        flags = () if root.is_file() else ("train_split", "val_split")
        for flag_name in flags:
            split = getattr(self, flag_name)
            # in suites such as GenImage, each generator has its splits
            if not (root / split).is_dir() and not any(
                (folder / split).is_dir() for level in ("*/", "*/*/") for folder in root.glob(level)
            ):
                return (
                    f"argument --dataroot {self.dataroot}: has no folder {split}/ (--{flag_name}); "
                    f"expected {root / split}/<class>/0_real and 1_fake"
                )
        if self.test_dataroot is not None and not is_folder_or_file(self.test_dataroot):
            return (
                f"argument --test_dataroot {self.test_dataroot}: no such folder;"
                " pass a folder of generators"
            )
        # an empty text, of a variable that is not set, would be the current folder
        if self.init_from is not None and not (self.init_from and Path(self.init_from).exists()):
            return f"argument --init_from {self.init_from}: no such file; pass a checkpoint"
        if (self.cropSize or 224) > (self.loadSize or 256) and not (self.no_resize or self.no_crop):
            return (
                f"argument --cropSize {self.cropSize or 224}: must not exceed"
                f" --loadSize {self.loadSize or 256}"
            )
        if self.degrade and self.no_crop:
            return f"argument --degrade {self.degrade:g}: needs a crop; leave out --no_crop"
        side, smallest = self.cropSize or 224, min(self.npr_scales or (0.25,))
        multiscale = self.model_type != "single_scale"
        if multiscale and not self.no_crop and side * smallest < 1:
            return (
                f"argument --npr_scales {smallest:g}: a crop of {side} pixels is too small for this"
                " scale; pass a larger scale or --cropSize"
            )
        if self.attention_reduction > self.feature_dim:
            return (
                f"argument --attention_reduction {self.attention_reduction}: must not exceed"
                f" --feature_dim {self.feature_dim}"
            )
        if not self.name or "/" in self.name:
            return f"argument --name {self.name!r}: pass a plain name without slashes"
        return self._suffix_problem()

    def _suffix_problem(self) -> str | None:
        try:
            name = self.run_name()
        except (KeyError, ValueError, IndexError, AttributeError):
            return f"argument --suffix {self.suffix}: write flags in braces, as in b{{batch_size}}"
        return (
            f"argument --suffix {self.suffix}: makes a name with slashes, {name}; remove them"
            if "/" in name
            else None
        )

    def faster_on_gpu(self) -> str:
        """Return the flags that would make training on a GPU faster; empty if all are set."""
        missing = (
            ("--precision auto", self.precision == "fp32"),
            ("--fast", not self.fast),
            ("--cache DIR", self.cache is None),
        )
        return " ".join(flag_name for flag_name, wanted in missing if wanted)

    def warnings(self) -> list[str]:
        multi_only = (
            "npr_scales",
            "feature_dim",
            "attention_reduction",
            "attention_residual",
            "backbone",
            "attention_entropy_weight",
            "attention_diversity_weight",
        )
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        messages = []
        for names, idle, why in (
            (
                multi_only,
                self.model_type == "single_scale",
                "ignored with --model_type single_scale",
            ),
            (
                ("blur_sig",),
                not (self.data_aug or self.blur_prob),
                "without effect; add --blur_prob or --data_aug",
            ),
            (
                ("jpg_qual", "jpg_method"),
                not (self.data_aug or self.jpg_prob),
                "without effect; add --jpg_prob or --data_aug",
            ),
            (
                ("delr_freq",),
                self.lr_schedule == "cosine",
                "without effect with --lr_schedule cosine",
            ),
            (
                ("epoch", "new_optim"),
                not self.continue_train,
                "without effect; add --continue_train",
            ),
        ):
            changed = [name for name in names if getattr(self, name) != defaults[name]]
            if idle and changed:
                messages.append(f"--{', --'.join(changed)}: {why}")
        compresses = self.data_aug or self.jpg_prob
        if compresses and "cv2" in self.jpg_method and importlib.util.find_spec("cv2") is None:
            messages.append("--jpg_method cv2: OpenCV is not installed, so pil is used; install it")
        return messages

    def run_name(self) -> str:
        """Return the run's name without its time stamp: --name and the expanded --suffix."""
        if not self.suffix:
            return self.name
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return f"{self.name}_{self.suffix.format(**values)}"

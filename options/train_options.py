"""Options of train.py."""

import dataclasses
from pathlib import Path
from typing import Any, ClassVar

from options.base_options import MODEL_TYPES, RETIRED_ANYWHERE, BaseOptions
from options.flags import comma_list, ends_of_range, flag, number, one_of, scale, whole
from options.presets import PUBLISHED, load_preset

NOT_IN_RECIPES = (
    "recipe",
    "list_recipes",
    "dataroot",
    "name",
    "suffix",
    "checkpoints_dir",
    "continue_train",
    "epoch",
    "new_optim",
)
"""Flags that say which run it is, not how it trains."""
NOT_THE_RECIPE = (*NOT_IN_RECIPES, "seed", "test_dataroot", "gpu_ids", "num_threads", "cache", "loss_freq", "save_latest_freq",
                  "save_epoch_freq", "attention_log_freq", "attention_patience")  # fmt: skip
"""Flags in which two runs of one recipe may differ (of the dataroot, all but the folder's own
name)."""
CONTRADICTIONS = {
    "no_resize": ("loadSize",),
    "loadSize": ("no_resize",),
    "no_crop": ("cropSize", "degrade"),
    "cropSize": ("no_crop",),
    "delr_freq": ("lr_schedule",),
}
"""A given flag and the flags of a preset that it drops."""
INIT_TYPES = ("normal", "xavier", "kaiming", "orthogonal")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainOptions(BaseOptions):
    """Options of a training run; `TrainOptions().parse()` reads the command line."""

    isTrain: ClassVar[bool] = True
    description: ClassVar[str] = "Train a detector of generated images by their NPR residual."
    retired: ClassVar[tuple[str, ...]] = RETIRED_ANYWHERE
    examples: ClassVar[str] = """examples:
  the published single-scale detector:
    python train.py --name baseline --dataroot ./datasets/ForenSynths_train_val --classes car,cat,chair,horse \\
        --batch_size 32 --lr 0.0002 --niter 50
  three scales fused by attention:
    python train.py --name three --model_type multiscale_attention --npr_scales 0.25,0.5,0.75 --dataroot DIR --niter 50
  a recipe that holds better after compression and resizing, and what recipes there are:
    python train.py --name robust --recipe robust --model_type multiscale_attention --dataroot DIR
    python train.py --list_recipes
  go on with the newest run of that name:
    python train.py --name three --model_type multiscale_attention --dataroot DIR --niter 50 --continue_train
  on four GPUs, 16 of the 64 images of a batch on each:
    torchrun --nproc_per_node=4 train.py --name three --model_type multiscale_attention --dataroot DIR --batch_size 64
"""

    dataroot: str = flag(
        "./dataset/", "folder that holds the train and val splits, <split>/<class>/{0_real,1_fake}/"
    )
    name: str = flag(
        "experiment_name", "name of the run; its folder is CHECKPOINTS_DIR/NAME_<time stamp>/"
    )
    suffix: str = flag(
        "", "added to the name; {flag} is replaced by that flag's value, as in b{batch_size}"
    )
    recipe: str = flag(
        PUBLISHED,
        "named set of the flags below, or a .toml file of one's own; flags that are given win over it",
    )
    list_recipes: bool = flag(False, "print the recipes with their flags and stop")
    # model
    model_type: str = flag(
        "single_scale",
        "the published detector, or several scales fused by attention",
        choices=MODEL_TYPES,
    )
    npr_scales: tuple[float, ...] | None = flag(
        None,
        "scales of the multi-scale model, numbers in (0,1) that may repeat; left out: 0.25,0.5,0.75",
        parse=comma_list(scale),
        aliases=("--scales",),
    )
    feature_dim: int = flag(128, "features per branch", parse=whole(1))
    attention_reduction: int = flag(
        4, "attention's hidden width is feature_dim / this; smaller = more capacity", parse=whole(1)
    )
    attention_residual: bool = flag(
        False, "add the branches' plain mean to their attention-weighted sum"
    )
    backbone: str = flag(
        "light", "branch network: light, or a torchvision or timm classifier by name"
    )
    init_type: str | None = flag(
        None, "redraw all weights this way; left out: each layer's own", choices=INIT_TYPES
    )
    init_gain: float | None = flag(
        None, "gain of --init_type (0.02 when left out)", parse=number(above=0)
    )
    # loss
    attention_entropy_weight: float = flag(
        0.0,
        "w of loss - w * mean attention entropy; w > 0 rewards *uniform* attention",
        parse=number(),
    )
    attention_diversity_weight: float = flag(
        0.0,
        "w of loss + w * (mean entropy per image - entropy of the batch mean); w > 0 rewards attention "
        "that is decided per image and uses all scales (docs/research-log.md: it does, and AUC did not rise); "
        "of several processes, each takes the mean of its part of the batch",
        parse=number(minimum=0),
    )
    # optimisation
    optim: str = flag("adam", "optimizer", choices=("adam", "sgd"))
    lr: float = flag(0.0001, "learning rate at the start", parse=number(above=0))
    beta1: float = flag(0.9, "Adam's first momentum", parse=number(minimum=0, maximum=0.999999))
    niter: int = flag(1000, "epochs", parse=whole(1))
    lr_schedule: str = flag(
        "step",
        "step: see --delr_freq; cosine: falls from --lr to 0 along half a cosine over --niter epochs (Loshchilov and Hutter, 2017)",
        choices=("step", "cosine"),
    )
    delr_freq: int = flag(
        20, "multiply the learning rate by 0.9 every this many epochs, down to 1e-6", parse=whole(1)
    )
    sync_bn: bool = flag(
        False,
        "several processes on GPUs: BatchNorm over the whole batch; left out: each over its part of it",
    )
    accumulation_steps: int = flag(1, "batches per optimizer step", parse=whole(1))
    skip_nonfinite: int = flag(
        0,
        "optimizer steps with a NaN or infinite loss or gradient to leave out, in all, before training stops; "
        "on a GPU, more than 0 makes every step wait for the one before",
        parse=whole(0),
    )
    epoch_count: int = flag(
        1, "number of the first epoch; epochs before it are left out", parse=whole(1)
    )
    earlystop_epoch: int | None = flag(
        None,
        "stop after this many epochs without a better validation AP; left out: never",
        parse=whole(1),
    )
    # data
    train_split: str = flag("train", "folder of training images in the dataroot")
    val_split: str = flag("val", "folder of validation images in the dataroot")
    test_dataroot: str | None = flag(
        None, "also test the finished model on this folder of generators; left out: no test"
    )
    class_bal: bool = flag(False, "draw real and fake images equally often")
    serial_batches: bool = flag(False, "take the images in order instead of shuffled")
    no_flip: bool = flag(False, "no random horizontal flip")
    data_aug: bool = flag(
        False,
        "random blur and JPEG, each with probability 0.5 unless the flags below say otherwise",
    )
    blur_prob: float | None = flag(
        None, "probability of a Gaussian blur", parse=number(minimum=0, maximum=1)
    )
    blur_sig: tuple[float, ...] | None = flag(
        None, "its standard deviation in pixels, or a range such as 0.0,3.0 (0.5 when left out)",
        parse=ends_of_range(number(minimum=0)),
    )  # fmt: skip
    jpg_prob: float | None = flag(
        None, "probability of a JPEG compression", parse=number(minimum=0, maximum=1)
    )
    jpg_method: tuple[str, ...] = flag(
        ("pil",),
        "who compresses: pil, or cv2 where it is installed, or both",
        parse=comma_list(one_of("pil", "cv2")),
    )
    jpg_qual: tuple[int, ...] | None = flag(
        None,
        "its quality, or a range such as 30,100 (75 when left out)",
        parse=ends_of_range(whole(1, 100)),
    )
    degrade: float = flag(
        0.0,
        "probability of shrinking, and of a JPEG compression, of each picture (of resizing and blur, half of it), drawn "
        "alike for both classes; pictures hardly larger than the crop are hardly shrunk",
        parse=number(minimum=0, maximum=1),
    )
    # run
    continue_train: bool = flag(False, "go on with the newest run folder of this name")
    epoch: str = flag(
        "last",
        "with --continue_train: which checkpoint, last, best or a number ('latest' is 'last')",
    )
    new_optim: bool = flag(False, "with --continue_train: start with a fresh optimizer")
    loss_freq: int = flag(400, "log the training loss every this many steps", parse=whole(1))
    save_latest_freq: int = flag(
        2000, "save the last checkpoint every this many steps, besides every epoch", parse=whole(1)
    )
    save_epoch_freq: int = flag(20, "keep a checkpoint every this many epochs", parse=whole(1))
    attention_log_freq: int = flag(
        5,
        "log attention on a fixed validation batch every this many epochs; 0 = never",
        parse=whole(0),
    )
    attention_patience: int = flag(
        3,
        "warn when attention has been uniform, or on one scale, for this many epochs in a row",
        parse=whole(1),
    )
    compile: bool = flag(
        False, "compile the model with torch.compile; goes on without where that fails"
    )
    fast: bool = flag(
        False,
        "the fastest algorithms, repeatable or not; on GPUs also compiled, with one GPU and no accumulation as CUDA graphs",
    )

    def preset_values(self, given: dict[str, Any]) -> dict[str, Any]:
        """Parse the flags of --recipe; those that a given flag contradicts are dropped."""
        parser = self.parser()
        name = given.get("recipe", self.recipe)
        parser.prog += f": --recipe {name}"
        try:
            preset = load_preset(name)
        except ValueError as error:
            parser.error(f"argument --recipe {name}: {error}")
        fields = {field.name for field in dataclasses.fields(self)}
        for flag_name in preset.flags:
            if flag_name in NOT_IN_RECIPES:
                parser.error(f"{flag_name}: not in a recipe; give it on the command line")
            if flag_name not in fields:
                parser.error(self._unknown_flag(parser, [f"--{flag_name}"]))
        values = vars(parser.parse_args(preset.words()))
        dropped = {other for flag_name in given for other in CONTRADICTIONS.get(flag_name, ())}
        return {flag_name: value for flag_name, value in values.items() if flag_name not in dropped}

    def problem(self) -> str | None:
        if self.list_recipes:
            return None
        root = Path(self.dataroot)
        if (problem := super().problem()) is not None:
            return problem
        for split, flag_name in ((self.train_split, "train_split"), (self.val_split, "val_split")):
            if not (root / split).is_dir():
                return (
                    f"argument --dataroot {self.dataroot}: has no folder {split}/ (--{flag_name}); "
                    f"expected {root / split}/<class>/0_real and 1_fake"
                )
        if self.test_dataroot is not None and not Path(self.test_dataroot).is_dir():
            return f"argument --test_dataroot {self.test_dataroot}: no such folder; give a folder of generators"
        if (self.cropSize or 224) > (self.loadSize or 256) and not (self.no_resize or self.no_crop):
            return f"argument --cropSize {self.cropSize or 224}: must not exceed --loadSize {self.loadSize or 256}"
        if self.degrade and self.no_crop:
            return f"argument --degrade {self.degrade:g}: needs a crop; leave out --no_crop"
        side, smallest = self.cropSize or 224, min(self.npr_scales or (0.5,))
        if not self.no_crop and side * smallest < 1:
            return f"argument --npr_scales {smallest:g}: leaves no pixel of a crop of {side}"
        if self.attention_reduction > self.feature_dim:
            return f"argument --attention_reduction {self.attention_reduction}: must not exceed --feature_dim {self.feature_dim}"
        if not self.name or "/" in self.name:
            return f"argument --name {self.name!r}: give a plain name without slashes"
        return self._suffix_problem()

    def _suffix_problem(self) -> str | None:
        try:
            name = self.run_name()
        except (KeyError, ValueError, IndexError, AttributeError):
            return f"argument --suffix {self.suffix}: write flags in braces, as in b{{batch_size}}"
        return (
            f"argument --suffix {self.suffix}: makes a name with slashes, {name}"
            if "/" in name
            else None
        )

    def warnings(self) -> list[str]:
        multi_only = ("npr_scales", "feature_dim", "attention_reduction", "attention_residual", "backbone",
                      "attention_entropy_weight", "attention_diversity_weight")  # fmt: skip
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        found = []
        for names, idle, why in (
            (
                multi_only,
                self.model_type == "single_scale",
                "ignored beside --model_type single_scale",
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
                "without effect beside --lr_schedule cosine",
            ),
            (
                ("epoch", "new_optim"),
                not self.continue_train,
                "without effect; add --continue_train",
            ),
        ):
            given = [name for name in names if getattr(self, name) != defaults[name]]
            if idle and given:
                found.append(f"--{', --'.join(given)}: {why}")
        return found

    def run_name(self) -> str:
        """Name of the run without its time stamp: --name, and --suffix with its {flags} filled in."""
        if not self.suffix:
            return self.name
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return f"{self.name}_{self.suffix.format(**values)}"

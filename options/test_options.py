"""Options of test.py."""

import dataclasses
from typing import ClassVar

from options.base_options import RETIRED_ANYWHERE
from options.checkpoint_options import FigureOptions
from options.flags import flag, resamples

TRAINING_ONLY = (
    "lr",
    "niter",
    "earlystop_epoch",
    "delr_freq",
    "init_type",
    "init_gain",
    "suffix",
    "class_bal",
    "serial_batches",
    "no_flip",
    "blur_prob",
    "blur_sig",
    "jpg_prob",
    "jpg_method",
    "jpg_qual",
)
"""Flags that the published test script accepted although they have an effect in training only."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TestOptions(FigureOptions):
    """Options of a test run; `TestOptions().parse()` reads the command line."""

    __test__: ClassVar[bool] = False  # not a pytest class
    description: ClassVar[str] = (
        "Test checkpoints on one generator, a suite of generators, or a folder of suites."
    )
    retired: ClassVar[tuple[str, ...]] = RETIRED_ANYWHERE + TRAINING_ONLY
    examples: ClassVar[str] = """examples:
  everything in ./datasets/Generalization_Test:
    python test.py --model_path ./checkpoints/my_model_*/model_epoch_last.pth
  one suite, or one generator:
    python test.py --model_path M.pth --dataroot ./datasets/Generalization_Test/ForenSynths_test
    python test.py --model_path M.pth \\
        --dataroot ./datasets/Generalization_Test/ForenSynths_test/stylegan
  the effect of file formats, and the robustness to compression, resizing and blur:
    python test.py --model_path M.pth --dataroot DIR --equalize jpeg:90
    python test.py --model_path M.pth --dataroot DIR --robustness
  on four GPUs:
    torchrun --nproc_per_node=4 test.py --model_path M.pth --dataroot DIR
  a checkpoint of the earlier multi-scale code, which does not store its scales:
    python test.py --model_path old.pth --npr_scales 0.25,0.5 --dataroot DIR
"""

    dataroot: str | None = flag(
        None,
        "one set (0_real/, 1_fake/), a generator, a suite, a folder of suites, or a CSV file with"
        " the columns path,label[,generator][,split]"
        " (default: ./datasets/Generalization_Test, then ./datasets)",
    )
    equalize: str | None = flag(
        None,
        "re-encode all images in memory before scoring, such as jpeg:90,"
        " so that file formats do not separate real and fake",
        metavar="jpeg:Q",
    )
    robustness: bool = flag(
        False,
        "also score every image after JPEG, WebP, resizing, blur, noise, cropping and chains of"
        " these",
    )
    bootstrap: int = flag(
        1000,
        "bootstrap resamples for the 95 % confidence intervals; 0 = no intervals",
        parse=resamples,
    )
    compile: bool = flag(
        False, "compile the model with torch.compile; if that fails, run it uncompiled"
    )
    fast: bool = flag(
        False,
        "use channels-last memory, compile with constant weights, and use the fastest algorithms;"
        " scores differ by rounding only",
    )
    results_dir: str = flag(
        "./results",
        "folder for results, one subfolder per model and dataset: plots, scores, tables,"
        " report.html",
    )
    list_protocols: bool = flag(False, "print the preprocessing protocols and exit")

    def problem(self) -> str | None:
        return None if self.list_protocols else super().problem()

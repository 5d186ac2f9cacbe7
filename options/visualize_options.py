"""Options of visualize_attention.py."""

import dataclasses
from typing import ClassVar

from options.checkpoint_options import FigureOptions
from options.flags import flag, gpu_list, whole


@dataclasses.dataclass(frozen=True, kw_only=True)
class VisualizeOptions(FigureOptions):
    """Options of the attention plots; `VisualizeOptions().parse()` reads the command line."""

    description: ClassVar[str] = (
        "Plot the attention of a multi-scale model over its scales, and their residuals."
    )
    examples: ClassVar[str] = """examples:
  one generator, with NPR residuals:
    python visualize_attention.py --model_path ./checkpoints/my_model_*/model_epoch_last.pth \\
        --dataroot ./datasets/test/stylegan --output_dir ./visualizations/stylegan \\
        --num_samples 100 --save_npr_maps
  a suite: one folder per generator and a heat map over all of them:
    python visualize_attention.py --model_path M.pth --dataroot ./datasets/test \\
        --output_dir ./visualizations/all
"""

    dataroot: str | None = flag(
        None, "one set, a generator, a suite, a folder of suites, or a CSV file"
    )
    output_dir: str | None = flag(
        None, "folder for statistics and plots (default: ./visualizations/<name of dataroot>)"
    )
    num_samples: int = flag(
        100, "images per generator, drawn evenly from real and fake", parse=whole(1)
    )
    save_npr_maps: bool = flag(
        False, "also draw the NPR residuals of up to --num_maps images per generator"
    )
    num_maps: int = flag(10, "with --save_npr_maps: images per generator", parse=whole(1))
    gpu_ids: tuple[int, ...] = flag(
        (0,),
        "GPU to use, counted within CUDA_VISIBLE_DEVICES; -1 = CPU",
        parse=gpu_list,
        aliases=("--gpu_id",),
    )

    def problem(self) -> str | None:
        if self.dataroot is None:
            return (
                "argument --dataroot: missing; pass a folder of test images, such as"
                " ./datasets/test/stylegan"
            )
        return super().problem()

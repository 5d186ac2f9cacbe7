"""Show which scales a multi-scale model attends to, for a generator or a suite of generators.

    python visualize_attention.py --model_path ./checkpoints/my_model_*/model_epoch_last.pth \
        --dataroot ./datasets/test/stylegan --output_dir ./visualizations/stylegan \
        --num_samples 100 --save_npr_maps

Per generator: attention_statistics.txt, attention_weights.csv, attention_distribution.png,
attention_per_image.png, attention_images.png (not for one scale) and, with --save_npr_maps,
npr_artifacts/*.png. Of several generators each has its folder.

Of all together, unless the model has one scale: attention_report.html, which shows the rest;
attention.json and attention_statistics.csv; attention_{means,controls,distribution}.png;
attention_training.png where the checkpoint lies beside its log; of several generators also
attention_heatmap.png and attention_statistics.txt. With --pdf every plot is there as PDF, too.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from options.visualize_options import VisualizeOptions
from util import require_one, run_script, silent_unless_first, start_logging


def plot_attention_heatmap(
    mean_attentions: Mapping[str, Any], scales: Sequence[float], save_path: str | Path
) -> Path:
    """Draw mean attention as a heat map, a row per generator and a column per scale.

    Args:
        mean_attentions: {generator: weights [S]}, sequences, arrays or tensors on any device.
        scales: S scales.
        save_path: where to; PNG without a suffix.

    Returns:
        The path of the plot.
    """
    import torch

    from reports.plots.attention import plot_attention_heatmap as plot

    tensors = {name: torch.as_tensor(one) for name, one in mean_attentions.items()}
    weights = {name: one.detach().cpu().double().numpy() for name, one in tensors.items()}
    return plot(weights, scales, save_path)


def main(argv: Sequence[str] | None = None) -> int:
    """Write statistics and plots; return 0."""
    with silent_unless_first():
        opt = VisualizeOptions().parse(argv)
        require_one("visualize_attention.py")
    start_logging()
    # PyTorch takes seconds to import: only now, so that --help and errors come at once
    from inference.visualize import visualize_models

    visualize_models(opt)
    return 0


if __name__ == "__main__":
    run_script(main)

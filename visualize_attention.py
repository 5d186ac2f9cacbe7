"""Show which scales a multi-scale model attends to, for a generator or a suite of generators.

    python visualize_attention.py --model_path ./checkpoints/my_multiscale_model_*/model_epoch_last.pth \
        --dataroot ./datasets/test/stylegan --output_dir ./visualizations/stylegan --num_samples 100 --save_npr_maps

Per generator: attention_statistics.txt, attention_distribution.png, attention_per_image.png, attention_weights.csv and,
with --save_npr_maps, npr_artifacts/*.png; for several generators also attention_heatmap.png over all of them.
"""

from collections.abc import Sequence
from pathlib import Path

from data.layouts import find_test_sets
from evaluation.attention_report import AttentionReport
from evaluation.plots import plot_attention_heatmap
from networks.checkpoint import load_model
from networks.run_folder import find_checkpoints
from options.visualize_options import VisualizeOptions
from util import log, run_script, seed_everything, start_logging

__all__ = ["main", "plot_attention_heatmap"]


def main(argv: Sequence[str] | None = None) -> int:
    """Write statistics and pictures; returns 0."""
    opt = VisualizeOptions().parse(argv)
    start_logging()
    seed_everything(opt.seed)
    checkpoints = find_checkpoints(opt.model_path, opt.name, opt.epoch, opt.checkpoints_dir)
    models = [load_model(path, opt) for path in checkpoints]
    root, sets = find_test_sets(opt.dataroot, opt.classes)
    for loaded in models:
        folder = Path(opt.output_dir) / loaded.name if len(models) > 1 else Path(opt.output_dir)
        AttentionReport(loaded, opt, root, folder).write(sets)
        log.info("written: %s", folder)
    return 0


if __name__ == "__main__":
    run_script(main)

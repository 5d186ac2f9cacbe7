"""Show which scales a multi-scale model attends to, for a generator or a suite of generators.

    python visualize_attention.py --model_path ./checkpoints/my_multiscale_model_*/model_epoch_last.pth \
        --dataroot ./datasets/test/stylegan --output_dir ./visualizations/stylegan --num_samples 100 --save_npr_maps

Per generator: attention_statistics.txt, attention_weights.csv, attention_distribution.png, attention_per_image.png,
attention_images.png (not for one scale) and, with --save_npr_maps, npr_artifacts/*.png. Of several generators each has its folder.

Of all together, unless the model has one scale: attention_report.html, which shows the rest; attention.json and
attention_{statistics,controls,tests,correlations,verdicts}.csv; attention_{means,controls}.png; attention_training.png where the
checkpoint lies beside its log; of several generators also attention_{heatmap,distances,distribution}.png and
attention_statistics.txt. With --pdf every figure is there as PDF, too.
"""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import distributed
from data.folders import folder_name
from data.layouts import find_test_sets
from device import seed_everything
from networks.checkpoint import load_model
from networks.run_folder import find_checkpoints
from options.visualize_options import VisualizeOptions
from util import UserError, log, run_script, start_logging


def plot_attention_heatmap(
    mean_attentions: dict[str, Any], scales: Sequence[float], save_path: str | Path
) -> Path:
    """See `reports.plots.weights.plot_attention_heatmap`: {name: weights [S]}, S scales, where to;
    returns the path."""
    # here, so that --help needs no plotting library
    from reports.plots.weights import plot_attention_heatmap as plot

    return plot(mean_attentions, scales, save_path)


def main(argv: Sequence[str] | None = None) -> int:
    """Write statistics and pictures; returns 0."""
    with distributed.silent_unless_first():
        opt = VisualizeOptions().parse(argv)
        distributed.require_one("visualize_attention.py")
    try:
        from reports.attention_report import AttentionReport
    except ImportError as error:
        raise UserError(str(error)) from None
    start_logging()
    seed_everything(opt.seed)
    checkpoints = find_checkpoints(opt.model_path, opt.name, opt.epoch, opt.checkpoints_dir)
    models = [load_model(path, opt) for path in checkpoints]
    root, sets = find_test_sets(opt.dataroot, opt.classes)
    out = Path(opt.output_dir or Path("visualizations") / folder_name(root))
    names = [loaded.name for loaded in models]
    if len(set(names)) < len(names):
        raise UserError(
            f"--model_path: two models are called {max(names, key=names.count)}; show them one at a time"
        )
    folders = [out / name for name in names] if len(models) > 1 else [out]
    reports = [
        AttentionReport(loaded, opt, root, folder)
        for loaded, folder in zip(models, folders, strict=True)
    ]
    for report in reports:
        report.write(sets)
        # last, so that the pipeline takes these plots as finished
        command = f"{shlex.join(sys.argv)}\n{opt.dump()}\n"
        (report.folder / "opt.txt").write_text(command, encoding="utf-8")
        log.info("written: %s", report.folder)
    return 0


if __name__ == "__main__":
    run_script(main)

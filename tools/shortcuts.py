"""Measure how well shortcuts tell real from generated: what a detector must beat on each test set.

    python -m tools.shortcuts --dataroot ROOT --sets ROOT/val DIR/test
    # beside a detector that was trained on the same images
    python -m tools.shortcuts --dataroot ROOT --sets DIR --model_path M.pth --output floors.json

Prints the ROC AUC of each test set with both classes:

    format      file format, quality, size alone, cross-validated within the set (no training)
    features    logistic regression on 13 trivial features (brightness, sharpness, blockiness, ...)
    trees       boosted trees on the same features
    thumbnails  a small network on the image shrunk to 32x32 pixels, mean of --seeds
    PATH        a detector of --model_path, with the protocol that it is calibrated for, or native

Features, trees and thumbnails are trained on ROOT's training split. A detector that does not beat
them on a set has shown nothing there (Geirhos et al., Shortcut learning in deep neural networks,
2020).

Exit status: 0 measured, 2 wrong command line, images or checkpoint, 130 interrupted.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tabulate import tabulate
from torch import Tensor, nn
from tqdm import tqdm

from data.decode import UnreadableImage, read_image
from data.image_sets import ImageSet
from data.layouts import find_test_sets
from data.splits import load_split
from evaluation.format_leak import format_leak
from evaluation.trivial_features import trivial_features
from options.flags import OneLineParser, comma_list, tool_parser, whole
from util import UserError, log, run_script, start_logging, writing

SIDE = 32  # pixels of a thumbnail: too few for traces of up-sampling
EPOCHS, BATCH_SIZE, LEARNING_RATE = 20, 64, 1e-3  # of the network on thumbnails
Array = NDArray[np.float64]
Thumbnails = NDArray[np.uint8]  # [N, 3, SIDE, SIDE]


def parser() -> OneLineParser:
    """Return the parser of the command line."""
    parser = tool_parser("shortcuts", __doc__)
    parser.add_argument(
        "--dataroot", type=Path, required=True, metavar="DIR", help="folder with the train split"
    )
    parser.add_argument(
        "--train_split", default="train", help="training images in it (default: %(default)s)"
    )
    parser.add_argument(
        "--classes",
        type=comma_list(str),
        default=(),
        help="class folders of the train split to use (default: all)",
    )
    parser.add_argument(
        "--sets", type=Path, nargs="+", required=True, metavar="DIR", help="test sets or suites"
    )
    parser.add_argument(
        "--model_path",
        type=Path,
        nargs="*",
        default=(),
        metavar="PATH",
        help="checkpoints to measure beside the shortcuts",
    )
    parser.add_argument(
        "--seeds",
        type=whole(1),
        default=3,
        help="networks on thumbnails to average (default: %(default)s)",
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="also write the AUCs as JSON")
    return parser


class Inputs:
    """Inputs of the shortcuts for a set: labels [N], trivial features [N, 13], thumbnails.

    Unreadable files are skipped. A progress bar is shown.
    """

    def __init__(self, images: ImageSet) -> None:
        labels, features, thumbnails = [], [], []
        pairs = list(zip(images.paths, images.labels, strict=True))
        for path, label in tqdm(pairs, desc=images.generator, leave=False, disable=None):
            try:
                thumbnail = read_image(path).resize((SIDE, SIDE), Image.Resampling.BOX)
                features.append(trivial_features(path))
            except (UnreadableImage, OSError, ValueError):
                continue
            labels.append(label)
            thumbnails.append(np.asarray(thumbnail).transpose(2, 0, 1))
        if len(set(labels)) < 2:
            raise UserError(f"{images.generator}: no readable images of both classes")
        self.labels, self.features = np.array(labels), np.stack(features)
        self.thumbnails: Thumbnails = np.stack(thumbnails)


def thumbnail_network() -> nn.Sequential:
    """Return a network of three convolutions: thumbnails [B, 3, 32, 32] -> logits [B, 1]."""
    layers: list[nn.Module] = []
    for channels, out in ((3, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.BatchNorm2d(out)]
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 1))


def scaled(thumbnails: Thumbnails) -> Tensor:
    """Return thumbnails as float32 in [-1, 1]."""
    return torch.from_numpy(thumbnails).float() / 127.5 - 1


def train_on_thumbnails(train: Inputs, seed: int) -> Callable[[Inputs], Array]:
    """Train a small network on thumbnails; return a function that maps inputs to logits [N].

    Images are mirrored at random. The learning rate falls to 0 along half a cosine.
    """
    torch.manual_seed(seed)
    images, labels = scaled(train.thumbnails), torch.from_numpy(train.labels).float()
    model = thumbnail_network()
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    # mean of both classes' losses, so that class sizes do not matter
    weight = torch.tensor((train.labels == 0).sum() / (train.labels == 1).sum())
    loss = nn.BCEWithLogitsLoss(pos_weight=weight.float())
    for _ in tqdm(range(EPOCHS), desc=f"thumbnails, seed {seed}", leave=False, disable=None):
        for batch in torch.randperm(len(images)).split(BATCH_SIZE):
            if len(batch) < 2:
                continue
            pixels = images[batch]
            pixels = torch.where(torch.rand(len(batch), 1, 1, 1) < 0.5, pixels, pixels.flip(-1))
            optimizer.zero_grad()
            loss(model(pixels).squeeze(1), labels[batch]).backward()
            optimizer.step()
        schedule.step()
    model.eval()

    @torch.inference_mode()
    def logits(inputs: Inputs) -> Array:
        return model(scaled(inputs.thumbnails)).squeeze(1).double().numpy()

    return logits


def measure(
    train: Inputs, sets: Sequence[ImageSet], model_paths: Sequence[Path], seeds: int
) -> list[dict[str, Any]]:
    """Return a row for each set: name, numbers of images, and AUC by shortcut and detector.

    Args:
        train: the training images.
        sets: test sets with both classes.
        model_paths: checkpoints of detectors.
        seeds: number of networks on thumbnails.
    """
    regression = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    trees = HistGradientBoostingClassifier(random_state=0)
    for classifier in (regression, trees):
        classifier.fit(train.features, train.labels)
    networks = [train_on_thumbnails(train, seed) for seed in range(seeds)]
    rows = []
    for images in sets:
        inputs = Inputs(images)

        def auc(scores: Array, labels: NDArray = inputs.labels) -> float:
            return float(roc_auc_score(labels, scores))

        rows.append(
            {
                "set": images.generator,
                "real": int((inputs.labels == 0).sum()),
                "generated": int((inputs.labels == 1).sum()),
                "format": format_leak(images),
                "features": auc(regression.decision_function(inputs.features)),
                "trees": auc(trees.decision_function(inputs.features)),
                "thumbnails": float(np.mean([auc(network(inputs)) for network in networks])),
            }
        )
    for path in model_paths:
        add_detector(path, sets, rows)
    return rows


def add_detector(path: Path, sets: Sequence[ImageSet], rows: list[dict[str, Any]]) -> None:
    """Add a detector's AUC to the row of each set."""
    from inference.calibration_scores import detector_predictions
    from inference.detector import load_detector

    detector = load_detector(path)
    for images, row in zip(sets, rows, strict=True):
        outputs = detector_predictions(detector, [images], batch_size=32)
        row[str(path)] = float(roc_auc_score(outputs.labels, outputs.logits))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, write the file; return 0."""
    opt: argparse.Namespace = parser().parse_args(argv)
    start_logging()
    sets = [images for root in opt.sets for images in find_test_sets(str(root))[1]]
    one_class = [images.generator for images in sets if len(set(images.labels)) < 2]
    sets = [images for images in sets if len(set(images.labels)) == 2]
    if one_class:
        log.info("not measured, because they have one class: %s", ", ".join(one_class))
    if not sets:
        raise UserError(f"--sets {opt.sets[0]}: no set with images of both classes")
    train = load_split(opt.dataroot, opt.train_split, opt.classes)
    rows = measure(Inputs(train), sets, opt.model_path, opt.seeds)
    print(tabulate(rows, "keys", "github", floatfmt=".3f"))
    if opt.output is not None:
        with writing(opt.output):
            opt.output.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    run_script(main)

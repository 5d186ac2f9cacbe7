"""What attention weights say."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from evaluation.names import relative_name
from evaluation.scores import Scores
from networks.losses import attention_entropy
from networks.npr import scale_keys, scale_label


@dataclass(frozen=True)
class AttentionSummary:
    """Attention of N images: mean [S] and std [S] (population, ddof 0) per scale, mean entropy per
    image in nats."""

    count: int
    mean: NDArray
    std: NDArray
    entropy: float


def summarize(weights: NDArray) -> AttentionSummary:
    """Summary of attention_weights [N, S], N >= 1."""
    entropy = float(attention_entropy(torch.from_numpy(np.asarray(weights))).mean())
    return AttentionSummary(len(weights), weights.mean(axis=0), weights.std(axis=0), entropy)


def statistics_text(
    title: str, weights: NDArray, labels: NDArray, scales: tuple[float, ...]
) -> str:
    """The text of attention_statistics.txt: mean and std per scale, over all images, real and
    generated ones."""
    lines = [
        "Attention weight statistics",
        f"images: {title}",
        "mean ± standard deviation per scale",
        "",
    ]
    groups = (("all", labels >= 0), ("real", labels == 0), ("fake", labels == 1))
    for name, chosen in groups:
        if not chosen.any():
            continue
        summary = summarize(weights[chosen])
        uniform = np.log(len(scales))
        lines.append(
            f"{name} ({summary.count} images), entropy {summary.entropy:.4f} nats (uniform: {uniform:.4f})"
        )
        rows = zip(scale_keys(scales), summary.mean, summary.std, strict=True)
        lines += [f"  Scale {scale_label(key)}: {mean:.4f} ± {std:.4f}" for key, mean, std in rows]
    return "\n".join(lines) + "\n"


def write_attention_csv(path: Path, scores: Scores, scales: tuple[float, ...], root: Path) -> None:
    """Write a line per image: path below `root`, label, score, and the weight of each scale."""
    assert scores.attention is not None
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["path", "label", "score", *(f"attention_{key}" for key in scale_keys(scales))]
        )
        columns = (scores.paths, scores.labels, scores.scores, scores.attention)
        for image, label, score, weights in zip(*columns, strict=True):
            values = (repr(float(value)) for value in (score, *weights))
            writer.writerow([relative_name(image, root), label, *values])

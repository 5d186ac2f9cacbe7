"""A small checkpoint, images and a video that the tests of the web page share."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from networks import ModelConfig
from networks.calibration import Calibration
from tests.conftest import save_model
from tests.helpers.video_files import encode

MULTI = ModelConfig("multiscale_attention", (0.25, 0.5, 0.75), 16, 4)
ABOUT = {
    "options": {"dataroot": "/secret/place/my_photos", "classes": ["car", "cat"]},
    "val_metrics": {"acc": 0.875, "ap": 0.9, "auc": 0.95, "n_real": 40, "n_fake": 1200},
    "epoch": 7,
}


def save_web_model(path: Path, **more: Any) -> Path:
    """Save a checkpoint with metadata for the page."""
    return save_model(path, MULTI, seed=3, **ABOUT | more)


def calibration(lower: float, upper: float) -> Calibration:
    """Return a calibration with these bounds of the unsure band."""
    return Calibration(1.0, 0.5, lower, upper, 0.05, 0.1, 0.02, 30, 31, "val", "native v1")


def draw(path: Path, height: int = 40, width: int = 56, seed: int = 0) -> Path:
    """Write a PNG file of noise, whatever its name."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, "PNG")
    return path


def film(path: Path, frames: int = 12, rate: int = 4, side: int = 64) -> Path:
    """Write an MP4 file of noise that lasts `frames` / `rate` seconds, whatever its name."""
    pytest.importorskip("av")
    size = (side, side)
    return encode(path, "mpeg4", "yuv420p", frames, rate, format="mp4", size=size)

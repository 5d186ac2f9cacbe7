"""Make a small data set of procedural photographs and up-sampled copies, to try the detector without any download.

Real images are procedural photographs (dead leaves, lens, sensor noise). A fake is *another* photograph that was encoded
to half resolution and decoded again through a real up-sampling layer whose kernel was fitted by least squares; the fine
detail that decoding removed is given back as white noise, so that blur does not tell the classes apart. All are PNG
files of one size, quantised in the same way.

  OUTPUT/train/{leaves,stones}/{0_real,1_fake}/*.png      fakes by nearest_conv
  OUTPUT/val/{leaves,stones}/{0_real,1_fake}/*.png        fakes by nearest_conv
  OUTPUT/test/<generator>/{0_real,1_fake}/*.png           new photographs; nearest_conv is seen in training, the others not
  OUTPUT/demo.json                                        settings, PSNR per up-sampler, trivial-feature AUC per set
"""

import argparse
import json
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from tools._demo_images import SCENES, photograph
from tools._trivial_features import trivial_feature_auc
from tools._upsamplers import OPERATORS, AutoEncoder, fit_autoencoder, restore_detail
from util import UserError, run_script

VERSION = 1
"""Of the recipe; a folder made by another version is not the same, whatever its settings."""
SEEN = "nearest_conv"
GENERATORS: dict[str, tuple[str, tuple[int, ...]]] = {
    SEEN: ("nearest", (8,)),
    "bilinear_conv": ("bilinear", (8,)),
    "transposed_conv": ("transposed", (8,)),
    "pixel_shuffle": ("pixel_shuffle", (8,)),
    "nearest_conv_x4": ("nearest", (12, 32)),
}
"""Test folder: up-sampling operator and latent channels, one number per stage."""
FIT, TRAIN, VAL, TEST = range(4)
FIT_SIZE = 64
CHANCE_LIMIT = 0.6
POOL_FROM = 256
"""Below this many photographs starting worker processes takes longer than it saves."""

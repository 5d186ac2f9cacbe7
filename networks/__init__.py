"""Detector networks, their training and their checkpoints."""

from networks.detector import Detector, load_detector
from networks.factory import ModelConfig, build_model, create_model

__all__ = ["Detector", "ModelConfig", "build_model", "create_model", "load_detector"]

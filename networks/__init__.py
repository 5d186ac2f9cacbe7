"""Detector networks, their training step and their checkpoints."""

from networks.factory import ModelConfig, build_model, create_model

__all__ = ["ModelConfig", "build_model", "create_model"]

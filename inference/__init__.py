"""Predict unlabelled images and videos with a trained detector."""

from inference.detector import Detector, load_detector

__all__ = ["Detector", "load_detector"]

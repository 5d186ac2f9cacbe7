"""A trained detector on unlabelled images and videos."""

from inference.detector import Detector, load_detector

__all__ = ["Detector", "load_detector"]

"""Videos: frames by time, and one prediction for all of them."""

from inference.video.scoring import VideoPrediction, predict_video, write_video_report

__all__ = ["VideoPrediction", "predict_video", "write_video_report"]

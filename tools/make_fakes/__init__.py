"""Make fakes from real images by auto-encoders."""

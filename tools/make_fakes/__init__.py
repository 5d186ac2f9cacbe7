"""Make fakes by auto-encoders of the real images."""

"""Metrics of image quality: pure functions of arrays."""

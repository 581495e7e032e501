"""Calibration of the guidance of each group."""

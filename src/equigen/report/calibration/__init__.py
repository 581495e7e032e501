"""The page that reports a calibration of guidance by group."""

"""Screening of generated images by a classifier of real ones."""

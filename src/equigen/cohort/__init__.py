"""Cohorts: a user's table and images, by roles, checked, split by patient and counted."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

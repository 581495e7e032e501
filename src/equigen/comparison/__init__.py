"""Comparisons of mechanisms over seeds and settings: jobs, measurement, tables and the page."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

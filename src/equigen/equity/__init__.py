"""Equity mechanisms: from the losses of a batch and its groups to the weights of its images. Arrays only."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""The audit of predictions: metrics for every group, intervals, null bands and paired differences."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

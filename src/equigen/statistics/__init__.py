"""Statistics on arrays: resampling by patient, intervals, null bands, Holm, gaps and equity-scaled values."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

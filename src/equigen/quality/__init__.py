"""Image quality of generated images for every group: encoders, distances, the quality table, the oracle."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

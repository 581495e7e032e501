"""Plans, the images made from them, their screening and pairs, and the guidance that each group gets."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

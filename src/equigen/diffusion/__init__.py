"""Conditioning, networks, the objective, the pipeline that samples, and pretrained text-to-image pipelines."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

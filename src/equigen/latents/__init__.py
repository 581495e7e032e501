"""Autoencoders behind ``encode`` and ``decode``, fitting one, the cache of latents, and the store of very many."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

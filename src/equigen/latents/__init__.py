"""Autoencoders behind ``encode`` and ``decode``, fitting one, the cache of latents, and the store of very many."""

from equigen.latents.autoencoder import SHIPPED, Autoencoder, load_autoencoder, shipped_folder
from equigen.latents.cache import LatentCache, Latents, channel_statistics, encode, reconstruction_error
from equigen.latents.fit import AutoencoderSettings, fit_autoencoder, psnr
from equigen.latents.store import LatentStore, LatentView, encode_store, store_error

__all__ = [
    "SHIPPED", "Autoencoder", "AutoencoderSettings", "LatentCache", "LatentStore", "LatentView", "Latents",
    "channel_statistics", "encode", "encode_store", "fit_autoencoder", "load_autoencoder", "psnr",
    "reconstruction_error", "shipped_folder", "store_error",
]

"""Autoencoders behind ``encode`` and ``decode``, fitting one, and the cache of latents."""

from equigen.latents.autoencoder import SHIPPED, Autoencoder, load_autoencoder, shipped_folder
from equigen.latents.cache import LatentCache, Latents, channel_statistics, encode, reconstruction_error
from equigen.latents.fit import AutoencoderSettings, fit_autoencoder, psnr

__all__ = [
    "SHIPPED", "Autoencoder", "AutoencoderSettings", "LatentCache", "Latents", "channel_statistics", "encode",
    "fit_autoencoder", "load_autoencoder", "psnr", "reconstruction_error", "shipped_folder",
]

"""Autoencoders behind ``encode`` and ``decode``, fitting one, the cache of latents, and the store of very many."""

from .autoencoder import SHIPPED as SHIPPED
from .autoencoder import Autoencoder as Autoencoder
from .autoencoder import block_side as block_side
from .autoencoder import load_autoencoder as load_autoencoder
from .autoencoder import shipped_folder as shipped_folder
from .autoencoder import weight_hash as weight_hash
from .cache import LatentCache as LatentCache
from .cache import Latents as Latents
from .cache import channel_statistics as channel_statistics
from .cache import encode as encode
from .cache import reconstruction_error as reconstruction_error
from .fitting import AutoencoderSettings as AutoencoderSettings
from .fitting import fit_autoencoder as fit_autoencoder
from .fitting import psnr as psnr
from .store import LatentStore as LatentStore
from .store import LatentView as LatentView
from .store import cohort_store_folder as cohort_store_folder
from .store import encode_store as encode_store
from .store import store_error as store_error
from .store_file import STORE_FILE as STORE_FILE
from .store_file import StoreFile as StoreFile

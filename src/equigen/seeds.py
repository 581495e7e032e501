"""Random generators by (seed, purpose, index), independent of all others and of their order of use."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derive_seed(seed: int, purpose: str, index: int = 0) -> int:
    """Return a 63-bit seed for one purpose and index, from SHA-256, so that neighbouring seeds are unrelated."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def numpy_generator(seed: int, purpose: str, index: int = 0) -> np.random.Generator:
    """Return a NumPy generator for one purpose and index."""
    return np.random.default_rng(derive_seed(seed, purpose, index))


def torch_generator(seed: int, purpose: str, index: int = 0) -> torch.Generator:
    """Return a CPU torch generator for one purpose and index."""
    import torch  # here, so that reading a cohort and auditing load no torch

    return torch.Generator().manual_seed(derive_seed(seed, purpose, index))

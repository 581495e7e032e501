"""Thumbnails behind the ``Encoder`` interface, so that they are read in one pass and cached like features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from equigen.quality.metrics.registration import SIDE, thumbnails


@dataclass(frozen=True)
class ThumbnailEncoder:
    """Grey and colour-opponent pixels of a small thumbnail as features, for ``registration.nearest_thumbnails``."""

    name: str = f"thumbnail-{SIDE}"
    weight_hash: str = "no weights"
    preprocessing: str = f"grey, red - green, yellow - blue, averaged over {SIDE} x {SIDE} boxes"
    dimension: int = 3 * SIDE**2

    def __call__(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], None]:
        """Return float32 [N, 3 SIDE²], and no probabilities, from uint8 [N, H, H, 3]."""
        return thumbnails(images).reshape(len(images), -1), None

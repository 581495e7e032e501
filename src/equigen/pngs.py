"""Write lossless images atomically, and check that they are complete."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from equigen.files import write_bytes


def is_complete_png(path: Path, size: int) -> bool:
    """Whether a file is a complete RGB PNG of [size, size]."""
    if not path.is_file():
        return False
    try:
        with Image.open(path) as image:
            image.load()
            return image.format == "PNG" and image.mode == "RGB" and image.size == (size, size)
    except (OSError, SyntaxError):  # Pillow raises either on broken PNG data
        return False


def write_png(path: Path, image: NDArray[np.uint8]) -> None:
    """Write [H, W, 3] uint8 as a lossless PNG atomically."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    write_bytes(path, buffer.getvalue())

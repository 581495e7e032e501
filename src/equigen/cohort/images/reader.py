"""Read every image the same way: ``read_image`` to 8-bit RGB, then ``square`` to one size."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from os import cpu_count
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from equigen.cohort.images.arrays import NPY_START, NPZ_KEY, ZIP_START, read_npy, read_npz
from equigen.cohort.images.dicom import decode_dicom, grey_to_rgb, is_headless
from equigen.cohort.images.faults import ImageFault, quiet_decoders
from equigen.cohort.images.sources import open_image, reading_order
from equigen.errors import InputError, Problem

__all__ = ["NPZ_KEY", "SUFFIXES", "decode", "load_images", "read_image", "square"]
SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".bmp", ".dib", ".webp", ".npz", ".dcm", ".dicom",
    ".gif", ".ppm", ".pgm", ".pbm", ".pnm",
)  # fmt: skip
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "DIB", "WEBP", "GIF", "PPM")
_PNG_START = b"\x89PNG\r\n\x1a\n"
_BITS, _PHOTOMETRIC, _SAMPLES = 258, 262, 339  # TIFF tags


@dataclass(frozen=True)
class DecodedImage:
    """An image [H, W, 3] uint8, and the greatest value of its file where that holds 16-bit values."""

    pixels: NDArray[np.uint8]
    top: int | None = None


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """Read PNG, JPEG, TIFF, BMP, WebP, GIF, PPM, NPZ, NPY or DICOM as 8-bit RGB, [H, W, 3].

    The content decides what it is, not the suffix. The image may lie in a tar shard or in a row of a saved dataset; see
    ``equigen.cohort.images.sources`` for their paths.

    * EXIF orientation is applied; transparent parts are laid over black; palettes and CMYK become RGB.
    * 16-bit grey is scaled by its full range (value / 257); float must lie in 0 to 1. TIFF: both byte orders, 12 bits,
      WhiteIsZero inverted; signed 8- and 16-bit values are refused. A PNG whose checksums do not fit is refused.
    * NPZ and NPY: the array ``slo_fundus``, else the only array that looks like an image ([H, W] or [H, W, 3]).
      uint8, uint16, bool, or float (0 to 1, or 0 to 255). Python objects are refused, never unpickled.
    * DICOM: modality and VOI look-up tables, rescale, window (else percentiles), MONOCHROME1 inverted, pixels made
      square; identifying tags are never read.

    Raises:
        InputError: missing, not an image, truncated, several pages or frames, too many pixels to open safely.

    """
    try:
        return decode(Path(path))
    except ImageFault as fault:
        raise InputError("The image cannot be read.", [fault.problem(str(path))]) from fault


def decode(path: Path) -> NDArray[np.uint8]:
    """Read an image as ``read_image`` does, raising ``ImageFault``, for callers that know the row."""
    return decode_values(path).pixels


def decode_values(path: Path) -> DecodedImage:
    """Read an image with the greatest value of its file; raises ``ImageFault``."""
    limit = Image.MAX_IMAGE_PIXELS or 89_478_485
    with open_image(path) as handle, quiet_decoders():
        head = handle.read(132)
        handle.seek(0)
        if not head:
            raise ImageFault("is empty (0 bytes)", "copy it again from its source, or leave the row out")
        if head[128:132] == b"DICM":
            return DecodedImage(decode_dicom(handle, limit))
        if head[:4] == ZIP_START:
            return _from_array(read_npz(handle, limit))
        if head[:6] == NPY_START:
            return _from_array(read_npy(handle, limit))
        if is_headless(head):
            raise ImageFault(
                "is a DICOM data set without its file header (the preamble and 'DICM')",
                "write it as a DICOM file with its header, or leave the row out",
            )
        return _decode_pillow(handle, limit, head[:8] == _PNG_START)


def _decode_pillow(handle: BinaryIO, limit: int, png: bool) -> DecodedImage:
    """Read an image that Pillow decodes; the checksums of a ``png`` are verified."""
    try:
        if png:
            handle = BytesIO(handle.read())
            _check_png(handle.getbuffer())
        with Image.open(handle, formats=_FORMATS) as image:
            if image.width * image.height > limit:
                raise ImageFault(
                    f"has {image.width} x {image.height} pixels, more than is safe to open",
                    "write a smaller image",
                )
            if getattr(image, "n_frames", 1) != 1 and image.format != "MPO":
                raise ImageFault("holds several pages or frames", "write one image a file")
            bits, inverted = _tiff_values(image)
            image.load()
            return _to_rgb(ImageOps.exif_transpose(image), bits, inverted)
    except UnidentifiedImageError:
        raise ImageFault(
            "is not an image", "use PNG, JPEG, TIFF, BMP, WebP, NPZ or DICOM, or leave the row out"
        ) from None
    except Image.DecompressionBombError:
        raise ImageFault("has more pixels than is safe to open", "write a smaller image") from None
    except ImageFault:
        raise
    except Exception as error:  # decoders raise many kinds
        raise ImageFault("is truncated or damaged", "copy it again from its source, or leave the row out") from error


def _check_png(data: memoryview) -> None:
    """Raise ValueError where a checksum of a PNG is wrong; Pillow does not verify those of the pixels."""
    offset = 8
    while offset + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, offset)
        end = offset + 8 + size
        if end + 4 > len(data) or zlib.crc32(data[offset + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            raise ValueError("a chunk is damaged")
        if bytes(data[offset + 4 : offset + 8]) == b"IEND":
            return
        offset = end + 4
    raise ValueError("the end is missing")


def _tiff_values(image: Image.Image) -> tuple[int, bool]:
    """Return bits per value of a grey TIFF (16 for any other file), and whether its values must be inverted."""
    if image.format != "TIFF":
        return 16, False
    tags: Any = image.tag_v2  # type: ignore[attr-defined]
    bits, samples = tags.get(_BITS, (1,))[0], tags.get(_SAMPLES, (1,))[0]
    if samples == 2 and bits <= 16:
        raise ImageFault("holds signed values", "save 8- or 16-bit unsigned values")
    wide = image.mode.startswith("I") or image.mode == "F"
    return (bits if bits in {12, 16} else 16), wide and tags.get(_PHOTOMETRIC) == 0


def _to_rgb(image: Image.Image, bits: int, inverted: bool) -> DecodedImage:
    """Convert an image of any Pillow mode to 8-bit RGB."""
    if image.mode.startswith("I") or image.mode == "F":
        grey = _from_array(np.asarray(image), wide_int=True, bits=bits)
        return DecodedImage(255 - grey.pixels, grey.top) if inverted else grey
    if image.mode == "LAB":
        raise ImageFault("has colours that are not read (CIELAB)", "export it as RGB or grey")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        black = Image.new("RGBA", rgba.size, (0, 0, 0, 255))
        return DecodedImage(np.asarray(Image.alpha_composite(black, rgba).convert("RGB")))
    return DecodedImage(np.asarray(image.convert("RGB")))


def _from_array(values: NDArray[Any], wide_int: bool = False, bits: int = 16) -> DecodedImage:
    """Convert a grey or colour array to 8-bit RGB: bool, uint8, uint16 (full range of ``bits``) or float."""
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[:, :, 0]
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    kind, top = values.dtype, None
    if wide_int and kind == np.int32 and values.size and values.min() >= 0 and values.max() <= 65535:
        values, kind = values.astype(np.uint16), np.dtype(np.uint16)  # Pillow's mode "I" for 16-bit files
    if kind == np.bool_:
        eight = values.astype(np.uint8) * np.uint8(255)
    elif kind == np.uint8:
        eight = values
    elif kind == np.uint16:
        top = int(values.max())
        eight = np.round(values / (257 if bits == 16 else (2**bits - 1) / 255)).astype(np.uint8)
    elif kind.kind == "f":
        eight = _from_float(values.astype(np.float64), top=1.0 if wide_int else 255.0)
    else:
        raise ImageFault(f"holds {str(kind)[:20]} values", "save 8- or 16-bit unsigned values")
    rgb = grey_to_rgb(eight) if eight.ndim == 2 else np.ascontiguousarray(eight)
    return DecodedImage(rgb, top if bits == 16 else None)


def _from_float(values: NDArray[np.float64], top: float) -> NDArray[np.uint8]:
    """Scale floats in 0 to 1, or in 0 to ``top``, to 0 to 255."""
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > top:
        raise ImageFault(f"holds values that are not finite or outside 0 to {top:g}", "save values of 0 to 1, or 8 bit")
    return np.round(values * (255.0 if values.max() <= 1 else 1.0)).astype(np.uint8)


def square(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Crop the largest central square and resize it with an antialiased Lanczos filter.

    Of H x W pixels the square of side s = min(H, W) starts at floor((H - s) / 2), floor((W - s) / 2).
    Pillow's Lanczos filter (support 3, widened when shrinking, which avoids aliasing) makes it
    [size, size, 3].

    Raises:
        InputError: the array is not [H, W, 3] uint8, or size is below 1.

    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape or size < 1:
        problem = Problem(f"{image.dtype} {image.shape} to size {size}", "give [H, W, 3] uint8, as read_image does")
        raise InputError("Not an image that can be made square.", [problem])
    height, width = image.shape[:2]
    length = min(height, width)
    first_row, first_column = (height - length) // 2, (width - length) // 2
    crop = image[first_row : first_row + length, first_column : first_column + length]
    if length == size:
        return np.ascontiguousarray(crop)
    return np.array(Image.fromarray(crop).resize((size, size), Image.Resampling.LANCZOS))


def load_images(paths: Sequence[str | Path], size: int, threads: int | None = None) -> NDArray[np.uint8]:
    """Read many images as squares, in order: [N, size, size, 3] uint8.

    Raises:
        InputError: with every image that cannot be read.

    """

    def load(index: int) -> NDArray[np.uint8] | Problem:
        try:
            return square(decode(Path(paths[index])), size)
        except ImageFault as fault:
            return fault.problem(str(paths[index]))

    images = np.empty((len(paths), size, size, 3), dtype=np.uint8)
    problems, order = [], reading_order([str(path) for path in paths])
    with ThreadPoolExecutor(threads or cpu_count()) as pool:
        for index, image in zip(order, pool.map(load, order), strict=True):
            if isinstance(image, Problem):
                problems.append(image)
            else:
                images[index] = image
    if problems:
        raise InputError("Some images cannot be read.", problems)
    return images

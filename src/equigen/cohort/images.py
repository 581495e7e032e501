"""Every image takes one road: ``read_image`` to 8-bit RGB, then ``square`` to one size."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from equigen.cohort.dicom import decode_dicom, grey_to_rgb
from equigen.cohort.faults import ImageFault
from equigen.cohort.opening import open_image, reading_order
from equigen.errors import InputError, Problem

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".npz", ".dcm", ".dicom")
NPZ_KEY = "slo_fundus"
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
    KeyError,
    IndexError,
)


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """Read PNG, JPEG, TIFF, BMP, WebP, NPZ or DICOM as 8-bit RGB, [H, W, 3].

    The content decides what it is, not the suffix. The image may lie in a tar shard or in a row of a saved dataset; see
    ``equigen.cohort.opening`` for their paths.

    * EXIF orientation is applied; transparent parts are laid over black; palettes and CMYK become RGB.
    * 16-bit grey is scaled by its full range (value / 257); float must lie in 0 to 1.
    * NPZ: the array ``slo_fundus``, else the only array that looks like an image ([H, W] or [H, W, 3]).
      uint8, uint16, bool, or float (0 to 1, or 0 to 255). Python objects are refused, never unpickled.
    * DICOM: rescale, window (else percentiles), MONOCHROME1 inverted; identifying tags are never read.

    Raises:
        InputError: missing, not an image, truncated, several pages or frames, too many pixels to open safely.

    """
    try:
        return decode(Path(path))
    except ImageFault as fault:
        raise InputError("The image cannot be read.", [fault.problem(str(path))]) from fault


def decode(path: Path) -> NDArray[np.uint8]:
    """``read_image`` that raises ``ImageFault``, for callers who know the row."""
    limit = Image.MAX_IMAGE_PIXELS or 89_478_485
    with open_image(path) as handle:
        head = handle.read(132)
        handle.seek(0)
        if head[128:132] == b"DICM":
            return decode_dicom(handle, limit)
        if head[:4] == b"PK\x03\x04":
            return _decode_npz(handle, limit)
        return _decode_pillow(handle, limit)


def _decode_pillow(handle: BinaryIO, limit: int) -> NDArray[np.uint8]:
    try:
        with Image.open(handle, formats=_FORMATS) as image:
            if image.width * image.height > limit:
                raise ImageFault(
                    f"has {image.width} x {image.height} pixels, more than is safe to open",
                    "write a smaller image",
                )
            if getattr(image, "n_frames", 1) != 1 and image.format != "MPO":
                raise ImageFault("holds several pages or frames", "write one image a file")
            image.load()
            return _to_rgb(ImageOps.exif_transpose(image))
    except UnidentifiedImageError:
        raise ImageFault(
            "is not an image", "use PNG, JPEG, TIFF, BMP, WebP, NPZ or DICOM, or leave the row out"
        ) from None
    except Image.DecompressionBombError:
        raise ImageFault("has more pixels than is safe to open", "write a smaller image") from None
    except _BROKEN as error:
        raise ImageFault(
            "is truncated or damaged", "copy it again from its source, or leave the row out"
        ) from error


def _to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """Pillow's modes to 8-bit RGB."""
    if image.mode.startswith("I") or image.mode == "F":
        return _from_array(np.asarray(image), wide_int=True)
    if image.has_transparency_data:
        over = image.convert("RGBA")
        black = Image.new("RGBA", over.size, (0, 0, 0, 255))
        return np.asarray(Image.alpha_composite(black, over).convert("RGB"))
    return np.asarray(image.convert("RGB"))


def _from_array(values: NDArray[Any], wide_int: bool = False) -> NDArray[np.uint8]:
    """A grey or colour array to 8-bit RGB: bool, uint8, uint16 (full range) or float."""
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[:, :, 0]
    kind = values.dtype
    if wide_int and kind == np.int32 and values.size and values.min() >= 0 and values.max() <= 65535:
        values, kind = values.astype(np.uint16), np.dtype(np.uint16)  # Pillow's mode "I" for 16-bit files
    if kind == np.bool_:
        eight = values.astype(np.uint8) * np.uint8(255)
    elif kind == np.uint8:
        eight = values
    elif kind == np.uint16:
        eight = np.round(values / 257).astype(np.uint8)
    elif kind.kind == "f":
        eight = _from_float(values.astype(np.float64), top=1.0 if wide_int else 255.0)
    else:
        raise ImageFault(f"holds {kind} values", "save 8- or 16-bit unsigned values")
    return grey_to_rgb(eight) if eight.ndim == 2 else np.ascontiguousarray(eight)


def _from_float(values: NDArray[np.float64], top: float) -> NDArray[np.uint8]:
    """Floats in 0 to 1, or in 0 to ``top``, to 0 to 255."""
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > top:
        raise ImageFault(
            f"holds values that are not finite or outside 0 to {top:g}", "save values of 0 to 1, or 8 bit"
        )
    return np.round(values * (255.0 if values.max() <= 1 else 1.0)).astype(np.uint8)


def _decode_npz(handle: BinaryIO, limit: int) -> NDArray[np.uint8]:
    """The image in an NPZ, chosen by the arrays' headers, so that nothing else in it is loaded."""
    try:
        with zipfile.ZipFile(handle) as archive:
            headers = {name.removesuffix(".npy"): _npy_header(archive, name) for name in archive.namelist()}
            key = _choose(headers)
            shape, dtype = headers[key]
            if dtype.hasobject:
                raise ImageFault(
                    f"holds Python objects under '{key}'",
                    "save a plain number array; objects are never unpickled",
                )
            if int(np.prod(shape)) > 4 * limit:
                raise ImageFault("has more pixels than is safe to open", "write a smaller image")
            with archive.open(f"{key}.npy") as member:
                values = np.lib.format.read_array(member, allow_pickle=False)
    except _BROKEN as error:
        raise ImageFault(
            "is truncated or no NPZ of arrays", "save it again with numpy.savez_compressed"
        ) from error
    return _from_array(values)


def _npy_header(archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    with archive.open(name) as member:
        version = np.lib.format.read_magic(member)
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read(member)
    return shape, dtype


def _choose(headers: dict[str, tuple[tuple[int, ...], np.dtype[Any]]]) -> str:
    """The key of the image: ``slo_fundus``, else the sole array of image shape."""
    if NPZ_KEY in headers:
        return NPZ_KEY
    pictures = [
        key for key, (shape, _) in headers.items()
        if len(shape) == 2 or (len(shape) == 3 and shape[2] in {1, 3})
    ]  # fmt: skip
    if len(pictures) != 1:
        found = ", ".join(sorted(pictures)) or "none"
        raise ImageFault(f"holds not exactly one image array (found: {found})", f"name the image '{NPZ_KEY}'")
    return pictures[0]


def square(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Cut the largest central square and resize it with an antialiased Lanczos filter.

    Of H x W pixels the square of side s = min(H, W) starts at floor((H - s) / 2), floor((W - s) / 2).
    Pillow's Lanczos filter (support 3, widened when shrinking, which avoids aliasing) makes it
    [size, size, 3].

    Raises:
        InputError: the array is not [H, W, 3] uint8, or size is below 1.

    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape or size < 1:
        problem = Problem(
            f"{image.dtype} {image.shape} to size {size}", "give [H, W, 3] uint8, as read_image does"
        )
        raise InputError("Not an image that can be made square.", [problem])
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    crop = image[top : top + side, left : left + side]
    if side == size:
        return np.ascontiguousarray(crop)
    return np.array(Image.fromarray(crop).resize((size, size), Image.Resampling.LANCZOS))


def load_images(paths: Sequence[str | Path], size: int, threads: int | None = None) -> NDArray[np.uint8]:
    """Read and square many images, in order: [N, size, size, 3] uint8.

    Raises:
        InputError: with every image that cannot be read.

    """

    def one(place: int) -> NDArray[np.uint8] | Problem:
        try:
            return square(decode(Path(paths[place])), size)
        except ImageFault as fault:
            return fault.problem(str(paths[place]))

    images = np.empty((len(paths), size, size, 3), dtype=np.uint8)
    problems, order = [], reading_order([str(path) for path in paths])
    with ThreadPoolExecutor(threads or cpu_count()) as pool:
        for place, found in zip(order, pool.map(one, order), strict=True):
            if isinstance(found, Problem):
                problems.append(found)
            else:
                images[place] = found
    if problems:
        raise InputError("Some images cannot be read.", problems)
    return images

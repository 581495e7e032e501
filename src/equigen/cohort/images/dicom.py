"""Decode DICOM pixels; only the tags that decoding needs are read, never those that identify a patient."""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image
from pydicom.pixels import pixel_array
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from equigen.cohort.images.faults import ImageFault

_TAGS = [
    "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows",
    "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelData", "FloatPixelData",
    "DoubleFloatPixelData", "WindowCenter", "WindowWidth", "VOILUTFunction", "RescaleSlope", "RescaleIntercept",
    "ModalityLUTSequence", "VOILUTSequence", "PixelPaddingValue", "PixelPaddingRangeLimit",
    "PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio",
]  # fmt: skip
PERCENTILES = (0.5, 99.5)
SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio")
ASPECT_TOLERANCE = 0.01  # largest relative difference of the sides of a square pixel
MAX_ASPECT = 20.0  # largest ratio of the sides of a pixel; more is an error of the file
_START = 2**20  # bytes of a deflated file that are unpacked to find its size
_EXPORT = "export it again, or leave the row out"


def decode_dicom(file: BinaryIO, max_pixels: int) -> NDArray[np.uint8]:
    """Return one DICOM frame as RGB, [H, W, 3]: modality look-up, then VOI table or window, else percentiles.

    Stored values go through the modality look-up table, or rescale slope and intercept; then through the first VOI
    look-up table, else the first window, else the 0.5 to 99.5 percentiles of all values but padding
    (PixelPaddingValue). MONOCHROME1 (small is white) is inverted. Pixels that are not square (PixelSpacing,
    ImagerPixelSpacing, NominalScannedPixelSpacing, PixelAspectRatio, the first that is there) are made square: the side
    with the larger pixels gets more of them. Identifying tags are never read, and pydicom's own messages, which may
    quote values of the file, are never passed on.

    Raises:
        ImageFault: not DICOM, several frames, a palette, too large, numbers that are none, or a compression that no
            installed decoder reads.

    """
    try:
        data = pydicom.dcmread(_inflate(file, max_pixels), specific_tags=_TAGS)  # type: ignore[arg-type, unused-ignore]
        rows, columns = int(data.Rows), int(data.Columns)
        frames = int(data.get("NumberOfFrames") or 1)
        photometric = str(data.PhotometricInterpretation)
    except ImageFault:
        raise
    except Exception:  # pydicom raises many kinds, whose text may quote tags
        raise ImageFault("is no readable DICOM image", _EXPORT) from None
    if frames != 1:
        raise ImageFault(f"holds {frames} frames", "write one image a file")
    if rows < 1 or columns < 1:
        raise ImageFault("has no pixels", _EXPORT)
    if rows * columns > max_pixels:
        raise ImageFault(f"has {rows} x {columns} pixels, more than is safe to open", "write a smaller image")
    if photometric not in {"MONOCHROME1", "MONOCHROME2", "RGB"} and not photometric.startswith("YBR"):
        raise ImageFault("has colours that are not read (a palette, say)", "export it as RGB or grey")
    height, width = _square_pixel_shape(data, rows, columns, max_pixels)
    pixels = _pixel_matrix(data)
    if photometric.startswith("MONOCHROME"):
        if pixels.ndim != 2 or not np.isfinite(pixels).all():
            raise ImageFault("has grey pixels that are no matrix of finite numbers", _EXPORT)
        grey = _grey_levels(data, pixels)
        rgb = grey_to_rgb(255 - grey if photometric == "MONOCHROME1" else grey)
    else:
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype.kind != "u":
            raise ImageFault("has colours that are not three unsigned values a pixel", _EXPORT)
        share = pixels.astype(np.float64) / (2 ** int(data.BitsStored) - 1)
        rgb = np.asarray(np.round(np.minimum(share, 1) * 255), dtype=np.uint8)
    if (height, width) != rgb.shape[:2]:
        rgb = np.array(Image.fromarray(rgb).resize((width, height), Image.Resampling.LANCZOS))
    return rgb


def is_headless(head: bytes) -> bool:
    """Whether a file begins like a DICOM data set without the preamble and "DICM"."""
    if len(head) < 12 or head[:2] not in {b"\2\0", b"\x08\0"} or head[3:4] != b"\0":
        return False
    return (head[4:6].isalpha() and head[4:6].isupper()) or 0 < struct.unpack("<I", head[4:8])[0] < 256


def _inflate(file: BinaryIO, max_pixels: int) -> BinaryIO:
    """Return the file, decompressed if its transfer syntax is deflated; the size is bounded by that of the pixels."""
    head = file.read(2**16)
    file.seek(0)
    end, syntax = _file_meta(head)
    if syntax != DeflatedExplicitVRLittleEndian:
        return file
    file.seek(end)
    decompressor, compressed = zlib.decompressobj(-zlib.MAX_WBITS), file.read()
    data = decompressor.decompress(compressed, _START)
    header = head[:end].replace(
        DeflatedExplicitVRLittleEndian.encode(),
        ExplicitVRLittleEndian.encode().ljust(len(DeflatedExplicitVRLittleEndian), b"\0"),
    )
    start = pydicom.dcmread(io.BytesIO(header + data), stop_before_pixels=True, specific_tags=_TAGS[:-9])
    pixels = int(start.Rows) * int(start.Columns) * int(start.get("NumberOfFrames") or 1)
    if pixels > max_pixels:
        size = f"{start.Rows} x {start.Columns}"
        raise ImageFault(f"has {size} pixels, more than is safe to open", "write a smaller image")
    limit = 2 * _START + pixels * int(start.SamplesPerPixel) * (int(start.BitsAllocated) + 7) // 8
    data += decompressor.decompress(decompressor.unconsumed_tail, max(limit - len(data), 1))
    if decompressor.unconsumed_tail or not decompressor.eof:
        message = "unpacks to more than its pixels need" if decompressor.unconsumed_tail else "is truncated or damaged"
        raise ImageFault(message, "export it uncompressed, or leave the row out")
    return io.BytesIO(header + data)


def _file_meta(head: bytes) -> tuple[int, str]:
    """Return the offset of the end of the file's meta information, and its transfer syntax ("" = none)."""
    offset, syntax = 132, ""
    while head[offset : offset + 2] == b"\2\0" and offset + 12 <= len(head):
        long = head[offset + 4 : offset + 6] in {b"OB", b"OW", b"UN", b"UT", b"SQ", b"OF"}
        size = struct.unpack_from("<I", head, offset + 8)[0] if long else struct.unpack_from("<H", head, offset + 6)[0]
        value = offset + (12 if long else 8)
        if head[offset + 2 : offset + 4] == b"\x10\0":
            syntax = head[value : value + size].rstrip(b"\0 ").decode("latin-1")
        offset = value + size
    return offset, syntax


def _pixel_matrix(data: Any) -> NDArray[Any]:
    """Return the pixel matrix; YBR is converted to RGB."""
    try:
        return np.asarray(pixel_array(data))
    except (RuntimeError, NotImplementedError):
        raise ImageFault(
            "is compressed in a way that no installed decoder reads",
            "install equigen[dicom], or export it uncompressed",
        ) from None
    except Exception:  # pydicom raises many kinds, whose text may quote tags
        raise ImageFault("has truncated or damaged pixels", _EXPORT) from None


def _tag_numbers(data: Any, tag: str) -> list[float]:
    """Return the numbers of a tag, [] if it is absent or empty; raises ``ImageFault`` for one that is not finite."""
    try:
        value = data.get(tag)
        if value is None or value == "":
            return []
        is_list = isinstance(value, pydicom.multival.MultiValue | list | tuple)
        numbers = [float(item) for item in (value if is_list else [value])]
    except Exception:  # pydicom raises many kinds, whose text may quote the value
        numbers = [math.nan]
    if not all(math.isfinite(number) for number in numbers):
        raise ImageFault(f"has a value in {tag} that is no finite number", f"mend {tag} in the file, or {_EXPORT}")
    return numbers


def _first_number(data: Any, tag: str) -> float | None:
    return next(iter(_tag_numbers(data, tag)), None)


def _square_pixel_shape(data: Any, rows: int, columns: int, max_pixels: int) -> tuple[int, int]:
    """Return rows and columns of the image after resampling to square pixels."""
    for tag in SPACINGS:
        spacing = _tag_numbers(data, tag)
        if not spacing:
            continue
        if len(spacing) != 2 or min(spacing) <= 0 or not 1 / MAX_ASPECT <= spacing[0] / spacing[1] <= MAX_ASPECT:
            raise ImageFault(f"has a {tag} that is no size of a pixel", f"mend {tag} in the file, or {_EXPORT}")
        aspect = spacing[0] / spacing[1]
        if abs(aspect - 1) < ASPECT_TOLERANCE:
            return rows, columns
        height, width = (round(rows * aspect), columns) if aspect > 1 else (rows, round(columns / aspect))
        if height * width > max_pixels:
            raise ImageFault(
                f"has {height} x {width} pixels once they are square, more than is safe to open",
                "write a smaller image",
            )
        return height, width
    return rows, columns


def _grey_levels(data: Any, pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Return grey levels 0 to 255 of stored values (DICOM PS3.3, C.11.1, C.11.2 and C.7.5.1.1.2)."""
    modality, voi = _lookup_table(data, "ModalityLUTSequence"), _lookup_table(data, "VOILUTSequence")
    if modality is not None:
        values = modality(pixels.astype(np.float64))[0]
    else:
        slope, intercept = _first_number(data, "RescaleSlope"), _first_number(data, "RescaleIntercept")
        if slope == 0:
            raise ImageFault("has a RescaleSlope of 0, which makes it one grey", "mend RescaleSlope in the file")
        values = pixels.astype(np.float64) * (1.0 if slope is None else slope)
        values = values + (0.0 if intercept is None else intercept)
    if not np.isfinite(values).all():
        raise ImageFault("has values that are not finite once rescaled", _EXPORT)
    if voi is not None:
        output, top = voi(values)
        share = output / top
    else:
        first, last = _first_number(data, "PixelPaddingValue"), _first_number(data, "PixelPaddingRangeLimit")
        padding = np.zeros(pixels.shape, dtype=np.bool_)
        if first is not None:
            low, high = sorted((first, first if last is None else last))
            padding = (pixels >= low) & (pixels <= high)
        share = _window(data, values, padding)
    return np.round(np.clip(share, 0, 1) * 255).astype(np.uint8)


def _window(data: Any, values: NDArray[np.float64], padding: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return values scaled to 0..1 by the first window (DICOM PS3.3, C.11.2.1.2 and C.11.2.1.3).

    Without a window the ``PERCENTILES`` of the values outside ``padding`` [H, W] are its ends.
    """
    centre, width = _first_number(data, "WindowCenter"), _first_number(data, "WindowWidth")
    function = str(data.get("VOILUTFunction") or "LINEAR").strip().upper()
    if centre is None and width is None:
        inside = values if padding.all() or not padding.any() else values[~padding]
        low, high = np.percentile(inside, PERCENTILES)
        return (values - low) / (high - low) if high > low else np.zeros_like(values)
    mend = "mend the window in the file; without one the 0.5 to 99.5 percentiles are used"
    if centre is None or width is None:
        raise ImageFault("has half a window: WindowCenter and WindowWidth go together", mend)
    if width < 1 if function == "LINEAR" else width <= 0:
        raise ImageFault(f"has a WindowWidth of {width:g}, which is no window", mend)
    if function == "SIGMOID":
        return np.asarray(1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700))))
    if function == "LINEAR_EXACT":
        return (values - centre) / width + 0.5
    if function != "LINEAR":
        raise ImageFault("has a VOILUTFunction that is none of LINEAR, LINEAR_EXACT and SIGMOID", mend)
    if width == 1:  # a step
        return (values > centre - 0.5).astype(np.float64)
    return (values - (centre - 0.5)) / (width - 1) + 0.5


_LookupTable = Callable[[NDArray[np.float64]], tuple[NDArray[np.float64], float]]


def _lookup_table(data: Any, tag: str) -> _LookupTable | None:
    """Return the first look-up table of a sequence: values -> (output, greatest output); None without one."""
    try:
        if not data.get(tag):
            return None
        item = data.get(tag)[0]
        count, first, bits = (int(number) for number in item.LUTDescriptor)
        count = count or 2**16
        lut = item.LUTData
        if isinstance(lut, bytes):
            order = "<" if data.original_encoding[1] else ">"
            entries = np.frombuffer(lut, dtype=np.uint8 if len(lut) in {count, count + count % 2} else f"{order}u2")
        else:
            entries = np.asarray(lut if isinstance(lut, pydicom.multival.MultiValue | list) else [lut])
        first = first - 2**16 if data.get("PixelRepresentation") == 1 and first >= 2**15 else first
        entries = entries[:count].astype(np.float64)
        if len(entries) != count or not 1 <= bits <= 16 or entries.min() < 0 or entries.max() >= 2**bits:
            raise ValueError(tag)
    except Exception:  # pydicom raises many kinds, whose text may quote tags
        raise ImageFault(f"has a {tag} that cannot be read", f"mend it in the file, or {_EXPORT}") from None

    def look_up(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
        indices = np.clip(np.round(values) - first, 0, count - 1).astype(np.int64)
        return entries[indices], float(2**bits - 1)

    return look_up


def grey_to_rgb(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Repeat a grey image [H, W] over three channels, [H, W, 3]."""
    return np.repeat(grey[:, :, None], 3, axis=2)

"""DICOM pixels without the patient: only the tags that pixels need are ever read from the file."""

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
SQUARE = 0.01  # pixels whose sides differ by less are square
FLATTEST = 20.0  # sides of a pixel that differ by more are a mistake
_START = 2**20  # bytes before the pixels of a deflated file that are looked at
_EXPORT = "export it again, or leave the row out"


def decode_dicom(file: BinaryIO, max_pixels: int) -> NDArray[np.uint8]:
    """One DICOM frame as RGB, [H, W, 3]: modality look-up, then its VOI table or window, else percentiles.

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
        data = pydicom.dcmread(_inflated(file, max_pixels), specific_tags=_TAGS)  # type: ignore[arg-type, unused-ignore]
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
    height, width = _true_shape(data, rows, columns, max_pixels)
    pixels = _pixels(data)
    if photometric.startswith("MONOCHROME"):
        if pixels.ndim != 2 or not np.isfinite(pixels).all():
            raise ImageFault("has grey pixels that are no matrix of finite numbers", _EXPORT)
        grey = _grey(data, pixels)
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
    """Whether a file begins as a DICOM data set does that lacks the preamble and "DICM" in front of it."""
    if len(head) < 12 or head[:2] not in {b"\2\0", b"\x08\0"} or head[3:4] != b"\0":
        return False
    return (head[4:6].isalpha() and head[4:6].isupper()) or 0 < struct.unpack("<I", head[4:8])[0] < 256


def _inflated(file: BinaryIO, max_pixels: int) -> BinaryIO:
    """The file itself, or of a deflated one what it unpacks to, if that is no more than its pixels need."""
    head = file.read(2**16)
    file.seek(0)
    end, syntax = _meta(head)
    if syntax != DeflatedExplicitVRLittleEndian:
        return file
    file.seek(end)
    engine, packed = zlib.decompressobj(-zlib.MAX_WBITS), file.read()
    data = engine.decompress(packed, _START)
    plain = head[:end].replace(
        DeflatedExplicitVRLittleEndian.encode(),
        ExplicitVRLittleEndian.encode().ljust(len(DeflatedExplicitVRLittleEndian), b"\0"),
    )
    start = pydicom.dcmread(io.BytesIO(plain + data), stop_before_pixels=True, specific_tags=_TAGS[:-9])
    pixels = int(start.Rows) * int(start.Columns) * int(start.get("NumberOfFrames") or 1)
    if pixels > max_pixels:
        size = f"{start.Rows} x {start.Columns}"
        raise ImageFault(f"has {size} pixels, more than is safe to open", "write a smaller image")
    room = 2 * _START + pixels * int(start.SamplesPerPixel) * (int(start.BitsAllocated) + 7) // 8
    data += engine.decompress(engine.unconsumed_tail, max(room - len(data), 1))
    if engine.unconsumed_tail or not engine.eof:
        more = "unpacks to more than its pixels need" if engine.unconsumed_tail else "is truncated or damaged"
        raise ImageFault(more, "export it uncompressed, or leave the row out")
    return io.BytesIO(plain + data)


def _meta(head: bytes) -> tuple[int, str]:
    """Where the file's meta information ends, and the transfer syntax that it names ("" = none)."""
    place, syntax = 132, ""
    while head[place : place + 2] == b"\2\0" and place + 12 <= len(head):
        long = head[place + 4 : place + 6] in {b"OB", b"OW", b"UN", b"UT", b"SQ", b"OF"}
        size = struct.unpack_from("<I", head, place + 8)[0] if long else struct.unpack_from("<H", head, place + 6)[0]
        value = place + (12 if long else 8)
        if head[place + 2 : place + 4] == b"\x10\0":
            syntax = head[value : value + size].rstrip(b"\0 ").decode("latin-1")
        place = value + size
    return place, syntax


def _pixels(data: Any) -> NDArray[Any]:
    """The pixel matrix; YBR is turned into RGB."""
    try:
        return np.asarray(pixel_array(data))
    except (RuntimeError, NotImplementedError):
        raise ImageFault(
            "is compressed in a way that no installed decoder reads",
            "install equigen[dicom], or export it uncompressed",
        ) from None
    except Exception:  # pydicom raises many kinds, whose text may quote tags
        raise ImageFault("has truncated or damaged pixels", _EXPORT) from None


def _numbers(data: Any, tag: str) -> list[float]:
    """The numbers of a tag, none where it is absent or empty; raises ``ImageFault`` for what is no finite number."""
    try:
        value = data.get(tag)
        if value is None or value == "":
            return []
        several = isinstance(value, pydicom.multival.MultiValue | list | tuple)
        numbers = [float(item) for item in (value if several else [value])]
    except Exception:  # pydicom raises many kinds, whose text may quote the value
        numbers = [math.nan]
    if not all(math.isfinite(number) for number in numbers):
        raise ImageFault(f"has a value in {tag} that is no finite number", f"mend {tag} in the file, or {_EXPORT}")
    return numbers


def _first(data: Any, tag: str) -> float | None:
    return next(iter(_numbers(data, tag)), None)


def _true_shape(data: Any, rows: int, columns: int, max_pixels: int) -> tuple[int, int]:
    """Rows and columns of the image once its pixels are square."""
    for tag in SPACINGS:
        sides = _numbers(data, tag)
        if not sides:
            continue
        if len(sides) != 2 or min(sides) <= 0 or not 1 / FLATTEST <= sides[0] / sides[1] <= FLATTEST:
            raise ImageFault(f"has a {tag} that is no size of a pixel", f"mend {tag} in the file, or {_EXPORT}")
        tall = sides[0] / sides[1]
        if abs(tall - 1) < SQUARE:
            return rows, columns
        height, width = (round(rows * tall), columns) if tall > 1 else (rows, round(columns / tall))
        if height * width > max_pixels:
            raise ImageFault(
                f"has {height} x {width} pixels once they are square, more than is safe to open",
                "write a smaller image",
            )
        return height, width
    return rows, columns


def _grey(data: Any, pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Grey 0 to 255 of stored values (DICOM PS3.3, C.11.1, C.11.2 and C.7.5.1.1.2)."""
    modality, voi = _table(data, "ModalityLUTSequence"), _table(data, "VOILUTSequence")
    if modality is not None:
        values = modality(pixels.astype(np.float64))[0]
    else:
        slope, intercept = _first(data, "RescaleSlope"), _first(data, "RescaleIntercept")
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
        share = _window(data, values, _padding(data, pixels))
    return np.round(np.clip(share, 0, 1) * 255).astype(np.uint8)


def _padding(data: Any, pixels: NDArray[Any]) -> NDArray[np.bool_]:
    """Which stored values are padding around the image: PixelPaddingValue, up to PixelPaddingRangeLimit."""
    first, last = _first(data, "PixelPaddingValue"), _first(data, "PixelPaddingRangeLimit")
    if first is None:
        return np.zeros(pixels.shape, dtype=bool)
    low, high = sorted((first, first if last is None else last))
    return np.asarray((pixels >= low) & (pixels <= high))


def _window(data: Any, values: NDArray[np.float64], padding: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Share of the first window (DICOM PS3.3, C.11.2.1.2 and C.11.2.1.3), else of the percentiles without padding."""
    centre, width = _first(data, "WindowCenter"), _first(data, "WindowWidth")
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


_Lookup = Callable[[NDArray[np.float64]], tuple[NDArray[np.float64], float]]


def _table(data: Any, tag: str) -> _Lookup | None:
    """The first look-up table of a sequence (values -> what it says, and its greatest value); None without one."""
    try:
        if not data.get(tag):
            return None
        item = data.get(tag)[0]
        count, first, bits = (int(number) for number in item.LUTDescriptor)
        count = count or 2**16
        raw = item.LUTData
        if isinstance(raw, bytes):
            order = "<" if data.original_encoding[1] else ">"
            entries = np.frombuffer(raw, dtype=np.uint8 if len(raw) in {count, count + count % 2} else f"{order}u2")
        else:
            entries = np.asarray(raw if isinstance(raw, pydicom.multival.MultiValue | list) else [raw])
        first = first - 2**16 if data.get("PixelRepresentation") == 1 and first >= 2**15 else first
        entries = entries[:count].astype(np.float64)
        if len(entries) != count or not 1 <= bits <= 16 or entries.min() < 0 or entries.max() >= 2**bits:
            raise ValueError(tag)
    except Exception:  # pydicom raises many kinds, whose text may quote tags
        raise ImageFault(f"has a {tag} that cannot be read", f"mend it in the file, or {_EXPORT}") from None

    def look_up(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
        places = np.clip(np.round(values) - first, 0, count - 1).astype(np.int64)
        return entries[places], float(2**bits - 1)

    return look_up


def grey_to_rgb(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[H, W] -> [H, W, 3]."""
    return np.repeat(grey[:, :, None], 3, axis=2)

"""DICOM pixels without the patient: only the tags that pixels need are ever read from the file."""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.pixels import pixel_array

from equigen.cohort.faults import ImageFault

_TAGS = [
    "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows",
    "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelData", "FloatPixelData",
    "WindowCenter", "WindowWidth", "VOILUTFunction", "RescaleSlope", "RescaleIntercept",
]  # fmt: skip
PERCENTILES = (0.5, 99.5)


def decode_dicom(file: BinaryIO, max_pixels: int) -> NDArray[np.uint8]:
    """One DICOM frame as RGB: rescale slope and intercept, then its window, else its 0.5 to 99.5 percentiles.

    MONOCHROME1 (small is white) is inverted. Identifying tags are never read, and pydicom's own messages,
    which may quote values of the file, are never passed on.

    Raises:
        ImageFault: not DICOM, several frames, a palette, too large, or a compression that no installed
            decoder reads.

    """
    try:
        data = pydicom.dcmread(file, specific_tags=_TAGS)  # type: ignore[arg-type, unused-ignore]
        rows, columns = int(data.Rows), int(data.Columns)
        frames = int(data.get("NumberOfFrames") or 1)
        photometric = str(data.PhotometricInterpretation)
    except Exception:  # pydicom raises many kinds, whose text may quote tags
        raise ImageFault("is no readable DICOM image", "export it again, or leave the row out") from None
    if frames != 1:
        raise ImageFault(f"holds {frames} frames", "write one image a file")
    if rows * columns > max_pixels:
        raise ImageFault(f"has {rows} x {columns} pixels, more than is safe to open", "write a smaller image")
    if photometric not in {"MONOCHROME1", "MONOCHROME2", "RGB"} and not photometric.startswith("YBR"):
        raise ImageFault("has colours that are not read (a palette, say)", "export it as RGB or grey")
    pixels = _pixels(data)
    if photometric.startswith("MONOCHROME"):
        grey = _window(data, pixels.astype(np.float64))
        return grey_to_rgb(255 - grey if photometric == "MONOCHROME1" else grey)
    share = pixels.astype(np.float64) / (2 ** int(data.BitsStored) - 1)
    return np.asarray(np.round(share * 255), dtype=np.uint8)


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
        raise ImageFault("has truncated or damaged pixels", "export it again, or leave the row out") from None


def _first(data: Any, tag: str) -> float | None:
    value = data.get(tag)
    if value is None or value == "":
        return None
    return float(value[0] if isinstance(value, pydicom.multival.MultiValue) else value)


def _window(data: Any, pixels: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Grey 0 to 255 from the first window (DICOM PS3.3, C.11.2.1.2 and C.11.2.1.3), else from percentiles."""
    slope, intercept = _first(data, "RescaleSlope"), _first(data, "RescaleIntercept")
    values = pixels * (1.0 if slope is None else slope) + (0.0 if intercept is None else intercept)
    centre, width = _first(data, "WindowCenter"), _first(data, "WindowWidth")
    function = str(data.get("VOILUTFunction") or "LINEAR")
    if centre is None or width is None or width <= (1 if function == "LINEAR" else 0):
        low, high = np.percentile(values, PERCENTILES)
        share = (values - low) / (high - low) if high > low else np.zeros_like(values)
    elif function == "SIGMOID":
        share = 1 / (1 + np.exp(-4 * (values - centre) / width))
    elif function == "LINEAR_EXACT":
        share = (values - centre) / width + 0.5
    else:
        share = (values - (centre - 0.5)) / (width - 1) + 0.5
    return np.round(np.clip(share, 0, 1) * 255).astype(np.uint8)


def grey_to_rgb(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[H, W] -> [H, W, 3]."""
    return np.repeat(grey[:, :, None], 3, axis=2)

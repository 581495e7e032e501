"""Read arrays from NPY and NPZ files: headers are checked first, sizes are bounded, nothing is unpickled."""

from __future__ import annotations

import math
import zipfile
from dataclasses import dataclass
from typing import IO, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from equigen.cohort.images.faults import ImageFault

NPZ_KEY = "slo_fundus"
NPY_START, ZIP_START = b"\x93NUMPY", b"PK\x03\x04"
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_RATIO = 1032  # greatest compression ratio of deflate
_DAMAGED = "is truncated or no NPZ of arrays", "save it again with numpy.savez_compressed"


@dataclass(frozen=True)
class ArrayHeader:
    """Header of an NPY array: its shape, memory order, data type and length in bytes."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]
    start: int  # bytes of the header itself

    @property
    def size(self) -> int:
        """Number of bytes of the values."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_npy(handle: BinaryIO, limit: int) -> NDArray[Any]:
    """Return the image [H, W] or [H, W, 3] of an NPY file; ``ImageFault`` above ``limit`` pixels or when damaged."""
    try:
        header = _header(handle)
        check_image(header, limit, "the file")
        return _values(handle, header)
    except ImageFault:
        raise
    except Exception as error:  # numpy raises many kinds
        raise ImageFault("is truncated or no NPY array", "save it again with numpy.save") from error


def read_npz(handle: BinaryIO, limit: int) -> NDArray[Any]:
    """Return the image in an NPZ: ``slo_fundus``, else the only array of image shape; no other array is unpacked.

    Raises:
        ImageFault: encrypted, compressed in a way that numpy does not write, damaged, above ``limit`` pixels, Python
            objects, or not exactly one image.

    """
    try:
        with zipfile.ZipFile(handle) as archive:
            headers = {item.filename.removesuffix(".npy"): _member_header(archive, item) for item in archive.infolist()}
            key = _image_key(headers)
            check_image(headers[key], limit, f"'{key}'")
            return _member_values(archive, archive.getinfo(f"{key}.npy"), headers[key])
    except ImageFault:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise many kinds
        raise ImageFault(*_DAMAGED) from error


def read_value(handle: BinaryIO, key: str) -> Any:
    """Return the single value under a key of an NPZ; None where its array is not one plain value.

    Raises:
        KeyError: there is no such key; the argument is the list of keys.
        ImageFault: no NPZ, or one that cannot be read.

    """
    try:
        with zipfile.ZipFile(handle) as archive:
            names = [item.filename.removesuffix(".npy") for item in archive.infolist()]
            if key not in names:
                raise KeyError(names)
            item = archive.getinfo(f"{key}.npy" if f"{key}.npy" in archive.namelist() else key)
            header = _member_header(archive, item)
            if math.prod(header.shape) != 1 or header.dtype.kind not in "biufUS" or header.dtype.itemsize > 2**16:
                return None
            return _member_values(archive, item, header).reshape(-1)[0]
    except (ImageFault, KeyError):
        raise
    except Exception as error:  # zipfile, zlib and numpy raise many kinds
        raise ImageFault(*_DAMAGED) from error


def check_image(header: ArrayHeader, limit: int, name: str) -> None:
    """Raise ``ImageFault`` for an array that is no image, or too large to open safely, before its values are read."""
    shape = header.shape
    if header.dtype.hasobject:
        raise ImageFault(f"holds Python objects under {name}", "save a plain number array; objects are never unpickled")
    if not all(length > 0 for length in shape):
        raise ImageFault(f"holds an array without values ({_shape_text(shape)})", "save it again, or leave the row out")
    if not (len(shape) == 2 or (len(shape) == 3 and shape[2] in {1, 3})):
        raise ImageFault(f"holds an array of {_shape_text(shape)}", "save [H, W] or [H, W, 3]")
    if shape[0] * shape[1] > limit or header.size > 6 * limit:
        raise ImageFault(f"has {_shape_text(shape)} values, more than is safe to open", "write a smaller image")


def _shape_text(shape: tuple[int, ...]) -> str:
    """Return a shape as text, "512 x 512"."""
    return " x ".join(str(length) for length in shape) or "one value"


def _header(member: IO[bytes]) -> ArrayHeader:
    version = np.lib.format.read_magic(member)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(member)
    return ArrayHeader(tuple(int(length) for length in shape), fortran, dtype, member.tell())


def _member_header(archive: zipfile.ZipFile, item: zipfile.ZipInfo) -> ArrayHeader:
    """Return the header of one member, after checking the member's entry in the zip directory."""
    if item.flag_bits & 1:
        raise ImageFault("holds encrypted arrays", "save it again without a password")
    if item.compress_type not in _METHODS:
        raise ImageFault(
            f"is compressed by a method that is not read (zip method {item.compress_type})",
            "save it again with numpy.savez_compressed",
        )
    if item.file_size > max(item.compress_size * _RATIO, 2**16):
        raise ImageFault("says that it unpacks to more than it can", "save it again with numpy.savez_compressed")
    with archive.open(item) as member:
        return _header(member)


def _member_values(archive: zipfile.ZipFile, item: zipfile.ZipInfo, header: ArrayHeader) -> NDArray[Any]:
    if item.file_size != header.start + header.size:
        raise ImageFault(*_DAMAGED)
    with archive.open(item) as member:
        member.read(header.start)
        return _values(member, header)


def _values(member: IO[bytes], header: ArrayHeader) -> NDArray[Any]:
    """Return the array that follows its header, reading at most the number of bytes in the header."""
    data = member.read(header.size)
    if len(data) != header.size or member.read(1):
        raise ValueError("the array is not as long as its header says")
    values = np.frombuffer(data, dtype=header.dtype)
    values = values.reshape(header.shape[::-1]).transpose() if header.fortran else values.reshape(header.shape)
    return values.astype(header.dtype.newbyteorder("="), copy=False)


def _image_key(headers: dict[str, ArrayHeader]) -> str:
    """Return the key of the image: ``slo_fundus``, else the only array of image shape."""
    if NPZ_KEY in headers:
        return NPZ_KEY
    candidates = [
        key
        for key, header in headers.items()
        if len(header.shape) == 2 or (len(header.shape) == 3 and header.shape[2] in {1, 3})
    ]
    if len(candidates) != 1:
        names = ", ".join(sorted(candidates)) or "none"
        raise ImageFault(f"holds not exactly one image array (found: {names})", f"name the image '{NPZ_KEY}'")
    return candidates[0]

"""Text tables from bytes: compression, encoding, separator and shape are checked before any cell is taken."""

from __future__ import annotations

import bz2
import csv
import io
import lzma
import re
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

from equigen.errors import InputError, Problem

PARQUET = b"PAR1"
SMALLEST_LIMIT, LARGEST_LIMIT, EXPANSION = 2**26, 2**30, 200  # bytes, bytes, times the compressed size
PACKED = {".gz", ".bz2", ".xz", ".zip"}
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
SAVE_UTF8 = "save it as UTF-8 (a spreadsheet calls it 'CSV UTF-8')"
_ENCODINGS = (  # (first bytes, encoding); the longer ones first, since UTF-32 begins like UTF-16
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
    (b"\xef\xbb\xbf", "utf-8-sig"),
)
_REFUSED = (  # (first bytes, what it is)
    (b"\xd0\xcf\x11\xe0", "is an Excel workbook"),
    (b"\x28\xb5\x2f\xfd", "is compressed with zstd"),
    (b"\x1f\x8b", "is compressed twice"),
)
DAMAGE = (
    OSError, ValueError, EOFError, KeyError, IndexError, RuntimeError, struct.error, zlib.error, lzma.LZMAError,
    zipfile.BadZipFile,
)  # fmt: skip
_SAVE_TEXT = "save it as .csv, or as .parquet"


def refusal(file: str | None, message: str, mend: str, row: int | None = None, column: str | None = None) -> InputError:
    """An ``InputError`` with one problem of a table."""
    return InputError("The table cannot be read.", [Problem(message, mend, row=row, column=column, file=file)])


def file_bytes(file: Path) -> bytes:
    """The bytes of a table's file, decompressed when its content is gzip, bzip2, xz or a zip.

    Raises:
        InputError: it cannot be opened, is compressed under a name that does not say so, is damaged, or grows
            beyond the limit: ``EXPANSION`` times its compressed size, at least ``SMALLEST_LIMIT`` and at most
            ``LARGEST_LIMIT`` bytes.

    """
    try:
        data = file.read_bytes()
    except OSError as error:
        message = f"cannot be opened ({error.strerror or error})"
        raise refusal(str(file), message, "check the path and its rights") from error
    limit = min(max(SMALLEST_LIMIT, EXPANSION * len(data)), LARGEST_LIMIT)
    try:
        plain = _decompressed(data, limit, str(file))
    except DAMAGE as error:
        raise refusal(str(file), f"is compressed and damaged ({error})", "compress the table again") from error
    if plain is not data and file.suffix.lower() not in PACKED:
        mend = "decompress it, or let its name end in .gz, .bz2, .xz or .zip"
        raise refusal(str(file), "is compressed, which its name does not say", mend)
    if plain is not data and len(plain) > limit:
        raise refusal(str(file), f"is larger than {limit} bytes when decompressed", "give it decompressed")
    for start, what in _REFUSED:
        if plain.startswith(start):
            raise refusal(str(file), what, _SAVE_TEXT)
    return plain


def _decompressed(data: bytes, limit: int, file: str) -> bytes:
    """Data as they are, or decompressed up to one byte more than the limit."""
    if data.startswith(b"\x1f\x8b"):
        return _joined(data, lambda: zlib.decompressobj(31), limit)
    if data.startswith(b"BZh"):
        return _joined(data, bz2.BZ2Decompressor, limit)
    if data.startswith(b"\xfd7zXZ\x00"):
        return _joined(data, lzma.LZMADecompressor, limit)
    if not data.startswith(b"PK\x03\x04"):
        return data
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]
        if "[Content_Types].xml" in names or "content.xml" in names:
            raise refusal(file, "is a spreadsheet's own workbook", "save its sheet as .csv (UTF-8)")
        if len(names) != 1:
            raise refusal(file, f"is a zip of {len(names)} files", "put one table into it, or give the table itself")
        with archive.open(names[0]) as member:
            return member.read(limit + 1)


def _joined(data: bytes, decompressor: Any, limit: int) -> bytes:
    """The members of a compressed stream one after another, up to one byte more than the limit."""
    parts, size = [], 0
    while data and size <= limit:
        stream = decompressor()
        part = stream.decompress(data, limit + 1 - size)
        parts.append(part)
        size += len(part)
        if not stream.eof and size <= limit:
            raise EOFError("it ends early")
        data = stream.unused_data if stream.eof else b""
        if data and not data.strip(b"\0"):
            break  # padding of a block device
    return b"".join(parts)


def decode_text(data: bytes, file: str) -> str:
    """Text of a table: UTF-8 with or without a byte order mark.

    Raises:
        InputError: any other encoding, with the row of the first byte that is no UTF-8; bytes that are no text.

    """
    encoding = next((name for start, name in _ENCODINGS if data.startswith(start)), "utf-8")
    if not encoding.startswith("utf-8"):
        raise refusal(file, f"is {encoding.upper()} text, not UTF-8", SAVE_UTF8)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        row = data.count(b"\n", 0, error.start) + 1
        raise refusal(file, "is not UTF-8 text", SAVE_UTF8, row=row) from error
    at = text.find("\0")
    if at >= 0:
        raise refusal(file, "holds the character NUL, so it is no text", SAVE_UTF8, row=text.count("\n", 0, at) + 1)
    return text.lstrip("\ufeff")


def text_rows(text: str, separator: str, file: str) -> tuple[list[list[str]], str]:
    """Rows of cells, the header first, and the separator that they are read with.

    ``separator`` is the one that the file's name promises; another one of ``SEPARATORS`` is taken only when the
    promised one does not fit and that one alone does.

    Raises:
        InputError: an empty file, an open quote, or no separator that fits every row.

    """
    if not text.strip():
        raise refusal(file, "is empty", "put the columns' names into the first row")
    first = re.match(r'"?sep=(.?)"?\r?\n', text)
    if first is not None:
        raise refusal(file, "begins with a line for one spreadsheet only", f"remove '{first[0].strip()}'", row=1)
    rows, fault = _parsed(text, separator, file)
    if fault is None and len(rows[0]) > 1 and _fits(rows):
        return rows, separator
    others = []
    for other in (sign for sign in SEPARATORS if sign != separator and sign in text):
        cells, wrong = _parsed(text, other, file)
        if wrong is None and len(cells[0]) > 1 and _fits(cells):
            others.append((cells, other))
    if len(others) == 1 and (not rows or len(rows[0]) < len(others[0][0][0])):
        return others[0]
    if fault is not None:
        raise fault
    if len(others) > 1:
        raise refusal(
            file, "can be read with several separators", "save it with commas, cells with commas quoted", row=1
        )
    near = [sign for sign in (*SEPARATORS, "|") if sign != separator and sign in "".join(rows[0])]
    if len(rows[0]) == 1 and near:
        message = f"the columns seem to be separated by '{near[0]}', which does not fit every row"
        raise refusal(file, message, f"save the table with {SEPARATORS[separator]}", row=1)
    return rows, separator


def _parsed(text: str, separator: str, file: str) -> tuple[list[list[str]], InputError | None]:
    """Every row's cells, and why they end early where they do."""
    rows: list[list[str]] = []
    try:
        for cells in csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True):
            rows.append(cells)
    except csv.Error as error:
        mend = "close the quote, or write a quote within a cell twice"
        return rows, refusal(file, f"is no well-formed table ({error})", mend, row=len(rows) + 1)
    return rows, None


def _fits(rows: list[list[str]]) -> bool:
    """Whether every row has as many cells as the header, all of them or the named ones; blank rows aside."""
    named = named_cells(rows[0])
    return all(len(cells) in (len(rows[0]), named) for cells in rows if any(cell.strip() for cell in cells))


def named_cells(header: list[str]) -> int:
    """Number of cells of a header up to its last name.

    >>> named_cells(["a", "", "b", "", ""])
    3
    """
    return max((place for place, name in enumerate(header, start=1) if name.strip()), default=0)

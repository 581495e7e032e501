"""Read text tables from bytes: compression, encoding, separator and shape are checked before cells are read."""

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
COMPRESSED_SUFFIXES = {".gz", ".bz2", ".xz", ".zip"}
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
DECOMPRESSION_ERRORS = (
    OSError, ValueError, EOFError, KeyError, IndexError, RuntimeError, struct.error, zlib.error, lzma.LZMAError,
    zipfile.BadZipFile,
)  # fmt: skip
_SAVE_TEXT = "save it as .csv, or as .parquet"


def table_error(
    file: str | None, message: str, mend: str, row: int | None = None, column: str | None = None
) -> InputError:
    """Return an ``InputError`` with one problem of a table."""
    return InputError("The table cannot be read.", [Problem(message, mend, row=row, column=column, file=file)])


def read_bytes(file: Path) -> bytes:
    """Return the bytes of a table's file, decompressed if they are gzip, bzip2, xz or a zip.

    Raises:
        InputError: it cannot be opened, is compressed under a name that does not say so, is damaged, or grows
            beyond the limit: ``EXPANSION`` times its compressed size, at least ``SMALLEST_LIMIT`` and at most
            ``LARGEST_LIMIT`` bytes.

    """
    try:
        data = file.read_bytes()
    except OSError as error:
        reason = f"cannot be opened ({error.strerror or error})"
        raise table_error(str(file), reason, "check the path and its rights") from error
    limit = min(max(SMALLEST_LIMIT, EXPANSION * len(data)), LARGEST_LIMIT)
    try:
        plain = _decompress(data, limit, str(file))
    except DECOMPRESSION_ERRORS as error:
        raise table_error(str(file), f"is compressed and damaged ({error})", "compress the table again") from error
    if plain is not data and file.suffix.lower() not in COMPRESSED_SUFFIXES:
        mend = "decompress it, or let its name end in .gz, .bz2, .xz or .zip"
        raise table_error(str(file), "is compressed, which its name does not say", mend)
    if plain is not data and len(plain) > limit:
        raise table_error(str(file), f"is larger than {limit} bytes when decompressed", "give it decompressed")
    for start, message in _REFUSED:
        if plain.startswith(start):
            raise table_error(str(file), message, _SAVE_TEXT)
    return plain


def _decompress(data: bytes, limit: int, file: str) -> bytes:
    """Return the data, decompressed up to one byte more than the limit if they are compressed."""
    if data.startswith(b"\x1f\x8b"):
        return _decompress_stream(data, lambda: zlib.decompressobj(31), limit)
    if data.startswith(b"BZh"):
        return _decompress_stream(data, bz2.BZ2Decompressor, limit)
    if data.startswith(b"\xfd7zXZ\x00"):
        return _decompress_stream(data, lzma.LZMADecompressor, limit)
    if not data.startswith(b"PK\x03\x04"):
        return data
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]
        if "[Content_Types].xml" in names or "content.xml" in names:
            raise table_error(file, "is a spreadsheet's own workbook", "save its sheet as .csv (UTF-8)")
        if len(names) != 1:
            message = f"is a zip of {len(names)} files"
            raise table_error(file, message, "put one table into it, or give the table itself")
        with archive.open(names[0]) as member:
            return member.read(limit + 1)


def _decompress_stream(data: bytes, decompressor: Any, limit: int) -> bytes:
    """Return the concatenated members of a compressed stream, up to one byte more than the limit."""
    blocks, size = [], 0
    while data and size <= limit:
        stream = decompressor()
        block = stream.decompress(data, limit + 1 - size)
        blocks.append(block)
        size += len(block)
        if not stream.eof and size <= limit:
            raise EOFError("it ends early")
        data = stream.unused_data if stream.eof else b""
        if data and not data.strip(b"\0"):
            break  # padding of a block device
    return b"".join(blocks)


def decode_text(data: bytes, file: str) -> str:
    """Decode the text of a table: UTF-8 with or without a byte order mark.

    Raises:
        InputError: any other encoding, with the row of the first byte that is no UTF-8; bytes that are no text.

    """
    encoding = next((name for start, name in _ENCODINGS if data.startswith(start)), "utf-8")
    if not encoding.startswith("utf-8"):
        raise table_error(file, f"is {encoding.upper()} text, not UTF-8", SAVE_UTF8)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        row = data.count(b"\n", 0, error.start) + 1
        raise table_error(file, "is not UTF-8 text", SAVE_UTF8, row=row) from error
    position = text.find("\0")
    if position >= 0:
        row = text.count("\n", 0, position) + 1
        raise table_error(file, "holds the character NUL, so it is no text", SAVE_UTF8, row=row)
    return text.lstrip("\ufeff")


def text_rows(text: str, separator: str, file: str) -> tuple[list[list[str]], str]:
    """Return rows of cells, the header first, and the separator of the text.

    ``separator`` is the one of the file's suffix; another one of ``SEPARATORS`` is used only if it is the only one that
    fits every row.

    Raises:
        InputError: an empty file, an open quote, or no separator that fits every row.

    """
    if not text.strip():
        raise table_error(file, "is empty", "put the columns' names into the first row")
    first = re.match(r'"?sep=(.?)"?\r?\n', text)
    if first is not None:
        raise table_error(file, "begins with a line for one spreadsheet only", f"remove '{first[0].strip()}'", row=1)
    rows, fault = _parse_rows(text, separator, file)
    if fault is None and len(rows[0]) > 1 and _is_rectangular(rows):
        return rows, separator
    matches = []
    for candidate in (character for character in SEPARATORS if character != separator and character in text):
        cells, candidate_fault = _parse_rows(text, candidate, file)
        if candidate_fault is None and len(cells[0]) > 1 and _is_rectangular(cells):
            matches.append((cells, candidate))
    if len(matches) == 1 and (not rows or len(rows[0]) < len(matches[0][0][0])):
        return matches[0]
    if fault is not None:
        raise fault
    if len(matches) > 1:
        raise table_error(
            file, "can be read with several separators", "save it with commas, cells with commas quoted", row=1
        )
    likely = [character for character in (*SEPARATORS, "|") if character != separator and character in "".join(rows[0])]
    if len(rows[0]) == 1 and likely:
        message = f"the columns seem to be separated by '{likely[0]}', which does not fit every row"
        raise table_error(file, message, f"save the table with {SEPARATORS[separator]}", row=1)
    return rows, separator


def _parse_rows(text: str, separator: str, file: str) -> tuple[list[list[str]], InputError | None]:
    """Return every row's cells, and the error that ended the reading, if any."""
    rows: list[list[str]] = []
    try:
        for cells in csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True):
            rows.append(cells)
    except csv.Error as error:
        mend = "close the quote, or write a quote within a cell twice"
        return rows, table_error(file, f"is no well-formed table ({error})", mend, row=len(rows) + 1)
    return rows, None


def _is_rectangular(rows: list[list[str]]) -> bool:
    """Whether every row but blank ones has as many cells as the header, or as its columns with names."""
    width = header_width(rows[0])
    return all(len(cells) in (len(rows[0]), width) for cells in rows if any(cell.strip() for cell in cells))


def header_width(header: list[str]) -> int:
    """Return the number of cells of a header up to its last name.

    >>> header_width(["a", "", "b", "", ""])
    3
    """
    return max((position for position, name in enumerate(header, start=1) if name.strip()), default=0)

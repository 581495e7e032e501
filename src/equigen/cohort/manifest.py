"""Open a saved cohort of any size, with its images as arrays, without a Python object per row."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from equigen.cohort.cohort import (
    TABLE,
    Cohort,
    check_choices,
    mismatch_error,
    read_saved,
    saved_attributes,
    saved_labels,
    saved_spec,
)
from equigen.cohort.levels import AttributeSpec, LabelSpec
from equigen.cohort.spec import SPLITS, CohortSpec
from equigen.errors import InputError, Problem, suggestion
from equigen.files import hash_bytes, hash_value
from equigen.parquet import MAX_CELLS, UNREADABLE

DIGEST = 32  # bytes of a SHA-256


@dataclass(frozen=True)
class ImageList:
    """Images in row order: ``names`` relative to ``root``, and SHA-256 ``digests`` [N, 32] uint8 of their bytes."""

    root: Path
    names: pa.ChunkedArray
    digests: NDArray[np.uint8]

    @classmethod
    def of(cls, cohort: Cohort) -> ImageList:
        """Return the image list of a cohort that is in memory."""
        names, hashes = (pa.array(cohort.frame[name], pa.string()) for name in ("image", "sha256"))
        return cls(cohort.root, pa.chunked_array([names]), parse_digests(hashes))

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.names)

    @property
    def hash(self) -> str:
        """SHA-256 over all images' hashes in row order."""
        return hash_bytes(np.ascontiguousarray(self.digests).tobytes())

    def paths(self, rows: NDArray[np.int64]) -> list[str]:
        """Return the paths of some rows' images, for ``equigen.cohort.images.sources.open_image``."""
        root = str(self.root)
        return [os.path.join(root, name) for name in self.names.take(pa.array(rows)).to_pylist()]  # noqa: PTH118

    def first_rows(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the first row [U] of each distinct image, in row order, and each row's index into these [N]."""
        keys = np.ascontiguousarray(self.digests).view(f"V{DIGEST}").reshape(-1)
        _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        order = np.argsort(first)
        rank = np.empty(len(order), dtype=np.int64)
        rank[order] = np.arange(len(order))
        return first[order].astype(np.int64), rank[inverse.reshape(-1)]

    def parts(self, rows: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
        """Split rows into batches that are read together: the rows of one shard, or ``size`` rows outside shards."""
        shards = pc.extract_regex(self.names.take(pa.array(rows)), r"^(?P<shard>.*?\.tar)/")
        codes = pc.struct_field(shards, "shard").combine_chunks().dictionary_encode().indices.fill_null(-1).to_numpy()
        unsharded, order = rows[codes < 0], np.argsort(codes, kind="stable")
        sharded = rows[order][codes[order] >= 0]
        ends = np.flatnonzero(np.diff(codes[order][codes[order] >= 0])) + 1
        batches: Sequence[NDArray[np.int64]] = np.split(sharded, ends) if len(sharded) else []
        return [*batches, *(unsharded[low : low + size] for low in range(0, len(unsharded), size))]


def parse_digests(hashes: pa.Array) -> NDArray[np.uint8]:
    """Return hexadecimal SHA-256 [N] as bytes [N, 32]; raises InputError for a malformed one."""
    sizes = pc.min_max(pc.binary_length(hashes)).as_py()
    digits = np.zeros((0, 2 * DIGEST), dtype=np.uint8)
    if not hashes.null_count and set(sizes.values()) <= {2 * DIGEST}:
        text = hashes.cast(pa.string()).cast(pa.binary(2 * DIGEST))
        letters = np.frombuffer(text.buffers()[1], dtype=np.uint8)[text.offset * 2 * DIGEST :][: len(text) * 2 * DIGEST]
        digits = _VALUES[letters].reshape(-1, 2 * DIGEST)
    if len(digits) != len(hashes) or (digits > 15).any():
        problem = Problem("holds something that is no SHA-256", "run the cohort stage again", column="sha256")
        raise InputError("The images' hashes cannot be used.", [problem])
    return np.asarray(digits[:, ::2] * np.uint8(16) + digits[:, 1::2])


_VALUES = np.full(256, 255, dtype=np.uint8)  # value of a hexadecimal digit by its character code
for _value, _letter in enumerate(b"0123456789abcdef"):
    _VALUES[_letter] = _value


BLOCK = 16_384  # rows that are read at a time
BUFFER = 2**20  # bytes; without it pyarrow buffers the whole column of a row group
DOMAINS = ["id", "ood"]


@dataclass(frozen=True, eq=False)
class Manifest:
    """Saved cohort for training, without the path and hash of each image in memory.

    ``frame`` has one row per image and the cohort's columns ``row``, ``site``, ``split``, ``domain``, ``label.<name>``
    and ``attr.<name>`` as categories (some 15 bytes a row; unknown is NaN), and ``prompt`` if the cohort has one.
    Images and patients are read on demand (``images``, ``patients``). ``hash`` is that of the saved cohort: rows are
    not hashed again. A million rows take 23 bytes each, 81 with the images of two splits; a pandas frame of Arrow types
    takes 143 and 317, and three times the memory while it is read, in about the same time.
    """

    name: str
    spec: CohortSpec
    root: Path
    table: Path
    frame: pd.DataFrame
    places: NDArray[np.int64]  # of the rows in the table, [N]
    labels: dict[str, LabelSpec]
    attributes: dict[str, AttributeSpec]
    hash: str

    @classmethod
    def load(cls, folder: str | Path, root: str | Path | None = None) -> Manifest:
        """Open what ``Cohort.save`` wrote, by row group; ``root`` is the folder of the images if they were moved.

        Raises InputError when a file or column is missing or damaged, or the two files do not belong together.
        """
        path = Path(folder)
        sheet = read_saved(path)
        labels, attributes = saved_labels(sheet), saved_attributes(sheet)
        levels = {f"attr.{name}": spec.levels for name, spec in attributes.items()}
        levels |= {f"label.{name}": spec.levels for name, spec in labels.items() if spec.kind != "multilabel"}
        multilabels = [f"label.{name}" for name, spec in labels.items() if spec.kind == "multilabel"]
        frame = _read_frame(path / TABLE, {"split": [*SPLITS], "domain": DOMAINS, **levels}, ["site", *multilabels])
        if len(frame) != sheet["images"]:
            raise mismatch_error(path)
        image_root = Path(root) if root is not None else Path(sheet["root"])
        places = np.arange(len(frame))
        spec = saved_spec(sheet)
        return cls(sheet["name"], spec, image_root, path / TABLE, frame, places, labels, attributes, sheet["hash"])

    def __len__(self) -> int:
        """Number of images."""
        return len(self.frame)

    @property
    def phantom(self) -> bool:
        """Whether the images are phantoms, which every result must state."""
        return self.spec.phantom

    def where(self, mask: NDArray[np.bool_] | pd.Series) -> Manifest:
        """Return the manifest of the rows where ``mask`` [N] is true."""
        indices = np.flatnonzero(np.asarray(mask, dtype=bool))
        positions = self.places[indices]
        subset_hash = hash_value([self.hash, hash_bytes(positions.tobytes())])
        return replace(self, frame=self.frame.iloc[indices].reset_index(drop=True), places=positions, hash=subset_hash)

    def split(self, *names: str, domain: str | None = None) -> Manifest:
        """Return the manifest of some splits, in one domain ("id" or "ood") or in both."""
        check_choices(names, SPLITS, "split")
        check_choices([domain] if domain is not None else [], DOMAINS, "domain")
        mask = self.frame["split"].isin(names)
        return self.where(mask if domain is None else mask & (self.frame["domain"] == domain))

    def groups(self, attribute: str) -> NDArray[np.int64]:
        """Return the index of each image's group in the attribute's levels, [N]; -1 = unknown."""
        check_choices([attribute], self.attributes, "attribute")
        return np.asarray(self.frame[f"attr.{attribute}"].cat.codes, dtype=np.int64)

    def patients(self) -> NDArray[np.int32]:
        """Return a number for the patient of each image, in the order of first appearance in the table, [N]."""
        with _convert_damage(self.table):
            names = _open_table(self.table, ["patient"]).read(["patient"]).column(0)
            codes: NDArray[np.int32] = names.combine_chunks().dictionary_encode().indices.to_numpy()
            if len(codes) <= int(np.max(self.places, initial=-1)):
                raise ValueError("rows of the column patient are missing")
        return codes[self.places]

    def images(self) -> ImageList:
        """Return the paths and hashes of the rows' images (some 60 bytes a row)."""
        names, hashes = list[pa.Array](), [np.zeros((0, DIGEST), dtype=np.uint8)]
        for batch in self._batches(["image", "sha256"]):
            names.append(batch.column("image"))
            hashes.append(parse_digests(batch.column("sha256")))
        return ImageList(self.root, pa.chunked_array(names, pa.string()), np.concatenate(hashes))

    def images_hash(self) -> str:
        """Return ``images().hash`` without building the list."""
        total = hashlib.sha256()
        for batch in self._batches(["sha256"]):
            total.update(parse_digests(batch.column("sha256")).tobytes())
        return total.hexdigest()

    def _batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """Yield columns of the table at this manifest's rows, block by block."""
        low = 0
        with _convert_damage(self.table):
            for batch in _open_table(self.table, columns).iter_batches(BLOCK, columns=columns):
                first, last = np.searchsorted(self.places, [low, low + len(batch)])
                yield batch.take(pa.array(self.places[first:last] - low))
                low += len(batch)


@contextmanager
def _convert_damage(file: Path) -> Iterator[None]:
    """Convert what pyarrow raises on a damaged table into an ``InputError`` that names the file."""
    try:
        yield
    except UNREADABLE as error:
        reason = str(error).strip().partition("\n")[0][:200]
        problem = Problem(f"is no readable Parquet file ({reason})", "run the cohort stage again", file=str(file))
        raise InputError("The saved cohort is damaged.", [problem]) from error


def _open_table(file: Path, columns: Iterable[str], dictionaries: Iterable[str] = ()) -> pq.ParquetFile:
    """Open a Parquet file that has the ``columns``; the checksum of every page is verified."""
    with _convert_damage(file):
        metadata = pq.read_metadata(file)
        names = metadata.schema.to_arrow_schema().names
        if metadata.num_rows > MAX_CELLS:
            raise ValueError(f"{metadata.num_rows} rows are more than can be read")
    problems = [
        Problem("the table has no such column", suggestion(name, names), column=name, file=str(file))
        for name in columns
        if name not in names
    ]
    if problems:
        raise InputError("The saved cohort lacks columns.", problems)
    with _convert_damage(file):
        return pq.ParquetFile(
            file,
            read_dictionary=list(dictionaries),
            buffer_size=BUFFER,
            pre_buffer=False,
            page_checksum_verification=True,
        )


def _read_frame(file: Path, levels: dict[str, list[str]], observed: list[str]) -> pd.DataFrame:
    """Read the frame: columns with known ``levels``, and columns whose levels are ``observed`` in row order."""
    categories = {**levels, **{name: [] for name in observed}}
    file_handle = _open_table(file, ["row", *categories], categories)
    with _convert_damage(file):
        count, low = file_handle.metadata.num_rows, 0
        rows = np.empty(count, dtype=np.int64)
        codes = {name: np.empty(count, dtype=np.int32 if name in observed else np.int16) for name in categories}
        codes_by_level = {name: {level: code for code, level in enumerate(names)} for name, names in categories.items()}
        for batch in file_handle.iter_batches(BLOCK, columns=["row", *categories]):
            block = slice(low, low + len(batch))
            rows[block] = batch.column("row").to_numpy()
            for name in categories:
                cells, extend = batch.column(name), name in observed
                codes[name][block] = _category_codes(cells, codes_by_level[name], name, extend)
            low += len(batch)
        columns: dict[str, object] = {"row": rows}
        for name in categories:
            level_index = pd.Index([*codes_by_level[name]], dtype=object)
            columns[name] = pd.Categorical.from_codes(codes.pop(name), categories=level_index)
        if "prompt" in file_handle.schema_arrow.names:
            columns["prompt"] = pd.Series(file_handle.read(["prompt"]).column(0).to_pandas(types_mapper=pd.ArrowDtype))
        return pd.DataFrame(columns, copy=False)


def _category_codes(cells: pa.Array, codes_by_level: dict[str, int], column: str, extend: bool) -> NDArray[np.int32]:
    """Return codes [n] of a block's cells, -1 for null; with ``extend`` new levels are added to ``codes_by_level``."""
    if pa.types.is_null(cells.type):
        return np.full(len(cells), -1, dtype=np.int32)
    cells = cells if isinstance(cells, pa.DictionaryArray) else cells.dictionary_encode()
    levels = cells.dictionary.to_pylist()
    for level in levels if extend else []:
        codes_by_level.setdefault(level, len(codes_by_level))
    if unlisted := sorted(set(levels) - set(codes_by_level)):
        problem = Problem(f"'{unlisted[0]}' is no level of this cohort", "run the cohort stage again", column=column)
        raise InputError("The saved cohort is damaged.", [problem])
    codes = np.array([*(codes_by_level[level] for level in levels), -1], dtype=np.int32)
    result: NDArray[np.int32] = codes[cells.indices.fill_null(len(levels)).to_numpy()]
    return result

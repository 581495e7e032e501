"""A saved cohort of any size, opened without a Python object per row."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from equigen.cohort.cohort import _check_words
from equigen.cohort.images.image_list import DIGEST, ImageList, parse_digests
from equigen.cohort.levels import AttributeSpec, LabelSpec
from equigen.cohort.saved_cohort import TABLE, mismatch_error, read_saved, saved_attributes, saved_labels, saved_spec
from equigen.cohort.spec import SPLITS, CohortSpec, suggestion
from equigen.errors import InputError, Problem
from equigen.files import MAX_CELLS, UNREADABLE, hash_bytes, hash_value

BLOCK = 16_384  # rows that are read at a time
BUFFER = 2**20  # bytes; without it a whole column of a row group is held
DOMAINS = ["id", "ood"]


@dataclass(frozen=True, eq=False)
class Manifest:
    """What training needs of a cohort that ``Cohort.save`` wrote: everything but where each image is.

    ``frame`` has one row per image and the cohort's columns ``row``, ``site``, ``split``, ``domain``, ``label.<name>``
    and ``attr.<name>`` as categories (some 15 bytes a row; unknown is NaN), and ``prompt`` where there is one. Images
    and patients are read when they are asked for (``images``, ``patients``). ``hash`` is that of the cohort as it was
    saved: rows are not hashed again.
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
        """Open what ``Cohort.save`` wrote, by row group; ``root`` says where the images lie now, if they were moved.

        Raises InputError when a file or column is missing or damaged, or the two files are not of one run.
        """
        place = Path(folder)
        sheet = read_saved(place)
        labels, attributes = saved_labels(sheet), saved_attributes(sheet)
        levels = {f"attr.{name}": spec.levels for name, spec in attributes.items()}
        levels |= {f"label.{name}": spec.levels for name, spec in labels.items() if spec.kind != "multilabel"}
        found = [f"label.{name}" for name, spec in labels.items() if spec.kind == "multilabel"]
        frame = _read(place / TABLE, {"split": [*SPLITS], "domain": DOMAINS, **levels}, ["site", *found])
        if len(frame) != sheet["images"]:
            raise mismatch_error(place)
        here = Path(root) if root is not None else Path(sheet["root"])
        places = np.arange(len(frame))
        spec = saved_spec(sheet)
        return cls(sheet["name"], spec, here, place / TABLE, frame, places, labels, attributes, sheet["hash"])

    def __len__(self) -> int:
        """Number of images."""
        return len(self.frame)

    @property
    def phantom(self) -> bool:
        """Whether the images are phantoms, so that every number about them must say so."""
        return self.spec.phantom

    def where(self, mask: NDArray[np.bool_] | pd.Series) -> Manifest:
        """The rows where ``mask`` [N] is true."""
        kept = np.flatnonzero(np.asarray(mask, dtype=bool))
        places = self.places[kept]
        part = hash_value([self.hash, hash_bytes(places.tobytes())])
        return replace(self, frame=self.frame.iloc[kept].reset_index(drop=True), places=places, hash=part)

    def split(self, *names: str, domain: str | None = None) -> Manifest:
        """The images of some splits, of one domain ("id" or "ood") or of both."""
        _check_words(names, SPLITS, "split")
        _check_words([domain] if domain is not None else [], DOMAINS, "domain")
        mask = self.frame["split"].isin(names)
        return self.where(mask if domain is None else mask & (self.frame["domain"] == domain))

    def groups(self, attribute: str) -> NDArray[np.int64]:
        """Index of each image's group in the attribute's levels, [N]; -1 = unknown."""
        _check_words([attribute], self.attributes, "attribute")
        return np.asarray(self.frame[f"attr.{attribute}"].cat.codes, dtype=np.int64)

    def patients(self) -> NDArray[np.int32]:
        """The patient of each image as a number in the order of first appearance in the table, [N]."""
        with _whole(self.table):
            names = _open(self.table, ["patient"]).read(["patient"]).column(0)
            codes: NDArray[np.int32] = names.combine_chunks().dictionary_encode().indices.to_numpy()
        return codes[self.places]

    def images(self) -> ImageList:
        """Where the rows' images are, and their hashes (some 60 bytes a row while the list is kept)."""
        names, hashes = list[pa.Array](), [np.zeros((0, DIGEST), dtype=np.uint8)]
        for batch in self._batches(["image", "sha256"]):
            names.append(batch.column("image"))
            hashes.append(parse_digests(batch.column("sha256")))
        return ImageList(self.root, pa.chunked_array(names, pa.string()), np.concatenate(hashes))

    def images_hash(self) -> str:
        """``images().hash``, without the list."""
        total = hashlib.sha256()
        for batch in self._batches(["sha256"]):
            total.update(parse_digests(batch.column("sha256")).tobytes())
        return total.hexdigest()

    def _batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """Columns of the table at this manifest's rows, block by block."""
        low = 0
        with _whole(self.table):
            for batch in _open(self.table, columns).iter_batches(BLOCK, columns=columns):
                first, last = np.searchsorted(self.places, [low, low + len(batch)])
                yield batch.take(pa.array(self.places[first:last] - low))
                low += len(batch)


@contextmanager
def _whole(file: Path) -> Iterator[None]:
    """Turn what pyarrow raises on a damaged table into an ``InputError`` that names the file."""
    try:
        yield
    except UNREADABLE as error:
        reason = str(error).strip().partition("\n")[0][:200]
        problem = Problem(f"is no readable Parquet file ({reason})", "run the cohort stage again", file=str(file))
        raise InputError("The saved cohort is damaged.", [problem]) from error


def _open(file: Path, columns: Iterable[str], dictionaries: Iterable[str] = ()) -> pq.ParquetFile:
    """A Parquet file that has all the columns asked for, of which every page's checksum is verified."""
    with _whole(file):
        stated = pq.read_metadata(file)
        names = stated.schema.to_arrow_schema().names
        if stated.num_rows > MAX_CELLS:
            raise ValueError(f"{stated.num_rows} rows are more than can be read")
    _check_columns(file, columns, names)
    with _whole(file):
        return pq.ParquetFile(
            file,
            read_dictionary=list(dictionaries),
            buffer_size=BUFFER,
            pre_buffer=False,
            page_checksum_verification=True,
        )


def _check_columns(file: Path, columns: Iterable[str], names: list[str]) -> None:
    problems = [
        Problem("the table has no such column", suggestion(name, names), column=name, file=str(file))
        for name in columns
        if name not in names
    ]
    if problems:
        raise InputError("The saved cohort lacks columns.", problems)


def _read(file: Path, levels: dict[str, list[str]], found: list[str]) -> pd.DataFrame:
    """The frame: columns with known ``levels``, and those whose levels are ``found`` in the order of rows."""
    categories = {**levels, **{name: [] for name in found}}
    source = _open(file, ["row", *categories], categories)
    with _whole(file):
        count, low = source.metadata.num_rows, 0
        rows = np.empty(count, dtype=np.int64)
        codes = {name: np.empty(count, dtype=np.int32 if name in found else np.int16) for name in categories}
        known = {name: {level: code for code, level in enumerate(values)} for name, values in categories.items()}
        for batch in source.iter_batches(BLOCK, columns=["row", *categories]):
            here = slice(low, low + len(batch))
            rows[here] = batch.column("row").to_numpy()
            for name in categories:
                codes[name][here] = _codes(batch.column(name), known[name], name, grows=name in found)
            low += len(batch)
        made: dict[str, object] = {"row": rows}
        for name in categories:
            words = pd.Index([*known[name]], dtype=object)
            made[name] = pd.Categorical.from_codes(codes.pop(name), categories=words)
        if "prompt" in source.schema_arrow.names:
            made["prompt"] = pd.Series(source.read(["prompt"]).column(0).to_pandas(types_mapper=pd.ArrowDtype))
        return pd.DataFrame(made, copy=False)


def _codes(cells: pa.Array, known: dict[str, int], column: str, grows: bool) -> NDArray[np.int32]:
    """Codes [n] of a block's cells, -1 for null; where it ``grows``, new words are added to ``known``."""
    if pa.types.is_null(cells.type):
        return np.full(len(cells), -1, dtype=np.int32)
    cells = cells if isinstance(cells, pa.DictionaryArray) else cells.dictionary_encode()
    words = cells.dictionary.to_pylist()
    for word in words if grows else []:
        known.setdefault(word, len(known))
    if strange := sorted(set(words) - set(known)):
        problem = Problem(f"'{strange[0]}' is no level of this cohort", "run the cohort stage again", column=column)
        raise InputError("The saved cohort is damaged.", [problem])
    codes = np.array([*(known[word] for word in words), -1], dtype=np.int32)
    found: NDArray[np.int32] = codes[cells.indices.fill_null(len(words)).to_numpy()]
    return found

"""Pack a cohort into one table and tar shards, which WebDataset and ``Cohort.read`` can read."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from equigen.cohort.cohort import Cohort
from equigen.cohort.images.faults import ImageFault
from equigen.cohort.images.sources import open_image
from equigen.cohort.images.tar_shards import open_shard
from equigen.cohort.levels import JOIN, LabelSpec
from equigen.errors import InputError, Problem
from equigen.files import hash_bytes, read_json, replace_file, write_json, write_text
from equigen.parquet import write_parquet
from equigen.progress import progress_bar

SHARD = 2048  # images a shard
SHEET, TABLE, SPEC = "pack.json", "table.parquet", "cohort.yaml"
_STARTS = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpg", b"II*\0": "tif", b"MM\0*": "tif", b"BM": "bmp", b"PK": "npz",
           b"\x93NUMPY": "npy", b"GIF8": "gif", **{f"P{kind}".encode(): "ppm" for kind in range(1, 7)}}  # fmt: skip


def pack(cohort: Cohort, out: str | Path, images: int = SHARD, show: bool = True) -> Path:
    """Write a cohort as ``shards/*.tar``, ``table.parquet`` and ``cohort.yaml``; returns the path of the last.

    Row k becomes the sample ``<k, nine digits>``: its file, byte for byte, and a JSON of its patient, site, split,
    diagnoses and groups. Shards hold ``images`` samples in the order of rows, and the same cohort gives the same bytes.
    An interrupted call can be repeated; at most one shard is written again.

    Raises:
        InputError: the folder holds something else; an image cannot be read, or is not the one that the cohort was
            checked with; the cohort is empty, or ``images`` is below 1.

    """
    folder = Path(out)
    if images < 1 or not len(cohort):
        problem = Problem(f"{len(cohort)} images, {images} a shard", "give a cohort with images, at least 1 a shard")
        raise InputError("There is nothing to pack.", [problem])
    sheet = {"cohort": cohort.hash, "images": images}
    is_same = (folder / SHEET).is_file() and read_json(folder / SHEET) == sheet
    if not is_same and folder.is_dir() and any(folder.iterdir()):
        problem = Problem("holds something else", "choose an empty folder", file=str(folder))
        raise InputError("The output folder is taken.", [problem])
    write_json(folder / SHEET, sheet)
    names: list[str] = []
    with progress_bar("pack", len(cohort), show=show) as bar:
        for number, low in enumerate(range(0, len(cohort), images)):
            rows, shard = cohort.frame.iloc[low : low + images], folder / "shards" / f"{number:06d}.tar"
            if not shard.is_file():
                _write_shard(shard, rows, low)
            members = [name for name in open_shard(shard).names.to_pylist() if not name.endswith(".json")]
            if [name.partition(".")[0] for name in members] != [_key(row) for row in range(low, low + len(rows))]:
                mend = "delete it and pack again"
                problem = Problem("does not hold the images that belong into it", mend, file=str(shard))
                raise InputError("A shard is not what was packed.", [problem])
            names += members
            bar.advance(len(rows))
    frame = cohort.frame
    columns = {"file": pd.Series(names, index=frame.index, dtype=object), "source": frame["image"]}
    columns |= {name: frame[name] for name in frame.columns if name not in {"row", "image", "path", "domain"}}
    for name, label in cohort.labels.items():
        findings = columns[f"label.{name}"]
        columns[f"label.{name}"] = findings.where(findings != "", _no_finding_name(label))  # unknown cells are null
    write_parquet(folder / TABLE, pd.DataFrame(columns))
    write_text(folder / SPEC, yaml.safe_dump(_packed_spec(cohort), sort_keys=False, allow_unicode=True))
    return folder / SPEC


def _key(row: int) -> str:
    return f"{row:09d}"


def _write_shard(shard: Path, rows: pd.DataFrame, first: int) -> None:
    """Write one shard atomically; raises ``InputError`` with every image that cannot be packed."""
    problems = []
    with replace_file(shard) as temporary:
        with tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as archive:
            for number, row in enumerate(rows.to_dict("records"), start=first):
                try:
                    with open_image(Path(str(row["path"]))) as handle:
                        data = handle.read()
                    if hash_bytes(data) != str(row["sha256"]):
                        raise ImageFault("was changed since the cohort was checked", "run the cohort stage again")
                    _add(archive, f"{_key(number)}.{_suffix(data)}", data)
                except ImageFault as fault:
                    problems.append(fault.problem(f"'{row['image']}'", int(row["row"])))
                sample = {str(name): value for name, value in row.items() if name not in {"row", "image", "path"}}
                _add(archive, f"{_key(number)}.json", json.dumps(sample, ensure_ascii=False).encode())
        if problems:
            raise InputError("Some images cannot be packed.", problems)


def _suffix(data: bytes) -> str:
    """Return the suffix of an image by its content, as WebDataset names it."""
    if data[128:132] == b"DICM":
        return "dcm"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    for start, suffix in _STARTS.items():
        if data.startswith(start):
            return suffix
    raise ImageFault("is no kind of image that is known", "leave the row out")


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    """Add a member without owner or time, so that equal content gives equal bytes."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


def _no_finding_name(label: LabelSpec) -> str:
    """Return a text for "no finding" that is not a level."""
    word = "No Finding"
    while word in label.levels:
        word += "."
    return word


def _packed_spec(cohort: Cohort) -> dict[str, Any]:
    """Return the specification with which the packed table is read as the same cohort."""
    sites = set(cohort.frame["site"])
    split: dict[str, Any] = {"column": "split", "ood": [site for site in cohort.spec.split.ood if site in sites]}
    labels: dict[str, Any] = {}
    for name, label in cohort.labels.items():
        labels[name] = {"kind": label.kind, **_column_spec("label", name, label.levels)}
        labels[name]["high_risk"] = list(label.high_risk)
        if label.kind == "multilabel":
            labels[name] |= {"separator": JOIN, "none": [_no_finding_name(label)]}
    values: dict[str, Any] = {
        "name": cohort.name,
        "table": TABLE,
        "image": {"column": "file", "shards": "shards/*.tar"},
        "patient": "patient",
        "site": "site" if cohort.spec.site is not None else None,
        "split": split,
        "labels": labels,
        "attributes": {name: _column_spec("attr", name, spec.levels) for name, spec in cohort.attributes.items()},
        "missing": [""],
        "prompt": {"column": "prompt"} if "prompt" in cohort.frame.columns else cohort.spec.prompt,
        "phantom": cohort.phantom,
    }
    return {name: value for name, value in values.items() if value not in (None, {})}


def _column_spec(kind: str, name: str, levels: list[str]) -> dict[str, Any]:
    return {"column": f"{kind}.{name}"} | ({"levels": list(levels)} if len(levels) > 1 else {})

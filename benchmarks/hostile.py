"""Does any input end in a traceback? Damaged and unusual tables and images, thousands of them, by seed.

Every input must end in a result or in an ``InputError``. Another exception, a warning, or more than ``SECONDS`` for
one input counts as a failure and is listed with its seed. A table that was rewritten without changing its content
(encoding, separator, compression, order of columns, data types) must give the figures of the clean table or an
``InputError``.
"""

from __future__ import annotations

import argparse
import gzip
import io
import signal
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from equigen.cohort import Cohort, read_image
from equigen.errors import InputError
from equigen.fairness import audit
from equigen.progress import progress_bar
from equigen.synthesis.plan_files import read_plan

SECONDS = 20
Figures = list[tuple[Any, ...]]
Make = Callable[[Path, np.random.Generator], Callable[[], Any]]
WORDS = [
    "",
    "NA",
    "None",
    "unknown",
    "?",
    "nan",
    "inf",
    "-1",
    "1e400",
    "007",
    "7",
    "7.0",
    "a,b",
    'a"b',
    "é",
    "=1+1",
    "\u200b",
    "<b>x</b>",
    "gap",
    "*",
    "worst",
    "True",
    "0",
    "1",
    "2024-01-01",
    "045Y",
    "x" * 5000,
    "\u0645\u0631\u062d\u0628",
]


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise ``TimeoutError`` in the block after this many seconds."""

    def stop(number: int, frame: Any) -> None:
        raise TimeoutError(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def predictions(rng: np.random.Generator, rows: int = 60) -> pd.DataFrame:
    """Predictions of 30 patients with two images each."""
    patient = np.arange(rows) // 2
    truth = (rng.random(rows) < 0.4).astype(int)
    return pd.DataFrame(
        {
            "image": [f"image {row}" for row in range(rows)],
            "patient": [f"p{row}" for row in patient],
            "truth": truth,
            "probability": np.round(1 / (1 + np.exp(-(truth - 0.5 + rng.normal(size=rows)))), 6),
            "site": rng.choice(["north", "süd"], rows // 2)[patient],
            "sex": rng.choice(["F", "M"], rows // 2)[patient],
        }
    )


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """Bytes after one to four random changes: flips, cuts, insertions, repetitions, zeroed stretches."""
    value = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        place = int(rng.integers(0, max(len(value), 1)))
        length = int(rng.integers(1, 40))
        match rng.integers(0, 6):
            case 0 if value:
                value[min(place, len(value) - 1)] ^= 1 << int(rng.integers(0, 8))
            case 1:
                del value[place:]
            case 2:
                del value[place : place + length]
            case 3:
                value[place:place] = rng.bytes(length)
            case 4:
                value[place:place] = value[place : place + length]
            case _:
                value[place : place + length] = bytes(len(value[place : place + length]))
    return bytes(value)


def unusual_cells(frame: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """The table with up to five cells, or a whole column, replaced by words that tables of other people hold."""
    table = frame.astype(object)
    for _ in range(rng.integers(1, 6)):
        table.iloc[int(rng.integers(len(table))), int(rng.integers(table.shape[1]))] = str(rng.choice(WORDS))
    if rng.random() < 0.2:
        table[str(rng.choice(table.columns))] = str(rng.choice(WORDS))
    if rng.random() < 0.1:
        table = table.drop(columns=[str(rng.choice(table.columns))])
    if rng.random() < 0.1:
        table.columns = [str(rng.choice([*table.columns, *WORDS])) for _ in table.columns]
    return table


def table_bytes(frame: pd.DataFrame, suffix: str) -> bytes:
    """A table as csv, tsv or Parquet."""
    if suffix == ".parquet":
        buffer = io.BytesIO()
        unique = frame.loc[:, ~frame.columns.duplicated()]
        (unique if unique.dtypes.ne(object).all() else unique.astype(str)).to_parquet(buffer, index=False)
        return buffer.getvalue()
    return frame.to_csv(index=False, sep="\t" if suffix == ".tsv" else ",").encode()


def hostile_table(folder: Path, rng: np.random.Generator, frame: pd.DataFrame) -> Path:
    """A table with unusual cells, damaged bytes, or both, under a usual name."""
    suffix = str(rng.choice([".csv", ".tsv", ".parquet"]))
    kind = int(rng.integers(0, 3))
    data = table_bytes(unusual_cells(frame, rng) if kind != 1 else frame, suffix)
    file = folder / f"table{suffix}"
    file.write_bytes(damaged(data, rng) if kind else data)
    return file


def audited(table: Any) -> Figures:
    """The figures of an audit with few replicates."""
    rows = audit(table, ["sex"], replicates=3, permutations=3, min_patients=2).table
    figures = rows[["domain", "metric", "group", "n", "n_patients", "estimate"]]
    return list(figures.fillna(-1).round(9).itertuples(index=False, name=None))


def hostile_audit(folder: Path, rng: np.random.Generator) -> Callable[[], Any]:
    """An audit of a hostile table."""
    file = hostile_table(folder, rng, predictions(rng))
    return lambda: audited(file)


def rewritten(folder: Path, rng: np.random.Generator) -> Callable[[], Any]:
    """An audit of a table in another form with the same content, compared with the clean one."""
    frame = predictions(rng)
    clean = audited(frame)
    table: Any = frame.iloc[rng.permutation(len(frame)), rng.permutation(frame.shape[1])]
    file = folder / str(rng.choice(["table.csv", "table.CSV", "table.csv.gz"]))
    text = table.to_csv(index=False, sep=str(rng.choice([",", ";", "\t"])))
    match rng.integers(0, 6):
        case 0:
            file.write_bytes(text.encode(str(rng.choice(["utf-8", "utf-8-sig", "utf-16", "latin-1"]))))
        case 1:
            file.write_bytes(gzip.compress(text.encode(), mtime=0))
        case 2:
            file.write_bytes(text.replace("\n", ",,\n").encode())
        case 3:
            table = table.convert_dtypes(dtype_backend=str(rng.choice(["numpy_nullable", "pyarrow"])))  # type: ignore[call-overload]
        case 4:
            table = table.astype({"sex": "category", "patient": "category", "truth": bool})
        case _:
            file = folder / "table.Parquet"
            table.to_parquet(file)
    source = file if file.exists() else table

    def check() -> None:
        if audited(source) != clean:
            raise AssertionError("figures differ from those of the clean table")

    return check


def hostile_cohort(folder: Path, rng: np.random.Generator) -> Callable[[], Any]:
    """A cohort from a hostile table and a description that is now and then damaged too."""
    frame = predictions(rng).drop(columns="probability")
    frame["image"] = [f"image{row}.png" for row in range(len(frame))]
    for name in frame["image"]:
        Image.fromarray(rng.integers(0, 255, (4, 4, 3), dtype=np.uint8)).save(folder / name)
    file = hostile_table(folder, rng, frame)
    text = (
        f"name: x\ntable: {file.name}\nimage: {{column: image}}\npatient: patient\nsite: site\n"
        "split: {fractions: {train: 0.6, val: 0.2, test: 0.2}}\nlabels:\n  y: {kind: binary, column: truth}\n"
        "attributes:\n  sex: {column: sex}\n"
    ).encode()
    (folder / "cohort.yaml").write_bytes(damaged(text, rng) if rng.random() < 0.3 else text)
    if rng.random() < 0.3:
        return lambda: Cohort.from_table(file, ["sex"], labels=["truth"], image="image", patient="patient")
    return lambda: Cohort.read(folder / "cohort.yaml", show_progress=False)


def hostile_plan(folder: Path, rng: np.random.Generator) -> Callable[[], Any]:
    """A plan with hostile cells."""
    plan = pd.DataFrame(
        {
            "seed": np.arange(20),
            "label.y": rng.choice(["ill", "well"], 20),
            "attr.sex": rng.choice(["F", "M"], 20),
            "prompt": "an image",
            "guidance": 1.5,
            "steps": 10,
        }
    )
    file = hostile_table(folder, rng, plan)
    return lambda: read_plan(file)


def hostile_image(folder: Path, rng: np.random.Generator) -> Callable[[], Any]:
    """An image of any kind that is read, most often with damaged bytes."""
    kind = str(rng.choice(["png", "jpeg", "tiff", "bmp", "webp", "npz", "dcm"]))
    pixels = rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    if kind == "npz":
        np.savez_compressed(buffer, image=pixels)
    elif kind == "dcm":
        buffer = _dicom(pixels[..., 0])
    else:
        picture = Image.fromarray(pixels)
        mode = str(rng.choice(["RGB", "L", "I;16", "RGBA", "P", "CMYK", "1", "F"]))
        allowed = {"png": {"RGB", "L", "RGBA", "P", "1"}, "tiff": {"RGB", "L", "RGBA", "P", "CMYK", "1", "F"}}
        picture.convert(mode if mode in allowed.get(kind, set()) else "RGB").save(buffer, kind)
    file = folder / f"image.{kind}"
    file.write_bytes(damaged(buffer.getvalue(), rng) if rng.random() < 0.95 else buffer.getvalue())
    return lambda: read_image(file)


def _dicom(pixels: np.ndarray[Any, Any]) -> io.BytesIO:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID, data.SOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    data.PatientName = "Name^Nobody"
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit = 7
    data.WindowCenter, data.WindowWidth = "128", "256"
    data.PixelData = pixels.tobytes()
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    return buffer


SURFACES: dict[str, tuple[Make, float]] = {
    "audit of a hostile table": (hostile_audit, 0.3),
    "audit of the same table in another form": (rewritten, 0.1),
    "cohort of a hostile table": (hostile_cohort, 0.2),
    "plan of a hostile table": (hostile_plan, 0.1),
    "image": (hostile_image, 0.3),
}


def attempt(make: Make, seed: int) -> tuple[str, str]:
    """What one input ends in, "result", "refused" or "failure", and how it failed."""
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        call = make(Path(name), np.random.default_rng(seed))
        warnings.simplefilter("error")
        try:
            with time_limit(SECONDS):
                call()
        except InputError:
            return "refused", ""
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            return "failure", f"{type(error).__name__}: {str(error)[:120]} ({Path(place.filename).name}:{place.lineno})"
    return "result", ""


def measure(count: int = 10_000, start: int = 0) -> dict[str, Any]:
    """Outcomes of ``count`` inputs by surface; ``failures`` lists each kind with its count and its first seed."""
    outcomes: dict[str, dict[str, int]] = {}
    kinds: Counter[str] = Counter()
    first: dict[str, int] = {}
    for surface, (make, share) in SURFACES.items():
        counts: Counter[str] = Counter()
        with progress_bar(surface, round(count * share)) as bar:
            for seed in range(start, start + round(count * share)):
                outcome, reason = attempt(make, seed)
                counts[outcome] += 1
                if reason:
                    kinds[f"{surface}: {reason}"] += 1
                    first.setdefault(f"{surface}: {reason}", seed)
                bar.advance()
        outcomes[surface] = dict(counts)
    failures = [{"failure": kind, "count": number, "seed": first[kind]} for kind, number in kinds.most_common()]
    return {
        "figure": "inputs that end in neither a result nor a named refusal",
        "target": "0 of 10 000",
        "failures": failures,
        "outcomes": outcomes,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--start", type=int, default=0, help="first seed")
    options = parser.parse_args()
    figures = measure(options.count, options.start)
    for row in figures["failures"]:
        print(row)
    print(figures["outcomes"])

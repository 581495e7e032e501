"""Time per training image, start-up and memory for manifests of 1 000 to 1 000 000 rows: `python -m benchmarks scale`.

Each size trains in processes of its own, in turn, and processor time stands beside the clock's, so that a machine that
is busier at one moment than at another does not decide. Rows are made up. The latents are a store that was never
written to, which reads as zeros and takes no space: what a disk takes for one latent does not depend on how many there
are, and is not in these figures. `python -m benchmarks.scale FOLDER STARTED` measures one process.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.quality_memory import peak
from equigen.cohort import AttributeSpec, Cohort, LabelSpec, Manifest, parse_spec
from equigen.cohort.cohort import SHEET, TABLE, seal
from equigen.diffusion import (
    Denoiser,
    TokenConditions,
    Vocabulary,
    build_tokens,
    build_unet,
    noise_schedule,
    objective_of,
)
from equigen.equity import build_mechanism
from equigen.files import read_json, write_json
from equigen.latents import load_autoencoder
from equigen.latents.store import cohort_store_folder
from equigen.latents.store_file import STORE_FILE, StoreFile, create_store
from equigen.training import Trainer, TrainSettings
from equigen.training.datasets import prepare_stored_splits

ROWS, ROUNDS = (1_000, 100_000, 1_000_000), 3
PRESET, BATCH, SIZE, STEPS, WARMED = "tiny", 64, 64, 60, 10
LEVELS = {
    "attr.sex": ["female", "male"],
    "attr.age": ["under 40", "40 to 59", "60 and over"],
    "attr.race": ["asian", "black", "white"],
    "label.dx": ["benign", "malignant"],
}
SHARES = {"train": 0.9, "val": 0.05, "test": 0.05}


def write_manifest(folder: Path, rows: int) -> None:
    """A saved cohort of made-up rows, two images of each patient, in shards of 2048."""
    labels = {"dx": LabelSpec("binary", LEVELS["label.dx"])}
    attributes = {name[5:]: AttributeSpec(levels) for name, levels in LEVELS.items() if name.startswith("attr")}
    roles = {"name": "made up", "table": "table.parquet", "image": {"column": "file"}, "patient": "patient"}
    spec = parse_spec(roles, "benchmark")
    frame = _rows(rows)
    few = frame.slice(0, 8).to_pandas().assign(path="")
    Cohort("made up", spec, Path("images"), few, labels, attributes).save(folder)
    pq.write_table(frame, folder / TABLE)
    sheet = {**read_json(folder / SHEET), "images": rows}
    write_json(folder / SHEET, {**sheet, "seal": seal(sheet)})


def _rows(rows: int) -> pa.Table:
    """The frame of such a cohort, made without an object per row."""
    rng, shard = np.random.default_rng(rows), pa.array(np.arange(rows) // 2048).cast(pa.string())
    hexadecimal = np.frombuffer(rng.bytes(32 * rows).hex().encode(), dtype="S64")
    number = pa.array(np.arange(rows)).cast(pa.string())
    columns = {
        "row": np.arange(2, rows + 2),
        "image": pc.binary_join_element_wise("shards/", shard, ".tar/", number, ".png", ""),
        "sha256": pa.array(hexadecimal).cast(pa.string()),
        "patient": pa.array(np.arange(rows) // 2).cast(pa.string()),
        "site": pa.nulls(rows, pa.string()),
        "split": _words(rng.choice(len(SHARES), rows, p=list(SHARES.values())), list(SHARES)),
        "domain": _words(np.zeros(rows, dtype=np.int64), ["id"]),
    }
    for name, words in LEVELS.items():
        columns[name] = _words(rng.integers(0, len(words), rows), words)
    return pa.table(columns)


def _words(codes: np.ndarray[Any, Any], words: list[str]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), pa.array(words)).cast(pa.string())


def write_store(folder: Path) -> None:
    """A store for the manifest's training and validation images in which every row counts as encoded."""
    part, coder = Manifest.load(folder).split("train", "val", domain="id"), load_autoencoder()
    images, place = part.images(), cohort_store_folder(folder / "latents", coder.hash, SIZE, part)
    side = SIZE // coder.factor
    told = {"autoencoder": coder.hash, "size": str(SIZE)}
    create_store(place, (len(images), coder.channels, side, side), images.digests, told)
    StoreFile(place / STORE_FILE, write=True).mark(np.arange(len(images)))


def train(folder: Path, started: float) -> dict[str, float]:
    """One training process: seconds from its start (of the system's clock) to its first step, and what follows."""
    libraries, loaded = peak(), time.process_time()
    manifest, coder = Manifest.load(folder), load_autoencoder()
    sides = prepare_stored_splits(manifest, coder, folder / "latents", SIZE, show=False)
    unet = build_unet(PRESET, coder.channels, SIZE // coder.factor, 0)
    network = Denoiser(unet, build_tokens(Vocabulary.from_cohort(manifest).sizes, PRESET, 0))
    settings = TrainSettings(preset=PRESET, batch=BATCH, images=STEPS * BATCH, size=SIZE)
    clock = Clock(build_mechanism("perturbation", sides.train.groups, 0))
    place = folder / f"run-{started}" / "checkpoint.safetensors"
    conditions = TokenConditions(sides.train.ids, settings.drop_all, settings.drop_one)
    trainer = Trainer(
        network, objective_of(noise_schedule()), conditions, sides.train, sides.held_out, clock, settings, place, ""
    )
    trainer.run(show=False)
    steps = 1000 / BATCH * np.median(np.diff(clock.times, axis=0)[WARMED:], axis=0)
    first = clock.times[0]
    return {
        "start-up, s": first[0] - started,
        "start-up, processor s": first[1],
        "of it after the libraries, processor s": first[1] - loaded,
        "ms per image": float(steps[0]),
        "processor ms per image": float(steps[1]),
        "of it for data, processor ms": data_alone(trainer),
        "peak, MiB": 1024 * peak(),
        "libraries alone, MiB": 1024 * libraries,
    }


def data_alone(trainer: Trainer, batches: int = 200) -> float:
    """Processor milliseconds for what alone could depend on the number of rows: drawing an image and fetching it."""
    spent = []
    for seen in range(0, batches * BATCH, BATCH):
        started = time.process_time()
        rows = trainer.stream.batch(seen).rows
        _ = trainer.data.latents[rows], trainer.data.index[rows]
        spent.append(time.process_time() - started)
    return 1000 / BATCH * statistics.median(spent)


class Clock:
    """A mechanism that notes the clock's and the processor's time when it is asked for weights, once a step."""

    def __init__(self, mechanism: Any) -> None:
        self.mechanism, self.times = mechanism, list[tuple[float, float]]()

    def __getattr__(self, name: str) -> Any:
        """Everything else is the mechanism's."""
        return getattr(self.mechanism, name)

    def weights(self, *arguments: Any) -> Any:
        """The mechanism's weights."""
        self.times.append((time.monotonic(), time.process_time()))
        return self.mechanism.weights(*arguments)


def measure() -> dict[str, Any]:
    """All sizes in turn: the ratio of the largest one's time per image to the smallest one's, start-up and memory."""
    with tempfile.TemporaryDirectory() as name:
        runs: dict[int, list[dict[str, float]]] = {rows: [] for rows in ROWS}
        for rows in ROWS:
            write_manifest(Path(name) / str(rows), rows)
            write_store(Path(name) / str(rows))
        for _ in range(ROUNDS):
            for rows, found in runs.items():
                found.append(_in_a_process(Path(name) / str(rows)))
    table = {rows: _medians(found) for rows, found in runs.items()}
    ratios = {name: table[ROWS[-1]][name] / table[ROWS[0]][name] for name in ("ms per image", "processor ms per image")}
    return {
        "figure": f"time per image, {ROWS[-1]} rows / {ROWS[0]} rows",
        "target": 1.0,
        "ratio": ratios["processor ms per image"],
        "ratio by the clock": ratios["ms per image"],
        "start-up under, s": 20,
        "medians": {str(rows): row for rows, row in table.items()},
        "single processes": {str(rows): found for rows, found in runs.items()},
        "preset": PRESET,
        "batch": BATCH,
        "rounds": ROUNDS,
    }


def _medians(found: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(run[key] for run in found) for key in found[0]}


def _in_a_process(folder: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.scale", str(folder), str(time.monotonic())]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    found: dict[str, float] = json.loads(lines[-1])
    return found


if __name__ == "__main__":
    print(json.dumps(train(Path(sys.argv[1]), float(sys.argv[2]))))

"""Peak memory of one evaluation from features: `python -m benchmarks.quality_memory 100000` prints it as JSON.

A process of its own, so that nothing else counts. Features are random numbers, written straight into the arrays.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from equigen.quality.cells import ResamplingSettings
from equigen.quality.evaluation import measure_sets
from equigen.quality.features import Features
from equigen.quality.measurement import EncodedImages, EvaluationInputs, select_metrics

LEVELS = {"sex": ["female", "male"], "race": ["asian", "black", "white"], "age": ["under 60", "60 and over"]}
FEATURES, CLASSES, BLOCK = 1280, 1000, 4096
SETTINGS = ResamplingSettings(repeats=1)  # the default is 5: more subsamples one after another, in no more memory
GIB = 2**30


def side(name: str, images: int) -> EncodedImages:
    """Two images of each patient, half a feature's variance common to both; groups at random."""
    rng = np.random.default_rng([images, *name.encode()])
    values, chances = np.empty((images, FEATURES), np.float32), np.empty((images, CLASSES), np.float32)
    for rows in (slice(start, start + BLOCK) for start in range(0, images, BLOCK)):
        _fill(values[rows], chances[rows], rng)
    patient = np.arange(images) // 2
    groups = {attribute: rng.integers(0, len(names), images // 2 + 1)[patient] for attribute, names in LEVELS.items()}
    names = np.array([f"{name} {number}" for number in patient])
    return EncodedImages(names, groups, Features(values, chances), pd.DataFrame(index=range(images)))


def _fill(values: NDArray[np.float32], chances: NDArray[np.float32], rng: np.random.Generator) -> None:
    rng.standard_normal(out=values, dtype=np.float32)
    values[1::2] += values[: len(values) // 2 * 2 : 2]
    rng.standard_exponential(out=chances, dtype=np.float32)
    chances /= chances.sum(axis=1, keepdims=True)


def peak() -> float:
    """The most GiB that this process has held at any time.

    On Linux ``ru_maxrss`` counts what the parent held before this program was loaded too; VmHWM does not.
    """
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    most = next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), None)  # KiB
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS, else KiB
    return most / 2**20 if most is not None else usage / (GIB if sys.platform == "darwin" else 2**20)


def measure(images: int) -> dict[str, float]:
    """GiB of features and class probabilities, at the peak, and seconds; all metrics that need no labels."""
    before, sides = peak(), [side(name, images) for name in ("real", "generated")]
    arrays = [array for one in sides for array in (one.features.values, one.features.probabilities)]
    held = sum(array.nbytes for array in arrays if array is not None) / GIB
    wanted, started = select_metrics(None, train=False, labels=False), time.perf_counter()
    inputs = EvaluationInputs(sides[0], {"generated": sides[1]}, wanted)
    table = measure_sets(inputs, LEVELS, SETTINGS, encoder="random", show=False).quality
    if table[table["group"] == "*"]["estimate"].isna().any():
        raise RuntimeError("a metric of the whole set has no number")
    return {
        "images a side": images,
        "features and class probabilities, GiB": held,
        "peak, GiB": peak(),
        "libraries alone, GiB": before,
        "seconds": time.perf_counter() - started,
    }


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]))))

"""Power of the copy check on planted copies, beside that of features alone, on phantoms and on cohorts of your own.

`python -m benchmarks.copies ham10000=metadata.csv,file,lesion_id,96` measures the phantom at 64 and 128 px and each
table named (NAME=TABLE,IMAGE COLUMN,PATIENT COLUMN,SIZE; images lie relative to the table). Patients are split at
random into training (at most 1 000 images) and held-out ones (at most 400); copies of one image of each of at most 100
held-out patients are planted. Figures go to benchmarks/results/benchmark-copies.json.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.__main__ import RESULTS, hardware
from equigen.cohort import load_images
from equigen.cohort.phantom import PhantomSettings, render, sample_parameters
from equigen.files import write_json
from equigen.latents import load_autoencoder
from equigen.quality import load_encoder
from equigen.quality.copy_power import (
    PlantedCopies,
    changed_images,
    copy_check_power,
    fold_limits,
    sample_planted_rows,
    thumbnail_rows,
)
from equigen.quality.metrics.memorisation import search_training
from equigen.quality.metrics.neighbours import nearest_neighbours
from equigen.seeds import numpy_generator

TRAINING, HELD_OUT, PLANTED = 1000, 400, 100
Images = NDArray[np.uint8]


def phantom(size: int) -> tuple[Images, NDArray[Any]]:
    """Images and patients of a phantom."""
    parameters = sample_parameters(1800, 0, PhantomSettings())
    parts = [render(parameters.iloc[start : start + 64], size) for start in range(0, len(parameters), 64)]
    return np.concatenate(parts), parameters["patient"].astype(str).to_numpy().astype(str)


def table(text: str) -> tuple[Images, NDArray[Any]]:
    """Images and patients of TABLE,IMAGE COLUMN,PATIENT COLUMN,SIZE: 2 400 rows drawn at random."""
    path, image, patient, size = text.split(",")
    frame = pd.read_csv(path)
    rows = np.sort(numpy_generator(0, "benchmark/copies").permutation(len(frame))[:2400])
    frame = frame.iloc[rows]
    images = load_images([Path(path).parent / str(name) for name in frame[image]], int(size))
    return images, frame[patient].astype(str).to_numpy().astype(str)


def measure(images: Images, patients: NDArray[Any]) -> dict[str, Any]:
    """Share of planted copies found and false alarms, by features alone and by the check with thumbnails."""
    names = numpy_generator(0, "benchmark/copies/split").permutation(np.unique(patients))
    trained = np.isin(patients, names[: int(0.65 * len(names))])
    rows = np.flatnonzero(trained)[:TRAINING], np.flatnonzero(~trained)[:HELD_OUT]
    (train, real), (owners, people) = ([side[own] for own in rows] for side in (images, patients))
    encoder, small = load_encoder("efficientnet-lite0"), [thumbnail_rows(side) for side in (real, real[:1], train)]
    features = [encoder(side)[0] for side in (real, real[:1], train)]
    start = time.process_time()
    search = search_training(*features, people, owners, thumbnails=(small[0], small[1], small[2]))
    seconds = time.process_time() - start
    place = sample_planted_rows(people, 0, PLANTED)
    changed = changed_images(real[place], 0, load_autoencoder())
    planted = PlantedCopies(place, {name: thumbnail_rows(own) for name, own in changed.items()})
    power = copy_check_power(planted, search.held_out, (small[0], small[2]), (people, owners), {})
    limits, alarms = fold_limits(replace(search.held_out, thumbnail=None, matched=None), people, 0)
    reference, owner = np.concatenate([features[2], features[0][place]]), np.concatenate([owners, people[place]])
    old = {}
    for name, own in changed.items():
        distance, index = nearest_neighbours(encoder(own)[0], reference, 1)
        old[name] = float(np.mean((distance[:, 0] <= limits[place, 0]) & (owner[index[:, 0]] == people[place])))
    return {
        "training images": len(train),
        "held-out images": len(real),
        "planted": len(place),
        "size": images.shape[1],
        "false alarms, features": float(alarms.mean()),
        "false alarms, both views": float(power["false_alarm"].iloc[0]),
        "found, features": old,
        "found, thumbnails": dict(zip(power["change"], power["share"], strict=True)),
        "thresholds": search.thresholds,
        "seconds of the search": seconds,
    }


def main() -> None:
    """Measure the phantoms and the tables named, and write the figures."""
    figures: dict[str, Any] = {}
    sources: dict[str, Any] = {item.split("=", 1)[0]: item.split("=", 1)[1] for item in sys.argv[1:]}
    for name, source in [*sources.items(), ("phantom 64", 64), ("phantom 128", 128)]:
        figures[name] = measure(*(phantom(source) if isinstance(source, int) else table(source)))
        print(name, figures[name], flush=True)
        write_json(RESULTS / "benchmark-copies.json", {"hardware": hardware(), **figures})


if __name__ == "__main__":
    main()

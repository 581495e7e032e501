"""Evaluate images that equigen did not generate: two small models made elsewhere, one of which leaks patients.

    python examples/any_model.py --out any-model
    python examples/any_model.py --out any-model --table mine.csv --groups sex,age     # columns file and patient

The "models" are the simplest that exist: principal components of the training images with a Gaussian over their
scores, one for each combination of groups (scikit-learn; no neural network). The second one is the first, but a tenth
of what it makes for the smallest group are training images with a little noise. Their images and tables are written as
any other tool would write them; then the command that a user would type is shown and run.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from sklearn.decomposition import PCA

from equigen.cohort import Cohort, load_images
from equigen.cohort.phantom import write_phantom

SIZE, COMPONENTS, LEAK = 64, 60, 0.1


def tables(arguments: argparse.Namespace) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """Training and held-out rows (``path``, ``patient``, groups), halves by patient, and the groups' names."""
    if arguments.table is None:
        folder = write_phantom(arguments.out / "phantom", 3000)
        cohort, names = Cohort.read(folder / "cohort.yaml"), ["race", "sex"]
    else:
        names = arguments.groups.split(",")
        cohort = Cohort.from_table(arguments.table, names)
    frame = cohort.frame.rename(columns={f"attr.{name}": name for name in names}).dropna(subset=names)
    patients = np.random.default_rng(0).permutation(frame["patient"].unique())
    training = frame["patient"].isin(patients[: len(patients) // 2])
    columns = ["path", "patient", *names]
    return frame.loc[training, columns], frame.loc[~training, columns], names


def generated(images: NDArray[np.uint8], count: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """``count`` images of the Gaussian over the principal components of uint8 [N, H, W, 3]."""
    flat = images.reshape(len(images), -1).astype(np.float64)
    model = PCA(min(COMPONENTS, len(images) - 1), svd_solver="randomized", random_state=0).fit(flat)
    scores = rng.standard_normal((count, model.n_components_)) * np.sqrt(model.explained_variance_)
    return np.clip(model.inverse_transform(scores).round(), 0, 255).astype(np.uint8).reshape(count, *images.shape[1:])


def write(folder: Path, images: NDArray[np.uint8], groups: pd.DataFrame) -> Path:
    """Lossless images and their table, as another tool would leave them."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{row:05d}.png" for row in range(len(images))]
    for name, image in zip(names, images, strict=True):
        Image.fromarray(image).save(folder / name)
    groups.assign(file=names).to_csv(folder / "table.csv", index=False)
    return folder / "table.csv"


def main() -> None:
    """Make both sets, then evaluate them with one command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("any-model"))
    parser.add_argument("--table", type=Path, help="a table of your own; a phantom without it")
    parser.add_argument("--groups", default="sex", help="its columns of groups")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    training, held_out, names = tables(arguments)
    for name, rows in (("train", training), ("real", held_out)):
        write(arguments.out / name, load_images(list(rows["path"]), SIZE), rows[["patient", *names]])

    rng, made, leaked = np.random.default_rng(1), [], []
    cells = list(training.groupby(names))
    smallest = min(cells, key=lambda cell: len(cell[1]))[0]
    for level, rows in cells:
        pixels = load_images(list(rows["path"]), SIZE)
        images = generated(pixels, len(rows), rng)
        made.append(images)
        leaky = images.copy()
        if level == smallest:
            copied = rng.choice(len(pixels), max(1, round(LEAK * len(images))), replace=False)
            noisy = pixels[copied] + rng.normal(0, 2, (len(copied), SIZE, SIZE, 3))
            leaky[: len(copied)] = np.clip(noisy.round(), 0, 255).astype(np.uint8)
        leaked.append(leaky)
    groups = pd.concat([rows[names] for _, rows in cells], ignore_index=True)
    sets = {"components": np.concatenate(made), "leaky": np.concatenate(leaked)}
    places = {name: write(arguments.out / name, images, groups) for name, images in sets.items()}

    command = ["evaluate", "--real", arguments.out / "real" / "table.csv"]
    command += ["--train", arguments.out / "train" / "table.csv"]
    for name, place in places.items():
        command += ["--generated", f"{name}={place}"]
    command += ["--groups", ",".join(names), "--encoder", "efficientnet-lite0@64", "--out", arguments.out / "result"]
    words = [str(word) for word in command]
    print("equigen", shlex.join(words), flush=True)
    subprocess.run([sys.executable, "-m", "equigen", *words], check=True)


if __name__ == "__main__":
    main()

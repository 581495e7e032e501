"""A cohort to the contract, of bright (sick) and dark (healthy) images, without any file of another room."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from equigen.cohort import LabelSpec
from equigen.files import hash_value


@dataclass
class TinyCohort:
    frame: pd.DataFrame
    labels: dict[str, LabelSpec]

    @property
    def hash(self) -> str:
        return hash_value(self.frame.drop(columns="path").to_dict("list"))


def paint(folder: Path, brightness: list[float], seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    names = []
    for number, level in enumerate(brightness):
        pixels = np.clip(rng.normal(level, 40, (16, 16, 3)), 0, 255).astype(np.uint8)
        names.append(f"{number:04d}.png")
        Image.fromarray(pixels).save(folder / names[-1])
    return names


def make_cohort(folder: Path, n: int = 120) -> TinyCohort:
    folder.mkdir(parents=True, exist_ok=True)
    number = np.arange(n)
    sick = number % 2 == 1
    names = paint(folder, list(np.where(sick, 150.0, 90.0)))
    split = np.where(number % 6 < 3, "train", np.where(number % 6 == 3, "val", "test"))
    split = np.where(number < 4, ["val", "val", "test", "test"] * (n // 4), split)
    site = np.where(number % 6 == 5, "north", "south")
    dx = np.array(["nv", "mel", "nv", "bcc"])[number % 4].astype(object)
    frame = pd.DataFrame(
        {
            "row": number + 2,
            "image": names,
            "path": [str(folder / name) for name in names],
            "sha256": "",
            "patient": [f"p{k // 2}" for k in number],
            "site": site,
            "split": split,
            "domain": np.where(site == "north", "ood", "id"),
            "label.sick": np.where(sick, "yes", "no").astype(object),
            "label.dx": dx,
            "label.findings": np.array(["", "a", "a|b", "b"], dtype=object)[number % 4],
            "attr.sex": np.array(["f", "m", None], dtype=object)[number % 3],
        }
    )
    frame = frame.astype(dict.fromkeys(["label.sick", "label.dx", "label.findings", "attr.sex"], object))
    frame.loc[[5, 9], ["label.sick", "label.dx", "label.findings"]] = None
    labels = {
        "sick": LabelSpec("binary", ["no", "yes"]),
        "dx": LabelSpec("multiclass", ["nv", "mel", "bcc"], ["mel", "bcc"]),
        "findings": LabelSpec("multilabel", ["a", "b"]),
    }
    return TinyCohort(frame, labels)


def make_synthetic(folder: Path, n: int = 40, *, upside_down: bool = False) -> Path:
    """A synthetic set in which sick is bright, or dark when upside down; its last image is not accepted."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    sick = np.arange(n) % 2 == 1
    names = paint(folder / "images", list(np.where(sick ^ upside_down, 150.0, 90.0)), seed=1)
    accepted = np.array([True] * (n - 2) + [None, False], dtype=object)
    pd.DataFrame(
        {
            "image": [f"images/{name}" for name in names],
            "label.sick": np.where(sick, "yes", "no"),
            "accepted": accepted,
        }
    ).to_parquet(folder / "synthetic.parquet")
    return folder


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> TinyCohort:
    return make_cohort(tmp_path_factory.mktemp("real"))


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_synthetic(tmp_path_factory.mktemp("synthetic"))


@pytest.fixture(scope="session")
def inverted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_synthetic(tmp_path_factory.mktemp("inverted"), upside_down=True)


@pytest.fixture(scope="session")
def synthetic_maker() -> Callable[..., Path]:
    return make_synthetic

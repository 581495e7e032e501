"""A world in three colours: red shows the diagnosis, green the sex, blue a number between 0 and 255 by chance.

``Painter`` stands in for a generator, ``reader`` for a classifier, ``real_cohort`` for held-out real images.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from equigen.cohort import AttributeSpec, Cohort, LabelSpec, parse_spec
from equigen.quality.judge.classifier import FunctionClassifier
from equigen.quality.judge.questions import Target
from equigen.seeds import numpy_generator

SIDE, LOW, HIGH = 8, 50, 200
DX, SEX = Target("label.dx", ["healthy", "ill"]), Target("attr.sex", ["female", "male"])


def paint(dx, sex, blue) -> np.ndarray:
    """[SIDE, SIDE, 3] uint8."""
    colour = [HIGH if dx == "ill" else LOW, HIGH if sex == "male" else LOW, blue]
    return np.full((SIDE, SIDE, 3), colour, np.uint8)


class Painter:
    """Paints what is asked for, but in ``wrong(row, luck)`` the other diagnosis; luck in [0, 1) is of the seed."""

    hash, size, latent_side, device, mixes_guidance = "painter", 16, 4, torch.device("cpu"), True

    def __init__(self, wrong=lambda row, luck: False) -> None:
        self.wrong, self.calls, self.seeds, self.stop = wrong, 0, [], None

    def check(self, plan):
        assert len(plan)

    def __call__(self, conditions, seeds, guidance, steps, **rest):
        self.calls += 1
        if self.stop is not None and self.calls > self.stop:
            raise RuntimeError("power cut")
        self.seeds += list(seeds)
        return np.stack([self.one(row, seed) for row, seed in zip(conditions.to_dict("records"), seeds, strict=True)])

    def one(self, row, seed):
        wrong = self.wrong(row, luck(seed))
        dx = {"ill": "healthy", "healthy": "ill"}[row["label.dx"]] if wrong else row["label.dx"]
        return paint(dx, row["attr.sex"], int(256 * luck(seed + 1)))


def luck(seed: int) -> float:
    return float(numpy_generator(int(seed), "luck").random())


def reader(misread=lambda images: np.zeros(len(images), bool), patients=frozenset(), name="reader", sure=0.9):
    """Reads both colours rightly, but where ``misread`` takes the ill for healthy and the healthy for ill."""

    def read(images):
        ill = (images[:, 0, 0, 0] > 128) ^ misread(images)
        male = images[:, 0, 0, 1] > 128
        return {question.name: np.where(shown[:, None] == [False, True], sure, 1 - sure)
                for question, shown in ((DX, ill), (SEX, male))}  # fmt: skip

    return FunctionClassifier(read, [DX, SEX], name, patients)


def blue(images) -> np.ndarray:
    """[N] in [0, 1)."""
    return images[:, 0, 0, 2] / 256


def male(images) -> np.ndarray:
    return images[:, 0, 0, 1] > 128


def asked(n: int, seed: int = 0) -> pd.DataFrame:
    """Requests: diagnosis and sex in turn, so that every cell has a quarter."""
    number = np.arange(n)
    return pd.DataFrame({
        "label.dx": np.array(["healthy", "ill"], object)[number % 2],
        "attr.sex": np.array(["female", "male"], object)[number // 2 % 2],
        "prompt": "an eye", "seed": number + 1000 * seed, "guidance": 2.0, "steps": 3,
    })  # fmt: skip


def write_set(folder: Path, plan: pd.DataFrame, painter: Painter) -> Path:
    """What ``generate`` writes, painted."""
    (folder / "images").mkdir(parents=True)
    names = [f"images/{index:07d}.png" for index in range(len(plan))]
    for name, row in zip(names, plan.to_dict("records"), strict=True):
        Image.fromarray(painter.one(row, row["seed"])).save(folder / name)
    record = plan.assign(image=names, generator=painter.hash, accepted=True, reason="")
    record.to_parquet(folder / "synthetic.parquet", index=False)
    return folder


def real_cohort(folder: Path, n: int = 400, split: str = "val", prefix: str = "p") -> Cohort:
    """Real images that show what the table says; two of each patient."""
    folder.mkdir(parents=True)
    rows = asked(n).drop(columns=["prompt", "seed", "guidance", "steps"])
    names = [str(folder / f"{index}.png") for index in range(n)]
    for index, (name, row) in enumerate(zip(names, rows.to_dict("records"), strict=True)):
        Image.fromarray(paint(row["label.dx"], row["attr.sex"], int(256 * luck(10_000 + index)))).save(name)
    patients = [f"{prefix}{index // 8}-{index % 4}" for index in range(n)]
    frame = rows.assign(path=names, image=names, patient=patients, split=split, domain="id", sha256="")
    spec = {"name": "colours", "table": "t.csv", "image": {"column": "f"}, "patient": None,
            "labels": {"dx": {"kind": "binary", "column": "dx", "levels": DX.levels}},
            "attributes": {"sex": {"column": "sex", "levels": SEX.levels}}}  # fmt: skip
    return Cohort("colours", parse_spec(spec, "colours"), folder, frame,
                  {"dx": LabelSpec("binary", DX.levels, [])}, {"sex": AttributeSpec(SEX.levels)})  # fmt: skip


def row(table, metric, attribute="*", group="*", field="*"):
    """The one row of a screening table."""
    same = (table.metric == metric) & (table.attribute == attribute) & (table.group == group) & (table.field == field)
    (found,) = table[same].to_dict("records")
    return found

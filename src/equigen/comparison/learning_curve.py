"""The learning curve of one mechanism: quality over images seen in training, and its change to the end of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from equigen.comparison.evaluation import Sample
from equigen.comparison.measurement import measure, stage_sample
from equigen.comparison.paths import RunPaths, Training, snapshots
from equigen.comparison.settings import ComparisonSettings
from equigen.parquet import read_parquet, write_parquet
from equigen.quality import ImageSet
from equigen.training import TrainSettings

FILES = {"points": "curve.parquet", "change": "curve_change.parquet"}
END = "the end"  # name of the last point of each training in the measurement
PERMUTATIONS = 20  # the null gaps of a curve are not reported
POINTS = ["setting", "seed", "images_seen", "attribute", "figure", "estimate"]
CHANGE = ["setting", "images_seen", "end", "attribute", "figure", "seeds", "estimate", "estimate_end", "change",
          "change_low", "change_high", "p_value", "note"]  # fmt: skip


@dataclass(frozen=True)
class Curve:
    """A learning curve.

    ``points`` (``POINTS``): a row for each training, snapshot and quantity, of the comparison's first metric.
    ``change`` (``CHANGE``): a row for each snapshot and quantity, over the seeds: mean at this point, mean at the end,
    mean of the seeds' differences (end less point), and its 95 % interval over seeds and patients. All points of a seed
    have the same requests and the same noise.
    """

    points: pd.DataFrame
    change: pd.DataFrame

    def write(self, folder: Path) -> None:
        """Write both tables into a folder."""
        for name, file in FILES.items():
            write_parquet(folder / file, getattr(self, name))

    @classmethod
    def read(cls, folder: Path) -> Curve:
        """Read what ``write`` wrote."""
        return cls(**{name: read_parquet(folder / file) for name, file in FILES.items()})


def curve_samples(
    settings: ComparisonSettings, runs: Mapping[Training, TrainSettings], paths: RunPaths
) -> list[tuple[int, Sample]]:
    """Return the images that each generator of the curve has seen, with its set; pretrainings are included."""
    curve, plan = settings.curve, settings.curve_plan
    points: list[tuple[int, Sample]] = []
    for training in runs:
        if curve is None or training.name != curve.mechanism:
            continue
        total, stages = 0, {}
        for origin in (training.pretrained, training):
            if origin not in runs:
                continue
            end, folders = snapshots(paths.generator(origin))
            stage = paths.synthetic(origin, plan, curve.guidance, snapshot=True)
            for folder in folders:
                stages[total + int(folder.name)] = stage.format(snapshot=folder.name)
            total += end
            stages[total] = paths.synthetic(origin, plan, curve.guidance)
        for images, stage in stages.items():
            name = END if images == total else f"{images} images"
            points.append((images, stage_sample(paths, training, name, plan, curve.guidance, stage)))
    return points


def measure_curve(
    settings: ComparisonSettings, real: ImageSet, points: Sequence[tuple[int, Sample]], cache: Path, show: bool = True
) -> Curve:
    """Measure the first metric of every set of the curve, and its change to the end of training."""
    changes = {"metrics": settings.evaluate.metrics[:1], "permutations": PERMUTATIONS}
    reduced = settings.model_copy(update={"evaluate": settings.evaluate.model_copy(update=changes)})
    result = measure(reduced, real, [sample for _, sample in points], cache, show, reference=END)
    images = {(sample.setting, sample.mechanism): count for count, sample in points}
    seeds = result.seeds.assign(images_seen=_images_seen(result.seeds, images))
    rows = result.summary[result.summary["mechanism"] != END]  # their differences are point less end
    table = rows.assign(
        images_seen=_images_seen(rows, images), end=[images[setting, END] for setting in rows["setting"]],
        change=-rows["difference"], change_low=-rows["difference_high"], change_high=-rows["difference_low"],
        estimate_end=rows["estimate"] - rows["difference"],
    )  # fmt: skip
    return Curve(
        seeds[POINTS].sort_values(POINTS[:3], kind="stable").reset_index(drop=True),
        table[CHANGE].sort_values(CHANGE[:2], kind="stable").reset_index(drop=True),
    )


def _images_seen(table: pd.DataFrame, images: Mapping[tuple[str, str], int]) -> list[int]:
    """Return the images seen of each row; in the mechanism's column stands the name of the point."""
    return [images[key] for key in zip(table["setting"], table["mechanism"], strict=True)]

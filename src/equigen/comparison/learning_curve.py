"""Quality over images seen of one mechanism's kept generators, and how far each is from the end of its training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from equigen.comparison.evaluation import Sample
from equigen.comparison.measurement import measure, sample_of
from equigen.comparison.paths import Member, Places, snapshots
from equigen.comparison.settings import ComparisonSettings
from equigen.files import read_parquet, write_parquet
from equigen.quality import ImageSet
from equigen.training import TrainSettings

FILES = {"points": "curve.parquet", "change": "curve_change.parquet"}
END = "the end"  # what the last point of each training is called while all are measured
PERMUTATIONS = 20  # no chance is asked of a curve
POINTS = ["setting", "seed", "images_seen", "attribute", "figure", "estimate"]
CHANGE = ["setting", "images_seen", "end", "attribute", "figure", "seeds", "estimate", "estimate_end", "change",
          "change_low", "change_high", "p_value", "note"]  # fmt: skip


@dataclass(frozen=True)
class Curve:
    """``points``: a row for each training, kept generator and figure (``POINTS``), of the comparison's first metric.

    ``change`` (``CHANGE``): over the seeds, for each kept generator and figure, what training on to the end has
    changed: mean at this point, mean at the end, their difference seed by seed (end less point), and its 95 % interval
    over seeds and patients; the same requests are answered from the same noise at all points of a seed.
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
    settings: ComparisonSettings, runs: Mapping[Member, TrainSettings], places: Places
) -> list[tuple[int, Sample]]:
    """The curve's sets, those of the pretraining included, each with the images that its generator had seen."""
    curve, plan = settings.curve, settings.curve_plan
    found: list[tuple[int, Sample]] = []
    for member in runs:
        if curve is None or member.name != curve.mechanism:
            continue
        before, stages = 0, {}
        for item in (member.pretrained, member):
            if item not in runs:
                continue
            end, folders = snapshots(places.generator(item))
            stage = places.synthetic(item, plan, curve.guidance, kept=True)
            for folder in folders:
                stages[before + int(folder.name)] = stage.format(snapshot=folder.name)
            before += end
            stages[before] = places.synthetic(item, plan, curve.guidance)
        for seen, stage in stages.items():
            name = END if seen == before else f"{seen} images"
            found.append((seen, sample_of(places, member, name, plan, curve.guidance, stage)))
    return found


def measure_curve(
    settings: ComparisonSettings, real: ImageSet, found: Sequence[tuple[int, Sample]], cache: Path, show: bool = True
) -> Curve:
    """The first metric of every set of the curve, and the change from each point to the end."""
    fewer = {"metrics": settings.evaluate.metrics[:1], "permutations": PERMUTATIONS}
    asked = settings.model_copy(update={"evaluate": settings.evaluate.model_copy(update=fewer)})
    measured = measure(asked, real, [sample for _, sample in found], cache, show, reference=END)
    seen = {(sample.setting, sample.mechanism): images for images, sample in found}
    return Curve(_points(measured.seeds, seen), _change(measured.summary, seen))


def _images(table: pd.DataFrame, seen: Mapping[tuple[str, str], int]) -> list[int]:
    return [seen[place] for place in zip(table["setting"], table["mechanism"], strict=True)]


def _points(seeds: pd.DataFrame, seen: Mapping[tuple[str, str], int]) -> pd.DataFrame:
    table = seeds.assign(images_seen=_images(seeds, seen))
    return table[POINTS].sort_values(POINTS[:3], kind="stable").reset_index(drop=True)


def _change(summary: pd.DataFrame, seen: Mapping[tuple[str, str], int]) -> pd.DataFrame:
    """The paired differences to the end, turned round: what the rest of the training brought."""
    own = summary[summary["mechanism"] != END]
    table = own.assign(
        images_seen=_images(own, seen), end=[seen[setting, END] for setting in own["setting"]],
        change=-own["difference"], change_low=-own["difference_high"], change_high=-own["difference_low"],
        estimate_end=own["estimate"] - own["difference"],
    )  # fmt: skip
    return table[CHANGE].sort_values(CHANGE[:2], kind="stable").reset_index(drop=True)

"""What is measured in a contest: every set against the same held-out images, and the curve over images seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from equigen.cohort import Cohort
from equigen.files import read_json
from equigen.quality import Contest, ImageSet, Sample, measure_contest
from equigen.report.contest import Calibrated
from equigen.study.contest_jobs import calibrated_sets, sets_of
from equigen.study.contest_places import Member, Places, snapshots
from equigen.study.contest_settings import PRETRAINED, ContestEvaluate, ContestSettings
from equigen.synthesis.guidance import FILE as CALIBRATION
from equigen.training import TrainSettings

CURVE_DRAWS = 20  # resamples where only estimates are drawn


def samples(settings: ContestSettings, runs: Mapping[Member, TrainSettings], places: Places) -> list[Sample]:
    """Every set that takes part: mechanisms by seeds, settings, plans and guidance."""
    return [
        Sample(member.setting, member.name, member.seed, plan, guidance,  # type: ignore[arg-type]
               places.out / places.synthetic(member, plan, guidance))
        for member in runs
        if member.name != PRETRAINED
        for plan, guidance in [*sets_of(settings, member.name), *calibrated_sets(settings, member.name)]
        if isinstance(guidance, str) or guidance in settings.guidance
    ]


def curve_samples(
    settings: ContestSettings, runs: Mapping[Member, TrainSettings], places: Places
) -> dict[tuple[str, int, int], Path]:
    """The curve's sets by setting, seed and images seen, those of the pretraining included."""
    curve, found = settings.curve, {}
    for member in runs:
        if curve is None or member.name != curve.mechanism:
            continue
        before = 0
        for item in (member.pretrained, member):
            if item not in runs:
                continue
            end, folders = snapshots(places.generator(item))
            stage = places.synthetic(item, curve.plan, curve.guidance, kept=True)
            for folder in folders:
                seen = before + int(folder.name)
                found[item.setting, item.seed, seen] = places.out / stage.format(snapshot=folder.name)
            last = places.synthetic(item, curve.plan, curve.guidance)
            found[item.setting, item.seed, before + end] = places.out / last
            before += end
    return found


def held_out(cohort: Cohort) -> ImageSet:
    """The in-distribution test images."""
    part = cohort.split("test", domain="id")
    levels = {name: list(spec.levels) for name, spec in cohort.attributes.items()}
    return ImageSet(part.frame.reset_index(drop=True), levels=levels)


def measure(
    settings: ContestSettings, cohort: Cohort, found: Sequence[Sample], cache: Path, show: bool = True
) -> Contest:
    """The contest's two tables."""
    return _measured(settings.size, settings.evaluate, cohort, found, cache, show)


def _measured(
    size: int, asked: ContestEvaluate, cohort: Cohort, found: Sequence[Sample], cache: Path, show: bool
) -> Contest:
    return measure_contest(
        held_out(cohort),
        found,
        asked.groups,
        metrics=asked.metrics,
        encoder=asked.encoder,
        size=size,
        replicates=asked.replicates,
        permutations=asked.permutations,
        limit=asked.limit,
        cache_dir=cache,
        show=show,
    )


def measure_curve(
    settings: ContestSettings,
    cohort: Cohort,
    found: Mapping[tuple[str, int, int], Path],
    cache: Path,
    show: bool = True,
) -> pd.DataFrame:
    """``setting, seed, images_seen, attribute, figure, estimate`` of the first metric for every set of the curve."""
    curve = settings.curve
    if curve is None:
        return pd.DataFrame()
    taken = [
        Sample(setting, f"{seen} images", seed, curve.plan, curve.guidance, folder)
        for (setting, seed, seen), folder in found.items()
    ]
    fewer = {"metrics": settings.evaluate.metrics[:1], "replicates": CURVE_DRAWS, "permutations": CURVE_DRAWS}
    asked = settings.evaluate.model_copy(update=fewer)
    table = _measured(settings.size, asked, cohort, taken, cache, show).seeds
    table = table.assign(images_seen=[int(str(name).split(maxsplit=1)[0]) for name in table["mechanism"]])
    columns = ["setting", "seed", "images_seen", "attribute", "figure", "estimate"]
    return table[columns].sort_values(columns[:3], kind="stable").reset_index(drop=True)


def calibrations(
    settings: ContestSettings, runs: Mapping[Member, TrainSettings], places: Places
) -> list[Calibrated]:
    """What the page shows of each calibration; what it gained is in the contest's own tables."""
    return [
        Calibrated(f"{member.name}, seed {member.seed}" if len(settings.settings) == 1 else member.path,
                   read_json(places.generator(member) / CALIBRATION))
        for member in runs
        if calibrated_sets(settings, member.name)
    ]

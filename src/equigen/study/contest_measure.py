"""What is measured in a contest: every set against the same held-out images, and the curve over images seen."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from equigen.cohort import Cohort
from equigen.files import read_json
from equigen.quality import Contest, ImageSet, Sample, measure_contest
from equigen.report.contest import Calibrated
from equigen.study.contest_jobs import calibrated_sets, sets_of
from equigen.study.contest_places import Guidance, Member, Places, snapshots
from equigen.study.contest_settings import PRETRAINED, ContestEvaluate, ContestSettings
from equigen.synthesis.guidance import FILE as CALIBRATION
from equigen.training import TrainSettings

CURVE_DRAWS = 20  # resamples where only estimates are drawn


def samples(settings: ContestSettings, runs: Mapping[Member, TrainSettings], places: Places) -> list[Sample]:
    """Every set that takes part: mechanisms by seeds, settings, plans and guidance."""
    return [
        _sample(places, member, member.name, plan, guidance, places.synthetic(member, plan, guidance))
        for member in runs
        if member.name != PRETRAINED
        for plan, guidance in [*sets_of(settings, member.name), *calibrated_sets(settings, member.name)]
        if isinstance(guidance, str) or guidance in settings.guidance
    ]


def _sample(places: Places, member: Member, name: str, plan: str, guidance: Guidance, stage: str) -> Sample:
    """The set of a stage, with the features that its job has left."""
    return Sample(member.setting, name, member.seed, plan, guidance,  # type: ignore[arg-type]
                  places.out / stage, places.out / places.features(stage))


def curve_samples(
    settings: ContestSettings, runs: Mapping[Member, TrainSettings], places: Places
) -> list[Sample]:
    """The curve's sets, those of the pretraining included; ``mechanism`` says how many images were seen."""
    curve = settings.curve
    found: dict[tuple[str, int, int], Sample] = {}
    for member in runs:
        if curve is None or member.name != curve.mechanism:
            continue
        before, stages = 0, {}
        for item in (member.pretrained, member):
            if item not in runs:
                continue
            end, folders = snapshots(places.generator(item))
            stage = places.synthetic(item, curve.plan, curve.guidance, kept=True)
            for folder in folders:
                stages[before + int(folder.name)] = stage.format(snapshot=folder.name)
            before += end
            stages[before] = places.synthetic(item, curve.plan, curve.guidance)
        found |= {(member.setting, member.seed, seen):
                  _sample(places, member, f"{seen} images", curve.plan, curve.guidance, stage)
                  for seen, stage in stages.items()}
    return list(found.values())


def held_out(cohort: Cohort) -> ImageSet:
    """The in-distribution test images."""
    part = cohort.split("test", domain="id")
    levels = {name: list(spec.levels) for name, spec in cohort.attributes.items()}
    return ImageSet(part.frame.reset_index(drop=True), levels=levels)


def measure(
    settings: ContestSettings, cohort: Cohort, found: Sequence[Sample], cache: Path, show: bool = True
) -> Contest:
    """The contest's two tables."""
    return _measured(settings, settings.evaluate, cohort, found, cache, show)


def _measured(
    settings: ContestSettings, asked: ContestEvaluate, cohort: Cohort, found: Sequence[Sample], cache: Path, show: bool
) -> Contest:
    return measure_contest(
        held_out(cohort),
        found,
        asked.groups,
        metrics=asked.metrics,
        encoder=asked.encoder,
        size=settings.size,
        replicates=asked.replicates,
        permutations=asked.permutations,
        limit=asked.limit,
        only=asked.only,
        cache_dir=cache,
        workers=max(1, (os.cpu_count() or 1) // settings.threads),
        show=show,
    )


def measure_curve(
    settings: ContestSettings,
    cohort: Cohort,
    found: Sequence[Sample],
    cache: Path,
    show: bool = True,
) -> pd.DataFrame:
    """``setting, seed, images_seen, attribute, figure, estimate`` of the first metric for every set of the curve."""
    fewer = {"metrics": settings.evaluate.metrics[:1], "replicates": CURVE_DRAWS, "permutations": CURVE_DRAWS}
    asked = settings.evaluate.model_copy(update=fewer)
    table = _measured(settings, asked, cohort, found, cache, show).seeds
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

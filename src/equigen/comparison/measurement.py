"""What is measured in a comparison: every set against the same held-out images."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from equigen.cohort import Cohort
from equigen.comparison.evaluation import ComparisonResult, Sample, evaluate_comparison
from equigen.comparison.jobs import calibrated_sets, sets_of
from equigen.comparison.paths import Guidance, Member, Places
from equigen.comparison.settings import PRETRAINED, ComparisonSettings
from equigen.files import read_json
from equigen.quality import ImageSet
from equigen.report import CalibrationSummary
from equigen.synthesis import CALIBRATION_FILE as CALIBRATION
from equigen.training import TrainSettings


def samples(settings: ComparisonSettings, runs: Mapping[Member, TrainSettings], places: Places) -> list[Sample]:
    """Every set that takes part: mechanisms by seeds, settings, plans and guidance."""
    return [
        sample_of(places, member, member.name, plan, guidance, places.synthetic(member, plan, guidance))
        for member in runs
        if member.name != PRETRAINED
        for plan, guidance in [*sets_of(settings), *calibrated_sets(settings, member.name)]
    ]


def sample_of(places: Places, member: Member, name: str, plan: str, guidance: Guidance, stage: str) -> Sample:
    """The set of a stage, with the features that its job has left."""
    return Sample(member.setting, name, member.seed, plan, guidance,  # type: ignore[arg-type]
                  places.out / stage, places.out / places.features(stage))


def test_images(cohort: Cohort) -> ImageSet:
    """Return the in-distribution test images, with which every set is compared."""
    part = cohort.split("test", domain="id")
    levels = {name: list(spec.levels) for name, spec in cohort.attributes.items()}
    return ImageSet(part.frame.reset_index(drop=True), levels=levels)


def measure(
    settings: ComparisonSettings, real: ImageSet, found: Sequence[Sample], cache: Path, show: bool = True,
    reference: str = "none",
) -> ComparisonResult:
    """The comparison's two tables."""
    asked = settings.evaluate
    return evaluate_comparison(
        real,
        found,
        asked.groups,
        metrics=asked.metrics,
        encoder=asked.encoder,
        size=settings.size,
        replicates=asked.replicates,
        permutations=asked.permutations,
        limit=asked.limit,
        only=asked.only,
        reference=reference,
        cache_dir=cache,
        workers=max(1, (os.cpu_count() or 1) // settings.threads),
        show=show,
    )


def calibrations(
    settings: ComparisonSettings, runs: Mapping[Member, TrainSettings], places: Places
) -> list[CalibrationSummary]:
    """What the page shows of each calibration; what it gained is in the comparison's own tables."""
    return [
        CalibrationSummary(f"{member.name}, seed {member.seed}" if len(settings.settings) == 1 else member.path,
                           read_json(places.generator(member) / CALIBRATION))
        for member in runs
        if calibrated_sets(settings, member.name)
    ]

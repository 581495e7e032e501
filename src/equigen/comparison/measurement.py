"""The measurement of a comparison: every set against the same test images."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from equigen.cohort import Cohort
from equigen.comparison.evaluation import ComparisonResult, Sample, evaluate_comparison
from equigen.comparison.jobs import calibrated_sets, constant_sets
from equigen.comparison.paths import Guidance, RunPaths, Training
from equigen.comparison.settings import PRETRAINED, ComparisonSettings
from equigen.files import read_json
from equigen.quality import ImageSet
from equigen.report import CalibrationSummary
from equigen.synthesis import CALIBRATION_FILE as CALIBRATION
from equigen.training import TrainSettings


def samples(settings: ComparisonSettings, runs: Mapping[Training, TrainSettings], paths: RunPaths) -> list[Sample]:
    """Return every set of a comparison: mechanisms by seeds, settings, plans and guidance."""
    return [
        stage_sample(paths, training, training.name, plan, guidance, paths.synthetic(training, plan, guidance))
        for training in runs
        if training.name != PRETRAINED
        for plan, guidance in [*constant_sets(settings), *calibrated_sets(settings, training.name)]
    ]


def stage_sample(paths: RunPaths, training: Training, name: str, plan: str, guidance: Guidance, stage: str) -> Sample:
    """Return the set of a stage, with the folder of its features."""
    return Sample(
        training.setting,
        name,
        training.seed,
        plan,
        guidance,  # type: ignore[arg-type]
        paths.out / stage,
        paths.out / paths.features(stage),
    )


def test_images(cohort: Cohort) -> ImageSet:
    """Return the in-distribution test images, with which every set is compared."""
    split = cohort.split("test", domain="id")
    levels = {name: list(spec.levels) for name, spec in cohort.attributes.items()}
    return ImageSet(split.frame.reset_index(drop=True), levels=levels)


def measure(
    settings: ComparisonSettings,
    real: ImageSet,
    sets: Sequence[Sample],
    cache: Path,
    show: bool = True,
    reference: str = "none",
) -> ComparisonResult:
    """Measure sets with the settings of a comparison; return its two tables."""
    evaluate = settings.evaluate
    return evaluate_comparison(
        real,
        sets,
        evaluate.groups,
        metrics=evaluate.metrics,
        encoder=evaluate.encoder,
        size=settings.size,
        replicates=evaluate.replicates,
        permutations=evaluate.permutations,
        limit=evaluate.limit,
        only=evaluate.only,
        reference=reference,
        cache_dir=cache,
        workers=max(1, (os.cpu_count() or 1) // settings.threads),
        show=show,
    )


def calibrations(
    settings: ComparisonSettings, runs: Mapping[Training, TrainSettings], paths: RunPaths
) -> list[CalibrationSummary]:
    """Return the calibrations of a comparison, for its page; their gain is in the comparison's tables."""
    return [
        CalibrationSummary(
            f"{training.name}, seed {training.seed}" if len(settings.settings) == 1 else training.path,
            read_json(paths.generator(training) / CALIBRATION),
        )
        for training in runs
        if calibrated_sets(settings, training.name)
    ]

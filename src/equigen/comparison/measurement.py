"""The measurement of a comparison: every set, and the autoencoder's reconstructions, against the same test images."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from equigen.cohort import Cohort
from equigen.comparison.evaluation import ComparisonResult, Sample, evaluate_comparison
from equigen.comparison.jobs import calibrated_sets, constant_sets
from equigen.comparison.paths import Guidance, RunPaths, Training
from equigen.comparison.settings import PRETRAINED, ComparisonSettings
from equigen.files import read_json
from equigen.latents import Autoencoder
from equigen.quality import ImageSet, filter_by_labels, join_notes, subsample_patients
from equigen.report import CalibrationSummary
from equigen.seeds import numpy_generator
from equigen.study import RECONSTRUCTION
from equigen.synthesis import CALIBRATION_FILE as CALIBRATION
from equigen.synthesis import reconstructed_images
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


FILE = "reconstruction.parquet"
KEY = ["setting", "metric", "attribute", "figure"]
COLUMNS = [*KEY, "n", "estimate", "ci_low", "ci_high", "null_gap", "note"]


def measure_reconstruction(
    settings: ComparisonSettings, cohort: Cohort, coders: Mapping[str, Autoencoder], cache: Path, show: bool = True
) -> pd.DataFrame:
    """Return the comparison's metrics of reconstructed test images, over all images and for each group.

    Kernel values between images of one patient are left out, so also between an image and its own reconstruction.

    Args:
        settings: of the comparison; ``evaluate`` says what is measured.
        cohort: whose test images of the training domain are used.
        coders: the autoencoder of each of the comparison's settings.
        cache: folder that keeps features.
        show: show progress bars.

    Returns:
        ``COLUMNS``: a row for each setting, metric and figure, as ``contest.parquet`` has them. ``ci_low`` and
        ``ci_high`` are the 95 % interval over patients; nothing here was trained, so there are no seeds.

    """
    first: dict[str, str] = {}  # autoencoder: the first setting that has it
    for setting, coder in coders.items():
        first.setdefault(coder.hash, setting)
    samples = [Sample(setting, RECONSTRUCTION, 0, "held-out images", 1.0,
                      reconstructions(settings, cohort, coders[setting])) for setting in first.values()]  # fmt: skip
    result = measure(settings, test_images(cohort), samples, cache, show)
    rows = result.summary.drop(columns="note").merge(result.seeds[[*KEY, "note"]], on=KEY)
    rows = rows.assign(ci_low=rows["patient_low"], ci_high=rows["patient_high"])[COLUMNS]  # there are no trainings
    tables = [rows[rows["setting"] == first[coder.hash]].assign(setting=setting) for setting, coder in coders.items()]
    return pd.concat(tables, ignore_index=True)


def reconstructions(settings: ComparisonSettings, cohort: Cohort, coder: Autoencoder) -> ImageSet:
    """Return reconstructed test images: at most ``evaluate.limit``, of whole patients at random."""
    return reconstructed_images(_sample_images(settings, cohort), coder, settings.size)


def _sample_images(settings: ComparisonSettings, cohort: Cohort) -> ImageSet:
    """Return the test images that are reconstructed, at most ``evaluate.limit``."""
    images = filter_by_labels({"real": test_images(cohort)}, settings.evaluate.only)["real"]
    rng = numpy_generator(0, "contest/reconstruction")
    sample = images.take(subsample_patients(images.patients("real"), settings.evaluate.limit, rng, "real"))
    remark = f"{len(sample):,} of {len(images):,} real images, drawn by patient" if len(sample) < len(images) else ""
    return replace(sample, remark=join_notes(sample.remark, remark))

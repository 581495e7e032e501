"""What the autoencoder alone costs in a comparison: held-out images through it and back, measured like every set.

A latent diffusion model that had learnt the distribution of latents perfectly would give images like these. So they
say how much of a mechanism's distance, and of its gap, no training of the diffusion model takes away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd

from equigen.cohort import Cohort
from equigen.comparison.evaluation import ComparisonResult, Sample
from equigen.comparison.measurement import measure, test_images
from equigen.comparison.settings import ComparisonSettings
from equigen.latents import Autoencoder
from equigen.quality import ImageSet, filter_by_labels, join_notes, subsample_patients
from equigen.seeds import numpy_generator
from equigen.study import RECONSTRUCTION
from equigen.synthesis import reconstructed_images

FILE = "reconstruction.parquet"
PLACE = ["setting", "metric", "attribute", "figure"]
COLUMNS = [*PLACE, "n", "estimate", "ci_low", "ci_high", "null_gap", "note"]


def measure_reconstruction(
    settings: ComparisonSettings, cohort: Cohort, coders: Mapping[str, Autoencoder], cache: Path, show: bool = True
) -> pd.DataFrame:
    """The comparison's metrics of reconstructed held-out images, over all and for each group.

    An image and its own reconstruction, or another of the same patient, are never paired.

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
    rows = _rows(measure(settings, test_images(cohort), samples, cache, show))
    tables = [rows[rows["setting"] == first[coder.hash]].assign(setting=setting) for setting, coder in coders.items()]
    return pd.concat(tables, ignore_index=True)


def reconstructions(settings: ComparisonSettings, cohort: Cohort, coder: Autoencoder) -> ImageSet:
    """Held-out images as the autoencoder keeps them: at most ``evaluate.limit``, whole patients at random."""
    return reconstructed_images(_drawn(settings, cohort), coder, settings.size)


def _drawn(settings: ComparisonSettings, cohort: Cohort) -> ImageSet:
    """Held-out images that are measured, no more than a cell may have."""
    images = filter_by_labels({"real": test_images(cohort)}, settings.evaluate.only)["real"]
    rng = numpy_generator(0, "contest/reconstruction")
    drawn = images.take(subsample_patients(images.patients("real"), settings.evaluate.limit, rng, "real"))
    fewer = f"{len(drawn):,} of {len(images):,} real images, drawn by patient" if len(drawn) < len(images) else ""
    return replace(drawn, remark=join_notes(drawn.remark, fewer))


def _rows(measured: ComparisonResult) -> pd.DataFrame:
    """Values and their intervals over patients; nothing is said of trainings, of which there are none."""
    own = measured.summary.drop(columns="note").merge(measured.seeds[[*PLACE, "note"]], on=PLACE)
    return own.assign(ci_low=own["patient_low"], ci_high=own["patient_high"])[COLUMNS]

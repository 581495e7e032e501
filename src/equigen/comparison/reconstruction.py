"""The reconstruction of test images by the autoencoder, measured like every set of a comparison.

A latent diffusion model that had learnt the distribution of latents perfectly would generate images like these. Their
distance and gap are therefore the part of a mechanism's that no training of the diffusion model can remove.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd

from equigen.cohort import Cohort
from equigen.comparison.evaluation import Sample
from equigen.comparison.measurement import measure, test_images
from equigen.comparison.settings import ComparisonSettings
from equigen.latents import Autoencoder
from equigen.quality import ImageSet, filter_by_labels, join_notes, subsample_patients
from equigen.seeds import numpy_generator
from equigen.study import RECONSTRUCTION
from equigen.synthesis import reconstructed_images

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

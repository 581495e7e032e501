"""Evaluation of a comparison: samples of several mechanisms and seeds, measured on the same real images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from equigen.comparison.estimates import SampleResult, sample_results
from equigen.comparison.tables import seeds_table, summary_table
from equigen.errors import InputError, Problem
from equigen.parquet import read_parquet, write_parquet
from equigen.progress import Bar, progress_bar
from equigen.quality import (
    Cell,
    Draws,
    EncodedImages,
    Encoder,
    GroupedImages,
    ImageSet,
    LabelFilter,
    MeasurementPlan,
    MetricResult,
    ResamplingSettings,
    ResultCache,
    Source,
    attribute_levels,
    check_features,
    count_passes,
    default_size,
    extract_features,
    file_remarks,
    filter_by_labels,
    group_codes,
    identity,
    join_notes,
    load_encoder,
    load_image_set,
    make_cells,
    make_draws,
    matched_n,
    measure_set,
    select_metrics,
)
from equigen.statistics import Multiplicities

Guidance = float | Literal["calibrated", "common"]
FILES = {"summary": "contest.parquet", "seeds": "contest_seeds.parquet"}


@dataclass(frozen=True)
class Sample:
    """One set of generated images: its training, plan and guidance, and where its images are.

    ``source`` is the folder of a synthetic set, or any other input of ``evaluate``. ``setting`` names the training
    settings ("default"), ``plan`` the plan of the set. ``guidance`` is a number, "calibrated" (one for each group) or
    "common" (the best one for all groups by the same calibration). ``features``: folder of cached features; None takes
    the cache of all samples.
    """

    setting: str
    mechanism: str
    seed: int
    plan: str
    guidance: Guidance
    source: Source
    features: Path | None = None

    @property
    def guidance_text(self) -> str:
        """Guidance as text in tables: ``2``, ``1.5``, ``calibrated``."""
        return self.guidance if isinstance(self.guidance, str) else f"{self.guidance:g}"

    def head(self) -> dict[str, str | int]:
        """Return the columns that identify a sample."""
        return {
            "setting": self.setting,
            "mechanism": self.mechanism,
            "seed": self.seed,
            "plan": self.plan,
            "guidance": self.guidance_text,
        }

    @property
    def name(self) -> str:
        """Name in messages and in the progress bar."""
        return f"{self.setting}, {self.mechanism}, seed {self.seed}, {self.plan}, guidance {self.guidance_text}"


@dataclass(frozen=True)
class ComparisonResult:
    """The two tables of a comparison.

    ``seeds`` has a row for each sample and quantity (``SEED_COLUMNS``), ``summary`` a row for each quantity over seeds
    (``SUMMARY_COLUMNS``). ``guidance`` is text in both, "2" or "calibrated". ``figure`` names the quantity: ``overall``
    (attribute ``*``), the name of a group, ``worst`` (the worst group's value), ``gap`` (largest less smallest value
    over the groups; in the summary the mean of the seeds' gaps) or, in the summary alone, ``gap_of_means`` (largest
    less smallest of the groups' means over seeds, which single trainings change less). Values are excesses (estimate
    less floor) where the metric has a floor, else estimates.
    """

    seeds: pd.DataFrame
    summary: pd.DataFrame

    def write(self, folder: str | Path) -> None:
        """Write ``contest_seeds.parquet`` and ``contest.parquet`` (the summary) into a folder."""
        write_parquet(Path(folder) / FILES["seeds"], self.seeds)
        write_parquet(Path(folder) / FILES["summary"], self.summary)

    @classmethod
    def read(cls, folder: str | Path) -> ComparisonResult:
        """Read what ``write`` wrote."""
        return cls(read_parquet(Path(folder) / FILES["seeds"]), read_parquet(Path(folder) / FILES["summary"]))


def evaluate_comparison(
    real: Source,
    samples: Sequence[Sample],
    groups: list[str] | None = None,
    *,
    metrics: Sequence[str] = ("kd",),
    encoder: str | Encoder = "efficientnet-lite0",
    size: int | None = None,
    replicates: int = 300,
    permutations: int = 300,
    repeats: int = 5,
    min_patients: int = 30,
    limit: int = 4000,
    only: LabelFilter | None = None,
    reference: str = "none",
    cache_dir: str | Path | None = None,
    workers: int = 1,
    seed: int = 0,
    show: bool = True,
) -> ComparisonResult:
    """Measure all samples against the same real images and sum them up over training seeds (METHODS section 6).

    Distances and floors are those of ``evaluate``, at one matched n for all samples of a plan, over the groups
    that have a number in all of them. Real patients are resampled with the same draws for all samples; generated images
    are not, since their sampling is within the spread between seeds (``equigen.statistics.mean_over_seeds`` gives
    the intervals). Each mechanism is compared with ``reference`` seed by seed at the same setting, plan and guidance;
    a calibrated sample is compared with the reference at the common guidance. P-values are Holm-adjusted over the
    mechanisms of one setting, plan, guidance, metric and figure. A gap of noisy values is never 0: ``null_gap`` is what
    it would be on average if group labels meant nothing (they are permuted between patients, on both sides).

    Args:
        real: held-out real images: a cohort or part of it, an ``ImageSet``, a table or a folder.
        samples: the sets of generated images, in the order in which tables and pages show them.
        groups: attributes to compare; None takes those that all sides have.
        metrics: names of metrics that need neither training images nor labels.
        encoder: name or instance; see ``load_encoder``.
        size: side in pixels to which all are brought; None takes that of the first sample.
        replicates: resamples of the real patients.
        permutations: of the group labels.
        repeats: how often each row is used in subsamples of n, at least, and half splits of the floor.
        min_patients: cells with fewer real patients, or fewer generated images, get no number.
        limit: images per side and cell; beyond it whole patients are drawn at random.
        only: label to levels: images of other diagnoses are left out on both sides (``filter_by_labels``).
        reference: name of the mechanism that the others are compared with.
        cache_dir: folder that keeps features, so that an interrupted measurement goes on; None keeps none.
        workers: samples measured at once, one thread each (more than 1: matrix products take one thread).
        seed: of all resampling.
        show: show progress bars.

    Raises:
        InputError: no sample, two of one name, a guidance that is no positive number, "calibrated" or "common",
            images, attributes or diagnoses that are missing, an unknown metric, a senseless setting, features not
            finite.

    """
    settings = ResamplingSettings(None, repeats, replicates, seed, min_patients, limit)
    settings.check()
    replace(settings, replicates=permutations).check()
    metric_names = select_metrics(metrics, train=False, labels=False)
    check_samples(samples)
    images = {"real": load_image_set(real, "real")}
    images |= {sample.name: load_image_set(sample.source, sample.name) for sample in samples}
    generated = [images[sample.name] for sample in samples]
    shared = [name for name in images["real"].attributes if all(name in other.attributes for other in generated)]
    names = shared if groups is None else groups
    levels, *_ = [attribute_levels(images["real"], generated_set, names) for generated_set in generated]
    images = filter_by_labels(images, only or {})
    pairs = [(sample, images[sample.name]) for sample in samples]
    network, first = load_encoder(encoder), pairs[0][1]
    encoding = _Encoding(network, size or default_size(first), levels, cache_dir)
    encoded = encoding.encode(images["real"], "real", show=show)
    select_metrics(metrics, train=False, labels=False, classes=encoded.features.probabilities is not None)
    measurement = _Measurement(encoded, encoding, settings, permutations, metric_names, workers)
    steps = len(pairs) * count_passes(metric_names) * (1 + sum(map(len, measurement.encoding.levels.values())))
    limits = threadpool_limits(1) if workers > 1 else nullcontext()
    with limits, progress_bar("Measuring samples", steps, show=show) as bar:
        results = [
            result
            for plan in dict.fromkeys(sample.plan for sample in samples)
            for result in measurement.measure_plan([pair for pair in pairs if pair[0].plan == plan], bar)
        ]
    remarks = [f"{sample.name}: {image_set.remark}" for sample, image_set in pairs if image_set.remark]
    note = join_notes(
        images["real"].remark,
        *remarks,
        *file_remarks(images["real"], first, encoding.size),
        f"images at {encoding.size} px",
        f"encoder {identity(network)}",
    )
    return ComparisonResult(seeds_table(results), summary_table(results, reference, note))


@dataclass(frozen=True)
class _Encoding:
    """Turns image sets into features, by one encoder at one size, and group codes."""

    encoder: Encoder
    size: int
    levels: dict[str, list[str]]
    cache: str | Path | None

    def encode(self, images: ImageSet, name: str, cache: Path | None = None, *, show: bool = False) -> EncodedImages:
        """Return images with their features, which are kept in ``cache``, or else in the cache of all sets."""
        title = f"Encoding {name} images"
        folder = cache or self.cache
        features = extract_features(images, self.encoder, self.size, cache_dir=folder, title=title, show=show)
        grouped = self.group(images, name)
        encoded = EncodedImages(grouped.patients, grouped.groups, features, images.frame)
        check_features(encoded, name)
        return encoded

    def group(self, images: ImageSet, name: str) -> GroupedImages:
        """Return patients and group codes; each generated image is a patient of its own."""
        groups = {key: group_codes(images.frame, key, levels) for key, levels in self.levels.items()}
        return GroupedImages(images.patients(name), groups)


@dataclass(frozen=True)
class _Measurement:
    """Measures samples against one set of real images.

    ``memory``: results that depend on the real images and the labels alone, which samples share.
    """

    real: EncodedImages
    encoding: _Encoding
    settings: ResamplingSettings
    permutations: int
    metrics: list[str]
    workers: int = 1
    memory: ResultCache = field(default_factory=ResultCache)

    def measure_plan(self, pairs: list[tuple[Sample, ImageSet]], bar: Bar) -> list[SampleResult]:
        """Measure all samples of one plan at one matched n; features of ``workers`` samples are in memory at once."""
        cells = [self._cells(self.encoding.group(images, "generated")) for _, images in pairs]
        matched = [matched_n(sample_cells, self.settings) for sample_cells in cells]
        n = min((value for value in matched if value is not None), default=None)
        with ThreadPoolExecutor(self.workers) as pool:
            results = list(pool.map(lambda pair, rows: self._measure(pair[0], pair[1], rows, n, bar), pairs, cells))
        return sample_results(self.metrics, [sample.head() for sample, _ in pairs], cells, results, n)

    def _cells(self, images: GroupedImages) -> list[Cell]:
        """Return the cells of a sample, which samples with the same patients and groups share."""
        arrays = [images.patients, *images.groups.values()]
        levels = self.encoding.levels
        return self.memory.compute_once("cells", arrays, lambda: make_cells(self.real, images, levels, self.settings))

    def _measure(
        self, sample: Sample, images: ImageSet, cells: list[Cell], n: int | None, bar: Bar
    ) -> list[MetricResult]:
        """Return every metric of one sample; empty where no cell is large enough."""
        bar.note(sample.name)
        if n is None or all(cell.reason is not None for cell in cells):
            bar.advance(count_passes(self.metrics) * len(cells))
            return []
        encoded = self.encoding.encode(images, "generated", sample.features)
        plan = MeasurementPlan(cells, self._draws(encoded, cells), n, self.settings, bar, self.memory)
        return measure_set(self.real, encoded, plan, self.metrics)[0]

    def _draws(self, images: GroupedImages, cells: list[Cell]) -> Draws:
        """Return resamples of the real patients, each with all generated images, and permutations of both sets."""

        def draw() -> Draws:
            draws = make_draws(self.real, images, cells, self.settings)
            permuted = make_draws(self.real, images, cells, replace(self.settings, replicates=self.permutations))
            constant = Multiplicities(np.ones_like(draws.generated.counts), draws.generated.patients)
            return Draws(draws.real, constant, permuted.null)

        return self.memory.compute_once("draws", [images.patients, *images.groups.values()], draw)


def check_samples(samples: Sequence[Sample]) -> None:
    """Raise InputError without samples, for a repeated name and for a wrong guidance."""
    problems = [] if samples else [Problem("no sample", "give at least one")]
    names = [sample.name for sample in samples]
    problems += [
        Problem(f"{names.count(name)} samples are called '{name}'", "give each of them once")
        for name in dict.fromkeys(names)
        if names.count(name) > 1
    ]
    for guidance in (sample.guidance for sample in samples):
        if guidance not in {"calibrated", "common"} if isinstance(guidance, str) else not 0 < guidance < math.inf:
            mend = 'give a number above 0, "calibrated" or "common"'
            problems.append(Problem(f"guidance is {guidance!r}", mend))
    if problems:
        raise InputError("These samples cannot be measured.", problems)

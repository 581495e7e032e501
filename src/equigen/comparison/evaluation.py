"""Trainings of several mechanisms with several seeds, measured on the same real images: who narrows which gap."""

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

from equigen.comparison.estimates import Scored, score
from equigen.comparison.tables import seeds_table, summary_table
from equigen.errors import InputError, Problem
from equigen.files import read_parquet, write_parquet
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
    Multiplicities,
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

Guidance = float | Literal["calibrated", "common"]
FILES = {"summary": "contest.parquet", "seeds": "contest_seeds.parquet"}


@dataclass(frozen=True)
class Sample:
    """One set of generated images and how it came about.

    ``source`` is the folder of a synthetic set, or anything else that ``evaluate`` takes. ``setting`` names the size or
    schedule of the training ("default"), ``plan`` the plan of what was drawn. ``guidance`` is a number, "calibrated"
    (one for each group) or "common" (the best one for all by the same calibration). ``features``: folder that keeps its
    features, of which an earlier run may have left some; None takes that of all.
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
        """As tables have it: ``2``, ``1.5``, ``calibrated``."""
        return self.guidance if isinstance(self.guidance, str) else f"{self.guidance:g}"

    def head(self) -> dict[str, str | int]:
        """The columns that say which sample a row is about."""
        return {"setting": self.setting, "mechanism": self.mechanism, "seed": self.seed, "plan": self.plan,
                "guidance": self.guidance_text}

    @property
    def name(self) -> str:
        """For progress and messages."""
        return f"{self.setting}, {self.mechanism}, seed {self.seed}, {self.plan}, guidance {self.guidance_text}"


@dataclass(frozen=True)
class ComparisonResult:
    """``seeds``: a row for each sample and figure (``SEED_COLUMNS``); ``summary``: over seeds (``SUMMARY_COLUMNS``).

    ``guidance`` is text in both, "2" or "calibrated". ``figure`` is ``overall`` (attribute ``*``), the name of a group,
    ``worst`` (the worst group's value), ``gap`` (largest less smallest value over the groups; in the summary the mean
    of the seeds' gaps) or, in the summary alone, ``gap_of_means`` (largest less smallest of the groups' means over
    seeds, in which the chance of single trainings weighs less). Values are excesses (estimate less floor) where the
    metric has them, else estimates.
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

    Distances and floors are those of ``evaluate_sets``, at one matched n for all samples of a plan, over the groups
    that have a number in all of them. Real patients are resampled with the same draws for all samples; generated images
    are not, since their sampling is within the spread between seeds (``equigen.statistics.seeds_and_patients`` gives
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
    wanted = select_metrics(metrics, train=False, labels=False)
    _check(samples)
    sides = {"real": load_image_set(real, "real")}
    sides |= {item.name: load_image_set(item.source, item.name) for item in samples}
    levels = _levels(sides["real"], [sides[sample.name] for sample in samples], groups)
    sides = filter_by_labels(sides, only or {})
    truth, made = sides["real"], [(sample, sides[sample.name]) for sample in samples]
    network, first = load_encoder(encoder), made[0][1]
    coder = _Coder(network, size or default_size(first), levels, cache_dir)
    side = coder.encode(truth, "real", show=show)
    select_metrics(metrics, train=False, labels=False, classes=side.features.probabilities is not None)
    work = _Work(side, coder, settings, permutations, wanted, workers)
    own = threadpool_limits(1) if workers > 1 else nullcontext()
    with own, progress_bar("Measuring samples", len(made) * count_passes(wanted) * work.cells(), show=show) as bar:
        scored = [found for plan in dict.fromkeys(sample.plan for sample in samples)
                  for found in work.plan([pair for pair in made if pair[0].plan == plan], bar)]
    refused = [f"{sample.name}: {images.remark}" for sample, images in made if images.remark]
    about = join_notes(truth.remark, *refused, *file_remarks(truth, first, coder.size), f"images at {coder.size} px",
                 f"encoder {identity(network)}")
    return ComparisonResult(seeds_table(scored), summary_table(scored, reference, about))


@dataclass(frozen=True)
class _Coder:
    """From images to a side: features by one encoder at one size, and group codes."""

    encoder: Encoder
    size: int
    levels: dict[str, list[str]]
    cache: str | Path | None

    def encode(
        self, images: ImageSet, name: str, cache: Path | None = None, *, show: bool = False
    ) -> EncodedImages:
        """One side with its features, kept in ``cache``, or where all are kept."""
        title = f"Encoding {name} images"
        folder = cache or self.cache
        features = extract_features(images, self.encoder, self.size, cache_dir=folder, title=title, show=show)
        side = self.bare(images, name)
        encoded = EncodedImages(side.patients, side.groups, features, images.frame)
        check_features(encoded, name)
        return encoded

    def bare(self, images: ImageSet, name: str) -> GroupedImages:
        """Patients and group codes; generated images are their own patients."""
        groups = {key: group_codes(images.frame, key, own) for key, own in self.levels.items()}
        return GroupedImages(images.patients(name), groups)


@dataclass(frozen=True)
class _Work:
    """What all samples share; ``memory`` keeps what depends on the real images and the labels alone."""

    real: EncodedImages
    coder: _Coder
    settings: ResamplingSettings
    permutations: int
    wanted: list[str]
    workers: int = 1
    memory: ResultCache = field(default_factory=ResultCache)

    def cells(self) -> int:
        """How many cells a sample has."""
        return 1 + sum(map(len, self.coder.levels.values()))

    def plan(self, made: list[tuple[Sample, ImageSet]], bar: Bar) -> list[Scored]:
        """All samples of one plan, at one n; the features of ``workers`` samples are in memory at a time."""
        cells = [self._cells(self.coder.bare(images, "generated")) for _, images in made]
        possible = [matched_n(own, self.settings) for own in cells]
        n = min((value for value in possible if value is not None), default=None)
        with ThreadPoolExecutor(self.workers) as pool:
            measured = list(pool.map(lambda pair, own: self._measure(pair[0], pair[1], own, n, bar), made, cells))
        return score(self.wanted, [sample.head() for sample, _ in made], cells, measured, n)

    def _cells(self, side: GroupedImages) -> list[Cell]:
        arrays = [side.patients, *side.groups.values()]
        return self.memory.compute_once(
            "cells", arrays, lambda: make_cells(self.real, side, self.coder.levels, self.settings))

    def _measure(
        self, sample: Sample, images: ImageSet, cells: list[Cell], n: int | None, bar: Bar
    ) -> list[MetricResult]:
        bar.note(sample.name)
        if n is None or all(cell.reason is not None for cell in cells):
            bar.advance(count_passes(self.wanted) * len(cells))
            return []
        side = self.coder.encode(images, "generated", sample.features)
        plan = MeasurementPlan(cells, self._draws(side, cells), n, self.settings, bar, self.memory)
        return measure_set(self.real, side, plan, self.wanted)[0]

    def _draws(self, side: GroupedImages, cells: list[Cell]) -> Draws:
        """Resamples of the real patients, every generated image once in each, and permuted labels on both sides."""
        def draw() -> Draws:
            drawn = make_draws(self.real, side, cells, self.settings)
            chance = make_draws(self.real, side, cells, replace(self.settings, replicates=self.permutations))
            once = Multiplicities(np.ones_like(drawn.generated.counts), drawn.generated.patients)
            return Draws(drawn.real, once, chance.null)

        return self.memory.compute_once("draws", [side.patients, *side.groups.values()], draw)


def _levels(real: ImageSet, made: list[ImageSet], groups: list[str] | None) -> dict[str, list[str]]:
    """Attributes that all sides have, with the order of their groups."""
    shared = [name for name in real.attributes if all(name in images.attributes for images in made)]
    found = [attribute_levels(real, images, shared if groups is None else groups) for images in made]
    return found[0]


def _check(samples: Sequence[Sample]) -> None:
    problems = [] if samples else [Problem("no sample", "give at least one")]
    names = [sample.name for sample in samples]
    problems += [Problem(f"{names.count(name)} samples are called '{name}'", "give each of them once")
                 for name in dict.fromkeys(names) if names.count(name) > 1]
    problems += [Problem(f"guidance is {sample.guidance!r}", 'give a number above 0, "calibrated" or "common"')
                 for sample in samples if not _possible(sample.guidance)]
    if problems:
        raise InputError("These samples cannot be measured.", problems)


def _possible(guidance: Guidance) -> bool:
    if isinstance(guidance, str):
        return guidance in {"calibrated", "common"}
    return math.isfinite(guidance) and guidance > 0

"""A comparison of mechanisms: trainings over seeds and settings as jobs, one measurement, one table, one page."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

import equigen
from equigen.cohort import Cohort, count_text, print_counts
from equigen.comparison.checks import check_against, check_before_images, check_images, training_settings
from equigen.comparison.context import JobContext
from equigen.comparison.evaluation import ComparisonResult, Sample
from equigen.comparison.jobs import JobBuilder
from equigen.comparison.learning_curve import FILES as CURVE
from equigen.comparison.learning_curve import Curve, curve_samples, measure_curve
from equigen.comparison.measurement import (
    calibrations,
    measure,
    samples,
    test_images,
)
from equigen.comparison.paths import RunPaths, Training
from equigen.comparison.reconstruction import FILE, measure_reconstruction, reconstructions
from equigen.comparison.runners.base import read_seconds, run_jobs
from equigen.comparison.runners.cluster import open_engine
from equigen.comparison.runners.progress import job_progress
from equigen.comparison.settings import ComparisonSettings
from equigen.comparison.steps import ENCODED, SET
from equigen.config import settings_key
from equigen.devices import best_device
from equigen.files import read_json
from equigen.latents import Autoencoder
from equigen.parquet import read_parquet, write_parquet
from equigen.progress import console
from equigen.quality import ImageSet, describe_label_filter, label_mask
from equigen.report import write_comparison_page
from equigen.study import Workspace, autoencoder_source, base_fact, mechanism_facts, open_autoencoder, versions
from equigen.training import TrainSettings

SECONDS = "seconds.json"

OTHER_MIX = (
    "Plan '{}' does not ask for each group's own diagnoses. Where a group's real images have others, its distance "
    "holds that too: read its gaps beside those of a plan with the policy 'match', its differences to none as they are."
)


class Comparison:
    """A comparison whose settings and cohort are checked; trainings and synthetic sets are jobs of their own.

    ``runs``: settings of each training. ``coders``: the open autoencoders by name or folder. ``sources``: the name or
    folder of each training's autoencoder.
    """

    def __init__(
        self,
        settings: ComparisonSettings,
        workspace: Workspace,
        runs: Mapping[Training, TrainSettings],
        cohort: Cohort,
        coders: dict[str, Autoencoder],
        sources: Mapping[Training, str],
    ) -> None:
        self.settings, self.workspace, self.stages = settings, workspace, workspace.stages
        self.runs, self.cohort, self.coders, self.sources = runs, cohort, coders, sources
        self.paths = RunPaths(workspace.folder.resolve())

    @classmethod
    def open(cls, settings: ComparisonSettings, workspace: Workspace) -> Comparison:
        """Open the cohort and the autoencoders, and check all settings. Raises InputError before any expensive work."""
        base, source, paths = workspace.base, workspace.source, RunPaths(workspace.folder.resolve())
        runs = training_settings(settings, paths, base, source)
        check_before_images(settings, base, source)
        coders: dict[str, Autoencoder] = {}
        sources: dict[Training, str] = {}
        for training, values in runs.items():
            with settings_key("train.base", source):
                name = autoencoder_source(settings.autoencoder, base, values)
            if name not in coders:
                coders[name] = open_autoencoder(settings.autoencoder, base, values, best_device(), source)
            sources[training] = name
        check_against(settings.evaluate.against, [coder.hash for coder in coders.values()], source)
        cohort = workspace.open_cohort(settings)
        by_path = {training.path: coders[name] for training, name in sources.items()}
        check_images(settings, runs, cohort, by_path, paths, source)
        return cls(settings, workspace, runs, cohort, coders, sources)

    def run(self) -> Path:
        """Run all jobs, measure the sets, write the page; return its path.

        Raises DamageError where a finished stage is damaged, so that the stages have to be run again.
        """
        console.print()
        print_counts(self.cohort, console)
        seconds = self.run_jobs()
        return self.write_page(self.measure(), self.curve(), self.reconstruction(), seconds)

    @cached_property
    def real(self) -> ImageSet:
        """The images with which all sets are compared."""
        if self.settings.evaluate.against == "images":
            return test_images(self.cohort)
        return reconstructions(self.settings, self.cohort, next(iter(self.coders.values())))

    def run_jobs(self) -> dict[str, float]:
        """Run all jobs up to the synthetic sets; return the seconds of each kind of job."""
        settings, folder = self.settings, self.workspace.folder
        usual = next(iter(self.sources.values()))
        context = JobContext(folder.resolve(), self.cohort, usual, settings.size, self.coders, self.stages)
        jobs = JobBuilder(settings, self.runs, self.paths, context, self.sources).jobs()
        logs = folder / "logs"
        engine = open_engine(
            settings.engine, settings.jobs, settings.threads, settings.engine_settings, logs / "submitit"
        )
        record = logs / SECONDS
        console.print(f"[bold]{len(jobs)} jobs[/bold], {engine.slots} at once; their logs are in {logs}")
        with job_progress(read_seconds(record), engine, self.workspace.show) as progress:
            seconds = run_jobs(jobs, engine, progress, record)
        total: dict[str, float] = defaultdict(float)
        for job in jobs:
            total[f"{job.kind} (all jobs)"] += seconds.get(job.name, 0.0)
        return {name: value for name, value in total.items() if value}

    def measure(self) -> ComparisonResult:
        """Measure all sets, unless sets and settings are unchanged: contest.parquet and contest_seeds.parquet."""
        sets, workspace = samples(self.settings, self.runs, self.paths), self.workspace

        def work(out: Path) -> None:
            self._check_files(sets)
            measure(self.settings, self.real, sets, workspace.features, workspace.show).write(out)

        inputs = [equigen.__version__, self.cohort.hash, self._inputs(sets)]
        folder = self.stages.run("quality", inputs, work, ["contest.parquet", "contest_seeds.parquet"])
        return ComparisonResult.read(folder)

    def curve(self) -> Curve | None:
        """Measure the learning curve, if there is one: curve.parquet and curve_change.parquet."""
        if self.settings.curve is None:
            return None
        points = curve_samples(self.settings, self.runs, self.paths)
        sets = [sample for _, sample in points]

        def work(out: Path) -> None:
            self._check_files(sets)
            workspace = self.workspace
            measure_curve(self.settings, self.real, points, workspace.features, workspace.show).write(out)

        content = [*self._inputs(sets), self.settings.curve.model_dump(exclude_none=True)]
        folder = self.stages.run("curve", [equigen.__version__, self.cohort.hash, content], work, list(CURVE.values()))
        return Curve.read(folder)

    def reconstruction(self) -> pd.DataFrame | None:
        """Measure the reconstruction of each autoencoder; None where sets are compared with reconstructions."""
        if self.settings.evaluate.against == "reconstructions":
            return None
        coders = {training.setting: self.coders[name] for training, name in self.sources.items()}
        hashes = {name: coder.hash for name, coder in coders.items()}

        def work(out: Path) -> None:
            workspace = self.workspace
            table = measure_reconstruction(self.settings, self.cohort, coders, workspace.features, workspace.show)
            write_parquet(out / FILE, table)

        values = [self.settings.size, self.settings.evaluate.model_dump()]
        inputs = [equigen.__version__, self.cohort.hash, hashes, *values]
        return read_parquet(self.stages.run("reconstruction", inputs, work, [FILE]) / FILE)

    def _check_files(self, sets: Sequence[Sample]) -> None:
        """Hash all files of sets and their features. Raises DamageError where one is damaged."""
        for sample in sets:
            for folder, result in ((sample.source, SET), (sample.features, ENCODED)):
                self.stages.include(Path(str(folder)).relative_to(self.paths.out).as_posix(), [result])
        self.stages.check_files()

    def _inputs(self, sets: Sequence[Sample]) -> list[Any]:
        """Return what a measurement depends on: the sets, the generators of their images, and the settings."""
        content = [read_json(Path(str(sample.source)) / "generation.json") for sample in sets]
        return [
            [[*sample.head().values()] for sample in sets],
            content,
            self.settings.size,
            self.settings.evaluate.model_dump(),
        ]

    def write_page(
        self,
        result: ComparisonResult,
        curve: Curve | None,
        reconstruction: pd.DataFrame | None,
        seconds: Mapping[str, float],
    ) -> Path:
        """Write the page and its JSON, at every run since this is cheap; return the path of the page.

        ``seconds``: of each kind of job.
        """
        settings, cohort = self.settings, self.cohort
        warnings = self.workspace.warnings(cohort)
        warnings += [OTHER_MIX.format(name) for name, plan in settings.plans.items() if plan.policy != "match"]
        return write_comparison_page(
            self.workspace.folder / "report",
            result,
            title=settings.name,
            facts=self.facts(),
            curve=curve.points if curve else None,
            curve_change=curve.change if curve else None,
            reconstruction=reconstruction,
            calibrations=calibrations(settings, self.runs, self.paths),
            settings=settings.model_dump(mode="json"),
            versions=versions(),
            timings={**seconds, **self.stages.seconds},
            phantom=cohort.phantom,
            warnings=warnings,
        )

    def facts(self) -> dict[str, str]:
        """Return the entries under the title of the page."""
        settings, test = self.settings, self.cohort.split("test", domain="id").frame
        test = test[label_mask(test, settings.evaluate.only)]
        only = f", {describe_label_filter(settings.evaluate.only)} alone" if settings.evaluate.only else ""
        kind = ", as the autoencoder keeps them" if settings.evaluate.against == "reconstructions" else ""
        lengths = {run.images for training, run in self.runs.items() if training.name in settings.mechanisms}
        before = {run.images for training, run in self.runs.items() if training.name not in settings.mechanisms}
        images = " or ".join(f"{count:,}" for count in sorted(lengths))
        if before:
            images += f", after {' or '.join(f'{count:,}' for count in sorted(before))} of plain training per seed"
        return {
            "Cohort": f"{self.cohort.name}: {count_text(self.cohort.frame)}",
            "Measured against": f"{len(test):,} held-out images of {test['patient'].nunique():,} patients{only}{kind}",
            "Mechanisms": ", ".join(settings.mechanisms),
            "Training seeds": str(len(settings.seeds)),
            "Images seen in training": images,
            "Synthetic sets": "; ".join(
                f"{name}: {plan.size:,} images, {plan.policy}" for name, plan in settings.plans.items()
            ),
            "Guidance": ", ".join(f"{value:g}" for value in settings.guidance),
            **base_fact(next(iter(self.runs.values()))),
            **mechanism_facts({training.name: run for training, run in self.runs.items()}),
            "Image size": f"{settings.size} x {settings.size} pixels",
        }

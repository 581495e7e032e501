"""A comparison between mechanisms: trainings over seeds and settings as jobs, one measurement, one table, one page."""

from __future__ import annotations

import platform
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

import equigen
from equigen.cohort import print_counts
from equigen.comparison.checks import as_study, check_against, check_images, check_names_early, trainings
from equigen.comparison.context import Bench
from equigen.comparison.evaluation import ComparisonResult as Measured
from equigen.comparison.evaluation import Sample
from equigen.comparison.jobs import Plan
from equigen.comparison.learning_curve import FILES as CURVE
from equigen.comparison.learning_curve import Curve, curve_samples, measure_curve
from equigen.comparison.measurement import calibrations, measure, samples, test_images
from equigen.comparison.paths import Member, Places
from equigen.comparison.reconstruction import FILE, measure_reconstruction, reconstructions
from equigen.comparison.runners.base import read_seconds, run_jobs
from equigen.comparison.runners.cluster import open_engine
from equigen.comparison.runners.progress import board
from equigen.comparison.settings import ComparisonSettings, read_comparison
from equigen.comparison.steps import ENCODED, SET
from equigen.devices import best_device
from equigen.files import read_json, read_parquet, write_parquet
from equigen.latents import Autoencoder
from equigen.progress import console
from equigen.quality import ImageSet, describe_label_filter, label_mask
from equigen.report import write_comparison_page
from equigen.study import LIBRARIES, Study, at, base_fact, coder_place, open_coder

SECONDS = "seconds.json"

OTHER_MIX = (
    "Plan '{}' does not ask for each group's own diagnoses. Where a group's real images have others, its distance "
    "holds that too: read its gaps beside those of a plan with the policy 'match', its differences to none as they are."
)


class Comparison(Study):
    """A comparison in one folder. It opens its cohort as a study does; trainings and sets are jobs of their own."""

    def __init__(
        self, chosen: ComparisonSettings, folder: str | Path, base: str | Path, show: bool = True,
        source: str = "contest", verify: bool = False, accept: bool = False,
    ) -> None:
        super().__init__(as_study(chosen), folder, base, show, source, verify, accept)
        self.chosen, self.places = chosen, Places(self.folder.resolve())

    def _all(self) -> Path:
        """All jobs, the measurement and the page; the path of the page."""
        chosen = self.chosen
        self.members = trainings(chosen, self.places, Path(self.base), self.source)
        check_names_early(chosen, Path(self.base), self.source)
        self._coders()
        self.cohort = self._cohort()
        coders = {member.path: self.opened[place] for member, place in self.coders.items()}
        check_images(chosen, self.members, self.cohort, coders, self.places, self.source)
        console.print()
        print_counts(self.cohort, console)
        self._jobs()
        return self._page(self._measure(), self._curve(), self._reconstruction())

    @cached_property
    def _real(self) -> ImageSet:
        """The images that all sets are measured against."""
        if self.chosen.evaluate.against == "images":
            return test_images(self.cohort)
        return reconstructions(self.chosen, self.cohort, next(iter(self.opened.values())))

    def _coders(self) -> None:
        """Where the autoencoder of each training lies, each opened once: a base has its own."""
        self.coders: dict[Member, str] = {}
        self.opened: dict[str, Autoencoder] = {}
        for member, run in self.members.items():
            with at("train.base", self.source):
                place = coder_place(self.chosen.autoencoder, self.base, run)
            if place not in self.opened:
                asked = self.chosen.autoencoder, self.base, run
                self.opened[place] = open_coder(*asked, best_device(), self.source)
            self.coders[member] = place
        check_against(self.chosen.evaluate.against, [coder.hash for coder in self.opened.values()], self.source)

    def _jobs(self) -> None:
        """Everything up to the synthetic sets."""
        chosen, logs = self.chosen, self.folder / "logs"
        usual = next(iter(self.coders.values()))
        bench = Bench(self.folder.resolve(), self.cohort, usual, chosen.size, self.opened, self.stages)
        jobs = Plan(chosen, self.members, self.places, bench, self.coders).jobs()
        engine = open_engine(chosen.engine, chosen.jobs, chosen.threads, chosen.engine_settings, logs / "submitit")
        record = logs / SECONDS
        spent = read_seconds(record)
        console.print(f"[bold]{len(jobs)} jobs[/bold], {engine.slots} at once; their logs are in {logs}")
        with board(spent, engine, self.show) as watcher:
            self.spent = run_jobs(jobs, engine, watcher, record)
        self.kinds = {job.name: job.kind for job in jobs}

    def _measure(self) -> Measured:
        """contest.parquet and contest_seeds.parquet; again only where sets or settings changed."""
        found = samples(self.chosen, self.members, self.places)
        inputs = self._inputs(found)
        place = self.stages.run(
            "quality",
            [equigen.__version__, self.cohort.hash, inputs],
            lambda out: measure(self.chosen, self._real, self._whole(found), self.features, self.show).write(out),
            ["contest.parquet", "contest_seeds.parquet"],
        )
        return Measured.read(place)

    def _whole(self, found: Sequence[Sample]) -> Sequence[Sample]:
        """The same sets, after all their files and features were hashed; DamageError where one is damaged."""
        for sample in found:
            for place, result in ((sample.source, SET), (sample.features, ENCODED)):
                self.stages.check(Path(str(place)).relative_to(self.places.out).as_posix(), [result])
        self.stages.settle()
        return found

    def _curve(self) -> Curve | None:
        """curve.parquet and curve_change.parquet, where a curve was asked for."""
        if self.chosen.curve is None:
            return None
        found = curve_samples(self.chosen, self.members, self.places)

        def measured(out: Path) -> None:
            self._whole([sample for _, sample in found])
            measure_curve(self.chosen, self._real, found, self.features, self.show).write(out)

        inputs = [*self._inputs([sample for _, sample in found]), self.chosen.curve.model_dump(exclude_none=True)]
        place = self.stages.run(
            "curve",
            [equigen.__version__, self.cohort.hash, inputs],
            measured,
            list(CURVE.values()),
        )
        return Curve.read(place)

    def _reconstruction(self) -> pd.DataFrame | None:
        """reconstruction.parquet: what the autoencoder of each setting costs; None where it is not counted."""
        if self.chosen.evaluate.against == "reconstructions":
            return None
        coders = {member.setting: self.opened[place] for member, place in self.coders.items()}
        hashes = {name: coder.hash for name, coder in coders.items()}

        def work(out: Path) -> None:
            table = measure_reconstruction(self.chosen, self.cohort, coders, self.features, self.show)
            write_parquet(out / FILE, table)

        asked = [self.chosen.size, self.chosen.evaluate.model_dump()]
        place = self.stages.run("reconstruction", [equigen.__version__, self.cohort.hash, hashes, *asked], work, [FILE])
        return read_parquet(place / FILE)

    def _inputs(self, found: Sequence[Sample]) -> list[Any]:
        """What a measurement depends on: which sets, from which images they come, and the settings."""
        content = [read_json(Path(str(sample.source)) / "generation.json") for sample in found]
        return [[[*sample.head().values()] for sample in found], content, self.chosen.size,
                self.chosen.evaluate.model_dump()]

    def _page(self, measured: Measured, curve: Curve | None, reconstruction: pd.DataFrame | None) -> Path:
        """The page and its JSON; written anew every time, since it is cheap."""
        cohort = self.cohort
        warnings = [str(problem) for problem in cohort.warnings]
        warnings += [f"left out: {problem}" for problem in cohort.quarantined]
        warnings += self._edits()
        warnings += [OTHER_MIX.format(name) for name, plan in self.chosen.plans.items() if plan.policy != "match"]
        return write_comparison_page(
            self.folder / "report",
            measured,
            title=self.chosen.name,
            facts=self._facts(),
            curve=curve.points if curve else None,
            curve_change=curve.change if curve else None,
            reconstruction=reconstruction,
            calibrations=calibrations(self.chosen, self.members, self.places),
            settings=self.chosen.model_dump(mode="json"),
            versions={"equigen": equigen.__version__, "python": platform.python_version(),
                      **{name: version(name) for name in LIBRARIES}},
            timings=self._timings(),
            phantom=cohort.phantom,
            warnings=warnings,
        )

    def _timings(self) -> dict[str, float]:
        """Seconds of all jobs of a kind together, and of what this process did."""
        total: dict[str, float] = defaultdict(float)
        for name, kind in self.kinds.items():
            total[f"{kind} (all jobs)"] += self.spent.get(name, 0.0)
        return {**{name: seconds for name, seconds in total.items() if seconds}, **self.stages.seconds}

    def _facts(self) -> dict[str, str]:
        """What stands under the title."""
        chosen, test = self.chosen, self.cohort.split("test", domain="id").frame
        test = test[label_mask(test, chosen.evaluate.only)]
        only = f", {describe_label_filter(chosen.evaluate.only)} alone" if chosen.evaluate.only else ""
        kept = ", as the autoencoder keeps them" if chosen.evaluate.against == "reconstructions" else ""
        seen = {run.images for member, run in self.members.items() if member.name in chosen.mechanisms}
        first = {run.images for member, run in self.members.items() if member.name not in chosen.mechanisms}
        images = " or ".join(f"{count:,}" for count in sorted(seen))
        if first:
            images += f", after {' or '.join(f'{count:,}' for count in sorted(first))} of plain training per seed"
        return {
            "Cohort": f"{self.cohort.name}: {len(self.cohort):,} images of "
            f"{self.cohort.frame['patient'].nunique():,} patients",
            "Measured against": f"{len(test):,} held-out images of {test['patient'].nunique():,} patients{only}{kept}",
            "Mechanisms": ", ".join(chosen.mechanisms),
            "Training seeds": str(len(chosen.seeds)),
            "Images seen in training": images,
            "Synthetic sets": "; ".join(f"{name}: {plan.size:,} images, {plan.policy}"
                                        for name, plan in chosen.plans.items()),
            "Guidance": ", ".join(f"{value:g}" for value in chosen.guidance),
            **base_fact(next(iter(self.members.values()))),
            "Image size": f"{chosen.size} x {chosen.size} pixels",
        }


def run_comparison(
    path: str | Path,
    out: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    show: bool = True,
    *,
    verify: bool = False,
    accept: bool = False,
) -> Path:
    """Run a comparison's YAML to its page, in ``out`` (``runs/<name>`` by default); the path of the page.

    Jobs whose results are there are skipped, interrupted ones go on. ``overrides``: dotted keys to values. Raises
    InputError before any expensive work when settings or cohort have errors, EquigenError when jobs failed.
    ``verify`` and ``accept`` are those of ``run_study``.
    """
    file = Path(path)
    chosen = read_comparison(file, overrides)
    return Comparison(chosen, out or Path("runs") / chosen.name, file.parent, show, str(file), verify, accept).run()

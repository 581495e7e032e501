"""A whole study: cohort, latents, generators, synthetic sets, quality, diagnosis, fairness, report."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

import equigen
from equigen.cohort import Cohort, print_counts
from equigen.cohort.phantom import write_phantom
from equigen.devices import best_device
from equigen.diagnosis import FitSettings, diagnose
from equigen.fairness import audit
from equigen.files import write_parquet
from equigen.latents import encode, load_autoencoder, reconstruction_error
from equigen.progress import console
from equigen.quality import Evaluation
from equigen.report import write_report
from equigen.study.check import at, check_cohort, check_early, generators, used_plans
from equigen.study.pictures import grids
from equigen.study.quality import evaluate_study
from equigen.study.results import for_report, read_tables, write_tables
from equigen.study.settings import StudySettings, read_study
from equigen.study.stages import Stages
from equigen.synthesis import SyntheticSet, generate, plan
from equigen.training import Run, TrainSettings, train

LIBRARIES = ("torch", "diffusers", "accelerate", "botorch", "scikit-learn", "numpy")


class Study:
    """One study in one folder: each method is a stage, and reads what the stages before it wrote."""

    def __init__(
        self,
        settings: StudySettings,
        folder: str | Path,
        base: str | Path,
        show: bool = True,
        source: str = "study",  # the file that errors name
    ) -> None:
        self.settings, self.folder, self.base, self.show = settings, Path(folder), Path(base), show
        self.source = source
        self.stages = Stages(self.folder)
        self.features = self.folder / "features"

    def run(self) -> Path:
        """All stages, in order; the path of the report's page."""
        self.runs = generators(self.settings, self.source)
        check_early(self.settings, self.base, self.source)
        self.coder = load_autoencoder(self._beside(self.settings.autoencoder), best_device())
        with at("size", self.source):
            self.coder.check_size(self.settings.size)
        self.cohort = self._cohort()
        check_cohort(self.settings, self.runs, self.cohort, self.coder, self.source)
        console.print()
        print_counts(self.cohort, console)
        self._encode()
        made = {name: self._train(name, chosen) for name, chosen in self.runs.items()}
        self.sets = {
            (name, plan_name): self._generate(run, plan_name)
            for name, run in made.items()
            for plan_name in used_plans(self.settings)
        }
        measured, predictions = self._evaluate(), self._diagnose()
        fairness = self._audit(predictions)
        return self._report(made, measured, fairness)

    def _beside(self, path: str) -> str | Path:
        """A path of the study file, seen from where that lies; ``shipped`` is a name, not a path."""
        return path if path == "shipped" else self.base / path

    def _cohort(self) -> Cohort:
        """The user's cohort, or a phantom's; checked anew each time, since files may have changed."""
        chosen = self.settings
        if chosen.phantom is not None:
            asked = chosen.phantom
            place = self.stages.run(
                "phantom",
                [equigen.__version__, asked.model_dump()],
                lambda out: write_phantom(out, asked.images, asked.seed, show=self.show),
                results=["metadata.csv", "cohort.yaml"],
            )
            cohort = Cohort.read(place / "cohort.yaml", show_progress=self.show)
        elif isinstance(chosen.cohort, str):
            cohort = Cohort.read(
                self.base / chosen.cohort, quarantine=chosen.quarantine, show_progress=self.show
            )
        else:
            cohort = Cohort.from_spec(
                chosen.cohort or {},
                self.base,
                quarantine=chosen.quarantine,
                show_progress=self.show,
                source=self.source,
            )
        files = ["cohort.parquet", "cohort.json"]
        self.stages.run("cohort", [cohort.hash, str(cohort.root)], cohort.save, files)
        return cohort

    def _encode(self) -> None:
        """Latents of the images that are trained on or steered by, once for all generators."""
        used = self.cohort.split("train", "val", domain="id")

        def work(place: Path) -> None:
            latents = encode(used, self.coder, place, self.settings.size, show=self.show)
            console.print(
                f"  autoencoder: {reconstruction_error(used, latents, self.coder):.1f} dB PSNR on this cohort"
            )

        self.stages.run("latents", [self.cohort.hash, self.coder.hash, self.settings.size], work)

    def _train(self, name: str, chosen: TrainSettings) -> Run:
        """One generator."""
        inputs = [equigen.__version__, self.cohort.hash, self.coder.hash, chosen.model_dump(mode="json")]
        place = self.stages.run(
            f"generators/{name}",
            inputs,
            lambda out: train(
                self.cohort,
                settings=chosen,
                out=out,
                latents=self.folder / "latents",
                autoencoder=self._beside(self.settings.autoencoder),
                show=self.show,
            ),
            results=["training.json"],
        )
        return Run(place, name)

    def _generate(self, run: Run, plan_name: str) -> SyntheticSet:
        """One synthetic set of one generator."""
        asked = self.settings.plans[plan_name]
        rows = plan(self.cohort, **asked.model_dump())
        pipeline = run.pipeline()
        place = self.stages.run(
            f"synthetic/{run.name}-{plan_name}",
            [pipeline.hash, asked.model_dump(), self.cohort.hash],
            lambda out: generate(pipeline, rows, out, show=self.show),
            results=["synthetic.parquet"],
        )
        return SyntheticSet(place)

    def _evaluate(self) -> Evaluation:
        """quality.parquet, comparison.parquet, copies.parquet: every generator and the autoencoder's reconstruction."""
        asked = self.settings.evaluate
        sets = {name: made for (name, plan_name), made in self.sets.items() if plan_name == asked.plan}

        def work(place: Path) -> None:
            folders = {name: made.folder for name, made in sets.items()}
            size, features = self.settings.size, self.features
            write_tables(evaluate_study(self.cohort, folders, self.coder, asked, size, features, self.show), place)

        made_by = [[name, _made_by(made)] for name, made in sets.items()]
        inputs = [equigen.__version__, self.cohort.hash, made_by, self.coder.hash, asked.model_dump()]
        return read_tables(self.stages.run("quality", inputs, work, ["quality.parquet"]))

    def _diagnose(self) -> pd.DataFrame:
        """predictions.parquet: real only, and real with each generator's images."""
        asked = self.settings.diagnose
        sets = {name: made for (name, plan_name), made in self.sets.items() if plan_name == asked.plan}
        fit = FitSettings(images=asked.images, width=asked.width, class_balanced=asked.class_balanced)
        made_by = [[name, _made_by(made)] for name, made in sets.items()]
        inputs = [equigen.__version__, self.cohort.hash, made_by, asked.model_dump(), self.settings.size]
        place = self.stages.run(
            "diagnosis",
            inputs,
            lambda out: diagnose(
                self.cohort,
                {name: made.folder for name, made in sets.items()},
                label=asked.label,
                ratios=asked.ratios,
                size=self.settings.size,
                settings=fit,
                out=out,
                show=self.show,
            ),
            results=["predictions.parquet"],
        )
        return pd.read_parquet(place / "predictions.parquet")

    def _audit(self, predictions: pd.DataFrame) -> pd.DataFrame:
        """fairness.parquet."""
        asked = self.settings.audit
        groups = list(self.cohort.attributes) if asked.groups is None else asked.groups

        def work(place: Path) -> None:
            made = audit(predictions, groups, replicates=asked.replicates, permutations=asked.permutations)
            write_parquet(place / "fairness.parquet", made)

        content = int(pd.util.hash_pandas_object(predictions).sum())
        inputs = [equigen.__version__, content, asked.model_dump()]
        place = self.stages.run("fairness", inputs, work, ["fairness.parquet"])
        return pd.read_parquet(place / "fairness.parquet")

    def _report(self, made: Mapping[str, Run], measured: Evaluation, fairness: pd.DataFrame) -> Path:
        """The page, its JSON and the cards; written anew every time, since it is cheap."""
        shown = {name: self.sets[name, self.settings.evaluate.plan].frame for name in made}
        cohort, versions = self.cohort, {name: version(name) for name in LIBRARIES}
        warnings = [str(problem) for problem in cohort.warnings] + [
            f"left out: {problem}" for problem in cohort.quarantined
        ]
        return write_report(
            self.folder / "report",
            title=self.settings.name,
            summary_facts=self._facts(),
            counts=cohort.counts(),
            **for_report(measured, self.settings.size),
            fairness=fairness,
            history={name: pd.read_parquet(run.folder / "history.parquet") for name, run in made.items()},
            grids=grids(cohort.split("test", domain="id"), shown, self.settings.size),
            settings=self.settings.model_dump(mode="json"),
            phantom=cohort.phantom,
            warnings=warnings,
            timings=self.stages.seconds,
            versions={"equigen": equigen.__version__, "python": platform.python_version(), **versions},
        )

    def _facts(self) -> dict[str, str]:
        """What stands under the title."""
        frame, seeds = self.cohort.frame, len(self.settings.seeds)
        domains = frame["domain"].value_counts()
        return {
            "Cohort": f"{self.cohort.name}: {len(frame):,} images of {frame['patient'].nunique():,} patients",
            "Out of distribution": f"{int(domains.get('ood', 0)):,} images",
            "Generators": ", ".join(self.settings.mechanisms)
            + f" ({seeds} training seed{'s' if seeds > 1 else ''})",
            "Images seen in training": f"{next(iter(self.runs.values())).images:,} each",
            "Image size": f"{self.settings.size} x {self.settings.size} pixels",
        }


def _made_by(made: SyntheticSet) -> str:
    """What a synthetic set's content depends on."""
    return (made.folder / "generation.json").read_text()


def run_study(
    path: str | Path,
    out: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    show: bool = True,
) -> Path:
    """Run study.yaml to its report, in ``out`` (``runs/<name>`` by default); the path of the report's page.

    Stages whose inputs have not changed are skipped, one that was interrupted goes on. ``overrides``: dotted keys to
    values. Raises InputError before any expensive work when settings or cohort have errors.
    """
    file = Path(path)
    settings = read_study(file, overrides)
    return Study(settings, out or Path("runs") / settings.name, file.parent, show, str(file)).run()

"""A whole study: cohort, latents, generators, synthetic sets, quality, diagnosis, fairness, report."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

import equigen
from equigen.cohort import Cohort, carry_trained_on, print_counts, write_phantom
from equigen.devices import best_device
from equigen.diagnosis import FitSettings, diagnose
from equigen.diffusion import Generator
from equigen.errors import InputError, Problem
from equigen.fairness import audit
from equigen.files import read_json, read_parquet, write_parquet
from equigen.integrity import remove_temporary_files
from equigen.latents import LatentStore, encode, encode_store, reconstruction_error, store_error
from equigen.locks import lock_folder
from equigen.progress import console
from equigen.quality import Evaluation, describe_label_filter
from equigen.report import Grid, write_report
from equigen.study.checks import check_cohort, check_early, check_sets, generators, used_plans
from equigen.study.evaluation_results import for_report, read_tables, write_tables
from equigen.study.image_grids import grids
from equigen.study.judges import Judges, columns_of, validation_images
from equigen.study.pairs import beside_report, pairs_stage
from equigen.study.quality import evaluate_study
from equigen.study.screening import accepted, clear_screened, is_screened, made_by, screen_set, unscreen
from equigen.study.settings import StudySettings, read_study
from equigen.study.stages import DamageError, Stages
from equigen.study.starting_points import base_fact, coder_place, open_coder, request
from equigen.synthesis import SyntheticSet, generate, plan
from equigen.training import Run, TrainSettings, train
from equigen.training.run import train_again

ROUNDS = 5  # times that stages are gone through to mend damage
LIBRARIES = ("torch", "diffusers", "transformers", "accelerate", "peft", "botorch", "scikit-learn", "numpy")


class Study:
    """One study in one folder: each method is a stage, and reads what the stages before it wrote."""

    def __init__(
        self,
        settings: StudySettings,
        folder: str | Path,
        base: str | Path,
        show: bool = True,
        source: str = "study",  # the file that errors name
        verify: bool = False,   # hash every file of every finished stage
        accept: bool = False,   # take files that were edited as they are
    ) -> None:
        self.settings, self.folder, self.base, self.show = settings, Path(folder), Path(base), show
        self.source = source
        self.stages = Stages(self.folder, verify, accept)
        self.features = self.folder / "features"

    def run(self) -> Path:
        """All stages, in order; the path of the report's page.

        Raises InputError before any work where another process is at work in the folder.
        """
        with lock_folder(self.folder):
            orphans = remove_temporary_files(self.folder)
            if orphans:
                console.print(f"{len(orphans)} half-written files of a process that was ended are removed")
            for _ in range(ROUNDS):
                try:
                    return self._all()
                except DamageError:
                    console.print("[yellow]Going through the stages again, to make what is damaged.[/yellow]")
        problem = Problem("files are damaged again as soon as they are made", "check the disk", file=str(self.folder))
        raise InputError("The run folder cannot be kept whole.", [problem])

    def _all(self) -> Path:
        """All stages, in order; DamageError where they have to be gone through again."""
        self.runs = generators(self.settings, self.base, self.source)
        check_early(self.settings, self.base, self.source)
        self.training = next(iter(self.runs.values()))  # they differ in mechanism and seed alone
        self.coder = open_coder(self.settings.autoencoder, self.base, self.training, best_device(), self.source)
        self.cohort = self._cohort()
        check_cohort(self.runs, self.cohort, dict.fromkeys(self.runs, self.coder), self.source)
        self.starts = check_sets(self.settings, self.runs, self.cohort, self.coder, self.source)
        console.print()
        print_counts(self.cohort, console)
        self._encode()
        made = {name: self._train(name, chosen) for name, chosen in self.runs.items()}
        self.judges = Judges(self.cohort, self.settings.size, self.features, self.show)
        self.sets = {(name, plan_name): own for name, run in made.items() for plan_name, own in self._sets(run).items()}
        pages = {name: self._pairs(name) for name in made if self.settings.pairs is not None}
        measured, predictions = self._evaluate(), self._diagnose()
        fairness = self._audit(predictions)
        return self._report(made, measured, fairness, pages)

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
        used, size = self.cohort.split("train", "val", domain="id"), self.settings.size

        def work(place: Path) -> None:
            if self.training.store == "disk":
                error = store_error(used, LatentStore(encode_store(used, self.coder, place, size, show=self.show)),
                                    self.coder)  # fmt: skip
            else:
                error = reconstruction_error(used, encode(used, self.coder, place, size, show=self.show), self.coder)
            console.print(f"  autoencoder: {error:.1f} dB PSNR on this cohort")

        stored = ["disk"] if self.training.store == "disk" else []
        self.stages.run("latents", [self.cohort.hash, self.coder.hash, size, *stored], work)

    def _train(self, name: str, chosen: TrainSettings) -> Run:
        """One generator. What it starts from counts by its weights, not by where it lies."""
        values = chosen.model_dump(mode="json")
        if name in self.starts:
            values["base"] = self.starts[name]
        inputs = [equigen.__version__, self.cohort.hash, self.coder.hash, values]
        place = self.stages.run(
            f"generators/{name}",
            inputs,
            lambda out: train(
                self.cohort,
                settings=chosen,
                out=out,
                latents=self.folder / "latents",
                autoencoder=coder_place(self.settings.autoencoder, self.base, chosen),
                show=self.show,
            ),
            results=["training.json"],
            damaged=train_again,
        )
        return Run(place, name)

    def _sets(self, run: Run) -> dict[str, SyntheticSet]:
        """The synthetic sets of one generator by plan, screened where that is asked for; it is opened if it must be."""
        opened: list[Generator] = []

        def pipeline() -> Generator:
            if not opened:
                opened.append(run.pipeline())
            return opened[0]

        made = {name: self._generate(run, name, pipeline) for name in used_plans(self.settings)}
        for name, own in made.items():
            self._screen(name, own, pipeline)
        return made

    def _generate(self, run: Run, plan_name: str, pipeline: Callable[[], Generator]) -> SyntheticSet:
        """One synthetic set of one generator."""
        asked = request(self.settings.plans[plan_name], self.cohort, self.training)

        def work(out: Path) -> None:
            generate(pipeline(), plan(self.cohort, **asked), out, show=self.show)
            carry_trained_on(run.folder, out)

        place = self.stages.run(
            f"synthetic/{run.name}-{plan_name}",
            [read_json(run.folder / "training.json")["generator"], asked, self.cohort.hash],
            work,
            results=["synthetic.parquet"],
            damaged=lambda out, harmed: clear_screened(self.folder, out, harmed),
        )
        return SyntheticSet(place)

    def _screen(self, plan_name: str, made: SyntheticSet, pipeline: Callable[[], Generator]) -> None:
        """Verdicts on one set; counterfactual pairs have none."""
        asked = self.settings.screen
        if asked is None or self.settings.plans[plan_name].policy == "counterfactual":
            unscreen(self.stages, made)
            return
        encoder, columns = asked.encoder or self.settings.evaluate.encoder, columns_of(asked.fields, self.cohort)
        screen_set(
            self.stages, made, asked, encoder, validation_images(self.cohort), generator=pipeline, show=self.show,
            judge=lambda: self.judges.judge(encoder, columns, asked.min_patients),
        )  # fmt: skip

    def _pairs(self, name: str) -> Path:
        """The folder of the page of one generator's counterfactual pairs."""
        asked, encoder = self.settings.pairs, self.settings.evaluate.encoder
        assert asked is not None
        return pairs_stage(
            self.stages, name, self.sets[name, asked.plan], asked, encoder, validation_images(self.cohort),
            judge=lambda: self.judges.judge(encoder, None, asked.min_patients), cache=self.features,
            versions=self._versions(), show=self.show,
        )  # fmt: skip

    def _evaluate(self) -> Evaluation:
        """quality.parquet, comparison.parquet, copies.parquet: every generator and the autoencoder's reconstruction."""
        asked = self.settings.evaluate
        sets = {name: made for (name, plan_name), made in self.sets.items() if plan_name == asked.plan}

        def work(place: Path) -> None:
            folders = {name: made.folder for name, made in sets.items()}
            size, features = self.settings.size, self.features
            write_tables(evaluate_study(self.cohort, folders, self.coder, asked, size, features, self.show), place)

        content = [[name, made_by(made)] for name, made in sets.items()]
        inputs = [equigen.__version__, self.cohort.hash, content, self.coder.hash, asked.model_dump()]
        return read_tables(self.stages.run("quality", inputs, work, ["quality.parquet"]))

    def _diagnose(self) -> pd.DataFrame:
        """predictions.parquet: real only, and real with each generator's images."""
        asked = self.settings.diagnose
        sets = {name: made for (name, plan_name), made in self.sets.items() if plan_name == asked.plan}
        fit = FitSettings(images=asked.images, width=asked.width, class_balanced=asked.class_balanced)
        content = [[name, made_by(made)] for name, made in sets.items()]
        inputs = [equigen.__version__, self.cohort.hash, content, asked.model_dump(), self.settings.size]
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
        return read_parquet(place / "predictions.parquet")

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
        return read_parquet(place / "fairness.parquet")

    def _report(
        self, made: Mapping[str, Run], measured: Evaluation, fairness: pd.DataFrame, pages: Mapping[str, Path]
    ) -> Path:
        """The page, its JSON and the cards; written anew every time, since it is cheap."""
        shown = {name: accepted(self.sets[name, self.settings.evaluate.plan]) for name in made}
        cohort = self.cohort
        warnings = [str(problem) for problem in cohort.warnings] + [
            f"left out: {problem}" for problem in cohort.quarantined
        ] + self._edits()
        return write_report(
            self.folder / "report",
            title=self.settings.name,
            summary_facts=self._facts(),
            counts=cohort.counts(),
            **for_report(measured, self.settings.size),
            fairness=fairness,
            history={name: read_parquet(run.folder / "history.parquet") for name, run in made.items()},
            grids=self._grids(shown),
            settings=self.settings.model_dump(mode="json"),
            phantom=cohort.phantom,
            warnings=warnings,
            timings=self.stages.seconds,
            versions=self._versions(),
            screening={f"{name}, {plan_name}": read_parquet(own.folder / "screening.parquet")
                       for (name, plan_name), own in self.sets.items() if is_screened(own)},
            pages=beside_report(pages, self.folder / "report"),
            blind=self.settings.report.blind,
            names=self.settings.report.names,
        )  # fmt: skip

    def _grids(self, shown: Mapping[str, pd.DataFrame]) -> list[Grid]:
        """Real and generated images of each group; where one cannot be read, all files are hashed to find the cause."""
        try:
            return grids(self.cohort.split("test", domain="id"), shown, self.settings.size)
        except (InputError, OSError):
            self.stages.settle()
            raise

    def _edits(self) -> list[str]:
        """What the report says of files that were edited and accepted."""
        return [f"edited by hand after it was written, and accepted: {name}" for name in self.stages.accepted]

    def _versions(self) -> dict[str, str]:
        libraries = {name: version(name) for name in LIBRARIES}
        return {"equigen": equigen.__version__, "python": platform.python_version(), **libraries}

    def _facts(self) -> dict[str, str]:
        """What stands under the title."""
        frame, seeds, only = self.cohort.frame, len(self.settings.seeds), self.settings.evaluate.only
        domains = frame["domain"].value_counts()
        return {
            "Cohort": f"{self.cohort.name}: {len(frame):,} images of {frame['patient'].nunique():,} patients",
            "Out of distribution": f"{int(domains.get('ood', 0)):,} images",
            "Generators": ", ".join(self.settings.mechanisms)
            + f" ({seeds} training seed{'s' if seeds > 1 else ''})",
            "Images seen in training": f"{self.training.images:,} each",
            **base_fact(self.training),
            "Image size": f"{self.settings.size} x {self.settings.size} pixels",
            **({"Image quality is of": f"{describe_label_filter(only)} alone"} if only else {}),
        }


def run_study(
    path: str | Path,
    out: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    show: bool = True,
    *,
    verify: bool = False,
    accept: bool = False,
) -> Path:
    """Run study.yaml to its report, in ``out`` (``runs/<name>`` by default); the path of the report's page.

    Stages whose inputs have not changed are skipped, one that was interrupted goes on. ``overrides``: dotted keys to
    values. ``verify``: hash every file of every finished stage, not only of what is used. ``accept``: take files that
    were edited after their stage ended as they are; the report says so. Raises InputError before any expensive work
    when settings or cohort have errors, when files were edited, or when another process is at work in the folder.
    """
    file = Path(path)
    settings = read_study(file, overrides)
    return Study(settings, out or Path("runs") / settings.name, file.parent, show, str(file), verify, accept).run()

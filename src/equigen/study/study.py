"""A whole study: cohort, latents, generators, synthetic sets, quality, diagnosis, fairness, report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd

import equigen
from equigen.cohort import Cohort, carry_trained_on, count_text, print_counts
from equigen.devices import best_device
from equigen.diagnosis import FitSettings, diagnose
from equigen.diffusion import Generator
from equigen.errors import InputError
from equigen.fairness import AuditSettings, audit
from equigen.files import read_json
from equigen.latents import Autoencoder, LatentStore, encode, encode_store, reconstruction_error, store_error
from equigen.parquet import read_parquet, write_parquet
from equigen.progress import console
from equigen.quality import Evaluation, describe_label_filter
from equigen.report import write_report
from equigen.study.checks import check_before_images, check_cohort, check_sets, generator_settings, required_plans
from equigen.study.counterfactual_pairs import copy_pages, pairs_stage
from equigen.study.evaluation_results import image_grids, read_tables, report_tables, write_tables
from equigen.study.judges import Judges, columns_of, validation_images
from equigen.study.mechanisms import mechanism_facts
from equigen.study.quality import evaluate_study
from equigen.study.screening import (
    accepted_rows,
    clear_screening,
    is_screened,
    remove_screening,
    screen_set,
    set_version,
)
from equigen.study.settings import StudySettings
from equigen.study.starting_points import autoencoder_source, base_fact, open_autoencoder, plan_arguments
from equigen.study.workspace import Workspace, versions
from equigen.synthesis import SyntheticSet, generate, plan
from equigen.training import Run, TrainSettings, train, train_again

Sets = Mapping[tuple[str, str], SyntheticSet]  # by generator and plan


class Study:
    """A study whose settings and cohort are checked. Each method is a stage, and reads what earlier stages wrote.

    ``runs``: settings of every generator, which differ in mechanism and seed alone. ``starts``: for each generator with
    prompts a hash of the pipeline that it starts from.
    """

    def __init__(
        self,
        settings: StudySettings,
        workspace: Workspace,
        runs: Mapping[str, TrainSettings],
        cohort: Cohort,
        coder: Autoencoder,
        starts: Mapping[str, str],
    ) -> None:
        self.settings, self.workspace, self.stages = settings, workspace, workspace.stages
        self.runs, self.cohort, self.coder, self.starts = runs, cohort, coder, starts
        self.training = next(iter(runs.values()))
        self.judges = Judges(cohort, settings.size, workspace.features, workspace.show)

    @classmethod
    def open(cls, settings: StudySettings, workspace: Workspace) -> Study:
        """Open the cohort and the autoencoder, and check all settings. Raises InputError before any expensive work."""
        base, source = workspace.base, workspace.source
        runs = generator_settings(settings, base, source)
        check_before_images(settings, base, source)
        coder = open_autoencoder(settings.autoencoder, base, next(iter(runs.values())), best_device(), source)
        cohort = workspace.open_cohort(settings)
        check_cohort(runs, cohort, dict.fromkeys(runs, coder), source)
        starts = check_sets(settings, runs, cohort, coder, source)
        return cls(settings, workspace, runs, cohort, coder, starts)

    def run(self) -> Path:
        """Run all stages; return the path of the report's page.

        Raises DamageError where a finished stage is damaged, so that the stages have to be run again.
        """
        console.print()
        print_counts(self.cohort, console)
        self.encode()
        generators = {name: self.train(name, settings) for name, settings in self.runs.items()}
        sets = {
            (name, plan_name): synthetic
            for name, run in generators.items()
            for plan_name, synthetic in self.sample(run).items()
        }
        pages = {name: self.measure_pairs(name, sets) for name in generators if self.settings.pairs is not None}
        evaluation, predictions = self.evaluate(sets), self.diagnose(sets)
        fairness = self.audit(predictions)
        return self.write_report(generators, sets, evaluation, fairness, pages)

    def encode(self) -> None:
        """Encode the training and validation images, once for all generators."""
        images, size = self.cohort.split("train", "val", domain="id"), self.settings.size
        disk, show = self.training.store == "disk", self.workspace.show

        def work(out: Path) -> None:
            if disk:
                store = LatentStore(encode_store(images, self.coder, out, size, show=show))
                error = store_error(images, store, self.coder)
            else:
                error = reconstruction_error(images, encode(images, self.coder, out, size, show=show), self.coder)
            console.print(f"  autoencoder: {error:.1f} dB PSNR on this cohort")

        self.stages.run("latents", [self.cohort.hash, self.coder.hash, size, *(["disk"] if disk else [])], work)

    def train(self, name: str, settings: TrainSettings) -> Run:
        """Train one generator. Its base is identified by a hash of its weights, not by its path."""
        values = settings.key_values()
        if name in self.starts:
            values["base"] = self.starts[name]
        inputs = [equigen.__version__, self.cohort.hash, self.coder.hash, values]
        folder = self.stages.run(
            f"generators/{name}",
            inputs,
            lambda out: train(
                self.cohort,
                settings=settings,
                out=out,
                latents=self.workspace.folder / "latents",
                autoencoder=autoencoder_source(self.settings.autoencoder, self.workspace.base, settings),
                show=self.workspace.show,
            ),
            results=["training.json"],
            damaged=train_again,
        )
        return Run(folder, name)

    def sample(self, run: Run) -> dict[str, SyntheticSet]:
        """Return the synthetic sets of one generator by plan, screened if the settings say so.

        The generator is opened at the first set that is not finished.
        """
        pipelines: list[Generator] = []

        def pipeline() -> Generator:
            if not pipelines:
                pipelines.append(run.pipeline())
            return pipelines[0]

        sets = {name: self.generate(run, name, pipeline) for name in required_plans(self.settings)}
        for name, synthetic in sets.items():
            self.screen(name, synthetic, pipeline)
        return sets

    def generate(self, run: Run, plan_name: str, pipeline: Callable[[], Generator]) -> SyntheticSet:
        """Make one synthetic set of one generator."""
        arguments = plan_arguments(self.settings.plans[plan_name], self.cohort, self.training)

        def work(out: Path) -> None:
            generate(pipeline(), plan(self.cohort, **arguments), out, show=self.workspace.show)
            carry_trained_on(run.folder, out)

        folder = self.stages.run(
            f"synthetic/{run.name}-{plan_name}",
            [read_json(run.folder / "training.json")["generator"], arguments, self.cohort.hash],
            work,
            results=["synthetic.parquet"],
            damaged=lambda out, damaged: clear_screening(self.workspace.folder, out, damaged),
        )
        return SyntheticSet(folder)

    def screen(self, plan_name: str, synthetic: SyntheticSet, pipeline: Callable[[], Generator]) -> None:
        """Screen one set, or remove its verdicts; counterfactual pairs are not screened."""
        settings = self.settings.screen
        if settings is None or self.settings.plans[plan_name].policy == "counterfactual":
            remove_screening(self.stages, synthetic)
            return
        encoder = settings.encoder or self.settings.evaluate.encoder
        columns = columns_of(settings.fields, self.cohort)
        screen_set(
            self.stages, synthetic, settings, encoder, validation_images(self.cohort), generator=pipeline,
            judge=lambda: self.judges.judge(encoder, columns, settings.min_patients), show=self.workspace.show,
        )  # fmt: skip

    def measure_pairs(self, name: str, sets: Sets) -> Path:
        """Measure the counterfactual pairs of one generator; return the folder of their page."""
        settings, encoder = self.settings.pairs, self.settings.evaluate.encoder
        assert settings is not None
        return pairs_stage(
            self.stages, name, sets[name, settings.plan], settings, encoder, validation_images(self.cohort),
            judge=lambda: self.judges.judge(encoder, None, settings.min_patients), cache=self.workspace.features,
            versions=versions(), show=self.workspace.show,
        )  # fmt: skip

    def evaluate(self, sets: Sets) -> Evaluation:
        """Measure the quality of every generator and of the autoencoder's reconstruction."""
        settings, size, features = self.settings.evaluate, self.settings.size, self.workspace.features
        measured = {name: synthetic for (name, plan_name), synthetic in sets.items() if plan_name == settings.plan}
        folders = {name: synthetic.folder for name, synthetic in measured.items()}

        def work(out: Path) -> None:
            show = self.workspace.show
            write_tables(evaluate_study(self.cohort, folders, self.coder, settings, size, features, show), out)

        content = [[name, set_version(synthetic)] for name, synthetic in measured.items()]
        inputs = [equigen.__version__, self.cohort.hash, content, self.coder.hash, settings.model_dump()]
        return read_tables(self.stages.run("quality", inputs, work, ["quality.parquet"]))

    def diagnose(self, sets: Sets) -> pd.DataFrame:
        """Train classifiers on real images, and on real and each generator's images; return their predictions."""
        settings = self.settings.diagnose
        mixed = {name: synthetic for (name, plan_name), synthetic in sets.items() if plan_name == settings.plan}
        fit = FitSettings(images=settings.images, width=settings.width, class_balanced=settings.class_balanced)
        content = [[name, set_version(synthetic)] for name, synthetic in mixed.items()]
        inputs = [equigen.__version__, self.cohort.hash, content, settings.model_dump(), self.settings.size]
        folder = self.stages.run(
            "diagnosis",
            inputs,
            lambda out: diagnose(
                self.cohort,
                {name: synthetic.folder for name, synthetic in mixed.items()},
                label=settings.label,
                ratios=settings.ratios,
                size=self.settings.size,
                settings=fit,
                out=out,
                show=self.workspace.show,
            ),
            results=["predictions.parquet"],
        )
        return read_parquet(folder / "predictions.parquet")

    def audit(self, predictions: pd.DataFrame) -> pd.DataFrame:
        """Audit the predictions; return the table of fairness."""
        settings = self.settings.audit
        groups = list(self.cohort.attributes) if settings.groups is None else settings.groups

        def work(out: Path) -> None:
            table = audit(predictions, groups, settings=AuditSettings(**settings.model_dump())).table
            write_parquet(out / "fairness.parquet", table)

        content = int(pd.util.hash_pandas_object(predictions).sum())
        inputs = [equigen.__version__, content, settings.model_dump()]
        folder = self.stages.run("fairness", inputs, work, ["fairness.parquet"])
        return read_parquet(folder / "fairness.parquet")

    def write_report(
        self,
        generators: Mapping[str, Run],
        sets: Sets,
        evaluation: Evaluation,
        fairness: pd.DataFrame,
        pages: Mapping[str, Path],
    ) -> Path:
        """Write the page, its JSON and the cards, at every run since this is cheap; return the path of the page."""
        cohort, settings, report = self.cohort, self.settings, self.workspace.folder / "report"
        generated = {name: accepted_rows(sets[name, settings.evaluate.plan]) for name in generators}
        try:
            grids = image_grids(cohort.split("test", domain="id"), generated, settings.size)
        except (InputError, OSError):
            self.stages.check_files()  # an image that cannot be read may be one of a damaged stage
            raise
        return write_report(
            report,
            title=settings.name,
            summary_facts=self.facts(),
            counts=cohort.counts(),
            **report_tables(evaluation, settings.size),
            fairness=fairness,
            history={name: read_parquet(run.folder / "history.parquet") for name, run in generators.items()},
            grids=grids,
            settings=settings.model_dump(mode="json"),
            phantom=cohort.phantom,
            warnings=self.workspace.warnings(cohort),
            timings=self.stages.seconds,
            versions=versions(),
            screening={f"{name}, {plan_name}": read_parquet(synthetic.folder / "screening.parquet")
                       for (name, plan_name), synthetic in sets.items() if is_screened(synthetic)},
            pages=copy_pages(pages, report),
            blind=settings.report.blind,
            names=settings.report.names,
        )  # fmt: skip

    def facts(self) -> dict[str, str]:
        """Return the entries under the title of the report."""
        frame, seeds, only = self.cohort.frame, len(self.settings.seeds), self.settings.evaluate.only
        domains = frame["domain"].value_counts()
        return {
            "Cohort": f"{self.cohort.name}: {count_text(frame)}",
            "Out of distribution": f"{int(domains.get('ood', 0)):,} images",
            "Generators": ", ".join(self.settings.mechanisms) + f" ({seeds} training seed{'s' if seeds > 1 else ''})",
            "Images seen in training": f"{self.training.images:,} each",
            **base_fact(self.training),
            **mechanism_facts({name.removesuffix(f"-seed{run.seed}"): run for name, run in self.runs.items()}),
            "Image size": f"{self.settings.size} x {self.settings.size} pixels",
            **({"Image quality is of": f"{describe_label_filter(only)} alone"} if only else {}),
        }

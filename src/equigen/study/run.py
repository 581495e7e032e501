"""A whole study: cohort, latents, generators, synthetic sets, quality, diagnosis, fairness, report."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import equigen
from equigen.cohort import Cohort, load_images, print_counts
from equigen.cohort.phantom import Oracle, write_phantom
from equigen.diagnosis import FitSettings, diagnose
from equigen.errors import InputError, Problem
from equigen.fairness import audit
from equigen.files import write_parquet
from equigen.latents import Autoencoder, encode, load_autoencoder, reconstruction_error
from equigen.progress import console
from equigen.quality import ImageSet, evaluate, oracle_correctness
from equigen.report import write_report
from equigen.study.pictures import grids
from equigen.study.settings import StudySettings, check_keys, read_study
from equigen.study.stages import Stages
from equigen.synthesis import SyntheticSet, generate, plan
from equigen.training import Run, TrainSettings, check_settings, train

LIBRARIES = ("torch", "diffusers", "accelerate", "botorch", "scikit-learn", "numpy")


class Study:
    """One study in one folder: each method is a stage, and reads what the stages before it wrote."""

    def __init__(
        self, settings: StudySettings, folder: str | Path, base: str | Path, show: bool = True
    ) -> None:
        self.settings, self.folder, self.base, self.show = settings, Path(folder), Path(base), show
        self.stages = Stages(self.folder)
        self.features = self.folder / "features"

    def run(self) -> Path:
        """All stages, in order; the path of the report's page."""
        self.cohort = self._cohort()
        self.coder = load_autoencoder(self._beside(self.settings.autoencoder))
        self.runs = self._check_runs()
        console.print()
        print_counts(self.cohort, console)
        self._encode()
        made = {name: self._train(name, chosen) for name, chosen in self.runs.items()}
        self.sets = {
            (name, plan_name): self._generate(run, plan_name)
            for name, run in made.items()
            for plan_name in self._plans()
        }
        quality, predictions = self._evaluate(), self._diagnose()
        fairness = self._audit(predictions)
        return self._report(made, quality, fairness)

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
                lambda out: write_phantom(out, asked.images, asked.seed),
            )
            cohort = Cohort.read(place / "cohort.yaml", show_progress=self.show)
        elif isinstance(chosen.cohort, str):
            cohort = Cohort.read(
                self.base / chosen.cohort, quarantine=chosen.quarantine, show_progress=self.show
            )
        else:
            cohort = Cohort.from_spec(
                chosen.cohort or {}, self.base, quarantine=chosen.quarantine, show_progress=self.show
            )
        self.stages.run("cohort", [cohort.hash, str(cohort.root)], cohort.save)
        return cohort

    def _check_runs(self) -> dict[str, TrainSettings]:
        """Settings of every generator, by its name; all checked before the first is trained."""
        runs = {}
        for mechanism, own in self.settings.mechanisms.items():
            for seed in self.settings.seeds:
                name = mechanism if len(self.settings.seeds) == 1 else f"{mechanism}-seed{seed}"
                rule = str(own.get("mechanism", mechanism))
                rest = {key: value for key, value in own.items() if key != "mechanism"}
                values = {
                    **self.settings.train,
                    "size": self.settings.size,
                    "mechanism": rule,
                    "mechanism_settings": rest,
                    "seed": seed,
                }
                runs[name] = check_keys(TrainSettings, values, "train", "The training settings have errors.")
                check_settings(runs[name], self.cohort, self.coder)
        if not runs:
            raise InputError(
                "There is nothing to train.",
                [Problem("'mechanisms' is empty", "name at least one, such as none")],
            )
        self._check_labels()
        return runs

    def _check_labels(self) -> None:
        """Names that later stages will ask for."""
        label, problems = self.settings.diagnose.label, []
        if label is not None and label not in self.cohort.labels:
            problems.append(
                Problem(
                    f"diagnose.label '{label}' is not a label of the cohort",
                    f"use one of {', '.join(self.cohort.labels)}",
                )
            )
        for stage in ("evaluate", "audit"):
            asked = getattr(self.settings, stage).groups or []
            problems += [
                Problem(
                    f"{stage}.groups: '{name}' is not an attribute of the cohort",
                    f"use some of {', '.join(self.cohort.attributes)}",
                )
                for name in asked
                if name not in self.cohort.attributes
            ]
        if problems:
            raise InputError("The study's settings do not fit the cohort.", problems)

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
        )
        return Run(place, name)

    def _plans(self) -> list[str]:
        """The plans that a later stage reads."""
        return list(dict.fromkeys([self.settings.evaluate.plan, self.settings.diagnose.plan]))

    def _generate(self, run: Run, plan_name: str) -> SyntheticSet:
        """One synthetic set of one generator."""
        asked = self.settings.plans[plan_name]
        rows = plan(self.cohort, **asked.model_dump())
        pipeline = run.pipeline()
        place = self.stages.run(
            f"synthetic/{run.name}-{plan_name}",
            [pipeline.hash, asked.model_dump(), self.cohort.hash],
            lambda out: generate(pipeline, rows, out, show=self.show),
        )
        return SyntheticSet(place)

    def _evaluate(self) -> pd.DataFrame:
        """quality.parquet: every generator, the autoencoder's reconstruction, and for phantoms the oracle."""
        asked = self.settings.evaluate
        held_out = self.cohort.split("test", domain="id")
        sets = {name: made for (name, plan_name), made in self.sets.items() if plan_name == asked.plan}
        common: dict[str, Any] = {
            "encoder": asked.encoder,
            "matched_n": asked.matched_n,
            "replicates": asked.replicates,
            "limit": asked.limit,
            "size": self.settings.size,
            "cache_dir": self.features,
            "show": self.show,
        }

        def work(place: Path) -> None:
            parts = [
                evaluate(held_out, made.folder, asked.groups, run=name, **common)
                for name, made in sets.items()
            ]
            pixels = load_images(list(held_out.frame["path"]), self.settings.size)
            decoded = ImageSet(
                held_out.frame,
                reconstructed(self.coder, pixels),
                {name: list(spec.levels) for name, spec in self.cohort.attributes.items()},
            )
            parts.append(evaluate(held_out, decoded, asked.groups, run="reconstruction", **common))
            if self.cohort.phantom:
                parts += self._oracle(held_out, pixels, decoded, sets)
            write_parquet(
                place / "quality.parquet", pd.concat([part for part in parts if len(part)], ignore_index=True)
            )

        inputs = [
            equigen.__version__,
            self.cohort.hash,
            [[name, _made_by(made)] for name, made in sets.items()],
            self.coder.hash,
            asked.model_dump(),
        ]
        return pd.read_parquet(self.stages.run("quality", inputs, work) / "quality.parquet")

    def _oracle(
        self, held_out: Cohort, pixels: Any, decoded: ImageSet, sets: Mapping[str, SyntheticSet]
    ) -> list[pd.DataFrame]:
        """Does the image show what was asked for? Real and reconstructed images are the ceiling."""
        levels = {name: list(spec.levels) for name, spec in self.cohort.attributes.items()}
        common: dict[str, Any] = {"levels": levels, "show": self.show}
        parts = [oracle_correctness(pixels, held_out.frame, Oracle(), run="real", **common)]
        parts.append(
            oracle_correctness(decoded.pixels, held_out.frame, Oracle(), run="reconstruction", **common)
        )  # type: ignore[arg-type]
        for name, made in sets.items():
            frame = made.frame
            parts.append(
                oracle_correctness(
                    load_images(list(frame["path"]), self.settings.size), frame, Oracle(), run=name, **common
                )
            )
        return parts

    def _diagnose(self) -> pd.DataFrame:
        """predictions.parquet: real only, and real with each generator's images."""
        asked = self.settings.diagnose
        sets = {name: made for (name, plan_name), made in self.sets.items() if plan_name == asked.plan}
        fit = FitSettings(images=asked.images, width=asked.width, class_balanced=asked.class_balanced)
        inputs = [
            equigen.__version__,
            self.cohort.hash,
            [[name, _made_by(made)] for name, made in sets.items()],
            asked.model_dump(),
            self.settings.size,
        ]
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
        )
        return pd.read_parquet(place / "predictions.parquet")

    def _audit(self, predictions: pd.DataFrame) -> pd.DataFrame:
        """fairness.parquet."""
        asked = self.settings.audit

        def work(place: Path) -> None:
            made = audit(
                predictions, asked.groups, replicates=asked.replicates, permutations=asked.permutations
            )
            write_parquet(place / "fairness.parquet", made)

        content = int(pd.util.hash_pandas_object(predictions).sum())
        return pd.read_parquet(
            self.stages.run("fairness", [equigen.__version__, content, asked.model_dump()], work)
            / "fairness.parquet"
        )

    def _report(self, made: Mapping[str, Run], quality: pd.DataFrame, fairness: pd.DataFrame) -> Path:
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
            quality=quality,
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


def reconstructed(coder: Autoencoder, pixels: Any) -> Any:
    """[N, H, W, 3] uint8 through the autoencoder and back."""
    return np.concatenate(
        [coder.decode(coder.encode(pixels[low : low + 64])) for low in range(0, len(pixels), 64)]
    )


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
    return Study(settings, out or Path("runs") / settings.name, file.parent, show).run()

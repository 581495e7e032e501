"""The jobs of a comparison: their steps and the jobs that each waits for."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from equigen.comparison.context import JobContext
from equigen.comparison.job_file import (
    CalibrateStep,
    EncodeStep,
    JobFile,
    SetRequest,
    SetsStep,
    SnapshotsStep,
    Step,
    TrainStep,
)
from equigen.comparison.paths import Guidance, RunPaths, Training
from equigen.comparison.runners.base import Job
from equigen.comparison.settings import PRETRAINED, ComparisonSettings
from equigen.comparison.steps import is_done
from equigen.equity import mechanism_copy
from equigen.files import write_json
from equigen.study import plan_arguments
from equigen.training import TrainSettings

CALIBRATION_GUIDANCE: tuple[Guidance, ...] = ("common", "calibrated")
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def constant_sets(settings: ComparisonSettings) -> list[tuple[str, Guidance]]:
    """Return (plan, guidance) of every synthetic set of a generator whose guidance is a number."""
    return [(plan, guidance) for plan in settings.plans for guidance in settings.guidance]


def calibrated_sets(settings: ComparisonSettings, name: str) -> list[tuple[str, Guidance]]:
    """Return (plan, guidance) of every synthetic set of a mechanism that needs a calibration first."""
    if settings.calibrate is None or name not in settings.calibrate.mechanisms:
        return []
    return [(plan, guidance) for plan in settings.plans for guidance in CALIBRATION_GUIDANCE]


class JobBuilder:
    """Builds the jobs of a comparison.

    ``coders``: autoencoders of trainings that do not have the context's.
    """

    def __init__(
        self,
        settings: ComparisonSettings,
        runs: Mapping[Training, TrainSettings],
        paths: RunPaths,
        context: JobContext,
        coders: Mapping[Training, str] | None = None,
    ) -> None:
        self.settings, self.runs, self.paths, self.context = settings, runs, paths, context
        self.coders = coders or {}

    def jobs(self) -> list[Job]:
        """Return all jobs, each after those that it needs: latents, pretrainings, then generators with their sets."""
        encodings: list[EncodeStep] = []
        for training in self.runs:
            step = EncodeStep(**self._latents(training))
            if step not in encodings:
                encodings.append(step)
        jobs = [self._job("latents", "encode", encodings, [], len(self.context.cohort))]
        for training, settings in self.runs.items():
            if training.name == PRETRAINED:
                steps: list[Step] = [self._train(training)]
                jobs.append(self._job(training.path, "pretrain", steps, ["latents"], settings.images))
        for training, settings in self.runs.items():
            if training.name != PRETRAINED:
                after = [training.pretrained.path] if training.pretrained in self.runs else ["latents"]
                steps = [self._train(training), self._sets(training, constant_sets(self.settings))]
                jobs.append(self._job(training.path, "train and sample", steps, after, settings.images))
        return [*jobs, *self.curve_jobs(), *self.calibration_jobs()]

    def calibration_jobs(self) -> list[Job]:
        """Return the jobs that calibrate guidance and make the sets with it."""
        settings, jobs = self.settings.calibrate, []
        for training in self.runs:
            pairs = calibrated_sets(self.settings, training.name)
            if settings is None or not pairs:
                continue
            step = CalibrateStep(
                generator=str(self.paths.generator(training)),
                stage=self.paths.calibration(training),
                seed=training.seed,
                settings={**settings.model_dump(exclude={"mechanisms"}), "encoder": self.settings.evaluate.encoder},
            )
            steps: list[Step] = [step, self._sets(training, pairs)]
            name = f"{training.path}/calibration"
            jobs.append(self._job(name, "calibrate", steps, [training.path], settings.budget))
        return jobs

    def curve_jobs(self) -> list[Job]:
        """Return the jobs that make the sets of the learning curve, of snapshots and of finished generators."""
        curve, name, jobs = self.settings.curve, self.settings.curve_plan, []
        for training in self.runs:
            if curve is None or training.name != curve.mechanism:
                continue
            stages = [stage for stage in (training.pretrained, training) if stage in self.runs]
            steps: list[Step] = [
                SnapshotsStep(
                    training=f"generators/{stage.path}",
                    encoder=self.settings.evaluate.encoder,
                    stage=self.paths.synthetic(stage, name, curve.guidance, snapshot=True),
                    plan=self._plan(name, stage),
                    guidance=curve.guidance,
                )
                for stage in stages
            ]
            steps += [self._sets(stage, [(name, curve.guidance)]) for stage in stages]
            size = self.settings.requests[name].size
            jobs.append(self._job(f"{training.path}/curve", "curve", steps, [training.path], size))
        return jobs

    def _train(self, training: Training) -> TrainStep:
        settings = self.runs[training].model_dump(mode="json")
        settings["mechanism"] = mechanism_copy(settings["mechanism"], self.paths.out / "mechanisms")
        stage = f"generators/{training.path}"
        return TrainStep(stage=stage, settings=TrainSettings(**settings), **self._latents(training))

    def _latents(self, training: Training) -> dict[str, Any]:
        """Return the keys of a step that say how latents of a training differ from the usual ones."""
        name = self.coders.get(training, self.context.autoencoder)
        keys = {} if name == self.context.autoencoder else {"autoencoder": name}
        return {**keys, **({"store": "disk"} if self.runs[training].store == "disk" else {})}

    def _sets(self, training: Training, pairs: Sequence[tuple[str, Guidance]]) -> SetsStep:
        sets = [
            SetRequest(
                stage=self.paths.synthetic(training, name, guidance), plan=self._plan(name, training), guidance=guidance
            )
            for name, guidance in pairs
        ]
        generator, encoder = str(self.paths.generator(training)), self.settings.evaluate.encoder
        return SetsStep(generator=generator, encoder=encoder, sets=sets)

    def _plan(self, name: str, training: Training) -> dict[str, Any]:
        """Return the arguments of a plan, whose seed depends on the training seed.

        So the spread over training seeds includes that of sampling. Mechanisms of one seed get the same requests and
        the same noise, so that their differences are paired.
        """
        request = self.settings.requests[name]
        arguments = plan_arguments(request, self.context.cohort, self.runs[training])
        return {**arguments, "seed": request.seed + training.seed}

    def _job(self, name: str, kind: str, steps: Sequence[Step], after: Sequence[str], units: float) -> Job:
        """Write the file with the steps of a job, and return the job."""
        file = self.paths.out / "logs" / f"{name}.json"
        content = JobFile(
            out=str(self.paths.out.resolve()),
            root=str(self.context.cohort.root.resolve()),
            autoencoder=self.context.autoencoder,
            size=self.context.size,
            threads=self.settings.threads,
            steps=list(steps),
        )
        write_json(file, content.model_dump(mode="json"))
        return Job(
            name=name,
            kind=kind,
            command=(sys.executable, "-m", "equigen.comparison.job_process", str(file.resolve())),
            log=file.with_suffix(".log"),
            is_done=lambda: all(is_done(self.context, step) for step in steps),
            after=tuple(after),
            units=units,
            environment=dict.fromkeys(THREADS, str(self.settings.threads)),
        )

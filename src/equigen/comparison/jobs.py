"""The jobs of a comparison: which processes there are, what each does, and which it must wait for."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from equigen.comparison.context import Bench, Step
from equigen.comparison.paths import Guidance, Member, Places
from equigen.comparison.runners.base import Job
from equigen.comparison.settings import PRETRAINED, ComparisonSettings
from equigen.comparison.steps import done
from equigen.files import write_json
from equigen.study import request
from equigen.training import TrainSettings

CHOSEN: tuple[Guidance, ...] = ("common", "calibrated")
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def sets_of(settings: ComparisonSettings) -> list[tuple[str, Guidance]]:
    """(plan, guidance) of every synthetic set at a guidance of one number, of each generator."""
    return [(plan, value) for plan in settings.plans for value in settings.guidance]


def calibrated_sets(settings: ComparisonSettings, name: str) -> list[tuple[str, Guidance]]:
    """(plan, guidance) of every synthetic set that needs a calibration first."""
    if settings.calibrate is None or name not in settings.calibrate.mechanisms:
        return []
    return [(plan, which) for plan in settings.plans for which in CHOSEN]


class Plan:
    """Builds the jobs of a comparison in a run folder."""

    def __init__(
        self, settings: ComparisonSettings, runs: Mapping[Member, TrainSettings], places: Places, bench: Bench,
        coders: Mapping[Member, str] | None = None,  # autoencoders of trainings that do not have the bench's
    ) -> None:
        self.settings, self.runs, self.places, self.bench = settings, runs, places, bench
        self.coders = coders or {}

    def jobs(self) -> list[Job]:
        """All jobs, each behind those it needs: latents, pretrainings, then each generator with its sets."""
        jobs = [self._job("latents", "encode", self._encodings(), [], len(self.bench.cohort))]
        for member, chosen in self.runs.items():
            if member.name == PRETRAINED:
                jobs.append(self._job(member.path, "pretrain", [self._train(member)], ["latents"], chosen.images))
        for member, chosen in self.runs.items():
            if member.name != PRETRAINED:
                after = [member.pretrained.path] if member.pretrained in self.runs else ["latents"]
                steps = [self._train(member), self._sets(member, sets_of(self.settings))]
                jobs.append(self._job(member.path, "train and sample", steps, after, chosen.images))
        return [*jobs, *self._curve(), *self._calibrations()]

    def _calibrations(self) -> list[Job]:
        """Guidance of each group, and the sets that use it."""
        asked, jobs = self.settings.calibrate, []
        for member in self.runs:
            pairs = calibrated_sets(self.settings, member.name)
            if asked is None or not pairs:
                continue
            step = {
                "kind": "calibrate",
                "generator": str(self.places.generator(member)),
                "stage": self.places.calibration(member),
                "seed": member.seed,
                "settings": {**asked.model_dump(exclude={"mechanisms"}), "encoder": self.settings.evaluate.encoder},
            }
            steps = [step, self._sets(member, pairs)]
            jobs.append(self._job(f"{member.path}/calibration", "calibrate", steps, [member.path], asked.budget))
        return jobs

    def _curve(self) -> list[Job]:
        """Sets of the kept snapshots that the convergence curve is drawn from, and of the two ends."""
        curve, name, jobs = self.settings.curve, self.settings.curve_plan, []
        for member in self.runs:
            if curve is None or member.name != curve.mechanism:
                continue
            trainings = [item for item in (member.pretrained, member) if item in self.runs]
            steps: list[Step] = [
                {
                    "kind": "snapshots",
                    "training": f"generators/{item.path}",
                    "encoder": self.settings.evaluate.encoder,
                    "stage": self.places.synthetic(item, name, curve.guidance, kept=True),
                    "plan": self._plan(name, item),
                    "guidance": curve.guidance,
                }
                for item in trainings
            ]
            steps += [self._sets(item, [(name, curve.guidance)]) for item in trainings]
            size = self.settings.requests[name].size
            jobs.append(self._job(f"{member.path}/curve", "curve", steps, [member.path], size))
        return jobs

    def _train(self, member: Member) -> Step:
        settings = self.runs[member].model_dump(mode="json")
        return {"kind": "train", "stage": f"generators/{member.path}", "settings": settings, **self._latents(member)}

    def _encodings(self) -> list[Step]:
        """Latents of every kind that a training reads."""
        kinds = [{"kind": "encode", **self._latents(member)} for member in self.runs]
        return [kind for place, kind in enumerate(kinds) if kind not in kinds[:place]]

    def _latents(self, member: Member) -> dict[str, str]:
        """What a step has to say of the latents of a training: no more than is not usual."""
        place = self.coders.get(member, self.bench.autoencoder)
        own = {} if place == self.bench.autoencoder else {"autoencoder": place}
        return {**own, **({"store": "disk"} if self.runs[member].store == "disk" else {})}

    def _sets(self, member: Member, pairs: Sequence[tuple[str, Guidance]]) -> Step:
        sets = [
            {"stage": self.places.synthetic(member, name, value), "plan": self._plan(name, member), "guidance": value}
            for name, value in pairs
        ]
        generator, encoder = str(self.places.generator(member)), self.settings.evaluate.encoder
        return {"kind": "sets", "generator": generator, "encoder": encoder, "sets": sets}

    def _plan(self, name: str, member: Member) -> dict[str, Any]:
        """A plan; each training seed asks for images of its own, so that the spread over seeds holds the sampling.

        Mechanisms of one seed answer the same requests from the same noise, so their differences are paired.
        """
        chosen = self.settings.requests[name]
        return {**request(chosen, self.bench.cohort, self.runs[member]), "seed": chosen.seed + member.seed}

    def _job(self, name: str, kind: str, steps: Sequence[Step], after: Sequence[str], units: float) -> Job:
        """One process, whose steps are read from a file."""
        file = self.places.out / "logs" / f"{name}.json"
        content = {
            "out": str(self.places.out.resolve()),
            "root": str(self.bench.cohort.root.resolve()),
            "autoencoder": self.bench.autoencoder,
            "size": self.bench.size,
            "threads": self.settings.threads,
            "steps": list(steps),
        }
        write_json(file, content)
        return Job(
            name=name,
            kind=kind,
            command=(sys.executable, "-m", "equigen.comparison.job_process", str(file.resolve())),
            log=file.with_suffix(".log"),
            done=lambda: all(done(self.bench, step) for step in steps),
            after=tuple(after),
            units=units,
            environment=dict.fromkeys(THREADS, str(self.settings.threads)),
        )

"""The steps of a comparison's jobs (``job_file``), each with a check whether its result exists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import equigen
from equigen.comparison.context import (
    RECORD,
    JobContext,
    encode_images,
    is_encoded,
    is_trained,
    train_generator,
)
from equigen.comparison.job_file import CalibrateStep, EncodeStep, SetRequest, SetsStep, SnapshotsStep, Step, TrainStep
from equigen.comparison.paths import Guidance, RunPaths, snapshots
from equigen.diffusion import open_any_generator
from equigen.errors import InputError, Problem
from equigen.files import read_json, write_json
from equigen.integrity import STAMP
from equigen.quality import extract_features, load_encoder, load_image_set
from equigen.study import Stages
from equigen.synthesis import CALIBRATION_FILE as CALIBRATION
from equigen.synthesis import apply_guidance, calibrate, generate, load_calibration, plan
from equigen.training import train_again

SET, ENCODED = "synthetic.parquet", "encoded.json"


# --- sets: images and their features ---------------------------------------------------------------------------------


def identity(folder: Path) -> str:
    """Return what determines a generator's images: its hash, or for a snapshot the training's key and images seen.

    Raises InputError when there is no finished training.
    """
    if (folder / RECORD).is_file():
        return str(read_json(folder / RECORD)["generator"])
    parent = folder.parent.parent / RECORD
    if folder.parent.name == "snapshots" and parent.is_file():
        return f"{read_json(parent)['key']}/{folder.name}"
    problem = Problem("holds no finished training", "run the comparison again", file=str(folder))
    raise InputError("There is no generator here.", [problem])


def _set_inputs(context: JobContext, generator: Path, request: SetRequest) -> Any:
    """Return what a synthetic set depends on."""
    guidance: Any = request.guidance
    if isinstance(guidance, str):
        calibration = load_calibration(generator)
        guidance = [guidance, calibration.attribute, calibration.groups, calibration.common]
    return [identity(generator), request.plan, guidance, context.cohort.hash]


def _feature_inputs(context: JobContext, inputs: Any, encoder: str) -> Any:
    """Return what the features of a set depend on, from what the set depends on."""
    return [inputs, encoder, context.size, equigen.__version__]


def _is_sampled(context: JobContext, step: SetsStep) -> bool:
    """Return whether the images and features of all sets exist."""
    for request in step.sets:
        inputs = _set_inputs(context, Path(step.generator), request)
        features = _feature_inputs(context, inputs, step.encoder)
        if not (context.is_finished(request.stage, inputs, SET)
                and context.is_finished(RunPaths.features(request.stage), features, ENCODED)):  # fmt: skip
            return False
    return True


def make_sets(context: JobContext, step: SetsStep) -> None:
    """Make and encode the sets that do not exist; the generator is opened once."""
    generator = Path(step.generator)
    pipeline = None
    for request in step.sets:
        inputs = _set_inputs(context, generator, request)
        if not context.is_finished(request.stage, inputs, SET):
            pipeline = pipeline or _open(context, generator)
            rows = _rows(context, generator, request.plan, request.guidance)

            def work(out: Path, pipeline: Any = pipeline, rows: Any = rows) -> None:
                generate(pipeline, rows, out)

            Stages(context.out).run(request.stage, inputs, work, [SET])
        _encode_set(context, request.stage, inputs, step.encoder)


def _open(context: JobContext, generator: Path) -> Any:
    """Hash all files of a generator and open it. Raises InputError if one is damaged; its training then runs again."""
    training = generator if (generator / RECORD).is_file() else generator.parent.parent
    stages = context.stages or Stages(context.out)
    if training.is_relative_to(context.out):
        stage = training.relative_to(context.out).as_posix()
        if not stages.is_intact(stage, [RECORD], every_file=True, damaged=train_again):
            problem = Problem("is damaged; what is lost is put away", "run the comparison again", file=str(training))
            raise InputError("A generator of this comparison is damaged.", [problem])
    return open_any_generator(generator)


def _encode_set(context: JobContext, stage: str, inputs: Any, encoder: str) -> None:
    """Write the features of a set, which the measurement reads: many jobs encode at once."""

    def work(out: Path) -> None:
        images = load_image_set(context.out / stage, stage)
        extract_features(images, load_encoder(encoder), context.size, cache_dir=out)
        write_json(out / ENCODED, {"images": len(images)})

    Stages(context.out).run(RunPaths.features(stage), _feature_inputs(context, inputs, encoder), work, [ENCODED])


def _rows(context: JobContext, generator: Path, settings: dict[str, Any], guidance: Guidance) -> Any:
    """Return the rows of a plan, with their guidance."""
    if not isinstance(guidance, str):
        return plan(context.cohort, **settings, guidance=guidance)
    level = "group" if guidance == "calibrated" else "common"
    return apply_guidance(plan(context.cohort, **settings), load_calibration(generator), level)  # type: ignore[arg-type]


# --- snapshots: sets of the snapshots of a training ------------------------------------------------------------------


def _snapshot_sets(context: JobContext, step: SnapshotsStep) -> list[SetsStep]:
    """Return a ``sets`` step for each snapshot; the finished generator replaces a snapshot of the end of training."""
    return [
        SetsStep(
            generator=str(folder),
            encoder=step.encoder,
            sets=[SetRequest(stage=step.stage.format(snapshot=folder.name), plan=step.plan, guidance=step.guidance)],
        )
        for folder in snapshots(context.out / step.training)[1]
    ]


# --- calibrate -------------------------------------------------------------------------------------------------------


def _calibration_inputs(context: JobContext, step: CalibrateStep) -> Any:
    """Return what a calibration depends on."""
    generator = identity(Path(step.generator))
    return [equigen.__version__, generator, context.cohort.hash, step.seed, step.settings]


def _is_calibrated(context: JobContext, step: CalibrateStep) -> bool:
    """Return whether the calibration exists."""
    exists = (Path(step.generator) / CALIBRATION).is_file()
    return exists and context.is_finished(step.stage, _calibration_inputs(context, step), "calibration.parquet")


def calibrate_generator(context: JobContext, step: CalibrateStep) -> None:
    """Calibrate guidance on in-distribution validation images; the comparison itself measures the gain."""

    def work(out: Path) -> None:
        validation_images = context.cohort.split("val", domain="id")
        calibrate(step.generator, validation_images, None, out=out, seed=step.seed, **step.settings)

    inputs = _calibration_inputs(context, step)
    if not (Path(step.generator) / CALIBRATION).is_file():  # missing: written again from the finished search
        (context.out / step.stage / STAMP).unlink(missing_ok=True)
    Stages(context.out).run(step.stage, inputs, work, ["calibration.parquet"])


# --- all of them -----------------------------------------------------------------------------------------------------


def is_done(context: JobContext, step: Step) -> bool:
    """Return whether a step's result exists for its inputs. The results that the step reads must exist."""
    match step:
        case EncodeStep():
            return is_encoded(context, step)
        case TrainStep():
            return is_trained(context, step)
        case SetsStep():
            return _is_sampled(context, step)
        case SnapshotsStep():
            return all(_is_sampled(context, inner) for inner in _snapshot_sets(context, step))
        case CalibrateStep():
            return _is_calibrated(context, step)


def run_step(context: JobContext, step: Step) -> None:
    """Do a step, or resume it, unless it is done."""
    if is_done(context, step):
        return
    match step:
        case EncodeStep():
            encode_images(context, step)
        case TrainStep():
            train_generator(context, step)
        case SetsStep():
            make_sets(context, step)
        case SnapshotsStep():
            for inner in _snapshot_sets(context, step):
                make_sets(context, inner)
        case CalibrateStep():
            calibrate_generator(context, step)

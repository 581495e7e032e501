"""What a comparison's jobs do, one step at a time; each step knows whether its result is there already.

A step is plain JSON: the process that runs it reads it from a file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import equigen
from equigen.comparison.context import RECORD, Bench, Step, encode_images, encoded, train_generator, trained
from equigen.comparison.paths import Guidance, Places, snapshots
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


# --- sets: {generator, encoder, sets: [{stage, plan, guidance}]}: images and their features --------------------------


def identity(folder: Path) -> str:
    """What the images of a generator depend on: its hash, or for a snapshot its training and how far that was.

    Raises InputError when there is no finished training.
    """
    if (folder / RECORD).is_file():
        return str(read_json(folder / RECORD)["generator"])
    parent = folder.parent.parent / RECORD
    if folder.parent.name == "snapshots" and parent.is_file():
        return f"{read_json(parent)['key']}/{folder.name}"
    problem = Problem("holds no finished training", "run the comparison again", file=str(folder))
    raise InputError("There is no generator here.", [problem])


def _set_inputs(bench: Bench, generator: Path, asked: Step) -> Any:
    """What a synthetic set depends on."""
    guidance: Any = asked["guidance"]
    if isinstance(guidance, str):
        chosen = load_calibration(generator)
        guidance = [guidance, chosen.attribute, chosen.groups, chosen.common]
    return [identity(generator), asked["plan"], guidance, bench.cohort.hash]


def _sampled(bench: Bench, step: Step) -> bool:
    generator = Path(step["generator"])
    return all(_finished_set(bench, asked["stage"], _set_inputs(bench, generator, asked), step["encoder"])
               for asked in step["sets"])


def _finished_set(bench: Bench, stage: str, inputs: Any, encoder: str) -> bool:
    """Whether a set's images and features are there."""
    seen = _feature_inputs(bench, inputs, encoder)
    return bench.finished(stage, inputs, SET) and bench.finished(Places.features(stage), seen, ENCODED)


def _feature_inputs(bench: Bench, inputs: Any, encoder: str) -> Any:
    return [inputs, encoder, bench.size, equigen.__version__]


def _sample(bench: Bench, step: Step) -> None:
    """Make the sets that are not there, and encode them; the generator is opened once."""
    generator = Path(step["generator"])
    pipeline = None
    for asked in step["sets"]:
        inputs = _set_inputs(bench, generator, asked)
        if not bench.finished(asked["stage"], inputs, SET):
            pipeline = pipeline or _open(bench, generator)
            opened, rows = pipeline, _rows(bench, generator, asked["plan"], asked["guidance"])

            def make(out: Path, rows: Any = rows, opened: Any = opened) -> None:
                generate(opened, rows, out)

            Stages(bench.out).run(asked["stage"], inputs, make, [SET])
        _encode_set(bench, asked["stage"], inputs, step["encoder"])


def _open(bench: Bench, generator: Path) -> Any:
    """A generator whose files were all hashed; InputError where one is damaged: its training then runs again."""
    home = generator if (generator / RECORD).is_file() else generator.parent.parent
    stages = bench.stages or Stages(bench.out)
    own = home.is_relative_to(bench.out)
    if own and not stages.intact(home.relative_to(bench.out).as_posix(), [RECORD], True, train_again):
        problem = Problem("is damaged; what is lost is put away", "run the comparison again", file=str(home))
        raise InputError("A generator of this comparison is damaged.", [problem])
    return open_any_generator(generator)


def _encode_set(bench: Bench, stage: str, inputs: Any, encoder: str) -> None:
    """Features of a set, where the measurement looks for them: here they are made by many jobs at once."""
    def make(out: Path) -> None:
        images = load_image_set(bench.out / stage, stage)
        extract_features(images, load_encoder(encoder), bench.size, cache_dir=out)
        write_json(out / ENCODED, {"images": len(images)})

    Stages(bench.out).run(Places.features(stage), _feature_inputs(bench, inputs, encoder), make, [ENCODED])


def _rows(bench: Bench, generator: Path, asked: Step, guidance: Guidance) -> Any:
    """The rows of a plan, with their guidance."""
    if not isinstance(guidance, str):
        return plan(bench.cohort, **asked, guidance=guidance)
    which = "group" if guidance == "calibrated" else "common"
    return apply_guidance(plan(bench.cohort, **asked), load_calibration(generator), which)  # type: ignore[arg-type]


# --- snapshots: {training, encoder, stage, plan, guidance}: sets of the kept generators of a training ----------------


def _snapshot_sets(bench: Bench, step: Step) -> list[dict[str, Any]]:
    """A ``sets`` step for each snapshot; the finished generator stands for one that was kept at the very end."""
    training = bench.out / step["training"]
    return [
        {
            "generator": str(folder),
            "encoder": step["encoder"],
            "sets": [{"stage": step["stage"].format(snapshot=folder.name), **{key: step[key] for key in
                     ("plan", "guidance")}}],
        }
        for folder in snapshots(training)[1]
    ]


# --- calibrate: {generator, stage, seed, settings} -------------------------------------------------------------------


def _calibration_inputs(bench: Bench, step: Step) -> Any:
    return [equigen.__version__, identity(Path(step["generator"])), bench.cohort.hash, step["seed"], step["settings"]]


def _calibrated(bench: Bench, step: Step) -> bool:
    there = (Path(step["generator"]) / CALIBRATION).is_file()
    return there and bench.finished(step["stage"], _calibration_inputs(bench, step), "calibration.parquet")


def _calibrate(bench: Bench, step: Step) -> None:
    """Tune guidance on validation images of the training domain; the comparison itself measures what it gains."""

    def tune(out: Path) -> None:
        validation_images = bench.cohort.split("val", domain="id")
        calibrate(step["generator"], validation_images, None, out=out, seed=step["seed"], **step["settings"])

    stages = Stages(bench.out)
    inputs = _calibration_inputs(bench, step)
    if not (Path(step["generator"]) / CALIBRATION).is_file():  # lost: made again from what is kept
        (bench.out / step["stage"] / STAMP).unlink(missing_ok=True)
    stages.run(step["stage"], inputs, tune, ["calibration.parquet"])


# --- all of them -----------------------------------------------------------------------------------------------------


def done(bench: Bench, step: Step) -> bool:
    """Whether a step's result is there, for just its inputs. What it builds on must be there."""
    kind = step["kind"]
    if kind == "snapshots":
        return all(_sampled(bench, inner) for inner in _snapshot_sets(bench, step))
    checks = {"encode": encoded, "train": trained, "sets": _sampled, "calibrate": _calibrated}
    return checks[kind](bench, step)


def work(bench: Bench, step: Step) -> None:
    """Do a step, or go on with it, unless it is done."""
    if done(bench, step):
        return
    kind = step["kind"]
    if kind == "snapshots":
        for inner in _snapshot_sets(bench, step):
            _sample(bench, inner)
        return
    acts = {"encode": encode_images, "train": train_generator, "sets": _sample, "calibrate": _calibrate}
    acts[kind](bench, step)

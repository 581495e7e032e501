"""The context of a comparison's jobs, and their first two steps: encoding and training."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from equigen.checkpoints import load_checkpoint
from equigen.cohort import Cohort
from equigen.comparison.job_file import LatentsStep, TrainStep
from equigen.devices import best_device
from equigen.diffusion import EquigenPipeline, open_generator
from equigen.files import hash_value, write_json
from equigen.integrity import BEGUN, STAMP, read_record
from equigen.latents import (
    STORE_FILE,
    Autoencoder,
    LatentCache,
    StoreFile,
    cohort_store_folder,
    encode,
    encode_store,
    load_autoencoder,
)
from equigen.study import START_SETTINGS, Stages
from equigen.training import TrainSettings, latent_scale, pipeline_factory, run_key, text_key, train, train_again

RECORD = "training.json"


@dataclass
class JobContext:
    """The inputs of every step: run folder, cohort, image size, and name or folder of the autoencoder.

    A step of a training with another autoencoder, that of its base, names it itself. ``coders``: autoencoders that are
    open. ``stages``: those of the process that starts the jobs, which know whether the user accepts edited files.
    """

    out: Path
    cohort: Cohort
    autoencoder: str
    size: int
    coders: dict[str, Autoencoder] = field(default_factory=dict)
    stages: Stages | None = None

    def autoencoder_name(self, step: LatentsStep) -> str:
        """Return the name or folder of a step's autoencoder."""
        return self.autoencoder if step.autoencoder is None else step.autoencoder

    def coder(self, step: LatentsStep) -> Autoencoder:
        """Return the autoencoder of a step, opened once."""
        name = self.autoencoder_name(step)
        if name not in self.coders:
            self.coders[name] = load_autoencoder(name)
        return self.coders[name]

    @property
    def latents(self) -> Path:
        """The folder of latents and prompt embeddings."""
        return self.out / "latents"

    @property
    def training_images(self) -> Cohort:
        """The in-distribution training and validation images, whose latents trainings read."""
        return self.cohort.split("train", "val", domain="id")

    def is_finished(self, stage: str, inputs: Any, result: str) -> bool:
        """Return whether a stage is finished for these inputs and has its result."""
        stamp = self.out / stage / STAMP
        same = stamp.is_file() and read_record(stamp).get("key") == hash_value(inputs)
        return same and self.is_intact(stage, result) and (self.out / stage / result).is_file()

    def is_intact(self, stage: str, result: str) -> bool:
        """Return whether a finished stage's files agree with its stamp; see ``Stages.is_intact``."""
        damaged = train_again if result == RECORD else None
        return (self.stages or Stages(self.out)).is_intact(stage, [result], damaged=damaged)


# --- encode ----------------------------------------------------------------------------------------------------------


def is_encoded(context: JobContext, step: LatentsStep) -> bool:
    """Return whether all latents exist."""
    images, coder = context.training_images, context.coder(step)
    if step.store == "disk":
        file = cohort_store_folder(context.latents, coder.hash, context.size, images) / STORE_FILE
        return file.is_file() and bool(StoreFile(file).filled_rows().all())
    cache = LatentCache(context.latents, coder.hash, context.size)
    return set(images.frame["sha256"]) <= set(cache.locations)


def encode_images(context: JobContext, step: LatentsStep) -> None:
    """Encode the training and validation images, in the form that the trainings read."""
    encoder = encode_store if step.store == "disk" else encode
    encoder(context.training_images, context.coder(step), context.latents, context.size)


# --- train -----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=8)
def _open_once(folder: str, _mtime_ns: int) -> EquigenPipeline:
    return open_generator(folder, "cpu")


def _training_key(context: JobContext, step: TrainStep) -> str:
    """Return the key of a training; the generator that it continues must exist."""
    settings = step.settings
    if settings.reads_text:
        return text_key(context.cohort, _start_hash(context, step, settings), settings)
    origin = None
    if settings.start is not None:
        file = Path(settings.start) / "model_index.json"
        origin = _open_once(settings.start, file.stat().st_mtime_ns if file.is_file() else 0)
    return run_key(context.cohort, context.coder(step), settings, origin)


_hashes: dict[str, str] = {}


def _start_hash(context: JobContext, step: TrainStep, settings: TrainSettings) -> str:
    """Return a hash of the pipeline that a training with prompts starts from.

    The hash is computed once for each set of settings and of files of the folders that they name.
    """
    values = settings.model_dump(mode="json", include={*START_SETTINGS, "precision", "seed"})
    if settings.base is not None and settings.trainable_weights.startswith("unet"):
        del values["seed"]  # no weight is drawn
    files = []
    for name in (settings.base, settings.start, settings.text_encoder):
        if name is not None:
            paths = sorted(path for path in Path(name).rglob("*") if path.is_file()) if Path(name).is_dir() else []
            files.append([[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in paths])
    key = hash_value([values, files, context.cohort.hash, context.autoencoder_name(step)])
    if key not in _hashes:
        coder = context.coder(step)
        base = pipeline_factory(
            settings, coder, lambda: latent_scale(context.cohort, coder, context.latents, settings.size, show=False)
        )
        _hashes[key] = base.open_trainable("cpu", best_device()).hash
    return _hashes[key]


def _folder_key(folder: Path) -> str | None:
    """Return the key of the training that a folder has, finished or begun."""
    key = read_record(folder / RECORD).get("key")
    if key is not None:
        return str(key)
    checkpoint = folder / "checkpoint.safetensors"
    return str(load_checkpoint(checkpoint)[1]["key"]) if checkpoint.is_file() else None


def is_trained(context: JobContext, step: TrainStep) -> bool:
    """Return whether a training is finished for these settings; one with a damaged stamp is not."""
    folder = context.out / step.stage
    if (folder / STAMP).is_file() and not read_record(folder / STAMP):
        return False
    if not context.is_intact(step.stage, RECORD) or not (folder / RECORD).is_file():
        return False
    scratch = step.settings.text_encoder is not None  # its key depends on the latents, which may be missing
    if scratch and not is_encoded(context, step):
        return False
    return _folder_key(folder) == _training_key(context, step)


def train_generator(context: JobContext, step: TrainStep) -> None:
    """Train a generator or resume its training, also one that ``train`` began; other trainings move to ``stale/``."""
    key, folder = _training_key(context, step), context.out / step.stage
    if folder.exists() and _folder_key(folder) == key:
        seconds = float(read_record(folder / BEGUN).get("seconds", 0.0))
        write_json(folder / BEGUN, {"key": hash_value(key), "seconds": seconds})
    Stages(context.out).run(
        step.stage,
        key,
        lambda out: train(
            context.cohort, settings=step.settings, out=out, latents=context.latents,
            autoencoder=context.autoencoder_name(step),
        ),
        results=[RECORD],
        damaged=train_again,
    )  # fmt: skip

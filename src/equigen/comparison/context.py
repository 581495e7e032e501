"""What every step of a comparison's jobs needs, and the steps up to a generator: latents, and its training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from equigen.checkpoints import load_checkpoint
from equigen.cohort import Cohort
from equigen.devices import best_device
from equigen.diffusion import EquigenPipeline, open_generator
from equigen.files import hash_value, write_json
from equigen.integrity import BEGUN, STAMP
from equigen.latents import (
    NAME,
    Autoencoder,
    LatentCache,
    StoreFile,
    encode,
    encode_store,
    load_autoencoder,
    store_place,
)
from equigen.study import KINDS, Stages, read_stamp
from equigen.training import TrainSettings, latent_scale, pipeline_factory, run_key, text_key, train, train_again

Step = Mapping[str, Any]
RECORD = "training.json"


@dataclass
class Bench:
    """What every step needs: the run folder, the cohort, and the name or folder of the autoencoder.

    Steps of trainings with another autoencoder, a base's own, name it themselves. ``coders``: those that are open.
    """

    out: Path
    cohort: Cohort
    autoencoder: str
    size: int
    coders: dict[str, Autoencoder] = field(default_factory=dict)
    stages: Stages | None = None  # of the process that started the jobs, which knows what the user accepts

    def place(self, step: Step) -> str:
        """Name or folder of a step's autoencoder."""
        return str(step.get("autoencoder", self.autoencoder))

    def coder(self, step: Step) -> Autoencoder:
        """The autoencoder of a step, opened once."""
        place = self.place(step)
        if place not in self.coders:
            self.coders[place] = load_autoencoder(place)
        return self.coders[place]

    @property
    def latents(self) -> Path:
        """Where latents and prompt embeddings lie."""
        return self.out / "latents"

    @property
    def seen(self) -> Cohort:
        """The images that are trained on or steered by."""
        return self.cohort.split("train", "val", domain="id")

    def finished(self, stage: str, inputs: Any, result: str) -> bool:
        """Whether a stage is done for just these inputs."""
        stamp = self.out / stage / STAMP
        same = stamp.is_file() and read_stamp(stamp).get("key") == hash_value(inputs)
        return same and self.intact(stage, result) and (self.out / stage / result).is_file()

    def intact(self, stage: str, result: str) -> bool:
        """Whether a finished stage's files are what its stamp says; what is damaged is told and moved away."""
        hook = train_again if result == RECORD else None
        return (self.stages or Stages(self.out)).intact(stage, [result], damaged=hook)


# --- encode: {autoencoder, store} ------------------------------------------------------------------------------------


def encoded(bench: Bench, step: Step) -> bool:
    """Whether all latents are there."""
    if step.get("store") == "disk":
        file = store_place(bench.latents, bench.coder(step).hash, bench.size, bench.seen) / NAME
        return file.is_file() and bool(StoreFile(file).done().all())
    cache = LatentCache(bench.latents, bench.coder(step).hash, bench.size)
    return set(bench.seen.frame["sha256"]) <= set(cache.places)


def encode_images(bench: Bench, step: Step) -> None:
    """Latents of what is trained on or steered by, in the form that the trainings read."""
    fill = encode_store if step.get("store") == "disk" else encode
    fill(bench.seen, bench.coder(step), bench.latents, bench.size)


# --- train: {stage, settings, autoencoder} ---------------------------------------------------------------------------


@lru_cache(maxsize=8)
def _opened(folder: str, _written: int) -> EquigenPipeline:
    return open_generator(folder, "cpu")


def _training_key(bench: Bench, step: Step) -> str:
    """The key of a training; the generator it goes on from must be there."""
    settings = TrainSettings(**step["settings"])
    if settings.reads_text:
        return text_key(bench.cohort, _start_hash(bench, step, settings), settings)
    origin = None
    if settings.start is not None:
        mark = Path(settings.start) / "model_index.json"
        origin = _opened(settings.start, mark.stat().st_mtime_ns if mark.is_file() else 0)
    return run_key(bench.cohort, bench.coder(step), settings, origin)


_hashes: dict[str, str] = {}


def _start_hash(bench: Bench, step: Step, settings: TrainSettings) -> str:
    """Hash of the pipeline that a training with prompts starts from, ready; once for each kind, seed and its files."""
    kind = settings.model_dump(mode="json", include={*KINDS, "precision", "seed"})
    if settings.base is not None and settings.trainable_weights.startswith("unet"):
        del kind["seed"]  # it draws no weight
    places = [place for place in (settings.base, settings.start, settings.text_encoder) if place is not None]
    key = hash_value([kind, [_files(Path(place)) for place in places], bench.cohort.hash, bench.place(step)])
    if key not in _hashes:
        coder = bench.coder(step)
        base = pipeline_factory(
            settings, coder, lambda: latent_scale(bench.cohort, coder, bench.latents, settings.size, show=False)
        )
        _hashes[key] = base.open_trainable("cpu", best_device()).hash
    return _hashes[key]


def _files(place: Path) -> list[list[Any]]:
    """Name, size and time of every file of a generator's folder; nothing of a name of the hub."""
    files = sorted(path for path in place.rglob("*") if path.is_file()) if place.is_dir() else []
    return [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]


def _owner(folder: Path) -> str | None:
    """The key of the training that a folder holds, finished or begun."""
    key = read_stamp(folder / RECORD).get("key")
    if key is not None:
        return str(key)
    checkpoint = folder / "checkpoint.safetensors"
    return str(load_checkpoint(checkpoint)[1]["key"]) if checkpoint.is_file() else None


def trained(bench: Bench, step: Step) -> bool:
    """Whether a training is finished, for just these settings; one with a damaged stamp has to write it again."""
    folder = bench.out / step["stage"]
    if (folder / STAMP).is_file() and not read_stamp(folder / STAMP):
        return False
    if not bench.intact(step["stage"], RECORD) or not (folder / RECORD).is_file():
        return False
    scratch = step["settings"].get("text_encoder") is not None  # whose key needs the latents, which may be gone
    if scratch and not encoded(bench, step):
        return False
    return _owner(folder) == _training_key(bench, step)


def train_generator(bench: Bench, step: Step) -> None:
    """Train, or go on; a folder of other settings is put aside, one that ``train`` alone made is taken over."""
    key, folder = _training_key(bench, step), bench.out / step["stage"]
    if folder.exists() and _owner(folder) == key:
        write_json(folder / BEGUN, {"key": hash_value(key), "seconds": _seconds(folder)})
    Stages(bench.out).run(
        step["stage"],
        key,
        lambda out: train(
            bench.cohort, settings=TrainSettings(**step["settings"]), out=out, latents=bench.latents,
            autoencoder=bench.place(step),
        ),
        results=[RECORD],
        damaged=train_again,
    )  # fmt: skip


def _seconds(folder: Path) -> float:
    """What an earlier try has cost."""
    return float(read_stamp(folder / BEGUN).get("seconds", 0.0))

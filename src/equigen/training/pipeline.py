"""The text-to-image pipeline that a training starts from, opened as often as it is needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from equigen.cohort import Cohort, Manifest
from equigen.diffusion import (
    Pretrained,
    TextGenerator,
    from_scratch,
    load_lora,
    open_pretrained,
    open_text_encoder,
    scaling_factor,
    trainable,
)
from equigen.errors import InputError, Problem
from equigen.files import hash_value
from equigen.latents import Autoencoder, LatentStore, channel_statistics, encode, encode_store
from equigen.training.settings import TrainSettings

HALF = {"bf16": torch.bfloat16, "auto": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Base:
    """What is trained, as often as it is needed: ``open`` opens the same network anew, somewhere, in some precision."""

    settings: TrainSettings
    open: Callable[[str, torch.dtype], Pretrained]

    def ready(self, device: str, training: str | None = None) -> Pretrained:
        """Opened, with just those weights trainable that the settings say, where ``settings.start`` left them.

        ``training``: the device of the training, whose precision it gets; None: this one.
        """
        settings = self.settings
        pretrained = self.open(device, _precision(settings, training or device))
        trainable(pretrained, settings.tuned, rank=settings.rank, alpha=settings.alpha, seed=settings.seed)
        if settings.start is not None and settings.tuned.startswith("lora"):
            self._go_on(pretrained)
        return pretrained

    def _go_on(self, pretrained: Pretrained) -> None:
        """LoRA weights of an earlier training, as the first ones of this."""
        earlier = self.open("cpu", torch.float32)  # their base is known by its hash in full precision
        load_lora(earlier, self.settings.start or "")
        kept, mine = _lora_weights(earlier), _lora_weights(pretrained)
        if {name: value.shape for name, value in kept.items()} != {name: value.shape for name, value in mine.items()}:
            found = "holds LoRA weights of other layers, or of another rank"
            problem = Problem(found, "ask for the same", file=self.settings.start)
            raise InputError("Training cannot go on from these weights.", [problem])
        with torch.no_grad():
            for name, value in kept.items():
                mine[name].copy_(value)


def _lora_weights(pretrained: Pretrained) -> dict[str, torch.Tensor]:
    parts = {"network": pretrained.network, **pretrained.encoders}
    return {f"{part}.{name}": value for part, network in parts.items() for name, value in network.named_parameters()
            if "lora_" in name}  # fmt: skip


def base_of(settings: TrainSettings, coder: Autoencoder, scale: Callable[[], float]) -> Base:
    """The pipeline that is trained: the one that ``settings`` names, or one from scratch around a text encoder.

    ``coder``: the autoencoder of one from scratch, and ``scale`` tells what its latents are multiplied by.
    """
    whole = settings.tuned.startswith("unet")
    if settings.base is not None or settings.start is not None:
        place = settings.start if settings.start is not None and (whole or settings.base is None) else settings.base
        return Base(settings, lambda device, dtype: open_pretrained(str(place), device=device, dtype=dtype))
    encoder, factor = open_text_encoder(settings.text_encoder or ""), scale()

    def scratch(device: str, _dtype: torch.dtype) -> Pretrained:
        shape = (factor, settings.size, settings.preset, settings.prediction, settings.seed)
        return from_scratch(encoder, coder, *shape).to(device)

    return Base(settings, scratch)


def _precision(settings: TrainSettings, device: str) -> torch.dtype:
    """Weights that are trained are float32; those beneath LoRA take half the memory on a GPU."""
    half = settings.tuned.startswith("lora") and torch.device(device).type == "cuda"
    return HALF.get(settings.precision, torch.float32) if half else torch.float32


def latent_scale(cohort: Cohort | Manifest, coder: Autoencoder, cache: str | Path, size: int, show: bool) -> float:
    """What latents are multiplied by, from the training images: one number, since plain pipelines keep no more."""
    training = cohort.split("train", domain="id")
    if isinstance(training, Cohort):
        return scaling_factor(*channel_statistics(encode(training, coder, cache, size, show=show).values))
    return scaling_factor(*LatentStore(encode_store(training, coder, cache, size, show=show)).statistics())


def check_base(settings: TrainSettings, coder: Autoencoder) -> Pretrained:
    """What a training with prompts starts from, opened on the CPU as it will be trained; nothing is encoded.

    Raises InputError for a base, text encoder or start that cannot be opened, an image size that does not fit, LoRA
    that cannot be added, and for what could not be sampled.
    """
    pretrained = base_of(settings, coder, lambda: 1.0).ready("cpu")
    pretrained.check_size(settings.size)
    TextGenerator(pretrained.pipeline(), settings.size)  # what cannot be sampled is not worth training
    return pretrained


def text_key(cohort: Cohort | Manifest, start: str, settings: TrainSettings) -> str:
    """What a run depends on. ``start``: hash of the pipeline that is trained, ready; where it lies does not count."""
    places = {"start": settings.start is not None, "base": settings.base is not None}
    return hash_value([cohort.hash, start, {**settings.model_dump(mode="json"), **places}])

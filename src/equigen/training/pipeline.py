"""The text-to-image pipeline that is trained: opening it, its first weights, and the key of a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from equigen.cohort import Cohort, Manifest
from equigen.diffusion import (
    Pretrained,
    TextGenerator,
    build_text_pipeline,
    load_lora,
    open_pretrained,
    open_text_encoder,
    scaling_factor,
    set_trainable,
)
from equigen.errors import InputError, Problem
from equigen.files import hash_value
from equigen.latents import Autoencoder, LatentStore, channel_statistics, encode, encode_store
from equigen.training.settings import TrainSettings

HALF = {"bf16": torch.bfloat16, "auto": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class PipelineFactory:
    """A way to open the pipeline that is trained; ``open(device, dtype)`` returns a new copy each time."""

    settings: TrainSettings
    open: Callable[[str, torch.dtype], Pretrained]

    def open_trainable(self, device: str, training: str | None = None) -> Pretrained:
        """Open the pipeline with the trainable weights of the settings, from ``settings.start`` where there is one.

        Trained weights are float32; frozen ones under LoRA are in half precision on a GPU. ``training``: the device of
        the training, which decides that; None: ``device``.
        """
        settings = self.settings
        half = settings.trainable_weights.startswith("lora") and torch.device(training or device).type == "cuda"
        pretrained = self.open(device, HALF.get(settings.precision, torch.float32) if half else torch.float32)
        set_trainable(
            pretrained, settings.trainable_weights, rank=settings.rank, alpha=settings.alpha, seed=settings.seed
        )
        if settings.start is not None and settings.trainable_weights.startswith("lora"):
            earlier = self.open("cpu", torch.float32)  # the weights' base is known by its hash in full precision
            load_lora(earlier, settings.start)
            weights, parameters = _lora_weights(earlier), _lora_weights(pretrained)
            shapes = [{name: value.shape for name, value in tensors.items()} for tensors in (weights, parameters)]
            if shapes[0] != shapes[1]:
                message = "holds LoRA weights of other layers, or of another rank"
                problem = Problem(message, "ask for the same", file=settings.start)
                raise InputError("Training cannot go on from these weights.", [problem])
            with torch.no_grad():
                for name, value in weights.items():
                    parameters[name].copy_(value)
        return pretrained


def _lora_weights(pretrained: Pretrained) -> dict[str, torch.Tensor]:
    parts = {"network": pretrained.network, **pretrained.encoders}
    return {
        f"{component}.{name}": value
        for component, network in parts.items()
        for name, value in network.named_parameters()
        if "lora_" in name
    }


def pipeline_factory(settings: TrainSettings, autoencoder: Autoencoder, scale: Callable[[], float]) -> PipelineFactory:
    """Return the factory of the pipeline that ``settings`` names, or of a new one around a text encoder.

    ``autoencoder``: of a new pipeline; ``scale``: returns the factor that its latents are multiplied by.
    """
    full_training = settings.trainable_weights.startswith("unet")
    if settings.base is not None or settings.start is not None:
        from_start = settings.start is not None and (full_training or settings.base is None)
        source = str(settings.start if from_start else settings.base)
        return PipelineFactory(settings, lambda device, dtype: open_pretrained(source, device=device, dtype=dtype))
    encoder, factor = open_text_encoder(settings.text_encoder or ""), scale()

    def scratch(device: str, _dtype: torch.dtype) -> Pretrained:
        shape = (factor, settings.size, settings.preset, settings.prediction, settings.seed)
        return build_text_pipeline(encoder, autoencoder, *shape).to(device)

    return PipelineFactory(settings, scratch)


def latent_scale(
    cohort: Cohort | Manifest, autoencoder: Autoencoder, cache: str | Path, size: int, show: bool
) -> float:
    """Return the one factor that a plain pipeline multiplies latents by, from the training images."""
    training = cohort.split("train", domain="id")
    if isinstance(training, Cohort):
        return scaling_factor(*channel_statistics(encode(training, autoencoder, cache, size, show=show).values))
    return scaling_factor(*LatentStore(encode_store(training, autoencoder, cache, size, show=show)).statistics())


def check_base(settings: TrainSettings, autoencoder: Autoencoder) -> Pretrained:
    """Open the pipeline of a training with prompts on the CPU, as it will be trained; nothing is encoded.

    Raises InputError for a base, text encoder or start that cannot be opened, an image size that does not fit, LoRA
    that cannot be added, and a pipeline that cannot be sampled.
    """
    pretrained = pipeline_factory(settings, autoencoder, lambda: 1.0).open_trainable("cpu")
    pretrained.check_size(settings.size)
    TextGenerator(pretrained.pipeline(), settings.size)  # refuses what cannot be sampled
    return pretrained


def text_key(cohort: Cohort | Manifest, start: str, settings: TrainSettings) -> str:
    """Return the hash of all that a run depends on, without paths; ``start``: hash of the opened pipeline."""
    sources = {"start": settings.start is not None, "base": settings.base is not None}
    return hash_value([cohort.hash, start, {**settings.key_values(), **sources}])

"""A pretrained text-to-image pipeline with the same interface for all families."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from equigen.diffusion.pretrained.family import Family, Tensors
from equigen.diffusion.pretrained.saving import component_hash, save_pipeline
from equigen.errors import InputError, Problem
from equigen.files import hash_value
from equigen.latents import Autoencoder

if TYPE_CHECKING:
    from equigen.diffusion.pretrained.denoiser import PromptTable, TextDenoiser

FLOW = ("FlowMatch",)


class Pretrained:
    """Networks, text encoders, autoencoder and scheduler of one pipeline; ``open_pretrained`` opens one.

    ``source``: what it was opened from, a folder or hub id; ``name``: the last part of it. ``network``: the U-Net or
    transformer; ``encoders``: text encoders by their part's name; ``mean``, ``std``: of each latent channel, [C]:
    latents are normalised as (z - mean) / std, as the plain pipeline does; ``size``: side of the images that it
    was made for, in pixels; ``diffusers_pipeline``: the diffusers pipeline, whose autoencoder is always in float32.
    """

    def __init__(self, pipeline: Any, family: Family, source: str) -> None:
        self.diffusers_pipeline, self.family, self.source = pipeline, family, source
        self.name = Path(source).name if Path(source).is_dir() else source
        self.network: Any = getattr(pipeline, family.network).eval().requires_grad_(False)
        self.encoders: dict[str, Any] = {
            name: getattr(pipeline, name).eval().requires_grad_(False) for name in family.tokenizers
        }
        for encoder in self.encoders.values():
            for module in encoder.modules():  # dropout is disabled: its draws are not seeded, so no run could resume
                if isinstance(module, torch.nn.Dropout):
                    module.p = 0.0
                for name in ("dropout", "attention_dropout"):
                    if isinstance(getattr(module, name, None), float):
                        setattr(module, name, 0.0)
        self.autoencoder = Autoencoder(pipeline.vae)
        self.mean, self.std = family.statistics(pipeline.vae)
        self.size = int(self.network.config.sample_size) * self.autoencoder.factor
        self.lora: dict[str, Any] | None = None  # what ``add_lora`` put in: rank, alpha, targets, seed
        self._text_hash: str | None = None

    @property
    def scheduler(self) -> Any:
        """The scheduler of the pipeline."""
        return self.diffusers_pipeline.scheduler

    @property
    def device(self) -> torch.device:
        """The device of the network."""
        weight: torch.Tensor = next(self.network.parameters())
        return weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the network's weights."""
        weight: torch.Tensor = next(self.network.parameters())
        return weight.dtype

    def to(self, device: str | torch.device) -> Pretrained:
        """Move all components to a device."""
        self.diffusers_pipeline.to(device)
        return self

    @property
    def prediction(self) -> str:
        """The prediction of the network by its scheduler: ``epsilon``, ``v_prediction`` or ``flow``."""
        return prediction_of(self.scheduler)

    @property
    def objective_config(self) -> dict[str, Any]:
        """``prediction`` and ``steps``: the number of noise levels of training."""
        return {"prediction": self.prediction, "steps": int(self.scheduler.config.num_train_timesteps)}

    def check_size(self, size: int) -> None:
        """Raise InputError unless images of ``size`` pixels give latents that the network takes."""
        self.autoencoder.check_size(size)
        config = self.network.config
        patch = int(getattr(config, "patch_size", 1) or 1)
        largest = int(getattr(config, "pos_embed_max_size", None) or 10**9) * patch * self.autoencoder.factor
        step = patch * self.autoencoder.factor
        if size % step or size > largest:
            mend = f"use a multiple of {step}" + (f" up to {largest}" if size > largest else "")
            raise InputError("The image size does not fit the network.", [Problem(f"size {size}", mend)])

    def latent_shape(self, size: int | None = None) -> tuple[int, int, int]:
        """Shape [C, h, w] of the latents of images of ``size`` pixels; InputError where it does not fit."""
        size = self.size if size is None else size
        self.check_size(size)
        return self.autoencoder.channels, size // self.autoencoder.factor, size // self.autoencoder.factor

    def normalise(self, latents: torch.Tensor) -> torch.Tensor:
        """Return the autoencoder's latents [..., C, h, w] in the network's scale."""
        mean, std = (latents.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (latents - mean) / std

    def denormalise(self, latents: torch.Tensor) -> torch.Tensor:
        """The inverse of ``normalise``."""
        mean, std = (latents.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        return latents * std + mean

    def token_counts(self, texts: Sequence[str]) -> dict[str, list[int]]:
        """Return the number of tokens of each text by encoder, special ones included, before truncation."""
        return self.family.token_counts(texts)

    def excess(self, texts: Sequence[str]) -> list[int]:
        """Return by how many tokens each text exceeds the tightest encoder's limit; 0 where nothing is cut."""
        limits = self.family.limits
        counts = self.family.token_counts(texts)
        over = [[max(0, count - limits[name]) for count in text_counts] for name, text_counts in counts.items()]
        return [max(counts_over) for counts_over in zip(*over, strict=True)]

    @torch.no_grad()
    def encode(self, texts: Sequence[str], batch: int | None = None) -> Tensors:
        """Return the network's text inputs, one row for each text, on the CPU in the encoders' precision.

        A text has the same row whatever others it is encoded with, since every pass holds ``batch`` texts (1 on a CPU,
        32 elsewhere; the last one is filled up with the empty prompt). Texts longer than ``family.limits`` are cut:
        ask ``excess`` first.
        """
        width = batch or (1 if self.text_device.type == "cpu" else 32)
        rows: list[Tensors] = []
        for low in range(0, len(texts), width):
            chunk = list(texts[low : low + width])
            tokens = self.family.tokenize([*chunk, *[""] * (width - len(chunk))])
            inputs = {name: value.to(self.text_device) for name, value in tokens.items()}
            embedded = self.family.embed(self.encoders, inputs)
            rows.append({name: value[: len(chunk)].cpu() for name, value in embedded.items()})
        return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}

    @property
    def text_device(self) -> torch.device:
        """The device of the text encoders."""
        weight: torch.Tensor = next(next(iter(self.encoders.values())).parameters())
        return weight.device

    def move_text_encoders(self, device: str | torch.device) -> Pretrained:
        """Move the text encoders, for example to the CPU once all prompts are encoded."""
        for encoder in self.encoders.values():
            encoder.to(device)
        return self

    @property
    def trains_text(self) -> bool:
        """Return whether any weight of a text encoder is trained."""
        return any(weight.requires_grad for encoder in self.encoders.values() for weight in encoder.parameters())

    def denoiser(self, table: PromptTable) -> TextDenoiser:
        """The module that is trained: see ``TextDenoiser``. ``table``: a row for each unique text."""
        from equigen.diffusion.pretrained.denoiser import TextDenoiser

        return TextDenoiser(self, table)

    @property
    def text_hash(self) -> str:
        """Hash of encoders, tokenizers and their limits, on which the rows of texts depend."""
        if self._text_hash is None or self.trains_text:
            parts = {
                name: [component_hash(encoder), component_hash(self.family.tokenizers[name])]
                for name, encoder in self.encoders.items()
            }
            self._text_hash = hash_value([self.family.kind, parts, self.family.settings])[:16]
        return self._text_hash

    @property
    def hash(self) -> str:
        """Sixteen hexadecimal digits over all weights and settings: the name of this generator in provenance."""
        parts = [component_hash(component) for component in (self.network, self.diffusers_pipeline.vae, self.scheduler)]
        return hash_value([parts, self.text_hash])[:16]

    def set_lora(self, lora: dict[str, Any]) -> None:
        """Record that LoRA layers were added to the networks."""
        self.lora, self._text_hash = lora, None

    def pipeline(self) -> Any:
        """Return the diffusers pipeline with these networks, its autoencoder in the network's precision."""
        original = self.diffusers_pipeline
        if original.vae.dtype == self.dtype:
            return original
        vae = type(original.vae).from_config(original.vae.config)
        vae.load_state_dict(original.vae.state_dict())
        vae = vae.to(device=original.vae.device, dtype=self.dtype).eval().requires_grad_(False)
        settings = {name: value for name, value in original.config.items() if not name.startswith("_")}
        pipeline = type(original)(**{**settings, **self.family.omitted, **original.components, "vae": vae})
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def save(self, folder: str | Path, record: Mapping[str, Any] | None = None) -> Path:
        """Write a folder that plain ``from_pretrained`` opens, and ``equigen.json`` with ``record`` in it.

        Where ``record`` says nothing else the file has ``kind`` (full), ``base`` (its name), ``family``, ``size`` (of
        the images), ``hash`` (this pipeline's own) and versions of the libraries. All parts are kept, the scheduler in
        its own class. (Plain diffusers wants ``text_encoder_3=None, tokenizer_3=None`` said where a Stable Diffusion 3
        has no third encoder.) Raises InputError where LoRA weights are in the networks: ``save_lora`` writes those.
        """
        if self.lora is not None:
            mend = "write the LoRA weights with save_lora; the base stays as it was"
            raise InputError("LoRA weights are no pipeline of their own.", [Problem("add_lora was used", mend)])
        provenance = {**self.provenance("full", self.name), **(record or {})}
        return save_pipeline(self.diffusers_pipeline, Path(folder), provenance)

    def provenance(self, kind: str, base: str) -> dict[str, Any]:
        """Return the record of ``equigen.json`` for weights of a kind (full, lora)."""
        family = type(self.family).__name__
        return {"kind": kind, "base": base, "family": family, "size": self.size, "hash": self.hash}


def prediction_of(scheduler: Any) -> str:
    """Return the prediction of the network by its scheduler's configuration: epsilon, v_prediction or flow.

    Raises InputError for predictions that cannot be trained here (``sample``).
    """
    if type(scheduler).__name__.startswith(FLOW):
        return "flow"
    prediction = str(scheduler.config.get("prediction_type", "epsilon"))
    predictions = {"epsilon": "epsilon", "v_prediction": "v_prediction", "flow_prediction": "flow"}
    if prediction not in predictions:
        problem = Problem(f"its scheduler predicts '{prediction}'", f"use one that predicts {', '.join(predictions)}")
        raise InputError("This kind of pipeline cannot be trained.", [problem])
    return predictions[prediction]

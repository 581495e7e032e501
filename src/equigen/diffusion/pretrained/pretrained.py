"""A pretrained text-to-image pipeline with one face for all families."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from equigen.diffusion.pretrained.family import Family, Tensors
from equigen.diffusion.pretrained.fingerprint import part_hash
from equigen.diffusion.pretrained.saving import save_pipeline
from equigen.errors import InputError, Problem
from equigen.files import hash_value
from equigen.latents import Autoencoder

if TYPE_CHECKING:
    from equigen.diffusion.pretrained.denoiser import TextDenoiser
    from equigen.diffusion.pretrained.memory import Table

FLOW = ("FlowMatch",)


class Pretrained:
    """Networks, text encoders, autoencoder and scheduler of one pipeline; ``open_pretrained`` opens one.

    ``place``: what it was opened from, a folder or hub id; ``name``: the last part of it. ``network``: the U-Net or
    transformer; ``encoders``: text encoders by their part's name; ``mean``, ``std``: of each latent channel, [C]:
    latents are normalised as (z - mean) / std, as the plain pipeline does; ``size``: side of the images that it
    was made for, in pixels; ``plain``: the diffusers pipeline, whose autoencoder is always in float32.
    """

    def __init__(self, pipeline: Any, family: Family, place: str) -> None:
        self.plain, self.family, self.place = pipeline, family, place
        self.name = Path(place).name if Path(place).is_dir() else place
        self.network: Any = getattr(pipeline, family.network).eval().requires_grad_(False)
        self.encoders: dict[str, Any] = {
            part: getattr(pipeline, part).eval().requires_grad_(False) for part in family.tokenizers
        }
        for encoder in self.encoders.values():
            _without_dropout(encoder)
        self.autoencoder = Autoencoder(pipeline.vae)
        self.mean, self.std = family.statistics(pipeline.vae)
        self.size = int(self.network.config.sample_size) * self.autoencoder.factor
        self.lora: dict[str, Any] | None = None  # what ``add_lora`` put in: rank, alpha, targets, seed
        self._text_hash: str | None = None

    @property
    def scheduler(self) -> Any:
        """The pipeline's own scheduler."""
        return self.plain.scheduler

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        weight: torch.Tensor = next(self.network.parameters())
        return weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the network's weights."""
        weight: torch.Tensor = next(self.network.parameters())
        return weight.dtype

    def to(self, device: str | torch.device) -> Pretrained:
        """Move all parts."""
        self.plain.to(device)
        return self

    @property
    def prediction(self) -> str:
        """What the network predicts: ``epsilon``, ``v_prediction`` or ``flow``, as its scheduler says."""
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

    def normalised(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents as the autoencoder gives them, [..., C, h, w] -> as the network sees them."""
        mean, std = (latents.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (latents - mean) / std

    def denormalised(self, latents: torch.Tensor) -> torch.Tensor:
        """The inverse of ``normalised``."""
        mean, std = (latents.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        return latents * std + mean

    def token_counts(self, texts: Sequence[str]) -> dict[str, list[int]]:
        """Tokens of each text by encoder, special ones included, before anything is cut."""
        return self.family.token_counts(texts)

    def excess(self, texts: Sequence[str]) -> list[int]:
        """By how many tokens each text is over the tightest encoder's limit; 0 where nothing is cut."""
        limits = self.family.limits
        counts = self.family.token_counts(texts)
        over = [[max(0, count - limits[part]) for count in found] for part, found in counts.items()]
        return [max(of_one) for of_one in zip(*over, strict=True)]

    @torch.no_grad()
    def encode(self, texts: Sequence[str], batch: int | None = None) -> Tensors:
        """What the network gets for each text, one row a text, on the CPU in the encoders' precision.

        A text has the same row whatever others it is encoded with, since every pass holds ``batch`` texts (1 on a CPU,
        32 elsewhere; the last one is filled up with the empty prompt). Texts longer than ``family.limits`` are cut:
        ask ``excess`` first.
        """
        width = batch or (1 if self.text_device.type == "cpu" else 32)
        rows: list[Tensors] = []
        for low in range(0, len(texts), width):
            part = list(texts[low : low + width])
            tokens = self.family.tokenize([*part, *[""] * (width - len(part))])
            placed = {name: value.to(self.text_device) for name, value in tokens.items()}
            embedded = self.family.embed(self.encoders, placed)
            rows.append({name: value[: len(part)].cpu() for name, value in embedded.items()})
        return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}

    @property
    def text_device(self) -> torch.device:
        """Where the text encoders are."""
        weight: torch.Tensor = next(next(iter(self.encoders.values())).parameters())
        return weight.device

    def text_to(self, device: str | torch.device) -> Pretrained:
        """Move the text encoders, to the CPU once all prompts are encoded, say."""
        for encoder in self.encoders.values():
            encoder.to(device)
        return self

    @property
    def trains_text(self) -> bool:
        """Whether any weight of a text encoder is trained."""
        return any(weight.requires_grad for encoder in self.encoders.values() for weight in encoder.parameters())

    def denoiser(self, table: Table) -> TextDenoiser:
        """The module that is trained: see ``TextDenoiser``. ``table``: a row for each unique text."""
        from equigen.diffusion.pretrained.denoiser import TextDenoiser

        return TextDenoiser(self, table)

    @property
    def text_hash(self) -> str:
        """Name of what turns texts into rows: encoders, tokenizers, and their limits."""
        if self._text_hash is None or self.trains_text:
            parts = {
                name: [part_hash(encoder), part_hash(self.family.tokenizers[name])]
                for name, encoder in self.encoders.items()
            }
            self._text_hash = hash_value([self.family.kind, parts, self.family.settings])[:16]
        return self._text_hash

    @property
    def hash(self) -> str:
        """Sixteen hexadecimal digits over all weights and settings: the name of this generator in provenance."""
        parts = [part_hash(part) for part in (self.network, self.plain.vae, self.scheduler)]
        return hash_value([parts, self.text_hash])[:16]

    def adapted(self, lora: dict[str, Any]) -> None:
        """Note that LoRA layers were put into the networks."""
        self.lora, self._text_hash = lora, None

    def pipeline(self) -> Any:
        """The plain diffusers pipeline, with these very networks in it, in the network's precision."""
        if self.plain.vae.dtype != self.dtype:
            parts = {**self.plain.components, "vae": _copied(self.plain.vae, self.dtype)}
            own = {name: value for name, value in self.plain.config.items() if not name.startswith("_")}
            made = type(self.plain)(**{**own, **self.family.absent, **parts})
            made.set_progress_bar_config(disable=True)
            return made
        return self.plain

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
        return save_pipeline(self.plain, Path(folder), {**self.told("full", self.name), **(record or {})})

    def told(self, kind: str, base: str) -> dict[str, Any]:
        """What ``equigen.json`` says beside weights of a kind (full, lora)."""
        family = type(self.family).__name__
        return {"kind": kind, "base": base, "family": family, "size": self.size, "hash": self.hash}


def prediction_of(scheduler: Any) -> str:
    """What a diffusers scheduler's configuration says that the network predicts.

    Raises InputError for predictions that cannot be trained here (``sample``).
    """
    if type(scheduler).__name__.startswith(FLOW):
        return "flow"
    found = str(scheduler.config.get("prediction_type", "epsilon"))
    known = {"epsilon": "epsilon", "v_prediction": "v_prediction", "flow_prediction": "flow"}
    if found not in known:
        problem = Problem(f"its scheduler predicts '{found}'", f"use one that predicts {', '.join(known)}")
        raise InputError("This kind of pipeline cannot be trained.", [problem])
    return known[found]


def _without_dropout(encoder: Any) -> None:
    """No dropout while a text encoder is trained: it would draw from no seed of ours, and no run could resume."""
    for module in encoder.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name in ("dropout", "attention_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


def _copied(network: Any, dtype: torch.dtype) -> Any:
    """A copy of a network in another precision."""
    copy = type(network).from_config(network.config)
    copy.load_state_dict(network.state_dict())
    return copy.to(device=network.device, dtype=dtype).eval().requires_grad_(False)

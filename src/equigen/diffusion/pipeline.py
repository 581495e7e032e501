"""A trained generator as a diffusers pipeline: a folder that ``EquigenPipeline.from_pretrained`` opens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pandas as pd
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import logging
from numpy.typing import NDArray
from safetensors import SafetensorError

from equigen.devices import best_device
from equigen.diffusion.networks import ConditionTokens, Denoiser
from equigen.diffusion.request import EVERYWHERE, Interval, Request, check_sampler, requests, within
from equigen.diffusion.samplers import DEFAULT_SOLVER, noise_levels, set_steps, solver
from equigen.diffusion.vocabulary import DROPPED, Vocabulary
from equigen.errors import InputError, Problem
from equigen.files import hash_value
from equigen.latents import Autoencoder, weight_hash
from equigen.model_files import folder_problems, weight_fault
from equigen.progress import silence_library

Fields = dict[str, list[str]] | list[tuple[str, list[str]]]
"""Fields and their levels, in the order of the tokens; pairs in the files."""


class EquigenPipeline(DiffusionPipeline):  # type: ignore[misc]
    """Conditions and seeds to images, by a named solver with classifier-free guidance.

    Besides the networks it keeps what they were trained with: the channel statistics that latents are normalised by,
    the vocabulary of conditions, and the image size. Open a folder with ``EquigenPipeline.from_pretrained`` (or
    ``open_generator``): plain ``DiffusionPipeline.from_pretrained`` only knows the classes of diffusers itself.
    """

    mixes_guidance = True

    def __init__(
        self,
        unet: Any,
        tokens: ConditionTokens,
        vae: Any,
        scheduler: Any,
        # diffusers reads parameters with defaults from the folder's model_index.json
        latent_mean: Sequence[float] = (),
        latent_std: Sequence[float] = (),
        vocabulary: Fields | None = None,
        size: int = 64,
    ) -> None:
        super().__init__()
        self.words = Vocabulary(dict(vocabulary or {}))
        self.register_modules(unet=unet, tokens=tokens, vae=vae, scheduler=scheduler)
        self.register_to_config(
            latent_mean=list(latent_mean),
            latent_std=list(latent_std),
            # as pairs: diffusers sorts the keys of a mapping, and tokens stand in the order of the fields
            vocabulary=[[name, levels] for name, levels in self.words.fields.items()],
            size=size,
        )
        self.denoiser = Denoiser(unet, tokens).eval().requires_grad_(False)
        self.autoencoder = Autoencoder(vae)

    @property
    def size(self) -> int:
        """Side of an image in pixels."""
        return int(self.config["size"])

    @property
    def latent_side(self) -> int:
        """Side of the latents."""
        return self.size // int(self.autoencoder.factor)

    @property
    def hash(self) -> str:
        """Sixteen hexadecimal digits over all weights and settings: the name of this generator in provenance.

        The same before ``save_pretrained`` and after ``from_pretrained``: of the scheduler's private notes only those
        that a saved file holds are counted.
        """
        noted = {"_class_name": type(self.scheduler).__name__, "_diffusers_version": diffusers.__version__}
        schedule = {**noted, **self.scheduler.config}
        settings = {name: self.config[name] for name in ("latent_mean", "latent_std", "size")}
        settings["vocabulary"] = list(self.words.fields.items())
        parts = [
            weight_hash(self.unet),
            weight_hash(self.tokens),
            self.autoencoder.hash,
            settings,
            {name: value for name, value in schedule.items() if name != "_use_default_values"},
        ]
        return hash_value(parts)[:16]

    def starting_noise(self, seeds: Sequence[int]) -> torch.Tensor:
        """[B, C, h, w]: the noise of each image from its own seed alone."""
        shape = (self.autoencoder.channels, self.latent_side, self.latent_side)
        return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(int(seed))) for seed in seeds])

    def check(self, plan: pd.DataFrame) -> None:
        """Raise InputError for rows of a plan that cannot be made: unknown levels, solver, steps, a negative prompt."""
        self.words.encode(plan)
        check_tokens(requests(plan)[0], self.scheduler)

    @torch.no_grad()
    def __call__(
        self,
        conditions: pd.DataFrame,
        seeds: Sequence[int],
        guidance: float | Sequence[float] = 2.0,
        steps: int = 20,
        solver: str = DEFAULT_SOLVER,
        interval: Interval = EVERYWHERE,
        negative: str = "",
    ) -> NDArray[np.uint8]:
        """Generate one image for each row of ``conditions`` and seed.

        ``conditions``: columns ``attr.*`` and ``label.*`` of level names, missing meaning unknown. ``guidance``: one
        scale or one an image; 1 is plain conditional sampling. ``steps``: network evaluations per image (twice that
        with guidance). ``solver``: dpm++, ddim, unipc or euler. ``interval``: noise levels t / T that are guided.
        ``negative``: must be empty, there are no prompts. Returns [B, size, size, 3] uint8. Raises InputError for
        unknown levels, lengths that differ, and what the sampler cannot do.
        """
        scale = np.asarray(guidance, dtype=np.float32)
        check_call(len(conditions), len(seeds), scale)
        check_tokens([Request(float(w), steps, solver, interval, negative) for w in np.unique(scale)], self.scheduler)
        ids = self.words.encode(conditions)
        scales = torch.from_numpy(np.broadcast_to(scale, len(conditions)).copy())
        latents = self.sample(self.starting_noise(seeds), ids, scales, steps, solver, interval)
        return self.autoencoder.decode(self.denormalised(latents))

    def denormalised(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents of unit variance -> latents as the autoencoder knows them."""
        mean = torch.tensor(self.config["latent_mean"], device=latents.device)[:, None, None]
        return latents * torch.tensor(self.config["latent_std"], device=latents.device)[:, None, None] + mean

    def sample(
        self, noise: torch.Tensor, ids: torch.Tensor, guidance: torch.Tensor, steps: int,
        by: str = DEFAULT_SOLVER, interval: Interval = EVERYWHERE,
    ) -> torch.Tensor:
        """Noise [B, C, h, w], token numbers [B, F], guidance [B] -> normalised latents [B, C, h, w].

        ``by``: name of the solver; ``interval``: noise levels at which the network is asked twice, if at all.
        """
        device = next(self.denoiser.parameters()).device
        scheduler = set_steps(solver(by, self.scheduler), steps, device)
        # flow matching has no such scale: there noise is the latent at t = T
        latents: torch.Tensor = noise.to(device) * getattr(scheduler, "init_noise_sigma", 1.0)
        ids = ids.to(device)
        scale = guidance.to(device)[:, None, None, None]
        guided = bool((guidance != 1).any())
        twice = [guided and within(level, interval) for level in noise_levels(scheduler)]
        for step, both in zip(scheduler.timesteps, twice, strict=True):
            times = step.expand(len(latents))
            scaled = scheduler.scale_model_input(latents, step) if hasattr(scheduler, "scale_model_input") else latents
            output = self.denoiser(scaled, times, ids)
            if both:
                free = self.denoiser(scaled, times, torch.full_like(ids, DROPPED))
                output = free + scale * (output - free)
            latents = scheduler.step(output, step, latents, return_dict=False)[0]
        return latents


def check_call(conditions: int, seeds: int, guidance: NDArray[np.float32]) -> None:
    """InputError for a call of a generator whose arguments do not fit each other."""
    problems = []
    if not conditions:
        problems.append(Problem("there are no conditions", "ask for at least one image"))
    if seeds != conditions:
        problems.append(Problem(f"{conditions} conditions and {seeds} seeds", "give one seed an image"))
    if guidance.shape not in {(), (conditions,)}:
        problems.append(Problem(f"guidance of shape {guidance.shape}", "give one scale, or one an image"))
    if problems:
        raise InputError("These images cannot be made.", problems)


def check_tokens(asked: Sequence[Request], scheduler: Any) -> None:
    """InputError for what a generator that knows tokens, trained with ``scheduler``'s noise, cannot be asked."""
    check_sampler(asked, lambda name: solver(name, scheduler))
    told = [one.negative for one in asked if one.negative]
    if told:
        mend = "leave it empty: this generator takes attributes and labels, no prompts"
        raise InputError("A negative prompt cannot be used.", [Problem(f"'{told[0]}'", mend, column="negative")])


def open_generator(folder: str | Path, device: str | None = None) -> EquigenPipeline:
    """Open a generator folder; InputError names what is missing or damaged."""
    path = Path(folder)
    if not (path / "model_index.json").is_file():
        problem = Problem(
            "holds no model_index.json",
            "give the folder that `equigen train` wrote, and let training finish first",
            file=str(path),
        )
        raise InputError("There is no generator here.", [problem])
    parts = ("tokens", "unet", "vae")
    problems = [*folder_problems(path, weights=False), *(one for name in parts for one in folder_problems(path / name))]
    if problems:
        raise InputError("The generator cannot be opened.", problems)
    try:
        with silence_library(logging):
            pipeline: EquigenPipeline = EquigenPipeline.from_pretrained(
                str(path), use_safetensors=True, local_files_only=True, low_cpu_mem_usage=False
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        mend = "copy the whole folder, or delete its training.json and run `equigen train` again"
        raise InputError("The generator is damaged.", [Problem(str(error), mend, file=str(path))]) from error
    pipeline.set_progress_bar_config(disable=True)
    for part in parts:
        odd = weight_fault(getattr(pipeline, part).state_dict())
        if odd is not None:
            problem = Problem(odd, "train again", file=str(path / part))
            raise InputError("The generator is damaged.", [problem])
    return pipeline.to(device or best_device())  # type: ignore[no-any-return]

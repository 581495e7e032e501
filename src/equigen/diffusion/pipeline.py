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
from equigen.diffusion.request import FULL_INTERVAL, Interval, Request, check_sampler, in_interval, sampling_requests
from equigen.diffusion.samplers import DEFAULT_SOLVER, noise_levels, set_steps, solver
from equigen.diffusion.vocabulary import DROPPED, Vocabulary
from equigen.errors import InputError, Problem
from equigen.files import hash_value
from equigen.latents import Autoencoder, weight_hash
from equigen.model_files import folder_problems, nonfinite_weight
from equigen.progress import silence_library

Fields = dict[str, list[str]] | list[tuple[str, list[str]]]
"""Fields and their levels, in the order of the tokens; pairs in the files."""


class EquigenPipeline(DiffusionPipeline):  # type: ignore[misc]
    """Class-conditional generator: conditions and seeds to images, by a named solver with classifier-free guidance.

    Besides the networks it holds the channel statistics that latents are normalised by, the vocabulary of conditions,
    and the image size. Open a folder with ``EquigenPipeline.from_pretrained`` (or
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
        """Return noise [B, C, h, w], of each image from its own seed alone."""
        shape = (self.autoencoder.channels, self.latent_side, self.latent_side)
        return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(int(seed))) for seed in seeds])

    def check(self, plan: pd.DataFrame) -> None:
        """Raise InputError for rows of a plan that cannot be made: unknown levels, solver, steps, a negative prompt."""
        self.words.encode(plan)
        check_token_requests(sampling_requests(plan)[0], self.scheduler)

    @torch.no_grad()
    def __call__(
        self,
        conditions: pd.DataFrame,
        seeds: Sequence[int],
        guidance: float | Sequence[float] = 2.0,
        steps: int = 20,
        solver: str = DEFAULT_SOLVER,
        interval: Interval = FULL_INTERVAL,
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
        requests = [Request(float(w), steps, solver, interval, negative) for w in np.unique(scale)]
        check_token_requests(requests, self.scheduler)
        ids = self.words.encode(conditions)
        scales = torch.from_numpy(np.broadcast_to(scale, len(conditions)).copy())
        latents = self.sample(self.starting_noise(seeds), ids, scales, steps, solver, interval)
        return self.autoencoder.decode(self.denormalise(latents))

    def denormalise(self, latents: torch.Tensor) -> torch.Tensor:
        """Return latents in the autoencoder's scale from latents of unit variance."""
        mean = torch.tensor(self.config["latent_mean"], device=latents.device)[:, None, None]
        return latents * torch.tensor(self.config["latent_std"], device=latents.device)[:, None, None] + mean

    def sample(
        self,
        noise: torch.Tensor,
        ids: torch.Tensor,
        guidance: torch.Tensor,
        steps: int,
        by: str = DEFAULT_SOLVER,
        interval: Interval = FULL_INTERVAL,
    ) -> torch.Tensor:
        """Return normalised latents [B, C, h, w] from noise [B, C, h, w], token numbers [B, F] and guidance [B].

        ``by``: name of the solver; ``interval``: noise levels that are guided, with two network calls.
        """
        device = next(self.denoiser.parameters()).device
        scheduler = set_steps(solver(by, self.scheduler), steps, device)
        # flow matching has no such scale: there noise is the latent at t = T
        latents: torch.Tensor = noise.to(device) * getattr(scheduler, "init_noise_sigma", 1.0)
        ids = ids.to(device)
        scale = guidance.to(device)[:, None, None, None]
        guided = bool((guidance != 1).any())
        guided_steps = [guided and in_interval(level, interval) for level in noise_levels(scheduler)]
        for step, is_guided in zip(scheduler.timesteps, guided_steps, strict=True):
            times = step.expand(len(latents))
            scaled = scheduler.scale_model_input(latents, step) if hasattr(scheduler, "scale_model_input") else latents
            output = self.denoiser(scaled, times, ids)
            if is_guided:
                unconditional = self.denoiser(scaled, times, torch.full_like(ids, DROPPED))
                output = unconditional + scale * (output - unconditional)
            latents = scheduler.step(output, step, latents, return_dict=False)[0]
        return latents


def check_call(conditions: int, seeds: int, guidance: NDArray[np.float32]) -> None:
    """Raise InputError for a call of a generator whose arguments do not fit each other."""
    problems = []
    if not conditions:
        problems.append(Problem("there are no conditions", "ask for at least one image"))
    if seeds != conditions:
        problems.append(Problem(f"{conditions} conditions and {seeds} seeds", "give one seed an image"))
    if guidance.shape not in {(), (conditions,)}:
        problems.append(Problem(f"guidance of shape {guidance.shape}", "give one scale, or one an image"))
    if problems:
        raise InputError("These images cannot be made.", problems)


def check_token_requests(requests: Sequence[Request], scheduler: Any) -> None:
    """Raise InputError for requests that a generator with tokens, trained with ``scheduler``, cannot sample."""
    check_sampler(requests, lambda name: solver(name, scheduler))
    prompts = [request.negative for request in requests if request.negative]
    if prompts:
        mend = "leave it empty: this generator takes attributes and labels, no prompts"
        raise InputError("A negative prompt cannot be used.", [Problem(f"'{prompts[0]}'", mend, column="negative")])


def open_generator(folder: str | Path, device: str | None = None) -> EquigenPipeline:
    """Open a generator folder; raises InputError that names missing or damaged files."""
    path = Path(folder)
    if not (path / "model_index.json").is_file():
        problem = Problem(
            "holds no model_index.json",
            "give the folder that `equigen train` wrote, and let training finish first",
            file=str(path),
        )
        raise InputError("There is no generator here.", [problem])
    parts = ("tokens", "unet", "vae")
    problems = folder_problems(path, weights=False)
    problems += [problem for name in parts for problem in folder_problems(path / name)]
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
    for component in parts:
        damage = nonfinite_weight(getattr(pipeline, component).state_dict())
        if damage is not None:
            problem = Problem(damage, "train again", file=str(path / component))
            raise InputError("The generator is damaged.", [problem])
    return pipeline.to(device or best_device())  # type: ignore[no-any-return]

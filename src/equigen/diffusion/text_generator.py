"""A text-to-image pipeline of diffusers as a generator: the prompt of each row to an image, by its own ``__call__``."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from equigen.diffusion.pipeline import check_call
from equigen.diffusion.request import EVERYWHERE, Interval, Request, check_sampler, requests, within
from equigen.diffusion.samplers import DEFAULT_SOLVER, hushed, noise_levels, set_steps, solver
from equigen.errors import InputError, Problem
from equigen.files import hash_value
from equigen.latents import Autoencoder, block_side, weight_hash

OWN = "own"
# What the loop of a pipeline lets a callback change between two steps; nothing where it asks for no callback's answer.
CHANGEABLE = {
    "StableDiffusionPipeline": ("prompt_embeds",),
    "StableDiffusionXLPipeline": ("prompt_embeds", "add_text_embeds", "add_time_ids"),
    "StableDiffusion3Pipeline": ("prompt_embeds", "pooled_prompt_embeds"),
    "PixArtAlphaPipeline": (),
    "PixArtSigmaPipeline": (),
}
# PixArt maps sizes to those it was trained at, and cleans prompts where two other packages happen to be installed.
SETTINGS = {name: {"use_resolution_binning": False, "clean_caption": False} for name in CHANGEABLE if "PixArt" in name}
Turns = Callable[[bool], dict[str, Any]]
UNSLICED = 32  # side of latents up to which images are decoded together


class TextGenerator:
    """A pipeline of Stable Diffusion 1, 2, XL or 3, or PixArt, called as an ``EquigenPipeline`` is.

    Each image has a CPU generator of its own seed, so its noise is the same on any device and in any batch, and plain
    diffusers gives the same image: ``pipeline(prompt, generator=torch.Generator().manual_seed(seed),
    guidance_scale=..., num_inference_steps=..., height=size, width=size)`` with ``pipeline.scheduler =
    equigen.diffusion.solver("dpm++", pipeline.scheduler)``, or with the scheduler that it came with where the solver
    is ``own`` (for PixArt also ``use_resolution_binning=False, clean_caption=False``). Alone it is the same to the
    last bit; among others libraries may round differently, which shows as one grey level at most.

    A safety checker or watermark of the pipeline is taken off: one paints images black, the other alters them, and
    neither would be in the record. ``size``: side of the images in pixels; None: what the network was made for.
    """

    mixes_guidance = False

    def __init__(self, pipeline: Any, size: int | None = None) -> None:
        self.family = type(pipeline).__name__
        if self.family not in CHANGEABLE:
            problem = Problem(f"it is a {self.family}", f"use one of {', '.join(CHANGEABLE)}")
            raise InputError("This kind of pipeline cannot be used.", [problem])
        self.pipeline, self.own = pipeline, pipeline.scheduler
        network = pipeline.unet if hasattr(pipeline, "unet") else pipeline.transformer
        # an autoencoder over blocks of pixels shrinks by more than the pipeline knows, and is not decoded by it
        self.blocks = Autoencoder(pipeline.vae) if block_side(int(pipeline.vae.config.in_channels)) > 1 else None
        known = int(pipeline.vae_scale_factor)
        factor = known if self.blocks is None else self.blocks.factor
        self.size = size if size is not None else int(network.config.sample_size) * factor
        self.latent_side = self.size // factor
        self.told = self.latent_side * known  # the side that the pipeline is asked for
        # pipelines want multiples of 8 of what they take for pixels
        unit = math.lcm(8 * factor // known, factor * int(network.config.get("patch_size") or 1))
        if self.size < 1 or self.size % unit:
            problem = Problem(f"size {self.size}", f"use a multiple of {unit}")
            raise InputError("The images cannot have this size.", [problem])
        pipeline.set_progress_bar_config(disable=True)
        pipeline.safety_checker = pipeline.watermark = None
        if self.latent_side > UNSLICED:
            pipeline.vae.enable_slicing()  # images are decoded one by one: all at once need more memory than sampling

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        device: torch.device = self.pipeline.device
        return device

    @cached_property
    def autoencoder(self) -> Autoencoder:
        """The pipeline's own."""
        return self.blocks or Autoencoder(self.pipeline.vae)

    @cached_property
    def hash(self) -> str:
        """Sixteen hexadecimal digits over all weights (of LoRA too), tokenizers, settings, size and precision."""
        parts: list[Any] = [self.family, self.size, SETTINGS.get(self.family)]
        for name, part in sorted(self.pipeline.components.items()):
            if isinstance(part, torch.nn.Module):
                parts.append([name, type(part).__name__, str(part.dtype), _settings(part), weight_hash(part)])
            elif hasattr(part, "get_vocab"):
                parts.append([name, type(part).__name__, part.model_max_length, _words(part)])
        return hash_value([*parts, type(self.own).__name__, _settings(self.own)])[:16]

    def check(self, plan: pd.DataFrame) -> None:
        """Raise InputError for rows of a plan that cannot be made: no prompt, or what the sampler cannot do."""
        if "prompt" not in plan:
            problem = Problem("is missing", "give each row its prompt", column="prompt")
            raise InputError("There is nothing to say to the generator.", [problem])
        empty = np.flatnonzero(plan["prompt"].isna())
        problems = [Problem("is empty", "give each row its prompt", row=int(row) + 2, column="prompt") for row in empty]
        if problems:
            raise InputError("There is nothing to say to the generator.", problems)
        self._check_requests(requests(plan)[0])

    def _check_requests(self, asked: Sequence[Request]) -> None:
        low = [one.guidance for one in asked if one.guidance < 1]
        if low:
            problem = Problem(f"guidance {low[0]}", "use 1 or more: pipelines of diffusers do not guide below 1")
            raise InputError("These images cannot be made.", [problem])
        if not CHANGEABLE[self.family] and any(one.guided and one.interval != EVERYWHERE for one in asked):
            problem = Problem(f"{self.family} cannot change it between steps", "leave out guidance_low, guidance_high")
            raise InputError("Guidance cannot be limited with this model.", [problem])
        check_sampler(asked, self._solver)
        if "PixArt" in self.family and any(one.steps == 1 and one.solver != OWN for one in asked):
            problem = Problem("1 step", "use at least 2: with 1 the pipeline wants a scheduler of distilled models")
            raise InputError("These images cannot be made.", [problem])

    def _solver(self, name: str) -> Any:
        """A fresh scheduler for a name; ``own`` is the one that the pipeline came with."""
        return copy.deepcopy(self.own) if name == OWN else solver(name, self.own)

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
        """Generate one image for each row of ``conditions`` and seed; rows of one guidance go through together.

        ``conditions``: column ``prompt``. ``guidance``: one scale or one an image, 1 (plain conditional sampling) or
        more. ``solver``: dpm++, ddim, unipc, euler, or ``own``. ``interval``: noise levels t / T that are guided;
        elsewhere the network is asked once. ``negative``: a negative prompt. Returns [B, size, size, 3] uint8. Raises
        InputError for what the pipeline cannot do, and for images that are no numbers.
        """
        check_call(len(conditions), len(seeds), np.asarray(guidance, dtype=np.float32))
        scales = np.broadcast_to(np.asarray(guidance, dtype=np.float64), len(conditions))
        asked = [Request(float(scale), steps, solver, interval, negative) for scale in np.unique(scales)]
        self._check_requests(asked)
        prompts, numbers = np.array(conditions["prompt"], dtype=object), np.array(seeds, dtype=object)
        images = np.empty((len(conditions), self.size, self.size, 3), dtype=np.uint8)
        for one in asked:
            at = np.flatnonzero(scales == one.guidance)
            images[at] = self._images(one, list(prompts[at]), list(numbers[at]))
        return images

    def _images(self, asked: Request, prompts: list[str], seeds: list[int]) -> NDArray[np.uint8]:
        """Images of prompts that all ask for the same."""
        self.pipeline.scheduler = self._solver(asked.solver)
        limited = asked.guided and asked.interval != EVERYWHERE
        try:
            with hushed():
                made = self.pipeline(
                    **(self._limits(asked, prompts) if limited else self._plain(asked, prompts)),
                    num_inference_steps=asked.steps, height=self.told, width=self.told,
                    output_type="np" if self.blocks is None else "latent",
                    generator=[torch.Generator().manual_seed(int(seed)) for seed in seeds],
                    **SETTINGS.get(self.family, {}),
                ).images  # fmt: skip
        finally:
            self.pipeline.scheduler = self.own
        if not np.isfinite(made if self.blocks is None else made.float().cpu().numpy()).all():
            problem = Problem("the pipeline made values that are no numbers", "use precision bf16 or fp32")
            raise InputError("These images cannot be made.", [problem])
        if self.blocks is not None:
            return self.blocks.decode(made.float() / float(self.blocks.network.config.scaling_factor))
        return (made * 255).round().astype(np.uint8)  # type: ignore[no-any-return]

    def _plain(self, asked: Request, prompts: list[str]) -> dict[str, Any]:
        """Arguments of a call that guides at every noise level, or at none."""
        negative = {"negative_prompt": [asked.negative] * len(prompts)} if asked.negative and asked.guided else {}
        return {"prompt": prompts, "guidance_scale": asked.guidance, **negative}

    def _limits(self, asked: Request, prompts: list[str]) -> dict[str, Any]:
        """Arguments of a call that guides within an interval only.

        Between two steps a callback sets the pipeline's scale and hands it the embeddings that go with it, as
        diffusers' own callbacks do that end guidance early. The prompts are encoded here, since a pipeline that starts
        without guidance would not encode what guidance needs.
        """
        levels = noise_levels(set_steps(self._solver(asked.solver), asked.steps))
        told = [within(level, asked.interval) for level in levels]
        given, turns = self._embeddings(asked, prompts)

        def turn(pipeline: Any, step: int, _time: Any, now: dict[str, Any]) -> dict[str, Any]:
            if step + 1 < len(told):
                guided = told[step + 1]
                pipeline._guidance_scale = asked.guidance if guided else 1.0
                now |= turns(guided)
                if "add_time_ids" in now:  # one row an image, all of them the same
                    now["add_time_ids"] = now["add_time_ids"][:1].repeat(len(prompts) * (1 + guided), 1)
            return now

        return {
            **given, "guidance_scale": asked.guidance if told[0] else 1.0, "callback_on_step_end": turn,
            "callback_on_step_end_tensor_inputs": list(CHANGEABLE[self.family]),
        }  # fmt: skip

    def _embeddings(self, asked: Request, prompts: list[str]) -> tuple[dict[str, Any], Turns]:
        """Embeddings to call the pipeline with, and what it needs of them in a step that is guided or not."""
        negative = {"negative_prompt": [asked.negative] * len(prompts)} if asked.negative else {}
        more = {"prompt_2": None, "prompt_3": None} if self.family == "StableDiffusion3Pipeline" else {}
        # (prompt, negative) or (prompt, negative, pooled, pooled negative)
        parts = self.pipeline.encode_prompt(
            prompt=prompts, device=self.pipeline._execution_device, num_images_per_prompt=1,
            do_classifier_free_guidance=True, **negative, **more,
        )  # fmt: skip
        names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
        given = dict(zip(names, parts, strict=False))

        def turns(guided: bool) -> dict[str, Any]:
            pairs = zip(CHANGEABLE[self.family], zip(parts[0::2], parts[1::2], strict=True), strict=False)
            return {name: torch.cat([free, own]) if guided else own for name, (own, free) in pairs}

        return given, turns


def _words(tokenizer: Any) -> Any:
    """Vocabulary and merges of a tokenizer, without what a call leaves behind in it (the length it cut to, say)."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return tokenizer.get_vocab() if backend is None else json.loads(backend.to_str())["model"]


def _settings(part: Any) -> dict[str, Any]:
    """Settings of a network, encoder or scheduler, without versions and the places that it came from."""
    config = part.config.to_dict() if hasattr(part.config, "to_dict") else dict(part.config)
    left_out = {"transformers_version", "dtype", "torch_dtype", "architectures"}
    return {key: value for key, value in config.items() if not key.startswith("_") and key not in left_out}

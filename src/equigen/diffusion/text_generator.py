"""A text-to-image pipeline of diffusers as a generator: one image for the prompt of each row."""

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
from equigen.diffusion.request import FULL_INTERVAL, Interval, Request, check_sampler, in_interval, sampling_requests
from equigen.diffusion.samplers import DEFAULT_SOLVER, ignore_array_warnings, noise_levels, set_steps, solver
from equigen.errors import InputError, Problem
from equigen.files import hash_value
from equigen.latents import Autoencoder, block_side, weight_hash

OWN_SOLVER = "own"
# tensors that a pipeline's callback may change between two steps; none where the pipeline ignores what it returns
CALLBACK_TENSORS = {
    "StableDiffusionPipeline": ("prompt_embeds",),
    "StableDiffusionXLPipeline": ("prompt_embeds", "add_text_embeds", "add_time_ids"),
    "StableDiffusion3Pipeline": ("prompt_embeds", "pooled_prompt_embeds"),
    "PixArtAlphaPipeline": (),
    "PixArtSigmaPipeline": (),
}
# by default PixArt maps sizes to those it was trained at, and cleans prompts where two other packages are installed
PIXART = {"use_resolution_binning": False, "clean_caption": False}
SETTINGS = {name: PIXART for name in CALLBACK_TENSORS if "PixArt" in name}
StepEmbeddings = Callable[[bool], dict[str, Any]]
UNSLICED = 32  # side of latents up to which images are decoded together


class TextGenerator:
    """A pipeline of Stable Diffusion 1, 2, XL or 3, or PixArt, called as an ``EquigenPipeline`` is.

    Each image has a CPU generator of its own seed, so its noise is the same on any device and in any batch, and plain
    diffusers gives the same image: ``pipeline(prompt, generator=torch.Generator().manual_seed(seed),
    guidance_scale=..., num_inference_steps=..., height=size, width=size)`` with ``pipeline.scheduler =
    equigen.diffusion.solver("dpm++", pipeline.scheduler)``, or with the scheduler that it came with where the solver
    is ``own`` (for PixArt also ``use_resolution_binning=False, clean_caption=False``). An image sampled alone is the
    same to the last bit; in a batch libraries may round differently, by one grey level at most.

    A safety checker or watermark of the pipeline is removed: one blackens images, the other alters them, and neither
    would be in the record. ``size``: side of the images in pixels; None: that of the network's training.
    """

    mixes_guidance = False

    def __init__(self, pipeline: Any, size: int | None = None) -> None:
        self.family = type(pipeline).__name__
        if self.family not in CALLBACK_TENSORS:
            problem = Problem(f"it is a {self.family}", f"use one of {', '.join(CALLBACK_TENSORS)}")
            raise InputError("This kind of pipeline cannot be used.", [problem])
        self.pipeline, self.original_scheduler = pipeline, pipeline.scheduler
        network = pipeline.unet if hasattr(pipeline, "unet") else pipeline.transformer
        # an autoencoder over blocks of pixels shrinks by more than the pipeline knows, and is not decoded by it
        self.blocks = Autoencoder(pipeline.vae) if block_side(int(pipeline.vae.config.in_channels)) > 1 else None
        pipeline_factor = int(pipeline.vae_scale_factor)
        factor = pipeline_factor if self.blocks is None else self.blocks.factor
        self.size = size if size is not None else int(network.config.sample_size) * factor
        self.latent_side = self.size // factor
        self.pipeline_side = self.latent_side * pipeline_factor  # the side that the pipeline is asked for
        # pipelines want multiples of 8 of what they take for pixels
        unit = math.lcm(8 * factor // pipeline_factor, factor * int(network.config.get("patch_size") or 1))
        if self.size < 1 or self.size % unit:
            problem = Problem(f"size {self.size}", f"use a multiple of {unit}")
            raise InputError("The images cannot have this size.", [problem])
        pipeline.set_progress_bar_config(disable=True)
        pipeline.safety_checker = pipeline.watermark = None
        if self.latent_side > UNSLICED:
            pipeline.vae.enable_slicing()  # images are decoded one by one: all at once need more memory than sampling

    @property
    def device(self) -> torch.device:
        """The device of the network."""
        device: torch.device = self.pipeline.device
        return device

    @cached_property
    def autoencoder(self) -> Autoencoder:
        """The pipeline's autoencoder."""
        return self.blocks or Autoencoder(self.pipeline.vae)

    @cached_property
    def hash(self) -> str:
        """Sixteen hexadecimal digits over all weights (of LoRA too), tokenizers, settings, size and precision."""
        parts: list[Any] = [self.family, self.size, SETTINGS.get(self.family)]
        for name, component in sorted(self.pipeline.components.items()):
            if isinstance(component, torch.nn.Module):
                kind, dtype = type(component).__name__, str(component.dtype)
                parts.append([name, kind, dtype, _settings(component), weight_hash(component)])
            elif hasattr(component, "get_vocab"):
                # the vocabulary and merges alone: calls change other settings, such as the length of truncation
                backend = getattr(component, "backend_tokenizer", None)
                rules = component.get_vocab() if backend is None else json.loads(backend.to_str())["model"]
                parts.append([name, type(component).__name__, component.model_max_length, rules])
        return hash_value([*parts, type(self.original_scheduler).__name__, _settings(self.original_scheduler)])[:16]

    def check(self, plan: pd.DataFrame) -> None:
        """Raise InputError for rows of a plan without a prompt, or with impossible sampling settings."""
        if "prompt" not in plan:
            problem = Problem("is missing", "give each row its prompt", column="prompt")
            raise InputError("There is nothing to say to the generator.", [problem])
        empty = np.flatnonzero(plan["prompt"].isna())
        problems = [Problem("is empty", "give each row its prompt", row=int(row) + 2, column="prompt") for row in empty]
        if problems:
            raise InputError("There is nothing to say to the generator.", problems)
        self._check_requests(sampling_requests(plan)[0])

    def _check_requests(self, requests: Sequence[Request]) -> None:
        low = [request.guidance for request in requests if request.guidance < 1]
        if low:
            problem = Problem(f"guidance {low[0]}", "use 1 or more: pipelines of diffusers do not guide below 1")
            raise InputError("These images cannot be made.", [problem])
        limited = any(request.guided and request.interval != FULL_INTERVAL for request in requests)
        if limited and not CALLBACK_TENSORS[self.family]:
            problem = Problem(f"{self.family} cannot change it between steps", "leave out guidance_low, guidance_high")
            raise InputError("Guidance cannot be limited with this model.", [problem])
        check_sampler(requests, self._solver)
        if "PixArt" in self.family and any(request.steps == 1 and request.solver != OWN_SOLVER for request in requests):
            problem = Problem("1 step", "use at least 2: with 1 the pipeline wants a scheduler of distilled models")
            raise InputError("These images cannot be made.", [problem])

    def _solver(self, name: str) -> Any:
        """Return a new scheduler for a name; ``own`` is the one that the pipeline was opened with."""
        return copy.deepcopy(self.original_scheduler) if name == OWN_SOLVER else solver(name, self.original_scheduler)

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
        """Generate one image for each row of ``conditions`` and seed; rows of one guidance go through together.

        ``conditions``: column ``prompt``. ``guidance``: one scale or one an image, 1 (plain conditional sampling) or
        more. ``solver``: dpm++, ddim, unipc, euler, or ``own``. ``interval``: noise levels t / T that are guided;
        elsewhere sampling is plain conditional. ``negative``: a negative prompt. Returns [B, size, size, 3] uint8.
        Raises InputError for requests that the pipeline cannot sample, and for images that are not finite.
        """
        check_call(len(conditions), len(seeds), np.asarray(guidance, dtype=np.float32))
        scales = np.broadcast_to(np.asarray(guidance, dtype=np.float64), len(conditions))
        requests = [Request(float(scale), steps, solver, interval, negative) for scale in np.unique(scales)]
        self._check_requests(requests)
        prompts, numbers = np.array(conditions["prompt"], dtype=object), np.array(seeds, dtype=object)
        images = np.empty((len(conditions), self.size, self.size, 3), dtype=np.uint8)
        for request in requests:
            rows = np.flatnonzero(scales == request.guidance)
            images[rows] = self._images(request, list(prompts[rows]), list(numbers[rows]))
        return images

    def _images(self, request: Request, prompts: list[str], seeds: list[int]) -> NDArray[np.uint8]:
        """Return images [B, size, size, 3] of prompts with one request."""
        self.pipeline.scheduler = self._solver(request.solver)
        if request.guided and request.interval != FULL_INTERVAL:
            arguments = self._interval_arguments(request, prompts)
        else:
            arguments = {"prompt": prompts, "guidance_scale": request.guidance}
            if request.negative and request.guided:
                arguments["negative_prompt"] = [request.negative] * len(prompts)
        try:
            with ignore_array_warnings():
                output = self.pipeline(
                    **arguments,
                    num_inference_steps=request.steps, height=self.pipeline_side, width=self.pipeline_side,
                    output_type="np" if self.blocks is None else "latent",
                    generator=[torch.Generator().manual_seed(int(seed)) for seed in seeds],
                    **SETTINGS.get(self.family, {}),
                ).images  # fmt: skip
        finally:
            self.pipeline.scheduler = self.original_scheduler
        if not np.isfinite(output if self.blocks is None else output.float().cpu().numpy()).all():
            problem = Problem("the pipeline made values that are no numbers", "use precision bf16 or fp32")
            raise InputError("These images cannot be made.", [problem])
        if self.blocks is not None:
            return self.blocks.decode(output.float() / float(self.blocks.network.config.scaling_factor))
        return (output * 255).round().astype(np.uint8)  # type: ignore[no-any-return]

    def _interval_arguments(self, request: Request, prompts: list[str]) -> dict[str, Any]:
        """Return arguments of a call that guides within an interval of noise levels.

        Between two steps a callback sets the pipeline's scale and the embeddings that belong to it, as diffusers' own
        callbacks do that end guidance early. The prompts are encoded here, since a pipeline that starts without
        guidance would not encode the negative prompts.
        """
        levels = noise_levels(set_steps(self._solver(request.solver), request.steps))
        guided_steps = [in_interval(level, request.interval) for level in levels]
        embeddings, step_embeddings = self._embeddings(request, prompts)

        def update_guidance(pipeline: Any, step: int, _time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            if step + 1 < len(guided_steps):
                guided = guided_steps[step + 1]
                pipeline._guidance_scale = request.guidance if guided else 1.0
                tensors |= step_embeddings(guided)
                if "add_time_ids" in tensors:  # one row an image, all of them the same
                    tensors["add_time_ids"] = tensors["add_time_ids"][:1].repeat(len(prompts) * (1 + guided), 1)
            return tensors

        return {
            **embeddings, "guidance_scale": request.guidance if guided_steps[0] else 1.0,
            "callback_on_step_end": update_guidance,
            "callback_on_step_end_tensor_inputs": list(CALLBACK_TENSORS[self.family]),
        }  # fmt: skip

    def _embeddings(self, request: Request, prompts: list[str]) -> tuple[dict[str, Any], StepEmbeddings]:
        """Return the embeddings of a call, and a function of those of a step that is guided or not."""
        negative = {"negative_prompt": [request.negative] * len(prompts)} if request.negative else {}
        more = {"prompt_2": None, "prompt_3": None} if self.family == "StableDiffusion3Pipeline" else {}
        # (prompt, negative) or (prompt, negative, pooled, pooled negative)
        parts = self.pipeline.encode_prompt(
            prompt=prompts, device=self.pipeline._execution_device, num_images_per_prompt=1,
            do_classifier_free_guidance=True, **negative, **more,
        )  # fmt: skip
        names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
        embeddings = dict(zip(names, parts, strict=False))

        def step_embeddings(guided: bool) -> dict[str, Any]:
            pairs = zip(CALLBACK_TENSORS[self.family], zip(parts[0::2], parts[1::2], strict=True), strict=False)
            return {
                name: torch.cat([unconditional, conditional]) if guided else conditional
                for name, (conditional, unconditional) in pairs
            }

        return embeddings, step_embeddings


def _settings(component: Any) -> dict[str, Any]:
    """Return the settings of a network, encoder or scheduler, without versions and paths."""
    config = component.config.to_dict() if hasattr(component.config, "to_dict") else dict(component.config)
    left_out = {"transformers_version", "dtype", "torch_dtype", "architectures"}
    return {key: value for key, value in config.items() if not key.startswith("_") and key not in left_out}

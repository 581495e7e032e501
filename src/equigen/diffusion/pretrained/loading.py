"""Opening a pretrained pipeline: a diffusers folder or hub id, from safetensors alone, with every weight there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers.utils import logging as diffusers_logging
from huggingface_hub.errors import HfHubHTTPError
from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from equigen.diffusion.pretrained.families import PixArt, StableDiffusion, StableDiffusion3, StableDiffusionXL
from equigen.diffusion.pretrained.family import Family
from equigen.diffusion.pretrained.pretrained import Pretrained, prediction_of
from equigen.diffusion.pretrained.saving import INDEX
from equigen.errors import InputError, Problem
from equigen.model_files import CONVERT, folder_problems, nonfinite_weight
from equigen.progress import silence_library

_ALL: tuple[type[Family], ...] = (StableDiffusion, StableDiffusionXL, StableDiffusion3, PixArt)
FAMILIES: dict[str, type[Family]] = {kind: family for family in _ALL for kind in family.pipelines}
AUTOENCODERS = ("AutoencoderKL", "AutoencoderTiny")
LORA_FILES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")
FAULTS = (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError)


def open_pretrained(
    source: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    variant: str | None = None,
) -> Pretrained:
    """Open a text-to-image pipeline of the Stable Diffusion family.

    Args:
        source: a folder that diffusers' ``save_pretrained`` wrote, or a hub id (``owner/name``): the hub's cache is
            looked into first, then the hub itself.
        device: where the parts are put.
        dtype: of the network's and text encoders' weights; the autoencoder stays in float32, where it is sure not to
            overflow. What is trained must be float32: compute in half precision by autocast instead.
        variant: a file name's middle, ``fp16`` for ``model.fp16.safetensors``.

    Stable Diffusion's safety checker is left out: it judges photographs of people and would blacken images.
    Weights are read from safetensors only, pickles beside them are never opened, and no code that comes with a model
    is run.

    Raises:
        InputError: nothing there, another kind of pipeline, pickles instead of safetensors, references to code, weights
            that are missing, misshapen, NaN or infinite; it names the file and the mend.

    """
    folder = pipeline_folder(source, variant)
    index = _read_index(folder)
    kind = index.get("_class_name")
    if not isinstance(kind, str) or kind not in FAMILIES:
        message = f"holds a {kind}" if isinstance(kind, str) else "asks for code of its own"
        problem = Problem(message, f"use one of {', '.join(FAMILIES)}", file=str(folder / INDEX))
        raise InputError("This kind of pipeline is not supported.", [problem])
    _check_files(folder, FAMILIES[kind])
    with silence_library(diffusers_logging), silence_library(transformers_logging):
        parts = _read_components(folder, FAMILIES[kind], index, dtype, variant)
        pipeline = _build_pipeline(folder, kind, parts)
    pipeline.set_progress_bar_config(disable=True)
    input_channels = int(getattr(pipeline, FAMILIES[kind].network).config.in_channels)
    latent_channels = int(pipeline.vae.config.latent_channels)
    if input_channels != latent_channels:  # other inputs (masks, another image) belong to other tasks
        message = f"its network takes {input_channels} channels, its autoencoder makes {latent_channels}"
        mend = "give a text-to-image pipeline: not one for inpainting, upscaling or editing"
        raise InputError("This kind of pipeline is not supported.", [Problem(message, mend, file=str(folder))])
    prediction_of(pipeline.scheduler)
    clear_paths(pipeline)
    path = Path(source).expanduser()
    origin = str(path.resolve()) if path.is_dir() else str(source)
    return Pretrained(pipeline.to(device), FAMILIES[kind](pipeline), origin)


def pipeline_folder(source: str | Path, variant: str | None = None) -> Path:
    """Return the local folder of a pipeline: the path itself, else the hub's cache, else a download.

    Raises InputError where it is none of them.
    """
    path, source = Path(source).expanduser(), str(source)
    if path.is_dir():
        return path
    if path.is_file() or path.is_absolute() or source.startswith((".", "~")) or source.count("/") != 1:
        mend = "give the folder that diffusers' save_pretrained wrote, or a hub id of the form owner/name"
        if path.is_file():
            mend = "convert it: StableDiffusionPipeline.from_single_file(FILE).save_pretrained(FOLDER); give the folder"
        raise InputError("There is no pretrained pipeline.", [Problem("is no folder", mend, file=source)])
    try:
        return _download(source, variant)
    except (OSError, ValueError, RuntimeError, HfHubHTTPError) as error:
        reason = str(error).strip().partition("\n")[0]
        mend = (
            "check the id; where there is no network, download it elsewhere "
            f"(huggingface-cli download {source} --local-dir FOLDER), copy the folder here and give its path"
        )
        problem = Problem(f"is no folder here, and {INDEX} cannot be had from the hub: {reason}", mend, file=source)
        raise InputError("There is no pretrained pipeline.", [problem]) from error


def _download(hub_id: str, variant: str | None) -> Path:
    """Return the folder in the hub's cache, downloaded where it is not there yet."""
    with silence_library(diffusers_logging):
        try:
            return Path(
                diffusers.DiffusionPipeline.download(
                    hub_id, use_safetensors=True, variant=variant, local_files_only=True
                )
            )
        except (OSError, ValueError):
            return Path(diffusers.DiffusionPipeline.download(hub_id, use_safetensors=True, variant=variant))


def _read_index(folder: Path) -> dict[str, Any]:
    """Return the pipeline's index, which lists its components."""
    file = folder / INDEX
    if not file.is_file():
        mend = "give the folder that diffusers' save_pretrained wrote"
        if any((folder / name).is_file() for name in LORA_FILES):
            mend = "these are LoRA weights: open the base they were trained on, then call load_lora"
        raise InputError("There is no pretrained pipeline.", [Problem(f"holds no {INDEX}", mend, file=str(folder))])
    try:
        index = json.loads(file.read_text())
        return dict(index)
    except (ValueError, TypeError) as error:
        raise _damage_error(f"is no JSON mapping ({error})", file) from error


def _check_files(folder: Path, family: type[Family]) -> None:
    """Raise InputError for pickles that are a component's only weights, and references to code, all together."""
    weighted = (*family.encoders, "vae", family.network)
    plain = (*(_tokenizer_of(name) for name in family.encoders), "scheduler")
    problems = [
        *folder_problems(folder, weights=False),
        *(problem for name in plain for problem in folder_problems(folder / name, weights=False)),
        *(problem for name in weighted for problem in folder_problems(folder / name)),
    ]
    if problems:
        raise InputError("This pipeline cannot be opened.", problems)


def _read_components(
    folder: Path, family: type[Family], index: dict[str, Any], dtype: torch.dtype, variant: str | None
) -> dict[str, Any]:
    """Return every component by name, each read with the class that it needs and checked."""
    encoders = [name for name in family.encoders if name not in family.optional or _has_component(index, name)]
    absent = [name for name in family.optional if name not in encoders]
    parts: dict[str, Any] = dict.fromkeys([*absent, *map(_tokenizer_of, absent)])
    for name in encoders:
        parts[_tokenizer_of(name)] = _read_component(folder, index, _tokenizer_of(name), transformers)
        kind = _class_of(folder, index, name, transformers)
        parts[name] = _network(kind, folder / name, dtype=dtype, variant=variant)
    parts["scheduler"] = _read_component(folder, index, "scheduler", diffusers)
    autoencoder = _class_of(folder, index, "vae", diffusers)
    if autoencoder.__name__ not in AUTOENCODERS:
        mend = f"use {' or '.join(AUTOENCODERS)}"
        problem = Problem(f"holds a {autoencoder.__name__}", mend, file=str(folder / "vae"))
        raise InputError("This kind of autoencoder is not supported.", [problem])
    parts["vae"] = _network(autoencoder, folder / "vae", torch_dtype=torch.float32, variant=variant)
    network = getattr(diffusers, family.network_class)
    parts[family.network] = _network(network, folder / family.network, torch_dtype=dtype, variant=variant)
    return parts


def _tokenizer_of(encoder: str) -> str:
    return encoder.replace("text_encoder", "tokenizer")


def _has_component(index: dict[str, Any], name: str) -> bool:
    return isinstance(index.get(name), list) and index[name][0] is not None


def _class_of(folder: Path, index: dict[str, Any], name: str, library: Any) -> Any:
    """Return the class of a component, which must be the library's own."""
    home, kind = index[name] if _has_component(index, name) and len(index[name]) == 2 else (None, None)
    kind_class = getattr(library, str(kind), None) if home == library.__name__ else None
    if kind_class is None or not hasattr(kind_class, "from_pretrained"):
        message = f"its '{name}' is {home}.{kind}" if home else f"has no '{name}'"
        mend = f"give a pipeline whose '{name}' is a class of {library.__name__}; code of a model's own is never run"
        raise InputError("This pipeline cannot be opened.", [Problem(message, mend, file=str(folder / INDEX))])
    return kind_class


def _read_component(folder: Path, index: dict[str, Any], name: str, library: Any) -> Any:
    """Return a component without weights: a tokenizer or the scheduler."""
    kind = _class_of(folder, index, name, library)
    try:
        return kind.from_pretrained(str(folder / name), local_files_only=True)
    except FAULTS as error:
        raise _damage_error(f"cannot be read as {kind.__name__} ({_first_line(error)})", folder / name) from error


def _network(kind: Any, folder: Path, variant: str | None, **precision: Any) -> Any:
    """Return a network with every weight from the folder; the libraries alone would fill missing ones at random."""
    try:
        network, loading_info = kind.from_pretrained(
            str(folder),
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            variant=variant,
            **precision,
        )
    except FAULTS as error:
        raise _damage_error(f"its weights cannot be read ({_first_line(error)})", folder) from error
    lacking = sorted(str(name) for key in ("missing_keys", "mismatched_keys") for name in loading_info.get(key, ()))
    if lacking:
        raise _damage_error(f"{len(lacking)} weights are missing or of another shape, {lacking[0]} for one", folder)
    fault = nonfinite_weight(network.state_dict())
    if fault is not None:
        raise _damage_error(fault, folder)
    return network


def _build_pipeline(folder: Path, kind: str, parts: dict[str, Any]) -> Any:
    """Return the pipeline of its class, with its own settings from the folder."""
    omitted = FAMILIES[kind].omitted
    try:
        return getattr(diffusers, kind).from_pretrained(
            str(folder), local_files_only=True, use_safetensors=True, **parts, **omitted
        )
    except FAULTS as error:
        raise _damage_error(f"its parts do not make a pipeline ({_first_line(error)})", folder) from error


def clear_paths(pipeline: Any) -> None:
    """Remove paths of this machine from a pipeline's settings, so that they are not saved with it."""
    for component in (pipeline, *pipeline.components.values()):
        if isinstance(component, transformers.PreTrainedModel):
            component.config._name_or_path = ""
        elif hasattr(component, "register_to_config") and "_name_or_path" in component.config:
            component.register_to_config(_name_or_path="")
        elif isinstance(component, transformers.PreTrainedTokenizerBase):
            component.name_or_path = ""


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]


def _damage_error(message: str, file: Path) -> InputError:
    mend = f"copy the whole folder again; {CONVERT}"
    return InputError("The pretrained pipeline is damaged.", [Problem(message, mend, file=str(file))])

"""DINOv2 and CLIP through transformers, from a local folder or by hub id."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from equigen.errors import InputError, Problem
from equigen.model_files import folder_problems, nonfinite_weight
from equigen.progress import silence_library
from equigen.quality.encoders.base import Bicubic, NetworkEncoder
from equigen.quality.encoders.weights import OFFLINE, state_hash, weights_error

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
FILES = ["config.json", "preprocessor_config.json", "*.safetensors", "*.safetensors.index.json"]
TIMEOUT = 5.0  # seconds to wait for an answer of the hub


class DINOv2(NetworkEncoder):
    """DINOv2: the class token after the last layer norm, as for FD-DINOv2 (Stein et al., NeurIPS 2023, section 3).

    Args:
        source: folder written by transformers (``config.json`` and weights), or a hub id.
        resolution: width in pixels, a multiple of the patch; None takes the crop of ``preprocessor_config.json``, or
            else the size in the config. Images are square, so they are not cropped but resized to the size of the
            crop. Mean and standard deviation come from the same file, or else are ImageNet's.
        batch: images at once; None takes 16, on a GPU 128.

    Raises:
        InputError: no folder and no hub, another kind of model, or missing weights.

    """

    def __init__(self, source: str, resolution: int | None = None, batch: int | None = None) -> None:
        from transformers import AutoModel

        folder = model_folder(source, "dinov2")
        config = model_config(folder, source, "dinov2", ("dinov2", "dinov2_with_registers"))
        size, mean, std = read_preprocessing(folder, "dinov2", int(config.image_size), IMAGENET_MEAN, IMAGENET_STD)
        size, patch = resolution or size, int(config.patch_size)
        if size % patch:
            problem = Problem(f"resolution {size}", f"choose a multiple of the patch, {patch}", file=str(folder))
            raise InputError("The encoder cannot work at this resolution.", [problem])
        network, digest = load_complete_model(AutoModel, config, folder, source, "dinov2")
        super().__init__(
            network,
            lambda output: (output.last_hidden_state[:, 0], None),
            name=f"dinov2:{source_name(source)}@{size}",
            weight_hash=digest,
            preparation=Bicubic(size, mean, std),
            batch=batch,
        )


class CLIP(NetworkEncoder):
    """CLIP's image embedding after its projection, not normalised to length 1.

    Args:
        source: folder written by transformers (of the whole CLIP or of its vision half), or a hub id.
        batch: images at once; None takes 16, on a GPU 128.

    The resolution is that of the model's training; mean and standard deviation come from
    ``preprocessor_config.json``, or else are those of CLIP. Images are square, so they are not cropped.

    Raises:
        InputError: no folder and no hub, another kind of model, or missing weights.

    """

    def __init__(self, source: str, batch: int | None = None) -> None:
        from transformers import CLIPVisionModelWithProjection

        folder = model_folder(source, "clip")
        config = model_config(folder, source, "clip", ("clip", "clip_vision_model"))
        if config.model_type == "clip":  # the projection size in the vision config may be a default
            config.vision_config.projection_dim = config.projection_dim
            config = config.vision_config
        resolution = int(config.image_size)
        _, mean, std = read_preprocessing(folder, "clip", resolution, CLIP_MEAN, CLIP_STD)
        network, digest = load_complete_model(CLIPVisionModelWithProjection, config, folder, source, "clip")
        super().__init__(
            network,
            lambda output: (output.image_embeds, None),
            name=f"clip:{source_name(source)}@{resolution}",
            weight_hash=digest,
            preparation=Bicubic(resolution, mean, std),
            batch=batch,
        )


def source_name(source: str) -> str:
    """Return the name of a model in an encoder's name: the last part of its folder, or its hub id."""
    return Path(source).expanduser().resolve().name if Path(source).expanduser().is_dir() else source


def model_folder(source: str, encoder: str) -> Path:
    """Return the local folder of a model: the path, or else the hub's cache, or else a download.

    Raises:
        InputError: neither a folder nor an available hub id; the hub has a few seconds to answer.

    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    path = Path(source).expanduser()
    if path.is_dir():
        return path
    if not source or path.is_absolute() or source.startswith((".", "~")) or source.count("/") > 1 or path.exists():
        raise weights_error(
            encoder,
            "no folder of a model",
            "give the folder that transformers' save_pretrained wrote",
            source or f"{encoder}:",
        )
    try:
        cached = Path(snapshot_download(source, allow_patterns=FILES, local_files_only=True))
        if any(cached.glob("*.safetensors")):
            return cached
    except HFValidationError as error:
        raise weights_error(encoder, "neither a folder nor a hub id", "correct it", source) from error
    except OSError:  # not in the cache
        pass
    try:
        return Path(snapshot_download(source, allow_patterns=FILES, etag_timeout=TIMEOUT))
    except (OSError, HfHubHTTPError, RuntimeError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise weights_error(
            encoder,
            f"no such folder, not in the hub's cache, and the hub gives none: {reason}",
            "download the model where there is a network and give its folder",
            source,
        ) from error


def model_config(folder: Path, source: str, encoder: str, kinds: tuple[str, ...]) -> Any:
    """Return the model's configuration; InputError where it is unreadable or of another kind."""
    from transformers import AutoConfig

    problems = [replace(problem, mend=f"{problem.mend}; {OFFLINE}") for problem in folder_problems(folder)]
    if problems:
        raise InputError(f"The encoder {encoder} cannot be used.", problems)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise weights_error(
            encoder, "no config.json that transformers can read", "give a folder that has one", source
        ) from error
    if config.model_type not in kinds:
        raise weights_error(
            encoder,
            f"a model of the kind '{config.model_type}', not {' or '.join(kinds)}",
            "give another folder, or wrap the model in ModuleEncoder",
            source,
        )
    return config


def load_complete_model(
    model_class: Any, config: Any, folder: Path, source: str, encoder: str
) -> tuple[torch.nn.Module, str]:
    """Return a float32 network with all weights from the file, and the weights' hash.

    transformers initialises missing weights at random; here they raise InputError.
    """
    from transformers.utils import logging

    try:
        with silence_library(logging):  # its report on the weights is evaluated here instead of printed
            network, report = model_class.from_pretrained(
                folder,
                config=config,
                local_files_only=True,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise weights_error(
            encoder, f"the weights cannot be read: {reason}", "copy the folder again", source
        ) from error
    lacking = sorted(str(key) for key in (*report["missing_keys"], *report["mismatched_keys"]))
    if lacking:
        raise weights_error(
            encoder,
            f"{len(lacking)} weights are missing or of another shape, such as {lacking[0]}",
            "copy the folder again",
            source,
        )
    fault = nonfinite_weight(network.state_dict())
    if fault is not None:
        raise weights_error(encoder, fault, "copy the folder again", source)
    return network, state_hash(network.state_dict().items(), repr(network))


def read_preprocessing(
    folder: Path, encoder: str, size: int, mean: tuple[float, ...], std: tuple[float, ...]
) -> tuple[int, tuple[float, ...], tuple[float, ...]]:
    """Return size, mean and standard deviation (0..1 scale) of ``preprocessor_config.json``, or else the arguments."""
    file = folder / "preprocessor_config.json"
    if not file.is_file():
        return size, mean, std
    try:
        settings = json.loads(file.read_text())
        crop = settings.get("crop_size") or settings.get("size")
        if isinstance(crop, Mapping):  # {"height": 224, "width": 224} or {"shortest_edge": 224}
            crop = crop.get("height") or crop.get("shortest_edge")
        return (
            size if crop is None else int(str(crop)),
            tuple(float(value) for value in settings.get("image_mean") or mean),
            tuple(float(value) for value in settings.get("image_std") or std),
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise weights_error(encoder, "no preprocessing can be read from it", "correct or remove it", file) from error

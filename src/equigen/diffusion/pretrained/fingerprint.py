"""Hashes of parts of a pipeline: the same before it is saved and after it is opened."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch

from equigen.files import hash_value
from equigen.latents import weight_hash

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
    """A configuration without private notes: where it lay, which version wrote it."""
    values: Mapping[str, Any] = config.to_dict() if hasattr(config, "to_dict") else config
    plain = {name: value for name, value in values.items() if not name.startswith("_") and name not in _NOTES}
    return dict(json.loads(json.dumps(plain, default=str)))


def _rules(tokenizer: Any) -> Any:
    """A tokenizer's vocabulary, merges and steps; how it padded last is a passing state."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return sorted(tokenizer.get_vocab().items())
    rules = json.loads(backend.to_str())
    return {name: value for name, value in rules.items() if name not in {"padding", "truncation"}}

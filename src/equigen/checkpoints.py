"""Save training state in one safetensors file: tensors by name, everything else as JSON in its header."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from equigen.errors import InputError, Problem
from equigen.files import replace_file

Tensors = dict[str, torch.Tensor]


def add_prefix(prefix: str, tensors: Mapping[str, torch.Tensor]) -> Tensors:
    """Return the tensors with ``prefix.`` before each name."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def select_prefix(prefix: str, tensors: Mapping[str, torch.Tensor]) -> Tensors:
    """Return the tensors whose names begin with ``prefix.``, without that prefix."""
    start = prefix + "."
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}


def save_checkpoint(path: str | Path, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any]) -> None:
    """Write one checkpoint atomically; tensors that share memory are saved as separate copies."""
    copies: Tensors = {}
    pointers = set[int]()
    for name, tensor in tensors.items():
        copy = tensor.detach().cpu().contiguous()
        pointer = copy.untyped_storage().data_ptr()
        copies[name] = copy.clone() if pointer in pointers else copy
        pointers.add(pointer)
    with replace_file(path) as temporary:
        save_file(copies, temporary, metadata={"state": json.dumps(state)})


def load_checkpoint(path: str | Path) -> tuple[Tensors, dict[str, Any]]:
    """Read what ``save_checkpoint`` wrote.

    Raises InputError when the file is damaged or is no checkpoint.
    """
    try:
        with safe_open(str(path), framework="pt") as handle:
            state = json.loads((handle.metadata() or {})["state"])
            return {name: handle.get_tensor(name) for name in handle.keys()}, state  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError, OSError, RuntimeError) as error:
        problem = Problem(f"is no whole checkpoint ({error})", "delete it to start afresh", file=str(path))
        raise InputError("A checkpoint is damaged.", [problem]) from error


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> Tensors:
    """Return the state of a torch optimizer as ``<parameter index>.<name>``; an integer (of steps, say) is an int64.

    A mapping within the state of a parameter, as 8-bit optimizers have, is flattened: they load it in this form.
    """
    flat: Tensors = {}
    for index, state in optimizer.state_dict()["state"].items():
        inner = [value for value in state.values() if isinstance(value, dict)]
        for name, value in [*state.items(), *(item for values in inner for item in values.items())]:
            if not isinstance(value, dict):
                flat[f"{index}.{name}"] = value if isinstance(value, torch.Tensor) else torch.tensor(int(value))
    return flat


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    """Load the state that ``optimizer_tensors`` returned; hyperparameters of the optimizer are unchanged."""
    saved = optimizer.state_dict()
    states: dict[int, dict[str, torch.Tensor | int]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        counts = value.ndim == 0 and value.dtype == torch.int64
        states.setdefault(int(index), {})[name] = int(value) if counts else value
    optimizer.load_state_dict({**saved, "state": states})

"""Checkpoints of a fit in one safetensors file: weights, their average, the best average, AdamW's moments."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from equigen.diagnosis.networks import SmallResNet
from equigen.errors import InputError, Problem
from equigen.files import replace_file
from equigen.model_files import nonfinite_weight


@dataclass
class State:
    """The mutable state of a fit. ``best_score`` is None before a defined validation score."""

    network: SmallResNet
    average: SmallResNet
    optimizer: torch.optim.AdamW
    best: dict[str, Tensor]
    best_score: float | None = None
    step: int = 0

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """All tensors by name; they are not copies, so that copying into them restores the state."""
        for prefix, tensors in {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "best": self.best,
        }.items():
            yield from ((f"{prefix}/{name}", value) for name, value in tensors.items())
        for name, parameter in self.network.named_parameters():
            yield from ((f"adam/{name}/{key}", value) for key, value in self.optimizer.state[parameter].items())

    def save(self, path: Path, key: str) -> None:
        """Write the state; ``key`` is the hash of all settings and inputs."""
        score = "" if self.best_score is None else repr(self.best_score)
        with replace_file(path) as temporary:
            save_file(
                {name: value.detach().contiguous().cpu() for name, value in self.tensors()},
                temporary,
                metadata={"key": key, "step": str(self.step), "best_score": score},
            )

    def resume(self, path: Path, key: str) -> None:
        """Restore a checkpoint of the same key; without one the state is unchanged.

        Raises InputError for a file that is not a safetensors file of this state: a pickle, a damaged file, tensors
        that are missing, of another shape, NaN or infinite. The state is unchanged then, except for zero moments.
        """
        if not path.exists():
            return
        try:
            with safe_open(path, framework="pt") as handle:
                metadata = handle.metadata() or {}
                if metadata["key"] != key:
                    return
                step, score = int(metadata["step"]), float(metadata["best_score"]) if metadata["best_score"] else None
                for parameter in self.network.parameters():
                    self.optimizer.state[parameter] = {
                        "step": torch.zeros(()),
                        "exp_avg": torch.zeros_like(parameter),
                        "exp_avg_sq": torch.zeros_like(parameter),
                    }
                values = {name: handle.get_tensor(name) for name, _ in self.tensors()}
                for name, value in self.tensors():
                    if values[name].shape != value.shape:
                        raise ValueError(f"{name} is {list(values[name].shape)}, not {list(value.shape)}")
                fault = nonfinite_weight(values)
                if fault is not None:
                    raise ValueError(fault)
        except (SafetensorError, KeyError, ValueError, OSError, RuntimeError) as error:
            problem = Problem(f"is no whole checkpoint ({error})", "delete it to start afresh", file=str(path))
            raise InputError("A checkpoint is damaged.", [problem]) from error
        with torch.no_grad():
            for name, value in self.tensors():
                value.copy_(values[name])
        self.step, self.best_score = step, score

"""Where a fit stands, in one safetensors file: weights, their average, the best, AdamW's moments."""

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
from equigen.model_files import weight_fault


@dataclass
class State:
    """Everything that changes while fitting. ``best_score`` is None until validation gave one."""

    network: SmallResNet
    average: SmallResNet
    optimizer: torch.optim.AdamW
    best: dict[str, Tensor]
    best_score: float | None = None
    step: int = 0

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor by name; all of them live, so that copying into them restores the state."""
        for part, values in {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "best": self.best,
        }.items():
            yield from ((f"{part}/{name}", value) for name, value in values.items())
        for name, parameter in self.network.named_parameters():
            yield from (
                (f"adam/{name}/{key}", value) for key, value in self.optimizer.state[parameter].items()
            )

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
        """Go on from a checkpoint of the same key; without one the state stays as it is.

        Raises InputError where the file is no safetensors file of this state: a pickle, a damaged file, tensors that
        are missing, misshapen, NaN or infinite. The state is unchanged then, but for moments that are zero.
        """
        if not path.exists():
            return
        try:
            with safe_open(path, framework="pt") as handle:
                facts = handle.metadata() or {}
                if facts["key"] != key:
                    return
                step, score = int(facts["step"]), float(facts["best_score"]) if facts["best_score"] else None
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
                odd = weight_fault(values)
                if odd is not None:
                    raise ValueError(odd)
        except (SafetensorError, KeyError, ValueError, OSError, RuntimeError) as error:
            problem = Problem(f"is no whole checkpoint ({error})", "delete it to start afresh", file=str(path))
            raise InputError("A checkpoint is damaged.", [problem]) from error
        with torch.no_grad():
            for name, value in self.tensors():
                value.copy_(values[name])
        self.step, self.best_score = step, score

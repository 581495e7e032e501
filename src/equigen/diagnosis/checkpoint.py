"""Where a fit stands, in one safetensors file: weights, their average, the best, AdamW's moments."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from equigen.diagnosis.networks import SmallResNet
from equigen.files import replacing


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
        with replacing(path) as temporary:
            save_file(
                {name: value.detach().contiguous().cpu() for name, value in self.tensors()},
                temporary,
                metadata={"key": key, "step": str(self.step), "best_score": score},
            )

    def resume(self, path: Path, key: str) -> None:
        """Go on from a checkpoint of the same key; without one the state stays as it is."""
        if not path.exists():
            return
        with safe_open(path, framework="pt") as handle:
            facts = handle.metadata()
            if facts["key"] != key:
                return
            for parameter in self.network.parameters():
                self.optimizer.state[parameter] = {
                    "step": torch.zeros(()),
                    "exp_avg": torch.zeros_like(parameter),
                    "exp_avg_sq": torch.zeros_like(parameter),
                }
            with torch.no_grad():
                for name, value in self.tensors():
                    value.copy_(handle.get_tensor(name))
        self.step = int(facts["step"])
        self.best_score = float(facts["best_score"]) if facts["best_score"] else None

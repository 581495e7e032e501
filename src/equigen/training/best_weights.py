"""Selection of a run's weights by the lowest loss on the validation split."""

from __future__ import annotations

from typing import Any

import torch

from equigen.equity import GroupLosses
from equigen.errors import InputError, Problem
from equigen.training.average import Average
from equigen.training.probe import Probe


class BestWeights:
    """The weights at which the held-out probe had the lowest loss: overall, or in its worst group.

    The probe is of the validation split, which nothing is trained on; the test split plays no part. Weights are
    compared each time that the probe is measured on schedule, the start and the end of training included.
    Raises InputError where there is no such probe, or none of its groups is known.
    """

    def __init__(self, rule: str, module: torch.nn.Module, probe: Probe | None) -> None:
        if probe is None:
            problem = Problem(f"best is '{rule}', and the validation split is empty", "split it off, or set best: none")
            raise InputError("The best weights cannot be told.", [problem])
        if rule == "worst_group" and not bool((probe.index >= 0).any()):
            problem = Problem("no group of a validation image is known", "set best: overall")
            raise InputError("The worst group cannot be told.", [problem])
        self.rule, self.loss, self.images_seen = rule, float("inf"), -1
        self.weights = Average(module)

    def update(self, monitor: GroupLosses, module: torch.nn.Module, images_seen: int) -> None:
        """Keep the module's weights if this measurement of them is the lowest so far."""
        means = monitor.means[~monitor.means.isnan()]
        loss = monitor.overall if self.rule == "overall" else float(means.max())
        if loss < self.loss:
            self.loss, self.images_seen, self.weights = loss, images_seen, Average(module)

    def record(self) -> dict[str, Any]:
        """Return the rule, the lowest loss and its count of images, for a checkpoint and ``training.json``."""
        return {"rule": self.rule, "loss": self.loss, "images_seen": self.images_seen}

    def load_state(self, record: dict[str, Any], weights: dict[str, torch.Tensor]) -> None:
        """Load the record and the weights of a checkpoint."""
        self.loss, self.images_seen = float(record["loss"]), int(record["images_seen"])
        self.weights.load_state_dict(weights)

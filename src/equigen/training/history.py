"""The log of a training run, as rows of ``history.parquet``."""

from __future__ import annotations

from typing import Any

import pandas as pd
import torch

from equigen.equity import GroupLosses, Groups
from equigen.training.loss_scale import LossScale

COLUMNS = ["images_seen", "kind", "attribute", "group", "value", "n"]
Row = list[Any]


class History:
    """Rows (images_seen, kind, attribute, group, value, n) and the running sums of training losses per group.

    ``kind`` is train (mean loss since the last log), probe_train, probe_heldout (fixed probes), probe_averaged (the
    latter with averaged weights), learning_rate, loss_scale and steps_left_out (float16), or a record of the mechanism
    (sigma, reward). ``n``: number of images in the mean; None where that has no meaning.
    """

    def __init__(self, groups: Groups) -> None:
        self.groups = groups
        self.rows: list[Row] = []
        self.sums = torch.zeros(1 + len(groups), 2, dtype=torch.float64)

    def count(self, losses: torch.Tensor, index: torch.Tensor) -> None:
        """Add a global batch: losses [B] and group index [B, A]."""
        values = torch.stack([losses.double(), torch.ones(len(losses), dtype=torch.float64)], dim=1)
        self.sums[0] += values.sum(0)
        for column, (attribute, _) in enumerate(self.groups.names):
            mask = index[:, column] >= 0
            self.sums[1:][self.groups.slices[attribute]].index_add_(0, index[mask, column], values[mask])

    def log_training(self, images_seen: int, learning_rate: float, scale: LossScale | None = None) -> float:
        """Append the mean losses since the last log and the learning rate; returns the overall mean loss.

        With float16 also the loss scale, and the steps that were left out since the last log.
        """
        names = [("*", "*"), *self.groups.index]
        for (attribute, group), (total, n) in zip(names, self.sums.tolist(), strict=True):
            if n:
                self.rows.append([images_seen, "train", attribute, group, total / n, int(n)])
        mean = float(self.sums[0, 0] / self.sums[0, 1].clamp_min(1))
        self.rows.append([images_seen, "learning_rate", "*", "*", learning_rate, None])
        if scale is not None:
            self.rows.append([images_seen, "loss_scale", "*", "*", scale.value, None])
            self.rows.append([images_seen, "steps_left_out", "*", "*", float(scale.skipped), None])
            scale.skipped = 0
        self.sums.zero_()
        return mean

    def log_probe(self, images_seen: int, kind: str, monitor: GroupLosses) -> None:
        """Append the losses of a probe; a group without images has no row."""
        self.rows.append([images_seen, kind, "*", "*", monitor.overall, None])
        for (attribute, group), value, n in zip(
            self.groups.index, monitor.means.tolist(), monitor.counts.tolist(), strict=True
        ):
            if n:
                self.rows.append([images_seen, kind, attribute, group, value, n])

    def log_records(self, images_seen: int, records: dict[str, float]) -> None:
        """Append a mechanism's records, such as ``sigma/sex/female`` or ``reward``."""
        for name, value in records.items():
            kind, attribute, group = (*name.split("/", 2), "*", "*")[:3]
            self.rows.append([images_seen, kind, attribute, group, value, None])

    def frame(self) -> pd.DataFrame:
        """Return all rows as a table."""
        return pd.DataFrame(self.rows, columns=COLUMNS)

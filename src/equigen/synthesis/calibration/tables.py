"""Tables of a calibration from its evaluations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from equigen.synthesis.calibration.measurement import Group
from equigen.synthesis.calibration.search import DEVIATIONS, Goal, Point, best_common, best_per_group, fit_curves, front
from equigen.synthesis.guidance import DEFAULT, Guidance

Array = NDArray[np.float64]
COLUMNS = ["kind", "name", "group", "guidance", "estimate", "floor", "excess", "low", "high", "mean", "gap", "worst"]


def calibration_table(groups: list[Group], points: list[Point], goal: Goal) -> pd.DataFrame:
    """The rows of ``calibration.parquet``; see ``Calibration``."""
    names, grid = [group.name for group in groups], goal.grid
    curves = fit_curves(points, len(groups), grid)
    means = np.stack([curve.mean for curve in curves])
    rows: list[dict[str, Any]] = []
    for order, point in enumerate(points):
        group = groups[point.group]
        head = {"kind": "evaluated", "name": str(order), "group": group.name, "guidance": point.guidance}
        rows.append({**head, "estimate": point.excess + group.floor, "floor": group.floor, "excess": point.excess})
    for name, curve in zip(names, curves, strict=True):
        reach = DEVIATIONS * curve.deviation
        spans = zip(grid, curve.mean, curve.mean - reach, curve.mean + reach, strict=True)
        head = {"kind": "curve", "group": name}
        rows += [
            {**head, "name": f"{w:g}", "guidance": w, "excess": e, "low": low, "high": high}
            for w, e, low, high in spans
        ]
    for index, w in enumerate(grid):
        rows += _choice_rows("shared", f"{w:g}", names, np.full(len(names), w), means[:, index])
    for number, indices in enumerate(front(means)):
        rows += _choice_rows("front", str(number), names, grid[indices], means[np.arange(len(names)), indices])
    # A default outside the bounds was not measured: its numbers are missing, and ``choice_table`` notes why.
    inside = grid[0] <= DEFAULT <= grid[-1]
    default = np.array([np.interp(DEFAULT, grid, mean) if inside else np.nan for mean in means])
    rows += _choice_rows("chosen", "default", names, np.full(len(names), DEFAULT), default)
    common = np.full(len(names), best_common(means, goal.objective, goal.gap_weight))
    for name, indices in {"common": common, "group": best_per_group(means, goal.objective, goal.gap_weight)}.items():
        rows += _choice_rows("chosen", name, names, grid[indices], means[np.arange(len(names)), indices])
    frame = pd.DataFrame(rows, columns=COLUMNS)
    return frame.astype(dict.fromkeys(COLUMNS[3:], "float64"))


def _choice_rows(kind: str, name: str, names: list[str], guidance: Array, excess: Array) -> list[dict[str, Any]]:
    """One row a group of a choice of guidance, with the mean, gap and worst over the groups."""
    overall = {"mean": float(excess.mean()), "gap": float(np.ptp(excess)), "worst": float(excess.max())}
    pairs = zip(names, guidance, excess, strict=True)
    return [{"kind": kind, "name": name, "group": group, "guidance": w, "excess": e, **overall}
            for group, w, e in pairs]  # fmt: skip


def chosen_guidance(table: pd.DataFrame) -> dict[str, Any]:
    """``groups`` and ``common`` of ``Guidance``."""
    rows = table[table["kind"] == "chosen"]
    per_group, common = rows[rows["name"] == "group"], rows[rows["name"] == "common"]
    groups = {str(name): float(w) for name, w in zip(per_group["group"], per_group["guidance"], strict=True)}
    return {"groups": groups, "common": float(common["guidance"].iloc[0])}


def choice_table(table: pd.DataFrame, guidance: Guidance) -> pd.DataFrame:
    """One row a group; see ``Calibration.choice``."""
    rows = table[table["kind"] == "chosen"]
    sets = {"default": "default", "common": "common", "group": "calibrated"}
    choices = {column: rows[rows["name"] == name].set_index("group") for name, column in sets.items()}
    frame = pd.DataFrame({column: choice["guidance"] for column, choice in choices.items()})
    for column, choice in choices.items():
        frame[f"excess_{column}"] = choice["excess"]
    for column in ("default", "common"):
        frame[f"change_{column}"] = frame["excess_calibrated"] - frame[f"excess_{column}"]
    outside = not guidance.bounds[0] <= guidance.default <= guidance.bounds[1]
    note = f"the default guidance {guidance.default:g} lies outside the bounds: not measured"
    frame["note"] = note if outside else ""
    small = pd.DataFrame(
        {
            "group": list(guidance.left_out),
            "default": guidance.default,
            "common": guidance.common,
            "calibrated": guidance.common,
            "note": list(guidance.left_out.values()),
        }
    )
    return pd.concat([frame.reset_index(), small], ignore_index=True) if len(small) else frame.reset_index()

"""From evaluations to the tables of a calibration."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from equigen.synthesis.calibration.choice import best_common, best_each, front
from equigen.synthesis.calibration.measurement import Group
from equigen.synthesis.calibration.search import DEVIATIONS, Goal, Point, fit_curves
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
        rows += [{**head, "name": f"{w:g}", "guidance": w, "excess": e, "low": low, "high": high}
                 for w, e, low, high in spans]
    for place, w in enumerate(grid):
        rows += _whole("shared", f"{w:g}", names, np.full(len(names), w), means[:, place])
    for number, places in enumerate(front(means)):
        rows += _whole("front", str(number), names, grid[places], means[np.arange(len(names)), places])
    rows += _three(names, means, goal)
    frame = pd.DataFrame(rows, columns=COLUMNS)
    return frame.astype(dict.fromkeys(COLUMNS[3:], "float64"))


def _three(names: list[str], means: Array, goal: Goal) -> list[dict[str, Any]]:
    """The default guidance, the best common one and the best of each group, with what the curves say of them.

    A default outside the bounds was not measured: its numbers are missing, and ``choice_table`` says why.
    """
    grid, every = goal.grid, np.arange(len(names))
    each = best_each(means, goal.objective, goal.gap_weight)
    common = np.full(len(names), best_common(means, goal.objective, goal.gap_weight))
    inside = grid[0] <= DEFAULT <= grid[-1]
    at_default = np.array([np.interp(DEFAULT, grid, mean) if inside else np.nan for mean in means])
    return [
        *_whole("chosen", "default", names, np.full(len(names), DEFAULT), at_default),
        *_whole("chosen", "common", names, grid[common], means[every, common]),
        *_whole("chosen", "group", names, grid[each], means[every, each]),
    ]


def _whole(kind: str, name: str, names: list[str], guidance: Array, excess: Array) -> list[dict[str, Any]]:
    """A choice for all groups: a row for each, with the mean, gap and worst of them all."""
    whole = {"mean": float(excess.mean()), "gap": float(np.ptp(excess)), "worst": float(excess.max())}
    pairs = zip(names, guidance, excess, strict=True)
    return [{"kind": kind, "name": name, "group": group, "guidance": w, "excess": e, **whole} for group, w, e in pairs]


def chosen_guidance(table: pd.DataFrame) -> dict[str, Any]:
    """``groups`` and ``common`` of ``Guidance``."""
    own = table[table["kind"] == "chosen"]
    each, common = own[own["name"] == "group"], own[own["name"] == "common"]
    groups = {str(name): float(w) for name, w in zip(each["group"], each["guidance"], strict=True)}
    return {"groups": groups, "common": float(common["guidance"].iloc[0])}


def choice_table(table: pd.DataFrame, guidance: Guidance) -> pd.DataFrame:
    """One row a group; see ``Calibration.choice``."""
    own = table[table["kind"] == "chosen"]
    sets = {"default": "default", "common": "common", "group": "calibrated"}
    parts = {word: own[own["name"] == name].set_index("group") for name, word in sets.items()}
    frame = pd.DataFrame({word: part["guidance"] for word, part in parts.items()})
    for word, part in parts.items():
        frame[f"excess_{word}"] = part["excess"]
    for word in ("default", "common"):
        frame[f"change_{word}"] = frame["excess_calibrated"] - frame[f"excess_{word}"]
    outside = not guidance.bounds[0] <= guidance.default <= guidance.bounds[1]
    words = f"the default guidance {guidance.default:g} lies outside the bounds: not measured"
    frame["note"] = words if outside else ""
    small = pd.DataFrame({"group": list(guidance.left_out), "default": guidance.default, "common": guidance.common,
                          "calibrated": guidance.common, "note": list(guidance.left_out.values())})
    return pd.concat([frame.reset_index(), small], ignore_index=True) if len(small) else frame.reset_index()

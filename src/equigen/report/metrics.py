"""The catalogue of metrics, and their values as text: rounded, unknown ones as a dash."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Metric:
    """Name, direction, scale and description of one metric.

    ``scale`` multiplies shown numbers (KD is shown x 1000); ``decimals`` None means about three significant
    digits; ``better`` is "lower", "higher" or "" (neither). ``family`` is the section of the page that holds it:
    "distance", "variety", "manifold", "memorisation", "semantic" or "" (diagnosis and unknown ones);
    ``floor`` is the heading of the column ``floor``, the value that real images reach. ``range`` holds the possible
    values, ``command`` the command that measures it.
    """

    name: str
    short: str
    title: str
    better: str
    meaning: str
    source: str
    scale: float = 1.0
    decimals: int | None = None
    family: str = ""
    floor: str = ""
    range: str = ""
    command: str = ""


_CATALOGUE: dict[str, Any] = json.loads(files("equigen.report").joinpath("catalogue.json").read_text("utf-8"))
METRICS: dict[str, Metric] = {entry["name"]: Metric(**entry) for entry in _CATALOGUE["metrics"]}
TERMS: list[tuple[str, str, str]] = [(t["term"], t["meaning"], t["source"]) for t in _CATALOGUE["terms"]]
LIMITS: list[str] = _CATALOGUE["limits"]
QUOTE: list[str] = _CATALOGUE["quote"]


def lookup_metric(name: str) -> Metric:
    """The catalogue's entry for a metric; an unknown one keeps its name and has no definition."""
    entry = METRICS.get(name)
    if entry is not None:
        return entry
    better = "lower" if name.endswith("error") else "higher" if name.endswith("accuracy") else ""
    title = name.replace("_", " ")
    family = next((f for f in ("semantic", "oracle") if name.startswith(f"{f}_")), "").replace("oracle", "semantic")
    return Metric(name, title, title, better, "No definition in this report.", "", family=family)


def floor_name(metric: Metric) -> str:
    """The heading of the column ``floor``, such as ``between real images`` or ``ceiling (real images)``."""
    return metric.floor or ("between real images" if metric.better == "lower" else "real images score")


def sort_metrics(names: list[str]) -> list[str]:
    """Names of metrics in the catalogue's order, unknown ones at the end."""
    ranks = {name: rank for rank, name in enumerate(METRICS)}
    return sorted(names, key=lambda name: ranks.get(name, len(ranks)))


ABSENT = "–"


def is_finite(value: Any) -> bool:
    """Whether a cell holds a finite number."""
    return isinstance(value, (int, float, np.integer, np.floating)) and math.isfinite(value)


def number(value: Any, metric: Metric) -> str:
    """A value of a metric, multiplied by the metric's scale; a dash where it is unknown."""
    if not is_finite(value):
        return ABSENT
    scaled = float(value) * metric.scale
    size = abs(scaled)
    decimals = metric.decimals if metric.decimals is not None else 0 if size >= 100 else 1 if size >= 10 else 2
    text = f"{scaled:,.{decimals}f}"
    return text[1:] if text.startswith("-") and not text.strip("-0.,") else text


def error_text(value: Any, metric: Metric) -> str:
    """An error with two significant digits, multiplied by the metric's scale; a dash where it is unknown."""
    if not is_finite(value):
        return ABSENT
    scaled = abs(float(value)) * metric.scale
    decimals = 1 - math.floor(math.log10(scaled)) if scaled > 0 else 0
    return f"{scaled:,.{min(max(decimals, 0), 6)}f}"


def signed_number(value: Any, metric: Metric) -> str:
    """A difference with its sign."""
    text = number(value, metric)
    return f"+{text}" if is_finite(value) and float(value) > 0 else text


def interval(low: Any, high: Any, metric: Metric) -> str:
    """``low to high``; empty when either end is unknown."""
    return f"{number(low, metric)} to {number(high, metric)}" if is_finite(low) and is_finite(high) else ""


def estimate_text(value: Any, low: Any, high: Any, metric: Metric) -> str:
    """An estimate with its interval: ``value (low to high)``."""
    span = interval(low, high, metric)
    return f"{number(value, metric)} ({span})" if span else number(value, metric)


def difference_text(value: Any, low: Any, high: Any, metric: Metric) -> str:
    """A difference with its sign and interval: ``-12 (-20 to -4)``."""
    span = interval(low, high, metric)
    return f"{signed_number(value, metric)} ({span})" if span else signed_number(value, metric)


def p_text(p: Any) -> str:
    """``p = 0.03`` or ``p < 0.001``; empty when unknown."""
    if not is_finite(p):
        return ""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def count(value: Any) -> str:
    """A whole number with thousands separators; a dash where it is unknown."""
    return f"{round(value):,}" if is_finite(value) else ABSENT


def listing(names: list[str]) -> str:
    """The names as an enumeration: ``a, b and c``."""
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def duration(seconds: float) -> str:
    """A time in seconds, minutes or hours: ``80.0 s``, ``3 min 5 s``, ``2 h 40 min``."""
    if not is_finite(seconds):
        return ABSENT
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"

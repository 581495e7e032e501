"""The catalogue of metrics: names, direction, scale, meaning and source of each."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Any


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

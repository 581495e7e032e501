"""What each metric is called, which way is better, how it is shown, and where its formula comes from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Any


@dataclass(frozen=True)
class Metric:
    """Words about one metric.

    ``scale`` multiplies shown numbers (KD is shown x 1000); ``decimals`` None means about three significant
    digits; ``better`` is "lower", "higher" or "" (neither). ``family`` is the part of the page that shows it:
    "distance", "variety", "manifold", "memorisation", "semantic" or "" (diagnosis and unknown ones);
    ``floor`` names what real images give in the column ``floor``.
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


def _catalogue() -> dict[str, Any]:
    read: dict[str, Any] = json.loads(files("equigen.report").joinpath("catalogue.json").read_text("utf-8"))
    return read


_READ = _catalogue()
METRICS: dict[str, Metric] = {entry["name"]: Metric(**entry) for entry in _READ["metrics"]}
TERMS: list[tuple[str, str, str]] = [(t["term"], t["meaning"], t["source"]) for t in _READ["terms"]]
LIMITS: list[str] = _READ["limits"]
QUOTE: list[str] = _READ["quote"]


def lookup_metric(name: str) -> Metric:
    """The words about a metric; an unknown one keeps its name and says that it has no definition here."""
    entry = METRICS.get(name)
    if entry is not None:
        return entry
    better = "lower" if name.endswith("error") else "higher" if name.endswith("accuracy") else ""
    title = name.replace("_", " ")
    family = next((f for f in ("semantic", "oracle") if name.startswith(f"{f}_")), "").replace("oracle", "semantic")
    return Metric(name, title, title, better, "No definition in this report.", "", family=family)


def floor_name(words: Metric) -> str:
    """What real images give: the floor of a distance, the value to reach of a score, the ceiling."""
    return words.floor or ("between real images" if words.better == "lower" else "real images score")


def sort_metrics(names: list[str]) -> list[str]:
    """Names of metrics in the catalogue's order, those it does not know at the end."""
    places = {name: place for place, name in enumerate(METRICS)}
    return sorted(names, key=lambda name: places.get(name, len(places)))

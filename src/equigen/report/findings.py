"""Readings of table rows that several sections share: verdicts on gaps, floors, worst groups, seeds and domains."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import pandas as pd

from equigen.report.frames import DERIVED
from equigen.report.metrics import Metric, is_finite, number, p_text

LEVEL = 0.05
_SEED_NAME = re.compile(r"^(?P<base>.+?)[\s._/@-]+(?:seed|s)[\s._=-]*(?P<seed>\d+)$")
DOMAINS = {
    "all": "all test images",
    "id": "in distribution (held-out patients of the training sites)",
    "ood": "out of distribution (other sites)",
}


@dataclass(frozen=True)
class Verdict:
    """The comparison of one value with chance; ``exceeds_chance`` is None where chance was not tested."""

    exceeds_chance: bool | None
    text: str


def verdict(row: Any, metric: Metric) -> Verdict:
    """Whether a gap is larger than chance alone gives.

    Larger than chance needs both: above the band and p at most 0.05, where both are given; if they disagree
    the gap counts as not distinguishable. A missing estimate or band gives no verdict.
    """
    if not is_finite(row["estimate"]):
        return Verdict(None, "not evaluated")
    has_band, has_p = is_finite(row["null_high"]), is_finite(row["p_value"])
    if not has_band and not has_p:
        return Verdict(None, "whether chance explains it was not tested")
    outside = (not has_band or row["estimate"] > row["null_high"]) and (not has_p or row["p_value"] <= LEVEL)
    text = "larger than chance explains" if outside else "not distinguishable from chance"
    parts = [f"chance alone gives up to {number(row['null_high'], metric)}"] if has_band else []
    parts += [p_text(row["p_value"])] if has_p else []
    return Verdict(bool(outside), f"{', '.join(parts)}: {text}")


def gap_text(row: Any, metric: Metric) -> str:
    """``gap 0.12, chance alone gives up to 0.15: not distinguishable from chance``."""
    if not is_finite(row["estimate"]):
        return "gap not evaluated" + (f" ({row['note']})" if row["note"] else "")
    return f"gap {number(row['estimate'], metric)}, {verdict(row, metric).text}"


def correction_note(row: Any) -> str:
    """A note that the row's p-value is corrected for the number of attributes; empty where it is not."""
    return " (p corrected over attributes, Holm)" if "Holm" in str(row["note"]) and is_finite(row["p_value"]) else ""


def worse_than_real(row: Any, metric: Metric) -> bool | None:
    """Whether a row is worse than the floor that real images give; None where interval or floor is unknown.

    Worse means that ``p_floor``, which counts the floor's own sampling error, is at most 0.05; where a row has none,
    that the whole interval lies on the worse side of ``floor``.
    """
    if not metric.better or not all(is_finite(row[name]) for name in ("estimate", "ci_low", "ci_high", "floor")):
        return None
    if is_finite(row.get("p_floor")):
        return bool(row["p_floor"] <= LEVEL)
    return bool(row["ci_low"] > row["floor"] if metric.better == "lower" else row["ci_high"] < row["floor"])


def mechanism_and_seed(run: str) -> tuple[str, int | None]:
    """A run's mechanism and training seed: ``perturbation-s2`` and ``perturbation/seed 2`` are its seed 2."""
    match = _SEED_NAME.match(run)
    return (match["base"], int(match["seed"])) if match else (run, None)


def runs_by_mechanism(runs: list[str]) -> dict[str, list[str]]:
    """Mechanism -> its runs, one a training seed, in the order of their first appearance."""
    result: dict[str, list[str]] = {}
    for run in runs:
        result.setdefault(mechanism_and_seed(run)[0], []).append(run)
    return result


def domain_title(domain: str) -> str:
    """The title of a domain: in or out of distribution, or the name of a site."""
    return DOMAINS.get(domain, f"site {domain}")


def primary_tasks(tasks: list[str]) -> list[str]:
    """The tasks shown first: macro and high-risk ones; without them all of up to two, else the first."""
    main = [task for task in tasks if task.split(":")[-1] in {"macro", "high_risk"}]
    return main or (tasks if len(tasks) <= 2 else tasks[:1])


def main_domains(domains: list[str]) -> list[str]:
    """In and out of distribution where they are given, else all images together, else every site."""
    return (
        [domain for domain in ("id", "ood") if domain in domains]
        or [domain for domain in domains if domain == "all"]
        or domains
    )


def is_group(frame: pd.DataFrame) -> pd.Series:
    """Mask of the rows of single groups: neither the whole set nor a derived value."""
    return ~frame["group"].isin(["*", *DERIVED])


def is_intersection(frame: pd.DataFrame) -> pd.Series:
    """Mask of the rows of an attribute made of several, such as ``sex & age``."""
    return frame["attribute"].str.contains(" & ", regex=False).astype(bool)


def without_intersections(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of the whole set and of single attributes."""
    return frame if frame.empty else frame[~is_intersection(frame)]


def attribute_names(frame: pd.DataFrame) -> list[str]:
    """The attributes of a table in order, without the whole set's ``*``."""
    return [name for name in dict.fromkeys(map(str, frame["attribute"])) if name != "*"]


def first_row(frame: pd.DataFrame, **values: str) -> Any | None:
    """The first row with these values in these columns, or None."""
    for column, value in values.items():
        frame = frame[frame[column] == value]
    return None if frame.empty else frame.iloc[0]


def worst_group(groups: pd.DataFrame, metric: Metric, column: str = "estimate") -> Any | None:
    """The row of the worst group; None without a direction or with fewer than two known groups."""
    rows = groups[groups[column].notna()]
    if len(rows) < 2 or not metric.better:
        return None
    values = rows[column].to_numpy(float)
    return rows.iloc[int(values.argmax() if metric.better == "lower" else values.argmin())]

"""One part of a comparison's table (one setting, plan and metric) and how its rows are named and judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd

from equigen.errors import InputError, Problem
from equigen.report.frames import unique_values
from equigen.report.metrics import Metric, lookup_metric, sort_metrics
from equigen.report.rounding import difference_text, interval, is_finite, number
from equigen.report.study.differences import DIRECTIONS, difference_verdict

TEXT = ["setting", "mechanism", "plan", "guidance", "metric", "attribute", "figure"]
NUMBERS = [
    "seeds", "n", "estimate", "seed_low", "seed_high", "patient_low", "patient_high", "ci_low", "ci_high", "null_gap",
    "difference", "difference_low", "difference_high", "p_value", "p_holm",
]
ALONE = ["setting", "metric", "attribute", "figure", "estimate", "ci_low", "ci_high", "null_gap", "note"]
RECONSTRUCTION = "reconstruction"  # what rows and marks of the autoencoder alone are called
MEANS = "gap_of_means"
GAPS = ["gap", MEANS]
DERIVED = ["overall", "worst", *GAPS]  # figures that are no group
UNSAID = "no evidence"


@dataclass(frozen=True)
class View:
    """The rows of one setting, plan and metric; ``title`` names what differs between the views of a page.

    ``reconstruction``: figures of held-out images through the autoencoder and back, by (attribute, figure).
    """

    setting: str
    plan: str
    words: Metric
    rows: pd.DataFrame
    title: str
    reconstruction: Mapping[tuple[str, str], Any] = field(default_factory=dict)

    @property
    def slug(self) -> str:
        """For the identifiers of its drawings."""
        return "".join(sign if sign.isascii() and sign.isalnum() else f"_{ord(sign):x}"
                       for sign in f"{self.setting}-{self.plan}-{self.words.name}")

    @property
    def unit(self) -> str:
        """What the values are: ``excess KD x 1000``."""
        return unit_name(self.words)

    @property
    def mechanisms(self) -> list[str]:
        """In the table's order."""
        return unique_values(self.rows["mechanism"])

    @property
    def guidances(self) -> list[str]:
        """Numbers in rising order, then ``common`` and ``calibrated``."""
        names = unique_values(self.rows["guidance"])
        words = [name for name in ("common", "calibrated") if name in names]
        return [*sorted((name for name in names if name not in words), key=float), *words]

    @property
    def attributes(self) -> list[str]:
        """Without the whole set."""
        return [name for name in unique_values(self.rows["attribute"]) if name != "*"]

    def groups(self, attribute: str) -> list[str]:
        """Groups of an attribute, in the table's order."""
        own = self.rows.loc[self.rows["attribute"] == attribute, "figure"]
        return [name for name in unique_values(own) if name not in DERIVED]

    def row(self, mechanism: str, guidance: str, attribute: str, figure: str) -> Any | None:
        """One row as a mapping; None where there is none."""
        place = attribute if figure != "overall" else "*"
        return self._index.get((mechanism, guidance, place, figure))

    def alone(self, attribute: str, figure: str) -> Any | None:
        """The autoencoder's own row of a figure, as a mapping; None where there is none."""
        return self.reconstruction.get((attribute if figure != "overall" else "*", figure))

    @cached_property
    def _index(self) -> dict[tuple[str, ...], Any]:
        keys = ("mechanism", "guidance", "attribute", "figure")
        return {tuple(str(row[key]) for key in keys): row for row in self.rows.to_dict("records")}

    def compared(self, attribute: str, figure: str) -> list[Any]:
        """Rows with a difference, mechanism by mechanism, each in the order of the guidances."""
        rows = [self.row(name, guidance, attribute, figure) for name in self.mechanisms for guidance in self.guidances]
        return [row for row in rows if row is not None and is_finite(row["difference"])]

    def value(self, row: Any) -> str:
        """``40 (31 to 49)``."""
        return value_text(row, self.words)

    def change(self, row: Any) -> str:
        """``-12 (-20 to -4)``."""
        return difference_text(row["difference"], row["difference_low"], row["difference_high"], self.words)


def views(summary: pd.DataFrame, reconstruction: pd.DataFrame | None = None) -> list[View]:
    """The parts of a comparison's table, plan by plan; the metrics in the catalogue's order.

    ``reconstruction``: columns ``ALONE``; the same for all plans.

    Raises InputError where a column is missing.
    """
    missing = [name for name in [*TEXT, *NUMBERS, "reference", "note"] if name not in summary.columns]
    if missing:
        mend = "give the summary of evaluate_comparison"
        problems = [Problem("column is missing", mend, column=name) for name in missing]
        raise InputError("The comparison cannot be reported.", problems)
    frame = summary.assign(**{name: pd.to_numeric(summary[name]).astype(float) for name in NUMBERS})
    keys = [(name, setting, plan) for name in sort_metrics(unique_values(frame["metric"]))
            for setting in unique_values(frame["setting"]) for plan in unique_values(frame["plan"])]
    several = [len({key[place] for key in keys}) > 1 for place in range(3)]
    found = []
    for name, setting, plan in keys:
        rows = frame[(frame["metric"] == name) & (frame["setting"] == setting) & (frame["plan"] == plan)]
        if not rows.empty:
            parts = [f"setting {setting}" if several[1] else "", f"plan {plan}" if several[2] else "",
                     lookup_metric(name).short if several[0] else ""]
            title = ", ".join(filter(None, parts))
            found.append(View(setting, plan, lookup_metric(name), rows, title, _alone(reconstruction, setting, name)))
    return found


def _alone(table: pd.DataFrame | None, setting: str, name: str) -> dict[tuple[str, str], Any]:
    """The autoencoder's figures of one setting and metric."""
    if table is None:
        return {}
    own = table[(table["setting"] == setting) & (table["metric"] == name)]
    return {(str(row["attribute"]), str(row["figure"])): row for row in own.to_dict("records")}


def unit_name(words: Metric) -> str:
    """What the values of a metric are in a comparison: excesses where less is better, else estimates."""
    name = f"excess {words.short}" if words.better == "lower" else words.short
    return f"{name} x 1000" if words.scale == 1000 else name


def bounds(row: Any) -> tuple[float, float]:
    """The joint interval; the patients' (or seeds') where there is no other."""
    for name in ("ci", "patient", "seed"):
        if is_finite(row.get(f"{name}_low")) and is_finite(row.get(f"{name}_high")):
            return row[f"{name}_low"], row[f"{name}_high"]
    return float("nan"), float("nan")


def value_text(row: Any, words: Metric) -> str:
    """Value with its interval."""
    span = interval(*bounds(row), words)
    return number(row["estimate"], words) + (f" ({span})" if span else "")


def judged(row: Any) -> str:
    """``better``, ``worse``, ``no evidence``, or why there is no verdict.

    Better and worse need a joint interval of seeds and patients that leaves 0 out and a p-value of at most 0.05 after
    Holm's correction. A difference of one training seed is no evidence about a mechanism, whatever its interval.
    """
    if not is_finite(row["difference"]):
        return "not evaluated"
    if not is_finite(row["p_holm"]):
        return UNSAID
    said = difference_verdict({
        "difference": row["difference"], "ci_low": row["difference_low"], "ci_high": row["difference_high"],
        "p_value": row["p_holm"], "metric": row["metric"], "group": "gap" if row["figure"] in GAPS else "*",
    })  # fmt: skip
    return said if said in DIRECTIONS else UNSAID


def at(guidance: str) -> str:
    """``at guidance 2``, ``at the common guidance``, ``with calibrated guidance``."""
    return {"common": "at the common guidance", "calibrated": "with calibrated guidance"}.get(
        guidance, f"at guidance {guidance}")

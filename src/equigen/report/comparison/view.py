"""The rows of a comparison's table for one setting, plan and metric, with their verdicts and texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd

from equigen.errors import InputError, Problem
from equigen.report.frames import unique_values
from equigen.report.layout import Sentence
from equigen.report.metrics import (
    Metric,
    difference_text,
    estimate_text,
    is_finite,
    listing,
    lookup_metric,
    number,
    sort_metrics,
)
from equigen.report.study.differences import DIRECTIONS, difference_verdict

TEXT_COLUMNS = ["setting", "mechanism", "plan", "guidance", "metric", "attribute", "figure"]
NUMBER_COLUMNS = [
    "seeds",
    "n",
    "estimate",
    "seed_low",
    "seed_high",
    "patient_low",
    "patient_high",
    "ci_low",
    "ci_high",
    "null_gap",
    "difference",
    "difference_low",
    "difference_high",
    "p_value",
    "p_holm",
]
RECONSTRUCTION_COLUMNS = [
    "setting", "metric", "attribute", "figure", "estimate", "ci_low", "ci_high", "null_gap", "note",
]  # fmt: skip
RECONSTRUCTION = "reconstruction"  # name of the autoencoder's rows and marks on the page
MEANS = "gap_of_means"
GAPS = ["gap", MEANS]
DERIVED = ["overall", "worst", *GAPS]  # quantities that are no group
NO_EVIDENCE = "no evidence"


@dataclass(frozen=True)
class View:
    """The rows of one setting, plan and metric; ``title`` names what differs between the views of a page.

    A row is one quantity (column ``figure``: overall, a group, worst or a gap) of one mechanism at one guidance.
    ``reconstruction``: rows of held-out images passed through the autoencoder, by (attribute, quantity).
    """

    setting: str
    plan: str
    metric: Metric
    rows: pd.DataFrame
    title: str
    reconstruction: Mapping[tuple[str, str], Any] = field(default_factory=dict)

    @property
    def slug(self) -> str:
        """An identifier for the view's figures, of ASCII letters, digits and ``_``."""
        return "".join(
            sign if sign.isascii() and sign.isalnum() else f"_{ord(sign):x}"
            for sign in f"{self.setting}-{self.plan}-{self.metric.name}"
        )

    @property
    def unit(self) -> str:
        """The unit of the values: ``excess KD x 1000``."""
        return unit_name(self.metric)

    @property
    def mechanisms(self) -> list[str]:
        """Names of the mechanisms, in the table's order."""
        return unique_values(self.rows["mechanism"])

    @property
    def guidances(self) -> list[str]:
        """Guidance numbers in rising order, then ``common`` and ``calibrated``."""
        names = unique_values(self.rows["guidance"])
        special = [name for name in ("common", "calibrated") if name in names]
        return [*sorted((name for name in names if name not in special), key=float), *special]

    @property
    def attributes(self) -> list[str]:
        """Names of the attributes, without the whole set (``*``)."""
        return [name for name in unique_values(self.rows["attribute"]) if name != "*"]

    def groups(self, attribute: str) -> list[str]:
        """Groups of an attribute, in the table's order."""
        quantities = self.rows.loc[self.rows["attribute"] == attribute, "figure"]
        return [name for name in unique_values(quantities) if name not in DERIVED]

    @cached_property
    def row_index(self) -> dict[tuple[str, ...], Any]:
        """Rows as mappings, by mechanism, guidance, attribute and quantity."""
        keys = ("mechanism", "guidance", "attribute", "figure")
        return {tuple(str(row[key]) for key in keys): row for row in self.rows.to_dict("records")}

    def row(self, mechanism: str, guidance: str, attribute: str, quantity: str) -> Any | None:
        """One row as a mapping; None where there is none."""
        return self.row_index.get((mechanism, guidance, attribute if quantity != "overall" else "*", quantity))

    def reconstruction_row(self, attribute: str, quantity: str) -> Any | None:
        """The autoencoder's row of a quantity, as a mapping; None where there is none."""
        return self.reconstruction.get((attribute if quantity != "overall" else "*", quantity))

    def difference_rows(self, attribute: str, quantity: str) -> list[Any]:
        """Rows with a difference, mechanism by mechanism, each in the order of the guidances."""
        rows = [self.row(name, guidance, attribute, quantity)
                for name in self.mechanisms for guidance in self.guidances]  # fmt: skip
        return [row for row in rows if row is not None and is_finite(row["difference"])]

    def estimate_text(self, row: Any) -> str:
        """Estimate and interval of a row: ``40 (31 to 49)``."""
        return estimate_text(row["estimate"], *interval_bounds(row), self.metric)

    def difference_text(self, row: Any) -> str:
        """Difference and interval of a row: ``-12 (-20 to -4)``."""
        return difference_text(row["difference"], row["difference_low"], row["difference_high"], self.metric)


def comparison_views(summary: pd.DataFrame, reconstruction: pd.DataFrame | None = None) -> list[View]:
    """Views of a comparison's table, one for each metric (in the catalogue's order), setting and plan.

    ``reconstruction``: columns ``RECONSTRUCTION_COLUMNS``; the same for all plans.

    Raises InputError where a column is missing.
    """
    missing = [name for name in [*TEXT_COLUMNS, *NUMBER_COLUMNS, "reference", "note"] if name not in summary.columns]
    if missing:
        mend = "give the summary of evaluate_comparison"
        problems = [Problem("column is missing", mend, column=name) for name in missing]
        raise InputError("The comparison cannot be reported.", problems)
    frame = summary.assign(**{name: pd.to_numeric(summary[name]).astype(float) for name in NUMBER_COLUMNS})
    keys = [
        (name, setting, plan)
        for name in sort_metrics(unique_values(frame["metric"]))
        for setting in unique_values(frame["setting"])
        for plan in unique_values(frame["plan"])
    ]
    several = [len({key[column] for key in keys}) > 1 for column in range(3)]
    views = []
    for name, setting, plan in keys:
        rows = frame[(frame["metric"] == name) & (frame["setting"] == setting) & (frame["plan"] == plan)]
        if rows.empty:
            continue
        metric = lookup_metric(name)
        titles = [
            f"setting {setting}" if several[1] else "",
            f"plan {plan}" if several[2] else "",
            metric.short if several[0] else "",
        ]
        reference_rows: dict[tuple[str, str], Any] = {}
        if reconstruction is not None:
            subset = reconstruction[(reconstruction["setting"] == setting) & (reconstruction["metric"] == name)]
            reference_rows = {(str(row["attribute"]), str(row["figure"])): row for row in subset.to_dict("records")}
        views.append(View(setting, plan, metric, rows, ", ".join(filter(None, titles)), reference_rows))
    return views


def unit_name(metric: Metric) -> str:
    """The unit of a metric in a comparison: its excess where less is better, else the metric itself."""
    name = f"excess {metric.short}" if metric.better == "lower" else metric.short
    return f"{name} x 1000" if metric.scale == 1000 else name


def interval_bounds(row: Any) -> tuple[float, float]:
    """The joint interval; the patients' (or seeds') where there is no other."""
    for name in ("ci", "patient", "seed"):
        if is_finite(row.get(f"{name}_low")) and is_finite(row.get(f"{name}_high")):
            return row[f"{name}_low"], row[f"{name}_high"]
    return float("nan"), float("nan")


def row_verdict(row: Any) -> str:
    """``better``, ``worse``, ``no evidence``, or ``not evaluated`` where there is no difference.

    Better and worse need a joint interval of seeds and patients that leaves 0 out and a p-value of at most 0.05 after
    Holm's correction. A difference of one training seed is no evidence about a mechanism, whatever its interval.
    """
    if not is_finite(row["difference"]):
        return "not evaluated"
    if not is_finite(row["p_holm"]):
        return NO_EVIDENCE
    direction = difference_verdict({
        "difference": row["difference"], "ci_low": row["difference_low"], "ci_high": row["difference_high"],
        "p_value": row["p_holm"], "metric": row["metric"], "group": "gap" if row["figure"] in GAPS else "*",
    })  # fmt: skip
    return direction if direction in DIRECTIONS else NO_EVIDENCE


def guidance_phrase(guidance: str) -> str:
    """``at guidance 2``, ``at the common guidance``, ``with calibrated guidance``."""
    return {"common": "at the common guidance", "calibrated": "with calibrated guidance"}.get(
        guidance, f"at guidance {guidance}"
    )


TOPIC = "What does the autoencoder cost?"


def autoencoder_sentences(views: list[View], reference: str) -> list[Sentence]:
    """A sentence for each setting: the value of reconstructed held-out images beside the reference's, and its gaps."""
    by_setting: dict[str, View] = {}
    for view in views:
        if view.metric.name == views[0].metric.name and view.reconstruction:
            by_setting.setdefault(view.setting, view)
    sentences = []
    for setting, view in by_setting.items():
        topic = f"{TOPIC} Setting {setting}" if len(by_setting) > 1 else TOPIC
        overall = view.reconstruction_row("*", "overall")
        if overall is None or not is_finite(overall["estimate"]):
            sentences.append(Sentence("What the autoencoder alone costs was not measured.", "missing", topic))
            continue
        rows = [view.row(reference, guidance, "*", "overall") for guidance in view.guidances]
        values = [
            f"{number(row['estimate'], view.metric)} {guidance_phrase(row['guidance'])}"
            for row in rows
            if row is not None and is_finite(row["estimate"])
        ]
        text = (
            f"Held-out images that go through the autoencoder and back stand at {view.estimate_text(overall)} "
            f"({view.unit}), which is about where perfect training of the diffusion model would lead"
        )
        text += f"; {reference} stands at {listing(values)}." if values else "."
        text += (
            " Distances do not add up: a generator that stands near this may still err in other ways, which a "
            "measurement against reconstructions shows."
        )
        parts = []  # as "by age: gap 29 (8 to 50), chance about 17; under 40 159, 40 to 59 188"
        for attribute in view.attributes:
            gap = view.reconstruction_row(attribute, "gap")
            if gap is None or not is_finite(gap["estimate"]):
                continue
            chance = f", chance about {number(gap['null_gap'], view.metric)}" if is_finite(gap["null_gap"]) else ""
            groups = {group: view.reconstruction_row(attribute, group) for group in view.groups(attribute)}
            values = [
                f"{group} {number(row['estimate'], view.metric)}"
                for group, row in groups.items()
                if row is not None and is_finite(row["estimate"])
            ]
            parts.append(f"by {attribute}: gap {view.estimate_text(gap)}{chance}; {', '.join(values)}")
        sentences.append(Sentence(text, "note", topic, tuple(parts)))
    return sentences

"""Results for every group: views of one table, in the manner of fairlearn's ``MetricFrame``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import pandas as pd

INTERVAL = ["estimate", "ci_low", "ci_high"]
BAND = ["null_low", "null_high", "p_value"]
SUMMARIES = ("*", "gap", "worst", "es")  # groups that sum up others
SHOWN_ROWS = 30  # of each view in a representation


@dataclass(frozen=True, repr=False)
class GroupTable:
    """Views of a table with one row for each metric and group.

    ``table`` is what is written to the disk: columns ``metric``, ``attribute``, ``group``, ``estimate`` and so on.
    Columns that tell runs apart (``index_columns``) stand in the index of a view where they have more than one value.
    """

    table: pd.DataFrame

    index_columns: ClassVar[Sequence[str]] = ()
    title: ClassVar[str] = "Results"
    worst_is_low: ClassVar[Sequence[str]] = ()  # metrics of which the worst group has the smallest value

    @property
    def overall(self) -> pd.DataFrame:
        """Estimates over everything: one row for each run, one column for each metric."""
        return self._wide(self.table[(self.table["attribute"] == "*") & (self.table["group"] == "*")], [])

    @property
    def by_group(self) -> pd.DataFrame:
        """Estimates of each group: rows by attribute and group, one column for each metric."""
        rows = self._group_rows()
        return self._wide(rows, ["attribute", "group"])

    @property
    def gaps(self) -> pd.DataFrame:
        """Largest less smallest group, by attribute and metric, with interval, null band and p-value."""
        rows = self.table[self.table["group"] == "gap"]
        keys = [*self._distinct(), "attribute", "metric"]
        columns = [name for name in [*INTERVAL, *BAND] if name in rows.columns]
        return rows.set_index(keys)[columns]

    @property
    def worst(self) -> pd.DataFrame:
        """The worst group by attribute and metric, and its estimate."""
        rows = self._group_rows()
        rows = rows[rows["estimate"].notna()]
        keys = [*self._distinct(), "attribute", "metric"]
        signed = rows["estimate"].where(rows["metric"].isin(list(self.worst_is_low)), -rows["estimate"])
        chosen = rows.loc[signed.groupby([rows[name] for name in keys], sort=False).idxmin()]
        return chosen.set_index(keys)[["group", *[name for name in INTERVAL if name in rows.columns]]]

    @property
    def notes(self) -> list[str]:
        """What the table says about itself: each note once."""
        notes = [*self.table.attrs.get("notes", []), *self.table["note"].dropna()]
        return list(dict.fromkeys(note for note in notes if note))

    def _distinct(self) -> list[str]:
        return [name for name in self.index_columns if self.table[name].nunique(dropna=False) > 1]

    def _group_rows(self) -> pd.DataFrame:
        return self.table[(self.table["attribute"] != "*") & ~self.table["group"].isin(SUMMARIES)]

    def _wide(self, rows: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
        index = [*self._distinct(), *keys]
        order = list(dict.fromkeys(rows["metric"]))
        if not index:
            return pd.DataFrame([rows.set_index("metric")["estimate"].rename(None)])[order].rename_axis(columns=None)
        wide = rows.set_index([*index, "metric"])["estimate"].unstack(sort=False)
        return wide.dropna(how="all")[[name for name in order if name in wide.columns]].rename_axis(columns=None)

    def __repr__(self) -> str:
        """The title, the values over everything and the gaps, as text."""
        parts = [f"{self.title}: {len(self.table):,} rows in .table", "", "overall", _text(self.overall)]
        gaps = self.gaps
        if len(gaps):
            parts += ["", "gaps between groups (.gaps; each group: .by_group)", _text(gaps)]
        return "\n".join(parts)

    def _repr_html_(self) -> str:
        """The same as tables for a notebook."""
        html = f"<p><b>{self.title}</b></p>{self.overall.to_html(float_format=_short)}"
        for name, view in (("By group", self.by_group), ("Gaps between groups", self.gaps)):
            if len(view):
                html += f"<p>{name}</p>{view.head(SHOWN_ROWS).to_html(float_format=_short)}"
        return html


def _short(value: float) -> str:
    return f"{value:.4g}"


def _text(view: pd.DataFrame) -> str:
    lines = view.head(SHOWN_ROWS).to_string(float_format=_short, na_rep="-")
    return lines if len(view) <= SHOWN_ROWS else f"{lines}\n... {len(view) - SHOWN_ROWS} more rows"

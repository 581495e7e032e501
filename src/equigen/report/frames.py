"""The report's input tables: checks of their columns, completion with optional ones, conversion to JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
import pandas as pd

from equigen.errors import InputError, Problem
from equigen.report.metrics import lookup_metric

DERIVED = ["gap", "es", "worst"]  # values of the column "group" that are computed from several groups
_ESTIMATE = ["estimate", "ci_low", "ci_high", "null_low", "null_high", "p_value"]
QUALITY_TEXT = ["run", "encoder", "metric", "attribute", "group", "note"]
ERRORS = ["standard_error", "mc_estimate", "mc_floor", "mc_interval", "mc_p"]
QUALITY_NUMBERS = ["n_real", "n_generated", "matched_n", *_ESTIMATE, "floor", "excess", *ERRORS, "p_floor"]
DIFFERENCES_TEXT = ["run", "difference_to", "encoder", "metric", "attribute", "group", "note"]
DIFFERENCES_NUMBERS = ["estimate", "reference", "difference", "ci_low", "ci_high", "p_value"]
COPIES_TEXT = ["run", "generated", "training", "view"]
COPIES_NUMBERS = ["rank", "distance", "ratio", "thumbnail_distance"]
POWER_TEXT = ["change", "attribute", "group", "note"]
POWER_NUMBERS = ["n", "share", "ci_low", "ci_high", "false_alarm"]
FAIRNESS_TEXT = ["recipe", "task", "domain", "metric", "attribute", "group", "difference_to", "note"]
FAIRNESS_NUMBERS = ["n", "n_patients", *_ESTIMATE, "difference", "difference_low", "difference_high"]
COUNTS_TEXT = ["label", "level", "attribute", "group", "split"]
HISTORY_TEXT = ["kind", "attribute", "group"]
_OPTIONAL = {
    "encoder", "note", "generated", "training", "view", "difference_to", "task", "domain", "label", "split", "level",
}  # fmt: skip


def _complete_table(
    frame: pd.DataFrame, name: str, text: list[str], numbers: list[str], needed: list[str]
) -> pd.DataFrame:
    """The columns ``text`` as strings and ``numbers`` as floats; absent optional ones are empty or NaN.

    Raises:
        InputError: when a text column that is not optional, or one of ``needed``, is missing.

    """
    required = [column for column in text if column not in _OPTIONAL] + needed
    missing = [column for column in required if column not in frame.columns]
    if missing:
        mend = f"give the table with the columns {', '.join(required)}"
        raise InputError(
            f"The {name} table cannot be reported.",
            [Problem("column is missing", mend, column=c) for c in missing],
        )
    texts = {c: frame[c].astype(object).where(frame[c].notna(), "").map(str) if c in frame else "" for c in text}
    nan = float("nan")
    values = {c: pd.to_numeric(frame[c]).astype(float) if c in frame else nan for c in numbers}
    return pd.DataFrame({**texts, **values}, index=frame.index).reset_index(drop=True)


def quality_frame(frame: pd.DataFrame | None) -> pd.DataFrame:
    """The quality table with all of its columns; a missing excess is estimate minus floor."""
    if frame is None or frame.empty:
        return pd.DataFrame(columns=[*QUALITY_TEXT, *QUALITY_NUMBERS])
    full = _complete_table(frame, "quality", QUALITY_TEXT, QUALITY_NUMBERS, ["estimate"])
    distance = full["metric"].map(lambda name: lookup_metric(name).better == "lower") & ~full["group"].isin(DERIVED)
    excess = (full["estimate"] - full["floor"]).where(distance)
    return full.assign(excess=full["excess"].fillna(excess))


def fairness_frame(frame: pd.DataFrame | None) -> pd.DataFrame:
    """The fairness table with all of its columns."""
    if frame is None or frame.empty:
        return pd.DataFrame(columns=[*FAIRNESS_TEXT, *FAIRNESS_NUMBERS])
    full = _complete_table(frame, "fairness", FAIRNESS_TEXT, FAIRNESS_NUMBERS, ["estimate"])
    return full.assign(domain=full["domain"].replace("", "all"))


def differences_frame(frame: pd.DataFrame | None) -> pd.DataFrame:
    """The table of paired differences between sets of generated images with all of its columns."""
    if frame is None or frame.empty:
        return pd.DataFrame(columns=[*DIFFERENCES_TEXT, *DIFFERENCES_NUMBERS])
    return _complete_table(frame, "comparison", DIFFERENCES_TEXT, DIFFERENCES_NUMBERS, ["difference"])


def copies_frame(frame: pd.DataFrame | None) -> pd.DataFrame:
    """The closest pairs: their columns, ``near_copy`` as yes, no or "" (not judged), and ``attr.*`` as text."""
    if frame is None or frame.empty:
        return pd.DataFrame(columns=[*COPIES_TEXT, *COPIES_NUMBERS, "near_copy"])
    attributes = [str(name) for name in frame.columns if str(name).startswith("attr.")]
    full = _complete_table(frame, "copies", [*COPIES_TEXT, *attributes], COPIES_NUMBERS, ["distance"])
    flags = frame["near_copy"].tolist() if "near_copy" in frame else [None] * len(frame)
    return full.assign(near_copy=["" if pd.isna(flag) else "yes" if flag else "no" for flag in flags])


def power_frame(frame: pd.DataFrame | None) -> pd.DataFrame:
    """The power of the copy check (copy_power.parquet) with all of its columns."""
    if frame is None or frame.empty:
        return pd.DataFrame(columns=[*POWER_TEXT, *POWER_NUMBERS])
    return _complete_table(frame, "copy_power", POWER_TEXT, POWER_NUMBERS, ["share", "false_alarm"])


def counts_frame(frame: pd.DataFrame | None) -> pd.DataFrame:
    """The counts with text columns, ``images``, ``patients`` (NaN where absent) and ``small`` (bool).

    Where there is a column ``domain``, out-of-distribution rows become a split of their own: ``test (ood)``.
    """
    if frame is None or frame.empty:
        return pd.DataFrame(columns=[*COUNTS_TEXT, "images", "patients", "small"])
    small = frame["small"].fillna(False).astype(bool) if "small" in frame else False
    full = _complete_table(frame, "counts", COUNTS_TEXT, ["images", "patients"], ["images"])
    outside = (frame["domain"] == "ood").to_numpy() if "domain" in frame else np.zeros(len(full), bool)
    split = full["split"].where(~outside, full["split"] + " (ood)")
    return full.assign(split=split, small=np.asarray(small))


def history_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """One generator's history: images seen, kind, attribute, group, value."""
    return _complete_table(frame, "history", HISTORY_TEXT, ["images_seen", "value"], ["images_seen", "value"])


def unique_values(values: pd.Series) -> list[str]:
    """The different values in the order of their first appearance."""
    return [str(value) for value in values.drop_duplicates()]


def json_value(value: Any) -> Any:
    """A JSON-like copy: NaN and infinity become None, NumPy scalars become Python's, everything else text."""
    if isinstance(value, Mapping):
        return {str(key): json_value(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple, set, frozenset, np.ndarray)):
        ordered = sorted(value, key=str) if isinstance(value, (set, frozenset)) else value
        return [json_value(entry) for entry in ordered]
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if isinstance(value, (bool, str, int, float)):
        return value
    return value.as_posix() if isinstance(value, PurePath) else str(value)


def json_table(frame: pd.DataFrame | None) -> dict[str, Any] | None:
    """A table as ``{"columns": [...], "rows": [[...], ...]}`` with None where a value is unknown."""
    if frame is None:
        return None
    columns = [frame[name].tolist() for name in frame.columns]
    rows = [[json_value(entry) for entry in row] for row in zip(*columns, strict=True)]
    return {"columns": [str(name) for name in frame.columns], "rows": rows}

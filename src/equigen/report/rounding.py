"""Numbers as text: rounded to the digits that a metric supports, unknown values as a dash."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from equigen.report.metrics import Metric

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

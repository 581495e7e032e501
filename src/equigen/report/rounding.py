"""Numbers as words: rounded to what they can support, and never a NaN."""

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
    """A value of a metric on its shown scale; a dash where it is unknown."""
    if not is_finite(value):
        return ABSENT
    shown = float(value) * metric.scale
    size = abs(shown)
    decimals = (
        metric.decimals if metric.decimals is not None else 0 if size >= 100 else 1 if size >= 10 else 2
    )
    text = f"{shown:,.{decimals}f}"
    return text[1:] if text.startswith("-") and not text.strip("-0.,") else text


def error_text(value: Any, metric: Metric) -> str:
    """An error with two significant digits on the metric's shown scale; a dash where it is unknown."""
    if not is_finite(value):
        return ABSENT
    shown = abs(float(value)) * metric.scale
    decimals = 1 - math.floor(math.log10(shown)) if shown > 0 else 0
    return f"{shown:,.{min(max(decimals, 0), 6)}f}"


def signed_number(value: Any, metric: Metric) -> str:
    """A difference with its sign."""
    text = number(value, metric)
    return f"+{text}" if is_finite(value) and float(value) > 0 else text


def interval(low: Any, high: Any, metric: Metric) -> str:
    """``low to high`` or nothing when either end is unknown."""
    return f"{number(low, metric)} to {number(high, metric)}" if is_finite(low) and is_finite(high) else ""


def estimate_text(value: Any, low: Any, high: Any, metric: Metric) -> str:
    """``value (low to high)``."""
    span = interval(low, high, metric)
    return f"{number(value, metric)} ({span})" if span else number(value, metric)


def difference_text(value: Any, low: Any, high: Any, metric: Metric) -> str:
    """``-12 (-20 to -4)``."""
    span = interval(low, high, metric)
    return f"{signed_number(value, metric)} ({span})" if span else signed_number(value, metric)


def p_text(p: Any) -> str:
    """``p = 0.03`` or ``p < 0.001``; nothing when unknown."""
    if not is_finite(p):
        return ""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def count(value: Any) -> str:
    """A whole number with thousands separators; a dash where it is unknown."""
    return f"{round(value):,}" if is_finite(value) else ABSENT


def listing(words: list[str]) -> str:
    """``a, b and c``."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def duration(seconds: float) -> str:
    """Seconds as a length of time a person reads."""
    if not is_finite(seconds):
        return ABSENT
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"

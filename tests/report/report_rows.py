"""Rows of the contract's tables with plausible values; keywords replace what a test is about."""

from __future__ import annotations

ATTRIBUTES = {
    "sex": ["female", "male"],
    "age": ["under 40", "40 to 59", "60 and over"],
    "race": [
        "asian",
        "black",
        "white",
        "native hawaiian or other pacific islander",
        "middle eastern",
        "other",
        "unknown to the clinic",
    ],
}
SIZES = {
    "female": 420,
    "male": 380,
    "under 40": 120,
    "40 to 59": 300,
    "60 and over": 380,
    "asian": 130,
    "black": 210,
    "white": 350,
    "native hawaiian or other pacific islander": 12,
    "middle eastern": 45,
    "other": 33,
    "unknown to the clinic": 60,
}
NAN = float("nan")


def quality_row(run, attribute, group, estimate, width=0.02, metric="kd", more=None, **rest):
    """One row of quality.parquet."""
    row = {
        "run": run,
        "encoder": "efficientnet-lite0",
        "metric": metric,
        "attribute": attribute,
        "group": group,
        "n_real": SIZES.get(group, 800),
        "n_generated": SIZES.get(group, 800),
        "matched_n": 100,
        "estimate": estimate,
        "ci_low": estimate - width,
        "ci_high": estimate + width,
        "floor": 0.001,
        "excess": estimate - 0.001,
        "null_low": NAN,
        "null_high": NAN,
        "p_value": NAN,
        "note": "",
    }
    if group in ("gap", "es") or metric.startswith("oracle"):
        row |= {"floor": NAN, "excess": NAN}
    return row | rest | (more or {})


def fairness_row(
    recipe,
    attribute,
    group,
    estimate,
    domain="id",
    metric="auc",
    task="glaucoma",
    width=0.03,
    more=None,
    **rest,
):
    """One row of fairness.parquet."""
    row = {
        "recipe": recipe,
        "task": task,
        "domain": domain,
        "metric": metric,
        "attribute": attribute,
        "group": group,
        "n": SIZES.get(group, 800),
        "n_patients": SIZES.get(group, 800) // 2,
        "estimate": estimate,
        "ci_low": estimate - width,
        "ci_high": estimate + width,
        "null_low": NAN,
        "null_high": NAN,
        "p_value": NAN,
        "difference_to": "",
        "difference": NAN,
        "difference_low": NAN,
        "difference_high": NAN,
        "note": "",
    }
    return row | rest | (more or {})

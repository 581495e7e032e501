"""The figures of docs/results.md, from the tables in benchmarks/results.

python docs/figures/results.py        # writes docs/images/results-*.png
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

ROOT = Path(__file__).parents[2]
RESULTS, IMAGES = ROOT / "benchmarks" / "results", ROOT / "docs" / "images"
LABELS = {
    "none": "plain training", "balanced": "balanced", "reweight": "reweight", "group_dro": "group DRO",
    "minmax_noise": "worst group per noise level", "perturbation": "perturbation, corrected",
    "released": "perturbation, released", "random": "random weights",
}  # fmt: skip
GREY, BLUE, RED = "#687385", "#0b6e8f", "#b5482b"


def pick(table: pd.DataFrame, **values: object) -> pd.DataFrame:
    """Rows that have these values."""
    for column, value in values.items():
        table = table[table[column] == value]
    return table


def mechanisms() -> Figure:
    """Change of the gap by age that each mechanism brings, against plain training of the same seeds."""
    table = pd.read_parquet(RESULTS / "compare-ham10000-long" / "contest.parquet")
    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    axes = figure.subplots()
    rows = pick(table, figure="gap", attribute="age", plan="match", guidance="2")
    rows = rows[rows["mechanism"] != "none"].set_index("mechanism").loc[[name for name in LABELS if name != "none"]]
    for position, row in enumerate(rows.itertuples()):
        low, high = 1000 * row.difference_low, 1000 * row.difference_high
        axes.plot([low, high], [position, position], color=BLUE)
        axes.plot(1000 * row.difference, position, "o", color=BLUE)
    axes.axvline(0, color=GREY, linewidth=1)
    axes.set_yticks(range(len(rows)), [LABELS[name] for name in rows.index])
    axes.invert_yaxis()
    axes.set_xlabel("change of the gap by age (excess KD x 1000); left is narrower")
    axes.set_title("No mechanism narrows the gap", loc="left", fontsize=11)
    return figure


def convergence() -> Figure:
    """Overall distance and gap by age over the images that plain training has seen."""
    curve = pd.read_parquet(RESULTS / "compare-ham10000-long" / "curve.parquet")
    coder = pd.read_parquet(RESULTS / "compare-ham10000-long" / "reconstruction.parquet")
    figure = Figure(figsize=(7.2, 3.2), layout="constrained")
    axes = figure.subplots()
    parts = [("overall", "*", BLUE, "overall"), ("gap", "age", RED, "gap by age")]
    for name, attribute, colour, label in parts:
        rows = pick(curve, figure=name, attribute=attribute)
        mean = 1000 * rows.groupby("images_seen")["estimate"].mean()
        axes.plot(mean.index / 1000, mean, "o-", color=colour, label=label)
        for _, seed in rows.groupby("seed"):
            axes.plot(seed["images_seen"] / 1000, 1000 * seed["estimate"], color=colour, alpha=0.25, linewidth=1)
        value = 1000 * pick(coder, figure=name, attribute=attribute)["estimate"].iloc[0]
        axes.axhline(value, color=colour, linestyle=":", linewidth=1)
    axes.set_xlabel("images seen (thousands)")
    axes.set_ylabel("excess KD x 1000")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    axes.set_title("Training closes most of it; dotted: the autoencoder alone", loc="left", fontsize=11)
    return figure


def guidance() -> Figure:
    """Overall distance and gap by age of plain training over guidance."""
    table = pd.read_parquet(RESULTS / "compare-ham10000" / "contest.parquet")
    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    axes = figure.subplots()
    rows = pick(table, mechanism="none", plan="match")
    rows = rows[rows["guidance"].isin(["1", "2", "3"])]
    overall = 1000 * pick(rows, figure="overall").set_index("guidance")["estimate"]
    for attribute, colour in (("age", RED), ("sex", BLUE)):
        gap = 1000 * pick(rows, figure="gap", attribute=attribute).set_index("guidance")["estimate"]
        order = np.array(["1", "2", "3"])
        axes.plot(overall[order], gap[order], "o-", color=colour, label=f"gap by {attribute}")
        for step in order:
            axes.annotate(step, (overall[step], gap[step]), textcoords="offset points", xytext=(6, 5), color=colour)
    axes.set_xlabel("overall distance (excess KD x 1000); left is better")
    axes.set_ylabel("gap (excess KD x 1000)")
    axes.set_ylim(0, 135)
    axes.legend(frameon=False)
    axes.set_title("More guidance: better overall, wider gaps", loc="left", fontsize=11)
    return figure


if __name__ == "__main__":
    for function in (mechanisms, convergence, guidance):
        function().savefig(IMAGES / f"results-{function.__name__}.png", dpi=150)

"""The figure of docs/quality.md: a perfect generator, judged by raw FD, looks unfair to small groups.

    python docs/figures/group_size.py        # writes docs/images/group-size.png

Real and "generated" images are phantoms from one distribution, so every group is served perfectly; groups are drawn
at random and differ in size alone. Left: the Fréchet distance of each group as it is usually reported, with all images
that the group has. Right: what `equigen.evaluate` gives for the same images.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from equigen.cohort import load_images
from equigen.cohort.phantom import write_phantom
from equigen.quality import ImageSet, evaluate, frechet_distance, load_encoder

IMAGES, SIZE = 2480, 64
SIZES = [80, 160, 320, 640, 1280]  # images of each group
ENCODER = "efficientnet-lite0@64"
INK, MUTED, ACCENT = "#1b2330", "#687385", "#0b6e8f"


def main() -> None:
    """Draw the images, measure both ways, write the figure."""
    levels = [f"{size} images" for size in SIZES]
    sides = {}
    with tempfile.TemporaryDirectory() as name:
        for seed, side in enumerate(("real", "generated")):
            place = write_phantom(Path(name) / side, IMAGES, seed)
            pixels = load_images([place / "images" / f"{row:06d}.png" for row in range(IMAGES)], SIZE)
            group = np.random.default_rng(seed).permutation(np.repeat(levels, SIZES))
            sides[side] = ImageSet(pd.DataFrame({"attr.group": group}), pixels, {"group": levels})
    table = evaluate(sides["real"], sides["generated"], encoder=ENCODER, metrics=["kd", "fd"], matched_n=40).table
    features = {side: load_encoder(ENCODER)(images.pixels)[0] for side, images in sides.items()}
    members = {side: images.frame["attr.group"].to_numpy() for side, images in sides.items()}
    raw = [
        frechet_distance(*(features[side][members[side] == level] for side in ("real", "generated")))
        for level in levels
    ]
    draw(raw, table, levels).savefig(Path(__file__).parents[1] / "images" / "group-size.png", dpi=110)
    print(table[table["attribute"] == "group"][["metric", "group", "estimate", "floor", "excess", "p_value"]])


def draw(raw: list[float], table: pd.DataFrame, levels: list[str]) -> Figure:
    """Raw FD on the left, excess FD at matched n and KD with interval and chance band on the right."""
    mpl.rcParams.update({"font.size": 10, "text.color": INK, "axes.edgecolor": MUTED, "axes.labelcolor": INK})
    figure = Figure(figsize=(10.5, 3.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3, sharey=True)
    places = np.arange(len(levels))
    left.barh(places, raw, color=MUTED)
    left.set(title="Raw FD, each group with all it has", xlabel="FD (a perfect generator!)", yticks=places)
    left.set_yticklabels(levels)
    left.invert_yaxis()
    for axes, metric, scale, title in (
        (middle, "fd", 1.0, "Excess FD at matched n"),
        (right, "kd", 1000.0, "Excess KD x 1000"),
    ):
        rows = table[(table["metric"] == metric) & (table["attribute"] == "group")].set_index("group").loc[levels]
        shift = rows["floor"]
        middle_of = (rows["estimate"] - shift) * scale
        axes.hlines(places, (rows["ci_low"] - shift) * scale, (rows["ci_high"] - shift) * scale, color=ACCENT, lw=2)
        axes.plot(middle_of, places, "o", color=ACCENT)
        axes.axvline(0, color=MUTED, lw=1, ls=":")
        axes.set(title=title, xlabel="0 is what real images score")
    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    main()

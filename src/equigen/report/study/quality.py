"""The section on image quality: one distance in full, everything else folded away below it."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from equigen.report.findings import is_intersection, singles
from equigen.report.forest_figures import direction, group_pictures
from equigen.report.frames import in_order
from equigen.report.layout import Block, Section
from equigen.report.metrics import Metric, metric, ordered
from equigen.report.rounding import listing
from equigen.report.study.details import all_numbers, family_block, has_errors, monte_carlo, side_by_side
from equigen.report.study.quality_findings import worst_intersection
from equigen.report.tables import value_table

ELSEWHERE = ["memorisation", "semantic"]  # families with a section of their own
_FAMILIES = {
    "distance": "Other distances",
    "variety": "Variety",
    "manifold": "Realism and variety apart",
    "": "Other measures",
}
_LEADS = {
    "distance": "They say much the same as KD where n is large. They are biased at small n: read them beside what "
    "real images have between themselves, and quote KD.",
    "variety": "A score of the generated images alone: it knows no real image, so it cannot see that they are wrong.",
    "manifold": "Precision and density ask whether generated images look real, recall and coverage whether all of "
    "the real variety is there. They depend on n and k: compare them with what real held-out images score.",
    "": "",
}


def of_families(quality: pd.DataFrame, names: list[str], *, others: bool = False) -> pd.DataFrame:
    """The rows of a quality table whose metric belongs to one of these families (or to none of them)."""
    family = quality["metric"].map(lambda name: metric(str(name)).family)
    return quality[family.isin(names) != others]


def quality_section(quality: pd.DataFrame) -> Section:
    """The distance that is quoted per group and encoder in full; the rest in folded tables."""
    rows = of_families(quality, ELSEWHERE, others=True)
    intro = (
        "Generated against real images of the same group, all groups at one number of images. The black tick "
        "is what real images give; reconstruction is what latent coding alone costs. Bars are 95 % intervals."
    )
    blocks = [
        block
        for place, encoder in enumerate(in_order(rows["encoder"]))
        for block in _encoder_blocks(rows[rows["encoder"] == encoder], encoder, place)
    ]
    return Section("quality", "Image quality per group", intro, blocks, "Image quality was not evaluated.")


def _encoder_blocks(rows: pd.DataFrame, encoder: str, place: int) -> list[Block]:
    """The first metric in full; then its errors, intersections and the other metrics, each folded."""
    names = ordered(in_order(rows["metric"]))
    first, by = metric(names[0]), f", encoder {encoder}" if encoder else ""
    single = singles(rows)
    own = single[single["metric"] == first.name]
    blocks = [] if own.empty else [main_block(own, first, f"{first.title}{by}", f"q{place}-{first.name}")]
    if has_errors(own):
        title = f"{first.short}{by}: all numbers, with standard and Monte-Carlo errors"
        blocks.append(Block(title, monte_carlo(own), tables=[all_numbers(own, first)], folded=True))
    blocks += intersection_block(rows, names, by)
    rest = single[single["metric"] != first.name]
    for family, title in _FAMILIES.items():
        part = of_families(rest, [family])
        if not part.empty:
            shorts = listing([metric(name).short for name in ordered(in_order(part["metric"]))])
            lead = [_LEADS[family]] if _LEADS[family] else []
            blocks.append(family_block(part, f"{title}: {shorts}{by}", lead))
    return blocks


def figure_block(rows: pd.DataFrame, words: Metric, title: str, slug: str) -> Block:
    """A metric with a forest plot for each attribute; its numbers stand in a table further down."""
    return Block(title, [direction(words)], group_pictures(rows, words, slug))


def main_block(rows: pd.DataFrame, words: Metric, title: str, slug: str) -> Block:
    """A metric with a forest plot for each attribute and its table; runs are columns."""
    size = _size(rows, words)
    excess = ", excess over the floor" if rows["excess"].notna().any() else ""
    table = value_table(rows, "run", words, f"{title}: value, interval{excess}", size)
    return replace(figure_block(rows, words, title, slug), tables=[table])


def _size(rows: pd.DataFrame, words: Metric) -> str:
    """The column that says on how many images a metric stands: all of a group's, but for distances matched n."""
    matched = words.family not in ELSEWHERE and rows["matched_n"].notna().any()
    return "matched_n" if matched else "n_generated"


def intersection_block(rows: pd.DataFrame, names: list[str], by: str) -> list[Block]:
    """Groups of two attributes at once, folded: the first metric run by run, then all metrics side by side."""
    own = rows[is_intersection(rows)]
    if own.empty:
        return []
    present = [name for name in names if (own["metric"] == name).any()]
    first = metric(present[0])
    part = own[own["metric"] == first.name]
    tables = [value_table(part, "run", first, f"{first.title}, intersections", _size(part, first))]
    if len(present) > 1:
        tables += [side_by_side(own[own["run"] == run], present[1:], run) for run in in_order(own["run"])]
    lead = "Patients who share the groups of two attributes; small cells get no number."
    text = [lead, *worst_intersection(part, first)]
    return [Block(f"Intersections of attributes{by}", text, tables=tables, folded=True)]

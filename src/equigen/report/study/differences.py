"""The section that compares sets of generated images: paired differences against the reference."""

from __future__ import annotations

from typing import Any

import pandas as pd

from equigen.report.figures import looks
from equigen.report.findings import is_intersection, singles
from equigen.report.forest import Mark, forest
from equigen.report.forest_figures import alt_text, axis_name
from equigen.report.frames import in_order
from equigen.report.layout import Block, Cell, Picture, Row, Section, Table
from equigen.report.metrics import Metric, metric, ordered
from equigen.report.rounding import ABSENT, interval, known, listing, number, p_text, signed
from equigen.report.study.differences_findings import (
    FIRM,
    HEADLINES,
    difference_verdict,
    row_name,
    seed_words,
    with_holm,
)

_INTRO = (
    "Every set of generated images against the reference, on the same real images and in the same resamples, so "
    "that what they share cancels. The axis says on which side of 0 is better; of a gap, smaller is better. An "
    "interval that holds 0 establishes nothing, nor does one whose p-value, where given, is above 0.05. "
    "P-values and intervals are those of one row alone; verdicts are corrected over rows. "
)


def differences_section(differences: pd.DataFrame) -> Section | None:
    """Differences of the headline metrics in full, the other metrics folded; None where nothing is compared."""
    if differences.empty:
        return None
    differences = with_holm(differences)
    rows = singles(differences)
    pairs = [(name, encoder) for name in ordered(in_order(rows["metric"]))
             for encoder in in_order(rows.loc[rows["metric"] == name, "encoder"])]  # fmt: skip
    shown = [pair for pair in pairs if pair[0] in HEADLINES] or pairs[:1]
    several = rows["encoder"].nunique() > 1
    blocks = [_block(rows, pair, several, place) for place, pair in enumerate(shown)]
    rest = [pair for pair in pairs if pair not in shown]
    if rest:
        inner = [_block(rows, pair, several, len(shown) + place) for place, pair in enumerate(rest)]
        title = f"Other metrics: {listing(list(dict.fromkeys(metric(name).short for name, _ in rest)))}"
        pictures, tables = [p for b in inner for p in b.pictures], [t for b in inner for t in b.tables]
        blocks.append(Block(title, [], pictures, tables, folded=True))
    crossed = differences[is_intersection(differences)]
    if not crossed.empty:
        names = ordered(in_order(crossed["metric"]))
        tables = [_table(crossed[crossed["metric"] == name], metric(name), "") for name in names]
        blocks.append(Block("Generators compared on intersections", tables=tables, folded=True))
    return Section("compared", "Generators compared", _INTRO + seed_words(differences), blocks, "")


def _block(rows: pd.DataFrame, pair: tuple[str, str], several: bool, place: int) -> Block:
    """One metric by one encoder: a forest for each reference, and the table."""
    name, encoder = pair
    words, by = metric(name), f", encoder {pair[1]}" if several and pair[1] else ""
    own = rows[(rows["metric"] == name) & (rows["encoder"] == encoder)]
    pictures = [
        _picture(own[own["difference_to"] == base], words, base, f"d{place}-{index}")
        for index, base in enumerate(in_order(own["difference_to"]))
    ]
    return Block(f"{words.title}{by}", [], pictures, [_table(own, words, by)])


def _picture(rows: pd.DataFrame, words: Metric, base: str, slug: str) -> Picture:
    """A forest of differences: the whole set, groups and gaps, a mark per run, and the line at 0."""
    marks = [
        Mark(row_name(row), str(row["run"]), row["difference"], row["ci_low"], row["ci_high"], remark="not evaluated")
        for row in rows.to_dict("records")
    ]
    caption = f"difference to {base or 'the reference'}"
    way = {"lower": ", below 0 is better", "higher": ", above 0 is better (of a gap: below)", "": ""}[words.better]
    names = in_order(rows["run"])
    svg = forest(
        marks, [], axis=f"difference in {axis_name(words)}{way}", scale=words.scale, slug=slug, series=names,
        alt=alt_text(marks, words, caption), styles=looks(names), zero="0: no difference",
    )  # fmt: skip
    return Picture(svg, f"{words.short}, {caption}")


def _table(rows: pd.DataFrame, words: Metric, by: str) -> Table:
    """Value, reference, difference and verdict of every row, run by run."""
    result: list[Row] = []
    for run, base in dict.fromkeys(zip(rows["run"], rows["difference_to"], strict=True)):
        own = rows[(rows["run"] == run) & (rows["difference_to"] == base)]
        result.append(Row(f"{run} against {base or 'the reference'}", kind="attribute"))
        result += [_row(row, words) for row in own.to_dict("records")]
    head = ["group", "value", "reference", "difference", "95 % interval", "p", "verdict"]
    return Table(f"{words.title}{by}: paired differences", head, result)


def _row(row: Any, words: Metric) -> Row:
    said = difference_verdict(row)
    firm = said in FIRM
    cells = [
        Cell(number(row["estimate"], words)),
        Cell(number(row["reference"], words)),
        Cell(signed(row["difference"], words)),
        Cell(interval(row["ci_low"], row["ci_high"], words) or ABSENT),
        Cell(p_text(row["p_value"]).removeprefix("p ").removeprefix("= ") or ABSENT),
        Cell(said, mark="beyond" if firm else "" if known(row["difference"]) else "missing"),
    ]
    return Row(row_name(row), cells, "derived" if row["group"] in {"gap", "es", "worst"} else "")

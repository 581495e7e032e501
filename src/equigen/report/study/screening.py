"""What a report says of screening: whom the screen accepts, beside how it treats real images of the same group."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from equigen.errors import InputError, Problem
from equigen.report.figures import run_styles
from equigen.report.findings import gap_text, verdict
from equigen.report.forest import Mark, forest_plot
from equigen.report.forest_figures import alt_text
from equigen.report.frames import unique_values
from equigen.report.layout import Block, Cell, Picture, Row, Section, Sentence, Table
from equigen.report.metrics import Metric, lookup_metric
from equigen.report.rounding import ABSENT, count, estimate_text, interval, is_finite, number
from equigen.report.tables import WHOLE_SET

COLUMNS = [
    "run", "field", "metric", "attribute", "group", "n", "n_patients", "count", "estimate", "ci_low", "ci_high",
    "null_low", "null_high", "p_value", "note",
]  # fmt: skip
SHOWN = ["accepted_first", "tries", "given_up", "false_rejection", "excess_rejection"]
TOPIC = "Screening"
REFUSED = Metric("refused", "share refused", "Share of images that the screen refuses", "lower", "", "", decimals=3)
UNFAIR = "The same screen treats real images of these groups unequally too: {}."
SERVED = "The screen is not shown to treat real images of these groups unequally; beyond its own mistakes, {}."
Line = Mapping[Hashable, Any]


def check_screening(tables: Mapping[str, pd.DataFrame]) -> None:
    """Raise InputError where a table lacks a column."""
    problems = [Problem("column is missing", "give the table of screen", column=column, file=name)
                for name, table in tables.items() for column in COLUMNS if column not in table.columns]  # fmt: skip
    if problems:
        raise InputError("The screening table cannot be reported.", problems)


def screening_section(tables: Mapping[str, pd.DataFrame]) -> Section | None:
    """A part for each screened set, by its name; None where none was screened."""
    if not tables:
        return None
    intro = (
        "A classifier checked whether each generated image shows what was asked for; refused ones were drawn again "
        "with the next seed, and those still refused at the end are left out of all that follows. A screen can be "
        "unfair: beside each group stands how often the same screen refuses real held-out images of it. What it "
        "refuses of generated images beyond that is the generator's doing."
    )
    blocks = [_block(name, table, place) for place, (name, table) in enumerate(tables.items())]
    used = [lookup_metric(name) for name in SHOWN]
    blocks.append(Block("What these numbers are", terms=[(own.title, own.meaning, own.source) for own in used]))
    return Section("screening", "Screening: whose images were accepted", intro, blocks, "")


def _block(name: str, table: pd.DataFrame, place: int) -> Block:
    """Figures and table of all fields together, then the fields one by one."""
    own = table[table["field"] == "*"]
    pictures = [_picture(own, attribute, f"screen-{place}-{index}")
                for index, attribute in enumerate(_attributes(own))]  # fmt: skip
    tables = [_table(own, "all fields"), *(_table(table[table["field"] == field], field)
                                           for field in unique_values(table["field"]) if field != "*")]  # fmt: skip
    return Block(name, _remarks(table), pictures, tables)


def _attributes(table: pd.DataFrame) -> list[str]:
    return [name for name in unique_values(table["attribute"]) if name != "*"]


def _remarks(table: pd.DataFrame) -> list[str]:
    """What the rows of whole sets note, once each."""
    whole = table[(table["group"] == "*") & table["metric"].isin(["accepted_first", "false_rejection"])]
    fields = ["all fields" if field == "*" else field for field in whole["field"]]
    said = zip(whole["run"], fields, whole["note"], strict=True)
    return [f"{run} images, {field}: {note}" for run, field, note in said if note]


def _find(table: pd.DataFrame, name: str, attribute: str, group: str) -> Line | None:
    found = table[(table["metric"] == name) & (table["attribute"] == attribute) & (table["group"] == group)]
    return next(iter(found.to_dict("records")), None)


def _groups(table: pd.DataFrame, attribute: str) -> list[str]:
    return [name for name in unique_values(table.loc[table["attribute"] == attribute, "group"]) if name != "gap"]


def _picture(table: pd.DataFrame, attribute: str, slug: str) -> Picture:
    """Shares refused of generated (as first drawn) and of real images, group by group."""
    marks = []
    for place, group in [("*", "*"), *((attribute, name) for name in _groups(table, attribute))]:
        name = WHOLE_SET if group == "*" else group
        first, real = (_find(table, metric_name, place, group) for metric_name in ("accepted_first", "false_rejection"))
        if first is not None:
            marks.append(Mark(name, "generated", 1 - first["estimate"], 1 - first["ci_high"], 1 - first["ci_low"],
                              remark="too small"))  # fmt: skip
        if real is not None:
            marks.append(Mark(name, "real", real["estimate"], real["ci_low"], real["ci_high"], remark="too small"))
    names = ["generated", "real"]
    caption = f"Share refused by the screen, as first drawn, by {attribute}"
    svg = forest_plot(marks, [], axis="share refused, lower is better", scale=1.0, slug=slug, series=names,
                 alt=alt_text(marks, REFUSED, f"by {attribute}"), styles=run_styles(names))  # fmt: skip
    return Picture(svg, caption)


def _table(table: pd.DataFrame, field: str) -> Table:
    """Every group with its numbers."""
    shown = [name for name in SHOWN if name in set(table["metric"])]
    rows = [_row(table, "*", "*", shown)]
    for attribute in _attributes(table):
        rows.append(Row(attribute, kind="attribute"))
        rows += [_row(table, attribute, group, shown) for group in [*_groups(table, attribute), "gap"]]
    return Table(f"Screening by {field}", ["group", "asked", *(lookup_metric(name).short for name in shown)], rows)


def _row(table: pd.DataFrame, attribute: str, group: str, shown: list[str]) -> Row:
    found = {name: _find(table, name, attribute, group) for name in shown}
    first = found.get("accepted_first")
    cells = [Cell(count(first["n"]) if first is not None else ABSENT)]
    cells += [_cell(found[name], lookup_metric(name), group) for name in shown]
    return Row({"*": WHOLE_SET, "gap": "gap"}.get(group, group), cells, "derived" if group == "gap" else "")


def _cell(row: Line | None, words: Metric, group: str) -> Cell:
    if row is None or not is_finite(row["estimate"]):
        note = "" if row is None else str(row["note"]).split(";", maxsplit=1)[0]
        return Cell(ABSENT, note, "small" if "small" in note else "missing")
    beyond = group == "gap" and verdict(row, words).exceeds_chance
    return Cell(number(row["estimate"], words), interval(row["ci_low"], row["ci_high"], words), "beyond" * bool(beyond))


def screening_sentences(tables: Mapping[str, pd.DataFrame]) -> list[Sentence]:
    """For each set how much was accepted, then for each attribute whether groups differ and what may explain it.

    Attributes of which nothing is established share a sentence, and so do those that were not compared.
    """
    said: list[Sentence] = []
    for name, table in tables.items():
        own = table[table["field"] == "*"]
        said += [_overall(name, own), *_of_attributes(name, own)]
        said += [Sentence(f"{name}: {note}.", "caution", TOPIC) for note in _remarks(table) if "chance" in note]
        if _find(own, "false_rejection", "*", "*") is None:
            said.append(Sentence(f"{name}: how the screen treats real images was not measured, so a low acceptance may "
                                 "be the screen's fault.", "missing", TOPIC))  # fmt: skip
    return said


def _value(row: Line | None, name: str) -> str:
    return ABSENT if row is None else estimate_text(row["estimate"], row["ci_low"], row["ci_high"], lookup_metric(name))


def _overall(name: str, table: pd.DataFrame) -> Sentence:
    first, tries, lost = (_find(table, own, "*", "*") for own in ("accepted_first", "tries", "given_up"))
    if first is None or not is_finite(first["estimate"]):
        return Sentence(f"{name}: acceptance was not measured.", "missing", TOPIC)
    text = (f"{name}: {_value(first, 'accepted_first')} of the images were accepted as first drawn, "
            f"{_value(tries, 'tries')} were drawn for one, {_value(lost, 'given_up')} were given up and are left out.")
    return Sentence(text, "note", TOPIC)


def _of_attributes(name: str, table: pd.DataFrame) -> list[Sentence]:
    """Attributes whose groups differ one by one, then the others together."""
    words = lookup_metric("accepted_first")
    differ, alike, unknown = list[Sentence](), list[str](), list[str]()
    for attribute in _attributes(table):
        gap = _find(table, "accepted_first", attribute, "gap")
        if gap is None or not is_finite(gap["estimate"]):
            unknown.append(f"by {attribute}: {gap['note'] if gap else 'no groups'}")
        elif verdict(gap, words).exceeds_chance:
            differ.append(_differing(name, table, attribute, gap))
        else:
            alike.append(f"by {attribute}: {gap_text(gap, words)}")
    together = [
        Sentence(f"{name}, share accepted at first: {_listed(found, otherwise)}", tone, TOPIC,
                 tuple(found) if len(found) > 1 else ())
        for found, otherwise, tone in (
            (alike, "no gap by {} attributes can be told from chance.", "chance"),
            (unknown, "not compared by {} attributes.", "missing"),
        ) if found
    ]  # fmt: skip
    return [*differ, *together]


def _listed(found: list[str], otherwise: str) -> str:
    """The one thing that was found, or how many there are."""
    return f"{found[0]}." if len(found) == 1 else otherwise.format(len(found))


def _differing(name: str, table: pd.DataFrame, attribute: str, gap: Line) -> Sentence:
    """A gap beyond chance, the group with the lowest acceptance, and what is behind it."""
    words = lookup_metric("accepted_first")
    rows = {group: _find(table, "accepted_first", attribute, group) for group in _groups(table, attribute)}
    known_rows = {group: row for group, row in rows.items() if row is not None and is_finite(row["estimate"])}
    worst = min(known_rows, key=lambda group: float(known_rows[group]["estimate"]))
    text = (f"{name}, share accepted at first by {attribute}: {gap_text(gap, words)}; lowest for {worst}, "
            f"{_value(known_rows[worst], 'accepted_first')}. {_cause(table, attribute, worst)}")  # fmt: skip
    return Sentence(text.strip(), "caution", TOPIC)


def _cause(table: pd.DataFrame, attribute: str, worst: str) -> str:
    """Whether the screen, the generator or neither is shown to be behind a gap."""
    names = ("false_rejection", "excess_rejection")
    screen, beyond = (_find(table, name, attribute, "gap") for name in names)
    own, over = (_find(table, name, attribute, worst) for name in names)
    if screen is None or beyond is None or not is_finite(screen["estimate"]):
        return "Whether the screen or the generator is behind it was not measured."
    if verdict(screen, lookup_metric(names[0])).exceeds_chance:
        return UNFAIR.format(f"it refuses {_value(own, names[0])} of those of {worst}")
    if verdict(beyond, lookup_metric(names[1])).exceeds_chance:
        return SERVED.format(f"{_value(over, names[1])} of the images of {worst} are refused")
    return "Whether the screen or the generator is behind it cannot be told."

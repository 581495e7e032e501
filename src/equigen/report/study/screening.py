"""Screening: shares of generated images accepted per group, beside the refusals of real images."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from equigen.errors import InputError, Problem
from equigen.report.figures import run_styles
from equigen.report.findings import attribute_names, gap_text, verdict
from equigen.report.forest import Mark, alt_text, forest_plot
from equigen.report.frames import unique_values
from equigen.report.layout import Block, Cell, Picture, Row, Section, Sentence, Table
from equigen.report.metrics import ABSENT, Metric, count, estimate_text, interval, is_finite, lookup_metric, number
from equigen.report.tables import WHOLE_SET

COLUMNS = [
    "run", "field", "metric", "attribute", "group", "n", "n_patients", "count", "estimate", "ci_low", "ci_high",
    "null_low", "null_high", "p_value", "note",
]  # fmt: skip
METRICS = ["accepted_first", "tries", "given_up", "false_rejection", "excess_rejection"]
TOPIC = "Screening"
REFUSAL = Metric("refused", "share refused", "Share of images that the screen refuses", "lower", "", "", decimals=3)
SCREEN_CAUSE = "The same screen treats real images of these groups unequally too: {}."
GENERATOR_CAUSE = "The screen is not shown to treat real images of these groups unequally; beyond its own mistakes, {}."
TableRow = Mapping[Hashable, Any]


def check_screening(tables: Mapping[str, pd.DataFrame]) -> None:
    """Raise InputError where a table lacks a column."""
    problems = [Problem("column is missing", "give the table of screen", column=column, file=name)
                for name, table in tables.items() for column in COLUMNS if column not in table.columns]  # fmt: skip
    if problems:
        raise InputError("The screening table cannot be reported.", problems)


def screening_section(tables: Mapping[str, pd.DataFrame]) -> Section | None:
    """A block for each screened set, by its name: figures, all fields together, then field by field.

    None where no set was screened.
    """
    if not tables:
        return None
    intro = (
        "A classifier checked whether each generated image shows what was asked for; refused ones were drawn again "
        "with the next seed, and those still refused at the end are left out of all that follows. A screen can be "
        "unfair: beside each group stands how often the same screen refuses real held-out images of it. The generator "
        "is responsible for what the screen refuses of generated images beyond that."
    )
    blocks = []
    for index, (name, table) in enumerate(tables.items()):
        total = table[table["field"] == "*"]
        pictures = [_refusal_picture(total, attribute, f"screen-{index}-{panel}")
                    for panel, attribute in enumerate(attribute_names(total))]  # fmt: skip
        fields = [field for field in unique_values(table["field"]) if field != "*"]
        screened = [_screening_table(total, "all fields")]
        screened += [_screening_table(table[table["field"] == field], field) for field in fields]
        blocks.append(Block(name, _remarks(table), pictures, screened))
    terms = [(metric.title, metric.meaning, metric.source) for metric in map(lookup_metric, METRICS)]
    blocks.append(Block("Metrics of screening", terms=terms))
    return Section("screening", "Screening: whose images were accepted", intro, blocks, "")


def _remarks(table: pd.DataFrame) -> list[str]:
    """The notes of the whole set's rows, with run and field."""
    overall = table[(table["group"] == "*") & table["metric"].isin(["accepted_first", "false_rejection"])]
    fields = ["all fields" if field == "*" else field for field in overall["field"]]
    notes = zip(overall["run"], fields, overall["note"], strict=True)
    return [f"{run} images, {field}: {note}" for run, field, note in notes if note]


def _find_row(table: pd.DataFrame, name: str, attribute: str, group: str) -> TableRow | None:
    """The first row of a metric and a group, or None."""
    rows = table[(table["metric"] == name) & (table["attribute"] == attribute) & (table["group"] == group)]
    return next(iter(rows.to_dict("records")), None)


def _group_names(table: pd.DataFrame, attribute: str) -> list[str]:
    """The groups of an attribute, without its gap."""
    return [name for name in unique_values(table.loc[table["attribute"] == attribute, "group"]) if name != "gap"]


def _refusal_picture(table: pd.DataFrame, attribute: str, slug: str) -> Picture:
    """A forest plot of the shares refused of generated (as first drawn) and of real images, group by group."""
    marks = []
    for owner, group in [("*", "*"), *((attribute, name) for name in _group_names(table, attribute))]:
        name = WHOLE_SET if group == "*" else group
        first, real = (_find_row(table, metric, owner, group) for metric in ("accepted_first", "false_rejection"))
        if first is not None:
            marks.append(Mark(name, "generated", 1 - first["estimate"], 1 - first["ci_high"], 1 - first["ci_low"],
                              remark="too small"))  # fmt: skip
        if real is not None:
            marks.append(Mark(name, "real", real["estimate"], real["ci_low"], real["ci_high"], remark="too small"))
    series = ["generated", "real"]
    caption = f"Share refused by the screen, as first drawn, by {attribute}"
    svg = forest_plot(marks, [], axis="share refused, lower is better", scale=1.0, slug=slug, series=series,
                      alt=alt_text(marks, REFUSAL, f"by {attribute}"), styles=run_styles(series))  # fmt: skip
    return Picture(svg, caption)


def _screening_table(table: pd.DataFrame, field: str) -> Table:
    """Every group with its number of requests and its metrics; gaps last, marked where they exceed chance."""
    metrics = [lookup_metric(name) for name in METRICS if name in set(table["metric"])]

    def group_row(attribute: str, group: str) -> Row:
        first = _find_row(table, "accepted_first", attribute, group)
        cells = [Cell(count(first["n"]) if first is not None else ABSENT)]
        for metric in metrics:
            row = _find_row(table, metric.name, attribute, group)
            if row is None or not is_finite(row["estimate"]):
                note = "" if row is None else str(row["note"]).split(";", maxsplit=1)[0]
                cells.append(Cell(ABSENT, note, "small" if "small" in note else "missing"))
                continue
            mark = "beyond" if group == "gap" and verdict(row, metric).exceeds_chance else ""
            cells.append(Cell(number(row["estimate"], metric), interval(row["ci_low"], row["ci_high"], metric), mark))
        return Row({"*": WHOLE_SET, "gap": "gap"}.get(group, group), cells, "derived" if group == "gap" else "")

    rows = [group_row("*", "*")]
    for attribute in attribute_names(table):
        rows.append(Row(attribute, kind="attribute"))
        rows += [group_row(attribute, group) for group in [*_group_names(table, attribute), "gap"]]
    return Table(f"Screening by {field}", ["group", "requests", *(metric.short for metric in metrics)], rows)


def screening_sentences(tables: Mapping[str, pd.DataFrame]) -> list[Sentence]:
    """For each set how much was accepted, then for each attribute whether groups differ and what may explain it.

    Attributes without an established gap share a sentence, and so do those that were not compared.
    """
    result: list[Sentence] = []
    for name, table in tables.items():
        total = table[table["field"] == "*"]
        first, tries, lost = (_find_row(total, metric, "*", "*") for metric in ("accepted_first", "tries", "given_up"))
        if first is None or not is_finite(first["estimate"]):
            result.append(Sentence(f"{name}: acceptance was not measured.", "missing", TOPIC))
        else:
            text = (
                f"{name}: {_value_text(first, 'accepted_first')} of the images were accepted as first drawn, "
                f"{_value_text(tries, 'tries')} were drawn for one, {_value_text(lost, 'given_up')} were given up and "
                "are left out."
            )
            result.append(Sentence(text, "note", TOPIC))
        result += _attribute_sentences(name, total)
        result += [Sentence(f"{name}: {note}.", "caution", TOPIC) for note in _remarks(table) if "chance" in note]
        if _find_row(total, "false_rejection", "*", "*") is None:
            text = (f"{name}: how the screen treats real images was not measured, so a low acceptance may be the "
                    "screen's fault.")  # fmt: skip
            result.append(Sentence(text, "missing", TOPIC))
    return result


def _value_text(row: TableRow | None, name: str) -> str:
    """The estimate of a metric with its interval; a dash without a row."""
    metric = lookup_metric(name)
    return ABSENT if row is None else estimate_text(row["estimate"], row["ci_low"], row["ci_high"], metric)


def _attribute_sentences(name: str, table: pd.DataFrame) -> list[Sentence]:
    """Attributes with a gap beyond chance one by one, with the group of lowest acceptance; then all others together."""
    metric = lookup_metric("accepted_first")
    result, alike, unknown = list[Sentence](), list[str](), list[str]()
    for attribute in attribute_names(table):
        gap = _find_row(table, "accepted_first", attribute, "gap")
        if gap is None or not is_finite(gap["estimate"]):
            unknown.append(f"by {attribute}: {gap['note'] if gap else 'no groups'}")
            continue
        if not verdict(gap, metric).exceeds_chance:
            alike.append(f"by {attribute}: {gap_text(gap, metric)}")
            continue
        rows = {group: _find_row(table, "accepted_first", attribute, group) for group in _group_names(table, attribute)}
        finite = {group: row for group, row in rows.items() if row is not None and is_finite(row["estimate"])}
        worst = min(finite, key=lambda group: float(finite[group]["estimate"]))
        text = (f"{name}, share accepted at first by {attribute}: {gap_text(gap, metric)}; lowest for {worst}, "
                f"{_value_text(finite[worst], 'accepted_first')}. {_cause_text(table, attribute, worst)}")  # fmt: skip
        result.append(Sentence(text.strip(), "caution", TOPIC))
    for texts, summary, tone in (
        (alike, "no gap by {} attributes can be told from chance.", "chance"),
        (unknown, "not compared by {} attributes.", "missing"),
    ):
        if texts:
            text = f"{texts[0]}." if len(texts) == 1 else summary.format(len(texts))
            parts = tuple(texts) if len(texts) > 1 else ()
            result.append(Sentence(f"{name}, share accepted at first: {text}", tone, TOPIC, parts))
    return result


def _cause_text(table: pd.DataFrame, attribute: str, worst: str) -> str:
    """Whether the screen, the generator or neither is shown to be the cause of a gap."""
    names = ("false_rejection", "excess_rejection")
    screen_gap, excess_gap = (_find_row(table, name, attribute, "gap") for name in names)
    screen, excess = (_find_row(table, name, attribute, worst) for name in names)
    if screen_gap is None or excess_gap is None or not is_finite(screen_gap["estimate"]):
        return "Whether the screen or the generator causes this was not measured."
    if verdict(screen_gap, lookup_metric(names[0])).exceeds_chance:
        return SCREEN_CAUSE.format(f"it refuses {_value_text(screen, names[0])} of those of {worst}")
    if verdict(excess_gap, lookup_metric(names[1])).exceeds_chance:
        return GENERATOR_CAUSE.format(f"{_value_text(excess, names[1])} of the images of {worst} are refused")
    return "Whether the screen or the generator causes this cannot be told."

"""The page of a calibration: curves, front, the guidance of each group, and what it gained on other images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from equigen import files
from equigen.errors import InputError, Problem
from equigen.report.calibration.figures import curves_picture, front_picture
from equigen.report.calibration.findings import (
    FIGURES,
    KD,
    SETS,
    calibration_sentences,
    established,
    goal_words,
    visible,
)
from equigen.report.figures import run_styles
from equigen.report.forest import Mark, forest_plot
from equigen.report.frames import json_table
from equigen.report.layout import Block, Cell, Picture, Row, Section, Table
from equigen.report.render import Page
from equigen.report.rounding import ABSENT, count, interval, is_finite, number, p_text, signed_number
from equigen.report.study.sections import settings_section

NEEDED = {
    "table": ["kind", "name", "group", "guidance", "excess", "low", "high", "mean", "gap", "worst"],
    "choice": ["group", "default", "common", "calibrated", "excess_default", "excess_common", "excess_calibrated",
               "change_default", "change_common", "note"],
    "gain": ["set", "figure", "group", "n_real", "n_generated", "excess", "ci_low", "ci_high", "reference",
             "difference", "difference_low", "difference_high", "p_value", "note"],
}  # fmt: skip
TERMS = [
    ("Guidance", "How strongly sampling follows the request (classifier-free guidance). 1 is none; more makes images "
     "more typical and less varied, and moves groups differently.", "Ho and Salimans, arXiv 2207.12598"),
    ("KD", KD.meaning, KD.source),
    ("Excess", "Distance between generated and real images of a group, less what two halves of its real images, of "
     "different patients, have between themselves. 0 means as close to real images as they are to each other.", ""),
    ("Worst group, gap", "The largest excess among the groups, and the largest less the smallest. A gap can shrink "
     "because worse groups get better, or because better ones get worse: read it beside each group.", ""),
    ("Common guidance", "The best single guidance for all groups, by the same objective and on the same images: what "
     "guidance by group has to be better than.", ""),
    ("Front", "The choices of guidances that no other beats in both the mean and the gap, by the curves.", ""),
    ("Band of a curve", "Two standard deviations of the Gaussian process between the measured points. Prompts and "
     "seeds are the same at every guidance; what other prompts, seeds or patients would change is not in it.", ""),
    ("Images tuned on, other images", "Guidance is chosen on one set of patients, so the numbers there flatter it. "
     "The gain is measured on other patients, with other seeds.", ""),
]  # fmt: skip


def write_calibration_page(
    folder: str | Path,
    *,
    table: pd.DataFrame,
    choice: pd.DataFrame,
    gain: pd.DataFrame | None,
    settings: Mapping[str, Any],
    title: str = "Guidance by group",
    facts: Mapping[str, str] | None = None,
    versions: Mapping[str, str] | None = None,
    timings: Mapping[str, float] | None = None,
    phantom: bool = False,
    warnings: Sequence[str] = (),
) -> Path:
    """Write ``index.html`` and ``report.json`` of one calibration into ``folder``.

    Args:
        folder: where both files go.
        table: ``calibration.parquet``, the table of a ``Calibration``.
        choice: its ``choice``, a row for each group.
        gain: ``gain.parquet``, or None where it was not measured.
        settings: the content of ``calibration.json``.
        title: of the page.
        facts: what stands under the title; of the search by default.
        versions: of the software.
        timings: seconds by stage.
        phantom: mark everything as being about an artificial image model.
        warnings: sentences of their own.

    Returns:
        The path of ``index.html``. The same arguments give the same bytes.

    Raises:
        InputError: a table lacks a column; nothing is written then.

    """
    tables = {"table": table, "choice": choice, "gain": gain}
    _check(tables)
    sections = [_curves_section(table), _front_section(table), _choice_section(choice), _gain_section(gain),
                Section("reading", "How to read this", "", [Block("Words", terms=TERMS)], ""),
                settings_section(settings, versions or {}, timings or {})]  # fmt: skip
    page = Page(title, dict(facts or _facts(settings)), calibration_sentences(choice, gain, settings), sections,
                settings, versions or {}, timings or {}, warnings, phantom)  # fmt: skip
    html = page.html()
    names = {"table": "calibration", "choice": "choice", "gain": "gain"}
    data = {**page.data(), **{names[name]: json_table(frame) for name, frame in tables.items()}}
    files.write_json(Path(folder) / "report.json", data)
    files.write_text(Path(folder) / "index.html", html)
    return Path(folder) / "index.html"


def _check(tables: Mapping[str, pd.DataFrame | None]) -> None:
    problems = [
        Problem("column is missing", f"give the table {name} of a calibration", column=column)
        for name, frame in tables.items() if frame is not None
        for column in NEEDED[name] if column not in frame.columns
    ]
    if problems:
        raise InputError("A calibration cannot be shown.", problems)


def _facts(settings: Mapping[str, Any]) -> dict[str, str]:
    low, high = settings["bounds"]
    return {
        "Generator": str(settings["generator"]),
        "Groups of": str(settings["attribute"]),
        "Minimised": goal_words(settings),
        "Guidance between": f"{low:g} and {high:g}",
        "Images made for the search": f"{count(settings['spent'])} of at most {count(settings['budget'])}",
        "Tuned on": f"{settings['cohort']}, split {settings['split']}",
        "Encoder": str(settings["encoder"]),
    }


def _curves_section(table: pd.DataFrame) -> Section:
    intro = "How far each group's generated images are from its real ones, over how strongly sampling is guided."
    block = Block("", pictures=[curves_picture(table)])
    return Section("curves", "Quality of each group over guidance", intro, [block], "")


def _front_section(table: pd.DataFrame) -> Section:
    intro = "What equality costs: by the groups' curves, on the images tuned on."
    return Section("front", "Quality against equality", intro, [Block("", pictures=[front_picture(table)])], "")


def _choice_section(choice: pd.DataFrame) -> Section:
    """The guidance of each group, what its curve says there, and by how much that changes."""
    rows = [
        Row(str(row["group"]), [
            *(Cell(f"{row[word]:g}", _under(row[f"excess_{word}"])) for word in ("default", "common", "calibrated")),
            *(_change(row[f"change_{word}"]) for word in ("default", "common")), Cell(str(row["note"]) or ABSENT),
        ]) for row in choice.to_dict("records")
    ]  # fmt: skip
    head = ["group", "default guidance", "common guidance", "its own guidance", "change to default", "change to common",
            "note"]  # fmt: skip
    table = Table("Guidance, and below it excess KD x 1000 on the images tuned on; a change above 0 is for the worse",
                  head, rows)  # fmt: skip
    return Section("choice", "Guidance of each group", "", [Block("", tables=[table])], "")


def _under(excess: Any) -> str:
    return f"excess {number(excess, KD)}" if is_finite(excess) else "not measured"


def _change(value: Any) -> Cell:
    if not is_finite(value):
        return Cell(ABSENT, mark="missing")
    return Cell(signed_number(value, KD), "worse" if visible(value) else "", "beyond" if visible(value) else "")


def _gain_section(gain: pd.DataFrame | None) -> Section:
    """Excess of the three sets on other patients, and paired differences."""
    absent = "What the choice gains was not measured on other patients."
    if gain is None or gain.empty:
        return Section("gain", "Gain on other images", "", [], absent)
    intro = (
        "The same prompts and fresh seeds, three ways to choose guidance, against real images of other patients. "
        "Differences are paired: the same patients and prompts are drawn for both sets."
    )
    blocks = [Block("Differences", pictures=[_differences(gain)]), Block("", tables=[_gain_table(gain)])]
    notes = [note for note in dict.fromkeys(gain["note"]) if note]
    if notes:
        blocks.append(Block("Notes of the table", notes, folded=True))
    return Section("gain", "Gain on other images", intro, blocks, absent)


def figure_name(row: Any) -> str:
    """The group's name, or what is said of all groups."""
    return str(row["group"]) if row["figure"] == "group" else FIGURES[str(row["figure"])]


def _differences(gain: pd.DataFrame) -> Picture:
    """A forest of paired differences to the default guidance."""
    own = gain[gain["reference"] == "default"]
    marks = [Mark(figure_name(row), SETS[str(row["set"])], row["difference"], row["difference_low"],
                  row["difference_high"], remark="not measured") for row in own.to_dict("records")]  # fmt: skip
    names = [SETS[name] for name in ("common", "group") if (own["set"] == name).any()]
    told = [f"{mark.row}, {mark.series}: {signed_number(mark.estimate, KD)} ({interval(mark.low, mark.high, KD)})"
            for mark in marks if is_finite(mark.estimate)]  # fmt: skip
    svg = forest_plot(
        marks, [], axis="difference in excess KD x 1000, below 0 is better", scale=KD.scale, series=names,
        alt=f"Differences to the default guidance. {'; '.join(told)}.", slug="gain", styles=run_styles(names),
        zero="0: no difference",
    )  # fmt: skip
    return Picture(svg, "Difference to the default guidance, with 95 % intervals")


def _gain_table(gain: pd.DataFrame) -> Table:
    own = gain[gain["reference"] == ""]
    keys = list(dict.fromkeys(zip(own["figure"], own["group"], strict=True)))
    rows = []
    for figure, group in keys:
        here = gain[(gain["figure"] == figure) & (gain["group"] == group)].to_dict("records")
        cells = [_excess(here, name) for name in SETS]
        cells += [_difference(here, reference) for reference in ("default", "common")]
        rows.append(Row(figure_name(here[0]), cells, "" if figure in {"overall", "group"} else "derived"))
    head = ["", *SETS.values(), "by group less default", "by group less common"]
    return Table("Excess KD x 1000 with 95 % intervals; n: real and generated images", head, rows)


def _excess(rows: Sequence[Any], name: str) -> Cell:
    row = next(row for row in rows if row["set"] == name and row["reference"] == "")
    if not is_finite(row["excess"]):
        return Cell(ABSENT, str(row["note"]), "missing")
    span = interval(row["ci_low"], row["ci_high"], KD)
    n = f"; n {count(row['n_real'])} and {count(row['n_generated'])}" if is_finite(row["n_real"]) else ""
    return Cell(number(row["excess"], KD), f"{span}{n}")


def _difference(rows: Sequence[Any], reference: str) -> Cell:
    row = next(row for row in rows if row["set"] == "group" and row["reference"] == reference)
    if not is_finite(row["difference"]):
        return Cell(ABSENT, mark="missing")
    span = interval(row["difference_low"], row["difference_high"], KD)
    p = p_text(row["p_value"])
    detail = "; ".join(filter(None, [span, p]))
    return Cell(signed_number(row["difference"], KD), detail, "beyond" if established(row) else "")

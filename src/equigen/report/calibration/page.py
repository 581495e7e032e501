"""Writing the page of a calibration: curves, front, the guidance of each group, and its gain on other images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from equigen import files
from equigen.errors import InputError, Problem
from equigen.report.calibration.figures import curves_picture, front_picture
from equigen.report.calibration.findings import (
    KD,
    QUANTITIES,
    SETS,
    calibration_sentences,
    is_established,
    is_visible_increase,
    objective_text,
)
from equigen.report.figures import run_styles
from equigen.report.forest import Mark, forest_plot
from equigen.report.frames import json_table
from equigen.report.layout import Block, Cell, Picture, Row, Section, Table
from equigen.report.metrics import ABSENT, count, interval, is_finite, number, p_text, signed_number
from equigen.report.render import Page
from equigen.report.study.sections import settings_section

COLUMNS = {
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
        choice: the ``choice`` of the same ``Calibration``, a row for each group.
        gain: ``gain.parquet``, or None where it was not measured.
        settings: the content of ``calibration.json``.
        title: of the page.
        facts: shown under the title; facts of the search by default.
        versions: of the software.
        timings: seconds by stage.
        phantom: mark everything as being about an artificial image model.
        warnings: sentences for the section of warnings.

    Returns:
        The path of ``index.html``. The same arguments give the same bytes.

    Raises:
        InputError: a table lacks a column; nothing is written then.

    """
    tables = {"table": table, "choice": choice, "gain": gain}
    problems = [
        Problem("column is missing", f"give the table {name} of a calibration", column=column)
        for name, frame in tables.items()
        if frame is not None
        for column in COLUMNS[name]
        if column not in frame.columns
    ]
    if problems:
        raise InputError("A calibration cannot be shown.", problems)
    if not facts:
        low, high = settings["bounds"]
        facts = {
            "Generator": str(settings["generator"]),
            "Groups of": str(settings["attribute"]),
            "Minimised": objective_text(settings),
            "Guidance between": f"{low:g} and {high:g}",
            "Images made for the search": f"{count(settings['spent'])} of at most {count(settings['budget'])}",
            "Tuned on": f"{settings['cohort']}, split {settings['split']}",
            "Encoder": str(settings["encoder"]),
        }
    sections = [
        Section("curves", "Quality of each group over guidance",
                "How far each group's generated images are from its real ones, over how strongly sampling is guided.",
                [Block("", pictures=[curves_picture(table)])], ""),
        Section("front", "Quality against equality",
                "What equality costs: by the groups' curves, on the images tuned on.",
                [Block("", pictures=[front_picture(table)])], ""),
        _choice_section(choice), _gain_section(gain),
        Section("reading", "How to read this", "", [Block("Words", terms=TERMS)], ""),
        settings_section(settings, versions or {}, timings or {}),
    ]  # fmt: skip
    page = Page(title, dict(facts), calibration_sentences(choice, gain, settings), sections,
                settings, versions or {}, timings or {}, warnings, phantom)  # fmt: skip
    html = page.html()
    names = {"table": "calibration", "choice": "choice", "gain": "gain"}
    data = {**page.data(), **{names[name]: json_table(frame) for name, frame in tables.items()}}
    files.write_json(Path(folder) / "report.json", data)
    files.write_text(Path(folder) / "index.html", html)
    return Path(folder) / "index.html"


def _choice_section(choice: pd.DataFrame) -> Section:
    """The guidance of each group, its excess by the group's curve, and the change to other guidances."""
    rows = []
    for row in choice.to_dict("records"):
        cells = []
        for name in ("default", "common", "calibrated"):
            excess = row[f"excess_{name}"]
            detail = f"excess {number(excess, KD)}" if is_finite(excess) else "not measured"
            cells.append(Cell(f"{row[name]:g}", detail))
        for name in ("default", "common"):
            change = row[f"change_{name}"]
            worse = is_visible_increase(change)
            cells.append(Cell(signed_number(change, KD), "worse" if worse else "", "beyond" if worse else "")
                         if is_finite(change) else Cell(ABSENT, mark="missing"))  # fmt: skip
        rows.append(Row(str(row["group"]), [*cells, Cell(str(row["note"]) or ABSENT)]))
    head = ["group", "default guidance", "common guidance", "its own guidance", "change to default", "change to common",
            "note"]  # fmt: skip
    table = Table("Guidance, and below it excess KD x 1000 on the images tuned on; a change above 0 is for the worse",
                  head, rows)  # fmt: skip
    return Section("choice", "Guidance of each group", "", [Block("", tables=[table])], "")


def _gain_section(gain: pd.DataFrame | None) -> Section:
    """Excess of the three image sets on other patients, and paired differences."""
    title, absent = "Gain on other images", "What the choice gains was not measured on other patients."
    if gain is None or gain.empty:
        return Section("gain", title, "", [], absent)
    intro = (
        "The same prompts and fresh seeds, three ways to choose guidance, against real images of other patients. "
        "Differences are paired: the same patients and prompts are drawn for both sets."
    )
    differences = gain[gain["reference"] == "default"]
    marks = [Mark(_row_name(row), SETS[str(row["set"])], row["difference"], row["difference_low"],
                  row["difference_high"], remark="not measured") for row in differences.to_dict("records")]  # fmt: skip
    names = [SETS[name] for name in ("common", "group") if (differences["set"] == name).any()]
    texts = [f"{mark.row}, {mark.series}: {signed_number(mark.estimate, KD)} ({interval(mark.low, mark.high, KD)})"
             for mark in marks if is_finite(mark.estimate)]  # fmt: skip
    svg = forest_plot(
        marks, [], axis="difference in excess KD x 1000, below 0 is better", scale=KD.scale, series=names,
        alt=f"Differences to the default guidance. {'; '.join(texts)}.", slug="gain", styles=run_styles(names),
        zero="0: no difference",
    )  # fmt: skip
    picture = Picture(svg, "Difference to the default guidance, with 95 % intervals")
    blocks = [Block("Differences", pictures=[picture]), Block("", tables=[_gain_table(gain)])]
    notes = [note for note in dict.fromkeys(gain["note"]) if note]
    if notes:
        blocks.append(Block("Notes of the table", notes, folded=True))
    return Section("gain", title, intro, blocks, absent)


def _row_name(row: Any) -> str:
    """The name of the row's group, or of its quantity over all groups."""
    return str(row["group"]) if row["figure"] == "group" else QUANTITIES[str(row["figure"])]


def _gain_table(gain: pd.DataFrame) -> Table:
    """A row for each quantity: its excess in the three image sets, and the differences of guidance by group."""
    rows = []
    excesses = gain[gain["reference"] == ""]
    for quantity, group in dict.fromkeys(zip(excesses["figure"], excesses["group"], strict=True)):
        subset = gain[(gain["figure"] == quantity) & (gain["group"] == group)].to_dict("records")
        records = {(row["set"], row["reference"]): row for row in reversed(subset)}
        cells = []
        for row in (records[name, ""] for name in SETS):
            if not is_finite(row["excess"]):
                cells.append(Cell(ABSENT, str(row["note"]), "missing"))
                continue
            n = f"; n {count(row['n_real'])} and {count(row['n_generated'])}" if is_finite(row["n_real"]) else ""
            cells.append(Cell(number(row["excess"], KD), f"{interval(row['ci_low'], row['ci_high'], KD)}{n}"))
        for row in (records["group", reference] for reference in ("default", "common")):
            if not is_finite(row["difference"]):
                cells.append(Cell(ABSENT, mark="missing"))
                continue
            span = interval(row["difference_low"], row["difference_high"], KD)
            detail = "; ".join(filter(None, [span, p_text(row["p_value"])]))
            cells.append(Cell(signed_number(row["difference"], KD), detail, "beyond" if is_established(row) else ""))
        rows.append(Row(_row_name(subset[0]), cells, "" if quantity in {"overall", "group"} else "derived"))
    head = ["", *SETS.values(), "by group less default", "by group less common"]
    return Table("Excess KD x 1000 with 95 % intervals; n: real and generated images", head, rows)

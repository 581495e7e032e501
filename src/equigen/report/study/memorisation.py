"""The section on memorisation: near copies, distances and authenticity per group, and the closest pairs."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from equigen.report.figures import REFERENCES
from equigen.report.findings import (
    attribute_names,
    correction_note,
    first_row,
    gap_text,
    is_group,
    verdict,
    without_intersections,
    worse_than_real,
    worst_group,
)
from equigen.report.frames import unique_values
from equigen.report.images import ClosePairs, pair_strip
from equigen.report.layout import Block, Cell, Row, Section, Sentence, Table
from equigen.report.metrics import Metric, lookup_metric, sort_metrics
from equigen.report.rounding import ABSENT, count, estimate_text, is_finite, listing, number, p_text
from equigen.report.study.details import family_block
from equigen.report.study.quality import family_rows, intersection_block, plot_block
from equigen.statistics import holm

TOPIC = "Memorisation"
PHRASES = {
    "blur 1 px": "blurred by 1 px", "JPEG quality 50": "saved as JPEG of quality 50",
    "noise sd 5": "with noise of 5 grey levels (SD)", "mirror image": "mirrored", "90 % crop": "cropped to 90 %",
    "half size and back": "halved in size and enlarged again", "autoencoder": "passed through the autoencoder",
}
JUDGED = ["near_copies", "nn_ratio", "authenticity"]
HINT = (
    "Closeness to a training image is a hint of copying, not a proof of it: look at the closest pairs. In "
    "brackets 95 % intervals; "
)
FIXED = "what held-out images give is taken as known, so a small group can seem closer by chance."
TESTED = ("whether images are closer than held-out ones is tested with the error of both, and corrected over all that "
          "is compared for a set (Holm).")
_INTRO = (
    "Does a generator repeat its training images, and some groups' more than others'? Each generated image is "
    "compared with the training images in an encoder's features and, for near copies, as aligned thumbnails; real "
    "images that the generator never saw (the black tick) show how close new images come without any copying. "
    "Closeness is a hint, to be looked at: it is no proof of copying, and its absence is no proof of privacy."
)


def memorisation_section(
    quality: pd.DataFrame, copies: list[ClosePairs], table: pd.DataFrame, power: pd.DataFrame | None = None
) -> Section | None:
    """Forest plots and tables of the memorisation metrics, then the closest pairs; None without a quality table.

    ``power``: the copy check's power, as ``power_frame`` completes it.
    """
    rows = family_rows(quality, ["memorisation"])
    if quality.empty and not copies and table.empty:
        return None
    blocks = [
        block
        for place, encoder in enumerate(unique_values(rows["encoder"]))
        for block in _encoder_blocks(rows[rows["encoder"] == encoder], encoder, place)
    ]
    blocks += _power_block(power) + _pair_blocks(copies) + _copies_tables(table)
    absent = "Memorisation was not evaluated: nothing here says whether training images are repeated."
    return Section("memorisation", "Memorisation", _INTRO, blocks, absent)


def _encoder_blocks(rows: pd.DataFrame, encoder: str, place: int) -> list[Block]:
    by, single = f", encoder {encoder}" if encoder else "", without_intersections(rows)
    names = sort_metrics(unique_values(rows["metric"]))
    blocks = [
        plot_block(part, lookup_metric(name), f"{lookup_metric(name).title}{by}", f"m{place}-{name}")
        for name in JUDGED
        if not (part := single[single["metric"] == name]).empty
    ]
    shorts = listing([lookup_metric(name).short for name in names])
    if not single.empty:
        blocks.append(family_block(single, f"All numbers on memorisation: {shorts}{by}", []))
    return blocks + intersection_block(rows, names, f", memorisation{by}")


def _power_block(power: pd.DataFrame | None) -> list[Block]:
    """The share of planted copies found, a row for each kind of change and a column for each group."""
    if power is None or power.empty:
        return []
    groups = list(dict.fromkeys(zip(power["attribute"], power["group"], strict=True)))
    head = ["change", *("all" if attribute == "*" else f"{attribute} {group}" for attribute, group in groups)]
    rows = []
    for change in unique_values(power["change"]):
        own = {(row["attribute"], row["group"]): row for row in power[power["change"] == change].to_dict("records")}
        rows.append(Row(change, [_power_cell(own.get(group)) for group in groups]))
    alarms = [Cell(share(own["false_alarm"])) for group in groups
              for own in [power[(power["attribute"] == group[0]) & (power["group"] == group[1])].iloc[0]]]
    rows.append(Row("held-out images, not changed (false alarms)", alarms, "derived"))
    lead = (
        "To test the copy check, held-out images were put among the training images, and changed copies of them were "
        "searched for. The table gives the share of copies that the comparison of thumbnails found, with 95 % "
        "intervals; a copy counts as found when it is matched to an image of the right patient, within limits set by "
        "other patients. The last row gives the share of unchanged held-out images that the check wrongly calls near "
        "copies, by features or thumbnails."
    )
    notes = [f"{row['change']}: {row['note']}." for row in power.to_dict("records")
             if row["note"] and row["attribute"] == "*"]
    return [Block("What the copy check would have found", [lead, *notes],
                  tables=[Table("Share of planted copies found", head, rows)])]


def _power_cell(row: Mapping[Hashable, Any] | None) -> Cell:
    if row is None or not is_finite(row["share"]):
        return Cell(ABSENT, mark="missing")
    return Cell(share(row["share"]), f"{share(row['ci_low'])} to {share(row['ci_high'])}, n {count(row['n'])}")


def _pair_blocks(copies: list[ClosePairs]) -> list[Block]:
    lead = (
        "The pairs most like copies, near copies first: generated on the left, its nearest training image, which is a "
        "real patient's, on the right. Look whether they show the same image or merely two of one kind."
    )
    strips = [pair_strip(pairs) for pairs in copies]
    return [Block("The closest pairs", [lead], pairs=strips)] if strips else []


def _copies_tables(table: pd.DataFrame) -> list[Block]:
    """The closest pairs as a folded table for each run."""
    if table.empty:
        return []
    attributes = [str(name) for name in table.columns if str(name).startswith("attr.")]
    head = ["rank", "generated", "training", "distance", "ratio", "near copy", "view"]
    head += [name.removeprefix("attr.") for name in attributes]
    tables = [
        Table(f"Closest pairs of {run}", head, [_pair_row(row, attributes) for row in own.to_dict("records")])
        for run in unique_values(table["run"])
        for own in [table[table["run"] == run]]
    ]
    return [Block("The closest pairs, as a table", tables=tables, folded=True)]


def _pair_row(row: Mapping[Hashable, Any], attributes: list[str]) -> Row:
    texts = [str(row["generated"]), str(row["training"])]
    texts += [number(row["distance"], lookup_metric("distance")), number(row["ratio"], lookup_metric("nn_ratio"))]
    texts += [str(row[name]) or ABSENT for name in ("near_copy", "view", *attributes)]
    marks = ["", "", "", "", "beyond" if row["near_copy"] == "yes" else "", "", *("" for _ in attributes)]
    return Row(count(row["rank"]), [Cell(text, mark=mark) for text, mark in zip(texts, marks, strict=True)])


def memorisation_sentences(quality: pd.DataFrame) -> list[Sentence]:
    """Each run's closeness to the training images, against held-out images and between groups."""
    rows = quality[quality["metric"].isin(JUDGED) & ~quality["run"].isin(REFERENCES)] if len(quality) else quality
    if rows.empty:
        return []
    rows = without_intersections(rows[rows["encoder"] == unique_values(rows["encoder"])[0]])
    runs = [_run(rows[rows["run"] == run], run) for run in unique_values(rows["run"])]
    tested = "p_floor" in rows and rows["p_floor"].notna().any()
    return [Sentence(HINT + (TESTED if tested else FIXED), "note", TOPIC), *runs]


def power_sentences(power: pd.DataFrame) -> list[Sentence]:
    """How many planted copies the check finds over all groups, a sentence for each kind of change."""
    tried = power[(power["attribute"] == "*") & power["share"].notna()] if len(power) else power
    if tried.empty:
        return []
    parts = [
        f"Of copies {PHRASES.get(str(row['change']), 'changed by ' + str(row['change']))}, "
        f"{share(row['share'])} would have been found."
        for row in tried.to_dict("records")
    ]
    alarm = tried["false_alarm"].iloc[0]
    if is_finite(alarm):
        parts.append(f"Of held-out images, which are no copies, {share(alarm)} are called near copies.")
    lead = "To test the copy check, changed copies of held-out images were searched for."
    return [Sentence(lead, "note", TOPIC, tuple(parts))]


def share(value: float) -> str:
    """``98 %``; one decimal below 10 % and where rounding would say 100 % of a smaller share."""
    percent = 100 * value
    rough = percent < 10 or (round(percent) == 100 and percent < 100)
    return f"{np.floor(10 * percent + 1e-9) / 10 if rough and percent > 10 else percent:.{1 if rough else 0}f} %"


def _run(rows: pd.DataFrame, run: str) -> Sentence:
    """One run: the whole set first, then groups closer than held-out images, then gaps."""
    names = [name for name in JUDGED if (rows["metric"] == name).any()]
    rows = _corrected_floors(rows)
    overall = [text for name in names if (text := _whole(rows[rows["metric"] == name], lookup_metric(name)))]
    closer = [text for name in names if (text := _closer(rows[rows["metric"] == name], lookup_metric(name)))]
    gaps, unequal = _gaps(rows, names)
    lead = f"{run}: {'; '.join(overall) or 'the whole set was not evaluated'}."
    held = closer or [_none_closer(rows)]
    tone = "caution" if closer or unequal else "chance"
    return Sentence(lead, tone, TOPIC, tuple(filter(None, [*held, *gaps, _answer(gaps, unequal)])))


def _corrected_floors(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of one run with ``p_floor`` adjusted by Holm over all of its figures and groups."""
    if "p_floor" not in rows:
        return rows
    tested = rows["p_floor"].notna()
    adjusted = rows["p_floor"].copy()
    adjusted[tested] = holm(rows.loc[tested, "p_floor"].to_numpy(float))
    return rows.assign(p_floor=adjusted)


def _whole(rows: pd.DataFrame, words: Metric) -> str:
    whole = first_row(rows, attribute="*", group="*")
    if whole is None or not is_finite(whole["estimate"]):
        return ""
    value = estimate_text(whole["estimate"], whole["ci_low"], whole["ci_high"], words)
    beside = f", real held-out images {number(whole['floor'], words)}" if is_finite(whole["floor"]) else ""
    said = {True: ": closer to the training images than new real ones", False: "", None: ": not compared"}
    return f"{words.short} {value}{beside}{said[worse_than_real(whole, words)]}"


def _closer(rows: pd.DataFrame, words: Metric) -> str:
    """The groups whose whole interval lies on the worse side of held-out images; where all do, the worst."""
    groups = rows[is_group(rows)]
    judged = groups[[worse_than_real(row, words) is not None for row in groups.to_dict("records")]]
    worse = judged[[bool(worse_than_real(row, words)) for row in judged.to_dict("records")]]
    if worse.empty:
        return ""
    lead = f"closer to the training images than real held-out ones, by {words.short}: "
    last = worst_group(worse, words)
    if last is not None and len(worse) == len(judged):
        return f"{lead}all {len(worse)} groups that were judged, most of all {_against(last, words)}"
    return lead + "; ".join(_against(row, words) for row in worse.to_dict("records"))


def _against(row: Any, words: Metric) -> str:
    value = estimate_text(row["estimate"], row["ci_low"], row["ci_high"], words)
    return f"{row['attribute']} {row['group']} {value} against {number(row['floor'], words)}"


def _none_closer(rows: pd.DataFrame) -> str:
    """No group is shown to be closer than held-out images, or that could not be asked."""
    groups = rows[is_group(rows)].to_dict("records")
    if not any(worse_than_real(row, lookup_metric(row["metric"])) is not None for row in groups):
        return "no group was compared with real held-out images" if groups else ""
    return "no group is shown to be closer to the training images than real held-out images are"


def _gaps(rows: pd.DataFrame, names: list[str]) -> tuple[list[str], list[str]]:
    """What is said of the gaps that were computed, and the groups whose privacy is worse than another's.

    A group that differs from the others but is no closer to the training images than real held-out ones is not
    worse off by that.
    """
    said, chance, unequal = list[str](), list[str](), list[str]()
    harmless: list[str] = []
    for attribute in attribute_names(rows):
        for name in names:
            part, words = rows[(rows["attribute"] == attribute) & (rows["metric"] == name)], lookup_metric(name)
            gap = first_row(part, group="gap")
            if gap is None or not is_finite(gap["estimate"]):
                continue
            worst, beyond = worst_group(part[is_group(part)], words), verdict(gap, words).exceeds_chance
            if beyond is False:
                p = f" ({p_text(gap['p_value'])})" if is_finite(gap["p_value"]) else ""
                chance.append(f"{words.short} by {attribute} {number(gap['estimate'], words)}{p}")
                continue
            who = f"worst {worst['group']}, " if worst is not None else ""
            said.append(f"{words.short} by {attribute}: {who}{gap_text(gap, words)}{correction_note(gap)}")
            if beyond and worst is not None:
                place = f"{attribute} {worst['group']} ({words.short})"
                (harmless if worse_than_real(worst, words) is False else unequal).append(place)
    holm = correction_note(rows[rows["group"] == "gap"].iloc[0]) if chance and (rows["group"] == "gap").any() else ""
    inside = [f"gaps not distinguishable from chance: {'; '.join(chance)}{holm}"] if chance else []
    if harmless:
        said.append(f"groups differ, but even {listing(harmless)} is not closer than real held-out images are")
    return said + inside, unequal


def _answer(gaps: list[str], unequal: list[str]) -> str:
    """Whether any group's privacy is worse than another's."""
    if not gaps:
        return "whether one group's privacy is worse than another's was not evaluated"
    if not unequal:
        return "no group's privacy is shown to be worse than another's; that does not show them to be equal"
    return f"by these figures privacy is worse than another group's for {listing(unequal)}"


def pair_caption(row: Any) -> str:
    """``distance 3.21, ratio 0.710: near copy`` from one row of the copies table."""
    parts = [
        f"{name} {number(row[name], lookup_metric('nn_ratio' if name == 'ratio' else 'distance'))}"
        for name in ("distance", "ratio")
        if name in row and is_finite(row[name])
    ]
    flag = row.get("near_copy")
    judged = "" if flag is None or pd.isna(flag) else ": near copy" if flag else ": not a near copy"
    return (", ".join(parts) or "distance not known") + judged

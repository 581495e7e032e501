"""Memorisation: near copies, distances and authenticity per group, and the closest pairs."""

from __future__ import annotations

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
from equigen.report.metrics import (
    ABSENT,
    Metric,
    count,
    estimate_text,
    is_finite,
    listing,
    lookup_metric,
    number,
    p_text,
    sort_metrics,
)
from equigen.report.study.details import family_block
from equigen.report.study.quality import family_rows, intersection_block, plot_block
from equigen.statistics import holm

TOPIC = "Memorisation"
PHRASES = {
    "blur 1 px": "blurred by 1 px",
    "JPEG quality 50": "saved as JPEG of quality 50",
    "noise sd 5": "with noise of 5 grey levels (SD)",
    "mirror image": "mirrored",
    "90 % crop": "cropped to 90 %",
    "half size and back": "halved in size and enlarged again",
    "autoencoder": "passed through the autoencoder",
}
MAIN_METRICS = ["near_copies", "nn_ratio", "authenticity"]
CLOSENESS_NOTE = (
    "Closeness to a training image is a hint of copying, not a proof of it: look at the closest pairs. In "
    "brackets 95 % intervals; "
)
FIXED_FLOOR_NOTE = "the value of held-out images is taken as known, so a small group can seem closer by chance."
TESTED_FLOOR_NOTE = (
    "whether images are closer than held-out ones is tested with the error of both, and corrected over all groups and "
    "metrics of a set (Holm)."
)
_INTRO = (
    "Does a generator repeat its training images, and some groups' more than others'? Each generated image is "
    "compared with the training images in an encoder's features and, for near copies, as aligned thumbnails; real "
    "images that the generator was not trained on (the black tick) show how close new images come without any copying. "
    "Closeness is a hint, to be checked on the images: it is no proof of copying, and its absence is no proof of "
    "privacy."
)


def memorisation_section(
    quality: pd.DataFrame, copies: list[ClosePairs], table: pd.DataFrame, power: pd.DataFrame | None = None
) -> Section | None:
    """Forest plots and tables of the memorisation metrics, then the closest pairs; None without a quality table.

    ``power``: the copy check's power, as ``power_frame`` completes it.
    """
    if quality.empty and not copies and table.empty:
        return None
    rows = family_rows(quality, ["memorisation"])
    blocks: list[Block] = []
    for index, encoder in enumerate(unique_values(rows["encoder"])):
        encoder_rows, suffix = rows[rows["encoder"] == encoder], f", encoder {encoder}" if encoder else ""
        single, names = without_intersections(encoder_rows), sort_metrics(unique_values(encoder_rows["metric"]))
        blocks += [
            plot_block(metric_rows, metric, f"{metric.title}{suffix}", f"m{index}-{metric.name}")
            for metric in map(lookup_metric, MAIN_METRICS)
            if not (metric_rows := single[single["metric"] == metric.name]).empty
        ]
        if not single.empty:
            shorts = listing([lookup_metric(name).short for name in names])
            blocks.append(family_block(single, f"All numbers on memorisation: {shorts}{suffix}", []))
        blocks += intersection_block(encoder_rows, names, f", memorisation{suffix}")
    blocks += [_power_block(power)] if power is not None and not power.empty else []
    if copies:
        lead = (
            "The pairs most like copies, near copies first: generated on the left, its nearest training image, which "
            "is a real patient's, on the right. Check whether they show the same image or two similar ones."
        )
        blocks.append(Block("The closest pairs", [lead], pairs=[pair_strip(pairs) for pairs in copies]))
    if not table.empty:
        tables = [_pairs_table(table[table["run"] == run], run) for run in unique_values(table["run"])]
        blocks.append(Block("The closest pairs, as a table", tables=tables, folded=True))
    empty_text = "Memorisation was not evaluated: nothing here says whether training images are repeated."
    return Section("memorisation", "Memorisation", _INTRO, blocks, empty_text)


def _power_block(power: pd.DataFrame) -> Block:
    """The share of planted copies found, a row for each kind of change and a column for each group."""
    groups = list(dict.fromkeys(zip(power["attribute"], power["group"], strict=True)))
    head = ["change", *("all" if attribute == "*" else f"{attribute} {group}" for attribute, group in groups)]
    rows = []
    for change in unique_values(power["change"]):
        records = {(row["attribute"], row["group"]): row for row in power[power["change"] == change].to_dict("records")}
        cells = []
        for group in groups:
            row = records.get(group)
            if row is None or not is_finite(row["share"]):
                cells.append(Cell(ABSENT, mark="missing"))
                continue
            span = f"{share_text(row['ci_low'])} to {share_text(row['ci_high'])}"
            cells.append(Cell(share_text(row["share"]), f"{span}, n {count(row['n'])}"))
        rows.append(Row(change, cells))
    alarms = power.drop_duplicates(["attribute", "group"])["false_alarm"]
    rows.append(Row("held-out images, not changed (false alarms)", [Cell(share_text(alarm)) for alarm in alarms],
                    "derived"))  # fmt: skip
    lead = (
        "To test the copy check, held-out images were put among the training images, and changed copies of them were "
        "searched for. The table gives the share of copies that the comparison of thumbnails found, with 95 % "
        "intervals; a copy counts as found when it is matched to an image of the right patient, within limits set by "
        "other patients. The last row gives the share of unchanged held-out images that the check wrongly calls near "
        "copies, by features or thumbnails."
    )
    notes = [f"{row['change']}: {row['note']}." for row in power.to_dict("records")
             if row["note"] and row["attribute"] == "*"]  # fmt: skip
    table = Table("Share of planted copies found", head, rows)
    return Block("Sensitivity of the copy check", [lead, *notes], tables=[table])


def _pairs_table(rows: pd.DataFrame, run: str) -> Table:
    """The closest pairs of one run: files, distance, ratio, near copy, view and attributes."""
    attributes = [str(name) for name in rows.columns if str(name).startswith("attr.")]
    head = ["rank", "generated", "training", "distance", "ratio", "near copy", "view"]
    head += [name.removeprefix("attr.") for name in attributes]
    result = []
    for row in rows.to_dict("records"):
        cells = [
            Cell(str(row["generated"])),
            Cell(str(row["training"])),
            Cell(number(row["distance"], lookup_metric("distance"))),
            Cell(number(row["ratio"], lookup_metric("nn_ratio"))),
            Cell(str(row["near_copy"]) or ABSENT, mark="beyond" if row["near_copy"] == "yes" else ""),
            *(Cell(str(row[name]) or ABSENT) for name in ("view", *attributes)),
        ]
        result.append(Row(count(row["rank"]), cells))
    return Table(f"Closest pairs of {run}", head, result)


def memorisation_sentences(quality: pd.DataFrame) -> list[Sentence]:
    """Each run's closeness to the training images, against held-out images and between groups."""
    rows = quality[quality["metric"].isin(MAIN_METRICS) & ~quality["run"].isin(REFERENCES)] if len(quality) else quality
    if rows.empty:
        return []
    rows = without_intersections(rows[rows["encoder"] == unique_values(rows["encoder"])[0]])
    tested = "p_floor" in rows and rows["p_floor"].notna().any()
    note = CLOSENESS_NOTE + (TESTED_FLOOR_NOTE if tested else FIXED_FLOOR_NOTE)
    runs = [_run_sentence(rows[rows["run"] == run], run) for run in unique_values(rows["run"])]
    return [Sentence(note, "note", TOPIC), *runs]


def power_sentences(power: pd.DataFrame) -> list[Sentence]:
    """How many planted copies the check finds over all groups, a sentence for each kind of change."""
    rows = power[(power["attribute"] == "*") & power["share"].notna()] if len(power) else power
    if rows.empty:
        return []
    parts = [
        f"Of copies {PHRASES.get(str(row['change']), 'changed by ' + str(row['change']))}, "
        f"{share_text(row['share'])} would have been found."
        for row in rows.to_dict("records")
    ]
    alarm = rows["false_alarm"].iloc[0]
    if is_finite(alarm):
        parts.append(f"Of held-out images, which are no copies, {share_text(alarm)} are called near copies.")
    lead = "To test the copy check, changed copies of held-out images were searched for."
    return [Sentence(lead, "note", TOPIC, tuple(parts))]


def share_text(value: float) -> str:
    """``98 %``; one decimal below 10 % and where rounding would give 100 % for a smaller share."""
    percent = 100 * value
    rough = percent < 10 or (round(percent) == 100 and percent < 100)
    return f"{np.floor(10 * percent + 1e-9) / 10 if rough and percent > 10 else percent:.{1 if rough else 0}f} %"


def _run_sentence(rows: pd.DataFrame, run: str) -> Sentence:
    """One run: the whole set, groups closer than held-out images, gaps, and whether groups differ in privacy.

    ``p_floor`` is adjusted by Holm over all metrics and groups of the run.
    """
    if "p_floor" in rows:
        tested, adjusted = rows["p_floor"].notna(), rows["p_floor"].copy()
        adjusted[tested] = holm(rows.loc[tested, "p_floor"].to_numpy(float))
        rows = rows.assign(p_floor=adjusted)
    readings = {True: ": closer to the training images than new real ones", False: "", None: ": not compared"}
    overall, closer = list[str](), list[str]()
    for metric in map(lookup_metric, MAIN_METRICS):
        metric_rows = rows[rows["metric"] == metric.name]
        row = first_row(metric_rows, attribute="*", group="*")
        if row is not None and is_finite(row["estimate"]):
            value = estimate_text(row["estimate"], row["ci_low"], row["ci_high"], metric)
            floor = f", real held-out images {number(row['floor'], metric)}" if is_finite(row["floor"]) else ""
            overall.append(f"{metric.short} {value}{floor}{readings[worse_than_real(row, metric)]}")
        closer += filter(None, [_closer_text(metric_rows[is_group(metric_rows)], metric)])
    groups = rows[is_group(rows)].to_dict("records")
    if not closer and any(worse_than_real(row, lookup_metric(row["metric"])) is not None for row in groups):
        closer_parts = ["no group is shown to be closer to the training images than real held-out images are"]
    else:
        closer_parts = closer or (["no group was compared with real held-out images"] if groups else [])
    gaps, unequal = _gap_texts(rows)
    if not gaps:
        answer = "whether one group's privacy is worse than another's was not evaluated"
    elif unequal:
        answer = f"by these metrics privacy is worse than another group's for {listing(unequal)}"
    else:
        answer = "no group's privacy is shown to be worse than another's; that does not show them to be equal"
    lead = f"{run}: {'; '.join(overall) or 'the whole set was not evaluated'}."
    tone = "caution" if closer or unequal else "chance"
    return Sentence(lead, tone, TOPIC, (*closer_parts, *gaps, answer))


def _closer_text(groups: pd.DataFrame, metric: Metric) -> str:
    """The groups that are closer to the training images than held-out images; where all are, the worst."""
    compared = groups[[worse_than_real(row, metric) is not None for row in groups.to_dict("records")]]
    closer = compared[[bool(worse_than_real(row, metric)) for row in compared.to_dict("records")]]
    if closer.empty:
        return ""
    texts = [
        f"{row['attribute']} {row['group']} {estimate_text(row['estimate'], row['ci_low'], row['ci_high'], metric)} "
        f"against {number(row['floor'], metric)}"
        for row in closer.to_dict("records")
    ]
    lead = f"closer to the training images than real held-out ones, by {metric.short}: "
    worst = worst_group(closer.reset_index(drop=True), metric)
    if worst is not None and len(closer) == len(compared):
        return f"{lead}all {len(closer)} groups that were judged, most of all {texts[int(worst.name)]}"
    return lead + "; ".join(texts)


def _gap_texts(rows: pd.DataFrame) -> tuple[list[str], list[str]]:
    """A text for each gap that was computed, and the groups whose privacy is worse than another's.

    A group that differs from the others but is no closer to the training images than real held-out ones is not
    counted as worse.
    """
    texts, chance, harmless, unequal = list[str](), list[str](), list[str](), list[str]()
    for attribute in attribute_names(rows):
        for metric in map(lookup_metric, MAIN_METRICS):
            metric_rows = rows[(rows["attribute"] == attribute) & (rows["metric"] == metric.name)]
            gap = first_row(metric_rows, group="gap")
            if gap is None or not is_finite(gap["estimate"]):
                continue
            exceeds = verdict(gap, metric).exceeds_chance
            if exceeds is False:
                p = f" ({p_text(gap['p_value'])})" if is_finite(gap["p_value"]) else ""
                chance.append(f"{metric.short} by {attribute} {number(gap['estimate'], metric)}{p}")
                continue
            worst = worst_group(metric_rows[is_group(metric_rows)], metric)
            name = f"worst {worst['group']}, " if worst is not None else ""
            texts.append(f"{metric.short} by {attribute}: {name}{gap_text(gap, metric)}{correction_note(gap)}")
            if exceeds and worst is not None:
                group = f"{attribute} {worst['group']} ({metric.short})"
                (harmless if worse_than_real(worst, metric) is False else unequal).append(group)
    if harmless:
        texts.append(f"groups differ, but even {listing(harmless)} is not closer than real held-out images are")
    if chance:
        note = correction_note(rows[rows["group"] == "gap"].iloc[0])
        texts.append(f"gaps not distinguishable from chance: {'; '.join(chance)}{note}")
    return texts, unequal


def pair_caption(row: Any) -> str:
    """``distance 3.21, ratio 0.710: near copy`` from one row of the copies table."""
    parts = [
        f"{name} {number(row[name], lookup_metric('nn_ratio' if name == 'ratio' else 'distance'))}"
        for name in ("distance", "ratio")
        if name in row and is_finite(row[name])
    ]
    flag = row.get("near_copy")
    suffix = "" if flag is None or pd.isna(flag) else ": near copy" if flag else ": not a near copy"
    return (", ".join(parts) or "distance not known") + suffix

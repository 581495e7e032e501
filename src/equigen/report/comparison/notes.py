"""The last sections of a comparison's page: calibrations, definitions of terms, limits, notes of the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import pandas as pd

from equigen.report.frames import unique_values
from equigen.report.layout import Block, Cell, Row, Section, Table
from equigen.report.metrics import (
    ABSENT,
    LIMITS,
    Metric,
    count,
    interval,
    is_finite,
    lookup_metric,
    number,
    signed_number,
)

GAINS = {"overall": "overall", "mean": "mean of the groups", "worst": "worst group", "gap": "gap"}
TERMS = [
    ("Mechanism", "A rule that says how much each image counts while a generator is trained, made to serve all groups "
     "equally. The reference is plain training.", ""),
    ("Excess", "Distance between generated and real images, less what two halves of the real images have between "
     "themselves. 0 means as close to real images as real images are to each other.", ""),
    ("Overall", "The excess over all images, whatever their group.", ""),
    ("Worst group", "The largest excess among the groups of one attribute (of a score, the smallest value).", ""),
    ("Gap", "Largest less smallest excess over the groups of one attribute. It can shrink because the worse groups get "
     "better, or because the better ones get worse: read it beside the worst group.", ""),
    ("Gap of means", "Largest less smallest of the groups' means over training seeds. Single trainings differ in which "
     "group they serve worst; in this gap such chance averages out, in the mean of the seeds' gaps it does not.", ""),
    ("Chance gap", "The mean gap when group labels are shuffled between patients. A gap of noisy values is never 0, so "
     "this much of it says nothing about groups.", "permutation test"),
    ("Guidance", "How strongly sampling follows the request (classifier-free guidance). 1 is none; more makes images "
     "more typical and less varied, and moves groups differently.", "Ho and Salimans, arXiv 2207.12598"),
    ("Calibrated, common", "Guidance chosen by search on validation images: one number for each group, or the best "
     "single number for all.", ""),
    ("Reconstruction", "Held-out images through the autoencoder and back. A latent diffusion model learns images as "
     "the autoencoder keeps them, so with perfect training it would come about here and hardly nearer, and a gap that "
     "stands here already is not the diffusion model's.", ""),
    ("Training seed", "One training from its own random start. Seeds differ even when nothing else does.", ""),
    ("Interval over seeds and patients", "95 % range in which the mean would lie with other trainings and other test "
     "patients: the variance between seeds divided by their number, plus that over resamples of the real patients, "
     "with Satterthwaite's degrees of freedom. Mechanisms of one training seed answer the same requests.",
     "Satterthwaite, Biometrics Bulletin 2, 1946"),
    ("Difference", "Mechanism less reference, seed by seed, in the same resamples of the patients, so that what both "
     "share cancels.", ""),
    ("p (Holm)", "How surprising a difference would be if there were none, corrected for the number of mechanisms that "
     "are compared at the same guidance. It is not corrected for guidances, attributes and plans.",
     "Holm, Scand. J. Stat. 6, 1979"),
    ("No evidence", "The data can be explained without a difference. It does not say that there is none.", ""),
]  # fmt: skip


class CalibrationTables(Protocol):
    """The guidance and gain of one calibration, such as ``CalibrationSummary``."""

    @property
    def name(self) -> str:
        """The name of the calibrated generator."""

    @property
    def guidance(self) -> Mapping[str, Any]:
        """The content of calibration.json."""

    @property
    def gain(self) -> pd.DataFrame | None:
        """The table gain.parquet."""


def calibration_section(calibrations: Sequence[CalibrationTables], name: str) -> Section:
    """Guidance by group of every calibrated generator, and its gain on images that did not choose it."""
    blocks, metric = [], lookup_metric(name)
    for attribute in dict.fromkeys(str(calibration.guidance["attribute"]) for calibration in calibrations):
        subset = [calibration for calibration in calibrations if str(calibration.guidance["attribute"]) == attribute]
        groups = list(dict.fromkeys(group for calibration in subset for group in calibration.guidance["groups"]))
        rows = []
        for calibration in subset:
            guidance = calibration.guidance
            values = [guidance["groups"].get(group) for group in groups]
            cells = [
                Cell(f"{value:.2f}") if is_finite(value) else Cell(ABSENT, "takes the common one", "missing")
                for value in values
            ]
            common = guidance.get("common")
            cells += [Cell(f"{common:.2f}" if is_finite(common) else ABSENT), Cell(str(guidance.get("objective", "")))]
            rows.append(Row(calibration.name, cells))
        head = ["generator", *groups, "common to all", "objective"]
        tables = [Table(f"Guidance chosen, by {attribute}", head, rows)]
        gains = [calibration for calibration in subset if calibration.gain is not None and not calibration.gain.empty]
        if gains:
            tables.append(_gain_table(gains, metric))
        blocks.append(Block(f"By {attribute}", tables=tables))
    intro = (
        "Nothing is trained again: sampling follows the request more strongly for some groups than for others. The "
        "gain is measured on other patients than those on whom guidance was chosen."
    )
    return Section("calibration", "Guidance by group", intro, blocks, "No generator was calibrated.")


def _gain_table(calibrations: Sequence[CalibrationTables], metric: Metric) -> Table:
    """Overall, mean, worst group and gap with guidance by group, and the difference to each reference guidance."""
    rows: list[Row] = []
    for calibration in calibrations:
        gain = calibration.gain if calibration.gain is not None else pd.DataFrame()
        subset = gain[(gain["set"] == "group") & gain["figure"].isin(list(GAINS)) & gain["difference"].notna()]
        if subset.empty:
            continue
        rows.append(Row(calibration.name, kind="attribute"))
        for row in subset.to_dict("records"):
            difference = Cell(
                signed_number(row["difference"], metric),
                interval(row["difference_low"], row["difference_high"], metric),
            )
            rows.append(
                Row(
                    f"{GAINS[row['figure']]}, against {row['reference']} guidance",
                    [Cell(number(row["excess"], metric)), difference],
                )
            )
    scale = " x 1000" if metric.scale == 1000 else ""
    return Table(f"Gain on other images (excess {metric.short}{scale})", ["figure", "by group", "difference"], rows)


def reading_section(summary: pd.DataFrame, reference: str) -> Section:
    """Definitions of the terms and metrics, the limits of the numbers, and the table's notes, each once."""
    metrics = [lookup_metric(name) for name in unique_values(summary["metric"])]
    directions = {"lower": "Lower is better.", "higher": "Higher is better.", "": ""}
    definitions = [
        (metric.title, f"{metric.meaning} {directions[metric.better]}".strip(), metric.source) for metric in metrics
    ]
    # The intervals of a comparison hold other trainings, so one limit of other reports does not apply.
    seed_limit = (
        "The joint intervals hold other trainings and other patients, not other data sets. With three seeds they "
        "are wide; a mechanism that is not shown to help here may help elsewhere, and the other way round."
    )
    limits = [seed_limit if "between training runs" in limit else limit for limit in LIMITS]
    limits.append(
        f"This page compares {int(summary['p_value'].notna().sum())} numbers with {reference}. If nothing differed, "
        "about one in twenty would still have p of 0.05 or less before correction."
    )
    blocks = [
        Block("Words", terms=TERMS),
        Block("Metrics on this page", terms=definitions),
        Block("What a number cannot support", limits),
    ]
    quantities: dict[str, list[str]] = {}  # by note
    for text, quantity in zip(summary["note"].astype(str), summary["figure"].astype(str), strict=True):
        for note in filter(None, text.split("; ")):
            quantities.setdefault(note, []).append(quantity)
    if quantities:
        rows = [
            Row(note, [Cell(count(len(names))), Cell(", ".join(dict.fromkeys(names)))])
            for note, names in quantities.items()
        ]
        table = Table("What the table notes", ["note", "rows", "figures"], rows)
        blocks.append(Block("Notes of the table", ["Each note once."], tables=[table], folded=True))
    return Section("reading", "How to read this, and its limits", "", blocks, "")

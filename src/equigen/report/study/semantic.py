"""The section on conditioning: a classifier trained on real images, and for phantoms the oracle, as judges."""

from __future__ import annotations

import pandas as pd

from equigen.report.findings import singles
from equigen.report.frames import in_order
from equigen.report.layout import Block, Section
from equigen.report.metrics import metric, ordered
from equigen.report.rounding import listing
from equigen.report.study.details import family_block, side_by_side
from equigen.report.study.quality import figure_block, intersection_block, of_families

SHOWN = ["semantic_auc", "semantic_attribute_auc", "semantic_attribute_probability", "oracle_accuracy"]
BESIDE = ["semantic_auc", "oracle_accuracy", "judge_agreement"]
_CLASSIFIER = (
    "A classifier trained on real images judges whether a generated image shows what was asked for. Its score on "
    "held-out real images of the same group (the black tick) is the ceiling: more cannot be asked of generated ones. "
    "The ceiling is taken as known, though few real images of a small group make it uncertain."
)
_ORACLE = "The images are phantoms: an oracle measures on each what it shows and compares it with the request."


def semantic_section(quality: pd.DataFrame) -> Section | None:
    """AUC beside its ceiling, ES-AUC, the oracle and their agreement; None without a quality table."""
    if quality.empty:
        return None
    rows = of_families(quality, ["semantic"])
    names, single = ordered(in_order(rows["metric"])), singles(rows)
    intro = [_CLASSIFIER] if any(not _of_oracle(name) for name in names) else []
    intro += [_ORACLE] if any(map(_of_oracle, names)) else []
    blocks = [
        figure_block(part, metric(name), f"{metric(name).title}{_judge(encoder)}", f"s{place}-{name}")
        for name in [name for name in SHOWN if name in names] or names[:1]
        for place, encoder in enumerate(in_order(single["encoder"]))
        if not (part := single[(single["metric"] == name) & (single["encoder"] == encoder)]).empty
    ]
    blocks += _judges_beside(single, names)
    if not single.empty:
        shorts = listing([metric(name).short for name in names])
        blocks.append(family_block(single, f"All numbers on what the images show: {shorts}", []))
    blocks += intersection_block(rows, names, ", what the images show")
    absent = "Whether the images show what was asked for was not evaluated."
    return Section("semantic", "Do the images show what was asked for?", " ".join(intro), blocks, absent)


def _of_oracle(name: str) -> bool:
    return name.startswith("oracle_")


def _judge(encoder: str) -> str:
    return f", judge {encoder}" if encoder and encoder != "oracle" else ""


def _judges_beside(rows: pd.DataFrame, names: list[str]) -> list[Block]:
    """The classifier, the oracle and how far they agree, group by group; only where both judged."""
    if not {"semantic_auc", "oracle_accuracy"} <= set(names) and "judge_agreement" not in names:
        return []
    shown = [name for name in BESIDE if name in names]
    part = rows[rows["metric"].isin(shown)]
    tables = [side_by_side(part[part["run"] == run], shown, run) for run in in_order(part["run"])]
    lead = "An AUC and a share are not the same scale: compare which groups are low, not the numbers."
    return [Block("The classifier and the oracle side by side", [lead], tables=tables)]

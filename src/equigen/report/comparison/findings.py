"""Sentences of a comparison: changes of overall quality, of the worst group and of the gap, with their costs."""

from __future__ import annotations

from typing import Any

import pandas as pd

from equigen.report.comparison.view import (
    GAPS,
    MEANS,
    NO_EVIDENCE,
    View,
    comparison_views,
    guidance_phrase,
    row_verdict,
)
from equigen.report.layout import Sentence
from equigen.report.metrics import is_finite, listing, number
from equigen.report.study.differences import DIRECTIONS, MIN_SEEDS

VERDICT = "Verdict"
HALF = 0.5  # target of a comparison: a gap of at most this share of the reference's


def comparison_sentences(summary: pd.DataFrame, reference: str) -> list[Sentence]:
    """Sentences on the seeds, then for each view on overall quality and on each attribute's gaps and worst group."""
    views = comparison_views(summary)
    if not views:
        return [Sentence("Nothing was measured.", "missing", VERDICT)]
    counts = summary.loc[summary["figure"] == "overall", "seeds"]
    least, most = int(counts.min()), int(counts.max())
    seeds = f"{most} training seed{'' if most == 1 else 's'}" if least == most else f"{least} to {most} training seeds"
    text = f"Each mechanism was trained with {seeds}. "
    if least >= MIN_SEEDS:
        text += (
            "Intervals (95 %) hold other trainings and other patients; a difference is established where its "
            "interval leaves out 0 and p, corrected for the number of mechanisms (Holm), is at most 0.05. No "
            "evidence does not mean no effect."
        )
    else:
        text += f"Fewer than {MIN_SEEDS} are no evidence about a mechanism: the findings below are preliminary."
    sentences = [Sentence(text, "note" if least >= MIN_SEEDS else "caution", VERDICT)]
    for view in views:
        if view.metric.name != views[0].metric.name:
            continue
        topic = f"{VERDICT}: {view.title}" if view.title else VERDICT
        sentences.append(_quality_sentence(view, "*", "overall", reference, topic))
        for attribute in view.attributes:
            sentences.append(_reference_sentence(view, attribute, reference, topic))
            for quantity in GAPS:
                if quantity == GAPS[0] or view.difference_rows(attribute, quantity):
                    sentences += _gap_sentences(view, attribute, quantity, reference, topic)
            sentences.append(_quality_sentence(view, attribute, "worst", reference, topic))
        if not view.attributes:
            sentences.append(Sentence("No attribute was compared, so there is no gap.", "missing", topic))
    return sentences


def _reference_sentence(view: View, attribute: str, reference: str, topic: str) -> Sentence:
    """The gap of the reference, beside the gap expected by chance and the groups left out of it."""
    candidates = [view.row(reference, guidance, attribute, "gap") for guidance in view.guidances]
    rows = [row for row in candidates if row is not None and is_finite(row["estimate"])]
    if not rows:
        return Sentence(f"The gap by {attribute} of {reference} was not measured.", "missing", topic)
    values = [f"{view.estimate_text(row)} {guidance_phrase(row['guidance'])}" for row in rows]
    nulls = [row["null_gap"] for row in rows if is_finite(row["null_gap"])]
    chance = f" Chance alone would give about {number(max(nulls), view.metric)}." if nulls else ""
    text = f"Gap by {attribute} of {reference} ({view.unit}): {', '.join(values)}.{chance}"
    notes = [note for row in rows for note in str(row["note"]).split("; ")]
    exclusions = list(dict.fromkeys(note for note in notes if note.startswith("without ")))
    return Sentence(text, "note", topic, (f"The gap is {listing(exclusions)}.",) if exclusions else ())


def _quality_sentence(view: View, attribute: str, quantity: str, reference: str, topic: str) -> Sentence:
    """Established changes of overall quality or of the worst group, and mechanisms without one."""
    name = "overall quality" if quantity == "overall" else f"quality of the worst group by {attribute}"
    rows = view.difference_rows(attribute, quantity)
    if not rows:
        return Sentence(f"No {name} could be compared with {reference}'s.", "missing", topic)
    established, inconclusive = _split_by_evidence(rows)
    parts = [
        f"{row['mechanism']} {guidance_phrase(row['guidance'])}: {number(row['estimate'], view.metric)} in place "
        f"of {number(row['estimate'] - row['difference'], view.metric)}, difference {view.difference_text(row)}: "
        f"{row_verdict(row)}"
        for row in established
    ]
    parts += [f"{NO_EVIDENCE} of a change, at any guidance: {listing(inconclusive)}"] if inconclusive else []
    changes = [
        f"{direction} with {listing(names)}"
        for direction in DIRECTIONS
        if (names := _mechanisms_with(established, direction))
    ]
    text = (
        f"Against {reference}, {name} is {', '.join(changes)}"
        if changes
        else f"{NO_EVIDENCE.capitalize()} that any mechanism changes {name} against {reference}"
    )
    return Sentence(f"{text}.", "finding" if established else "chance", topic, tuple(parts))


def _split_by_evidence(rows: list[Any]) -> tuple[list[Any], list[str]]:
    """Rows with an established change, and the mechanisms that have none at any guidance."""
    established = [row for row in rows if row_verdict(row) != NO_EVIDENCE]
    names = set(map(_mechanism_name, established))
    return established, [name for name in dict.fromkeys(map(_mechanism_name, rows)) if name not in names]


def _mechanisms_with(rows: list[Any], verdict: str) -> list[str]:
    """Mechanisms of the rows that have a verdict, each once."""
    return list(dict.fromkeys(_mechanism_name(row) for row in rows if row_verdict(row) == verdict))


def _mechanism_name(row: Any) -> str:
    """The mechanism of a row; its calibrated generator counts as a mechanism of its own."""
    name = str(row["mechanism"])
    return f"{name} {guidance_phrase('calibrated')}" if row["guidance"] == "calibrated" else name


def _gap_sentences(view: View, attribute: str, quantity: str, reference: str, topic: str) -> list[Sentence]:
    """Two sentences on a gap: its established changes with their costs, and the mechanisms that at least halve it.

    Halving counts where it is established and overall quality is not shown to be worse.
    """
    rows = view.difference_rows(attribute, quantity)
    name = f"gap of the groups' means over seeds, by {attribute}," if quantity == MEANS else f"gap by {attribute}"
    established, inconclusive = _split_by_evidence(rows)
    parts = [_gap_change_text(view, attribute, row) for row in established]
    if inconclusive:
        parts.append(f"{NO_EVIDENCE} of a narrower or a wider gap, at any guidance: {listing(inconclusive)}")
    narrower, wider = (_mechanisms_with(established, verdict) for verdict in ("better", "worse"))
    text = (
        f"Against {reference}, the {name} is narrower with {listing(narrower)}"
        if narrower
        else f"{NO_EVIDENCE.capitalize()} that any mechanism narrows the {name} against {reference}"
    )
    text += f", wider with {listing(wider)}" if wider else ""
    changes = (
        Sentence(f"{text}.", "finding" if established else "chance", topic, tuple(parts))
        if rows
        else Sentence(f"No {name} could be compared with {reference}'s.", "missing", topic)
    )

    halved = []
    for row in rows:
        before = row["estimate"] - row["difference"]
        overall = view.row(row["mechanism"], row["guidance"], "*", "overall")
        if (
            before > 0
            and row["estimate"] <= HALF * before
            and row_verdict(row) == "better"
            and overall is not None
            and row_verdict(overall) in {"better", NO_EVIDENCE}
        ):
            halved.append(f"{row['mechanism']} {guidance_phrase(row['guidance'])}")
    goal = "without overall quality shown to be worse"
    if halved:
        return [changes, Sentence(f"The {name} is at least halved, {goal}: {', '.join(halved)}.", "finding", topic)]
    text = f"That any mechanism halves the {name} of {reference}, at any guidance, {goal}, is not established."
    return [changes, Sentence(text, "chance", topic)]


def _gap_change_text(view: View, attribute: str, row: Any) -> str:
    """``x at guidance 2: gap 28 in place of 40 (30 % less), difference ...; overall ...; worst group ...``."""
    before = row["estimate"] - row["difference"]
    share = abs(row["difference"]) / before if before > 0 else float("nan")
    percent = f" ({100 * share:.0f} % {'less' if row['difference'] < 0 else 'more'})" if is_finite(share) else ""
    texts = [
        f"{row['mechanism']} {guidance_phrase(row['guidance'])}: gap {number(row['estimate'], view.metric)} in "
        f"place of {number(before, view.metric)}{percent}, difference {view.difference_text(row)}"
    ]
    costs = {title: view.row(row["mechanism"], row["guidance"], attribute, quantity)
             for title, quantity in (("overall", "overall"), ("worst group", "worst"))}  # fmt: skip
    for title, cost in costs.items():
        if cost is not None:
            verdict = row_verdict(cost)
            change = f"{NO_EVIDENCE} of a change" if verdict == NO_EVIDENCE else verdict
            texts.append(f"{title} {view.difference_text(cost)}: {change}")
    worst = costs["worst group"]
    if row_verdict(row) == "better" and worst is not None and row_verdict(worst) != "better":
        texts.append("the worst group is not shown to gain, so a part may be better groups getting worse")
    return "; ".join(texts)

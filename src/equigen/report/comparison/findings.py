"""The verdict of a comparison in plain words: who makes better images, and who narrows which gap at what cost."""

from __future__ import annotations

from typing import Any

import pandas as pd

from equigen.report.comparison.view import GAPS, MEANS, UNSAID, View, at, judged, views
from equigen.report.layout import Sentence
from equigen.report.rounding import is_finite, listing, number
from equigen.report.study.differences import DIRECTIONS, SEEDS

VERDICT = "Verdict"
HALF = 0.5  # what the comparison asks for: a gap of at most this share of the reference's


def comparison_sentences(summary: pd.DataFrame, reference: str) -> list[Sentence]:
    """Seeds, then for each part who changes overall quality, and for each attribute the gap and the worst group."""
    parts = views(summary)
    if not parts:
        return [Sentence("Nothing was measured.", "missing", VERDICT)]
    main = [view for view in parts if view.words.name == parts[0].words.name]
    said = [_seeds(summary)]
    for view in main:
        topic = f"{VERDICT}: {view.title}" if view.title else VERDICT
        said.append(_quality(view, "*", "overall", reference, topic))
        for attribute in view.attributes:
            said.append(_reference(view, attribute, reference, topic))
            for figure in GAPS:
                if figure == GAPS[0] or view.compared(attribute, figure):
                    said += [rule(view, attribute, figure, reference, topic) for rule in (_changes, _halved)]
            said.append(_quality(view, attribute, "worst", reference, topic))
        if not view.attributes:
            said.append(Sentence("No attribute was compared, so there is no gap.", "missing", topic))
    return said


def _seeds(summary: pd.DataFrame) -> Sentence:
    counts = summary.loc[summary["figure"] == "overall", "seeds"]
    least, most = int(counts.min()), int(counts.max())
    trained = f"{most} training seeds" if least == most else f"{least} to {most} training seeds"
    trained = trained.replace("1 training seeds", "1 training seed") if least == most else trained
    text = f"Each mechanism was trained with {trained}. "
    if least >= SEEDS:
        return Sentence(text + "Intervals (95 %) hold other trainings and other patients; a difference is established "
                        "where its interval leaves out 0 and p, corrected for the number of mechanisms (Holm), is at "
                        "most 0.05. No evidence does not mean no effect.", "note", VERDICT)
    return Sentence(text + f"Fewer than {SEEDS} are no evidence about a mechanism: read what follows as a rehearsal.",
                    "caution", VERDICT)


def _reference(view: View, attribute: str, reference: str, topic: str) -> Sentence:
    """How large the gap is without any mechanism, beside what chance gives."""
    rows = [view.row(reference, guidance, attribute, "gap") for guidance in view.guidances]
    found = [row for row in rows if row is not None and is_finite(row["estimate"])]
    if not found:
        return Sentence(f"The gap by {attribute} of {reference} was not measured.", "missing", topic)
    told = [f"{view.value(row)} {at(row['guidance'])}" for row in found]
    nulls = [row["null_gap"] for row in found if is_finite(row["null_gap"])]
    chance = f" Chance alone would give about {number(max(nulls), view.words)}." if nulls else ""
    text = f"Gap by {attribute} of {reference} ({view.unit}): {', '.join(told)}.{chance}"
    return Sentence(text, "note", topic, tuple(filter(None, [_worst(found)])))


def _worst(rows: list[Any]) -> str:
    """Groups left out of the gap, where the notes name them."""
    notes = dict.fromkeys(note for row in rows for note in str(row["note"]).split("; ") if note.startswith("without "))
    return f"The gap is {listing(list(notes))}." if notes else ""


def _named(attribute: str, figure: str) -> str:
    return f"gap of the groups' means over seeds, by {attribute}," if figure == MEANS else f"gap by {attribute}"


def _quality(view: View, attribute: str, figure: str, reference: str, topic: str) -> Sentence:
    """Mechanisms with an established change of the overall figure or of an attribute's worst group, then the others."""
    name = "overall quality" if figure == "overall" else f"quality of the worst group by {attribute}"
    rows = view.compared(attribute, figure)
    if not rows:
        return Sentence(f"No {name} could be compared with {reference}'s.", "missing", topic)
    firm, silent = _firm(rows)
    parts = [f"{row['mechanism']} {at(row['guidance'])}: {number(row['estimate'], view.words)} in place of "
             f"{number(row['estimate'] - row['difference'], view.words)}, difference {view.change(row)}: {judged(row)}"
             for row in firm]  # fmt: skip
    parts += [f"{UNSAID} of a change, at any guidance: {listing(silent)}"] if silent else []
    told = [f"{said} with {listing(who)}" for said in DIRECTIONS if (who := _whose(firm, said))]
    text = f"Against {reference}, {name} is {', '.join(told)}" if told else \
        f"{UNSAID.capitalize()} that any mechanism changes {name} against {reference}"
    return Sentence(f"{text}.", "finding" if firm else "chance", topic, tuple(parts))


def _firm(rows: list[Any]) -> tuple[list[Any], list[str]]:
    """Rows with an established change, and the mechanisms that have none at any guidance."""
    firm = [row for row in rows if judged(row) != UNSAID]
    return firm, [who for who in dict.fromkeys(map(_who, rows)) if not any(_who(row) == who for row in firm)]


def _whose(rows: list[Any], said: str) -> list[str]:
    return list(dict.fromkeys(_who(row) for row in rows if judged(row) == said))


def _changes(view: View, attribute: str, figure: str, reference: str, topic: str) -> Sentence:
    """Mechanisms with an established change of the gap, with its cost; then those without."""
    rows, name = view.compared(attribute, figure), _named(attribute, figure)
    if not rows:
        return Sentence(f"No {name} could be compared with {reference}'s.", "missing", topic)
    firm, silent = _firm(rows)
    parts = [_change(view, attribute, row) for row in firm]
    parts += [f"{UNSAID} of a narrower or a wider gap, at any guidance: {listing(silent)}"] if silent else []
    better, wider = (_whose(firm, said) for said in ("better", "worse"))
    text = f"Against {reference}, the {name} is narrower with {listing(better)}" if better else \
        f"{UNSAID.capitalize()} that any mechanism narrows the {name} against {reference}"
    text += f", wider with {listing(wider)}" if wider else ""
    return Sentence(f"{text}.", "finding" if firm else "chance", topic, tuple(parts))


def _who(row: Any) -> str:
    """The mechanism; a calibrated generator counts as one of its own."""
    return f"{row['mechanism']} {at('calibrated')}" if row["guidance"] == "calibrated" else str(row["mechanism"])


def _change(view: View, attribute: str, row: Any) -> str:
    """``x at guidance 2: gap 28 in place of 40 (30 % less), difference ...; overall ...; worst group ...``."""
    before = row["estimate"] - row["difference"]
    share = abs(row["difference"]) / before if before > 0 else float("nan")
    way = "less" if row["difference"] < 0 else "more"
    told = f" ({100 * share:.0f} % {way})" if is_finite(share) else ""
    others = {name: view.row(row["mechanism"], row["guidance"], attribute, name) for name in ("overall", "worst")}
    costs = [f"{title} {view.change(other)}: {_told(other)}" for title, other in
             (("overall", others["overall"]), ("worst group", others["worst"])) if other is not None]
    down = judged(row) == "better" and others["worst"] is not None and judged(others["worst"]) != "better"
    level = ["the worst group is not shown to gain, so a part may be better groups getting worse"] if down else []
    head = (f"{row['mechanism']} {at(row['guidance'])}: gap {number(row['estimate'], view.words)} in place of "
            f"{number(before, view.words)}{told}, difference {view.change(row)}")
    return "; ".join([head, *costs, *level])


def _told(row: Any) -> str:
    said = judged(row)
    return f"{UNSAID} of a change" if said == UNSAID else said


def _halved(view: View, attribute: str, figure: str, reference: str, topic: str) -> Sentence:
    """Who at least halves the gap, established, while overall quality is not shown to be worse."""
    found, name = [], _named(attribute, figure)
    for row in view.compared(attribute, figure):
        before = row["estimate"] - row["difference"]
        overall = view.row(row["mechanism"], row["guidance"], "*", "overall")
        halved = before > 0 and row["estimate"] <= HALF * before and judged(row) == "better"
        if halved and overall is not None and judged(overall) in {"better", UNSAID}:
            found.append(f"{row['mechanism']} {at(row['guidance'])}")
    goal = "without overall quality shown to be worse"
    if found:
        return Sentence(f"The {name} is at least halved, {goal}: {', '.join(found)}.", "finding", topic)
    return Sentence(f"That any mechanism halves the {name} of {reference}, at any guidance, {goal}, is not "
                    "established.", "chance", topic)

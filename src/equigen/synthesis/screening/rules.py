"""When a screen accepts an image: what it checks, and by which rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from equigen.errors import InputError, Problem
from equigen.quality import Question

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Rule:
    """An image is accepted where every checked question whose asked level is known is answered as asked.

    ``threshold`` None: the asked level is the most probable one (ties count as asked). A number: the asked level has
    at least that probability, whatever the others have.
    """

    questions: Sequence[Question]
    threshold: float | None = None

    def verdicts(self, answers: Mapping[str, Array], asked: pd.DataFrame) -> pd.DataFrame:
        """One row an image: ``accepted``, ``reason`` ("" where accepted), and ``ok.<question>``, ``p.<question>``.

        Args:
            answers: probabilities [N, L] by question.
            asked: [N] rows with ``label.*`` and ``attr.*``: what was asked for, or what a real image shows.

        ``ok`` is 1 or 0, and ``p`` the probability of the asked level; both NaN where no level that the classifier
        knows was asked for: that question is not checked.

        """
        columns: dict[str, Array] = {}
        reasons: list[list[str]] = [[] for _ in range(len(asked))]
        for question in self.questions:
            codes, found = question.truth(asked), answers[question.name]
            known, rows = codes >= 0, np.arange(len(asked))
            p = np.where(known, found[rows, np.maximum(codes, 0)], np.nan)
            least = found.max(axis=1) if self.threshold is None else np.full(len(p), self.threshold)
            right = p >= least  # a comparison with NaN is false
            columns[f"ok.{question.name}"] = np.where(known, right.astype(np.float64), np.nan)
            columns[f"p.{question.name}"] = p
            for row in np.flatnonzero(known & ~right):
                reasons[row].append(_reason(question, int(codes[row]), found[row]))
        text = pd.Series(["; ".join(parts) for parts in reasons], dtype="str")
        return pd.DataFrame({"accepted": [not parts for parts in reasons], "reason": text, **columns})


def _reason(question: Question, asked: int, found: Array) -> str:
    """``label.dx: asked for ill (0.12), reads as healthy (0.88)``."""
    best = int(found.argmax())
    shown = f", reads as {question.levels[best]} ({found[best]:.2f})" if best != asked else ""
    return f"{question.name}: asked for {question.levels[asked]} ({found[asked]:.2f}){shown}"


def make_rule(
    questions: Sequence[Question], fields: Sequence[str] | None, columns: Sequence[str], threshold: float | None
) -> Rule:
    """The rule for a set with these columns.

    Args:
        questions: what the classifier can be asked.
        fields: columns (``label.dx``, all findings of a multi-label one) or names of questions; None takes all that the
            set asks for.
        columns: of the set.
        threshold: as in ``Rule``.

    Raises:
        InputError: a field that the classifier cannot read or the set does not ask for, none at all, or a threshold
            outside (0, 1].

    """
    known = ", ".join(question.name for question in questions) or "nothing"
    problems = []
    if threshold is not None and not 0 < threshold <= 1:
        problems.append(Problem(f"threshold {threshold}", "use a probability above 0, at most 1, or None"))
    for name in fields or []:
        own = [question for question in questions if name in (question.column, question.name)]
        if not own:
            problems.append(Problem("the classifier cannot read this field", f"it reads {known}", column=name))
        elif own[0].column not in columns:
            problems.append(Problem("the set does not ask for this field", "leave it out", column=own[0].column))
    chosen = [question for question in questions if question.column in columns
              and (fields is None or question.column in fields or question.name in fields)]
    if not chosen and not problems:
        mend = f"name a field that the set asks for; the classifier reads {known}"
        problems.append(Problem("nothing is checked", mend))
    if problems:
        raise InputError("These images cannot be screened so.", problems)
    return Rule(chosen, threshold)

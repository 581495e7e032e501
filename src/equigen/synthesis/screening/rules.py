"""The rule by which a screening accepts an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from equigen.errors import InputError, Problem
from equigen.quality import Target

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Rule:
    """Accepts an image whose every checked question of known requested level is answered with that level.

    ``threshold`` None: the requested level is the most probable one, ties included. A number: the least probability of
    the requested level.
    """

    questions: Sequence[Target]
    threshold: float | None = None

    def verdicts(self, answers: Mapping[str, Array], requested: pd.DataFrame) -> pd.DataFrame:
        """One row an image: ``accepted``, ``reason`` ("" where accepted), and ``ok.<question>``, ``p.<question>``.

        Args:
            answers: probabilities [N, L] by question.
            requested: [N] rows with ``label.*`` and ``attr.*``: the request, or the true levels of a real image.

        ``ok`` is 1 or 0, and ``p`` the probability of the requested level; both are NaN (not checked) where that level
        is unknown to the classifier or missing.

        """
        columns: dict[str, Array] = {}
        reasons: list[list[str]] = [[] for _ in range(len(requested))]
        for question in self.questions:
            codes, probabilities = question.truth(requested), answers[question.name]
            checked, rows = codes >= 0, np.arange(len(requested))
            p = np.where(checked, probabilities[rows, np.maximum(codes, 0)], np.nan)
            least = probabilities.max(axis=1) if self.threshold is None else np.full(len(p), self.threshold)
            right = p >= least  # a comparison with NaN is false
            columns[f"ok.{question.name}"] = np.where(checked, right.astype(np.float64), np.nan)
            columns[f"p.{question.name}"] = p
            for row in np.flatnonzero(checked & ~right):
                code, best = int(codes[row]), int(probabilities[row].argmax())
                request = f"{question.name}: asked for {question.levels[code]} ({probabilities[row, code]:.2f})"
                reading = f", reads as {question.levels[best]} ({probabilities[row, best]:.2f})" if best != code else ""
                reasons[row].append(request + reading)
        text = pd.Series(["; ".join(sentences) for sentences in reasons], dtype="str")
        return pd.DataFrame({"accepted": [not sentences for sentences in reasons], "reason": text, **columns})


def make_rule(
    questions: Sequence[Target], fields: Sequence[str] | None, columns: Sequence[str], threshold: float | None
) -> Rule:
    """The rule for a set with these columns; without ``fields`` it checks every question that applies.

    Args:
        questions: those of the classifier.
        fields: columns (``label.dx``, all findings of a multi-label one) or names of questions; None takes all
            columns of the set.
        columns: of the set.
        threshold: as in ``Rule``.

    Raises:
        InputError: a field that the classifier cannot read or the set does not have, no field at all, or a threshold
            outside (0, 1].

    """
    readable = ", ".join(question.name for question in questions) or "nothing"
    problems = []
    if threshold is not None and not 0 < threshold <= 1:
        problems.append(Problem(f"threshold {threshold}", "use a probability above 0, at most 1, or None"))
    for name in fields or []:
        matches = [question for question in questions if name in (question.column, question.name)]
        if not matches:
            problems.append(Problem("the classifier cannot read this field", f"it reads {readable}", column=name))
        elif matches[0].column not in columns:
            problems.append(Problem("the set does not ask for this field", "leave it out", column=matches[0].column))
    checked = [
        question
        for question in questions
        if question.column in columns and (fields is None or question.column in fields or question.name in fields)
    ]
    if not checked and not problems:
        mend = f"name a field that the set asks for; the classifier reads {readable}"
        problems.append(Problem("nothing is checked", mend))
    if problems:
        raise InputError("These images cannot be screened so.", problems)
    return Rule(checked, threshold)

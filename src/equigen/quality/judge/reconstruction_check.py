"""Whether a judge still sees on reconstructions of real images what it sees on the images themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from equigen.quality.judge.questions import Answers

RECONSTRUCTION = "reconstruction"  # name of the set that holds held-out real images through the autoencoder and back
SHARE = 0.5  # of what a judge recognises on real images, it has to recognise on their reconstructions
LEAST = 5  # images of a level, without which nothing is said of it
UNCHECKED = "the judge was not checked on reconstructions: none were evaluated"
RECONSTRUCTION_FAILURE = "the judge fails on reconstructions"


@dataclass(frozen=True)
class Recognised:
    """Mean probability that a judge gives to a level on the images that show it: real ones, and reconstructions."""

    question: str
    level: str
    real: float
    reconstructed: float

    @property
    def fails(self) -> bool:
        """Whether less than half of it is left."""
        return self.reconstructed < SHARE * self.real

    @property
    def words(self) -> str:
        """The question and level with both figures."""
        return f"{self.question} {self.level} {self.reconstructed:.3g} after {self.real:.3g} on real images"


def recognised(answers: Sequence[Answers]) -> list[Recognised]:
    """Each level that both sides hold in at least 5 images; ``generated`` of the answers are the reconstructions."""
    found = []
    for answer in answers:
        for code, level in enumerate(answer.question.levels):
            sides = [_mean(answer.real, answer.truth, code), _mean(answer.generated, answer.asked, code)]
            if None not in sides:
                found.append(Recognised(answer.question.name, level, *[float(side or 0) for side in sides]))
    return found


def _mean(scores: NDArray[np.float64], truth: NDArray[np.int64], code: int) -> float | None:
    rows = truth == code
    return float(scores[rows, code].mean()) if int(rows.sum()) >= LEAST else None


def reconstruction_note(answers: Sequence[Answers] | None, kind: str) -> str:
    """What the check says, for the notes of one kind of question ("label" or "attr"); None: nothing to check on."""
    if answers is None:
        return UNCHECKED
    own = recognised([answer for answer in answers if answer.question.column.startswith(f"{kind}.")])
    failing = [item for item in own if item.fails]
    if failing:
        told = ", ".join(item.words for item in failing)
        return f"{RECONSTRUCTION_FAILURE} ({told}), so what it misses in generated images is no generator's fault"
    return f"the judge was checked on reconstructions: all of its {len(own)} levels are recognised there" if own else ""


def with_reconstruction_notes(notes: Mapping[str, str], answers: Sequence[Answers] | None) -> dict[str, str]:
    """The judges' notes by kind, each with what the check on reconstructions says."""
    added = {kind: reconstruction_note(answers, kind) for kind in notes}
    return {kind: f"{note}; {added[kind]}" if note and added[kind] else note for kind, note in notes.items()}

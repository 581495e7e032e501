"""Check of a judge on reconstructions: whether it recognises the levels that it recognises on real images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from equigen.quality.judge.questions import JudgePredictions

RECONSTRUCTION = "reconstruction"  # name of the set that holds held-out real images through the autoencoder and back
SHARE = 0.5  # smallest ratio of the judge's mean probability on reconstructions to that on real images
LEAST = 5  # fewest images of a level to check
UNCHECKED = "the judge was not checked on reconstructions: none were evaluated"
RECONSTRUCTION_FAILURE = "the judge fails on reconstructions"


@dataclass(frozen=True)
class LevelRecognition:
    """Mean probability of a level over the real images that show it, and over their reconstructions."""

    target: str
    level: str
    real: float
    reconstructed: float

    @property
    def fails(self) -> bool:
        """Whether the mean on reconstructions is less than half of that on real images."""
        return self.reconstructed < SHARE * self.real

    @property
    def description(self) -> str:
        """Target and level with both means."""
        return f"{self.target} {self.level} {self.reconstructed:.3g} after {self.real:.3g} on real images"


def level_recognition(predictions: Sequence[JudgePredictions]) -> list[LevelRecognition]:
    """Return the recognition of each level with at least 5 real images and 5 reconstructions (``generated``)."""
    result = []
    for judge in predictions:
        for code, level in enumerate(judge.target.levels):
            real, reconstructed = judge.truth == code, judge.requested == code
            if min(real.sum(), reconstructed.sum()) >= LEAST:
                means = float(judge.real[real, code].mean()), float(judge.generated[reconstructed, code].mean())
                result.append(LevelRecognition(judge.target.name, level, *means))
    return result


def reconstruction_note(predictions: Sequence[JudgePredictions] | None, kind: str) -> str:
    """Return the result of the check for the notes of one kind of target ("label" or "attr"); None: not checked."""
    if predictions is None:
        return UNCHECKED
    levels = level_recognition([judge for judge in predictions if judge.target.column.startswith(f"{kind}.")])
    failures = [level for level in levels if level.fails]
    if failures:
        text = ", ".join(level.description for level in failures)
        return f"{RECONSTRUCTION_FAILURE} ({text}), so what it misses in generated images is no generator's fault"
    if not levels:
        return ""
    return f"the judge was checked on reconstructions: all of its {len(levels)} levels are recognised there"


def add_reconstruction_notes(
    notes: Mapping[str, str], predictions: Sequence[JudgePredictions] | None
) -> dict[str, str]:
    """Return the judges' notes by kind, each followed by the result of the check on reconstructions."""
    added = {kind: reconstruction_note(predictions, kind) for kind in notes}
    return {kind: f"{note}; {added[kind]}" if note and added[kind] else note for kind, note in notes.items()}

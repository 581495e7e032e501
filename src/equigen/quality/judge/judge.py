"""Does a generated image show the diagnosis and the attribute asked for? A judge trained on real images answers.

Features of any encoder come in, so this room need not know the one that trains diagnostic networks. The road is

    judges = fit_judges(real, train, ...)          # once, real images only
    judged = judges.judge(generated)               # for each generated set
    rows = measure_semantic(judged, plan)          # Measured, for ``assemble``
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from zlib import crc32

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import softmax

from equigen.quality.judge.probe import LIMIT, Probe, fit_probe, fit_temperature, patient_folds, reliability
from equigen.quality.judge.questions import Annotated, Answers, Codes, Judged, Question, questions_of
from equigen.quality.judge.semantic_metrics import measure_semantic
from equigen.quality.rows import join_notes
from equigen.seeds import numpy_generator

__all__ = ["Annotated", "Answers", "FittedJudge", "Judged", "Judges", "Question", "fit_judges", "measure_semantic"]
Array = NDArray[np.float64]
FOLDS = 5  # of the cross-fitting, where no training images are given
INNER = 3  # of the cross-validation inside a fold, which has the strength alone to choose
FEW = 3  # judges whose calibration a note gives one by one


@dataclass(frozen=True)
class FittedJudge:
    """The judge of one question.

    ``probes``: one, or one for each fold where it is cross-fitted; ``folds`` is then the fold of each patient.
    ``real`` [N, L]: its probabilities for the real images, each by a probe that saw nothing of the image's
    patient; ``truth`` [N]: what they show, -1 unknown. ``brier`` and ``ece`` on them; ``before`` holds both
    without calibration.
    """

    question: Question
    probes: list[Probe]
    folds: dict[str, int]
    real: Array
    truth: Codes
    brier: float
    ece: float
    before: tuple[float, float]

    def probabilities(self, features: NDArray[np.float32], patients: NDArray[np.str_]) -> Array:
        """[M, L] for other images, each by one probe, as the real images are.

        A mean over the folds' probes would be a better judge than the one that gives the ceiling, and a perfect
        generator would seem to pass it. The lot falls by the bytes of an image's features, so it does not depend
        on the order of the rows. An image of a patient who is among the real ones (a reconstruction) is judged by
        the probe that did not see that patient.
        """
        rows = np.ascontiguousarray(features)
        pairs = zip(rows, patients, strict=True)
        lots = np.array([self.folds.get(str(patient), crc32(row.tobytes()) % len(self.probes))
                         for row, patient in pairs], dtype=np.int64)
        result = np.zeros((len(rows), len(self.question.levels)))
        for index, probe in enumerate(self.probes):
            result[lots == index] = probe.probabilities(rows[lots == index])
        return result

    @property
    def words(self) -> str:
        """How well it is calibrated, for a note."""
        fits = "" if all(probe.converged for probe in self.probes) else ", stopped before its tolerance"
        return (f"{self.question.name} Brier {self.brier:.3g}, ECE {self.ece:.3g} "
                f"(uncalibrated {self.before[0]:.3g}, {self.before[1]:.3g}){fits}")


def _calibration(fits: list[FittedJudge]) -> str:
    """How well judges are calibrated: each of a few, the range of many."""
    if not fits:
        return ""
    if len(fits) <= FEW:
        return f"on held-out real images {', '.join(fit.words for fit in fits)}"
    lows, highs = ([f"{pick(values):.3g}" for values in ([fit.brier for fit in fits], [fit.ece for fit in fits])]
                   for pick in (min, max))
    loose = sum(not all(probe.converged for probe in fit.probes) for fit in fits)
    return join_notes(f"on held-out real images {len(fits)} judges have Brier {lows[0]} to {highs[0]}, "
                f"ECE {lows[1]} to {highs[1]}", f"{loose} fits stopped before their tolerance" if loose else "")


@dataclass(frozen=True)
class Judges:
    """Judges of all questions that the real images teach, with words about those they do not teach."""

    fitted: list[FittedJudge]
    columns: list[str]
    words: list[str]
    how: str
    real: pd.DataFrame

    def judge(self, generated: Annotated) -> Judged:
        """Judge a generated set by the requests in its table.

        Raises:
            InputError: features, rows and patients differ in number, features of another encoder or not finite.

        """
        generated.check("generated")
        answers = [
            Answers(fit.question, fit.real, fit.probabilities(generated.features, generated.patients), fit.truth,
                    fit.question.truth(generated.frame))
            for fit in self.fitted
        ]
        columns = generated.frame.columns
        absent = [f"nothing to judge {name} by: the generated images have no such column"
                  for name in self.columns if name not in columns]
        kinds = dict.fromkeys(name.split(".")[0] for name in self.columns)
        notes = {kind: self._note(kind, absent) for kind in kinds}
        names = [str(name) for name in columns if str(name).startswith("oracle.")]
        read = {name.removeprefix("oracle."): (self.real.get(name), generated.frame[name]) for name in names}
        return Judged(answers, notes, read)

    def _note(self, kind: str, absent: list[str]) -> str:
        own = [fit for fit in self.fitted if fit.question.column.startswith(f"{kind}.")]
        about = [word for word in [*self.words, *absent] if f"{kind}." in word]
        return join_notes(self.how if own else "", _calibration(own), *about)


def fit_judges(
    real: Annotated,
    train: Annotated | None = None,
    *,
    columns: Sequence[str] | None = None,
    kinds: Mapping[str, str] | None = None,
    levels: Mapping[str, Sequence[str]] | None = None,
    min_patients: int = 30,
    seed: int = 0,
) -> Judges:
    """Train and calibrate a judge for each label and attribute on real images alone.

    A judge is a probe (``fit_probe``) on the encoder's features: multinomial logistic regression for levels
    that exclude each other, one-vs-rest for each finding of a multi-label column. With ``train`` it learns from
    those images, less the patients who are among ``real`` too. Without, it is cross-fitted: patients of
    ``real`` are dealt into 5 folds, each image is judged by the probe of the other four, and a generated image
    by one of the five (one of a real patient, such as a reconstruction, by the probe that did not see the
    patient). The strength comes from cross-validation over patients inside the images a probe learns from. The
    temperature comes from held-out scores: of that cross-validation with ``train``, else of the real images
    of the other folds. So the ceiling is of patients on whom its judge was neither trained nor calibrated.

    Args:
        real: the evaluated real images.
        train: real training images, features of the same encoder; None cross-fits on ``real``.
        columns: which of ``label.*`` and ``attr.*`` to judge; None takes all that the source's table has.
        kinds: kind of a label, by column or name: "multilabel", or "binary" or "multiclass"; inferred from the
            cells where it is not given.
        levels: levels of a column in order; sorted where they are not given.
        min_patients: a class that fewer patients of the source show is left out, and the note says so (fewer than
            10 are never enough).
        seed: of the folds.

    Raises:
        InputError: features, rows and patients differ in number, or features are not finite.

    """
    real.check("real")
    source, how = real, f"judge: logistic regression on features, cross-fitted on real images, {FOLDS} folds by patient"
    if train is not None:
        train.check("training")
        source, lost = _without_patients(train, real)
        shared = f", {lost} of patients among the real images left out" if lost else ""
        how = f"judge: logistic regression on features of {len(source.frame)} real training images{shared}"
    names = [str(name) for name in source.frame.columns if str(name).startswith(("label.", "attr."))]
    chosen = names if columns is None else list(columns)
    questions, words = questions_of(source, chosen, kinds or {}, levels or {}, min_patients)
    probes_on = _trained if train is not None else _cross_fitted
    fitted = [probes_on(question, source, real, seed) for question in questions]
    if any(probe.images >= LIMIT * 0.9 for fit in fitted for probe in fit.probes):
        how = f"{how}, at most {LIMIT} images a fit"
    return Judges(fitted, chosen, words, how, real.frame)


def _without_patients(train: Annotated, real: Annotated) -> tuple[Annotated, int]:
    """Training images of patients who are not among the real ones, and how many were left out."""
    keep = ~np.isin(train.patients.astype(str), np.unique(real.patients.astype(str)))
    rows = train.frame[keep].reset_index(drop=True)
    return Annotated(train.features[keep], rows, train.patients[keep]), int((~keep).sum())


def _trained(question: Question, source: Annotated, real: Annotated, seed: int) -> FittedJudge:
    probe = _probe(question, source, np.arange(len(source.frame)), (seed, 0, FOLDS))
    logits, temperatures = probe.logits(real.features), np.full(len(real.frame), probe.temperature)
    return _judge(question, ([probe], {}), logits, temperatures, real)


def _cross_fitted(question: Question, source: Annotated, real: Annotated, seed: int) -> FittedJudge:
    """Probes of all folds; the images of a fold are scored by the probe that was fitted without it."""
    patients = np.unique(source.patients, return_inverse=True)[1].reshape(-1).astype(np.int64)
    rng = numpy_generator(seed, f"quality/judge/folds/{question.name}")
    folds = patient_folds(question.truth(source.frame), patients, FOLDS, rng)
    probes, logits = [], np.zeros((len(real.frame), len(question.levels)))
    for fold in range(FOLDS):
        probe = _probe(question, source, np.flatnonzero(folds != fold), (seed, fold, INNER))
        logits[folds == fold] = probe.logits(real.features[folds == fold])
        probes.append(probe)
    truth = question.truth(real.frame)
    others = [(folds != fold) & (truth >= 0) for fold in range(FOLDS)]
    probes = [replace(probe, temperature=fit_temperature(logits[rows], truth[rows]))
              for probe, rows in zip(probes, others, strict=True)]
    where = dict(zip(map(str, real.patients), map(int, folds), strict=True))
    return _judge(question, (probes, where), logits, np.array([probe.temperature for probe in probes])[folds], real)


def _probe(question: Question, source: Annotated, rows: Codes, how: tuple[int, int, int]) -> Probe:
    """A probe of these rows; ``how`` is the seed, the index of the draw and the folds of its cross-validation."""
    truth = question.truth(source.frame)
    known = rows[truth[rows] >= 0]
    rng = numpy_generator(how[0], f"quality/judge/{question.name}", how[1])
    levels = len(question.levels)
    return fit_probe(source.features[known], truth[known], source.patients[known], levels, rng, how[2])


def _judge(
    question: Question, fits: tuple[list[Probe], dict[str, int]], logits: Array, temperatures: Array, real: Annotated
) -> FittedJudge:
    truth = question.truth(real.frame)
    known = truth >= 0
    scores = [np.asarray(softmax(part, axis=1)) for part in (logits / temperatures[:, None], logits)]
    quality = [reliability(score[known], truth[known]) if known.any() else (np.nan, np.nan) for score in scores]
    return FittedJudge(question, *fits, scores[0], truth, *quality[0], quality[1])

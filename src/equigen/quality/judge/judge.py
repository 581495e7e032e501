"""Judges: probes trained on real images that predict the diagnosis and the attributes of generated images.

They take features of any encoder:

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
from equigen.quality.judge.questions import (
    AnnotatedFeatures,
    Codes,
    JudgePredictions,
    SetPredictions,
    Target,
    select_targets,
)
from equigen.quality.judge.semantic_metrics import measure_semantic
from equigen.quality.rows import join_notes
from equigen.seeds import numpy_generator

__all__ = ["AnnotatedFeatures", "FittedJudge", "Judges", "SetPredictions", "fit_judges", "measure_semantic"]
Array = NDArray[np.float64]
FOLDS = 5  # of the cross-fitting, where no training images are given
INNER = 3  # of the cross-validation inside a fold, which has the strength alone to choose
LISTED = 3  # up to so many judges, a note gives the calibration of each


@dataclass(frozen=True)
class FittedJudge:
    """The judge of one target.

    ``probes``: one, or one for each fold where it is cross-fitted; ``folds`` is then the fold of each patient.
    ``real`` [N, L]: probabilities for the real images, each by a probe that was not trained on the image's patient;
    ``truth`` [N]: their levels, -1 unknown. ``brier`` and ``ece``: Brier score and expected calibration error on
    them; ``uncalibrated``: both without calibration.
    """

    target: Target
    probes: list[Probe]
    folds: dict[str, int]
    real: Array
    truth: Codes
    brier: float
    ece: float
    uncalibrated: tuple[float, float]

    def probabilities(self, features: NDArray[np.float32], patients: NDArray[np.str_]) -> Array:
        """Return probabilities [M, L] for generated images, each by one probe, as for the real images.

        A mean over the folds' probes would be a better judge than the one that gives the ceiling, so that a perfect
        generator would exceed it. The probe is chosen by a hash of the image's features, so the choice does not
        depend on the order of the rows. An image of a patient who is among the real ones (a reconstruction) is
        judged by the probe that was not trained on that patient.
        """
        rows = np.ascontiguousarray(features)
        pairs = zip(rows, patients, strict=True)
        folds = np.array(
            [self.folds.get(str(patient), crc32(row.tobytes()) % len(self.probes)) for row, patient in pairs],
            dtype=np.int64,
        )
        result = np.zeros((len(rows), len(self.target.levels)))
        for index, probe in enumerate(self.probes):
            result[folds == index] = probe.probabilities(rows[folds == index])
        return result

    @property
    def calibration_note(self) -> str:
        """Brier score and expected calibration error, for a note."""
        fits = "" if all(probe.converged for probe in self.probes) else ", stopped before its tolerance"
        return (
            f"{self.target.name} Brier {self.brier:.3g}, ECE {self.ece:.3g} "
            f"(uncalibrated {self.uncalibrated[0]:.3g}, {self.uncalibrated[1]:.3g}){fits}"
        )


def _calibration(judges: list[FittedJudge]) -> str:
    """Return a note on the calibration of judges: of each of up to three, else the ranges."""
    if not judges:
        return ""
    if len(judges) <= LISTED:
        return f"on held-out real images {', '.join(judge.calibration_note for judge in judges)}"
    lows, highs = (
        [f"{extreme(scores):.3g}" for scores in ([judge.brier for judge in judges], [judge.ece for judge in judges])]
        for extreme in (min, max)
    )
    loose = sum(not all(probe.converged for probe in judge.probes) for judge in judges)
    return join_notes(
        f"on held-out real images {len(judges)} judges have Brier {lows[0]} to {highs[0]}, ECE {lows[1]} to {highs[1]}",
        f"{loose} fits stopped before their tolerance" if loose else "",
    )


@dataclass(frozen=True)
class Judges:
    """Judges of all targets that can be learned from the real images, with notes on the others (``omissions``)."""

    judges: list[FittedJudge]
    columns: list[str]
    omissions: list[str]
    description: str
    real: pd.DataFrame

    def judge(self, generated: AnnotatedFeatures) -> SetPredictions:
        """Return the judges' predictions for a generated set, beside the levels requested in its table.

        Raises:
            InputError: features, rows and patients differ in number, features of another encoder or not finite.

        """
        generated.check("generated")
        predictions = [
            JudgePredictions(
                judge.target,
                judge.real,
                judge.probabilities(generated.features, generated.patients),
                judge.truth,
                judge.target.truth(generated.frame),
            )
            for judge in self.judges
        ]
        columns = generated.frame.columns
        absent = [
            f"nothing to judge {name} by: the generated images have no such column"
            for name in self.columns
            if name not in columns
        ]
        kinds = dict.fromkeys(name.split(".")[0] for name in self.columns)
        notes = {}
        for kind in kinds:
            judges = [judge for judge in self.judges if judge.target.column.startswith(f"{kind}.")]
            omissions = [note for note in [*self.omissions, *absent] if f"{kind}." in note]
            notes[kind] = join_notes(self.description if judges else "", _calibration(judges), *omissions)
        names = [str(name) for name in columns if str(name).startswith("oracle.")]
        oracle = {name.removeprefix("oracle."): (self.real.get(name), generated.frame[name]) for name in names}
        return SetPredictions(predictions, notes, oracle)


def fit_judges(
    real: AnnotatedFeatures,
    train: AnnotatedFeatures | None = None,
    *,
    columns: Sequence[str] | None = None,
    kinds: Mapping[str, str] | None = None,
    levels: Mapping[str, Sequence[str]] | None = None,
    min_patients: int = 30,
    seed: int = 0,
) -> Judges:
    """Train and calibrate a judge for each label and attribute on real images alone.

    A judge is a probe (``fit_probe``) on the encoder's features: multinomial logistic regression for levels
    that exclude each other, one-vs-rest for each finding of a multi-label column. With ``train`` it is trained on
    those images, without the patients who are among ``real`` too. Otherwise it is cross-fitted: patients of
    ``real`` are split into 5 folds, each image is judged by the probe of the other four, and a generated image
    by one of the five (one of a real patient, such as a reconstruction, by the probe that was not trained on the
    patient). The strength comes from cross-validation over patients within the training images of a probe. The
    temperature comes from held-out scores: of that cross-validation with ``train``, else of the real images
    of the other folds. So the ceiling is of patients on whom its judge was neither trained nor calibrated.

    Args:
        real: the evaluated real images.
        train: real training images, features of the same encoder; None cross-fits on ``real``.
        columns: which of ``label.*`` and ``attr.*`` to judge; None takes all that the source's table has.
        kinds: kind of a label, by column or name: "multilabel", or "binary" or "multiclass"; inferred from the
            cells by default.
        levels: levels of a column in order; sorted by default.
        min_patients: a class that fewer patients of the source show is left out, and the note says so (at least 10
            are necessary).
        seed: of the folds.

    Raises:
        InputError: features, rows and patients differ in number, or features are not finite.

    """
    real.check("real")
    source = real
    description = f"judge: logistic regression on features, cross-fitted on real images, {FOLDS} folds by patient"
    if train is not None:
        train.check("training")
        mask = ~np.isin(train.patients.astype(str), np.unique(real.patients.astype(str)))
        rows = train.frame[mask].reset_index(drop=True)
        source = AnnotatedFeatures(train.features[mask], rows, train.patients[mask])
        shared = f", {(~mask).sum()} of patients among the real images left out" if not mask.all() else ""
        description = f"judge: logistic regression on features of {len(rows)} real training images{shared}"
    available = [str(name) for name in source.frame.columns if str(name).startswith(("label.", "attr."))]
    names = available if columns is None else list(columns)
    targets, omissions = select_targets(source, names, kinds or {}, levels or {}, min_patients)
    fit_judge = _fit_on_training if train is not None else _cross_fit
    judges = [fit_judge(target, source, real, seed) for target in targets]
    if any(probe.images >= LIMIT * 0.9 for judge in judges for probe in judge.probes):
        description = f"{description}, at most {LIMIT} images a fit"
    return Judges(judges, names, omissions, description, real.frame)


def _fit_on_training(target: Target, source: AnnotatedFeatures, real: AnnotatedFeatures, seed: int) -> FittedJudge:
    """Return the judge of one target, trained and calibrated on the training images ``source``."""
    probe = _probe(target, source, np.arange(len(source.frame)), (seed, 0, FOLDS))
    logits, temperatures = probe.logits(real.features), np.full(len(real.frame), probe.temperature)
    return _judge(target, ([probe], {}), logits, temperatures, real)


def _cross_fit(target: Target, source: AnnotatedFeatures, real: AnnotatedFeatures, seed: int) -> FittedJudge:
    """Return the cross-fitted judge of one target; the images of a fold are scored by the probe fitted without it."""
    patients = np.unique(source.patients, return_inverse=True)[1].reshape(-1).astype(np.int64)
    rng = numpy_generator(seed, f"quality/judge/folds/{target.name}")
    folds = patient_folds(target.truth(source.frame), patients, FOLDS, rng)
    probes, logits = [], np.zeros((len(real.frame), len(target.levels)))
    for fold in range(FOLDS):
        probe = _probe(target, source, np.flatnonzero(folds != fold), (seed, fold, INNER))
        logits[folds == fold] = probe.logits(real.features[folds == fold])
        probes.append(probe)
    truth = target.truth(real.frame)
    calibration_rows = [(folds != fold) & (truth >= 0) for fold in range(FOLDS)]
    probes = [
        replace(probe, temperature=fit_temperature(logits[rows], truth[rows]))
        for probe, rows in zip(probes, calibration_rows, strict=True)
    ]
    temperatures = np.array([probe.temperature for probe in probes])[folds]
    fold_of_patient = dict(zip(map(str, real.patients), map(int, folds), strict=True))
    return _judge(target, (probes, fold_of_patient), logits, temperatures, real)


def _probe(target: Target, source: AnnotatedFeatures, rows: Codes, draw: tuple[int, int, int]) -> Probe:
    """Return a probe of some rows; ``draw``: seed, index of the draw, and folds of the cross-validation."""
    seed, index, folds = draw
    truth = target.truth(source.frame)
    rows = rows[truth[rows] >= 0]
    rng = numpy_generator(seed, f"quality/judge/{target.name}", index)
    return fit_probe(source.features[rows], truth[rows], source.patients[rows], len(target.levels), rng, folds)


def _judge(
    target: Target,
    probes: tuple[list[Probe], dict[str, int]],
    logits: Array,
    temperatures: Array,
    real: AnnotatedFeatures,
) -> FittedJudge:
    """Return the judge with its calibration on the real images; ``logits`` of these are held out."""
    truth = target.truth(real.frame)
    defined = truth >= 0
    scores = [np.asarray(softmax(scaled, axis=1)) for scaled in (logits / temperatures[:, None], logits)]
    quality = [reliability(score[defined], truth[defined]) if defined.any() else (np.nan, np.nan) for score in scores]
    return FittedJudge(target, *probes, scores[0], truth, *quality[0], quality[1])

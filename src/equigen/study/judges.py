"""Judges of real training images, which screening and the page of counterfactual pairs ask what an image shows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from equigen.cohort import Cohort
from equigen.errors import InputError, Problem
from equigen.quality import JudgeClassifier, fit_classifier, learnable
from equigen.study.settings import StudySettings
from equigen.study.settings_errors import at
from equigen.synthesis import make_rule

Key = tuple[str, tuple[str, ...] | None, int]


class Readers:
    """Judges for a study, each fitted when it is first asked for, on the training split of the training domain."""

    def __init__(self, cohort: Cohort, size: int, cache: Path, show: bool) -> None:
        self.cohort, self.size, self.cache, self.show = cohort, size, cache, show
        self._fitted: dict[Key, JudgeClassifier] = {}

    def judge(self, encoder: str, columns: Sequence[str] | None, min_patients: int) -> JudgeClassifier:
        """The judge of these columns (None: of all)."""
        key = (encoder, None if columns is None else tuple(columns), min_patients)
        if key not in self._fitted:
            self._fitted[key] = fit_classifier(
                training(self.cohort), size=self.size, encoder=encoder, columns=columns, min_patients=min_patients,
                cache_dir=self.cache, show=self.show,
            )  # fmt: skip
        return self._fitted[key]


def training(cohort: Cohort) -> Cohort:
    """What judges learn from."""
    return cohort.split("train", domain="id")


def held_out(cohort: Cohort) -> Cohort:
    """What they are held against: validation images, since nothing is chosen by the test split."""
    return cohort.split("val", domain="id")


def columns_of(fields: Sequence[str] | None, cohort: Cohort) -> list[str] | None:
    """Columns of screened fields: ``label.dx`` of the finding ``label.dx edema`` too; None for all."""
    if fields is None:
        return None
    known = [*(f"label.{name}" for name in cohort.labels), *(f"attr.{name}" for name in cohort.attributes)]
    owners = {field: [name for name in known if field == name or field.startswith(f"{name} ")] for field in fields}
    return list(dict.fromkeys(owner for field in fields for owner in owners[field] or [field]))


def check_readers(settings: StudySettings, cohort: Cohort, source: str) -> None:
    """Whether judges can learn what screening and pairs ask them, and there are images to hold them against.

    Raises InputError.
    """
    screen, pairs = settings.screen, settings.pairs
    if screen is not None:
        with at("screen", source):
            questions, _ = learnable(training(cohort), columns_of(screen.fields, cohort), screen.min_patients)
            columns = [str(name) for name in cohort.frame.columns]
            make_rule(questions, screen.fields, columns, screen.threshold)
            _check_held_out(cohort)
    if pairs is not None and pairs.judge:
        with at("pairs", source):
            learnable(training(cohort), None, pairs.min_patients)
            _check_held_out(cohort)


def _check_held_out(cohort: Cohort) -> None:
    if not len(held_out(cohort)):
        problem = Problem("the validation split has no image of the training domain", "change 'split' of the cohort")
        raise InputError("A judge needs real images that it has not learned from.", [problem])

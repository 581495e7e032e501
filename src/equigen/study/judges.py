"""Judges: classifiers of real training images, for screening and for the page of counterfactual pairs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from equigen.cohort import Cohort, read_image
from equigen.config import settings_key
from equigen.errors import InputError, Problem
from equigen.quality import JudgeClassifier, fit_classifier, learnable_targets
from equigen.study.settings import StudySettings
from equigen.synthesis import SyntheticSet, make_rule

HELD_OUT = {"train": "val", "val": "test"}  # split by which a judge of another split is checked
Key = tuple[str, tuple[str, ...] | None, int]


class Judges:
    """Judges of one study, each fitted at its first use, on the training split of the training domain."""

    def __init__(self, cohort: Cohort, size: int, cache: Path, show: bool) -> None:
        self.cohort, self.size, self.cache, self.show = cohort, size, cache, show
        self._fitted: dict[Key, JudgeClassifier] = {}

    def judge(self, encoder: str, columns: Sequence[str] | None, min_patients: int) -> JudgeClassifier:
        """Return the judge of these columns (None: of all)."""
        key = (encoder, None if columns is None else tuple(columns), min_patients)
        if key not in self._fitted:
            self._fitted[key] = fit_classifier(
                training_images(self.cohort), size=self.size, encoder=encoder, columns=columns,
                min_patients=min_patients, cache_dir=self.cache, show=self.show,
            )  # fmt: skip
        return self._fitted[key]


def training_images(cohort: Cohort) -> Cohort:
    """Return the in-distribution training split, on which judges are fitted."""
    return cohort.split("train", domain="id")


def validation_images(cohort: Cohort) -> Cohort:
    """Return the in-distribution validation split, on which judges are checked; the test split must not be used."""
    return cohort.split("val", domain="id")


def columns_of(fields: Sequence[str] | None, cohort: Cohort) -> list[str] | None:
    """Return the columns of screened fields, ``label.dx`` for the finding ``label.dx edema``; None for all."""
    if fields is None:
        return None
    columns = [*(f"label.{name}" for name in cohort.labels), *(f"attr.{name}" for name in cohort.attributes)]
    owners = {field: [name for name in columns if field == name or field.startswith(f"{name} ")] for field in fields}
    return list(dict.fromkeys(owner for field in fields for owner in owners[field] or [field]))


def check_judges(settings: StudySettings, cohort: Cohort, source: str) -> None:
    """Raise InputError unless judges can be fitted for screening and pairs, and checked on validation images."""
    screen, pairs = settings.screen, settings.pairs
    if screen is not None:
        with settings_key("screen", source):
            fields = columns_of(screen.fields, cohort)
            targets, _ = learnable_targets(training_images(cohort), fields, screen.min_patients)
            columns = [str(name) for name in cohort.frame.columns]
            make_rule(targets, screen.fields, columns, screen.threshold)
            _check_validation_images(cohort)
    if pairs is not None and pairs.judge:
        with settings_key("pairs", source):
            learnable_targets(training_images(cohort), None, pairs.min_patients)
            _check_validation_images(cohort)


def _check_validation_images(cohort: Cohort) -> None:
    if not len(validation_images(cohort)):
        problem = Problem("the validation split has no image of the training domain", "change 'split' of the cohort")
        raise InputError("A judge needs real images that it has not learned from.", [problem])


def fit_judge(
    cohort: Cohort,
    split: str = "train",
    *,
    size: int,
    encoder: str,
    columns: Sequence[str] | None = None,
    min_patients: int = 30,
    seed: int = 0,
    cache_dir: str | Path | None = None,
    show: bool = True,
) -> tuple[JudgeClassifier, Cohort]:
    """Fit a judge on one split of the training domain; return it and the images of the split by which it is checked.

    ``split``: train (checked on val) or val (checked on test). ``size``: side of the images in pixels. ``columns``:
    what the judge learns, such as ``label.dx``; None: all.

    Raises:
        InputError: another split, no image by which the judge can be checked, nothing that can be learned.

    """
    if split not in HELD_OUT:
        problem = Problem(f"--judge {split}", "use train or val; nothing is chosen by the test split")
        raise InputError("A judge cannot learn from this split.", [problem])
    held_out = cohort.split(HELD_OUT[split], domain="id")
    if not len(held_out):
        problem = Problem(f"the split {HELD_OUT[split]} has no image of the training domain", "mend 'split'")
        raise InputError("The judge cannot be checked on real images.", [problem])
    judge = fit_classifier(
        cohort.split(split, domain="id"), size=size, encoder=encoder, columns=columns, min_patients=min_patients,
        seed=seed, cache_dir=cache_dir, show=show,
    )  # fmt: skip
    return judge, held_out


def image_side(synthetic: str | Path) -> int:
    """Return the shorter side of a synthetic set's first image in pixels. Raises InputError for a set without one."""
    frame = SyntheticSet(Path(synthetic)).frame
    if not len(frame):
        problem = Problem("holds no image", "generate some", file=str(synthetic))
        raise InputError("There is nothing to look at.", [problem])
    return int(min(read_image(frame["path"].iloc[0]).shape[:2]))

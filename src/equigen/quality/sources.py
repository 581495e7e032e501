"""Open the images of an evaluation from paths: tables, folders, cohorts and synthetic sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

from equigen.cohort import Cohort, is_cohort_path, is_table, open_cohort
from equigen.errors import InputError, Problem
from equigen.quality.image_sets import Source
from equigen.quality.settings import EvaluateSettings


@dataclass(frozen=True)
class Sources:
    """Opened images of an evaluation; ``labels`` and ``warnings`` follow from how they were opened.

    ``labels``: the diagnoses that a judge looks for, None for those that all sets have.
    """

    real: Source
    generated: dict[str, Source]
    train: Source | None
    labels: list[str] | None
    warnings: list[Problem]


def open_sources(
    real: Source, generated: Mapping[str, Source], train: Source | None, settings: EvaluateSettings
) -> Sources:
    """Open every path among the sources; cohorts, tables and sets in memory stay what they are.

    A path is a synthetic set, a ``cohort.yaml`` or the folder of a cohort (its test split in the training domain), a
    table of image files, or a folder of images. Real images of a cohort's path bring its training split as ``train``
    where none is given. Columns of ``settings.groups``, ``settings.labels`` and ``settings.only`` are read from tables;
    without ``settings.labels`` a table has no diagnosis for the judge.

    Raises:
        InputError: a path that is none of these; a table that cannot be read, with row, column and hint.

    """
    reader = _Reader(settings)
    from_cohort = isinstance(real, str | PathLike) and is_cohort_path(Path(real))
    labels, columns = settings.labels, list(dict.fromkeys([*(settings.labels or []), *settings.only]))
    if settings.only and labels is None and isinstance(real, str | PathLike) and not from_cohort:
        labels = []  # a table's label that restricts the images is no question for the judge
    if from_cohort and not _is_synthetic(Path(real)):  # type: ignore[arg-type]
        cohort = reader.open_cohort(Path(real))  # type: ignore[arg-type]
        real = cohort.split("test", domain="id")
        training = cohort.split("train", domain="id")
        train = training if train is None and len(training) else train
    else:
        real = reader.open(real, columns, settings.patient)
    sets = {name: reader.open(source, columns) for name, source in generated.items()}
    if isinstance(train, str | PathLike):
        train = reader.open(train, settings.labels or [], settings.patient, split="train")
    return Sources(real, sets, train, labels, reader.warnings)


def _is_synthetic(path: Path) -> bool:
    return (path / "synthetic.parquet").is_file()


class _Reader:
    """Opens paths with the columns of the settings, and collects the warnings of what it read."""

    def __init__(self, settings: EvaluateSettings) -> None:
        self.settings = settings
        self.warnings: list[Problem] = []

    def open_cohort(self, path: Path) -> Cohort:
        """Open a cohort and collect its warnings; those of a saved cohort were told when it was checked."""
        cohort = open_cohort(path)
        self.warnings += [] if (path / "cohort.parquet").is_file() else cohort.warnings
        return cohort

    def open(self, source: Source, labels: Sequence[str], patient: str | None = None, split: str = "test") -> Source:
        """Open a source; ``split``: part of a cohort. Sources that are no paths are returned as they are."""
        if not isinstance(source, str | PathLike):
            return source
        path = Path(source)
        if _is_synthetic(path) or (path / "generation.json").is_file():  # the latter alone: a set that is not finished
            return path
        if is_cohort_path(path):
            return self.open_cohort(path).split(split, domain="id")
        if not is_table(path) and not path.is_dir():
            problem = "is neither a table (.csv, .tsv, .parquet), a cohort.yaml nor a folder"
            raise InputError(
                "There are no images to evaluate.",
                [Problem(problem if path.exists() else "not found", "check the path", file=str(path))],
            )
        groups, image = self.settings.groups or [], self.settings.image
        try:
            cohort = Cohort.from_table(path, groups, labels=labels, image=image, patient=patient)
        except InputError as error:
            raise InputError(
                error.title, [_with_option(problem, image, patient) for problem in error.problems]
            ) from error
        self.warnings += cohort.warnings
        return cohort


def _with_option(problem: Problem, image: str, patient: str | None) -> Problem:
    """Return the problem of a missing column with the option that names the column."""
    options = {patient: "--patient; none: every image is its own patient (in Python patient=)"} if patient else {}
    option = {**options, image: "--image (in Python image=)"}.get(problem.column or "")
    if option is None or "no such column" not in problem.message:
        return problem
    return replace(problem, mend=f"{problem.mend}; name the column with {option}")

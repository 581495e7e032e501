"""Options of the command line, parsed and opened. Modules that load slowly are imported inside functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from equigen.errors import InputError, Problem, problem_lines
from equigen.files import read_parquet
from equigen.processes import is_first_process
from equigen.progress import console

BlindOption = Annotated[bool, typer.Option("--blind", help="Leave real images and their file names out of the report.")]
NamesOption = Annotated[
    bool | None,
    typer.Option(
        "--names/--no-names",
        help="File names of images in the report; by default they are left out where they could be names of persons.",
        show_default=False,
    ),
]
VerifyOption = Annotated[bool, typer.Option("--verify", help="Hash every file of every finished stage.")]
AcceptOption = Annotated[
    bool, typer.Option("--accept", help="Keep files that were edited after their stage ended; the report says so.")
]


def echo(text: object) -> None:
    """Print a result, in the first of several processes."""
    if is_first_process():
        typer.echo(text)


def open_cohort(path: Path, quarantine: bool = False, large: bool = False, warn: bool = True) -> Any:
    """Open a cohort: a cohort.yaml, a folder with one, or a saved cohort.

    ``large``: open a saved cohort as a ``Manifest``, which has no Python object per row. ``warn``: print the warnings
    of a cohort.yaml.
    """
    from equigen.cohort import Cohort, Manifest, is_table

    if (path / "cohort.parquet").is_file():
        return Manifest.load(path) if large else Cohort.load(path)
    if is_table(path) and not path.is_dir():
        problem = Problem(
            "is a table, not a description of one",
            "write a cohort.yaml that says which column is the image, the patient, the label; see the README",
            file=str(path),
        )
        raise InputError("A cohort is described by a YAML file.", [problem])
    if path.is_dir() and not (path / "cohort.yaml").is_file():
        problem = Problem(
            "holds neither cohort.yaml nor cohort.parquet",
            "give a cohort.yaml, or a folder that `equigen cohort check` wrote",
            file=str(path),
        )
        raise InputError("There is no cohort here.", [problem])
    cohort = Cohort.read(path / "cohort.yaml" if path.is_dir() else path, quarantine=quarantine)
    if warn:
        print_warnings(cohort.warnings)
    return cohort


def print_warnings(problems: Sequence[Problem]) -> None:
    """Print warnings to standard error, in the first of several processes."""
    if is_first_process():
        for line in problem_lines(problems):
            console.print(f"warning {line}", markup=False, highlight=False, soft_wrap=True)


def is_cohort(path: Path) -> bool:
    """Return whether a path is a cohort: a YAML file, or a folder with a cohort.yaml or a saved cohort."""
    return path.suffix.lower() in {".yaml", ".yml"} or any(
        (path / name).is_file() for name in ("cohort.parquet", "cohort.yaml")
    )


def open_images(
    path: Path, groups: list[str] | None, image: str, patient: str | None, labels: list[str] | None = None
) -> Any:
    """Open images to evaluate: a synthetic set, a cohort's test split, a table, or a folder of images."""
    from equigen.cohort import Cohort, is_table

    if (path / "synthetic.parquet").is_file():
        return path
    if is_cohort(path):
        return open_cohort(path).split("test", domain="id")
    if not is_table(path) and not path.is_dir():
        word = "is neither a table (.csv, .tsv, .parquet), a cohort.yaml nor a folder" if path.exists() else "not found"
        raise InputError("There are no images to evaluate.", [Problem(word, "check the path", file=str(path))])
    try:
        cohort = Cohort.from_table(path, groups or [], labels=labels or [], image=image, patient=patient)
        print_warnings(cohort.warnings)
        return cohort
    except InputError as error:
        problems = [_with_option(problem, {image: "--image", patient: "--patient"}) for problem in error.problems]
        raise InputError(error.title, problems) from error


def _with_option(problem: Problem, options: dict[str | None, str]) -> Problem:
    """Return the problem of a missing column with the option that names the column."""
    option = options.get(problem.column)
    if option is None or "no such column" not in problem.message:
        return problem
    more = "; none: every image is its own patient" if option == "--patient" else ""
    return replace(problem, mend=f"{problem.mend} Name the column with {option}{more}")


def result_table(path: Path | None) -> Any:
    """Read a Parquet table of results; None for None."""
    return None if path is None else read_parquet(path)


def parse_words(text: str | None) -> list[str] | None:
    """Parse comma-separated words; None for None."""
    return None if text is None else [word.strip() for word in text.split(",") if word.strip()]


def parse_numbers(text: str, kind: Any, option: str) -> list[Any]:
    """Parse comma-separated numbers, at least one."""
    problem = Problem(f"'{text}'", "give numbers separated by commas")
    try:
        values = [kind(word) for word in parse_words(text) or []]
    except ValueError as error:
        raise InputError(f"{option} cannot be read.", [problem]) from error
    if not values:
        raise InputError(f"{option} cannot be read.", [problem])
    return values


def parse_two_numbers(text: str, option: str, mend: str) -> tuple[float, float]:
    """Parse two numbers separated by a comma."""
    values = parse_numbers(text, float, option)
    if len(values) != 2:
        raise InputError(f"{option} cannot be read.", [Problem(f"'{text}'", mend)])
    return values[0], values[1]


def read_settings(path: Path | None) -> dict[str, Any]:
    """Read a YAML file of settings; empty for None."""
    from equigen.config import parse_scalars, read_yaml

    return {} if path is None else dict(parse_scalars(read_yaml(path)))


def parse_overrides(items: list[str] | None) -> dict[str, Any]:
    """Parse ``key=value`` options to a mapping; values are YAML."""
    from equigen.config import parse_override

    wrong = [item for item in items or [] if not item.partition("=")[1] or not item.partition("=")[0].strip()]
    if wrong:
        raise InputError(
            "An override cannot be read.", [Problem(f"'{item}'", "write --set key=value") for item in wrong]
        )
    overrides = [item.split("=", 1) for item in items or []]
    return {key.strip(): parse_override(key.strip(), value) for key, value in overrides}

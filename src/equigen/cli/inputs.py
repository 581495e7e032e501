"""What a user gives on the command line, brought to what the rooms take. Heavy rooms are imported when needed."""

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

BlindOption = Annotated[
    bool, typer.Option("--blind", help="Leave real images and their file names out of the report.")
]
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


def say(words: object) -> None:
    """Print a result; of several processes that share the work the first one does."""
    if is_first_process():
        typer.echo(words)


def open_cohort(path: Path, quarantine: bool = False, large: bool = False, warn: bool = True) -> Any:
    """A cohort from cohort.yaml, from a folder that holds one, or from a saved folder.

    ``large``: a saved one as a ``Manifest``, which takes no Python object per row. ``warn``: print what should be known
    of one that is read anew.
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
    found = Cohort.read(path / "cohort.yaml" if path.is_dir() else path, quarantine=quarantine)
    if warn:
        print_warnings(found.warnings)
    return found


def print_warnings(problems: Sequence[Problem]) -> None:
    """Print what should be known of images that can be used, to standard error; of several processes one prints."""
    if is_first_process():
        for line in problem_lines(problems):
            console.print(f"warning {line}", markup=False, highlight=False, soft_wrap=True)


def is_cohort(path: Path) -> bool:
    """Whether a path means a cohort: a YAML file, or a folder with a described or a saved one."""
    return path.suffix.lower() in {".yaml", ".yml"} or any(
        (path / name).is_file() for name in ("cohort.parquet", "cohort.yaml")
    )


def image_side(
    path: Path, groups: list[str] | None, image: str, patient: str | None, labels: list[str] | None = None
) -> Any:
    """A side of an evaluation: a synthetic set, a cohort's test split, a table, or a folder of images."""
    from equigen.cohort import Cohort, is_table

    if (path / "synthetic.parquet").is_file():
        return path
    if is_cohort(path):
        return open_cohort(path).split("test", domain="id")
    if not is_table(path) and not path.is_dir():
        word = "is neither a table (.csv, .tsv, .parquet), a cohort.yaml nor a folder" if path.exists() else "not found"
        raise InputError("There are no images to evaluate.", [Problem(word, "check the path", file=str(path))])
    try:
        found = Cohort.from_table(path, groups or [], labels=labels or [], image=image, patient=patient)
        print_warnings(found.warnings)
        return found
    except InputError as error:
        problems = [_with_option(problem, {image: "--image", patient: "--patient"}) for problem in error.problems]
        raise InputError(error.title, problems) from error


def _with_option(problem: Problem, options: dict[str | None, str]) -> Problem:
    """A missing column's problem, with the option that names it."""
    option = options.get(problem.column)
    if option is None or "no such column" not in problem.message:
        return problem
    more = "; none: every image is its own patient" if option == "--patient" else ""
    return replace(problem, mend=f"{problem.mend} Name the column with {option}{more}")


def result_table(path: Path | None) -> Any:
    """A Parquet table of results; None stays None."""
    return None if path is None else read_parquet(path)


def words(text: str | None) -> list[str] | None:
    """Comma-separated words; None stays None."""
    return None if text is None else [word.strip() for word in text.split(",") if word.strip()]


def numbers(text: str, kind: Any, option: str) -> list[Any]:
    """Comma-separated numbers, at least one."""
    problem = Problem(f"'{text}'", "give numbers separated by commas")
    try:
        found = [kind(word) for word in words(text) or []]
    except ValueError as error:
        raise InputError(f"{option} cannot be read.", [problem]) from error
    if not found:
        raise InputError(f"{option} cannot be read.", [problem])
    return found


def two_numbers(text: str, option: str, mend: str) -> tuple[float, float]:
    """Two numbers separated by a comma."""
    found = numbers(text, float, option)
    if len(found) != 2:
        raise InputError(f"{option} cannot be read.", [Problem(f"'{text}'", mend)])
    return found[0], found[1]


def read_settings(path: Path | None) -> dict[str, Any]:
    """A YAML file of settings; empty without one."""
    from equigen.cohort import read_yaml
    from equigen.study import parse_scalars

    return {} if path is None else dict(parse_scalars(read_yaml(path)))


def pairs(items: list[str] | None) -> dict[str, Any]:
    """``key=value`` words as a mapping, values as YAML reads them."""
    from equigen.study import parse_override

    wrong = [item for item in items or [] if not item.partition("=")[1] or not item.partition("=")[0].strip()]
    if wrong:
        raise InputError(
            "An override cannot be read.", [Problem(f"'{item}'", "write --set key=value") for item in wrong]
        )
    given = [item.split("=", 1) for item in items or []]
    return {key.strip(): parse_override(key.strip(), value) for key, value in given}

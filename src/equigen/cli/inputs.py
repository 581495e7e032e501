"""Options of the command line, parsed and opened. Modules that load slowly are imported inside functions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel

from equigen.cli.completion import COMPLETERS, complete_setting, complete_values, literal_values
from equigen.cli.listing import FileKind
from equigen.errors import InputError, Problem, problem_lines
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


def set_option(file: FileKind, example: str) -> Any:
    """Return the option ``--set`` of a command that takes a settings file; ``example``: a second override."""
    return typer.Option(
        "--set",
        metavar="KEY=VALUE",
        autocompletion=complete_setting(file),
        help=f"Override one setting, such as train.images=20000 or {example}. May be repeated.",
    )


def setting(model: type[BaseModel], name: str, *declarations: str, **options: Any) -> Any:
    """Return a command's option for a field of settings, with the field's description as its help.

    Several values are separated by commas, except under a ``metavar``. Names, and values where there are a few, are
    completed by the shell.
    """
    field = model.model_fields[name]
    several = "list" in str(field.annotation) and "metavar" not in options
    text = field.description or name
    mark = "" if text.endswith(("?", ".")) else "."
    more = " Several are separated by commas." if several else ""
    more = " Repeat it for another one." if field.annotation == dict[str, list[str]] else more
    text = f"{text[0].upper()}{text[1:]}{mark}{more}"
    choices = literal_values(field.annotation)
    completer = COMPLETERS.get(name) or (complete_values(choices) if choices else None)
    if choices:
        options = {"metavar": "|".join(choices), **options}
    return typer.Option(*declarations, help=text, autocompletion=completer, **options)


def echo(text: object) -> None:
    """Print a result, in the first of several processes."""
    if is_first_process():
        typer.echo(text)


def open_cohort(path: Path, quarantine: bool = False, large: bool = False, warn: bool = True) -> Any:
    """Open a cohort: a cohort.yaml, a folder with one, or a saved cohort.

    ``large``: open a saved cohort as a ``Manifest``, which has no Python object per row. ``warn``: print the warnings
    of a cohort.yaml.
    """
    if large and (path / "cohort.parquet").is_file():
        from equigen.cohort import Manifest

        return Manifest.load(path)
    from equigen.cohort import open_cohort as read_cohort

    cohort = read_cohort(path, quarantine=quarantine)
    if warn and not (path / "cohort.parquet").is_file():  # those of a saved cohort were told when it was checked
        print_warnings(cohort.warnings)
    return cohort


def print_warnings(problems: Sequence[Problem]) -> None:
    """Print warnings to standard error, in the first of several processes."""
    if is_first_process():
        for line in problem_lines(problems):
            console.print(f"warning {line}", markup=False, highlight=False, soft_wrap=True)


def print_rows(rows: Any, columns: Sequence[str], optional: Sequence[str] = ()) -> None:
    """Print rows of a result table, and below them each reason for a missing number once.

    ``optional``: columns that are left out where all rows have one value.
    """
    single = [name for name in optional if rows[name].nunique(dropna=False) <= 1]
    typer.echo(rows[[name for name in columns if name not in single]].to_string(index=False, na_rep="-"))
    missing = rows[rows["estimate"].isna()]
    cells = dict.fromkeys(zip(missing["attribute"], missing["group"], missing["note"], strict=True))
    for attribute, group, note in cells:
        typer.echo(f"no number for {attribute} {group}: {note}")


def result_table(path: Path | None) -> Any:
    """Read a Parquet table of results; None for None."""
    from equigen.parquet import read_parquet

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

"""The command `equigen list`: mechanisms, metrics, encoders and settings by name. It loads no heavy library."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from equigen.schema import Schema

FileKind = Literal["study", "comparison", "train", "evaluate", "audit"]
INDENT = "    "
WIDTH = 110  # of wrapped text at most

list_app = typer.Typer(help="List mechanisms, metrics, encoders and settings, with what each is.")
JSONOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@list_app.callback(invoke_without_command=True)
def _overview(context: typer.Context) -> None:
    """List mechanisms, metrics, encoders and settings, with what each is."""
    if context.invoked_subcommand is None:
        typer.echo(
            "equigen list mechanisms    equity mechanisms: `train --mechanism`, `mechanisms` of a study\n"
            "equigen list metrics       metrics of images and predictions, with direction and range\n"
            "equigen list encoders      encoders of image features: `evaluate --encoder`\n"
            "equigen list settings      keys of study.yaml, of a comparison's YAML and of `train --settings`\n"
            "Each takes --json."
        )


@list_app.command("mechanisms")
def list_mechanisms(as_json: JSONOption = False) -> None:
    """List equity mechanisms with their settings and defaults, those of installed packages included."""
    from equigen.equity import describe_mechanisms

    rows = describe_mechanisms()
    if as_json:
        _print_json(rows)
        return
    for row in rows:
        _print_entry(row["name"], [], row["description"])
        for line in _settings_lines(row["settings"]):
            typer.echo(INDENT + line)
    _print_entry("FILE.py:CLASS", [], "One of your own in a Python file, whose code is run; see docs/mechanisms.md.")


@list_app.command("metrics")
def list_metrics(as_json: JSONOption = False) -> None:
    """List metrics with the command that measures each, the better direction and the range."""
    from equigen.report import METRICS

    if as_json:
        keys = ("name", "command", "better", "range", "title", "meaning", "source")
        _print_json([{key: getattr(metric, key) for key in keys} for metric in METRICS.values()])
        return
    for metric in METRICS.values():
        better = f"{metric.better} is better" if metric.better else "neither direction is better"
        sentence = metric.meaning.partition(". ")[0].rstrip(".")
        notes = [f"equigen {metric.command}", better, metric.range]
        _print_entry(metric.name, notes, f"{metric.title}. {sentence}.")


@list_app.command("encoders")
def list_encoders(as_json: JSONOption = False) -> None:
    """List encoders of image features: the form of each name, and what it is."""
    from equigen.quality import ENCODER_FORMS

    if as_json:
        _print_json([{"name": name, "form": form, "description": text} for name, (form, text) in ENCODER_FORMS.items()])
        return
    for form, text in ENCODER_FORMS.values():
        _print_entry(form, [], f"{text[0].upper()}{text[1:]}.")


@list_app.command("settings")
def list_settings(
    file: Annotated[
        FileKind,
        typer.Argument(
            metavar="[FILE]", help="study (the default), comparison, train for its --settings, evaluate or audit."
        ),
    ] = "study",
    as_json: JSONOption = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema, which editors complete and check the YAML by.")
    ] = False,
) -> None:
    """List the keys of a settings file with type, default and meaning.

    For an editor: `equigen list settings study --schema > study.schema.json`, and as the first line of study.yaml
    `# yaml-language-server: $schema=study.schema.json`.
    """
    from equigen.schema import setting_rows

    content = file_schema(file)
    rows = setting_rows(content)
    if schema:
        typer.echo(json.dumps(content, indent=2, ensure_ascii=False))
    elif as_json:
        _print_json([row.to_dict() for row in rows])
    else:
        for row in rows:
            default = row.default if row.default in ("", "required") else f"default {row.default}"
            _print_entry(row.key, [row.type, default], row.description)


def file_schema(file: FileKind) -> Schema:
    """Return the JSON schema of a settings file, or of the settings that `evaluate` and `audit` take."""
    from equigen.comparison import ComparisonSettings
    from equigen.fairness import AuditSettings
    from equigen.quality import EvaluateSettings
    from equigen.schema import json_schema
    from equigen.study import StudySettings
    from equigen.training import TrainSettings

    inner = (TrainSettings, ("size", "mechanism", "mechanism_settings", "seed"))
    if file == "train":
        return json_schema(TrainSettings, "equigen train --settings")
    if file == "evaluate":
        return json_schema(EvaluateSettings, "settings of equigen evaluate")
    if file == "audit":
        return json_schema(AuditSettings, "settings of equigen audit")
    if file == "study":
        return json_schema(StudySettings, "study.yaml of equigen run", {"train": inner})
    return json_schema(ComparisonSettings, "settings of equigen compare", {"train": inner, "pretrain": inner})


def _settings_lines(settings: Mapping[str, Any] | None) -> list[str]:
    """Return the settings of a mechanism in lines, ``name (default)``; those of a variant after its name."""
    if not settings:
        return []
    variants = {name: value for name, value in settings.items() if isinstance(value, Mapping)}
    common = [
        f"{name} ({'null' if value is None else value})" for name, value in settings.items() if name not in variants
    ]
    inner = [f"{name}, {line}" for name, value in variants.items() for line in _settings_lines(value)]
    return [f"settings: {', '.join(common)}", *inner]


def _print_json(rows: Sequence[Mapping[str, Any]]) -> None:
    typer.echo(json.dumps(list(rows), indent=2, ensure_ascii=False))


def _print_entry(name: str, notes: Sequence[str], description: str) -> None:
    """Print a name with notes behind it, and the description below; in a terminal, wrapped to its width."""
    width = min(shutil.get_terminal_size().columns, WIDTH) if sys.stdout.isatty() else sys.maxsize
    head = "; ".join(note for note in notes if note)
    typer.echo(typer.style(name, bold=True) + (f"  ({head})" if head else ""))
    for line in textwrap.wrap(description, width - len(INDENT)):
        typer.echo(INDENT + line)

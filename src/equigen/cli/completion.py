"""Completion of values in a shell: mechanisms, metrics, encoders and keys of settings. It loads no heavy library.

Files and folders are completed by the shell itself.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from equigen.cli.listing import FileKind, file_schema

Values = list[tuple[str, str]]  # a value and its description


def complete_mechanism(incomplete: str) -> Values:
    """Return the names of mechanisms, or the classes of a file whose name is complete: ``my.py:``."""
    from equigen.equity import describe_mechanisms, file_classes

    file, colon, _ = incomplete.rpartition(":")
    if colon and file.endswith(".py") and Path(file).is_file():
        return [(f"{file}:{name}", "") for name in file_classes(Path(file))]
    return [(row["name"], row["description"]) for row in describe_mechanisms()]


def complete_encoder(incomplete: str) -> Values:
    """Return the names of encoders; one that needs a file or a folder ends with a colon."""
    from equigen.quality import ENCODER_FORMS

    return [(name + (":" if ":" in form else ""), text) for name, (form, text) in ENCODER_FORMS.items()]


def complete_metrics(incomplete: str) -> Values:
    """Return the metrics of ``evaluate`` as the last of a list that is separated by commas."""
    from equigen.report import METRICS

    names = incomplete.split(",")[:-1]
    metrics = [metric for metric in METRICS.values() if metric.command == "evaluate" and metric.name not in names]
    return [(",".join([*names, metric.name]), metric.title) for metric in metrics]


def complete_setting(file: FileKind) -> Callable[[str], Values]:
    """Return the completer of ``--set``: keys of a settings file, with ``=``."""

    def complete(incomplete: str) -> Values:
        from equigen.schema import setting_rows

        return [(f"{row.key}=", row.description) for row in setting_rows(file_schema(file)) if "NAME" not in row.key]

    return complete


def complete_choice(key: str) -> Callable[[str], Values]:
    """Return the completer of an option that is a training setting with a few values, such as ``preset``."""

    def complete(incomplete: str) -> Values:
        from equigen.schema import setting_rows

        row = next(row for row in setting_rows(file_schema("train")) if row.key == key)
        return [(value, "") for value in row.type.split(" | ")]

    return complete

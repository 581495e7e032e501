"""Completion of values in a shell: mechanisms, metrics, encoders and keys of settings. It loads no heavy library.

Files and folders are completed by the shell itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

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


def complete_values(values: Sequence[str]) -> Callable[[str], Values]:
    """Return the completer of an option with a few values."""

    def complete(incomplete: str) -> Values:
        return [(value, "") for value in values]

    return complete


def literal_values(annotation: Any) -> tuple[str, ...]:
    """Return the values of a ``Literal``, which may be optional; empty for other types.

    >>> literal_values(Literal["a", "b"] | None)
    ('a', 'b')
    """
    if get_origin(annotation) is Literal:
        return tuple(map(str, get_args(annotation)))
    return tuple(value for inner in get_args(annotation) for value in literal_values(inner))


COMPLETERS: dict[str, Callable[[str], Values]] = {
    "mechanism": complete_mechanism,
    "encoder": complete_encoder,
    "metrics": complete_metrics,
}
"""By the name of a setting."""

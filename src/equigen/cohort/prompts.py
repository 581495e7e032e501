"""Prompts: templates with names in braces and optional parts in square brackets, or a column of the table."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from string import Formatter
from typing import Any

from pydantic import BaseModel, ConfigDict

UNKNOWN = "unknown"


@dataclass(frozen=True)
class _Field:
    name: str


@dataclass(frozen=True)
class _OptionalPart:
    """Pieces between brackets, which are left out if one of their fields is unknown."""

    pieces: tuple[_Piece, ...]


_Piece = str | _Field | _OptionalPart


class Template:
    """A prompt such as ``"{sex} patient[, aged {age}], with {dx}"``.

    A name in braces is replaced by its word. A part in square brackets that holds a name is left out as a whole where
    that name is not known; outside of brackets what is not known is written "unknown". Brackets without a name in them
    are plain text, and so are doubled braces. Where a part is left out, blanks that would stand twice, before a comma
    or at an end go too. Raises ValueError where a bracket around a name is not closed.

    >>> Template("{sex} patient [aged {age}] with {dx}").fill({"sex": "female", "age": None, "dx": "glaucoma"})
    'female patient with glaucoma'
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._pieces = _parse_template(text)
        self.names = tuple(dict.fromkeys(_all_field_names(self._pieces)))

    def fill(self, texts: Mapping[str, str | None]) -> str:
        """Return the prompt for a text of each name; None is an unknown value."""
        pieces = list(_fill_pieces(self._pieces, texts))
        text = "".join(piece for piece in pieces if piece is not None)
        if None not in pieces:
            return text
        # a part was left out: one blank between words, none before punctuation or at the ends
        return re.sub(r"\s+([,.;:])", r"\1", re.sub(r"\s+", " ", text)).strip()


def _parse_template(text: str) -> tuple[_Piece, ...]:
    """Split a template into pieces; brackets around a name become optional parts."""
    stack: list[list[_Piece]] = [[]]
    for literal, name, _, _ in Formatter().parse(text):
        for piece in re.split(r"([\[\]])", literal):
            if piece == "[":
                stack.append([])
            elif piece == "]" and len(stack) > 1:
                inner = stack.pop()
                stack[-1] += [_OptionalPart(tuple(inner))] if _field_names(inner) else ["[", *inner, "]"]
            elif piece:
                stack[-1].append(piece)
        if name is not None:
            stack[-1].append(_Field(name))
    while len(stack) > 1:
        inner = stack.pop()
        if _field_names(inner):
            raise ValueError(f"the bracket before '{{{_field_names(inner)[0]}}}' is not closed; add a ']'")
        stack[-1] += ["[", *inner]
    return tuple(stack[0])


def _field_names(pieces: Iterable[_Piece]) -> list[str]:
    """Return the field names of these pieces, without those in nested optional parts."""
    return [piece.name for piece in pieces if isinstance(piece, _Field)]


def _all_field_names(pieces: Iterable[_Piece]) -> Iterator[str]:
    for piece in pieces:
        if isinstance(piece, _Field):
            yield piece.name
        elif isinstance(piece, _OptionalPart):
            yield from _all_field_names(piece.pieces)


def _fill_pieces(pieces: Iterable[_Piece], texts: Mapping[str, str | None]) -> Iterator[str | None]:
    """Yield the texts of the pieces in order; None for a part that is left out."""
    for piece in pieces:
        if isinstance(piece, str):
            yield piece
        elif isinstance(piece, _Field):
            word = texts.get(piece.name)
            yield UNKNOWN if word is None else word
        elif all(texts.get(name) is not None for name in _field_names(piece.pieces)):
            yield from _fill_pieces(piece.pieces, texts)
        else:
            yield None


class PromptColumn(BaseModel):
    """Column of the table with the prompt of each image."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    column: str


Prompt = str | list[str] | PromptColumn | None
"""Prompt of ``cohort.yaml``: a template, a list of paraphrases, or ``{column: caption}``."""


def validate_prompt(value: object, text: Callable[[object], object]) -> object:
    """Convert a value of ``cohort.yaml`` to a ``Prompt``; ``text`` reads a scalar. Raises ValueError for others."""
    if value is None or isinstance(value, PromptColumn):
        return value
    if isinstance(value, Mapping):
        if set(value) != {"column"}:
            raise ValueError("is a template, a list of templates or one key 'column'; write prompt: {column: caption}")
        return PromptColumn(column=str(text(value["column"])))
    texts = [text(item) for item in (value if isinstance(value, list) else [value])]
    if not texts or not all(isinstance(item, str) for item in texts):
        raise ValueError("holds no text; write one template, or a list of them")
    return texts if isinstance(value, list) else texts[0]


_cached_template = lru_cache(maxsize=256)(Template)


def prompt_templates(prompt: Prompt) -> list[Template]:
    """Return the templates in order; [] if prompts are a column or absent."""
    texts = [prompt] if isinstance(prompt, str) else prompt
    return [_cached_template(text) for text in texts] if isinstance(texts, list) else []


def prompt_columns(prompt: Prompt) -> list[str]:
    """Return the column of the prompts as a list of one name; [] if prompts are no column."""
    return [prompt.column] if isinstance(prompt, PromptColumn) else []


def unknown_names(prompt: Prompt, names: Collection[str]) -> list[str]:
    """Return the field names of templates that are not in ``names``."""
    return [field for template in prompt_templates(prompt) for field in template.names if field not in names]


def optional_text(value: Any) -> str | None:
    """Return a cell as text; None for a missing one."""
    return None if value is None or (isinstance(value, float) and math.isnan(value)) else str(value)


def prompt_text(value: Any) -> str | None:
    """Return a cell as a prompt's text: findings with commas, "no finding" for none; None for an unknown one."""
    text = optional_text(value)
    return None if text is None else ", ".join(text.split("|")) or "no finding"


def prompt_texts(names: Iterable[str], row: Mapping[str, Any]) -> dict[str, str | None]:
    """Return the text of each name for a row with keys ``label.<name>``, ``attr.<name>`` or ``<name>``."""
    cells = {name: [row[key] for key in (f"label.{name}", f"attr.{name}", name) if key in row] for name in names}
    return {name: prompt_text(values[0]) if values else None for name, values in cells.items()}

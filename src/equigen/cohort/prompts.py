"""Prompts: templates with names in braces and parts in square brackets that may be left out, or a column of texts."""

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
class _Part:
    """What stands between brackets: left out where one of its own fields is not known."""

    pieces: tuple[_Piece, ...]


_Piece = str | _Field | _Part


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
        self._pieces = _parsed(text)
        self.names = tuple(dict.fromkeys(_names(self._pieces)))

    def fill(self, words: Mapping[str, str | None]) -> str:
        """The prompt for a word of each name; None is what is not known."""
        pieces = list(_filled(self._pieces, words))
        text = "".join(piece for piece in pieces if piece is not None)
        return text if None not in pieces else _tidy(text)


def _parsed(text: str) -> tuple[_Piece, ...]:
    """The template's pieces; brackets become parts where they hold a name."""
    stack: list[list[_Piece]] = [[]]
    for literal, name, _, _ in Formatter().parse(text):
        for piece in re.split(r"([\[\]])", literal):
            if piece == "[":
                stack.append([])
            elif piece == "]" and len(stack) > 1:
                inner = stack.pop()
                stack[-1] += [_Part(tuple(inner))] if _own(inner) else ["[", *inner, "]"]
            elif piece:
                stack[-1].append(piece)
        if name is not None:
            stack[-1].append(_Field(name))
    while len(stack) > 1:
        inner = stack.pop()
        if _own(inner):
            raise ValueError(f"the bracket before '{{{_own(inner)[0]}}}' is not closed; add a ']'")
        stack[-1] += ["[", *inner]
    return tuple(stack[0])


def _own(pieces: Iterable[_Piece]) -> list[str]:
    """Names that stand in these pieces themselves, not in a part of them."""
    return [piece.name for piece in pieces if isinstance(piece, _Field)]


def _names(pieces: Iterable[_Piece]) -> Iterator[str]:
    for piece in pieces:
        if isinstance(piece, _Field):
            yield piece.name
        elif isinstance(piece, _Part):
            yield from _names(piece.pieces)


def _filled(pieces: Iterable[_Piece], words: Mapping[str, str | None]) -> Iterator[str | None]:
    """Pieces of the prompt in order; None where a part is left out."""
    for piece in pieces:
        if isinstance(piece, str):
            yield piece
        elif isinstance(piece, _Field):
            word = words.get(piece.name)
            yield UNKNOWN if word is None else word
        elif all(words.get(name) is not None for name in _own(piece.pieces)):
            yield from _filled(piece.pieces, words)
        else:
            yield None


def _tidy(text: str) -> str:
    """One blank between words, none before punctuation or at the ends."""
    return re.sub(r"\s+([,.;:])", r"\1", re.sub(r"\s+", " ", text)).strip()


class PromptColumn(BaseModel):
    """Prompts that are written in the table, one for each image."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    column: str


Prompt = str | list[str] | PromptColumn | None
"""What ``cohort.yaml`` says: a template, several that say the same in other words, or ``{column: caption}``."""


def prompt_of(value: object, text: Callable[[object], object]) -> object:
    """A value of ``cohort.yaml`` as a ``Prompt``; ``text`` reads a scalar. Raises ValueError for anything else."""
    if value is None or isinstance(value, PromptColumn):
        return value
    if isinstance(value, Mapping):
        if set(value) != {"column"}:
            raise ValueError("is a template, a list of templates or one key 'column'; write prompt: {column: caption}")
        return PromptColumn(column=str(text(value["column"])))
    texts = [text(part) for part in (value if isinstance(value, list) else [value])]
    if not texts or not all(isinstance(part, str) for part in texts):
        raise ValueError("holds no text; write one template, or a list of them")
    return texts if isinstance(value, list) else texts[0]


def prompt_templates(prompt: Prompt) -> list[Template]:
    """The templates, in order; none where prompts are a column or not given."""
    texts = [prompt] if isinstance(prompt, str) else prompt
    return [_template(text) for text in texts] if isinstance(texts, list) else []


@lru_cache(maxsize=256)
def _template(text: str) -> Template:
    return Template(text)


def prompt_columns(prompt: Prompt) -> list[str]:
    """The column that prompts are written in, if they are."""
    return [prompt.column] if isinstance(prompt, PromptColumn) else []


def unknown_names(prompt: Prompt, known: Collection[str]) -> list[str]:
    """Names in templates that are none of ``known``."""
    return [name for wording in prompt_templates(prompt) for name in wording.names if name not in known]


def optional_text(value: Any) -> str | None:
    """A cell's text as it stands; None where there is none."""
    return None if value is None or (isinstance(value, float) and math.isnan(value)) else str(value)


def prompt_word(value: Any) -> str | None:
    """A cell as a prompt says it: findings with commas, "no finding" for an empty list; None where it is not known."""
    text = optional_text(value)
    return None if text is None else ", ".join(text.split("|")) or "no finding"


def prompt_words(names: Iterable[str], row: Mapping[str, Any]) -> dict[str, str | None]:
    """The word of each name in a row with keys ``label.<name>``, ``attr.<name>`` or ``<name>``."""
    found = {name: [row[key] for key in (f"label.{name}", f"attr.{name}", name) if key in row] for name in names}
    return {name: prompt_word(values[0]) if values else None for name, values in found.items()}

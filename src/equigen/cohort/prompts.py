"""Prompt templates: text with names in braces, and parts in square brackets that may be left out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from string import Formatter

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


@lru_cache(maxsize=256)
def template(text: str) -> Template:
    """``Template(text)``, parsed once."""
    return Template(text)


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

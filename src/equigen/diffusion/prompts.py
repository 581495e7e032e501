"""Prompts as conditions: which text goes with an image in training, with paraphrases and dropout."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from equigen.cohort import Cohort, Manifest, Template, optional_text, prompt_columns, prompt_templates, prompt_text
from equigen.errors import InputError, Problem
from equigen.seeds import torch_generator

LIMIT = 200_000  # different prompts: 24 GB of embeddings for Stable Diffusion in half precision
SHOWN = 3        # long prompts that the warning quotes

Words = tuple[str | None, ...]


class PromptConditions:
    """The prompts of a cohort's rows: ids [B, 1] are numbers in ``texts``, where 0 is the empty prompt.

    Each time an image is drawn, one of the cohort's templates is taken (all are equally likely), each name in it is
    left out with chance ``drop_one`` (it is then written as one that is not known), and with chance ``drop_all`` the
    whole prompt is empty, which classifier-free guidance needs (Ho & Salimans 2022). Prompts from a column are whole:
    only ``drop_all`` concerns them; a row without one has the empty prompt.

    All prompts that can come up are found beforehand, so that their embeddings can be: ``texts`` depends on which
    conditions there are, not on their order or number. Raises InputError for a cohort without prompts, a chance beyond
    0 to 1, or more than ``limit`` different prompts.
    """

    def __init__(
        self, cohort: Cohort | Manifest, drop_all: float = 0.1, drop_one: float = 0.05, limit: int = LIMIT
    ) -> None:
        if cohort.spec.prompt is None:
            problem = Problem("has no 'prompt'", "write a template, or name the column that holds them", file="cohort")
            raise InputError("There are no prompts to train on.", [problem])
        for name, chance in (("drop_all", drop_all), ("drop_one", drop_one)):
            if not 0 <= chance <= 1:
                raise InputError("This is no chance.", [Problem(f"{name} is {chance:g}", "use a number from 0 to 1")])
        self.drop_all, self.drop_one = drop_all, drop_one
        self.names, conditions, self._codes = _conditions(cohort)
        self.rows = cohort.frame["row"].to_numpy(dtype=np.int64)  # of the user's table, for messages
        wordings: list[_Wording | _Caption] = [
            _Wording(each, self.names) for each in prompt_templates(cohort.spec.prompt)
        ]
        wordings = wordings or [_Caption()]
        prompts = _every_prompt(wordings, conditions, drop_one > 0, limit)
        self.texts = ["", *sorted({text for found in prompts for text in found.values()} - {""})]
        number = {text: index for index, text in enumerate(self.texts)}
        self._wordings, self._conditions = wordings, conditions
        self._numbers = [{words: number[text] for words, text in found.items()} for found in prompts]

    def __len__(self) -> int:
        """Number of rows."""
        return len(self._codes)

    def take(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> PromptConditions:
        """The same prompts for some rows alone (a mask or row numbers): ``texts`` and their numbers stay."""
        part = copy.copy(self)
        part._codes, part.rows = self._codes[rows], self.rows[rows]
        return part

    def draw(self, rows: torch.Tensor, seed: int, seen: int, generator: torch.Generator) -> torch.Tensor:
        """Ids [B, 1] for rows [B], dropped at random by (seed, images seen) alone; ``generator`` is not used."""
        count = len(rows)
        wording = torch.randint(len(self._wordings), (count,), generator=torch_generator(seed, "paraphrase", seen))
        draws = torch_generator(seed, "prompt-dropout", seen)
        whole = torch.rand(count, generator=draws) < self.drop_all
        single = torch.rand(count, len(self.names), generator=draws) < self.drop_one
        numbers = [
            0 if empty else self._number(row, which, dropped)
            for row, which, empty, dropped in zip(
                rows.tolist(), wording.tolist(), whole.tolist(), single.tolist(), strict=True
            )
        ]
        return torch.tensor(numbers, dtype=torch.int64)[:, None]

    def plain(self, rows: torch.Tensor) -> torch.Tensor:
        """Ids [B, 1] for rows [B]: the first template, nothing dropped."""
        nothing = [False] * len(self.names)
        return torch.tensor([self._number(row, 0, nothing) for row in rows.tolist()], dtype=torch.int64)[:, None]

    def _number(self, row: int, wording: int, dropped: Sequence[bool]) -> int:
        words = self._conditions[self._codes[row]]
        if self.names:  # prompts from a column are one word, of which nothing is dropped
            words = tuple(None if out else word for word, out in zip(words, dropped, strict=True))
        return self._numbers[wording][self._wordings[wording].own(words)]

    def first_rows(self) -> dict[int, int]:
        """The first row of the user's table for each number in ``texts`` that a row has when nothing is dropped."""
        found: dict[int, int] = {}
        codes, first = np.unique(self._codes, return_index=True)
        for code, row in sorted(zip(codes.tolist(), self.rows[first].tolist(), strict=True), key=lambda pair: pair[1]):
            for wording, numbers in zip(self._wordings, self._numbers, strict=True):
                found.setdefault(numbers[wording.own(self._conditions[code])], row)
        return found


def warn_of_long_prompts(conditions: PromptConditions, excess: Callable[[Sequence[str]], list[int]]) -> list[int]:
    """Say once which prompts a text encoder will cut, with the first rows; the numbers of those prompts.

    ``excess``: ``Pretrained.excess``, by how many tokens each text is too long.
    """
    over = excess(conditions.texts)
    long = [number for number, tokens in enumerate(over) if tokens > 0]
    if long:
        rows = conditions.first_rows()
        ordered = sorted(long, key=lambda number: (rows.get(number, np.inf), number))
        told = [_told(conditions.texts[number], over[number], rows.get(number)) for number in ordered[:SHOWN]]
        more = f", and {len(long) - SHOWN} more" if len(long) > SHOWN else ""
        warnings.warn(
            f"{len(long)} of {len(conditions.texts)} prompts are longer than the text encoder reads; their ends are "
            f"cut off: {'; '.join(told)}{more}. Shorten 'prompt' in cohort.yaml, or say what matters most first.",
            stacklevel=2,
        )
    return long


def _told(text: str, over: int, row: int | None) -> str:
    place = f"row {row}" if row is not None else "with a name left out"
    return f"{place}, {over} token{'s' if over > 1 else ''} over: '{text if len(text) <= 200 else text[:200] + '...'}'"


class _Wording:
    """One template: its prompt for the words of its own names, which are some of ``names``."""

    def __init__(self, template: Template, names: Sequence[str]) -> None:
        self.template, self._places = template, [names.index(name) for name in template.names]

    def own(self, words: Words) -> Words:
        """The words of its own names."""
        return tuple(words[place] for place in self._places)

    def text(self, own: Words) -> str:
        """The prompt."""
        return self.template.fill(dict(zip(self.template.names, own, strict=True)))


class _Caption:
    """Prompts from a column: the one word is the prompt."""

    def own(self, words: Words) -> Words:
        """The prompt itself."""
        return words

    def text(self, own: Words) -> str:
        """The prompt."""
        return own[0] or ""


def _conditions(cohort: Cohort | Manifest) -> tuple[list[str], list[Words], NDArray[np.int64]]:
    """Names that prompts use, the different words that rows have for them, and which of these each row [N] has."""
    frame, templates = cohort.frame, prompt_templates(cohort.spec.prompt)
    if prompt_columns(cohort.spec.prompt):
        codes, words = _coded(frame["prompt"], optional_text)
        return [], [(word,) for word in words], codes
    names = list(dict.fromkeys(name for each in templates for name in each.names))
    columns = [f"label.{name}" if name in cohort.labels else f"attr.{name}" for name in names]
    coded = [_coded(frame[column], prompt_text) for column in columns]
    codes = np.zeros(len(frame), dtype=np.int64)
    for part, words in coded:  # numbered anew at each step, so that they stay small
        codes = pd.factorize(codes * len(words) + part)[0].astype(np.int64)
    first = np.unique(codes, return_index=True)[1]
    return names, [tuple(words[part[row]] for part, words in coded) for row in first], codes


def _coded(cells: pd.Series, word: Callable[[object], str | None]) -> tuple[NDArray[np.int64], list[str | None]]:
    """Each cell's place in the list of different words; missing cells stand last."""
    codes, different = pd.factorize(cells)
    words = [*(word(value) for value in different), None]
    return np.where(codes < 0, len(words) - 1, codes).astype(np.int64), words


def _every_prompt(
    wordings: Sequence[_Wording | _Caption], conditions: Iterable[Words], dropping: bool, limit: int
) -> list[dict[Words, str]]:
    """Each wording's prompt for all words that rows have, and all that dropping single names leaves of them."""
    found: list[dict[Words, str]] = []
    for wording in wordings:
        own = dict.fromkeys(wording.own(words) for words in conditions)
        for place in range(len(next(iter(own), ())) if dropping and isinstance(wording, _Wording) else 0):
            own |= dict.fromkeys((*words[:place], None, *words[place + 1 :]) for words in list(own))
            _check_number(len(own), limit)
        found.append({words: wording.text(words) for words in own})
        _check_number(sum(len(texts) for texts in found), limit)
    return found


def _check_number(count: int, limit: int) -> None:
    if count > limit:
        mend = (
            "use fewer names or templates in 'prompt', set drop_one to 0, or raise the limit: each prompt takes about "
            "0.12 MB of embeddings for Stable Diffusion, up to 2.4 MB for larger encoders"
        )
        raise InputError("There are too many different prompts.", [Problem(f"more than {limit:,}", mend)])

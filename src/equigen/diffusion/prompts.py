"""Prompts as conditions of training, with paraphrases and dropout."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from equigen.cohort import Cohort, Manifest, Template, optional_text, prompt_columns, prompt_templates, prompt_text
from equigen.errors import InputError, Problem
from equigen.seeds import torch_generator

LIMIT = 200_000  # different prompts: 24 GB of embeddings for Stable Diffusion in half precision
QUOTED_PROMPTS = 3  # long prompts that the warning quotes

TemplateValues = tuple[str | None, ...]


class PromptConditions:
    """The prompts of a cohort's rows: ids [B, 1] are numbers in ``texts``, where 0 is the empty prompt.

    Each time an image is drawn, one of the cohort's templates is drawn uniformly, each name in it is dropped with
    chance ``drop_one`` (it is then written as an unknown one), and with chance ``drop_all`` the whole prompt is empty,
    which classifier-free guidance needs (Ho & Salimans 2022). Prompts from a column are only dropped as a whole, by
    ``drop_all``; a row without one has the empty prompt.

    All prompts that can occur are listed beforehand in ``texts``, so that their embeddings can be cached; the list
    depends on the set of conditions, not on their order or number. Raises InputError for a cohort without prompts, a
    chance outside 0 to 1, or more than ``limit`` different prompts.
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
        wordings: list[_PromptTemplate | _Caption] = [
            _PromptTemplate(template, self.names) for template in prompt_templates(cohort.spec.prompt)
        ]
        wordings = wordings or [_Caption()]
        prompts: list[dict[TemplateValues, str]] = []
        for wording in wordings:
            combinations = dict.fromkeys(wording.select(values) for values in conditions)
            drops_names = drop_one > 0 and isinstance(wording, _PromptTemplate)
            for position in range(len(next(iter(combinations), ())) if drops_names else 0):
                without = ((*values[:position], None, *values[position + 1 :]) for values in list(combinations))
                combinations |= dict.fromkeys(without)
                _check_number(len(combinations), limit)
            prompts.append({values: wording.text(values) for values in combinations})
            _check_number(sum(len(texts) for texts in prompts), limit)
        self.texts = ["", *sorted({text for texts in prompts for text in texts.values()} - {""})]
        number = {text: index for index, text in enumerate(self.texts)}
        self._templates, self._conditions = wordings, conditions
        self._numbers = [{values: number[text] for values, text in texts.items()} for texts in prompts]

    def __len__(self) -> int:
        """Number of rows."""
        return len(self._codes)

    def take(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> PromptConditions:
        """Return the conditions of some rows (a mask or row numbers), with the same ``texts`` and numbers."""
        subset = copy.copy(self)
        subset._codes, subset.rows = self._codes[rows], self.rows[rows]
        return subset

    def draw(self, rows: torch.Tensor, seed: int, images_seen: int, generator: torch.Generator) -> torch.Tensor:
        """Return ids [B, 1] for rows [B], dropped at random by (seed, images seen) alone, without ``generator``."""
        count = len(rows)
        draws = torch_generator(seed, "paraphrase", images_seen)
        wording = torch.randint(len(self._templates), (count,), generator=draws)
        draws = torch_generator(seed, "prompt-dropout", images_seen)
        all_dropped = torch.rand(count, generator=draws) < self.drop_all
        single = torch.rand(count, len(self.names), generator=draws) < self.drop_one
        numbers = [
            0 if empty else self._number(row, template_index, dropped)
            for row, template_index, empty, dropped in zip(
                rows.tolist(), wording.tolist(), all_dropped.tolist(), single.tolist(), strict=True
            )
        ]
        return torch.tensor(numbers, dtype=torch.int64)[:, None]

    def complete(self, rows: torch.Tensor) -> torch.Tensor:
        """Return ids [B, 1] for rows [B]: the first template, nothing dropped."""
        nothing = [False] * len(self.names)
        return torch.tensor([self._number(row, 0, nothing) for row in rows.tolist()], dtype=torch.int64)[:, None]

    def _number(self, row: int, wording: int, dropped: Sequence[bool]) -> int:
        values = self._conditions[self._codes[row]]
        if self.names:  # prompts from a column are one word, of which nothing is dropped
            values = tuple(None if is_dropped else value for value, is_dropped in zip(values, dropped, strict=True))
        return self._numbers[wording][self._templates[wording].select(values)]

    def first_rows(self) -> dict[int, int]:
        """Return the first row of the user's table for each number in ``texts`` that occurs without dropping."""
        row_of_text: dict[int, int] = {}
        codes, first = np.unique(self._codes, return_index=True)
        for code, row in sorted(zip(codes.tolist(), self.rows[first].tolist(), strict=True), key=lambda pair: pair[1]):
            for wording, numbers in zip(self._templates, self._numbers, strict=True):
                row_of_text.setdefault(numbers[wording.select(self._conditions[code])], row)
        return row_of_text


def warn_of_long_prompts(conditions: PromptConditions, excess: Callable[[Sequence[str]], list[int]]) -> list[int]:
    """Warn once of prompts that a text encoder truncates, with the first rows; returns the numbers of those prompts.

    ``excess``: ``Pretrained.excess``, by how many tokens each text is too long.
    """
    over = excess(conditions.texts)
    long = [number for number, tokens in enumerate(over) if tokens > 0]
    if long:
        rows = conditions.first_rows()
        ordered = sorted(long, key=lambda number: (rows.get(number, np.inf), number))
        examples = []
        for number in ordered[:QUOTED_PROMPTS]:
            text, tokens = conditions.texts[number], over[number]
            source = f"row {rows[number]}" if number in rows else "with a name left out"
            quote = text if len(text) <= 200 else text[:200] + "..."
            examples.append(f"{source}, {tokens} token{'s' if tokens > 1 else ''} over: '{quote}'")
        more = f", and {len(long) - QUOTED_PROMPTS} more" if len(long) > QUOTED_PROMPTS else ""
        warnings.warn(
            f"{len(long)} of {len(conditions.texts)} prompts are longer than the text encoder reads; their ends are "
            f"cut off: {'; '.join(examples)}{more}. Shorten 'prompt' in cohort.yaml, or say what matters most first.",
            stacklevel=2,
        )
    return long


class _PromptTemplate:
    """One template, whose names are some of ``names``."""

    def __init__(self, template: Template, names: Sequence[str]) -> None:
        self.template, self._places = template, [names.index(name) for name in template.names]

    def select(self, values: TemplateValues) -> TemplateValues:
        """Return the values of the template's names."""
        return tuple(values[position] for position in self._places)

    def text(self, values: TemplateValues) -> str:
        """Return the prompt."""
        return self.template.fill(dict(zip(self.template.names, values, strict=True)))


class _Caption:
    """Prompts from a column: the only value is the prompt."""

    def select(self, values: TemplateValues) -> TemplateValues:
        """Return the prompt itself."""
        return values

    def text(self, values: TemplateValues) -> str:
        """Return the prompt."""
        return values[0] or ""


def _conditions(cohort: Cohort | Manifest) -> tuple[list[str], list[TemplateValues], NDArray[np.int64]]:
    """Return the names in the templates, the distinct values of the rows, and the index of each row's values [N]."""
    frame, templates = cohort.frame, prompt_templates(cohort.spec.prompt)
    if prompt_columns(cohort.spec.prompt):
        codes, levels = _factorise(frame["prompt"], optional_text)
        return [], [(word,) for word in levels], codes
    names = list(dict.fromkeys(name for template in templates for name in template.names))
    columns = [f"label.{name}" if name in cohort.labels else f"attr.{name}" for name in names]
    coded = [_factorise(frame[column], prompt_text) for column in columns]
    codes = np.zeros(len(frame), dtype=np.int64)
    for level_codes, levels in coded:  # numbered anew at each step, so that they stay small
        codes = pd.factorize(codes * len(levels) + level_codes)[0].astype(np.int64)
    first = np.unique(codes, return_index=True)[1]
    return names, [tuple(levels[level_codes[row]] for level_codes, levels in coded) for row in first], codes


def _factorise(cells: pd.Series, word: Callable[[object], str | None]) -> tuple[NDArray[np.int64], list[str | None]]:
    """Return each cell's index [N] in the list of distinct values, and the list; missing cells are the last."""
    codes, different = pd.factorize(cells)
    values = [*(word(value) for value in different), None]
    return np.where(codes < 0, len(values) - 1, codes).astype(np.int64), values


def _check_number(count: int, limit: int) -> None:
    if count > limit:
        mend = (
            "use fewer names or templates in 'prompt', set drop_one to 0, or raise the limit: each prompt takes about "
            "0.12 MB of embeddings for Stable Diffusion, up to 2.4 MB for larger encoders"
        )
        raise InputError("There are too many different prompts.", [Problem(f"more than {limit:,}", mend)])

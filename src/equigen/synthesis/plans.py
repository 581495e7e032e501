"""Sampling plans: tables with one row for each image to generate, with its conditions and caption."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from equigen.cohort import Cohort, optional_text, prompt_columns
from equigen.errors import InputError, Problem
from equigen.seeds import derive_seed, numpy_generator
from equigen.synthesis.guidance import DEFAULT, DEFAULT_MARK
from equigen.synthesis.policies import Policy

PAIR = ["pair", "changed"]
"""Columns of a counterfactual plan: number of the pair, and the attribute that differs within it."""


def plan(
    cohort: Cohort,
    policy: Policy = "match",
    size: int = 1000,
    seed: int = 0,
    guidance: float | None = None,
    steps: int = 20,
    attribute: str | None = None,
    *,
    solver: str | None = None,
    negative: str | None = None,
    guidance_low: float | None = None,
    guidance_high: float | None = None,
    captions: bool = True,
) -> pd.DataFrame:
    """A plan: one row for each image with ``label.*``, ``attr.*``, ``prompt``, ``seed``, ``guidance`` and ``steps``.

    ``match``: the joint distribution of the training split, unknown values included. ``balanced``: every cell of
    attribute levels equally often, with the diagnoses of the whole training split in each cell (Ktena et al. 2024).
    ``uniform``: every known diagnosis in every cell equally often. ``complement``: the difference between each
    attribute cell and the largest one, with the diagnoses of the whole split; ``size`` is then the greatest number of
    rows. ``counterfactual``: pairs (of two images or more) that differ in ``attribute`` alone. The other conditions
    follow ``match``; each row appears once for every level of the attribute, with the same seed (the same noise) and
    guidance. The columns ``pair`` and ``changed`` identify the pairs; ``size`` counts images, and only complete pairs
    are planned. Counts are exact up to rounding, not sampled; rows (of pairs: the pairs) are shuffled.

    ``guidance`` is one scale for all rows; without one it is 2, or what a calibration of the generator says (see
    ``generate``). ``apply_guidance`` sets one for each group. ``solver``, ``negative``,
    ``guidance_low`` and ``guidance_high`` (see ``equigen.diffusion.Request``) become columns where they are not None.
    Where the cohort's prompts are a column of its table, each row takes the caption of a training image with the same
    labels and attributes; without ``captions`` it has none, for generators that read none.

    Raises InputError for an unknown policy, a size or steps below 1, negative guidance, an empty training split,
    ``uniform`` without known diagnoses, an ``attribute`` that is missing, unknown, of one level, or given with another
    policy, a cell without a caption, or captions for counterfactual pairs, which cannot follow the attribute.
    """
    training, named = cohort.split("train").frame, guidance is not None
    guidance = DEFAULT if guidance is None else guidance
    _check(policy, size, guidance, steps, training)
    _check_attribute(cohort, policy, attribute, size, captions=captions)
    if policy == "counterfactual":
        rows = _pair_rows(cohort, training, str(attribute), size, seed, guidance, steps)
    else:
        names = [*(f"label.{name}" for name in cohort.labels), *(f"attr.{name}" for name in cohort.attributes)]
        matching = policy == "match"
        rows = _matching_rows(training, names, size) if matching else _cell_rows(cohort, training, policy, size)[names]
        rows = _complete_rows(cohort, rows, training, seed, guidance, steps)
    if captions and prompt_columns(cohort.spec.prompt):
        check_captions(_conditions(rows), list(rows["prompt"]))
    elif prompt_columns(cohort.spec.prompt):
        rows["prompt"] = None
    options = {"solver": solver, "negative": negative, "guidance_low": guidance_low, "guidance_high": guidance_high}
    rows = rows.assign(**{name: value for name, value in options.items() if value is not None})
    rows.attrs = {} if named else {DEFAULT_MARK: True}
    return rows


def match_plan(cohort: Cohort, size: int, seed: int = 0, guidance: float = 2.0, steps: int = 20) -> pd.DataFrame:
    """A plan by the policy ``match`` over all images of a cohort, such as one group or the held-out images.

    Columns and errors as for ``plan``; captions are those of these images, None for a cell without captions.
    """
    _check("match", size, guidance, steps, cohort.frame)
    columns = [*(f"label.{name}" for name in cohort.labels), *(f"attr.{name}" for name in cohort.attributes)]
    return _complete_rows(cohort, _matching_rows(cohort.frame, columns, size), cohort.frame, seed, guidance, steps)


def _matching_rows(frame: pd.DataFrame, columns: list[str], size: int) -> pd.DataFrame:
    """Rows of conditions with the joint distribution of the frame, up to rounding."""
    joint = frame[columns].drop_duplicates().reset_index(drop=True)
    return joint.iloc[np.repeat(np.arange(len(joint)), allot(_shares(frame, joint), size))]


def _pair_rows(
    cohort: Cohort, training: pd.DataFrame, attribute: str, size: int, seed: int, guidance: float, steps: int
) -> pd.DataFrame:
    """Rows of the policy ``counterfactual``, pair by pair, levels in the cohort's order."""
    levels, column = cohort.attributes[attribute].levels, f"attr.{attribute}"
    names = [*(f"label.{name}" for name in cohort.labels), *(f"attr.{name}" for name in cohort.attributes)]
    fixed = [name for name in names if name != column]
    bases = _matching_rows(training, fixed, size // len(levels))
    bases = _complete_rows(cohort, bases, training, seed, guidance, steps)
    rows = bases.loc[np.repeat(np.arange(len(bases)), len(levels))]
    rows = rows.assign(pair=rows.index, changed=attribute).reset_index(drop=True)
    rows[column] = np.array(levels * len(bases), dtype=object)
    return _with_prompts(cohort, rows, training, seed)[[*names, "prompt", "seed", "guidance", "steps", *PAIR]]


def _cell_rows(cohort: Cohort, training: pd.DataFrame, policy: str, size: int) -> pd.DataFrame:
    """Rows of the policies ``balanced``, ``uniform`` and ``complement``: conditions, cell by cell.

    Rounding is carried over from cell to cell, so that rare diagnoses are right in the sum even where cells are small.
    """
    labels = [f"label.{name}" for name in cohort.labels]
    attributes = {f"attr.{name}": spec.levels for name, spec in cohort.attributes.items()}
    cells = pd.DataFrame(index=range(1))
    if attributes:
        cells = pd.MultiIndex.from_product(list(attributes.values()), names=list(attributes)).to_frame(index=False)
    counts = allot(np.ones(len(cells)), size)
    if policy == "complement":
        present = np.round(_shares(training, cells) * len(training))
        lacking = present.max() - present
        counts = np.zeros(len(cells), dtype=np.int64)
        if lacking.sum():
            counts = allot(lacking, int(min(size, lacking.sum())))
    diagnoses = training[labels].drop_duplicates().reset_index(drop=True) if labels else pd.DataFrame(index=range(1))
    weights = _shares(training, diagnoses)
    if policy == "uniform":
        weights = np.array([None not in key for key in cell_keys(diagnoses)], dtype=np.float64)
        if not weights.any():
            problem = Problem("no training image has all of its diagnoses known", "use the policy balanced or match")
            raise InputError("No plan can be made.", [problem])
        weights = weights / weights.sum()
    parts, allotted, total = [], np.zeros(len(diagnoses), dtype=np.int64), 0
    for (_, cell), count in zip(cells.iterrows(), counts, strict=True):
        total += int(count)
        due = np.maximum(weights * total - allotted, 0)
        share = allot(due if due.sum() else weights, int(count))
        allotted += share
        rows = diagnoses.iloc[np.repeat(np.arange(len(diagnoses)), share)]
        parts.append(rows.assign(**{str(name): value for name, value in cell.items()}))
    return pd.concat(parts) if parts else diagnoses.iloc[:0]


def _complete_rows(
    cohort: Cohort, rows: pd.DataFrame, source: pd.DataFrame, seed: int, guidance: float, steps: int
) -> pd.DataFrame:
    """Rows of conditions in random order, with prompt, seed, guidance and steps; ``source``: images with captions."""
    rows = rows.reset_index(drop=True)
    order = numpy_generator(seed, "plan-order").permutation(len(rows))
    rows = rows.iloc[order].reset_index(drop=True)
    rows = _with_prompts(cohort, rows, source, seed)
    rows["seed"] = [derive_seed(seed, "image", index) for index in range(len(rows))]
    return rows.assign(guidance=float(guidance), steps=int(steps))


def _conditions(rows: pd.DataFrame) -> pd.DataFrame:
    """Labels and attributes of the rows."""
    return rows[[name for name in rows.columns if str(name).startswith(("label.", "attr."))]]


def _with_prompts(cohort: Cohort, rows: pd.DataFrame, source: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Rows with a prompt each: by the cohort's template, or the caption of an image of ``source``."""
    conditions = _conditions(rows)
    rows = rows.copy()
    if prompt_columns(cohort.spec.prompt):
        rows["prompt"] = pd.Series(deal_captions(source, conditions, seed), index=rows.index, dtype=object)
    else:
        rows["prompt"] = [cohort.prompt(dict(zip(conditions.columns, cell, strict=True)))
                          for cell in cell_keys(conditions)]  # fmt: skip
    return rows


def _check(policy: str, size: int, guidance: float, steps: int, training: pd.DataFrame) -> None:
    """Raise InputError for an invalid option or an empty training split."""
    problems = []
    if policy not in get_args(Policy):
        problems.append(Problem(f"policy '{policy}' is unknown", f"use one of {', '.join(get_args(Policy))}"))
    if size < 1:
        problems.append(Problem(f"size {size}", "ask for at least one image"))
    if not guidance >= 0:
        problems.append(Problem(f"guidance {guidance}", "use 0 or more; 1 is plain conditional sampling"))
    if steps < 1:
        problems.append(Problem(f"steps {steps}", "use at least 1"))
    if len(training) == 0:
        problems.append(Problem("the training split is empty", "mend the split in cohort.yaml"))
    if problems:
        raise InputError("No plan can be made.", problems)


def _check_attribute(cohort: Cohort, policy: str, attribute: str | None, size: int, *, captions: bool) -> None:
    """Raise InputError for an invalid ``attribute`` of a counterfactual plan, or one with another policy."""
    problems = []
    if policy != "counterfactual":
        problems = (
            []
            if attribute is None
            else [
                Problem(
                    f"attribute '{attribute}' with the policy {policy}", "it is for the policy counterfactual alone"
                )
            ]
        )
    elif attribute not in cohort.attributes:
        message = "no attribute" if attribute is None else f"attribute '{attribute}' is unknown"
        available = ", ".join(cohort.attributes) or "none"
        problems.append(Problem(message, f"name the one to change; the cohort has {available}"))
    else:
        count = len(cohort.attributes[attribute].levels)
        if count < 2:
            problems.append(Problem(f"attribute '{attribute}' has one level", "name one with two or more"))
        elif size < count:
            problems.append(Problem(f"size {size}", f"a pair by '{attribute}' has {count} images: ask for as many"))
    if problems:
        raise InputError("No plan can be made.", problems)
    for column in prompt_columns(cohort.spec.prompt) if captions and policy == "counterfactual" else []:
        mend = "write 'prompt' in cohort.yaml as a template with the attribute in braces"
        problem = Problem(f"prompts are the column '{column}', in which no attribute can be changed", mend)
        raise InputError("No counterfactual plan can be made.", [problem])


def allot(weights: NDArray[np.float64], total: int) -> NDArray[np.int64]:
    """Integers that sum to ``total``, proportional to the weights by the method of largest remainders.

    >>> allot(np.array([0.5, 0.3, 0.2]), 4).tolist()
    [2, 1, 1]
    """
    exact = np.asarray(weights, dtype=np.float64) / np.sum(weights) * total
    counts = np.floor(exact + 1e-9).astype(np.int64)
    remainders = np.argsort(-(exact - counts), kind="stable")
    counts[remainders[: total - counts.sum()]] += 1
    return counts


def _shares(training: pd.DataFrame, kinds: pd.DataFrame) -> NDArray[np.float64]:
    """Share of training rows of each kind (a row of ``kinds``)."""
    counts = Counter(cell_keys(training[list(kinds.columns)]))
    shares: NDArray[np.float64] = np.array([counts[key] for key in cell_keys(kinds)], dtype=np.float64)
    return shares / len(training)


Cell = tuple[str | None, ...]


def cell_keys(frame: pd.DataFrame) -> list[Cell]:
    """Rows as tuples in which every missing value is None."""
    if len(frame.columns) == 0:  # itertuples yields no rows
        return [()] * len(frame)
    return [tuple(None if pd.isna(value) else str(value) for value in row) for row in frame.itertuples(index=False)]


def deal_captions(source: pd.DataFrame, conditions: pd.DataFrame, seed: int) -> list[str | None]:
    """A caption for each row [N] of ``conditions``; None where no image with these conditions has one.

    ``conditions``: labels and attributes; ``source``: the same columns and ``prompt``. A caption is of an image with
    the same labels and attributes, unknown ones included. Those of one cell are used cyclically in an order that
    depends on (seed, cell), so their numbers of uses differ by at most one.
    """
    texts: dict[Cell, list[str]] = defaultdict(list)
    for cell, value in zip(cell_keys(source[list(conditions.columns)]), source["prompt"], strict=True):
        text = optional_text(value)
        if text is not None:
            texts[cell].append(text)
    captions: dict[Cell, list[str]] = {}
    for cell, unordered in texts.items():
        ordered = sorted(unordered)  # independent of the order of the source
        rng = numpy_generator(seed, f"captions/{json.dumps(cell, ensure_ascii=False)}")
        captions[cell] = [ordered[index] for index in rng.permutation(len(ordered))]
    counts: dict[Cell, int] = defaultdict(int)
    prompts: list[str | None] = []
    for cell in cell_keys(conditions):
        choices = captions.get(cell, [])
        prompts.append(choices[counts[cell] % len(choices)] if choices else None)
        counts[cell] += 1
    return prompts


def check_captions(conditions: pd.DataFrame, prompts: Sequence[str | None]) -> None:
    """Raise InputError that names each cell of ``conditions`` without a caption."""
    lacking = list(dict.fromkeys(
        cell for cell, prompt in zip(cell_keys(conditions), prompts, strict=True) if prompt is None
    ))  # fmt: skip
    mend = "use the policy match, or prompts by a template, which can be written for any cell"
    problems = []
    for cell in lacking:
        levels = ", ".join(
            f"{column} unknown" if value is None else f"{column} = {value or 'no finding'}"
            for column, value in zip(conditions.columns, cell, strict=True)
        )
        problems.append(Problem(f"no training image with {levels} has a caption", mend))
    if problems:
        raise InputError("No plan can be made: prompts are a column of the table.", problems)

"""What is sampled: a table with one row for each image to make."""

from __future__ import annotations

from collections import Counter
from typing import Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from equigen.cohort import Cohort, prompt_columns
from equigen.errors import InputError, Problem
from equigen.seeds import derive_seed, numpy_generator
from equigen.synthesis.captions import cell_keys, check_captions, deal_captions

Policy = Literal["match", "balanced", "uniform", "complement", "counterfactual"]
PAIR = ["pair", "changed"]
"""Columns of a counterfactual plan: number of the pair, and the attribute that is changed in it."""


def plan(
    cohort: Cohort,
    policy: Policy = "match",
    size: int = 1000,
    seed: int = 0,
    guidance: float = 2.0,
    steps: int = 20,
    attribute: str | None = None,
    *,
    solver: str | None = None,
    negative: str | None = None,
    guidance_low: float | None = None,
    guidance_high: float | None = None,
    captions: bool = True,
) -> pd.DataFrame:
    """One row for each image: ``label.*``, ``attr.*``, ``prompt``, ``seed``, ``guidance``, ``steps``.

    ``match``: the joint distribution of the training split, unknown values included. ``balanced``: every cell of
    attribute levels equally often, diagnoses as frequent in each cell as in the whole training split (Ktena et al.
    2024). ``uniform``: every known diagnosis in every cell equally often. ``complement``: what each attribute cell
    lacks to the size of the largest, diagnoses as in the whole split; ``size`` is then the most that is made.
    ``counterfactual``: pairs (of two images or more) that differ in ``attribute`` alone. All else is drawn as by
    ``match``, and each draw appears once for every level of the attribute, with the same seed, so the same noise, and
    the same guidance; the columns ``pair`` and ``changed`` say which belong together. ``size`` counts images, and only
    whole pairs are made. Counts are exact up to rounding, not drawn; rows are shuffled (pairs whole).

    ``guidance`` is one scale for all rows; ``apply_guidance`` gives each group its own. ``solver``, ``negative``,
    ``guidance_low`` and ``guidance_high`` (see ``equigen.diffusion.Request``) are columns where they are given. Where
    the cohort's prompts are a column of its table, each row takes the caption of a training image with the same labels
    and attributes; without ``captions`` it has none, for generators that read none.

    Raises InputError for an unknown policy, a size or steps below 1, negative guidance, an empty training split,
    ``uniform`` where no diagnosis is known, an ``attribute`` that is missing, unknown, of one level, or given to
    another policy, a cell without a caption, or captions for counterfactual pairs, since none can be changed in part.
    """
    training = cohort.split("train").frame
    _check(policy, size, guidance, steps, training)
    _check_attribute(cohort, policy, attribute, size)
    if captions and policy == "counterfactual":
        _check_wording(cohort)
    rows = _planned(cohort, training, policy, size, seed, guidance, steps, attribute)
    if captions and prompt_columns(cohort.spec.prompt):
        check_captions(_conditions(rows), list(rows["prompt"]))
    elif prompt_columns(cohort.spec.prompt):
        rows["prompt"] = None
    given = {"solver": solver, "negative": negative, "guidance_low": guidance_low, "guidance_high": guidance_high}
    return rows.assign(**{name: value for name, value in given.items() if value is not None})


def _planned(
    cohort: Cohort, training: pd.DataFrame, policy: Policy, size: int, seed: int, guidance: float, steps: int,
    attribute: str | None,
) -> pd.DataFrame:
    """The rows of a policy."""
    labels = [f"label.{name}" for name in cohort.labels]
    attributes = [f"attr.{name}" for name in cohort.attributes]
    diagnoses = (
        training[labels].drop_duplicates().reset_index(drop=True) if labels else pd.DataFrame(index=range(1))
    )
    prevalence = _shares(training, diagnoses)
    if policy == "counterfactual":
        return _pairs(cohort, training, str(attribute), size, seed, guidance, steps)
    if policy == "match":
        rows = _matching(training, labels + attributes, size)
    else:
        cells = (
            pd.MultiIndex.from_product(
                [spec.levels for spec in cohort.attributes.values()], names=attributes
            ).to_frame(index=False)
            if attributes
            else pd.DataFrame(index=range(1))
        )
        rows = _fill(
            cells,
            _cell_weights(policy, cells, training, size),
            diagnoses,
            prevalence if policy != "uniform" else _known(diagnoses),
        )[labels + attributes]
    return _finished(cohort, rows, training, seed, guidance, steps)


def match_plan(cohort: Cohort, size: int, seed: int = 0, guidance: float = 2.0, steps: int = 20) -> pd.DataFrame:
    """The policy ``match`` over all images of a cohort, whatever their split: of one group or of held-out images, say.

    Columns and errors as for ``plan``; captions are those of these images, and there is none where none of a cell's has
    one.
    """
    _check("match", size, guidance, steps, cohort.frame)
    columns = [*(f"label.{name}" for name in cohort.labels), *(f"attr.{name}" for name in cohort.attributes)]
    return _finished(cohort, _matching(cohort.frame, columns, size), cohort.frame, seed, guidance, steps)


def _matching(frame: pd.DataFrame, columns: list[str], size: int) -> pd.DataFrame:
    """Rows of conditions whose joint distribution is that of the frame, up to rounding."""
    joint = frame[columns].drop_duplicates().reset_index(drop=True)
    return joint.iloc[np.repeat(np.arange(len(joint)), allot(_shares(frame, joint), size))]


def _pairs(
    cohort: Cohort, training: pd.DataFrame, attribute: str, size: int, seed: int, guidance: float, steps: int
) -> pd.DataFrame:
    """Rows of the policy ``counterfactual``, pair by pair, levels in the cohort's order."""
    levels, column = cohort.attributes[attribute].levels, f"attr.{attribute}"
    names = [*(f"label.{name}" for name in cohort.labels), *(f"attr.{name}" for name in cohort.attributes)]
    kept = [name for name in names if name != column]
    bases = _finished(cohort, _matching(training, kept, size // len(levels)), training, seed, guidance, steps)
    rows = bases.loc[np.repeat(np.arange(len(bases)), len(levels))]
    rows = rows.assign(pair=rows.index, changed=attribute).reset_index(drop=True)
    rows[column] = np.array(levels * len(bases), dtype=object)
    return _prompted(cohort, rows, training, seed)[[*names, "prompt", "seed", "guidance", "steps", *PAIR]]


def _finished(
    cohort: Cohort, rows: pd.DataFrame, source: pd.DataFrame, seed: int, guidance: float, steps: int
) -> pd.DataFrame:
    """Rows of conditions in random order, with prompt, seed, guidance and steps; ``source``: images with captions."""
    rows = rows.reset_index(drop=True)
    order = numpy_generator(seed, "plan-order").permutation(len(rows))
    rows = rows.iloc[order].reset_index(drop=True)
    rows = _prompted(cohort, rows, source, seed)
    rows["seed"] = [derive_seed(seed, "image", index) for index in range(len(rows))]
    return rows.assign(guidance=float(guidance), steps=int(steps))


def _conditions(rows: pd.DataFrame) -> pd.DataFrame:
    """Their labels and attributes."""
    return rows[[name for name in rows.columns if str(name).startswith(("label.", "attr."))]]


def _prompted(cohort: Cohort, rows: pd.DataFrame, source: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Rows with the prompt of each: written by the template, or the caption of an image of ``source``."""
    asked = _conditions(rows)
    rows = rows.copy()
    if prompt_columns(cohort.spec.prompt):
        rows["prompt"] = pd.Series(deal_captions(source, asked, seed), index=rows.index, dtype=object)
    else:
        rows["prompt"] = [cohort.prompt(dict(zip(asked.columns, values, strict=True))) for values in cell_keys(asked)]
    return rows


def _check(policy: str, size: int, guidance: float, steps: int, training: pd.DataFrame) -> None:
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


def _check_attribute(cohort: Cohort, policy: str, attribute: str | None, size: int) -> None:
    """The attribute that a counterfactual plan changes, and no other plan has."""
    known, problems = ", ".join(cohort.attributes) or "none", []
    if policy != "counterfactual":
        problems = [] if attribute is None else [
            Problem(f"attribute '{attribute}' with the policy {policy}", "it is for the policy counterfactual alone")]
    elif attribute not in cohort.attributes:
        found = "no attribute" if attribute is None else f"attribute '{attribute}' is unknown"
        problems.append(Problem(found, f"name the one to change; the cohort has {known}"))
    else:
        count = len(cohort.attributes[attribute].levels)
        if count < 2:
            problems.append(Problem(f"attribute '{attribute}' has one level", "name one with two or more"))
        elif size < count:
            problems.append(Problem(f"size {size}", f"a pair by '{attribute}' has {count} images: ask for as many"))
    if problems:
        raise InputError("No plan can be made.", problems)


def _check_wording(cohort: Cohort) -> None:
    """Captions are whole: there is none of the same image with another level of one attribute."""
    for column in prompt_columns(cohort.spec.prompt):
        mend = "write 'prompt' in cohort.yaml as a template with the attribute in braces"
        problem = Problem(f"prompts are the column '{column}', in which no attribute can be changed", mend)
        raise InputError("No counterfactual plan can be made.", [problem])


def allot(weights: NDArray[np.float64], total: int) -> NDArray[np.int64]:
    """Whole numbers that sum to ``total`` and are as near to the weights as can be (largest remainders).

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
    found: NDArray[np.float64] = np.array([counts[key] for key in cell_keys(kinds)], dtype=np.float64)
    return found / len(training)


def _known(diagnoses: pd.DataFrame) -> NDArray[np.float64]:
    """Equal weight for each diagnosis that is known; none for those with an unknown label."""
    known: NDArray[np.float64] = np.array([None not in key for key in cell_keys(diagnoses)], dtype=np.float64)
    if not known.any():
        problem = Problem("no training image has all of its diagnoses known", "use the policy balanced or match")
        raise InputError("No plan can be made.", [problem])
    weights: NDArray[np.float64] = known / known.sum()
    return weights


def _cell_weights(policy: str, cells: pd.DataFrame, training: pd.DataFrame, size: int) -> NDArray[np.int64]:
    """How many images each cell of attribute levels gets."""
    if policy != "complement":
        return allot(np.ones(len(cells)), size)
    counts = np.round(_shares(training, cells) * len(training))
    lacking = counts.max() - counts
    return (
        allot(lacking, int(min(size, lacking.sum())))
        if lacking.sum()
        else np.zeros(len(cells), dtype=np.int64)
    )


def _fill(
    cells: pd.DataFrame, counts: NDArray[np.int64], diagnoses: pd.DataFrame, weights: NDArray[np.float64]
) -> pd.DataFrame:
    """Every cell with its count of images, diagnoses in each cell by ``weights``.

    Rounding is carried over from cell to cell, so rare diagnoses are right in the sum even where cells are small.
    """
    parts, given, asked = [], np.zeros(len(diagnoses), dtype=np.int64), 0
    for (_, cell), count in zip(cells.iterrows(), counts, strict=True):
        asked += int(count)
        due = np.maximum(weights * asked - given, 0)
        share = allot(due if due.sum() else weights, int(count))
        given += share
        rows = diagnoses.iloc[np.repeat(np.arange(len(diagnoses)), share)]
        parts.append(rows.assign(**{str(name): value for name, value in cell.items()}))
    return pd.concat(parts) if parts else diagnoses.iloc[:0]

"""Counterfactual pairs of a synthetic set, read from its table or its plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from equigen.cohort import accepted_mask, add_paths, check_images, load_images, read_generated
from equigen.errors import InputError, Problem
from equigen.synthesis.generation import SyntheticSet
from equigen.synthesis.plans import PAIR


@dataclass(frozen=True)
class Pairs:
    """Pairs of one set: ``frame`` has P L rows, pair by pair, with the levels in the same order; ``path`` is a file.

    ``warnings``: other differences within pairs, and pairs that were left out.
    """

    folder: Path
    attribute: str
    levels: list[str]
    frame: pd.DataFrame
    warnings: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.frame) // len(self.levels)

    def images(self, pairs: Sequence[int], size: int) -> NDArray[np.uint8]:
        """Images [K, L, size, size, 3] uint8 of some pairs (positions)."""
        count = len(self.levels)
        rows = [pair * count + level for pair in pairs for level in range(count)]
        loaded = load_images([self.frame["path"].iloc[row] for row in rows], size)
        return loaded.reshape(len(pairs), count, size, size, 3)


def read_pairs(synthetic: SyntheticSet | str | PathLike[str], plan: pd.DataFrame | None = None) -> Pairs:
    """The pairs of a synthetic set of a plan with the policy ``counterfactual``.

    Args:
        synthetic: the set. ``pair`` and ``changed`` are columns of its table, or of the plan.
        plan: the plan of the set, row by row.

    Raises:
        InputError: there is no set, it is of another plan, several attributes are changed, or no pair is complete.

    """
    folder = Path(synthetic)
    frame = read_generated(folder, "There is no synthetic set that can be used.")
    if not set(PAIR) <= set(frame.columns):
        title, location = "This set's pairs are not known.", str(folder)
        if plan is None or not set(PAIR) <= set(plan.columns):
            mend = "give the plan that it was made from (policy 'counterfactual')"
            raise InputError(title, [Problem("has no columns pair and changed", mend, file=location)])
        seeds = frame["first_seed"] if "first_seed" in frame else frame["seed"]
        if list(plan["seed"]) != list(seeds):
            raise InputError(title, [Problem("was made from another plan", "give its own plan", file=location)])
        frame = frame.assign(**{name: plan[name].to_numpy() for name in PAIR})
    frame = add_paths(frame, folder)
    check_images(frame, folder, "These pairs cannot be compared.")
    changed = sorted(set(frame["changed"].astype(str)))
    if len(changed) != 1 or f"attr.{changed[0]}" not in frame:
        problem = Problem(f"changed are: {', '.join(changed)}", "give a set in which one attribute is changed")
        raise InputError("These are no counterfactual pairs of one attribute.", [problem])
    return _complete_pairs(folder, changed[0], frame)


def _complete_pairs(folder: Path, attribute: str, frame: pd.DataFrame) -> Pairs:
    """The pairs that have every level once and no refused image, with warnings on other differences."""
    column = f"attr.{attribute}"
    levels = [str(level) for level in frame[column].dropna().drop_duplicates()]
    usable = frame[column].notna() & accepted_mask(frame)[0]
    counts = frame[usable].groupby("pair")[column].agg(["size", "nunique"])
    complete = counts.index[(counts["size"] == len(levels)) & (counts["nunique"] == len(levels))]
    incomplete = frame["pair"].nunique() - len(complete)
    if not len(complete) or len(levels) < 2:
        problem = Problem("no pair has every level once", "generate the whole plan", file=str(folder))
        raise InputError("There are no counterfactual pairs.", [problem])
    order = frame[column].map({level: index for index, level in enumerate(levels)})
    rows = frame.assign(_order=order)[frame["pair"].isin(complete)]
    rows = rows.sort_values(["pair", "_order"], kind="stable").drop(columns="_order").reset_index(drop=True)
    warnings = []
    if incomplete:
        warnings = [f"{incomplete} pairs are left out: a level is missing or was refused by screening."]
    conditions = [str(name) for name in rows.columns
                  if str(name).startswith(("label.", "attr.")) and name != column]  # fmt: skip
    names = [*conditions, "seed", "guidance", "steps"]
    varied = [(name, int((rows.groupby("pair")[name].nunique(dropna=False) > 1).sum())) for name in names]
    warnings += [
        f"{name} differs within {count} pairs: more than the attribute is changed there."
        for name, count in varied
        if count
    ]
    if rows["prompt"].notna().any():
        same = int((rows.groupby("pair")["prompt"].nunique(dropna=False) == 1).sum())
        if same:
            warnings.append(f"The prompt is the same for all levels of {same} pairs: a generator that reads prompts "
                            "alone cannot tell them apart.")  # fmt: skip
    return Pairs(folder, attribute, levels, rows, warnings)

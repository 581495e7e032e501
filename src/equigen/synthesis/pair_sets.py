"""The counterfactual pairs of a synthetic set, found in its table or its plan and checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from equigen.cohort import accepted_flags, add_paths, check_images, load_images, read_generated
from equigen.errors import InputError, Problem
from equigen.synthesis.generation import SyntheticSet
from equigen.synthesis.plans import PAIR


@dataclass(frozen=True)
class Pairs:
    """Pairs of one set: ``frame`` has P L rows, pair by pair, in each the levels in one order; ``path`` is a file.

    ``warnings`` say what else differs within pairs, and what was left out.
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
        """[K, L, size, size, 3] of these pairs (positions)."""
        count = len(self.levels)
        rows = [pair * count + level for pair in pairs for level in range(count)]
        loaded = load_images([self.frame["path"].iloc[row] for row in rows], size)
        return loaded.reshape(len(pairs), count, size, size, 3)


def read_pairs(synthetic: SyntheticSet | str | PathLike[str], plan: pd.DataFrame | None = None) -> Pairs:
    """The pairs of a synthetic set that was made by a plan with the policy ``counterfactual``.

    Args:
        synthetic: the set. ``pair`` and ``changed`` are columns of its table, or of the plan.
        plan: the plan that it was made from, row by row.

    Raises:
        InputError: there is no set, it and the plan differ, several attributes are changed, or no pair is whole.

    """
    folder = Path(synthetic)
    frame = read_generated(folder, "There is no synthetic set that can be used.")
    frame = add_paths(_with_pairs(frame, plan, folder), folder)
    check_images(frame, folder, "These pairs cannot be compared.")
    changed = sorted(set(frame["changed"].astype(str)))
    if len(changed) != 1 or f"attr.{changed[0]}" not in frame:
        problem = Problem(f"changed are: {', '.join(changed)}", "give a set in which one attribute is changed")
        raise InputError("These are no counterfactual pairs of one attribute.", [problem])
    return _whole(folder, changed[0], frame)


def _with_pairs(frame: pd.DataFrame, plan: pd.DataFrame | None, folder: Path) -> pd.DataFrame:
    """The table with the columns of the pairs, its own or the plan's."""
    if set(PAIR) <= set(frame.columns):
        return frame
    title, place = "This set's pairs are not known.", str(folder)
    if plan is None or not set(PAIR) <= set(plan.columns):
        mend = "give the plan that it was made from (policy 'counterfactual')"
        raise InputError(title, [Problem("has no columns pair and changed", mend, file=place)])
    seeds = frame["first_seed"] if "first_seed" in frame else frame["seed"]
    if list(plan["seed"]) != list(seeds):
        raise InputError(title, [Problem("was made from another plan", "give its own plan", file=place)])
    return frame.assign(**{name: plan[name].to_numpy() for name in PAIR})


def _whole(folder: Path, attribute: str, frame: pd.DataFrame) -> Pairs:
    """Pairs that have every level once, none of them refused."""
    column = f"attr.{attribute}"
    levels = [str(level) for level in frame[column].dropna().drop_duplicates()]
    usable = frame[column].notna() & accepted_flags(frame)[0]
    counts = frame[usable].groupby("pair")[column].agg(["size", "nunique"])
    kept = counts.index[(counts["size"] == len(levels)) & (counts["nunique"] == len(levels))]
    lost = frame["pair"].nunique() - len(kept)
    if not len(kept) or len(levels) < 2:
        problem = Problem("no pair has every level once", "generate the whole plan", file=str(folder))
        raise InputError("There are no counterfactual pairs.", [problem])
    order = frame[column].map({level: place for place, level in enumerate(levels)})
    own = frame.assign(_place=order)[frame["pair"].isin(kept)]
    own = own.sort_values(["pair", "_place"], kind="stable").drop(columns="_place").reset_index(drop=True)
    left_out = [f"{lost} pairs are left out: a level is missing or was refused by screening."] if lost else []
    return Pairs(folder, attribute, levels, own, [*left_out, *_differences(own, column)])


def _differences(frame: pd.DataFrame, column: str) -> list[str]:
    """What else differs within pairs, and whether the prompt tells the levels apart, in words."""
    others = [str(name) for name in frame.columns if str(name).startswith(("label.", "attr.")) and name != column]
    names = [*others, "seed", "guidance", "steps"]
    varied = [(name, int((frame.groupby("pair")[name].nunique(dropna=False) > 1).sum())) for name in names]
    said = [f"{name} differs within {count} pairs: more than the attribute is changed there."
            for name, count in varied if count]
    if frame["prompt"].notna().any():
        same = int((frame.groupby("pair")["prompt"].nunique(dropna=False) == 1).sum())
        said += [f"The prompt is the same for all levels of {same} pairs: a generator that reads prompts alone cannot "
                 "tell them apart."] if same else []  # fmt: skip
    return said

"""Do the audit's figures mean what they say? Levels, power and coverage over simulated cohorts of known truth.

No images: scores are drawn, so that every group's true AUC, sensitivity and specificity are known. Groups are equal in
all that the classifier decides, and unequal in what it does not: prevalence, size, images a patient.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from equigen.fairness import audit, measure
from equigen.fairness.metrics import FOLLOWS_PREVALENCE

APART, PREVALENCE, THRESHOLD = 1.2, 0.3, 0.3
REPLICATES = 200
GAPS = ("auc", "balanced_accuracy", "sensitivity", "specificity", "deodds", "pr_auc", "accuracy", "brier", "ece", "dpd")
COVERED = ("auc", "balanced_accuracy", "sensitivity", "specificity", "accuracy", "pr_auc", "brier")


@dataclass(frozen=True)
class World:
    """Patients, prevalence, fewest and most images a patient, and distance of the classes' scores in each group.

    A patient's images share the truth and half of the variance of the score. ``own``: scores are calibrated to each
    group's own prevalence (then calibration errors are equal, all 0), not to 0.3.
    """

    patients: Sequence[int]
    prevalence: Sequence[float]
    images: Sequence[tuple[int, int]]
    apart: Sequence[float]
    own: bool = False

    def cohort(self, seed: int) -> pd.DataFrame:
        """Predictions of one cohort."""
        rng = np.random.default_rng([seed, 11])
        group = np.repeat(np.arange(len(self.patients)), self.patients)
        low, high = np.array(self.images)[group].T
        patient = np.repeat(np.arange(len(group)), rng.integers(low, high + 1))
        truth = (rng.random(len(group)) < np.array(self.prevalence)[group])[patient].astype(int)
        noise = (rng.standard_normal(len(group))[patient] + rng.standard_normal(len(patient))) / np.sqrt(2)
        value = APART * (np.array(self.apart)[group[patient]] * truth + noise) - APART**2 / 2
        share = np.array(self.prevalence)[group[patient]] if self.own else np.full(len(patient), PREVALENCE)
        names = np.char.add("g", group[patient].astype(str))
        return pd.DataFrame(
            {
                "image": np.arange(len(patient)),
                "truth": truth,
                "probability": expit(value + logit(share)),
                "patient": np.char.add("p", patient.astype(str)),
                "attr.group": names,
            }
        )


EQUAL = {
    "two equal groups": World((300, 300), (0.3, 0.3), ((1, 5), (1, 5)), (1.2, 1.2)),
    "prevalence 40 % in 450, 10 % in 150": World((450, 150), (0.4, 0.1), ((1, 5), (1, 5)), (1.2, 1.2)),
    "the same, calibrated in each": World((450, 150), (0.4, 0.1), ((1, 5), (1, 5)), (1.2, 1.2), own=True),
    "5 images in 500, 1 in 100": World((500, 100), (0.3, 0.3), ((5, 5), (1, 1)), (1.2, 1.2)),
    "1 image in 500, 5 in 100": World((500, 100), (0.3, 0.3), ((1, 1), (5, 5)), (1.2, 1.2)),
    "four groups of 60 to 300": World((60, 90, 150, 300), (0.3,) * 4, ((1, 5),) * 4, (1.2,) * 4),
}
UNEQUAL = {"two equal groups, AUC 0.86 and 0.76": World((300, 300), (0.3, 0.3), ((1, 5), (1, 5)), (1.5, 1.0))}


def rejected(world: World, count: int) -> dict[str, Any]:
    """Share of cohorts in which p of the gap is at most 0.05, for each metric, and how many cohorts have a p."""
    tables = [
        audit(
            world.cohort(seed),
            ["group"],
            site=None,
            threshold=THRESHOLD,
            replicates=REPLICATES,
            permutations=REPLICATES,
            baseline=None,
            seed=seed,
        ).table
        for seed in range(count)
    ]
    table = pd.concat(tables)
    gaps = table[table["group"] == "gap"].dropna(subset="p_value")
    skipped = (FOLLOWS_PREVALENCE - ({"ece"} if world.own else set())) if len(set(world.prevalence)) > 1 else set()
    wanted = [metric for metric in GAPS if metric not in skipped and (metric == "ece" or not world.own)]
    found = {metric: gaps.loc[gaps["metric"] == metric, "p_value"] for metric in wanted}
    return {metric: {"rejected": float((p <= 0.05).mean()), "cohorts": len(p)} for metric, p in found.items()}


def coverage(patients: int, count: int, apart: float, images: tuple[int, int]) -> dict[str, Any]:
    """Share of 95 % intervals of one set of patients that hold the true value, and their mean width."""
    world = World((patients,), (0.4,), (images,), (apart,))
    large = World((60_000,), (0.4,), (images,), (apart,)).cohort(1)
    true = measure(large["truth"].to_numpy(), large["probability"].to_numpy(), threshold=THRESHOLD)
    tables = [
        audit(
            world.cohort(seed),
            [],
            site=None,
            threshold=THRESHOLD,
            replicates=REPLICATES,
            permutations=0,
            baseline=None,
            seed=seed,
        ).table
        for seed in range(count)
    ]
    table = pd.concat(tables).dropna(subset="ci_low")
    result = {}
    for metric in COVERED:
        rows = table[table["metric"] == metric]
        inside = (rows["ci_low"] <= true[metric][0]) & (rows["ci_high"] >= true[metric][0])
        result[metric] = {
            "coverage": float(inside.mean()),
            "mean width": float((rows.ci_high - rows.ci_low).mean()),
            "cohorts": len(rows),
            "true value": float(true[metric][0]),
        }
    return result


def measure_all(count: int = 300) -> dict[str, Any]:
    """All simulations; about five minutes on one free thread."""
    started = time.perf_counter()
    result: dict[str, Any] = {"level": {}, "power": {}, "coverage": {}}
    for kind, worlds in (("level", EQUAL), ("power", UNEQUAL)):
        for name, world in worlds.items():
            result[kind][name] = rejected(world, count)
            print(name, {key: value["rejected"] for key, value in result[kind][name].items()}, flush=True)
    for patients in (30, 45, 60):
        for apart, images in ((1.2, (1, 5)), (2.5, (1, 3))):
            found = coverage(patients, count, apart, images)
            result["coverage"][f"{patients} patients, AUC {found['auc']['true value']:.2f}"] = found
            print(patients, apart, {key: value["coverage"] for key, value in found.items()}, flush=True)
    return {
        "target": "rejected at most 0.08 where groups are equal, coverage at least 0.93",
        "monte carlo error": {"level": float(np.sqrt(0.05 * 0.95 / count))},
        **result,
        "seconds": time.perf_counter() - started,
    }

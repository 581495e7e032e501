"""Do the figures mean what they say? P-values under the null and coverage of intervals over simulated cohorts.

No images: features are drawn from Gaussians, so that true values are known. Patients have one to three images
that resemble each other. The tests in tests/quality/test_validity.py use the same cohorts, fewer of them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit, softmax
from scipy.stats import binomtest, kstest

from equigen.progress import progress_bar
from equigen.quality.cells import ResamplingSettings, make_cells
from equigen.quality.estimates import measure_mean
from equigen.quality.evaluation import Evaluation, measure_sets
from equigen.quality.features import Features
from equigen.quality.judge.phantom_oracle import measure_semantic
from equigen.quality.judge.questions import JudgePredictions, SetPredictions, Target
from equigen.quality.measurement import EncodedImages, EvaluationInputs
from equigen.quality.metric_inputs import MeasurementPlan, MetricResult
from equigen.quality.metrics.frechet import frechet_distance, frechet_infinity
from equigen.quality.metrics.memorisation import search_training
from equigen.quality.resamples import make_draws
from equigen.quality.rows import quality_table

Array = NDArray[np.float64]
LEVELS = {"group": ["a", "b", "c"]}
APART = 1.2  # between the scores of the two classes of a label, in standard deviations
TRUE_AUC = NormalDist().cdf(APART / np.sqrt(2))
SETTINGS = ResamplingSettings(matched_n=14, repeats=3, replicates=99, min_patients=20)


@dataclass(frozen=True)
class World:
    """How images are distributed and how many there are; all features are independent Gaussians.

    ``real`` and ``generated``: patients in each group; ``images``: fewest and most images of a real patient,
    ``made`` of a generated one. ``alike``: share of a feature's variance that a patient's images have in common.
    ``shift`` and ``spread``: mean and sd of generated features (real ones: 0 and 1), plus ``apart`` times the
    number of the group on both sides: groups that differ under a perfect generator.
    """

    real: Sequence[int] = (30, 60)
    generated: Sequence[int] = (30, 60)
    images: tuple[int, int] = (1, 3)
    made: tuple[int, int] = (1, 1)
    alike: float = 0.5
    dimension: int = 4
    shift: float = 0.0
    spread: float = 1.0
    apart: float = 0.0

    def side(self, name: str, seed: int) -> EncodedImages:
        """One side of one cohort: "real", "train" (further patients like the real ones), or another name."""
        true = name in {"real", "train"}
        rng = np.random.default_rng([seed, *name.encode()])
        sizes, images = (self.real, self.images) if true else (self.generated, self.made)
        groups = np.repeat(np.arange(len(sizes)), sizes)
        patient = np.repeat(np.arange(len(groups)), rng.integers(images[0], images[1] + 1, len(groups)))
        own, common = (rng.standard_normal((count, self.dimension)) for count in (len(patient), len(groups)))
        values = np.sqrt(1 - self.alike) * own + np.sqrt(self.alike) * common[patient]
        values = values if true else values * self.spread + self.shift
        values += self.apart * groups[patient][:, None]
        classes = softmax(2 * values[:, :3], axis=1).astype(np.float32)
        names = np.array([f"{name} {number}" for number in patient])
        frame = pd.DataFrame({"attr.group": np.array(LEVELS["group"])[groups[patient]]})
        return EncodedImages(
            names, {"group": groups[patient].astype(np.int64)}, Features(values.astype(np.float32), classes), frame
        )


DIFFERENT = World(shift=0.5, spread=1.2)
WORLDS = {"one distribution": World(made=(1, 3)), "the generator differs": DIFFERENT}


def measure_cohort(
    world: World, seed: int, metrics: list[str], settings: ResamplingSettings, sets: Sequence[str] = ("generated",)
) -> Evaluation:
    """Quality and comparison tables of one simulated cohort."""
    inputs = EvaluationInputs(
        world.side("real", seed),
        {name: world.side(name, seed) for name in sets},
        metrics,
        streams={name: name for name in sets},
    )
    levels = {"group": LEVELS["group"][: len(world.real)]}
    return measure_sets(
        inputs, levels, replace(settings, seed=seed), encoder="simulated", intersections=False, show=False
    )


def cohorts(world: World, count: int, metrics: list[str], settings: ResamplingSettings) -> pd.DataFrame:
    """Quality tables of ``count`` cohorts one below the other."""
    return pd.concat([measure_cohort(world, seed, metrics, settings).quality for seed in range(count)])


def bare_table(world: World, seed: int, settings: ResamplingSettings, kind: str) -> pd.DataFrame:
    """Quality table of one cohort for a metric that needs more than features: "semantic_auc" or "near_copies"."""
    real, made = world.side("real", seed), world.side("generated", seed)
    settings = replace(settings, seed=seed)
    cells = make_cells(real, made, {"group": LEVELS["group"][: len(world.real)]}, settings)
    with progress_bar("", 1, show=False) as bar:
        plan = MeasurementPlan(cells, make_draws(real, made, cells, settings), settings.matched_n or 2, settings, bar)
        made_by = {"semantic_auc": _semantic, "near_copies": partial(_copies, world)}
        measured = made_by[kind](real, made, plan, seed)
    return quality_table([measured], cells, "generated", "simulated", plan.n)


def _semantic(real: EncodedImages, made: EncodedImages, plan: MeasurementPlan, seed: int) -> MetricResult:
    """Scores of a judge whose AUC is known: two normals whose means differ by ``APART``."""
    rng, parts = np.random.default_rng([seed, 1]), []
    for side in (real, made):
        truth = rng.integers(0, 2, len(side.patients))
        score = expit(rng.standard_normal(len(truth)) + APART * truth)
        parts.append((np.stack([1 - score, score], axis=1), truth))
    answers = JudgePredictions(Target("label.sick", ["no", "yes"]), parts[0][0], parts[1][0], parts[0][1], parts[1][1])
    return measure_semantic(SetPredictions([answers], {"label": ""}), plan)[0]


def _copies(world: World, real: EncodedImages, made: EncodedImages, plan: MeasurementPlan, seed: int) -> MetricResult:
    train = world.side("train", seed)
    found = search_training(
        real.features.values, made.features.values, train.features.values, real.patients, train.patients
    )
    scores = [(side.distance <= found.threshold).astype(np.float64) for side in (found.generated, found.held_out)]
    return measure_mean("near_copies", "lower", scores[0], scores[1], plan)


def true_kernel_distance(world: World) -> float:
    """KD between the two populations, from the moments of Gaussians.

    E (u + 1)³ with u = x·y / d is 1 + 3 E u + 3 E u² + E u³; for independent x and y the k-th moment of x·y is
    the inner product of the tensors of their k-th raw moments.
    """
    d = world.dimension
    real = _moments(np.zeros(d), 1.0)
    made = _moments(np.full(d, world.shift), world.spread)

    def mean(a: list[Array], b: list[Array]) -> float:
        one, two, three = (float(np.sum(x * y)) / d**k for k, (x, y) in enumerate(zip(a, b, strict=True), start=1))
        return 1 + 3 * one + 3 * two + three

    return mean(real, real) + mean(made, made) - 2 * mean(real, made)


def _moments(mean: Array, spread: float) -> list[Array]:
    """First three raw moments of N(mean, spread² I): [d], [d, d], [d, d, d]."""
    unit, square = np.eye(len(mean)), spread**2
    third = np.einsum("i,j,k->ijk", mean, mean, mean)
    for form in ("i,jk->ijk", "j,ik->ijk", "k,ij->ijk"):
        third = third + square * np.einsum(form, mean, unit)
    return [mean, np.outer(mean, mean) + square * unit, third]


def null_p_values(table: pd.DataFrame, metric: str, replicates: int) -> dict[str, Any]:
    """How p-values of the gap are distributed where there is no difference between groups.

    p takes the values k / (R + 1); less a uniform number of that width it is uniform on (0, 1) exactly if the
    test is. The test rejects too often ("anti-conservative") or too seldom where a binomial test against 0.05,
    or the one-sided Kolmogorov-Smirnov test, is beyond 0.01.
    """
    p = table[(table.metric == metric) & (table.group == "gap")].p_value.dropna().to_numpy()
    smooth = p - np.random.default_rng(0).random(len(p)) / (replicates + 1)
    rejected = int((p <= 0.05).sum())
    # small p-values pull the empirical distribution above the diagonal: "greater" in both tests is too often
    too_often, too_seldom = (
        min(kstest(smooth, "uniform", alternative=side).pvalue, binomtest(rejected, len(p), 0.05, side).pvalue) < 0.01
        for side in ("greater", "less")
    )
    return {
        "cohorts": len(p),
        "rejected at 0.05": rejected / len(p),
        "mean p": float(smooth.mean()),
        "kolmogorov-smirnov p": float(kstest(smooth, "uniform").pvalue),
        "verdict": "anti-conservative" if too_often else "conservative" if too_seldom else "uniform",
    }


def coverage(table: pd.DataFrame, metric: str, truth: float | None = None) -> dict[str, Any]:
    """Share of 95 % intervals that hold the true value, for the whole set and for each group.

    ``truth`` None takes the mean of the estimates: what the metric gives on average at this n (its own
    expectation; that it is a mean over as many cohorts changes coverage by less than 0.1 %).
    """
    result = {}
    for group in ["*", *LEVELS["group"]]:
        rows = table[(table.metric == metric) & (table.group == group)]
        if len(rows):
            value = float(rows.estimate.mean()) if truth is None else truth
            inside = (rows.ci_low <= value) & (rows.ci_high >= value)
            result[group] = {
                "coverage": float(inside.mean()),
                "monte carlo error": float(np.sqrt(0.95 * 0.05 / len(rows))),
                "true value": value,
                "mean estimate": float(rows.estimate.mean()),
                "sd of estimates / mean standard error": float(rows.estimate.std() / rows.standard_error.mean()),
                "mean subsampling error / standard error": float(rows.mc_estimate.mean() / rows.standard_error.mean()),
            }
    return result


def raw_gaps(world: World, seed: int) -> float:
    """FD of the smallest group less that of the largest, each with all of its rows, as is usual elsewhere."""
    real, made = world.side("real", seed), world.side("generated", seed)
    values = [
        frechet_distance(
            real.features.values[real.groups["group"] == code], made.features.values[made.groups["group"] == code]
        )
        for code in range(len(world.real))
    ]
    return float(values[0] - values[-1])


def unequal_groups(count: int, settings: ResamplingSettings, images: tuple[int, int] = (1, 3)) -> dict[str, Any]:
    """Groups of 40 and 200 patients from one distribution: raw FD ranks sizes, KD and FD at matched n should not."""
    world = World((40, 200), (40, 200), images, dimension=16)
    raw = np.array([raw_gaps(world, seed) for seed in range(count)])
    table = cohorts(world, count, ["fd", "kd"], settings)
    worse = {"share of cohorts in which the small group looks worse": float((raw > 0).mean())}
    result: dict[str, Any] = {"raw fd": {"mean of small less large": float(raw.mean()), **worse}}
    for metric in ("fd", "kd"):
        part = table[table.metric == metric].set_index("group")
        for figure in ("estimate", "excess"):
            difference = part.loc["a", figure].to_numpy() - part.loc["b", figure].to_numpy()
            result[f"{figure} of {metric}"] = {
                "mean of small less large": float(difference.mean()),
                "its standard error": float(difference.std(ddof=1) / np.sqrt(count)),
            }
        beyond = part.loc["gap", "p_value"] <= 0.05
        result[f"{metric} beyond its null band"] = float(beyond.mean())
    return result


def gaussians(count: int = 30, n: int = 200, d: int = 8) -> dict[str, Any]:
    """Mean FD and FD-infinity of samples of N(0, I) and N(0.5, 1.2² I), whose distance is d (0.5² + 0.2²)."""
    values = []
    for seed in range(count):
        rng = np.random.default_rng([seed, 7])
        real, made = rng.standard_normal((n, d)), 0.5 + 1.2 * rng.standard_normal((n, d))
        values.append((frechet_distance(real, made), frechet_infinity(real, made, repeats=2, seed=seed)))
    table, true = np.array(values), d * (0.5**2 + 0.2**2)
    names = ("fd", "fd infinity")
    return {
        "true value": true,
        "n": n,
        "features": d,
        **{
            name: {
                "bias": float(column.mean() - true),
                "its standard error": float(column.std(ddof=1) / np.sqrt(count)),
            }
            for name, column in zip(names, table.T, strict=True)
        },
    }


def paired(count: int, settings: ResamplingSettings, metrics: Sequence[str] = ("kd",)) -> dict[str, Any]:
    """Share of intervals of the difference between two equal generators that leave out zero: 5 % if right."""
    world = replace(DIFFERENT, made=(1, 1))
    tables = [
        measure_cohort(world, seed, list(metrics), settings, ("first", "second")).differences for seed in range(count)
    ]
    table = pd.concat(tables)
    found = {}
    for metric in metrics:
        for group in ["*", *LEVELS["group"][: len(world.real)]]:
            rows = table[(table.metric == metric) & (table.group == group)]
            found[f"{metric} {group}"] = float(((rows.ci_low > 0) | (rows.ci_high < 0)).mean())
    return {"cohorts": count, "monte carlo error": float(np.sqrt(0.05 * 0.95 / count)), "excludes zero": found}


def measure(count: int = 200) -> dict[str, Any]:
    """All simulations; about ten minutes on one thread."""
    started, settings = time.perf_counter(), replace(SETTINGS, replicates=399)
    result: dict[str, Any] = {"p-values": {}, "coverage": {}}
    for name, world in WORLDS.items():
        table = cohorts(world, count, ["fd", "kd", "is", "precision"], settings)
        tested = [metric for metric in dict.fromkeys(table.metric) if metric != "is"]  # its gap has no p-value
        result["p-values"][name] = {metric: null_p_values(table, metric, 399) for metric in tested}
        truths = {"kd": true_kernel_distance(world)}
        result["coverage"][name] = {
            metric: coverage(table, metric, truths.get(metric)) for metric in dict.fromkeys(table.metric)
        }
        print(name, result["p-values"][name], flush=True)
    for metric in ("semantic_auc", "near_copies"):
        table = pd.concat([bare_table(DIFFERENT, seed, settings, metric) for seed in range(2 * count)])
        result["p-values"]["the generator differs"][metric] = null_p_values(table, metric, 399)
        if metric == "semantic_auc":
            result["coverage"]["the generator differs"][metric] = coverage(table, metric, TRUE_AUC)
    result["paired"] = paired(count, settings)
    result["unequal groups"] = {
        f"{most} images a patient at most": unequal_groups(60, replace(settings, matched_n=18), (1, most))
        for most in (1, 3)
    }
    result["gaussians"] = gaussians()
    return {"target": "p uniform, coverage 0.95", **result, "seconds": time.perf_counter() - started}

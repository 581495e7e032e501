"""The tables of a comparison: quantities of each seed, and their means over seeds with differences to a reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from equigen.comparison.estimates import Key, Quantity, SampleResult
from equigen.quality import join_notes
from equigen.statistics import SeedMean, holm, mean_over_seeds

HEAD = ["setting", "mechanism", "seed", "plan", "guidance"]
KEY = ["metric", "attribute", "figure"]
SEED_COLUMNS = [*HEAD, *KEY, "estimate", "note"]
_NUMBERS = [
    "estimate",
    "seed_low",
    "seed_high",
    "patient_low",
    "patient_high",
    "ci_low",
    "ci_high",
    "null_gap",
]
_DIFFERENCE = ["difference", "difference_low", "difference_high", "p_value", "p_holm"]
SUMMARY_COLUMNS = [
    "setting",
    "mechanism",
    "plan",
    "guidance",
    *KEY,
    "seeds",
    "n",
    *_NUMBERS,
    "reference",
    *_DIFFERENCE,
    "note",
]
ONE_SEED = "one training seed: nothing follows about the mechanism; the interval holds the choice of patients alone"
BIASED = "a gap of noisy values is above 0 by chance alone: null_gap is its mean where group labels mean nothing"
MEANS = "gap_of_means"  # gap of the groups' means over seeds, which single trainings change less
CONDITION = ["setting", "mechanism", "plan", "guidance"]
Row = dict[str, Any]
Seeds = Mapping[int, SampleResult]  # the samples of one setting, mechanism, plan and guidance, by seed


def seeds_table(results: Sequence[SampleResult]) -> pd.DataFrame:
    """Return a row for each sample and quantity."""
    rows = [
        {**sample.head, **dict(zip(KEY, key, strict=True)), "estimate": quantity.value, "note": quantity.note}
        for sample in results
        for key, quantity in sample.quantities.items()
    ]
    types = {"seed": "int64", "estimate": "float64"}
    return pd.DataFrame(rows, columns=SEED_COLUMNS).astype(types | dict.fromkeys(_text_columns(SEED_COLUMNS), "str"))


def _text_columns(columns: Sequence[str]) -> list[str]:
    numbers = {"seed", "seeds", "n", *_NUMBERS, *_DIFFERENCE}
    return [name for name in columns if name not in numbers]


def summary_table(results: Sequence[SampleResult], reference: str, note: str = "") -> pd.DataFrame:
    """Return each quantity's mean over seeds with its paired difference to the reference.

    A row of ``gap_of_means`` follows each gap: largest less smallest of the groups' means over seeds. ``note`` is added
    to rows of the whole set.
    """
    samples: dict[tuple[str, ...], dict[int, SampleResult]] = {}
    for sample in results:
        columns = tuple(sample.head[name] for name in CONDITION)
        samples.setdefault(columns, {})[sample.head["seed"]] = sample
    rows: list[Row] = []
    for columns, seeds in samples.items():
        setting, _, plan, guidance = columns
        reference_columns = (setting, reference, plan, "common" if guidance == "calibrated" else guidance)
        reference_seeds, first = samples.get(reference_columns), next(iter(seeds.values()))
        is_reference = columns == reference_columns
        for key in first.quantities:
            row: Row = dict(zip([*CONDITION, *KEY], [*columns, *key], strict=True))
            row |= {"n": first.n, **_mean_row(seeds, key)}
            difference, difference_note = {"reference": ""}, ""
            if not is_reference:
                difference, difference_note = _difference_row(seeds, reference_seeds, key, reference_columns)
            row |= {**difference, "note": join_notes(row["note"], difference_note)}
            rows.append(row)
            if key[2] == "gap":
                means = _gap_of_means(seeds, None if is_reference else reference_seeds, key)
                rows.append({**row, "figure": MEANS, **means})
    adjust_p_values(rows)
    frame = pd.DataFrame(rows, columns=SUMMARY_COLUMNS)
    types = dict.fromkeys([*_NUMBERS, *_DIFFERENCE], "float64") | {"seeds": "int64", "n": "Int64"}
    frame = frame.astype(types | dict.fromkeys(_text_columns(SUMMARY_COLUMNS), "str"))
    overall = frame["figure"] == "overall"
    frame.loc[overall, "note"] = [join_notes(text, note) for text in frame.loc[overall, "note"]]
    return frame


def _defined(seeds: Seeds, key: Key) -> dict[int, Quantity]:
    """Return a quantity of the seeds in which it is defined."""
    quantities = {seed: sample.quantities[key] for seed, sample in seeds.items()}
    return {seed: quantity for seed, quantity in quantities.items() if np.isfinite(quantity.value)}


def _mean_row(seeds: Seeds, key: Key) -> Row:
    """Return a quantity's mean over seeds, its intervals, its null gap and notes."""
    quantities = list(_defined(seeds, key).values())
    note = _seed_notes({seed: sample.quantities[key].note for seed, sample in seeds.items()})
    if not quantities:
        return {"seeds": 0, "note": note}
    result, nulls = _mean(quantities), [quantity.null for quantity in quantities if np.isfinite(quantity.null)]
    lost = f"{result.lost} resamples of the patients are undefined" if result.lost else ""
    scarce = "too few to give a patient interval" if result.patient is None else ""
    note = join_notes(note, ONE_SEED if result.seeds == 1 else "", lost, scarce, BIASED if key[2] == "gap" else "")
    return {**_intervals(result), "null_gap": float(np.mean(nulls)) if nulls else None, "note": note}


def _intervals(result: SeedMean) -> Row:
    """Return the mean over seeds and its intervals as columns."""
    row: Row = {"seeds": result.seeds, "estimate": result.estimate}
    for name, interval in (("seed", result.seed), ("patient", result.patient), ("ci", result.joint)):
        row[f"{name}_low"], row[f"{name}_high"] = (None, None) if interval is None else interval
    return row


def _mean(quantities: Sequence[Quantity]) -> SeedMean:
    """Return the mean of one quantity over seeds."""
    values = np.array([quantity.value for quantity in quantities])
    replicates = np.stack([quantity.replicates for quantity in quantities])
    return mean_over_seeds(values, replicates, patients=min(quantity.patients for quantity in quantities))


def _seed_notes(notes: Mapping[int, str]) -> str:
    """Join the notes of the seeds, each once, with its seeds where they differ."""
    seeds: dict[str, list[int]] = {}
    for seed, note in notes.items():
        seeds.setdefault(note, []).append(seed)
    if len(seeds) == 1:
        return next(iter(seeds))
    return join_notes(*(f"{note} (seed {', '.join(map(str, numbers))})" for note, numbers in seeds.items() if note))


def _difference_row(seeds: Seeds, reference: Seeds | None, key: Key, columns: tuple[str, ...]) -> tuple[Row, str]:
    """Return the paired difference to the reference, and a note: seed by seed, in the same resamples of the patients.

    ``columns``: setting, mechanism, plan and guidance of the reference.
    """
    guidance = "the common guidance" if columns[3] == "common" else f"guidance {columns[3]}"
    name = f"{columns[1]} at {guidance}"
    if reference is None:
        return {"reference": ""}, f"no difference: {name} was not measured"
    quantities, references = _defined(seeds, key), _defined(reference, key)
    shared = [seed for seed in quantities if seed in references]
    if not shared:
        return {"reference": name}, "no difference: no seed has a number in both"
    result = _mean([_subtract(quantities[seed], references[seed]) for seed in shared])
    missing = sorted((set(seeds) | set(reference)) - set(shared))
    text = f"difference without seed {', '.join(map(str, missing))}, which one of the two lacks" if missing else ""
    single = "difference of one seed: nothing follows about the mechanism" if result.seeds == 1 < len(seeds) else ""
    return {"reference": name, **_difference(result)}, join_notes(text, single)


def _difference(result: SeedMean) -> Row:
    """Return a mean difference, its widest defined interval and its p-value as columns."""
    low, high = result.joint or result.patient or result.seed or (None, None)
    return {"difference": result.estimate, "difference_low": low, "difference_high": high, "p_value": result.p_value}


def _gap_of_means(seeds: Seeds, reference: Seeds | None, key: Key) -> Row:
    """Return the columns in which a row of ``gap_of_means`` differs from that of the mean of the seeds' gaps.

    ``key``: of the gap. ``reference``: None for the reference itself.
    """
    gaps = _extreme_gaps(seeds, key, list(_defined(seeds, key)))
    references = {} if reference is None else _extreme_gaps(reference, key, list(_defined(reference, key)))
    shared = [seed for seed in gaps if seed in references]
    row: Row = _intervals(_mean(list(gaps.values()))) if gaps else {"seeds": 0}
    row["null_gap"] = _null_gap_of_means(seeds, key, list(gaps))
    if not shared:
        return row
    if len(shared) < max(len(gaps), len(references)):  # the extreme groups are those of the seeds of both
        gaps, references = _extreme_gaps(seeds, key, shared), _extreme_gaps(reference or {}, key, shared)
    return row | _difference(_mean([_subtract(gaps[seed], references[seed]) for seed in shared]))


def _groups(sample: SampleResult, key: Key) -> dict[str, Quantity]:
    """Return the quantities of the groups that a gap is over."""
    return {
        name: quantity
        for (metric, attribute, name), quantity in sample.quantities.items()
        if (metric, attribute) == key[:2] and quantity.chance is not None
    }


def _extreme_gaps(samples: Seeds, key: Key, seeds: Sequence[int]) -> dict[int, Quantity]:
    """Return, for each seed, the difference of the two groups with the largest and smallest mean over these seeds."""
    groups = {seed: _groups(samples[seed], key) for seed in seeds}
    if not seeds:
        return {}
    means = {name: np.mean([table[name].value for table in groups.values()]) for name in groups[seeds[0]]}
    high, low = max(means, key=lambda name: means[name]), min(means, key=lambda name: means[name])
    return {seed: _subtract(table[high], table[low]) for seed, table in groups.items()}


def _null_gap_of_means(samples: Seeds, key: Key, seeds: Sequence[int]) -> float | None:
    """Return the mean gap of the groups' means over seeds under permuted labels."""
    tables = [[quantity.chance for quantity in _groups(samples[seed], key).values()] for seed in seeds]
    count = min((len(chance) for table in tables for chance in table if chance is not None), default=0)
    if not count:
        return None
    means = np.mean([[chance[:count] for chance in table if chance is not None] for table in tables], axis=0)
    return float(np.ptp(means, axis=0).mean())


def _subtract(first: Quantity, second: Quantity) -> Quantity:
    """Return the first quantity less the second, resample by resample."""
    difference = first - second
    return Quantity(difference.value, difference.replicates, min(first.patients, second.patients))


def adjust_p_values(rows: list[Row]) -> None:
    """Add Holm's adjusted p-values, over the mechanisms of one setting, plan, guidance and quantity."""
    families: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        if row.get("p_value") is not None:
            families.setdefault(tuple(row[name] for name in ("setting", "plan", "guidance", *KEY)), []).append(row)
    for family in families.values():
        adjusted = holm(np.array([row["p_value"] for row in family]))
        for row, value in zip(family, adjusted, strict=True):
            row["p_holm"] = float(value)

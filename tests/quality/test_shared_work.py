"""What the real side alone gives is computed once for all sets, and sharing it changes no number."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from equigen.quality import measurement as measuring
from equigen.quality.cells import ResamplingSettings
from equigen.quality.evaluation import measure_sets
from equigen.quality.features import Features
from equigen.quality.measurement import EncodedImages, EvaluationInputs, select_metrics
from equigen.quality.metric_inputs import ResultCache
from equigen.quality.metrics import frechet, kernel

LEVELS = {"sex": ["f", "m"], "age": ["young", "old"]}
SETTINGS = ResamplingSettings(matched_n=8, repeats=1, replicates=20, min_patients=10)


def side(name: str, patients: int, shift: float = 0.0) -> EncodedImages:
    rng = np.random.default_rng([*name.encode()])
    values = rng.standard_normal((2 * patients, 5)).astype(np.float32) + np.float32(shift)
    chances = rng.dirichlet(np.ones(4), 2 * patients).astype(np.float32)
    owner = np.arange(2 * patients) // 2
    groups = {attribute: rng.permuted(np.arange(patients) % 2)[owner] for attribute in LEVELS}
    return EncodedImages(
        np.array([f"{name}{number}" for number in owner]),
        groups,
        Features(values, chances),
        pd.DataFrame({"row": np.arange(2 * patients)}),
    )


def tables(*names: str, intersections: bool = True) -> pd.DataFrame:
    made = {"a": side("a", 40, 0.2), "b": side("b", 44, 0.4)}
    wanted = select_metrics(None, train=True, labels=False)
    inputs = EvaluationInputs(side("real", 80), {name: made[name] for name in names}, wanted, side("train", 50))
    return measure_sets(inputs, LEVELS, SETTINGS, encoder="none", intersections=intersections, show=False).quality


@pytest.fixture(scope="module")
def together() -> pd.DataFrame:
    return tables("a", "b")


def test_shared_work_changes_no_number(together, monkeypatch):
    monkeypatch.setattr(ResultCache, "compute_once", lambda self, what, arrays, compute: compute())
    monkeypatch.setattr(measuring.SharedResults, "search", lambda *_: None)  # each metric then searches for itself
    pd.testing.assert_frame_equal(tables("a", "b"), together, check_exact=True)


def test_real_halves_and_training_images_are_gone_through_once_for_all_sets(monkeypatch):
    calls: dict[str, list[object]] = {"halves": [], "value": [], "search": []}

    def counted(place, name, key, note=lambda *args, **options: None):
        plain = getattr(place, name)

        def wrapper(*args, **options):
            calls[key].append(note(*args, **options))
            return plain(*args, **options)

        monkeypatch.setattr(place, name, wrapper)

    counted(kernel, "kernel_halves", "halves", lambda _, cell, __: (cell.attribute, cell.group))
    counted(frechet, "frechet_distance", "value")
    counted(measuring, "search_training", "search", lambda *_, held_out=None, **__: held_out is not None)
    tables("a", intersections=False)
    alone = len(calls["value"])
    for found in calls.values():
        found.clear()
    table = tables("a", "b")
    cells = table[(table.metric == "kd") & (table.run == "a") & table.floor.notna() & ~table.group.isin(["gap", "es"])]
    assert sorted(calls["halves"]) == sorted(zip(cells.attribute, cells.group, strict=True))
    assert calls["search"] == [False, True]
    calls["value"].clear()
    tables("a", "b", intersections=False)
    assert len(calls["value"]) == alone > 0


def test_memory_tells_names_and_arrays_apart():
    memory, rows = ResultCache(), np.arange(4)
    assert memory.compute_once("floor", [rows], lambda: 1) == 1
    assert memory.compute_once("floor", [rows.copy()], lambda: 2) == 1
    assert memory.compute_once("value", [rows], lambda: 3) == 3
    assert memory.compute_once("floor", [rows[:3], rows[3:]], lambda: 4) == 4
    assert memory.compute_once("floor", [rows[::-1]], lambda: 5) == 5
    assert memory.compute_once("floor", [rows.astype(np.int16)], lambda: 6) == 6

"""Diagnoses as numbers, and tasks from probabilities."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from equigen.cohort import LabelSpec
from equigen.diagnosis.targets import encode, outputs, tasks
from equigen.errors import InputError

NAN = np.nan


def series(*values):
    return pd.Series(list(values), dtype=object, name="label.x")


def test_each_kind():
    binary = LabelSpec("binary", ["no", "yes"])
    assert np.array_equal(encode(series("yes", "no", None), binary), [[1], [0], [NAN]], equal_nan=True)
    several = LabelSpec("multiclass", ["a", "b", "c"])
    assert np.array_equal(encode(series("b", None), several), [[0, 1, 0], [NAN] * 3], equal_nan=True)
    findings = LabelSpec("multilabel", ["a", "b"])
    assert np.array_equal(
        encode(series("", "a|b", "b", None), findings), [[0, 0], [1, 1], [0, 1], [NAN] * 2], equal_nan=True
    )
    assert outputs(binary) == ["yes"] and outputs(findings) == ["a", "b"]


def test_same_as_the_cohort(cohort):
    from equigen.cohort import Cohort

    for name, spec in cohort.labels.items():
        truth, names = Cohort.targets(cohort, name)
        assert names == outputs(spec)
        assert np.array_equal(encode(cohort.frame[f"label.{name}"], spec), truth, equal_nan=True)


def test_strange_levels_are_named_by_row():
    with pytest.raises(InputError) as caught:
        encode(series("a", "z", "b|y"), LabelSpec("multilabel", ["a", "b"]))
    assert [(problem.row, problem.message) for problem in caught.value.problems] == [
        (3, "'z' is no level"),
        (4, "'y' is no level"),
    ]


def test_tasks():
    spec = LabelSpec("multiclass", ["nv", "mel", "bcc"], ["mel", "bcc"])
    truth = np.array([[0, 1, 0], [1, 0, 0]], dtype=np.float32)
    probability = np.array([[0.2, 0.5, 0.3], [0.7, 0.1, 0.2]], dtype=np.float32)
    made = {name: (y, p) for name, y, p in tasks("dx", spec, truth, probability)}
    assert list(made) == ["dx:nv", "dx:mel", "dx:bcc", "dx:high_risk"]
    assert made["dx:high_risk"][0].tolist() == [1, 0] and made["dx:high_risk"][1] == pytest.approx([0.8, 0.3])
    binary = list(tasks("sick", LabelSpec("binary", ["no", "yes"]), truth[:, :1], probability[:, :1]))
    assert [name for name, _, _ in binary] == ["sick"]

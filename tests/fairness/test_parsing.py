"""Cells of a table of predictions: truths, scores, names and seeds."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from equigen.fairness.parsing import (
    clip_rounding,
    map_cells,
    parse_names,
    parse_numbers,
    parse_seeds,
    parse_truth,
)


def cells(*values: str) -> pd.Series:
    return pd.Series(values, index=np.arange(len(values)) + 2, dtype=object)


def test_a_function_of_cells_is_called_once_for_each_text():
    calls = []
    result = map_cells(cells("b", "a", "b"), lambda cell: calls.append(cell) or cell.upper())
    assert result.tolist() == ["B", "A", "B"] and sorted(calls) == ["a", "b"] and list(result.index) == [2, 3, 4]


@pytest.mark.parametrize(
    ("cell", "value"),
    [("1", 1), ("0", 0), ("1.0", 1), ("TRUE", 1), ("False", 0), (" 1 ", 1), ("1e0", 1), ("-0", 0), ("2", np.nan),
     ("0.5", np.nan), ("yes", np.nan), ("", np.nan), ("1_0", np.nan)],
)  # fmt: skip
def test_a_truth_is_one_zero_or_nothing(cell, value):
    np.testing.assert_array_equal(parse_truth(cells(cell), None), [value])


def test_with_a_positive_word_all_other_words_are_negative():
    assert parse_truth(cells("mel ", "nv", "0", "1", "mel"), " mel").tolist() == [1, 0, 0, 0, 1]


@pytest.mark.parametrize(
    ("cell", "value"),
    [("0.25", 0.25), ("1e-3", 1e-3), ("1_0", np.nan), ("half", np.nan), ("0,5", np.nan), ("", np.nan)],
)
def test_numbers_are_read_whole_or_not(cell, value):
    np.testing.assert_array_equal(parse_numbers(cells(cell)), [value])
    assert parse_numbers(cells("0.1234567890123456789")).iloc[0] == 0.1234567890123456789


def test_scores_beyond_one_by_rounding_alone_are_clipped_and_counted():
    clipped, count = clip_rounding(pd.Series([1 + 5e-7, -5e-7, 1 + 2e-6, -0.1, 0.3, np.nan]))
    np.testing.assert_array_equal(clipped, [1.0, 0.0, 1 + 2e-6, -0.1, 0.3, np.nan])
    assert count == 2


def test_names_lose_blanks_and_the_point_of_integers_and_unknown_ones_are_none():
    unknown = frozenset({"", "unknown", "n/a"})
    assert parse_names(cells(" anna ", "7.0", "Unknown", "n/a", ""), unknown).tolist() == [
        "anna",
        "7",
        None,
        None,
        None,
    ]


def test_seeds_are_integers_where_all_are():
    assert parse_seeds(cells("1", "02", "-3")).tolist() == [1, 2, -3]
    assert parse_seeds(cells("1", "two")).tolist() == ["1", "two"]

"""Counting the combinations of groups that occur."""

import pytest
import torch

from equigen.equity import Groups
from equigen.equity.group_counts import Census
from equigen.errors import InputError


def test_cells_are_the_sorted_rows_that_occur():
    groups = Groups((("a", ("x", "y")), ("b", ("p", "q", "r")), ("c", ("only",))))
    draws = torch.Generator().manual_seed(0)
    index = torch.stack([torch.randint(-1, high, (500,), generator=draws) for high in (2, 3, 1)], 1)
    index = index[(index[:, 0] != 1) | (index[:, 1] != 2)]  # not all combinations occur
    census = Census.from_index(groups, index)
    cells, counts = torch.unique(index, dim=0, return_counts=True)
    assert torch.equal(census.cells, cells) and torch.equal(census.counts, counts)
    assert torch.equal(census.cells[census.find(index)], index)


def test_more_combinations_than_numbers_are_refused():
    groups = Groups(tuple((f"a{place}", tuple(map(str, range(9)))) for place in range(19)))
    with pytest.raises(InputError, match="63 bits"):
        Census.from_index(groups, torch.zeros(4, 19, dtype=torch.int64))
    fewer = Groups(groups.names[:18])
    index = torch.tensor([[8] * 18, [-1] * 18, [8] * 18])
    assert Census.from_index(fewer, index).cells.tolist() == [[-1] * 18, [8] * 18]
    assert Census.from_index(fewer, index).counts.tolist() == [1, 2]

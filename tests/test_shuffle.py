"""The computed shuffle: a bijection, uniform by all that is asked of it, and the same for ever."""

import tracemalloc

import numpy as np
import pytest
from scipy.stats import chi2

from equigen.errors import InputError
from equigen.shuffle import shuffled_rows


def whole(count, seed=0, epoch=0):
    return shuffled_rows(np.arange(count), count, seed, epoch)


def looks_uniform(table, rows, freedom):
    """Chi-square of counts with equal expectation; the level is such that a right shuffle fails once in 10 000."""
    expected = table.sum() / table.size
    assert chi2.sf(((table - expected) ** 2 / expected).sum() * rows, freedom) > 1e-4


@pytest.mark.parametrize("count", [*range(1, 70), 99, 100, 101, 1023, 1024, 1025, 65_537, 100_003])
def test_each_epoch_is_a_bijection(count):
    assert np.array_equal(np.sort(whole(count, 3, 7)), np.arange(count))


def test_a_position_alone_gives_the_row_it_has_in_the_whole():
    order = whole(1001, 5, 2)
    for some in ([0], [1000, 3, 3], range(400, 464)):
        assert np.array_equal(shuffled_rows(np.array(some), 1001, 5, 2), order[list(some)])


def test_known_values_are_pinned():
    assert whole(10, 0, 0).tolist() == [3, 1, 4, 9, 6, 7, 2, 5, 0, 8]
    far = np.array([0, 1, 2, 999_999_999_999])
    assert shuffled_rows(far, 10**12, 7, 3).tolist() == [320283007583, 704429910262, 795078225033, 544354368749]


def test_seeds_and_epochs_have_orders_of_their_own():
    orders = [whole(1000, seed, epoch) for seed in range(4) for epoch in range(4)]
    for place, one in enumerate(orders):
        for other in orders[:place]:
            assert (one == other).sum() < 12  # two random orders agree in one place on average (Poisson)


@pytest.mark.parametrize("count", [2, 3, 5, 6, 10, 30])
def test_every_row_is_as_likely_at_every_position(count):
    table = np.zeros((count, count))
    for epoch in range(1000):
        table[np.arange(count), whole(count, 11, epoch)] += 1
    # the counts of permutations have covariances of their own: X^2 (n - 1) / n has (n - 1)^2 degrees of freedom
    looks_uniform(table, (count - 1) / count, (count - 1) ** 2)


def test_all_orders_of_four_are_as_likely():
    seen = {}
    for epoch in range(4800):
        order = tuple(whole(4, 1, epoch).tolist())
        seen[order] = seen.get(order, 0) + 1
    assert len(seen) == 24
    looks_uniform(np.array(list(seen.values())), 1, 23)


def test_a_long_order_has_no_trend():
    order = whole(160_000, 2, 0)
    table = np.histogram2d(np.arange(len(order)), order, bins=20)[0]
    looks_uniform(table, 1, 19**2)
    steps = np.bincount(np.diff(order) % len(order) // 1600, minlength=100)
    looks_uniform(steps, 1, 99)
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.012  # five standard errors


def test_memory_does_not_grow_with_the_number_of_rows():
    shuffled_rows(np.arange(64), 2**61, 0, 0)
    tracemalloc.start()
    shuffled_rows(np.arange(64) + 2**60, 2**61, 0, 0)
    assert tracemalloc.get_traced_memory()[1] < 50_000
    tracemalloc.stop()


@pytest.mark.parametrize("positions", [[-1], [5], [0, 7]])
def test_a_position_outside_is_refused(positions):
    with pytest.raises(InputError, match="5 rows"):
        shuffled_rows(np.array(positions), 5, 0, 0)


def test_nothing_asked_is_nothing_given():
    assert shuffled_rows(np.array([], dtype=np.int64), 5, 0, 0).tolist() == []

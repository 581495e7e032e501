"""Group means, counts and gaps against numbers computed by hand."""

import math

import pytest
import torch

from equigen.equity import Groups, group_losses, timestep_strata
from equigen.errors import InputError

INDEX = torch.tensor([[0, 0], [0, 1], [1, 1], [1, -1], [-1, 0]])
LOSSES = torch.tensor([1.0, 3.0, 5.0, 9.0, 12.0])


def test_means_counts_and_gaps_by_hand(groups):
    found = group_losses(LOSSES, INDEX, groups)
    assert found.means[:4].tolist() == [2.0, 7.0, 6.5, 4.0]
    assert found.counts.tolist() == [2, 2, 2, 2, 0]
    assert found.overall == 6.0
    assert found.gaps() == {"sex": 5.0, "age": 2.5}
    assert found.total_gap() == 7.5


def test_an_absent_group_is_unknown_and_not_zero(groups):
    found = group_losses(LOSSES, INDEX, groups)
    assert math.isnan(float(found.means[4]))
    assert found.is_measured().tolist() == [True, True, True, True, False]


def test_too_few_images_make_a_gap_unknown(groups):
    index = torch.tensor([[0, 0], [0, 0], [1, 0], [1, 0]])
    found = group_losses(torch.tensor([1.0, 1.0, 2.0, 2.0]), index, groups)
    assert found.gaps(minimum=2)["sex"] == 1.0
    assert math.isnan(found.gaps(minimum=2)["age"])
    assert math.isnan(found.gaps(minimum=3)["sex"])
    assert math.isnan(found.total_gap(minimum=2))


def test_a_group_below_the_minimum_is_left_out_of_the_gap(groups):
    index = torch.tensor([[0, 0], [0, 0], [0, 1], [0, 1], [0, 2]])
    found = group_losses(torch.tensor([1.0, 1.0, 2.0, 2.0, 100.0]), index, groups)
    assert found.gaps(minimum=2)["age"] == 1.0


def test_an_attribute_of_a_single_level_has_no_gap():
    one = Groups((("site", ("here",)),))
    found = group_losses(torch.tensor([1.0, 5.0]), torch.zeros(2, 1, dtype=torch.int64), one)
    assert found.gaps() == {"site": 0.0}
    assert math.isnan(group_losses(torch.tensor([1.0]), torch.tensor([[-1]]), one).gaps()["site"])


def test_strata_are_averaged_after_the_images_of_each(groups):
    """Group female has three images at easy noise and one at hard: its mean is not drawn to the easy side."""
    index = torch.tensor([[0, 0]] * 4 + [[1, 0]] * 2)
    losses = torch.tensor([1.0, 1.0, 1.0, 9.0, 1.0, 9.0])
    strata = torch.tensor([0, 0, 0, 1, 0, 1])
    stratified = group_losses(losses, index, groups, strata=strata, n_strata=2)
    assert stratified.means[:2].tolist() == [5.0, 5.0]
    assert stratified.gaps()["sex"] == 0.0
    assert stratified.table[0].tolist() == [1.0, 9.0]
    assert group_losses(losses, index, groups).gaps()["sex"] == 2.0


def test_a_group_that_misses_a_stratum_is_unknown(groups):
    index = torch.tensor([[0, 0], [0, 0], [1, 0]])
    found = group_losses(torch.ones(3), index, groups, strata=torch.tensor([0, 1, 0]), n_strata=2)
    assert found.is_measured().tolist() == [True, False, True, False, False]


def test_a_probe_of_images_by_strata_is_the_long_form_with_images_counted_once(groups):
    wide = torch.arange(15.0).view(5, 3)
    found = group_losses(wide, INDEX, groups)
    long = group_losses(
        wide.flatten(), INDEX.repeat_interleave(3, 0), groups, strata=torch.arange(3).repeat(5), n_strata=3
    )
    assert torch.equal(found.table.nan_to_num(-1), long.table.nan_to_num(-1))
    assert found.counts.tolist() == [2, 2, 2, 2, 0]
    assert found.table[0].tolist() == [1.5, 2.5, 3.5]
    assert found.overall == 7.0


def test_permuting_and_doubling_the_images_changes_no_mean(groups):
    order = torch.tensor([4, 2, 0, 1, 3])
    base = group_losses(LOSSES, INDEX, groups).means[:4]
    assert torch.equal(group_losses(LOSSES[order], INDEX[order], groups).means[:4], base)
    assert torch.equal(group_losses(LOSSES.repeat(2), INDEX.repeat(2, 1), groups).means[:4], base)


def test_nobody_measured_is_unknown_throughout(groups):
    found = group_losses(torch.zeros(0), torch.zeros(0, 2, dtype=torch.int64), groups)
    assert found.counts.tolist() == [0] * 5
    assert bool(found.means.isnan().all())
    assert math.isnan(found.overall)


def test_no_attributes_leave_the_overall_mean():
    found = group_losses(LOSSES, torch.zeros(5, 0, dtype=torch.int64), Groups(()))
    assert (found.overall, len(found.means), found.total_gap()) == (6.0, 0, 0)


def test_losses_that_are_not_finite_are_a_diverged_training(groups):
    with pytest.raises(InputError, match="2 of 5 losses are not finite"):
        group_losses(torch.tensor([1.0, math.nan, math.inf, 1.0, 1.0]), INDEX, groups)


@pytest.mark.parametrize(
    "losses, strata",
    [
        (torch.ones(5), torch.zeros(4, dtype=torch.int64)),
        (torch.ones(5), torch.full((5,), 2)),
        (torch.ones(5, 2), torch.zeros(5, dtype=torch.int64)),
    ],
)
def test_strata_that_do_not_fit_are_refused(groups, losses, strata):
    with pytest.raises(InputError, match="do not fit"):
        group_losses(losses, INDEX, groups, strata=strata, n_strata=2)


def test_strata_of_timesteps_have_equal_width():
    assert timestep_strata(torch.tensor([0, 249, 250, 500, 999]), 1000, 4).tolist() == [0, 0, 1, 2, 3]

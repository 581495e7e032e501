"""Weights and streams by group frequency, random weights, and the census beneath them: by hand, and by scipy."""

import pytest
import torch
from scipy.optimize import brentq

from equigen.equity import Groups, build_mechanism
from equigen.equity.group_counts import Census, bound_weights
from equigen.errors import InputError
from equigen.seeds import torch_generator

FOUR = Groups((("sex", ("f", "m")), ("age", ("young", "old"))))
CELLS = [(0, 0), (0, 1), (1, 0), (1, 1)]


def training_set(counts, cells=CELLS):
    return torch.tensor(cells).repeat_interleave(torch.tensor(counts), 0)


def weights_of(name, index, cells=CELLS, **settings):
    """The weight of one image of each cell."""
    mechanism = build_mechanism(name, FOUR, 0, **settings)
    mechanism.sampling_weights(index)
    n = len(cells)
    return mechanism.weights(torch.ones(n).double(), torch.tensor(cells), torch.zeros(n), 0).tolist()


# 6, 2, 3 and 1 of 12 images: f 2/3, m 1/3, young 3/4, old 1/4, and sex and age independent.
@pytest.mark.parametrize(
    "settings, expected",
    [
        ({}, [0.5, 1.5, 1.0, 3.0]),  # 12 / (4 n)
        ({"combine": "product"}, [0.5, 1.5, 1.0, 3.0]),  # (3/4 or 3/2) times (2/3 or 2)
        ({"combine": "mean"}, [17 / 24, 33 / 24, 26 / 24, 42 / 24]),
        ({"max_weight": 2}, [5 / 9, 15 / 9, 10 / 9, 2.0]),  # 6c/2 + 2c 3/2 + 3c + 2 = 12
        ({"max_weight": 1}, [1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_reweight_by_hand(settings, expected):
    assert weights_of("reweight", training_set([6, 2, 3, 1]), **settings) == pytest.approx(expected)


def test_joint_and_product_differ_where_attributes_depend_on_each_other():
    """8, 1, 1 and 2 of 12: f 3/4, young 3/4; products of 2/3 or 2, which have mean 1/12 (32/9 + 8/3 + 8)."""
    index = training_set([8, 1, 1, 2])
    assert weights_of("reweight", index) == pytest.approx([3 / 8, 3.0, 3.0, 1.5])
    mean = (8 * 4 / 9 + 4 / 3 + 4 / 3 + 2 * 4) / 12
    expected = [4 / 9 / mean, 4 / 3 / mean, 4 / 3 / mean, 4 / mean]
    assert weights_of("reweight", index, combine="product") == pytest.approx(expected)


def test_unknown_groups_are_balanced_over_what_is_known_and_keep_their_share():
    """Beside the four cells: age unknown, 3 f and 1 m: 4 / (2 n); nothing known: 1."""
    cells = [*CELLS, (0, -1), (1, -1), (-1, -1)]
    index = training_set([6, 2, 3, 1, 3, 1, 9], cells)
    assert weights_of("reweight", index, cells) == pytest.approx([0.5, 1.5, 1, 3, 2 / 3, 2, 1])


def test_weights_do_not_depend_on_who_else_is_in_the_batch():
    mechanism = build_mechanism("reweight", FOUR, 0)
    mechanism.sampling_weights(training_set([6, 2, 3, 1]))
    batch = torch.tensor([[1, 1]] * 4 + [[0, 0]])
    assert mechanism.weights(torch.ones(5), batch, torch.zeros(5), 0).tolist() == pytest.approx([3.0] * 4 + [0.5])


def test_the_order_and_doubling_of_the_training_images_change_nothing():
    index = training_set([6, 2, 3, 1])
    shuffled = index[torch.randperm(12, generator=torch.Generator().manual_seed(0))].repeat(2, 1)
    assert weights_of("reweight", shuffled) == pytest.approx(weights_of("reweight", index))


def test_balanced_draws_every_cell_alike_and_weighs_none():
    index = training_set([6, 2, 3, 1])
    mechanism = build_mechanism("balanced", FOUR, 0)
    chances = mechanism.sampling_weights(index)
    assert chances[[0, 6, 8, 11]].tolist() == pytest.approx([0.5, 1.5, 1.0, 3.0])
    assert float(chances.mean()) == pytest.approx(1)
    drawn = torch.multinomial(chances, 40_000, True, generator=torch.Generator().manual_seed(0))
    counts = Census.from_index(FOUR, index[drawn]).counts / 40_000
    assert counts.tolist() == pytest.approx([0.25] * 4, abs=0.012)  # five standard errors
    assert weights_of("balanced", index) == [1.0] * 4
    assert mechanism.records()["weight/sex/m"] == pytest.approx((3 * 1.0 + 1 * 3.0) / 4)


def test_balanced_repeats_no_image_more_than_max_weight_times():
    chances = build_mechanism("balanced", FOUR, 0, max_weight=2).sampling_weights(training_set([6, 2, 3, 1]))
    assert chances[[0, 6, 8, 11]].tolist() == pytest.approx([5 / 9, 15 / 9, 10 / 9, 2.0])
    other = build_mechanism("balanced", FOUR, 9, max_weight=2)
    assert torch.equal(chances, other.sampling_weights(training_set([6, 2, 3, 1])))


def test_random_is_the_released_noise_at_sigma_one(groups):
    index = torch.tensor([[0, 2], [1, 1], [-1, 0], [-1, -1]])
    eps = torch.randn(4, 2, generator=torch_generator(7, "equity/noise", 96))
    found = build_mechanism("random", groups, 7).weights(torch.rand(4), index, torch.zeros(4), 96)
    expected = [1 + eps[0].sum(), 1 + eps[1].sum(), 1 + eps[2, 1], torch.tensor(1.0)]
    assert torch.allclose(found, torch.stack(expected))
    released = build_mechanism("perturbation", groups, 7, variant="released")
    assert torch.equal(found, released.weights(torch.rand(4), index, torch.zeros(4), 96))


def test_random_has_a_lognormal_form_that_is_never_negative(groups):
    """exp(eps) over the mean of e, e, e^(1/2) and 1, the expected weights."""
    index = torch.tensor([[0, 2], [1, 1], [-1, 0], [-1, -1]])
    eps = torch.randn(4, 2, generator=torch_generator(7, "equity/noise", 96)) * (index >= 0)
    found = build_mechanism("random", groups, 7, form="lognormal").weights(torch.rand(4), index, torch.zeros(4), 96)
    e = torch.tensor(1.0).exp()
    assert torch.allclose(found, eps.sum(1).exp() / ((2 * e + e.sqrt() + 1) / 4))
    many = torch.zeros(10_000, 2, dtype=torch.int64)
    rules = [build_mechanism("random", groups, 0, form=form) for form in ("released", "lognormal")]
    shares = [float((rule.weights(torch.ones(10_000), many, torch.zeros(1), 0) < 0).float().mean()) for rule in rules]
    assert shares[0] == pytest.approx(0.2398, abs=0.02)  # P(N(1, 2) < 0)
    assert shares[1] == 0


def test_random_keeps_sigma_at_one(groups, batch):
    mechanism = build_mechanism("random", groups, 0)
    for seen in range(0, 64 * 40, 64):
        mechanism.weights(*batch, seen)
    assert set(mechanism.records().values()) == {1.0}


def test_census_by_hand(groups):
    census = Census.from_index(groups, torch.tensor([[1, 2], [0, 0], [1, 2], [-1, 0], [0, -1]]))
    assert census.cells.tolist() == [[-1, 0], [0, -1], [0, 0], [1, 2]]
    assert census.counts.tolist() == [1, 1, 1, 2]
    assert census.group_counts.tolist() == [2, 2, 2, 0, 2]
    assert census.shares.tolist() == [0.5, 0.5, 0.5, 0.0, 0.5]
    assert [rows.tolist() for rows in census.patterns] == [[0], [1], [2, 3]]
    assert census.find(torch.tensor([[1, 2], [0, -1]])).tolist() == [3, 1]
    spread = census.cell_values(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]).double() * 10)
    assert spread.tolist() == [[1, 30], [10, 1], [10, 30], [20, 50]]
    means = census.group_means(torch.tensor([1.0, 2.0, 3.0, 4.0]).double())
    assert means[[0, 1, 2, 4]].tolist() == [2.5, 4.0, 2.0, 4.0]
    assert bool(means[3].isnan())


def test_a_census_of_nobody_is_refused(groups):
    with pytest.raises(InputError, match="no training images"):
        Census.from_index(groups, torch.zeros(0, 2, dtype=torch.int64))


@pytest.mark.parametrize("low, high", [(0.0, 1.5), (0.1, 10.0), (0.5, 1.01), (0.0, 1e6), (1.0, 3.0), (1e-6, 1.0)])
def test_bounded_is_the_root_that_scipy_finds(low, high):
    generator = torch.Generator().manual_seed(3)
    weights = torch.randn(5, 7, generator=generator, dtype=torch.float64).mul(2).exp()
    shares = torch.rand(7, generator=generator, dtype=torch.float64)
    shares = shares / shares.sum()
    found = bound_weights(weights, shares, low, high)
    assert (found @ shares).tolist() == pytest.approx([1.0] * 5, abs=1e-12)
    assert low <= float(found.min()) <= float(found.max()) <= high
    for row, mine in zip(weights, found, strict=True):

        def excess(log_c, row=row):
            return float((torch.tensor(log_c, dtype=torch.float64).exp() * row).clamp(low, high) @ shares) - 1

        if low < 1 < high:
            c = torch.tensor(brentq(excess, -40, 40, xtol=1e-14), dtype=torch.float64).exp()
            assert mine.tolist() == pytest.approx((c * row).clamp(low, high).tolist(), rel=1e-9)
        else:
            assert mine.tolist() == pytest.approx([1.0] * 7)

"""The stream depends on (seed, images seen) alone, and each epoch is a permutation."""

import pytest
import torch
from small_training import settings

from equigen.diffusion import TokenConditions
from equigen.training.stream import Stream

IDS = torch.arange(2, 22).view(10, 2)


def stream(weights=None, ids=IDS, **changes):
    chosen = settings(**{"batch": 4, **changes})
    return Stream(TokenConditions(ids, chosen.drop_all, chosen.drop_one), (len(ids), 1, 2, 2), chosen, weights)


def rows(made, positions):
    return torch.cat([made.batch(seen).rows for seen in positions]).tolist()


def equal(one, two):
    return all(torch.equal(getattr(one, name), getattr(two, name)) for name in ("rows", "noise", "timesteps", "ids"))


def test_each_epoch_is_a_fresh_permutation():
    seen = rows(stream(), range(0, 40, 4))  # four epochs of 10; batches stand across their ends
    epochs = [seen[low : low + 10] for low in range(0, 40, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_a_batch_may_be_larger_than_the_data():
    seen = rows(stream(batch=25), [0])
    assert sorted(seen[:10]) == sorted(seen[10:20]) == list(range(10)) and len(seen) == 25


def test_a_batch_does_not_depend_on_what_was_drawn_before():
    one, two = stream(), stream()
    for seen in (0, 4, 8):
        one.batch(seen)
    torch.manual_seed(4)
    for seen in (12, 40, 8, 12):
        assert equal(one.batch(seen), two.batch(seen))


@pytest.mark.parametrize("name", ["rows", "noise", "timesteps"])
def test_another_seed_or_place_gives_another_batch(name):
    here, there, other = stream().batch(0), stream().batch(8), stream(seed=4).batch(0)
    assert not torch.equal(getattr(here, name), getattr(there, name))
    assert not torch.equal(getattr(here, name), getattr(other, name))


def test_the_order_of_images_does_not_depend_on_the_batch_size():
    assert rows(stream(batch=4), range(0, 20, 4)) == rows(stream(batch=10), [0, 10]) == rows(stream(batch=1), range(20))


def test_shapes_ranges_and_dropping():
    batch = stream(drop_all=0, drop_one=0).batch(0)
    assert batch.noise.shape == (4, 1, 2, 2) and torch.equal(batch.ids, IDS[batch.rows])
    assert bool((stream(drop_all=1).batch(0).ids == 0).all())
    steps = torch.cat([stream(batch=100).batch(seen).timesteps for seen in range(0, 1000, 100)])
    assert steps.min() < 20 and steps.max() > 980 and steps.max() < 1000
    assert steps.float().mean().item() == pytest.approx(500, abs=30)


def test_sampling_weights_are_frequencies():
    weights = torch.tensor([0.0, 1.0, 3.0] + [0.0] * 7)
    drawn = torch.tensor(rows(stream(weights, batch=100), range(0, 2000, 100)))
    assert set(drawn.tolist()) == {1, 2} and (drawn == 2).float().mean().item() == pytest.approx(0.75, abs=0.03)
    assert equal(stream(weights).batch(8), stream(weights).batch(8))

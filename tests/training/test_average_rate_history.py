"""The averaged weights, the learning rate and the history, against numbers computed by hand."""

import math

import pytest
import torch
from small_training import GROUPS, settings

from equigen.equity import group_losses
from equigen.training.average import Average
from equigen.training.history import COLUMNS, History
from equigen.training.loop import is_due


def test_the_average_by_hand():
    module = torch.nn.Linear(2, 1)
    with torch.no_grad():
        module.weight.fill_(1.0), module.bias.fill_(0.0)
    average = Average(module)
    for value, decay in [(3.0, 0.5), (10.0, 0.9)]:
        with torch.no_grad():
            module.weight.fill_(value)
        average.update(module, decay)
    # 0.9 * (0.5 * 1 + 0.5 * 3) + 0.1 * 10
    assert average.state_dict()["weight"].tolist() == [[pytest.approx(2.8)] * 2]
    assert module.weight[0, 0] == 10.0  # what is trained is not touched
    other = Average(torch.nn.Linear(2, 1))
    other.load_state_dict(average.state_dict())
    other.copy_to(module)
    assert module.weight.tolist() == [[pytest.approx(2.8)] * 2] and module.weight.requires_grad


def test_the_half_life_of_the_average():
    chosen = settings(batch=10, ema=1000, images=10**6)
    assert chosen.ema_decay_at(10**6) == pytest.approx(0.5**0.01)  # a hundred batches halve it
    assert chosen.ema_decay_at(990) == pytest.approx(0.5 ** (10 / 50))  # early: 5 % of the images seen
    assert chosen.ema_decay_at(0) == pytest.approx(0.5**20)  # the random start is forgotten at once
    assert settings(batch=20, ema=1000).ema_decay_at(10**6) == pytest.approx(chosen.ema_decay_at(10**6) ** 2)


def test_the_learning_rate_by_hand():
    chosen = settings(images=1000, batch=10, warmup=100, learning_rate=0.01)
    assert chosen.learning_rate_at(0) == pytest.approx(0.01 * 0.1)
    cosine = 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * 0.5))
    assert chosen.learning_rate_at(500) == pytest.approx(0.01 * cosine) == pytest.approx(0.0055)
    assert chosen.learning_rate_at(1000) == chosen.learning_rate_at(5000) == pytest.approx(0.001)
    constant = settings(images=1000, batch=10, warmup=100, learning_rate=0.01, schedule="constant")
    assert [constant.learning_rate_at(seen) for seen in (40, 90, 999)] == pytest.approx([0.005, 0.01, 0.01])
    assert settings(images=1000, batch=10, warmup=0, schedule="constant").learning_rate_at(0) == 2e-3


@pytest.mark.parametrize(
    ("before", "after", "every", "expected"),
    [(0, 8, 8, True), (8, 15, 8, False), (7, 8, 8, True), (8, 16, 8, True), (0, 100, 8, True)],
)
def test_a_multiple_was_crossed(before, after, every, expected):
    assert is_due(before, after, every) is expected


def test_training_losses_by_hand():
    history = History(GROUPS)
    history.count(torch.tensor([1.0, 2.0, 6.0]), torch.tensor([[0, 2], [0, -1], [1, -1]]))
    history.count(torch.tensor([3.0]), torch.tensor([[0, 2]]))
    assert history.log_training(16, 0.5) == 3.0
    assert history.rows == [
        [16, "train", "*", "*", 3.0, 4],
        [16, "train", "sex", "female", 2.0, 3],
        [16, "train", "sex", "male", 6.0, 1],
        [16, "train", "age", "old", 2.0, 2],  # young and middle were not seen: no row, no zero
        [16, "learning_rate", "*", "*", 0.5, None],
    ]
    history.count(torch.tensor([8.0]), torch.tensor([[1, 0]]))
    assert history.log_training(32, 0.4) == 8.0  # sums begin anew
    frame = history.frame()
    assert list(frame.columns) == COLUMNS and len(frame) == 9


def test_probe_rows_and_records():
    history = History(GROUPS)
    losses = torch.tensor([[1.0, 3.0], [4.0, 4.0], [0.5, 0.5]])
    history.log_probe(24, "probe_heldout", group_losses(losses, torch.tensor([[0, 1], [1, 1], [-1, -1]]), GROUPS))
    assert history.rows == [
        [24, "probe_heldout", "*", "*", pytest.approx(13 / 6), None],
        [24, "probe_heldout", "sex", "female", 2.0, 1],
        [24, "probe_heldout", "sex", "male", 4.0, 1],
        [24, "probe_heldout", "age", "middle", 3.0, 2],
    ]
    history.log_records(24, {"sigma/sex/female": 0.25, "reward": -0.5, "sigma/age/40/60": 1.0})
    assert history.rows[4:] == [
        [24, "sigma", "sex", "female", 0.25, None],
        [24, "reward", "*", "*", -0.5, None],
        [24, "sigma", "age", "40/60", 1.0, None],
    ]

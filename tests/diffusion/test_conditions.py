"""Conditions as token numbers: what training draws, and what stands there."""

import torch

from equigen.diffusion import TokenConditions, drop_tokens
from equigen.seeds import torch_generator

IDS = torch.arange(2, 42).view(20, 2)


def test_training_draws_what_drop_draws_and_plain_drops_nothing():
    rows = torch.tensor([3, 3, 0, 19] * 20)
    conditions = TokenConditions(IDS, 0.3, 0.2)
    found = conditions.draw(rows, 5, 64, torch_generator(5, "noise", 64))
    assert torch.equal(found, drop_tokens(IDS[rows], 0.3, 0.2, torch_generator(5, "noise", 64)))
    gone = (found == 0).all(1).float().mean()
    assert 0.2 < gone < 0.5 and bool(((found == 0).any(1) & (found != 0).any(1)).any())
    assert torch.equal(conditions.complete(rows), IDS[rows])
    assert torch.equal(TokenConditions(IDS).draw(rows, 5, 64, torch_generator(5, "noise", 64)), IDS[rows])

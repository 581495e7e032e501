"""Condition tokens, the U-Net and dropping."""

import math

import pytest
import torch

from equigen.diffusion import ConditionTokens, Denoiser, build_tokens, build_unet, drop_tokens


@pytest.fixture
def tokens(words, small_preset):
    return build_tokens(words.sizes, "tiny", 0)


def test_tokens_by_hand(tokens, words):
    """Each field has rows of its own in one table; the pooled token is the sum over the root of their number."""
    assert tokens.table.weight.shape == (4 + 5 + 4 + 4 + 4, 16)
    each, pooled = tokens(torch.tensor([[2, 4, 1, 0, 3]]))
    rows = tokens.table.weight[[2, 4 + 4, 9 + 1, 13 + 0, 17 + 3]]
    assert torch.equal(each[0], rows)
    torch.testing.assert_close(pooled[0], rows.sum(0) / math.sqrt(5))


def test_a_cohort_without_fields_has_one_constant_token():
    tokens = ConditionTokens(sizes=(), width=8)
    each, pooled = tokens(torch.zeros(3, 0, dtype=torch.int64))
    assert each.shape == (3, 1, 8) and pooled.shape == (3, 8) and torch.equal(each[0], each[2])


def test_tokens_are_saved_and_opened(tokens, tmp_path):
    tokens.save_pretrained(str(tmp_path), safe_serialization=True)
    again = ConditionTokens.from_pretrained(str(tmp_path), low_cpu_mem_usage=False)
    ids = torch.tensor([[2, 4, 1, 0, 3], [1, 1, 1, 1, 1]])
    assert all(torch.equal(a, b) for a, b in zip(tokens(ids), again(ids), strict=True))
    assert torch.equal(again.offsets, torch.tensor([0, 4, 9, 13, 17]))


def test_weights_come_from_the_seed_alone(small_preset):
    before = torch.get_rng_state()
    one = build_unet("tiny", 4, 4, 7).state_dict()
    torch.manual_seed(123)
    two, other = build_unet("tiny", 4, 4, 7).state_dict(), build_unet("tiny", 4, 4, 8).state_dict()
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    assert not torch.equal(one["conv_in.weight"], other["conv_in.weight"])
    torch.manual_seed(123)
    after = torch.get_rng_state()
    build_unet("tiny", 4, 4, 7), build_tokens([3], "tiny", 7)
    assert torch.equal(torch.get_rng_state(), after)
    torch.set_rng_state(before)
    assert torch.equal(build_tokens([3], "tiny", 7).table.weight, build_tokens([3], "tiny", 7).table.weight)


@pytest.mark.parametrize(("side", "levels"), [(4, 2), (16, 2), (32, 3), (64, 4)])
def test_larger_latents_get_more_levels(small_preset, side, levels):
    unet = build_unet("tiny", 3, side, 0)
    assert len(unet.config.block_out_channels) == levels and unet.config.sample_size == side


def test_the_denoiser_listens_to_its_condition_and_time(words, tokens, small_preset):
    denoiser = Denoiser(build_unet("tiny", 4, 4, 0), tokens)
    noisy = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(0)).expand(4, -1, -1, -1)
    ids = torch.tensor([[2, 2, 2, 2, 2], [3, 2, 2, 2, 2], [2, 2, 2, 2, 3], [2, 2, 2, 2, 2]])
    with torch.no_grad():
        output = denoiser(noisy, torch.tensor([500, 500, 500, 10]), ids)
    assert output.shape == (4, 4, 4, 4)
    assert all(not torch.allclose(output[0], output[other], atol=1e-4) for other in (1, 2, 3))


def test_chances_of_dropping():
    ids = torch.full((20_000, 4), 2)
    generator = torch.Generator().manual_seed(0)
    dropped = drop_tokens(ids, 0.1, 0.05, generator) == 0
    whole = dropped.all(1).float().mean().item()
    assert whole == pytest.approx(0.1 + 0.9 * 0.05**4, abs=0.007)
    assert dropped.float().mean().item() == pytest.approx(0.1 + 0.9 * 0.05, abs=0.005)
    one = dropped[~dropped.all(1)]
    assert one.float().mean(0).tolist() == pytest.approx([0.05] * 4, abs=0.007)
    assert not bool((drop_tokens(ids, 0.0, 0.0, generator) == 0).any())
    assert bool((drop_tokens(ids, 1.0, 0.0, generator) == 0).all())
    assert bool((ids == 2).all())  # what came in is not changed


def test_what_is_not_dropped_stays():
    ids = torch.tensor([[2, 3, 1]] * 50)
    kept = drop_tokens(ids, 0.2, 0.3, torch.Generator().manual_seed(1))
    assert torch.equal(kept[kept != 0], ids[kept != 0])

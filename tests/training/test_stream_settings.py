"""What the settings do to noise and noise levels, by hand; and orders of millions of images that cost nothing."""

import types

import numpy as np
import pytest
import torch
from small_training import settings
from worded import SCHEDULERS, Prompts, trainer

from equigen.diffusion import STEPS, TokenConditions
from equigen.seeds import numpy_generator, torch_generator
from equigen.training import stream as module
from equigen.training.stream import Stream

IDS = torch.arange(2, 22).view(10, 2)


def stream(count=10, weights=None, steps=STEPS, **changes):
    chosen = settings(**{"batch": 8, **changes})
    return Stream(TokenConditions(IDS[torch.arange(count) % 10], 0.1, 0.1), (count, 3, 4, 4), chosen, weights, steps)


def test_noise_offset_by_hand():
    plain, shifted = stream().batch(16), stream(noise_offset=0.2).batch(16)
    constants = torch.randn(8, 3, 1, 1, generator=torch_generator(3, "noise-offset", 16))
    assert torch.equal(shifted.noise, plain.noise + 0.2 * constants)
    for name in ("rows", "timesteps", "ids"):
        assert torch.equal(getattr(shifted, name), getattr(plain, name))
    assert shifted.input_noise is None  # it is the target's noise too


def test_noise_offset_is_a_constant_of_each_image_and_channel_with_the_asked_spread():
    plain, shifted = stream(batch=2000).batch(0), stream(batch=2000, noise_offset=0.5).batch(0)
    constant = shifted.noise - plain.noise
    assert constant.amax((2, 3)).sub(constant.amin((2, 3))).max() < 1e-6
    means = constant.mean((2, 3))
    assert means.std().item() == pytest.approx(0.5, rel=0.03) and abs(means.mean().item()) < 0.02
    assert abs(torch.corrcoef(means.T)[0, 1].item()) < 0.05  # channels are drawn apart


def test_input_perturbation_by_hand():
    """Ning et al. 2023, algorithm 1: y = sqrt(a) x + sqrt(1 - a) (noise + gamma xi), the target is the noise alone."""
    plain, made = stream().batch(16), stream(input_perturbation=0.1).batch(16)
    extra = torch.randn(8, 3, 4, 4, generator=torch_generator(3, "input-perturbation", 16))
    assert torch.equal(made.noise, plain.noise) and torch.equal(made.input_noise, plain.noise + 0.1 * extra)
    both = stream(input_perturbation=0.1, noise_offset=0.2).batch(16)
    assert torch.equal(both.noise, stream(noise_offset=0.2).batch(16).noise)
    assert torch.equal(both.input_noise, both.noise + 0.1 * extra)


@pytest.mark.parametrize("changes", [{"input_perturbation": 0.3}, {"noise_offset": 0.3},
                                     {"input_perturbation": 0.3, "noise_offset": 0.3, "accumulate": 2}])  # fmt: skip
@pytest.mark.parametrize("predicts", SCHEDULERS)
def test_the_step_is_made_with_that_noise(tmp_path, predicts, changes):
    """Losses of the loop's own step against the formula with the noise of the two tests above."""
    run = trainer(tmp_path / "c.safetensors", {"mechanism": "none"}, settings(**changes), predicts=predicts)
    batch = run.stream.batch(0)
    run.optimizer.zero_grad()
    losses = run.backward(batch)
    noise, shown = batch.noise, batch.noise if batch.input_noise is None else batch.input_noise
    scheduler, latents, t = SCHEDULERS[predicts](), run.data.latents[batch.rows], batch.timesteps
    if predicts == "flow":
        sigma = scheduler.sigmas.flip(0)[t]
        time, part = 1000 * sigma, sigma[:, None, None, None]
        z_t, target = (1 - part) * latents + part * shown, noise - latents
    else:
        time, z_t = t, scheduler.add_noise(latents, shown, t)
        target = noise if predicts == "epsilon" else scheduler.get_velocity(latents, noise, t)
    expected = (run.network(z_t, time, batch.ids) - target).square().mean((1, 2, 3))
    torch.testing.assert_close(losses, expected.detach(), rtol=1e-5, atol=1e-6)


def test_the_probe_has_plain_noise(tmp_path):
    chosen = [settings(**changes) for changes in ({}, {"noise_offset": 0.5, "input_perturbation": 0.5})]
    one, two = (trainer(tmp_path / "c", {"mechanism": "none"}, each).probes["probe_train"] for each in chosen)
    assert torch.equal(one.noise, two.noise) and torch.equal(one.timesteps, two.timesteps)


def test_logit_normal_timesteps_by_hand():
    batch = stream(timestep_sampling="logit_normal").batch(16)
    draws = torch_generator(3, "noise", 16)
    assert torch.equal(batch.noise, torch.randn(8, 3, 4, 4, generator=draws))
    part = 1 / (1 + torch.exp(-torch.randn(8, generator=draws)))
    assert (batch.timesteps - 1000 * part).abs().max() <= 1  # the whole number below
    many = stream(batch=20_000, timestep_sampling="logit_normal").batch(0).timesteps
    logits = (many.double() + 0.5).div(1000).logit()
    assert many.dtype == torch.int64 and many.min() >= 0 and many.max() < 1000
    assert abs(logits.mean().item()) < 0.03 and logits.std().item() == pytest.approx(1, abs=0.03)


def test_noise_levels_are_as_many_as_the_objective_has():
    for sampling in ("uniform", "logit_normal"):
        drawn = stream(batch=500, steps=7, timestep_sampling=sampling).batch(0).timesteps
        assert set(drawn.tolist()) == set(range(7))


def test_conditions_are_drawn_for_seed_and_place():
    asked = []

    class Asking(Prompts):
        def draw(self, rows, seed, seen, generator):
            asked.append((seed, seen, len(rows)))
            return super().draw(rows, seed, seen, generator)

    chosen = settings(batch=8)
    made = Stream(Asking(IDS[:, :1]), (10, 3, 4, 4), chosen)
    assert made.batch(24).ids.shape == (8, 1) and asked == [(3, 24, 8)]


@pytest.mark.parametrize("count", [10, 1000])
def test_draws_with_sampling_weights_are_those_of_numpys_choice(count):
    weights = torch.rand(count, generator=torch.Generator().manual_seed(0)) ** 4
    weights[3] = 0
    chances = (weights.double() / weights.double().sum()).numpy()
    made = stream(count, weights, batch=64)
    for seen in range(0, 640, 64):
        expected = numpy_generator(3, "draw", seen).choice(count, size=64, p=chances)
        assert made.batch(seen).rows.tolist() == expected.tolist()


def test_millions_of_sampling_weights_are_summed_once(monkeypatch):
    """A batch asks for uniform numbers and nothing else: ``choice`` would sum up a million in each call."""
    made = stream(1_000_000, torch.ones(1_000_000))

    def uniform_alone(*which):
        return types.SimpleNamespace(random=numpy_generator(*which).random)

    monkeypatch.setattr(module, "numpy_generator", uniform_alone)
    monkeypatch.delattr(np, "cumsum")
    rows = torch.cat([made.batch(seen).rows for seen in range(0, 800, 8)])
    assert rows.double().mean().item() == pytest.approx(500_000, abs=100_000)


@pytest.fixture
def computed(monkeypatch):
    """A stand-in for the shuffle that is computed place by place, and what it was asked for."""
    asked = []

    def shuffled(positions, count, seed, epoch):
        asked.append((positions.tolist(), count, seed, epoch))
        return (positions * 7 + seed + epoch) % count  # 7 and 20 have no divisor in common

    monkeypatch.setattr(module, "shuffled_rows", shuffled)
    monkeypatch.setattr(module, "LARGE", 19)
    return asked


def test_large_orders_are_computed_place_by_place(computed):
    made = stream(20)
    rows = torch.cat([made.batch(seen).rows for seen in range(0, 40, 8)]).tolist()
    assert rows == [(place * 7 + 3 + epoch) % 20 for epoch in (0, 1) for place in range(20)]
    assert computed[2] == ([16, 17, 18, 19], 20, 3, 0) and computed[3] == ([0, 1, 2, 3], 20, 3, 1)
    assert len(made._order) == 0  # no permutation is held
    small = stream(19)
    assert sorted(torch.cat([small.batch(seen).rows for seen in range(0, 24, 8)]).tolist()[:19]) == list(range(19))
    assert len(computed) == 6

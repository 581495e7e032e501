"""The loss of each image against targets computed by hand from the cosine schedule."""

import math

import pytest
import torch

from equigen.diffusion import STEPS, loss_per_image, noise_schedule


def alpha_bar(step):
    """Product of 1 - beta_t; beta_t = min(1 - f(t + 1) / f(t), 0.999), f(t) = cos^2((t / T + 0.008) / 1.008 pi / 2)."""

    def f(t):
        return math.cos((t / STEPS + 0.008) / 1.008 * math.pi / 2) ** 2

    return math.prod(1 - min(1 - f(t + 1) / f(t), 0.999) for t in range(step + 1))


@pytest.fixture
def batch():
    draws = torch.Generator().manual_seed(0)
    latents, noise, output = (torch.randn(3, 2, 4, 4, generator=draws) for _ in range(3))
    return latents, noise, output, torch.tensor([0, 400, 999])


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_losses_by_hand(batch, prediction):
    latents, noise, output, timesteps = batch
    asked = []

    def denoiser(noisy, steps, ids):
        asked.append((noisy, steps, ids))
        return output

    ids = torch.tensor([[2], [3], [0]])
    losses = loss_per_image(denoiser, noise_schedule(prediction), latents, noise, timesteps, ids)
    for image, step in enumerate(timesteps.tolist()):
        signal, spread = math.sqrt(alpha_bar(step)), math.sqrt(1 - alpha_bar(step))
        torch.testing.assert_close(
            asked[0][0][image], signal * latents[image] + spread * noise[image], rtol=1e-4, atol=1e-5
        )
        velocity = signal * noise[image] - spread * latents[image]
        target = noise[image] if prediction == "epsilon" else velocity
        assert losses[image].item() == pytest.approx(((output[image] - target) ** 2).mean().item(), rel=1e-4)
    assert torch.equal(asked[0][1], timesteps) and torch.equal(asked[0][2], ids)


def test_a_perfect_prediction_has_no_loss(batch):
    latents, noise, _, timesteps = batch
    losses = loss_per_image(lambda *_: noise, noise_schedule("epsilon"), latents, noise, timesteps, None)
    assert losses.tolist() == [0, 0, 0]


def test_images_do_not_see_each_other(batch):
    latents, noise, output, timesteps = batch
    order = [2, 0, 1]
    schedule = noise_schedule()
    losses = loss_per_image(lambda *_: output, schedule, latents, noise, timesteps, None)
    turned = loss_per_image(lambda *_: output[order], schedule, latents[order], noise[order], timesteps[order], None)
    assert torch.equal(turned, losses[order])


def test_half_precision_outputs_are_compared_in_float32(batch):
    latents, noise, output, timesteps = batch
    losses = loss_per_image(lambda *_: output.bfloat16(), noise_schedule(), latents, noise, timesteps, None)
    assert losses.dtype == torch.float32


def test_the_schedule():
    schedule = noise_schedule("epsilon")
    assert schedule.config.prediction_type == "epsilon" and noise_schedule().config.prediction_type == "v_prediction"
    assert len(schedule.alphas_cumprod) == STEPS == 1000 and not schedule.config.clip_sample
    assert schedule.alphas_cumprod[500].item() == pytest.approx(alpha_bar(500), rel=1e-4)

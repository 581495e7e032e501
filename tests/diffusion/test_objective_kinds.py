"""Objectives read from schedulers of any solver; flow matching and its min-SNR weights against sums by hand."""

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)

from equigen.diffusion import loss_per_image, min_snr_weights, objective_of
from equigen.errors import InputError

STABLE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
T = torch.tensor([0, 300, 999])


@pytest.fixture
def batch():
    draws = torch.Generator().manual_seed(0)
    return [torch.randn(3, 2, 4, 4, generator=draws) for _ in range(3)]


@pytest.mark.parametrize("kind", [DDIMScheduler, PNDMScheduler, EulerDiscreteScheduler, DPMSolverMultistepScheduler,
                                  UniPCMultistepScheduler, DDPMScheduler])  # fmt: skip
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_solver_plays_no_part(batch, kind, prediction):
    latents, noise, _ = batch
    objective = objective_of(kind(**STABLE, prediction_type=prediction))
    expected = DDPMScheduler(**STABLE, prediction_type=prediction)
    assert (objective.prediction, objective.steps) == (prediction, 1000)
    assert torch.equal(objective.noisy(latents, noise, T), expected.add_noise(latents, noise, T))
    velocity = expected.get_velocity(latents, noise, T)
    assert torch.equal(objective.target(latents, noise, T), noise if prediction == "epsilon" else velocity)
    assert torch.equal(objective.time(T), T)
    a = expected.alphas_cumprod[T]
    torch.testing.assert_close(objective.snr(T), a / (1 - a))


def test_betas_and_zero_terminal_noise_levels_are_taken_over(batch):
    plain, zero = (objective_of(DDIMScheduler(**STABLE, rescale_betas_zero_snr=which)) for which in (False, True))
    assert zero.snr(T)[2] == 0 < plain.snr(T)[2]
    own = objective_of(PNDMScheduler(trained_betas=[0.1, 0.2, 0.3], num_train_timesteps=3))
    assert own.steps == 3 and own.snr(torch.tensor([1])).item() == pytest.approx(0.72 / 0.28)


def shifted(part, shift):
    return shift * part / (1 + (shift - 1) * part)


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("kind", [FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler])
def test_flow_by_hand(batch, kind, shift):
    latents, noise, output = batch
    scheduler = kind(shift=shift)
    objective = objective_of(scheduler)
    assert (objective.prediction, objective.steps) == ("flow", 1000)
    asked = []

    def network(*inputs):
        asked.append(inputs)
        return output

    losses = loss_per_image(network, scheduler, latents, noise, T, None)
    noisy, told, _ = asked[0]
    for image, t in enumerate(T.tolist()):
        sigma = shifted((t + 1) / 1000, shift)
        assert told[image].item() == pytest.approx(1000 * sigma, rel=1e-5)
        expected = (1 - sigma) * latents[image] + sigma * noise[image]
        torch.testing.assert_close(noisy[image], expected, rtol=1e-4, atol=1e-5)
        loss = (output[image] - (noise[image] - latents[image])).square().mean().item()
        assert losses[image].item() == pytest.approx(loss, rel=1e-5)
        assert objective.snr(T)[image].item() == pytest.approx(((1 - sigma) / sigma) ** 2, rel=1e-3, abs=1e-9)


def test_flow_is_that_of_diffusers(batch):
    """Its own table of timesteps, and noise added by its own hand."""
    latents, noise, _ = batch
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    objective = objective_of(scheduler)
    steps = torch.arange(1000)
    assert torch.equal(objective.time(steps).flip(0), scheduler.timesteps)
    expected = scheduler.scale_noise(latents, objective.time(T), noise)
    torch.testing.assert_close(objective.noisy(latents, noise, T), expected)


def test_the_shift_of_a_solver_for_flows_and_none_where_it_depends_on_the_size():
    solver = DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    steps = torch.arange(1000)
    euler = objective_of(FlowMatchEulerDiscreteScheduler(shift=3.0))
    assert torch.equal(objective_of(solver).time(steps), euler.time(steps))
    moving = objective_of(FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True))
    torch.testing.assert_close(moving.time(steps), 1.0 + steps)


@pytest.mark.parametrize(
    ("scheduler", "match"),
    [
        (DDIMScheduler(prediction_type="sample"), "prediction_type 'sample'"),
        (DDPMScheduler(prediction_type="sample"), "prediction_type 'sample'"),
        (EDMEulerScheduler(), "neither betas nor flow matching"),
        (DDIMScheduler(trained_betas=[0.1, 0.2]), "beta_schedule 'odd' is not known"),
    ],
)
def test_what_cannot_be_trained_is_refused(scheduler, match):
    if "odd" in match:
        scheduler.register_to_config(beta_schedule="odd", trained_betas=None)
    with pytest.raises(InputError, match=match):
        objective_of(scheduler)


KINDS = {
    "epsilon": (DDPMScheduler(**STABLE), lambda z_t, answer, a, s: (z_t - s * answer) / a),
    "v_prediction": (DDPMScheduler(**STABLE, prediction_type="v_prediction"), lambda z_t, v, a, s: a * z_t - s * v),
    "flow": (FlowMatchEulerDiscreteScheduler(shift=3.0), lambda z_t, flow, a, s: z_t - s * flow),
}


@pytest.mark.parametrize("gamma", [1.0, 5.0])
@pytest.mark.parametrize("name", KINDS)
def test_min_snr_counts_an_error_as_one_of_the_clean_latent(batch, name, gamma):
    """An error of 1 in what is predicted, brought back to the latent by each kind's own formula."""
    latents, noise, _ = (value.double() for value in batch)
    scheduler, clean = KINDS[name]
    objective, steps = objective_of(scheduler), torch.tensor([50, 300, 700])
    snr = objective.snr(steps).double()
    if name == "flow":
        spread = objective.time(steps).double() / 1000
        signal = 1 - spread
    else:
        signal, spread = (snr / (1 + snr)).sqrt(), (1 / (1 + snr)).sqrt()
    signal, spread = signal[:, None, None, None], spread[:, None, None, None]
    z_t = signal * latents + spread * noise
    right = objective.target(latents, noise, steps)
    torch.testing.assert_close(clean(z_t, right, signal, spread), latents, rtol=1e-3, atol=1e-3)
    error = (clean(z_t, right + 1, signal, spread) - clean(z_t, right, signal, spread)).square().mean((1, 2, 3))
    weights = min_snr_weights(scheduler, steps, gamma)
    torch.testing.assert_close(weights.double(), snr.clamp(max=gamma) * error, rtol=1e-4, atol=1e-7)
    assert 0 <= weights.min() < weights.max() <= 1


def test_the_noise_that_is_shown_may_be_another_than_the_targets(batch):
    """Input perturbation: z_t is made with one noise, and another is asked for."""
    latents, noise, shown = batch
    scheduler, asked = DDPMScheduler(**STABLE, prediction_type="v_prediction"), []

    def network(noisy, *_):
        asked.append(noisy)
        return torch.zeros_like(noisy)

    losses = loss_per_image(network, scheduler, latents, noise, T, None, shown)
    assert torch.equal(asked[0], scheduler.add_noise(latents, shown, T))
    torch.testing.assert_close(losses, scheduler.get_velocity(latents, noise, T).square().mean((1, 2, 3)))

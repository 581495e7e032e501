"""Solvers by name: diffusers' own by hand, and a toy whose answer is known in closed form."""

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)
from tiny_pipelines import old_habits

from equigen.diffusion import noise_schedule, solver
from equigen.diffusion.samplers import noise_levels, possible_solvers, set_steps
from equigen.errors import InputError

LATENT = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
TRAINED = {
    "velocity": noise_schedule(),
    "epsilon": noise_schedule("epsilon"),
    "latent": DDPMScheduler(**LATENT),
    "flow": FlowMatchEulerDiscreteScheduler(shift=3.0),
}
CASES = [(kind, name) for kind, scheduler in TRAINED.items() for name in possible_solvers(scheduler)]
ENDS = {"timestep_spacing": "trailing", "final_sigmas_type": "zero"}
FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
BY_HAND = {
    "dpm++": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++", **ENDS}),
    "ddim": (DDIMScheduler, {"timestep_spacing": "trailing", "clip_sample": False, "set_alpha_to_one": True}),
    "unipc": (UniPCMultistepScheduler, ENDS),
    "euler": (EulerDiscreteScheduler, ENDS),
}
FLOW_BY_HAND = {
    "dpm++": DPMSolverMultistepScheduler(**FLOW),
    "unipc": UniPCMultistepScheduler(**FLOW),
    "euler": FlowMatchEulerDiscreteScheduler(shift=3.0),
}
MEAN, STD = 0.7, 0.5


def gaussian(kind, scaled, time):
    """What a perfect network says of z_t = a x + b e with x ~ N(MEAN, STD^2)."""
    signal, noise = strength(kind, time)
    image = MEAN + signal * STD**2 * (scaled - signal * MEAN) / (signal**2 * STD**2 + noise**2)
    spread = (scaled - signal * image) / noise
    return {"velocity": signal * spread - noise * image, "flow": spread - image}.get(kind, spread)


def strength(kind, time):
    """a and b at a time, which Euler's may lie between two timesteps."""
    if kind == "flow":
        return 1 - time / 1000, time / 1000
    kept = np.interp(time, np.arange(1000), TRAINED[kind].alphas_cumprod.double())
    return kept**0.5, (1 - kept) ** 0.5


def sampled(kind, scheduler, steps, noise):
    set_steps(scheduler, steps)
    latents = noise * getattr(scheduler, "init_noise_sigma", 1.0)
    for step in scheduler.timesteps:
        scaled = scheduler.scale_model_input(latents, step) if hasattr(scheduler, "scale_model_input") else latents
        latents = scheduler.step(gaussian(kind, scaled, float(step)), step, latents, return_dict=False)[0]
    return latents


@pytest.fixture(scope="module")
def noise():
    return torch.randn(2000, 1, 1, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_every_solver_finds_mean_and_variance_and_each_image(kind, name, noise):
    """The flow of a Gaussian is a straight map from noise to image; more steps come nearer to it."""
    signal, spread = (0.0, 1.0) if kind == "flow" else strength(kind, 999)
    expected = MEAN + STD * (noise - signal * MEAN) / (signal**2 * STD**2 + spread**2) ** 0.5
    wrong = {}
    for steps in (20, 100):
        made = sampled(kind, solver(name, TRAINED[kind]), steps, noise)
        wrong[steps] = float((made - expected).abs().max())
    assert wrong[100] < 0.08 and wrong[100] < wrong[20] / 3
    assert float(made.mean()) == pytest.approx(float(expected.mean()), abs=0.005)
    assert float(made.std()) == pytest.approx(float(expected.std()), abs=0.02)


def test_the_second_order_is_nearer_with_few_steps(noise):
    expected = MEAN + STD * noise
    wrong = {name: float((sampled("velocity", solver(name, TRAINED["velocity"]), 20, noise) - expected).abs().max())
             for name in ("dpm++", "unipc", "ddim", "euler")}  # fmt: skip
    assert max(wrong["dpm++"], wrong["unipc"]) < 0.1 * min(wrong["ddim"], wrong["euler"])


@pytest.mark.parametrize(("kind", "name"), CASES)
@pytest.mark.parametrize("steps", [7, 20])
def test_it_is_diffusers_own_by_hand(kind, name, steps, noise):
    if kind == "flow":
        plain = FLOW_BY_HAND[name]
    else:
        scheduler, settings = BY_HAND[name]
        plain = scheduler.from_config(TRAINED[kind].config, **settings)
    expected = sampled(kind, plain, steps, noise)
    assert torch.equal(sampled(kind, solver(name, TRAINED[kind]), steps, noise), expected)


@pytest.mark.parametrize("name", ["dpm++", "ddim", "unipc", "euler"])
def test_habits_of_the_scheduler_that_trained_play_no_part(name, noise):
    """Pipelines come with clipping, Karras' noise levels, offsets and the like: the noise of training alone counts."""
    habits = [
        DDIMScheduler(**LATENT, clip_sample=True, steps_offset=1, set_alpha_to_one=False, thresholding=True),
        PNDMScheduler(**LATENT, steps_offset=1, skip_prk_steps=True),
        DPMSolverMultistepScheduler(**LATENT, use_karras_sigmas=True, algorithm_type="sde-dpmsolver++"),
        EulerDiscreteScheduler(**LATENT, timestep_spacing="leading", use_karras_sigmas=True),
    ]
    expected = sampled("latent", solver(name, TRAINED["latent"]), 5, noise)
    for scheduler in habits:
        assert torch.equal(sampled("latent", solver(name, scheduler), 5, noise), expected)


def test_no_solver_draws_noise_on_the_way(noise):
    for kind, name in CASES:
        before = torch.get_rng_state()
        assert torch.equal(
            sampled(kind, solver(name, TRAINED[kind]), 5, noise[:4]),
            sampled(kind, solver(name, TRAINED[kind]), 5, noise[:4]),
        )
        assert torch.equal(torch.get_rng_state(), before)


def test_noise_levels_go_from_the_whole_of_training_to_little():
    for kind, name in CASES:
        levels = noise_levels(set_steps(solver(name, TRAINED[kind]), 4))
        assert levels[0] > 0.99 and levels == sorted(levels, reverse=True) and 0 < levels[-1] < 0.6
    assert noise_levels(set_steps(solver("ddim", TRAINED["velocity"]), 4)) == [0.999, 0.749, 0.499, 0.249]


def test_the_kept_settings_of_training():
    other = DDPMScheduler(num_train_timesteps=500, beta_start=0.001, beta_end=0.03, prediction_type="sample",
                          rescale_betas_zero_snr=True)  # fmt: skip
    for name in possible_solvers(other):
        made = solver(name, other).config
        assert (made.num_train_timesteps, made.prediction_type, made.beta_end) == (500, "sample", 0.03)
        assert made.rescale_betas_zero_snr
    given = DDPMScheduler(trained_betas=np.linspace(0.001, 0.02, 1000))
    with old_habits():
        assert torch.equal(solver("dpm++", given).alphas_cumprod, given.alphas_cumprod)


def test_what_there_is_not_is_told_with_what_there_is():
    with pytest.raises(InputError, match=r"solver 'heun' is unknown .use one of dpm\+\+, ddim, unipc, euler"):
        solver("heun", TRAINED["velocity"])
    with pytest.raises(InputError, match=r"'ddim' is not possible with this model .use one of dpm\+\+, unipc, euler"):
        solver("ddim", TRAINED["flow"])
    with pytest.raises(InputError, match=r"'unipc' is not possible with this model .use one of euler"):
        solver("unipc", FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True))
    with pytest.raises(InputError, match="its scheduler is EDMEulerScheduler"):
        solver("euler", EDMEulerScheduler())
    with pytest.raises(InputError, match="sigmoid"):
        solver("dpm++", DDPMScheduler(beta_schedule="sigmoid"))

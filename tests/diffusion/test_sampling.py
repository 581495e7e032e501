"""Solvers and intervals of guidance in ``EquigenPipeline``, and what a plan asks of the sampler."""

import numpy as np
import pandas as pd
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
)
from tiny_pipelines import old_habits

from equigen.diffusion import Request, sampling_requests
from equigen.diffusion.vocabulary import DROPPED
from equigen.errors import InputError

SEEDS, STEPS = [1, 2, 3, 4], 6
TRAILING = {"timestep_spacing": "trailing"}


@pytest.fixture
def calls(pipeline, monkeypatch):
    """(timestep, whether all tokens were dropped) of each call of the denoiser."""
    seen, plain = [], pipeline.denoiser.forward

    def forward(noisy, times, ids):
        seen.append((float(times[0]), bool((ids == DROPPED).all())))
        return plain(noisy, times, ids)

    monkeypatch.setattr(pipeline.denoiser, "forward", forward)
    return seen


def by_hand(pipeline, conditions, scheduler, guidance, interval=(0.0, 1.0)):
    """Latents as the loop made them before there was a choice, but for the interval."""
    ids, noise = pipeline.words.encode(conditions), pipeline.starting_noise(SEEDS)
    scale = torch.tensor(guidance, dtype=torch.float32)[:, None, None, None]
    with torch.no_grad(), old_habits():
        scheduler.set_timesteps(STEPS)
        latents = noise * scheduler.init_noise_sigma
        for step in scheduler.timesteps:
            times, scaled = step.expand(len(latents)), scheduler.scale_model_input(latents, step)
            output = pipeline.denoiser(scaled, times, ids)
            if interval[0] <= step / 1000 <= interval[1]:
                free = pipeline.denoiser(scaled, times, torch.full_like(ids, DROPPED))
                output = free + scale * (output - free)
            latents = scheduler.step(output, step, latents, return_dict=False)[0]
    return latents


def latents(pipeline, conditions, guidance, *how):
    ids = pipeline.words.encode(conditions)
    return pipeline.sample(pipeline.starting_noise(SEEDS), ids, torch.tensor(guidance), STEPS, *how)


def test_by_default_it_is_what_it_was_bit_for_bit(pipeline, conditions):
    """The scheduler made in the way of the time before there was a choice."""
    plain = DPMSolverMultistepScheduler.from_config(
        pipeline.scheduler.config, algorithm_type="dpmsolver++", timestep_spacing="trailing", final_sigmas_type="zero"
    )
    scales = [1.0, 2.0, 3.5, 5.0]
    expected = by_hand(pipeline, conditions, plain, scales)
    assert torch.equal(latents(pipeline, conditions, scales), expected)
    assert torch.equal(latents(pipeline, conditions, scales, "dpm++", (0.0, 1.0)), expected)
    images = pipeline.autoencoder.decode(pipeline.denormalise(expected))
    assert np.array_equal(pipeline(conditions, SEEDS, guidance=scales, steps=STEPS), images)


@pytest.mark.parametrize(
    ("name", "kind", "settings"),
    [
        ("ddim", DDIMScheduler, {**TRAILING, "clip_sample": False, "set_alpha_to_one": True}),
        ("euler", EulerDiscreteScheduler, {**TRAILING, "final_sigmas_type": "zero"}),
    ],
)
def test_other_solvers_by_hand(pipeline, conditions, name, kind, settings):
    """Euler's starts at noise times sigma and scales what the network sees."""
    scheduler = kind.from_config(pipeline.scheduler.config, **settings)
    expected = by_hand(pipeline, conditions, scheduler, [2.0] * 4)
    assert torch.equal(latents(pipeline, conditions, [2.0] * 4, name), expected)
    made = pipeline(conditions, SEEDS, guidance=2.0, steps=STEPS, solver=name)
    assert (made != pipeline(conditions, SEEDS, guidance=2.0, steps=STEPS)).any()


@pytest.mark.parametrize("name", ["dpm++", "unipc", "euler"])
def test_flow_matching_finds_the_images_of_a_perfect_denoiser(pipeline, conditions, monkeypatch, name):
    """Where every image is one picture, the velocity of its flow is known in closed form; t is told as 1000 sigma."""
    picture = torch.randn(12, 4, 4, generator=torch.Generator().manual_seed(3))
    monkeypatch.setattr(pipeline, "scheduler", FlowMatchEulerDiscreteScheduler(shift=2.0))

    def velocity(noisy, times, ids):
        return (noisy - picture) / (times.float() / 1000)[:, None, None, None]

    monkeypatch.setattr(pipeline.denoiser, "forward", velocity)
    made = latents(pipeline, conditions, [1.0] * 4, name)
    torch.testing.assert_close(made, picture.expand(4, -1, -1, -1), atol=5e-3, rtol=0)
    with pytest.raises(InputError, match="'ddim' is not possible with this model"):
        pipeline(conditions, SEEDS, solver="ddim")


@pytest.mark.parametrize("interval", [(0.2, 0.7), (0.6, 1.0), (0.0, 0.4)])
def test_outside_the_interval_the_network_is_asked_once(pipeline, conditions, calls, interval):
    made = latents(pipeline, conditions, [1.0, 2.0, 3.0, 4.0], "dpm++", interval)
    times = [time for time, dropped in calls if not dropped]
    guided = [time for time, dropped in calls if dropped]
    assert len(times) == STEPS and guided == [time for time in times if interval[0] <= time / 1000 <= interval[1]]
    assert 0 < len(guided) < STEPS
    plain = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config, **TRAILING, final_sigmas_type="zero")
    assert torch.equal(made, by_hand(pipeline, conditions, plain, [1.0, 2.0, 3.0, 4.0], interval))


def test_the_ends_of_the_interval_belong_to_it(pipeline, conditions, calls):
    latents(pipeline, conditions, [2.0] * 4, "ddim", (0.499, 0.832))
    assert [time for time, dropped in calls if dropped] == [832.0, 666.0, 499.0]


def test_a_whole_interval_changes_nothing_and_guidance_one_has_none(pipeline, conditions):
    how = {"guidance": 3.0, "steps": 3}
    whole = pipeline(conditions, SEEDS, **how)
    assert np.array_equal(whole, pipeline(conditions, SEEDS, **how, interval=(0.0, 0.9995)))
    assert (whole != pipeline(conditions, SEEDS, **how, interval=(0.0, 0.5))).any()
    plain = {**how, "guidance": 1.0}
    assert np.array_equal(
        pipeline(conditions, SEEDS, **plain), pipeline(conditions, SEEDS, **plain, interval=(0.9999, 1.0))
    )


@pytest.mark.parametrize(
    ("how", "match"),
    [
        ({"solver": "heun"}, "solver 'heun' is unknown"),
        ({"negative": "blurred"}, "column 'negative': 'blurred' .leave it empty"),
        ({"interval": (0.4, 0.5)}, "none of 3 steps lies at a noise level from 0.4 to 0.5"),
        ({"steps": 1001}, "from 1 to 1000"),
    ],
)
def test_what_cannot_be_had(pipeline, conditions, calls, how, match):
    with pytest.raises(InputError, match=match):
        pipeline(conditions, SEEDS, **{"steps": 3, **how})
    words = {name: value for name, value in how.items() if name != "interval"}
    low, high = how.get("interval", (None, None))
    plan = conditions.assign(**{"guidance": 2.0, "steps": 3, "guidance_low": low, "guidance_high": high, **words})
    with pytest.raises(InputError, match=match):
        pipeline.check(plan)
    assert calls == []


def test_a_plan_that_can_be_made_passes(pipeline, conditions):
    pipeline.check(conditions.assign(guidance=2.0, steps=3))
    more = {"solver": "unipc", "guidance_low": 0.2, "guidance_high": 0.8, "negative": ""}
    pipeline.check(conditions.assign(guidance=2.0, steps=3, **more))
    with pytest.raises(InputError, match="'grey' is unknown"):
        pipeline.check(conditions.assign(**{"attr.age": "grey"}, guidance=2.0, steps=3))


def test_a_generator_says_what_it_makes_and_where(pipeline):
    assert (pipeline.size, pipeline.latent_side, pipeline.device.type) == (32, 4, "cpu") and pipeline.mixes_guidance


def test_requests_are_the_different_ones_and_each_row_has_one():
    plan = pd.DataFrame({
        "guidance": [2.0, 1.0, 2.0, 3.0, 2.0], "steps": 20, "solver": ["ddim", None, "ddim", "", None],
        "guidance_low": [np.nan, np.nan, np.nan, 0.2, None], "negative": [None, "", None, "dark", None],
    })  # fmt: skip
    found, numbers = sampling_requests(plan)
    assert [found[number] for number in numbers] == [
        Request(2.0, 20, "ddim"), Request(1.0, 20), Request(2.0, 20, "ddim"),
        Request(3.0, 20, interval=(0.2, 1.0), negative="dark"), Request(2.0, 20),
    ]  # fmt: skip
    assert numbers.tolist() == [0, 1, 0, 2, 3] and len(found) == 4
    assert sampling_requests(plan[["guidance", "steps"]])[0] == [Request(2.0, 20), Request(1.0, 20), Request(3.0, 20)]


def test_kinds_of_requests():
    guided = Request(2.0, 20, "ddim", (0.1, 0.9), "dark")
    same = [Request(3.0, 20, "ddim", (0.1, 0.9), "dark")]
    others = [Request(2.0, 10, "ddim", (0.1, 0.9), "dark"), Request(2.0, 20, "euler", (0.1, 0.9), "dark"),
              Request(2.0, 20, "ddim", (0.1, 0.8), "dark"), Request(2.0, 20, "ddim", (0.1, 0.9)),
              Request(1.0, 20, "ddim", (0.1, 0.9), "dark")]  # fmt: skip
    assert {one.kind(mixed=True) for one in same} == {guided.kind(mixed=True)}
    assert guided.kind(mixed=False) not in {one.kind(mixed=False) for one in same + others}
    assert guided.kind(mixed=True) not in {one.kind(mixed=True) for one in others}
    plain = [Request(1.0, 20, "ddim", (0.1, 0.9)), Request(1.0, 20, "ddim", negative="dark"), Request(1.0, 20, "ddim")]
    assert len({one.kind(mixed=False) for one in plain}) == 1


def test_faults_of_a_plan_name_row_and_column():
    ends = {"guidance_low": [0.1, 0.1, 0.1, 0.1, 0.5], "guidance_high": [1.0, 1.0, 1.0, 1.0, 0.5]}
    plan = pd.DataFrame({"guidance": [2.0, -1.0, np.nan, 2.0, 2.0], "steps": [1, 1, 1, 0, 1], **ends})
    with pytest.raises(InputError) as caught:
        sampling_requests(plan)
    places = [(problem.row, problem.column) for problem in caught.value.problems]
    assert places == [(3, "guidance"), (4, "guidance"), (5, "steps"), (6, "guidance_low"), (6, "guidance_high")]
    with pytest.raises(InputError, match=r"row 2, column 'guidance_high': 1\.5"):
        sampling_requests(plan.head(1).assign(guidance_high=1.5))

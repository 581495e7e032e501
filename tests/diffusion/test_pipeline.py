"""Sampling: seeds, guidance, steps, and the folder that diffusers opens."""

import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, DPMSolverMultistepScheduler

from equigen.diffusion import EquigenPipeline, noise_schedule, open_generator
from equigen.errors import InputError


@pytest.fixture(scope="module")
def folder(pipeline, tmp_path_factory):
    place = tmp_path_factory.mktemp("generator")
    pipeline.save_pretrained(str(place), safe_serialization=True)
    return place


def latents(pipeline, conditions, seeds, guidance=1.0, steps=3):
    ids, scale = pipeline.words.encode(conditions), torch.as_tensor(guidance).expand(len(seeds))
    return pipeline.sample(pipeline.starting_noise(seeds), ids, scale, steps)


@pytest.fixture
def calls(pipeline, monkeypatch):
    """(timesteps, ids) of each call of the denoiser."""
    seen, plain = [], pipeline.denoiser.forward
    monkeypatch.setattr(
        pipeline.denoiser, "forward", lambda *inputs: (seen.append((inputs[1], inputs[2])), plain(*inputs))[1]
    )
    return seen


def test_images(pipeline, conditions):
    images = pipeline(conditions, [1, 2, 3, 4], steps=3)
    assert images.shape == (4, 32, 32, 3) and images.dtype == np.uint8
    assert np.array_equal(images, pipeline(conditions, [1, 2, 3, 4], steps=3))
    assert len({image.tobytes() for image in images}) == 4


def test_global_random_numbers_play_no_part(pipeline, conditions):
    before = torch.get_rng_state()
    first = pipeline(conditions, [1, 2, 3, 4], steps=2)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    assert np.array_equal(first, pipeline(conditions, [1, 2, 3, 4], steps=2))
    torch.set_rng_state(before)


def test_noise_is_each_images_own(pipeline):
    noise = pipeline.starting_noise([5, 2**62, 5, -3])
    assert noise.shape == (4, 12, 4, 4) and torch.equal(noise[0], noise[2])
    assert torch.equal(noise[1], torch.randn(12, 4, 4, generator=torch.Generator().manual_seed(2**62)))
    assert not torch.equal(noise[0], noise[3])


def test_an_image_is_the_same_at_any_place_in_the_batch(pipeline, conditions):
    order = [2, 0, 3, 1]
    seeds = np.array([11, 12, 13, 14])
    images = pipeline(conditions, list(seeds), guidance=[1.0, 2.0, 3.0, 4.0], steps=3)
    turned = pipeline(conditions.iloc[order], list(seeds[order]), guidance=[3.0, 1.0, 4.0, 2.0], steps=3)
    assert np.array_equal(turned, images[order])
    alone = pipeline(conditions.iloc[[1]], [12], guidance=2.0, steps=3)  # libraries round otherwise at other sizes
    assert np.abs(alone[0].astype(int) - images[1].astype(int)).max() <= 1


def test_guidance_one_asks_for_the_condition_alone(pipeline, conditions, calls):
    latents(pipeline, conditions, [1, 2, 3, 4], 1.0)
    ids = pipeline.words.encode(conditions)
    assert len(calls) == 3 and all(torch.equal(seen, ids) for _, seen in calls)


def test_guidance_by_hand(pipeline, conditions, calls):
    """One step from t = 999 to the end: the clean latent is alpha z - sigma v of the guided velocity."""
    seeds, scale = [1, 2, 3, 4], torch.tensor([1.0, 2.0, 0.0, 7.5])
    result = latents(pipeline, conditions, seeds, scale, steps=1)
    assert [bool((ids == 0).all()) for _, ids in calls] == [False, True] and calls[0][0].tolist() == [999] * 4
    ids, noise, times = pipeline.words.encode(conditions), pipeline.starting_noise(seeds), torch.full((4,), 999)
    with torch.no_grad():
        asked, free = pipeline.denoiser(noise, times, ids), pipeline.denoiser(noise, times, torch.zeros_like(ids))
    velocity = free + scale[:, None, None, None] * (asked - free)
    signal = float(noise_schedule().alphas_cumprod[999]) ** 0.5
    torch.testing.assert_close(result, signal * noise - (1 - signal**2) ** 0.5 * velocity, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(asked, free, atol=1e-3)


def test_a_vector_of_guidance_is_separate_calls(pipeline, conditions):
    seeds, scales = [1, 2, 3, 4], [1.0, 2.0, 5.0, 2.0]
    together = latents(pipeline, conditions, seeds, torch.tensor(scales))
    for image, scale in enumerate(scales):
        torch.testing.assert_close(
            latents(pipeline, conditions, seeds, scale)[image], together[image], rtol=1e-4, atol=1e-4
        )
    assert not torch.allclose(latents(pipeline, conditions, seeds, 2.0)[2], together[2], atol=1e-3)


def test_steps_are_network_evaluations(pipeline, conditions, calls):
    latents(pipeline, conditions, [1, 2, 3, 4], 2.0, steps=5)
    times = [int(steps[0]) for steps, _ in calls]
    assert len(calls) == 10 and times[::2] == times[1::2] == [999, 799, 599, 399, 199]


def test_the_sampler_finds_the_images_of_a_perfect_denoiser(pipeline, conditions, monkeypatch):
    """Where every image is one picture, v is known in closed form and sampling must end there."""
    alphas = noise_schedule().alphas_cumprod
    picture = torch.randn(12, 4, 4, generator=torch.Generator().manual_seed(3))

    def velocity(noisy, times, ids):
        signal = alphas[times.long()].sqrt()[:, None, None, None]
        spread = (1 - signal**2).sqrt()
        return signal * (noisy - signal * picture) / spread - spread * picture

    monkeypatch.setattr(pipeline.denoiser, "forward", velocity)
    torch.testing.assert_close(
        latents(pipeline, conditions, [1, 2, 3, 4], steps=20), picture.expand(4, -1, -1, -1), atol=1e-2, rtol=0
    )


def test_latents_are_scaled_back(pipeline):
    back = pipeline.denormalise(torch.ones(1, 12, 4, 4))
    assert back[0, :, 0, 0].tolist() == pytest.approx([0.1 * c - 0.5 + 0.3 + 0.02 * c for c in range(12)])


def test_the_folder_gives_the_same_images(pipeline, conditions, folder):
    images = pipeline(conditions, [1, 2, 3, 4], steps=2)
    for opened in (open_generator(folder), EquigenPipeline.from_pretrained(str(folder))):
        assert type(opened) is EquigenPipeline
        assert np.array_equal(opened(conditions, [1, 2, 3, 4], steps=2), images)
        assert opened.words.fields == pipeline.words.fields and opened.config["size"] == 32
    assert not list(folder.rglob("*.bin")) and len(list(folder.rglob("*.safetensors"))) == 3


def test_the_order_of_fields_survives_the_folder(pipeline, folder):
    """Tokens stand in the order of the fields, and diffusers sorts what it writes: once, this mixed up attributes."""
    fields = list(pipeline.words.fields)
    assert fields != sorted(fields) and list(open_generator(folder).words.fields) == fields
    index = json.loads((folder / "model_index.json").read_text())
    assert [name for name, _ in index["vocabulary"]] == fields


def test_plain_diffusers_does_not_know_the_class(folder):
    """What the class's docstring says; once this fails, it may say something better."""
    with pytest.raises(AttributeError, match="has no attribute EquigenPipeline"):
        DiffusionPipeline.from_pretrained(str(folder))
    assert "only knows the classes of diffusers" in EquigenPipeline.__doc__.replace("\n    ", " ")


def test_parts_open_in_plain_diffusers(pipeline, folder):
    from diffusers import AutoencoderTiny, DDPMScheduler, UNet2DConditionModel

    unet = UNet2DConditionModel.from_pretrained(str(folder), subfolder="unet")
    assert torch.equal(unet.conv_in.weight, pipeline.unet.conv_in.weight)
    assert AutoencoderTiny.from_pretrained(str(folder), subfolder="vae").config.latent_channels == 12
    schedule = DDPMScheduler.from_pretrained(str(folder), subfolder="scheduler")
    assert schedule.config.prediction_type == "v_prediction"
    assert DPMSolverMultistepScheduler.from_config(schedule.config).config.beta_schedule == "squaredcos_cap_v2"


def test_the_name_in_provenance_survives_saving(pipeline, folder):
    assert open_generator(folder).hash == pipeline.hash and len(pipeline.hash) == 16


def test_the_name_in_provenance_is_of_everything(pipeline):
    def changed(**settings):
        parts = dict(unet=pipeline.unet, tokens=pipeline.tokens, vae=pipeline.vae, scheduler=pipeline.scheduler)
        own = {name: pipeline.config[name] for name in ("latent_mean", "latent_std", "size")}
        own["vocabulary"] = pipeline.words.fields
        return EquigenPipeline(**{**parts, **own, **settings}).hash

    fields = pipeline.words.fields
    others = [
        changed(),
        changed(latent_mean=[0.0] * 12),
        changed(size=64),
        changed(scheduler=noise_schedule("epsilon")),
        changed(vocabulary={**fields, "attr.sex": ["male", "female"]}),
    ]
    others.append(changed(vocabulary=dict(sorted(fields.items()))))  # other tokens under the same names
    assert others[0] == pipeline.hash and len(set(others)) == 6
    with torch.no_grad():
        pipeline.tokens.table.weight[0, 0] += 1
        assert pipeline.hash != others[0]
        pipeline.tokens.table.weight[0, 0] -= 1


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"seeds": [1, 2, 3]}, "4 conditions and 3 seeds"),
        ({"guidance": [1.0, 2.0]}, r"guidance of shape \(2,\)"),
        ({"steps": 0}, "0 steps"),
        ({"steps": 1001}, "from 1 to 1000"),
    ],
)
def test_calls_that_cannot_be_carried_out(pipeline, conditions, changes, match):
    with pytest.raises(InputError, match=match):
        pipeline(conditions, **{"seeds": [1, 2, 3, 4], "steps": 2, **changes})


def test_no_conditions(pipeline, conditions):
    with pytest.raises(InputError, match="there are no conditions"):
        pipeline(conditions.iloc[:0], [])


def test_unknown_levels_are_refused_before_sampling(pipeline, conditions, calls):
    with pytest.raises(InputError, match="'grey' is unknown"):
        pipeline(conditions.assign(**{"attr.age": "grey"}), [1, 2, 3, 4])
    assert calls == []


def test_a_folder_without_a_generator(tmp_path):
    with pytest.raises(InputError, match=r"no model_index\.json") as caught:
        open_generator(tmp_path)
    assert caught.value.problems[0].file == str(tmp_path) and "equigen train" in caught.value.problems[0].mend


@pytest.mark.parametrize("harm", ["missing", "truncated"])
def test_a_damaged_generator(folder, tmp_path, harm):
    shutil.copytree(folder, tmp_path / "g")
    weights = tmp_path / "g" / "unet" / "diffusion_pytorch_model.safetensors"
    if harm == "missing":
        weights.unlink()
    else:
        weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(InputError, match="generator is damaged") as caught:
        open_generator(tmp_path / "g")
    assert caught.value.problems[0].file == str(tmp_path / "g")


def test_the_index_names_the_tokens_class(folder):
    index = json.loads((folder / "model_index.json").read_text())
    assert index["tokens"] == ["equigen.diffusion.networks", "ConditionTokens"]
    assert index["_class_name"] == "EquigenPipeline"


def test_weights_that_training_did_not_write_are_refused_by_name(generator, tmp_path):
    """One flipped bit of a weight: the file can be read, its hash is not that of the generator's record."""
    from equigen.diffusion import open_any_generator

    copy = shutil.copytree(generator.folder, tmp_path / "g")
    file = copy / "unet" / "diffusion_pytorch_model.safetensors"
    data = bytearray(file.read_bytes())
    data[-2] ^= 1
    file.write_bytes(data)
    with pytest.raises(InputError, match="is not what training wrote") as caught:
        open_any_generator(copy, "cpu")
    assert [problem.file for problem in caught.value.problems] == [str(file)]

"""What a training with prompts starts from: opened as a training on another device would have it, checked early."""

import pytest
import torch
from tiny_pipelines import clip_encoder, clip_tokenizer, tiny_pixart, tiny_sd

from equigen.diffusion import open_any_generator
from equigen.errors import InputError
from equigen.latents import load_autoencoder
from equigen.training import TrainSettings, train
from equigen.training.pipeline import check_base, pipeline_factory, text_key


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_sd(tmp_path_factory.mktemp("base") / "sd")


@pytest.fixture(scope="module")
def coder():
    return load_autoencoder()


def settings(base, **changes):
    return TrainSettings(base=str(base), **{"size": 32, "images": 8, "batch": 8, "probe_images": 8, "ema": 0,
                                            "mechanism": "none", "seed": 1, "rank": 2, **changes})  # fmt: skip


def ready(chosen, coder, training=None):
    return pipeline_factory(chosen, coder, lambda: 1.0).open_trainable("cpu", training)


@pytest.fixture(scope="module")
def lora(folder, phantom_cohort, tmp_path_factory):
    place = tmp_path_factory.mktemp("lora")
    return train(phantom_cohort, settings=settings(folder), out=place / "g", latents=place / "l", show=False).folder


def test_what_lies_beneath_lora_is_in_the_precision_of_the_training_wherever_it_is_opened(folder, lora, coder):
    """Half precision on a GPU, from which training goes on although the weights know their base in full precision."""
    chosen = settings(folder, start=str(lora))
    here, there = ready(chosen, coder), ready(chosen, coder, "cuda")
    assert (here.dtype, there.dtype) == (torch.float32, torch.bfloat16)
    assert ready(settings(folder, precision="fp16"), coder, "cuda").dtype == torch.float16
    assert ready(settings(folder, precision="fp32"), coder, "cuda").dtype == torch.float32
    assert ready(settings(folder, tune="unet", rank=16), coder, "cuda").dtype == torch.float32
    mine, theirs = (
        {name: value for name, value in side.network.named_parameters() if "lora_" in name} for side in (here, there)
    )
    assert all(torch.equal(value, theirs[name]) and value.dtype == torch.float32 for name, value in mine.items())
    fresh = dict(ready(settings(folder), coder).network.named_parameters())
    assert any(bool((value != fresh[name]).any()) for name, value in mine.items())  # it went on


def test_lora_weights_open_in_half_precision(lora):
    pipeline = open_any_generator(lora, "cpu", "bf16").pipeline
    assert {pipeline.unet.dtype, pipeline.vae.dtype, pipeline.text_encoder.dtype} == {torch.bfloat16}
    assert any("lora_" in name for name, _ in pipeline.unet.named_parameters())


def test_the_key_is_of_weights_not_of_places(folder, lora, coder, phantom_cohort, tmp_path):
    moved = tiny_sd(tmp_path / "moved")
    other = tiny_sd(tmp_path / "other", seed=9)
    keys = [text_key(phantom_cohort, ready(chosen, coder).hash, chosen) for chosen in
            (settings(folder), settings(moved), settings(other), settings(folder, start=str(lora)))]  # fmt: skip
    assert keys[0] == keys[1] and len(set(keys)) == 3


@pytest.mark.parametrize(("changes", "words"), [
    ({"size": 30}, "use a multiple of 4"),
    ({"start": "nowhere"}, "There are no LoRA weights"),
    ({"tune": "unet", "rank": 16, "start": "nowhere"}, "There is no pretrained pipeline"),
    ({"base": "nobody/nothing/here"}, "There is no pretrained pipeline"),
])  # fmt: skip
def test_what_cannot_be_started_from_is_refused(folder, coder, changes, words):
    with pytest.raises(InputError, match=words):
        check_base(settings(**{"base": folder, **changes}), coder)


def test_lora_that_plain_diffusers_could_not_load_is_refused(coder, tmp_path):
    chosen = settings(tiny_pixart(tmp_path / "pixart"), tune="lora+text")
    with pytest.raises(InputError, match="LoRA layers cannot be added"):
        check_base(chosen, coder)


def test_a_network_from_scratch_is_checked_before_anything_is_encoded(coder, tmp_path):
    clip_encoder(3).save_pretrained(tmp_path / "clip")
    clip_tokenizer().save_pretrained(tmp_path / "clip")
    common = {"preset": "tiny", "text_encoder": str(tmp_path / "clip")}
    assert check_base(TrainSettings(size=64, **common), coder).size == 64
    with pytest.raises(InputError, match="use a multiple of 64"):
        check_base(TrainSettings(size=32, **common), coder)
    with pytest.raises(InputError, match="There is no text encoder"):
        check_base(TrainSettings(size=64, preset="tiny", text_encoder=str(tmp_path / "none")), coder)

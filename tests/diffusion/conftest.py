"""A vocabulary of three kinds of field, and a pipeline of small random networks."""

import json
from functools import cache
from unittest.mock import patch

import diffusers
import pandas as pd
import pytest
import torch
from tiny_pipelines import old_habits, tiny_pixart, tiny_sd, tiny_sd3, tiny_sdxl

from equigen.diffusion import PRESETS, EquigenPipeline, Vocabulary, build_tokens, build_unet, noise_schedule
from equigen.latents import load_autoencoder

FIELDS = {
    "attr.sex": ["female", "male"],
    "attr.age": ["young", "middle", "old"],
    "label.dx": ["nv", "mel"],
    "label.findings=mass": ["absent", "present"],
    "label.findings=edema": ["absent", "present"],
}
SMALL = {"channels": (16, 32), "tokens": 16, "head": 16, "layers": 1}


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def small_preset():
    with patch.dict(PRESETS, tiny=SMALL):
        yield SMALL


@pytest.fixture
def words():
    return Vocabulary(FIELDS)


@pytest.fixture(scope="session")
def pipeline():
    """Images of 32 pixels; the network's last layer is made larger so that what it says can be seen in the images."""
    words = Vocabulary(FIELDS)
    with patch.dict(PRESETS, tiny=SMALL):
        unet, tokens = build_unet("tiny", 12, 4, 0), build_tokens(words.sizes, "tiny", 0)
    mean, std = [0.1 * channel - 0.5 for channel in range(12)], [0.3 + 0.02 * channel for channel in range(12)]
    return EquigenPipeline(unet, tokens, load_autoencoder().network, noise_schedule(), mean, std, words.fields, 32)


@pytest.fixture(scope="session")
def conditions():
    return pd.DataFrame(
        {
            "attr.sex": ["female", "male", None, "male"],
            "attr.age": ["young", "old", "old", None],
            "label.dx": ["nv", "mel", "mel", "nv"],
            "label.findings": ["", "mass|edema", None, "edema"],
        }
    )


KINDS = {
    "sd": tiny_sd,
    "sd2": lambda place: tiny_sd(place, "v_prediction"),
    "sdxl": tiny_sdxl,
    "sd3": tiny_sd3,
    "sd3-t5": lambda place: tiny_sd3(place, t5=True),
    "pixart": tiny_pixart,
    "pixart-sigma": lambda place: tiny_pixart(place, sigma=True),
}


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory):
    """folder_of(kind): the folder of a small pipeline, written once. Read only."""
    home = tmp_path_factory.mktemp("pipelines")
    return cache(lambda kind: KINDS[kind](home / kind))


@pytest.fixture
def plain():
    """plain(folder): the pipeline as diffusers alone opens it."""

    def opened(folder):
        index = json.loads((folder / "model_index.json").read_text())
        third = {"text_encoder_3": None, "tokenizer_3": None} if index.get("text_encoder_3") == [None, None] else {}
        return getattr(diffusers, index["_class_name"]).from_pretrained(str(folder), use_safetensors=True, **third)

    return opened


@pytest.fixture
def image_of():
    """image_of(plain pipeline, prompt, **settings): one image [H, W, 3] of three steps."""

    def make(pipeline, prompt="a retina with glaucoma", **settings):
        pipeline.set_progress_bar_config(disable=True)
        if type(pipeline).__name__.startswith("PixArt"):
            settings = {"use_resolution_binning": False, "clean_caption": False, **settings}
        generator = torch.Generator().manual_seed(5)
        with old_habits():
            call = {"num_inference_steps": 3, "generator": generator, "output_type": "np", **settings}
            return pipeline(prompt, **call).images[0]

    return make

"""A vocabulary of three kinds of field, and a pipeline of small random networks."""

from unittest.mock import patch

import pandas as pd
import pytest
import torch

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
    return EquigenPipeline(
        unet, tokens, load_autoencoder().network, noise_schedule(), mean, std, words.fields, 32
    )


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

"""An untrained autoencoder is the code of principal components, computed here by numpy's SVD."""

import numpy as np
import pytest
import torch

from equigen.latents import AutoencoderSettings
from equigen.latents.autoencoder import to_blocks, to_tensor
from equigen.latents.principal_components import LATENT_SPREAD, build_autoencoder, principal_components

SETTINGS = AutoencoderSettings(
    factor=4, latent_channels=6, encoder_channels=16, decoder_channels=16, encoder_blocks=1, decoder_blocks=1, patch=32
)


@pytest.fixture(scope="module")
def blocks(phantoms):
    return to_blocks(to_tensor(phantoms(24, 32)), SETTINGS.factor)


def linear_code(rows, count):
    """Mean, directions and spread [count] of rows [N, D], by singular values."""
    mean = rows.mean(0)
    _, singular, directions = np.linalg.svd(rows - mean, full_matrices=False)
    return mean, directions[:count], singular[:count] / np.sqrt(len(rows))


def rows_of(blocks):
    """[N, D, h, w] in [-1, 1] -> rows in [0, 1], as AutoencoderTiny sees them inside."""
    return ((blocks.permute(0, 2, 3, 1).reshape(-1, blocks.shape[1]) + 1) / 2).double().numpy()


def test_principal_components_are_those_of_numpy(blocks):
    rows = rows_of(blocks)
    mean, directions, spread = principal_components(torch.from_numpy(rows).float(), 6)
    expected = linear_code(rows, 6)
    assert np.allclose(mean, expected[0], atol=1e-5) and np.allclose(spread, expected[2], rtol=1e-3)
    assert np.allclose(np.abs((directions.double().numpy() * expected[1]).sum(1)), 1, atol=1e-3)  # up to sign
    assert np.allclose(directions @ directions.T, np.eye(6), atol=1e-5)


def test_the_untrained_network_is_the_linear_code(blocks):
    network = build_autoencoder(SETTINGS, 0, blocks).eval()
    rows = rows_of(blocks)
    mean, directions, spread = linear_code(rows, 6)
    code = (rows - mean) @ directions.T
    with torch.no_grad():
        latents = network.encode(blocks).latents
        decoded = network.decode(latents).sample
    flat = latents.permute(0, 2, 3, 1).reshape(-1, 6).double().numpy()
    signs = np.sign((flat * code).sum(0))
    assert np.allclose(flat, LATENT_SPREAD * signs * code / spread, atol=2e-3)
    assert np.allclose(flat.std(0), LATENT_SPREAD, rtol=1e-3)
    inside = np.abs(flat).max(1) < 0.5  # where 3 tanh(z / 3) is z to a part in a hundred
    assert inside.mean() > 0.3
    linear = code @ directions + mean
    assert np.abs(rows_of(decoded) - linear)[inside].max() < 0.01
    assert np.abs(rows_of(decoded) - rows)[inside].mean() < 0.7 * np.abs(rows - mean)[inside].mean()


def test_the_decoder_is_linear_up_to_the_soft_clamp(blocks):
    network = build_autoencoder(SETTINGS, 0, blocks).eval()
    mean, directions, spread = principal_components(torch.from_numpy(rows_of(blocks)).float(), 6)
    latents = torch.zeros(1, 6, 4, 4)
    latents[0, 2] = 1.5
    with torch.no_grad():
        decoded = network.decode(latents).sample
    clamped = 3 * np.tanh(1.5 / 3)
    expected = mean + clamped * spread[2] / LATENT_SPREAD * directions[2]
    assert torch.allclose((decoded[0, :, 1, 1] + 1) / 2, expected, atol=1e-4)


def test_a_seed_gives_the_same_weights_and_leaves_global_numbers_alone(blocks):
    before = torch.get_rng_state()
    one, two = build_autoencoder(SETTINGS, 3, blocks), build_autoencoder(SETTINGS, 3, blocks)
    other = build_autoencoder(SETTINGS, 4, blocks)
    assert torch.equal(torch.get_rng_state(), before)
    name = "encoder.layers.1.conv.0.weight"
    assert torch.equal(one.state_dict()[name], two.state_dict()[name])
    assert not torch.equal(one.state_dict()[name], other.state_dict()[name])

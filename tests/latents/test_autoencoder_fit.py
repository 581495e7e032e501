"""Fitting an autoencoder: patches, the learning rate, improvement on the linear code, resuming bit for bit."""

import numpy as np
import pytest
import torch

from equigen.errors import InputError
from equigen.latents import Autoencoder, AutoencoderSettings, fit_autoencoder, psnr
from equigen.latents import fitting as fit
from equigen.latents.autoencoder import to_blocks, to_tensor
from equigen.latents.fitting import draw_batch, draw_patch, learning_rate, patch_loss
from equigen.latents.principal_components import build_autoencoder

SMALL = AutoencoderSettings(
    factor=4, latent_channels=4, encoder_channels=16, decoder_channels=16, encoder_blocks=1, decoder_blocks=1,
    patch=32, batch=8, patches=96, checkpoint_every=32,
)  # fmt: skip


@pytest.fixture(autouse=True)
def few_batches(monkeypatch):
    monkeypatch.setattr(fit, "BASIS_BATCHES", 6)


@pytest.fixture(scope="module")
def sources(phantoms):
    return [list(phantoms(10, 48)), list(phantoms(4, 32, seed=1))]


def weights(autoencoder):
    return autoencoder.network.state_dict()


def test_a_patch_is_a_crop_of_the_image():
    rng = np.random.default_rng(0)
    image = np.arange(32 * 32 * 3, dtype=np.uint64).reshape(32, 32, 3).astype(np.uint8)
    patch = draw_patch(image, 32, 0.0, rng)
    flips = [image, image[:, ::-1], image[::-1], image[::-1, ::-1]]
    assert any(np.array_equal(patch, flip) for flip in flips)
    seen = {draw_patch(image, 32, 0.0, rng).tobytes() for _ in range(40)}
    assert len(seen) == 4  # all four flips, and colours untouched
    assert draw_patch(image[:, :20], 32, 0.0, rng).shape == (32, 32, 3)  # a small image is enlarged


def test_scales_run_from_the_whole_image_to_its_own_pixels():
    image = np.zeros((128, 128, 3), dtype=np.uint8)
    image[:, 64:] = 255  # the edge is in every patch of the whole image, in few at native pixels
    rng = np.random.default_rng(0)
    means = [draw_patch(image, 32, 0.0, rng).mean() for _ in range(200)]
    one_sided = np.mean([mean in (0.0, 255.0) for mean in means])
    assert 0.2 < one_sided < 0.8


def test_a_batch_depends_on_seed_and_step_alone_and_sources_count_alike(sources):
    assert np.array_equal(draw_batch(sources, SMALL, 0, 5), draw_batch(sources, SMALL, 0, 5))
    assert not np.array_equal(draw_batch(sources, SMALL, 0, 5), draw_batch(sources, SMALL, 0, 6))
    grey, black = np.full((32, 32, 3), 128, np.uint8), np.zeros((32, 32, 3), np.uint8)
    plain = SMALL.model_copy(update={"colour": 0.0, "batch": 400})
    batch = draw_batch([[grey] * 9, [black]], plain, 0, 0)
    assert batch.shape == (400, 32, 32, 3) and 0.4 < (batch[:, 0, 0, 0] == 0).mean() < 0.6


def test_learning_rate_by_hand():
    settings = SMALL.model_copy(update={"patches": 1000, "learning_rate": 0.01})
    assert learning_rate(settings, 0) == pytest.approx(0, abs=1e-9)
    assert learning_rate(settings, 10) == pytest.approx(0.005, rel=1e-3)  # half of the 2 % of warm-up
    assert learning_rate(settings, 500) == pytest.approx(0.005)  # half of the cosine
    assert learning_rate(settings, 1000) == pytest.approx(0, abs=1e-9)


def test_the_loss_by_hand():
    class Halves(torch.nn.Module):
        def encode(self, pixels):
            return type("Code", (), {"latents": pixels * 4})

        def decode(self, latents):
            return type("Picture", (), {"sample": latents / 8})

    pixels = torch.tensor([1.0, -0.5]).view(1, 1, 1, 2)
    loss, squared = patch_loss(Halves(), pixels, torch.zeros(1, 1, 1, 2))
    # latents 4, -2; decoded 0.5, -0.25; differences -0.5, 0.25; one latent is 2 outside of +-2
    assert squared.item() == pytest.approx((0.25 + 0.0625) / 2)
    assert loss.item() == pytest.approx(0.15625 + 0.05 * 0.375 + 0.01 * 2)
    _, noisy = patch_loss(Halves(), pixels, torch.full((1, 1, 1, 2), 8.0))
    assert noisy.item() == pytest.approx((0.5**2 + 1.25**2) / 2)


def test_training_improves_on_the_linear_code(sources, phantoms, tmp_path):
    settings = SMALL.model_copy(update={"patches": 1600, "checkpoint_every": 10_000, "learning_rate": 2e-3})
    first = np.concatenate([draw_batch(sources, settings, 0, -1 - index) for index in range(6)])
    start = Autoencoder(build_autoencoder(settings, 0, to_blocks(to_tensor(first), 4)))
    fitted = fit_autoencoder(sources, tmp_path / "c.safetensors", settings, show=False)
    images = phantoms(16, 48, seed=9)
    before, after = (psnr(images, coder.decode(coder.encode(images))).mean() for coder in (start, fitted))
    assert after > before + 0.5
    assert fitted.factor == 4 and fitted.channels == 4


class Stopped(Exception):
    """The injected interruption."""


@pytest.mark.parametrize("stop", [3, 7])
def test_an_interrupted_fit_goes_on_bit_for_bit(sources, tmp_path, monkeypatch, stop):
    whole = fit_autoencoder(sources, tmp_path / "whole.safetensors", SMALL, seed=5, show=False)
    steps, step = [], fit._step

    def until(*arguments):
        steps.append(arguments[-1])
        if len(steps) == stop + 1:
            raise Stopped
        return step(*arguments)

    monkeypatch.setattr(fit, "_step", until)
    with pytest.raises(Stopped):
        fit_autoencoder(sources, tmp_path / "cut.safetensors", SMALL, seed=5, show=False)
    assert (tmp_path / "cut.safetensors").is_file() == (stop > 4)
    again = fit_autoencoder(sources, tmp_path / "cut.safetensors", SMALL, seed=5, show=False)
    assert steps[stop + 1] == (32 if stop > 4 else 0)  # what was saved was not done again
    assert all(torch.equal(value, weights(whole)[name]) for name, value in weights(again).items())
    assert (tmp_path / "cut.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()


def test_a_finished_fit_returns_at_once(sources, tmp_path, monkeypatch):
    whole = fit_autoencoder(sources, tmp_path / "c.safetensors", SMALL, show=False)
    monkeypatch.setattr(fit, "_step", lambda *arguments: pytest.fail("a step was made"))
    again = fit_autoencoder(sources, tmp_path / "c.safetensors", SMALL, show=False)
    assert again.hash == whole.hash
    for changes, seed in [({"noise": 0.1}, 0), ({}, 1)]:
        with pytest.raises(InputError, match="other settings or another seed") as caught:
            fit_autoencoder(sources, tmp_path / "c.safetensors", SMALL.model_copy(update=changes), seed, show=False)
        assert caught.value.problems[0].file == str(tmp_path / "c.safetensors")


@pytest.mark.parametrize("sources", [[], [[]]])
def test_nothing_to_train_on(sources, tmp_path):
    with pytest.raises(InputError, match="no images"):
        fit_autoencoder(sources, tmp_path / "c.safetensors", SMALL, show=False)


@pytest.mark.parametrize("changes", [{"patch": 34}, {"latent_channels": 9}, {"patches": 0}, {"surprise": 1}])
def test_settings_that_do_not_go_together(changes):
    with pytest.raises(ValueError, match=r"patch|latent_channels|surprise"):
        AutoencoderSettings(**{**SMALL.model_dump(), **changes})

"""Autoencoders behind encode and decode: the shipped one, others, and what is refused."""

import json
import os
import shutil
import socket
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DModel
from safetensors.torch import load_file, save_file

from equigen.errors import InputError
from equigen.latents import Autoencoder, load_autoencoder, psnr, shipped_folder
from equigen.latents.autoencoder import to_blocks, to_images, to_pixels, to_tensor


def decoded(autoencoder, images):
    return autoencoder.decode(autoencoder.encode(images))


def test_pixels_to_tensors_and_back():
    levels = np.arange(256, dtype=np.uint8)
    images = np.stack([levels.reshape(16, 16)] * 3, axis=-1)[None]
    tensor = to_tensor(images)
    assert tensor.shape == (1, 3, 16, 16) and tensor.min() == -1 and tensor.max() == 1
    assert tensor[0, 2, 3, 3].item() == pytest.approx(51 / 127.5 - 1)
    assert np.array_equal(to_images(tensor), images)
    assert to_images(torch.full((1, 3, 1, 1), 1.2)).item(0) == 255  # clamped, not wrapped
    assert to_images(torch.full((1, 3, 1, 1), -1.2)).item(0) == 0


def test_blocks_hold_the_pixels_of_their_place():
    pixels = torch.arange(3 * 4 * 4.0).view(1, 3, 4, 4)
    blocks = to_blocks(pixels, 2)
    assert blocks.shape == (1, 12, 2, 2)
    assert sorted(blocks[0, :4, 0, 1].tolist()) == sorted(pixels[0, 0, :2, 2:].flatten().tolist())
    assert torch.equal(to_pixels(blocks, 2), pixels) and to_blocks(pixels, 1) is pixels


def test_psnr_by_hand():
    black = np.zeros((2, 2, 2, 3), dtype=np.uint8)
    grey = black.copy()
    grey[0] += 10  # mean squared error 100 -> 10 log10(65025 / 100)
    assert psnr(black, grey).tolist() == [pytest.approx(28.1308, abs=1e-4), np.inf]


def test_the_shipped_autoencoder_is_small_and_opens_offline(monkeypatch):
    def no_network(*args, **kwargs):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    files = list(shipped_folder().iterdir())
    assert {path.suffix for path in files} <= {".json", ".md", ".safetensors"}  # nothing pickled
    assert sum(path.stat().st_size for path in files) <= 6_000_000
    opened = load_autoencoder("shipped")
    assert opened.kind == "AutoencoderTiny" and (opened.channels, opened.factor) == (12, 8)
    assert {parameter.dtype for parameter in opened.network.parameters()} == {torch.float32}
    assert opened.hash == json.loads((shipped_folder() / "reconstruction.json").read_text())["hash"]
    assert opened.hash in (shipped_folder() / "MODEL_CARD.md").read_text()


def test_shapes_of_the_shipped_autoencoder(shipped, phantoms):
    latents = shipped.encode(phantoms(3, 48))
    assert latents.shape == (3, 12, 6, 6) and latents.dtype == torch.float32 and not latents.requires_grad
    images = shipped.decode(latents)
    assert images.shape == (3, 48, 48, 3) and images.dtype == np.uint8


def test_the_shipped_autoencoder_on_fresh_phantoms(shipped, phantoms):
    images = phantoms(48, 64, seed=12_345)
    assert psnr(images, decoded(shipped, images)).mean() >= 30
    assert psnr(images, np.roll(decoded(shipped, images), 1, axis=0)).mean() < 25  # it is each image's own


def test_an_image_has_one_latent_whatever_its_batch(shipped, phantoms):
    images = phantoms(5, 32)
    together, alone = shipped.encode(images), torch.cat([shipped.encode(images[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert torch.equal(shipped.encode(images), together)  # nothing is drawn


@pytest.mark.parametrize("place", ["kl", "pipeline"])
def test_a_diffusers_folder(kl_folder, phantoms, place):
    if place == "pipeline":
        shutil.move(kl_folder, kl_folder.parent / "pipeline" / "vae")
    opened = load_autoencoder(kl_folder.parent / place)
    assert opened.kind == "AutoencoderKL" and (opened.channels, opened.factor, opened.block) == (3, 4, 1)
    images = phantoms(2, 32)
    latents = opened.encode(images)
    assert latents.shape == (2, 3, 8, 8) and torch.equal(latents, opened.encode(images))  # the mode, not a draw
    with torch.no_grad():
        expected = opened.network.encode(torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1).latent_dist.mean
    assert torch.equal(latents, expected)
    assert opened.decode(latents).shape == images.shape


def test_save_and_open_again(kl_folder, shipped, phantoms, tmp_path):
    for number, autoencoder in enumerate([shipped, load_autoencoder(kl_folder)]):
        autoencoder.save(tmp_path / str(number))
        again = load_autoencoder(tmp_path / str(number))
        images = phantoms(2, 32)
        assert again.hash == autoencoder.hash and np.array_equal(decoded(again, images), decoded(autoencoder, images))


def test_the_hash_is_the_weights(kl_folder):
    opened = load_autoencoder(kl_folder)
    before = opened.hash
    next(opened.network.parameters()).view(-1)[0] += 1e-3
    assert Autoencoder(opened.network).hash != before == load_autoencoder(kl_folder).hash


def test_weights_need_no_gradient(shipped):
    assert not any(parameter.requires_grad for parameter in shipped.network.parameters())
    assert not shipped.network.training


@pytest.mark.parametrize("size", [60, 24, 4, 0])
def test_a_size_that_does_not_fit(shipped, size):
    with pytest.raises(InputError, match="multiple of 8 that is at least 32") as caught:
        shipped.check_size(size)
    assert str(size) in caught.value.problems[0].message
    shipped.check_size(32)


def refused(path, match):
    with pytest.raises(InputError, match=match) as caught:
        load_autoencoder(path)
    problem = caught.value.problems[0]
    assert problem.mend
    return problem


def test_a_missing_folder(tmp_path):
    assert refused(tmp_path / "absent", "not found").file == str(tmp_path / "absent")


def test_another_class(tmp_path):
    UNet2DModel(
        sample_size=8,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        layers_per_block=1,
        down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
    ).save_pretrained(str(tmp_path))
    problem = refused(tmp_path, "not supported")
    assert "UNet2DModel" in problem.message and "AutoencoderKL, AutoencoderTiny" in problem.mend


def test_a_configuration_that_is_no_json(kl_folder):
    (kl_folder / "config.json").write_text("{")
    assert refused(kl_folder, "damaged").file == str(kl_folder / "config.json")


def test_missing_and_pickled_weights(kl_folder):
    weights = kl_folder / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), kl_folder / "diffusion_pytorch_model.bin")
    weights.unlink()
    assert "safe_serialization=True" in refused(kl_folder, "only weights are pickles").mend


def test_a_pickle_beside_the_weights_is_never_opened(kl_folder, monkeypatch):
    (kl_folder / "diffusion_pytorch_model.bin").write_bytes(b"no pickle at all")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("a pickle was opened"))
    load_autoencoder(kl_folder)


def test_weights_of_another_shape_or_without_a_value(kl_folder):
    weights = kl_folder / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    name = "decoder.conv_in.bias"
    save_file({**tensors, name: torch.full_like(tensors[name], torch.inf)}, weights, metadata={"format": "pt"})
    assert f"weight {name} holds NaN or infinity" in refused(kl_folder, "damaged").message
    save_file({**tensors, name: torch.zeros(len(tensors[name]) + 1)}, weights, metadata={"format": "pt"})
    assert name in refused(kl_folder, "damaged").message


def test_an_autoencoder_that_asks_for_code(kl_folder):
    config = json.loads((kl_folder / "config.json").read_text())
    (kl_folder / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "mine.Mine"}}))
    problem = refused(kl_folder, "cannot be used")
    assert "auto_map" in problem.message and problem.file == str(kl_folder / "config.json")


def test_truncated_weights(kl_folder):
    weights = kl_folder / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert refused(kl_folder, "cannot be read").file == str(kl_folder)


def test_weights_that_are_not_all_there(kl_folder):
    weights = kl_folder / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    del tensors["decoder.conv_in.weight"]
    save_file(tensors, weights, metadata={"format": "pt"})
    assert "1 weights are missing, decoder.conv_in.weight" in refused(kl_folder, "damaged").message


@pytest.mark.parametrize("channels", [1, 4])
def test_networks_that_are_not_on_rgb(tmp_path, channels):
    AutoencoderTiny(
        in_channels=channels,
        out_channels=channels,
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    ).save_pretrained(str(tmp_path))
    assert f"{channels} channels" in refused(tmp_path, "not supported").message


def test_a_full_disk_while_saving(tmp_path):
    def full(folder, safe_serialization):
        raise OSError(28, os.strerror(28))

    with pytest.raises(InputError, match="disk is full"):
        Autoencoder.save(SimpleNamespace(network=SimpleNamespace(save_pretrained=full)), tmp_path)


def test_remarks_of_diffusers_are_as_before(kl_folder):
    from diffusers.utils import logging

    before = logging.get_verbosity()
    load_autoencoder(kl_folder)
    assert logging.get_verbosity() == before
    assert isinstance(load_autoencoder(kl_folder).network, AutoencoderKL)

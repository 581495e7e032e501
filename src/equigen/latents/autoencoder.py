"""Autoencoders: ``encode`` images to latents, ``decode`` latents to images."""

from __future__ import annotations

import hashlib
import json
import math
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from diffusers.utils import logging
from numpy.typing import NDArray
from safetensors import SafetensorError

from equigen.errors import InputError, Problem
from equigen.files import convert_disk_full, hash_file
from equigen.model_files import folder_problems, nonfinite_weight
from equigen.progress import silence_library

CLASSES: dict[str, Any] = {"AutoencoderKL": AutoencoderKL, "AutoencoderTiny": AutoencoderTiny}
SHIPPED = "shipped"
SHIPPED_FILES = {  # SHA-256 of what comes with equigen
    "config.json": "a0bb1f320005d7aa352883c3bd48960e855f8d60cd081c5a02249446672d3719",
    "diffusion_pytorch_model.safetensors": "a36018af6bcb6b20b7b38fae40f51201919b310fe82e367b4a08e123e2f411d7",
}


def to_tensor(images: NDArray[np.uint8]) -> torch.Tensor:
    """[B, H, W, 3] uint8 -> [B, 3, H, W] float32 in [-1, 1], as diffusers' autoencoders expect."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def to_images(pixels: torch.Tensor) -> NDArray[np.uint8]:
    """[B, 3, H, W] float in [-1, 1] -> [B, H, W, 3] uint8, clamped and rounded to the nearest level."""
    levels = ((pixels.float().clamp(-1, 1) + 1.0) * 127.5).round().to(torch.uint8)
    return levels.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def to_blocks(pixels: torch.Tensor, block: int) -> torch.Tensor:
    """[B, 3, H, W] -> [B, 3*side^2, H/side, W/side]: each block of pixels becomes the channels of one position."""
    return torch.nn.functional.pixel_unshuffle(pixels, block) if block > 1 else pixels


def to_pixels(blocks: torch.Tensor, block: int) -> torch.Tensor:
    """The inverse of ``to_blocks``."""
    return torch.nn.functional.pixel_shuffle(blocks, block) if block > 1 else blocks


def weight_hash(module: torch.nn.Module) -> str:
    """First 16 hexadecimal digits of SHA-256 over the names, shapes and float32 bytes of all weights."""
    digest = hashlib.sha256()  # weight by weight: all of a large network at once would double its memory
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode() + str(tuple(tensor.shape)).encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


class Autoencoder:
    """A diffusers autoencoder, with the same interface for all classes.

    ``encode`` returns the posterior's mode (AutoencoderKL) or the code itself (AutoencoderTiny), so the same
    image always has the same latent. ``channels`` and ``factor`` give the latent shape [channels, H/factor, W/factor].
    """

    def __init__(self, network: Any) -> None:
        self.network = network.eval().requires_grad_(False)
        self.channels = int(network.config.latent_channels)
        blocks = getattr(network.config, "encoder_block_out_channels", None) or network.config.block_out_channels
        self.block = block_side(int(network.config.in_channels))
        self.factor = self.block * 2 ** (len(blocks) - 1)
        self.hash = weight_hash(network)

    @property
    def kind(self) -> Literal["AutoencoderKL", "AutoencoderTiny"]:
        """The diffusers class."""
        return type(self.network).__name__  # type: ignore[return-value]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        weight: torch.Tensor = next(self.network.parameters())
        return weight.device

    def to(self, device: str | torch.device) -> Autoencoder:
        """Move the weights."""
        self.network.to(device)
        return self

    def check_size(self, size: int) -> None:
        """Raise InputError unless images of ``size`` pixels divide evenly into latents of at least 4 x 4."""
        if size % self.factor or size // self.factor < 4:
            mend = f"use a multiple of {self.factor} that is at least {4 * self.factor}"
            raise InputError("The image size does not fit the autoencoder.", [Problem(f"size {size}", mend)])

    @torch.no_grad()
    def encode(self, images: NDArray[np.uint8]) -> torch.Tensor:
        """[B, H, W, 3] uint8 -> [B, channels, H/factor, W/factor] float32 on the autoencoder's device."""
        encoded = self.network.encode(to_blocks(to_tensor(images).to(self.device), self.block))
        latents = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
        return latents.float()  # type: ignore[no-any-return]

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> NDArray[np.uint8]:
        """[B, channels, h, w] -> [B, h*factor, w*factor, 3] uint8."""
        return to_images(to_pixels(self.network.decode(latents.to(self.device)).sample, self.block))

    def reconstruct(self, images: NDArray[np.uint8], batch: int = 64) -> NDArray[np.uint8]:
        """[N, H, W, 3] uint8 through the autoencoder and back, ``batch`` at a time."""
        parts = [images[low : low + batch] for low in range(0, len(images), batch)]
        return np.concatenate([self.decode(self.encode(batch_images)) for batch_images in parts]) if parts else images

    def save(self, folder: str | Path) -> None:
        """Write a folder that diffusers' ``from_pretrained`` opens."""
        with convert_disk_full(folder):
            self.network.save_pretrained(str(folder), safe_serialization=True)


def block_side(channels: int) -> int:
    """Side of the pixel blocks that a network's input channels hold: 1 for plain RGB. InputError if there is none."""
    size = math.isqrt(channels // 3)
    if size < 1 or 3 * size**2 != channels:
        problem = Problem(f"it takes {channels} channels", "use one that takes RGB images (3 channels)")
        raise InputError("This kind of autoencoder is not supported.", [problem])
    return size


def shipped_folder() -> Path:
    """Return the folder of the autoencoder that comes with equigen, with its model card."""
    return Path(str(resources.files("equigen.latents") / "shipped"))


def load_autoencoder(path: str | Path = SHIPPED, device: str | torch.device = "cpu") -> Autoencoder:
    """Open a diffusers autoencoder folder (AutoencoderKL or AutoencoderTiny); ``shipped`` is equigen's own.

    Also takes a pipeline folder with a ``vae`` sub-folder. Weights are read from safetensors only and kept in
    float32. Raises InputError that names the folder and what is missing.
    """
    folder = shipped_folder() if str(path) == SHIPPED else Path(path)
    if not (folder / "config.json").is_file() and (folder / "vae" / "config.json").is_file():
        folder = folder / "vae"
    config = folder / "config.json"
    if not config.is_file():
        problem = Problem(
            "no config.json there",
            "give a diffusers autoencoder folder, or leave it out to use the shipped one",
            file=str(folder),
        )
        raise InputError("The autoencoder was not found.", [problem])
    try:
        kind = json.loads(config.read_text()).get("_class_name")
    except ValueError as error:
        problem = Problem(f"is no JSON ({error})", "write the autoencoder's folder again", file=str(config))
        raise InputError("The autoencoder is damaged.", [problem]) from error
    if kind not in CLASSES:
        problem = Problem(f"holds a {kind}", f"use one of {', '.join(CLASSES)}", file=str(config))
        raise InputError("This kind of autoencoder is not supported.", [problem])
    if str(path) == SHIPPED:
        problems = [
            Problem("its content is not that of the package", "install equigen again", file=str(folder / name))
            for name, digest in SHIPPED_FILES.items()
            if not (folder / name).is_file() or hash_file(folder / name) != digest
        ]
        if problems:
            raise InputError("The shipped autoencoder is damaged.", problems)
    problems = folder_problems(folder)
    if problems:
        raise InputError("The autoencoder cannot be used.", problems)
    return Autoencoder(_open(CLASSES[kind], folder).to(device))


def _open(kind: Any, folder: Path) -> Any:
    """Return the network with every weight from the folder; diffusers alone would fill missing ones at random."""
    mend = "weights are read from diffusion_pytorch_model.safetensors; save them with safe_serialization=True"
    try:
        with silence_library(logging):  # AutoencoderTiny remarks on a setting that it wrote itself
            network, loading_info = kind.from_pretrained(
                str(folder),
                use_safetensors=True,
                local_files_only=True,
                torch_dtype=torch.float32,
                low_cpu_mem_usage=False,
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        problem = Problem(f"its weights cannot be read ({error})", mend, file=str(folder))
        raise InputError("The autoencoder is damaged.", [problem]) from error
    lacking = [
        Problem(f"{len(names)} weights are {fault}, {names[0]} for one", mend, file=str(folder))
        for key, fault in (("missing_keys", "missing"), ("mismatched_keys", "of another shape"))
        if (names := sorted(str(name) for name in loading_info.get(key, ())))
    ]
    if lacking:
        raise InputError("The autoencoder is damaged.", lacking)
    damage = nonfinite_weight(network.state_dict())
    if damage is not None:
        raise InputError("The autoencoder is damaged.", [Problem(damage, mend, file=str(folder))])
    network.register_to_config(_name_or_path="")  # paths of this machine are not saved with a generator
    return network

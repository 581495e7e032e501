"""Interface of encoders, from uint8 images to features and class probabilities, and encoders from torch networks."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import interpolate

from equigen.devices import best_device
from equigen.errors import InputError, Problem
from equigen.files import hash_value

Images = NDArray[np.uint8]
EncoderOutput = tuple[NDArray[np.float32], NDArray[np.float32] | None]
NetworkOutput = tuple[torch.Tensor, torch.Tensor | None]
BATCH = 16  # larger batches exceed the allocator's cache, and are two to three times slower on CPUs
BATCH_ON_GPU = 128
CHANNELS = "RGB (grey images repeated to three channels)"


@runtime_checkable
class Encoder(Protocol):
    """An encoder of images; name, weights and preprocessing identify it, and every metric depends on them."""

    @property
    def name(self) -> str:
        """Short name, with the resolution."""

    @property
    def weight_hash(self) -> str:
        """SHA-256 of the weights, or another text that changes when they do."""

    @property
    def preprocessing(self) -> str:
        """Description of the preprocessing of a uint8 image."""

    @property
    def dimension(self) -> int:
        """Number of features D."""

    def __call__(self, images: Images) -> EncoderOutput:
        """Return features float32 [N, D] and probabilities [N, C], or None, of uint8 [N, H, W, 3]."""


def identity(encoder: Encoder) -> str:
    """Return the encoder's name with the first 12 digits of a hash of its weights and preprocessing."""
    digest = hash_value([encoder.weight_hash, encoder.preprocessing])
    return f"{encoder.name}#{digest[:12]}"


class Preparation(Protocol):
    """Preprocessing of uint8 images for a network."""

    @property
    def resolution(self) -> int:
        """Width R in pixels of the network's input."""

    @property
    def description(self) -> str:
        """Description of the preprocessing."""

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Return float32 [N, 3, R, R], on the same device, from uint8 [N, H, W, 3]."""


@dataclass(frozen=True)
class Bicubic:
    """Bicubic resize with antialiasing to a square of ``resolution``, then (x / scale - mean) / std per channel.

    The filter widens when shrinking (without it features are biased: Parmar et al., CVPR 2022, section 3). Values
    stay float: they are not rounded to 8 bit after the resize.

    Raises:
        InputError: resolution is not from 1 to 4096, or mean and std are not three finite numbers with std > 0.

    """

    resolution: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float = 255.0

    def __post_init__(self) -> None:
        problems = []
        if not 1 <= self.resolution <= 4096:
            problems.append(Problem(f"resolution {self.resolution}", "choose one from 1 to 4096"))
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != 3 or not all(map(math.isfinite, values)) or (name == "std" and min(values) <= 0):
                sign = "positive " if name == "std" else ""
                problems.append(Problem(f"{name} {tuple(values)}", f"give three finite {sign}numbers"))
        if problems:
            raise InputError("Images cannot be prepared for the encoder like this.", problems)

    @property
    def description(self) -> str:
        """Description of the preprocessing."""
        size = f"{self.resolution} x {self.resolution}"
        x = "x" if self.scale == 1 else f"x / {self.scale:g}"
        return (
            f"{CHANNELS}, bicubic resize with antialiasing to {size}, clipped to 0..255, not quantised, "
            f"({x} - {_format_channels(self.mean)}) / {_format_channels(self.std)}"
        )

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Return float32 [N, 3, R, R] from uint8 [N, H, W, 3]."""
        pixels, size = images.permute(0, 3, 1, 2).float(), (self.resolution, self.resolution)
        if pixels.shape[2:] != size:
            pixels = interpolate(pixels, size, mode="bicubic", align_corners=False, antialias=True).clamp(0, 255)
        mean, std = (torch.tensor(values, device=pixels.device).view(1, 3, 1, 1) for values in (self.mean, self.std))
        return (pixels / self.scale - mean) / std


def _format_channels(values: tuple[float, ...]) -> str:
    """Return ``127`` for three equal numbers, else ``[a, b, c]``."""
    texts = [f"{value:.6g}" for value in values]
    return texts[0] if len(set(texts)) == 1 else f"[{', '.join(texts)}]"


def encode_batches(
    images: Images, batch: int, encode: Callable[[Images], EncoderOutput], empty: Callable[[], EncoderOutput]
) -> EncoderOutput:
    """Return the output for all images, in batches of exactly ``batch``; the last is padded with black images.

    At one batch size an image's features have the same bits whatever the other images are, so results depend neither
    on the order of the images nor on the cache.
    """
    if len(images) == 0:
        return empty()
    results: list[NDArray[np.float32] | None] = [None, None]
    for start in range(0, len(images), batch):
        block = images[start : start + batch]
        filled = np.concatenate([block, np.zeros((batch - len(block), *block.shape[1:]), np.uint8)])
        for index, values in enumerate(encode(filled)):
            if values is None:
                continue
            rows = results[index]
            if rows is None:
                rows = results[index] = np.empty((len(images), values.shape[1]), np.float32)
            rows[start : start + batch] = values[: len(block)]
    features = results[0]
    return (features if features is not None else empty()[0]), results[1]


class NetworkEncoder:
    """A torch network behind the ``Encoder`` interface, on the GPU where there is one.

    Args:
        network: is moved to the device, set to evaluation mode and frozen.
        read: from the network's output to features [N, D] and probabilities [N, C] or None.
        name: short name; the weights' hash and the preparation's description complete the identity.
        weight_hash: SHA-256 of the weights.
        preparation: from uint8 images to the network's input.
        batch: images at once; None takes 16, on a GPU 128.
        device: None takes ``equigen.devices.best_device()``.

    On a GPU convolutions run in full float32 (no TF32) by deterministic algorithms.

    Raises:
        InputError: the network cannot take [N, 3, R, R], or does not give [N, D].

    """

    def __init__(
        self,
        network: nn.Module,
        read: Callable[[Any], NetworkOutput],
        *,
        name: str,
        weight_hash: str,
        preparation: Preparation,
        batch: int | None = None,
        device: str | None = None,
    ) -> None:
        self.name, self.weight_hash, self.preprocessing = name, weight_hash, preparation.description
        self.device = torch.device(device or best_device())
        self.batch = batch or (BATCH_ON_GPU if self.device.type == "cuda" else BATCH)
        self._read, self._prepare = read, preparation
        self._network = network.eval().requires_grad_(False).to(self.device)
        self._network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._empty = self._empty_output()
        self.dimension = int(self._empty[0].shape[1])

    def __call__(self, images: Images) -> EncoderOutput:
        """Encode uint8 [N, H, W, 3]; see ``Encoder`` and ``encode_batches``."""
        return encode_batches(images, self.batch, self._encode_batch, lambda: self._empty)

    @torch.inference_mode()
    def _encode_batch(self, images: Images) -> EncoderOutput:
        pixels = self._prepare(torch.from_numpy(np.ascontiguousarray(images)).to(self.device))
        with _full_precision(self.device):
            features, classes = self._read(self._network(pixels.contiguous(memory_format=torch.channels_last)))
        return _array(features), None if classes is None else _array(classes)

    def _empty_output(self) -> EncoderOutput:
        """Return arrays of no rows and the right widths, from encoding one grey image; InputError where that fails."""
        resolution = self._prepare.resolution
        try:
            values, classes = self._encode_batch(np.full((1, resolution, resolution, 3), 128, np.uint8))
        except (RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
            message = str(error).strip().partition("\n")[0]
            problem = Problem(
                f"on float32 [1, 3, {resolution}, {resolution}] it fails: {message}",
                "correct the resolution or the network",
            )
            raise InputError(f"The encoder {self.name} cannot be used.", [problem]) from error
        if any(output is not None and (output.ndim != 2 or len(output) != 1) for output in (values, classes)):
            shapes = ", ".join(str(output.shape) for output in (values, classes) if output is not None)
            problem = Problem(f"it gives {shapes} for one image", "pool and flatten: features must be [N, D]")
            raise InputError(f"The encoder {self.name} cannot be used.", [problem])
        return values[:0], None if classes is None else classes[:0]


def read_pair(outputs: NetworkOutput) -> NetworkOutput:
    """Return the outputs unchanged, for networks that return features and probabilities themselves."""
    return outputs


def _array(values: torch.Tensor) -> NDArray[np.float32]:
    """Return a tensor as a float32 array."""
    return values.float().cpu().numpy()


def _full_precision(device: torch.device) -> AbstractContextManager[None]:
    """Return a context of deterministic convolutions in full float32 precision."""
    if device.type != "cuda":
        return nullcontext()
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)

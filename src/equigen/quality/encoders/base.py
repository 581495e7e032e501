"""What every encoder offers: uint8 images in, features and class probabilities out, with its identity beside them."""

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
Encoded = tuple[NDArray[np.float32], NDArray[np.float32] | None]
Outputs = tuple[torch.Tensor, torch.Tensor | None]
BATCH = 16  # larger batches outgrow what the allocator keeps, and are two to three times slower on CPUs
BATCH_ON_GPU = 128
CHANNELS = "RGB (grey images repeated to three channels)"


@runtime_checkable
class Encoder(Protocol):
    """What every encoder offers; name, weights and preprocessing are part of each number made with it."""

    @property
    def name(self) -> str:
        """Short name, with the resolution."""

    @property
    def weight_hash(self) -> str:
        """SHA-256 of the weights, or another text that changes when they do."""

    @property
    def preprocessing(self) -> str:
        """In words, what is done to a uint8 image before the network sees it."""

    @property
    def dimension(self) -> int:
        """Number of features D."""

    def __call__(self, images: Images) -> Encoded:
        """Encode one batch: uint8 [N, H, W, 3] -> features float32 [N, D], probabilities [N, C] or None."""


def identity(encoder: Encoder) -> str:
    """One line that names the encoder and the first 12 digits of its weights and preprocessing hash."""
    digest = hash_value([encoder.weight_hash, encoder.preprocessing])
    return f"{encoder.name}#{digest[:12]}"


class Preparation(Protocol):
    """From stored pixels to what a network takes."""

    @property
    def resolution(self) -> int:
        """Side R in pixels of what the network sees."""

    @property
    def words(self) -> str:
        """What is done, in words."""

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """[N, H, W, 3] uint8 -> [N, 3, R, R] float32, on the same device."""


@dataclass(frozen=True)
class Bicubic:
    """Bicubic resize with antialiasing to a square of ``resolution``, then (x / scale - mean) / std per channel.

    The filter widens when shrinking (Parmar et al., CVPR 2022, section 3, show what happens where it does not).
    Values stay float: nothing is rounded to 8 bit after the resize.

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
    def words(self) -> str:
        """What is done, in words."""
        side = f"{self.resolution} x {self.resolution}"
        x = "x" if self.scale == 1 else f"x / {self.scale:g}"
        return (f"{CHANNELS}, bicubic resize with antialiasing to {side}, clipped to 0..255, not quantised, "
                f"({x} - {_short(self.mean)}) / {_short(self.std)}")

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """[N, H, W, 3] uint8 -> [N, 3, R, R] float32."""
        pixels, side = images.permute(0, 3, 1, 2).float(), (self.resolution, self.resolution)
        if pixels.shape[2:] != side:
            pixels = interpolate(pixels, side, mode="bicubic", align_corners=False, antialias=True).clamp(0, 255)
        mean, std = (torch.tensor(values, device=pixels.device).view(1, 3, 1, 1) for values in (self.mean, self.std))
        return (pixels / self.scale - mean) / std


def _short(values: tuple[float, ...]) -> str:
    """``127`` for three equal numbers, else ``[a, b, c]``."""
    texts = [f"{value:.6g}" for value in values]
    return texts[0] if len(set(texts)) == 1 else f"[{', '.join(texts)}]"


def in_batches(images: Images, batch: int, one: Callable[[Images], Encoded], empty: Callable[[], Encoded]) -> Encoded:
    """Encode in batches of exactly ``batch``, the last filled up with black images whose features are dropped.

    At one batch size an image's features have the same bits whatever it is encoded with, so results do not depend
    on the order of the images, nor on which of them come from a cache.
    """
    if len(images) == 0:
        return empty()
    whole: list[NDArray[np.float32] | None] = [None, None]
    for start in range(0, len(images), batch):
        part = images[start : start + batch]
        filled = np.concatenate([part, np.zeros((batch - len(part), *part.shape[1:]), np.uint8)])
        for index, values in enumerate(one(filled)):
            if values is None:
                continue
            rows = whole[index]
            if rows is None:
                rows = whole[index] = np.empty((len(images), values.shape[1]), np.float32)
            rows[start : start + batch] = values[: len(part)]
    features = whole[0]
    return (features if features is not None else empty()[0]), whole[1]


class NetworkEncoder:
    """A torch network behind the ``Encoder`` interface, on the GPU where there is one.

    Args:
        network: is moved to the device, set to evaluation and frozen.
        read: what the network gives -> features [N, D] and probabilities [N, C] or None.
        name: short name; the weights' hash and the preparation's words complete the identity.
        weight_hash: SHA-256 of the weights.
        preparation: from uint8 images to the network's input.
        batch: images at once; None takes 16, on a GPU 128.
        device: None takes ``equigen.devices.best_device()``.

    On a GPU convolutions run in full float32 (no TF32) by deterministic algorithms.

    Raises:
        InputError: the network cannot take [N, 3, R, R], or does not give [N, D].

    """

    def __init__(
        self, network: nn.Module, read: Callable[[Any], Outputs], *, name: str, weight_hash: str,
        preparation: Preparation, batch: int | None = None, device: str | None = None,
    ) -> None:
        self.name, self.weight_hash, self.preprocessing = name, weight_hash, preparation.words
        self.device = torch.device(device or best_device())
        self.batch = batch or (BATCH_ON_GPU if self.device.type == "cuda" else BATCH)
        self._read, self._prepare = read, preparation
        self._network = network.eval().requires_grad_(False).to(self.device)
        self._network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._empty = self._probe()
        self.dimension = int(self._empty[0].shape[1])

    def __call__(self, images: Images) -> Encoded:
        """Encode uint8 [N, H, W, 3]; see ``Encoder`` and ``in_batches``."""
        return in_batches(images, self.batch, self._batch, lambda: self._empty)

    @torch.inference_mode()
    def _batch(self, images: Images) -> Encoded:
        pixels = self._prepare(torch.from_numpy(np.ascontiguousarray(images)).to(self.device))
        with _full_precision(self.device):
            features, classes = self._read(self._network(pixels.contiguous(memory_format=torch.channels_last)))
        return _array(features), None if classes is None else _array(classes)

    def _probe(self) -> Encoded:
        """Arrays of no rows and the right widths, from one grey image: what does not fit shows before the work."""
        side = self._prepare.resolution
        try:
            values, classes = self._batch(np.full((1, side, side, 3), 128, np.uint8))
        except (RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
            message = str(error).strip().partition("\n")[0]
            problem = Problem(f"on float32 [1, 3, {side}, {side}] it fails: {message}",
                              "correct the resolution or the network")
            raise InputError(f"The encoder {self.name} cannot be used.", [problem]) from error
        if any(part is not None and (part.ndim != 2 or len(part) != 1) for part in (values, classes)):
            shapes = ", ".join(str(part.shape) for part in (values, classes) if part is not None)
            problem = Problem(f"it gives {shapes} for one image", "pool and flatten: features must be [N, D]")
            raise InputError(f"The encoder {self.name} cannot be used.", [problem])
        return values[:0], None if classes is None else classes[:0]


def as_given(outputs: Outputs) -> Outputs:
    """The ``read`` of a network that gives the pair itself."""
    return outputs


def _array(values: torch.Tensor) -> NDArray[np.float32]:
    return values.float().cpu().numpy()


def _full_precision(device: torch.device) -> AbstractContextManager[None]:
    if device.type != "cuda":
        return nullcontext()
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)

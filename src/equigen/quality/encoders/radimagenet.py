"""ResNet-50 with RadImageNet weights from a file of the user."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import nn

from equigen.quality.encoders.base import Bicubic, NetworkEncoder, NetworkOutput, read_pair
from equigen.quality.encoders.weights import load_strict, read_state, state_hash, weights_error

SEQUENCE_NAMES = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
RESOLUTION = 224


class RadImageNet(NetworkEncoder):
    """ResNet-50 trained on radiological images (Mei et al., Radiology: Artificial Intelligence 4(5), 2022).

    Features are the 2 048 channels of the last stage, averaged over space. Where the file has a classifier (``fc``)
    its softmax gives probabilities, else there are none. As in the release, pixels become (x - 127.5) / 127.5.

    Args:
        weights: a state dict with the names of torchvision's ResNet-50 (v1.5), or with those of the release, which
            are indices of a sequence: ``backbone.0.weight``, ``backbone.4.0.conv1.weight``.
        resolution: width in pixels; 224 is that of its training.
        batch: images at once; None takes 16, on a GPU 128.

    Raises:
        InputError: the file is missing, damaged, or lacks keys, which are named.

    """

    def __init__(self, weights: str | Path, resolution: int = RESOLUTION, batch: int | None = None) -> None:
        state = {convert_release_name(key): value for key, value in read_state(weights, "radimagenet").items()}
        weight = state.get("fc.weight")
        if weight is not None and weight.ndim != 2:
            raise weights_error(
                "radimagenet", f"fc.weight is {list(weight.shape)}", "give a matrix, or leave fc out", weights
            )
        network = _Classified(None if weight is None else len(weight))
        load_strict(network, state, "radimagenet", weights, convert_transformers_name)
        super().__init__(
            network,
            read_pair,
            name=f"radimagenet@{resolution}",
            weight_hash=state_hash(network.state_dict().items()),
            preparation=Bicubic(resolution, (127.5,) * 3, (127.5,) * 3, scale=1.0),
            batch=batch,
        )


class _Classified(nn.Module):
    """transformers' ResNet-50, whose defaults are v1.5 (stride in the 3 x 3), with a classifier where there is one."""

    def __init__(self, classes: int | None) -> None:
        from transformers import ResNetConfig, ResNetModel

        super().__init__()
        self.body: Any = ResNetModel(ResNetConfig())
        self.fc = None if classes is None else nn.Linear(2048, classes)

    def forward(self, pixels: torch.Tensor) -> NetworkOutput:
        features = self.body(pixels).pooler_output.flatten(1)
        return features, None if self.fc is None else self.fc(features).softmax(dim=1)


def convert_release_name(key: str) -> str:
    """Return torchvision's name, ``layer1.0.conv1.weight``, of a key of the release, ``backbone.4.0.conv1.weight``."""
    match = re.match(r"(?:backbone\.)?(\d)\.(.+)", key)
    if match is None:
        return key.removeprefix("backbone.")
    number, rest = match.groups()
    return f"{SEQUENCE_NAMES.get(number, number)}.{rest}"


def convert_transformers_name(key: str) -> str:
    """Return torchvision's name of a ResNet parameter from that of transformers."""
    stem = re.fullmatch(r"body\.embedder\.embedder\.(convolution|normalization)\.(\w+)", key)
    if stem is not None:
        return f"{'conv1' if stem[1] == 'convolution' else 'bn1'}.{stem[2]}"
    block = re.fullmatch(
        r"body\.encoder\.stages\.(\d)\.layers\.(\d)\.(?:layer\.(\d)|shortcut)\.(convolution|normalization)\.(\w+)", key
    )
    if block is None:
        return key
    stage, index, layer, kind, leaf = block.groups()
    convolution = kind == "convolution"
    if layer is None:
        name = f"downsample.{0 if convolution else 1}"
    else:
        name = f"{'conv' if convolution else 'bn'}{int(layer) + 1}"
    return f"layer{int(stage) + 1}.{index}.{name}.{leaf}"

"""ResNet-50 with RadImageNet weights that the user brings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import nn

from equigen.quality.encoders.base import Bicubic, NetworkEncoder, Outputs, as_given
from equigen.quality.encoders.weights import State, load_strict, read_state, state_hash, unusable

PLACES = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}  # of a sequence
RESOLUTION = 224


class RadImageNet(NetworkEncoder):
    """ResNet-50 trained on radiological images (Mei et al., Radiology: Artificial Intelligence 4(5), 2022).

    Features are the 2 048 channels of the last stage, averaged over space. Where the file has a classifier (``fc``)
    its softmax gives probabilities, else there are none. As in the release, pixels become (x - 127.5) / 127.5.

    Args:
        weights: a state dict with the names of torchvision's ResNet-50 (v1.5), or with those of the release, which
            are places in a sequence: ``backbone.0.weight``, ``backbone.4.0.conv1.weight``.
        resolution: side in pixels; 224 is what it was trained at.
        batch: images at once; None takes 16, on a GPU 128.

    Raises:
        InputError: the file is missing, damaged, or lacks keys, which are named.

    """

    def __init__(self, weights: str | Path, resolution: int = RESOLUTION, batch: int | None = None) -> None:
        state = {named(key): value for key, value in read_state(weights, "radimagenet").items()}
        network = _Classified(_classes(state, weights))
        load_strict(network, state, "radimagenet", weights, known_name)
        super().__init__(
            network, as_given, name=f"radimagenet@{resolution}", weight_hash=state_hash(network.state_dict().items()),
            preparation=Bicubic(resolution, (127.5,) * 3, (127.5,) * 3, scale=1.0), batch=batch,
        )


class _Classified(nn.Module):
    """transformers' ResNet-50, whose defaults are v1.5 (stride in the 3 x 3), with a classifier where there is one."""

    def __init__(self, classes: int | None) -> None:
        from transformers import ResNetConfig, ResNetModel

        super().__init__()
        self.body: Any = ResNetModel(ResNetConfig())
        self.fc = None if classes is None else nn.Linear(2048, classes)

    def forward(self, pixels: torch.Tensor) -> Outputs:
        features = self.body(pixels).pooler_output.flatten(1)
        return features, None if self.fc is None else self.fc(features).softmax(dim=1)


def _classes(state: State, weights: str | Path) -> int | None:
    weight = state.get("fc.weight")
    if weight is not None and weight.ndim != 2:
        raise unusable("radimagenet", f"fc.weight is {list(weight.shape)}", "give a matrix, or leave fc out", weights)
    return None if weight is None else len(weight)


def named(key: str) -> str:
    """A key of the release, ``backbone.4.0.conv1.weight``, by torchvision's name, ``layer1.0.conv1.weight``."""
    place = re.match(r"(?:backbone\.)?(\d)\.(.+)", key)
    if place is None:
        return key.removeprefix("backbone.")
    number, rest = place.groups()
    return f"{PLACES.get(number, number)}.{rest}"


def known_name(key: str) -> str:
    """From the name that transformers gives a ResNet parameter to torchvision's."""
    stem = re.fullmatch(r"body\.embedder\.embedder\.(convolution|normalization)\.(\w+)", key)
    if stem is not None:
        return f"{'conv1' if stem[1] == 'convolution' else 'bn1'}.{stem[2]}"
    block = re.fullmatch(
        r"body\.encoder\.stages\.(\d)\.layers\.(\d)\.(?:layer\.(\d)|shortcut)\.(convolution|normalization)\.(\w+)", key
    )
    if block is None:
        return key
    stage, index, place, part, leaf = block.groups()
    first = part == "convolution"
    name = f"downsample.{0 if first else 1}" if place is None else f"{'conv' if first else 'bn'}{int(place) + 1}"
    return f"layer{int(stage) + 1}.{index}.{name}.{leaf}"

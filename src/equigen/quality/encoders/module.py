"""Any torch module as an encoder."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import nn

from equigen.quality.encoders.base import Bicubic, NetworkEncoder, NetworkOutput
from equigen.quality.encoders.hub import IMAGENET_MEAN, IMAGENET_STD
from equigen.quality.encoders.weights import state_hash


class ModuleEncoder(NetworkEncoder):
    """Any torch module as an encoder.

    Args:
        module: [N, 3, R, R] float32 -> features [N, D], or the pair (features [N, D], logits [N, C]), whose softmax
            gives the probabilities that IS needs. The encoder has a frozen copy in evaluation mode, so later changes
            of the module affect neither features nor hash.
        name: name in results. It is part of the identity: two networks with the same weights and layers but
            another ``forward`` need two names.
        resolution: width R in pixels.
        mean: of each channel, on the scale 0 to 1; by default ImageNet's.
        std: likewise.
        batch: images at once; None takes 16, on a GPU 128.
        device: None takes ``equigen.devices.best_device()``.

    The weights' hash is over the names, types, shapes and bytes of the state dict, and the printed layers.

    Raises:
        InputError: invalid resolution, mean or std, or the network does not return [N, D].

    Example:
        >>> encoder = ModuleEncoder(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), "colour", 32)
        >>> encoder.dimension
        3

    """

    def __init__(
        self,
        module: nn.Module,
        name: str,
        resolution: int,
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
        batch: int | None = None,
        device: str | None = None,
    ) -> None:
        super().__init__(
            deepcopy(module),
            _read_tensors,
            name=f"{name}@{resolution}",
            weight_hash=state_hash(module.state_dict().items(), repr(module)),
            preparation=Bicubic(resolution, tuple(mean), tuple(std)),
            batch=batch,
            device=device,
        )


def _read_tensors(value: object) -> NetworkOutput:
    """Return features, and the softmax of logits where the network returns them."""
    if isinstance(value, torch.Tensor):
        return value, None
    if isinstance(value, tuple) and len(value) == 2 and all(isinstance(tensor, torch.Tensor) for tensor in value):
        return value[0], value[1].softmax(dim=1)
    raise TypeError(f"it gives {type(value).__name__}, not a tensor or the pair (features, logits)")

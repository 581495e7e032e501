"""A small residual network for small images, and trained classifiers on disk."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from equigen.errors import InputError, Problem
from equigen.files import read_json, replace_file, write_json
from equigen.model_files import nonfinite_weight
from equigen.seeds import torch_generator

NORM_GROUPS = 8
WEIGHTS, CARD = "model.safetensors", "model.json"


class Block(nn.Module):
    """Two 3x3 convolutions with group normalisation and a shortcut (He et al., CVPR 2016, basic block)."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm1, self.norm2 = nn.GroupNorm(NORM_GROUPS, width), nn.GroupNorm(NORM_GROUPS, width)
        self.shortcut = (
            nn.Conv2d(inputs, width, 1, stride, bias=False) if stride > 1 or inputs != width else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, width, H / stride, W / stride]."""
        inner = functional.relu(self.norm1(self.first(x)))
        return functional.relu(self.norm2(self.second(inner)) + self.shortcut(x))


class SmallResNet(nn.Module):
    """ResNet of one block in each of four stages, for images of 32 to 128 pixels.

    Normalisation is by group (Wu and He, ECCV 2018), not by batch: statistics of a batch that mixes real and
    synthetic images would differ from those at test time, in some recipes only.

    Args:
        outputs: K, logits per image.
        width: channels of the first stage, a multiple of 8; later stages double it. 32 gives 1.2 M
            parameters.
        seed: of the initial weights (He initialisation); the global random generator is not used.

    """

    def __init__(self, outputs: int, width: int = 32, seed: int = 0) -> None:
        super().__init__()
        widths = [width, width * 2, width * 4, width * 8]
        with torch.device("meta"):
            self.stem = nn.Conv2d(3, width, 5, 2, 2, bias=False)
            self.norm = nn.GroupNorm(NORM_GROUPS, width)
            inputs = [width, *widths[:-1]]
            self.stages = nn.Sequential(
                *[Block(i, o, 1 if n == 0 else 2) for n, (i, o) in enumerate(zip(inputs, widths, strict=True))]
            )
            self.head = nn.Linear(widths[-1], outputs)
        self.to_empty(device="cpu")
        generator = torch_generator(seed, "diagnosis/weights")
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
            elif isinstance(module, nn.GroupNorm):
                nn.init.ones_(module.weight)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01, generator=generator)
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] in [0, 1] -> logits [B, K]."""
        x = functional.relu(self.norm(self.stem((images - 0.5) / 0.25)))
        x = self.stages(x).mean(dim=(2, 3))
        logits: Tensor = self.head(x)
        return logits


@dataclass(frozen=True)
class Card:
    """Metadata of a network: its label and kind, the names of its outputs, and the size of its images."""

    label: str
    kind: str
    outputs: list[str]
    size: int
    width: int


@dataclass(frozen=True)
class Classifier:
    """A trained network with its card."""

    network: SmallResNet
    card: Card

    def predict(self, images: NDArray[np.uint8], *, bf16: bool = False, batch: int = 256) -> NDArray[np.float32]:
        """Probabilities [N, K] of images [N, H, W, 3]: of a multiclass label they sum to 1."""
        device = next(self.network.parameters()).device
        training, parts = self.network.training, []
        self.network.eval()
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            for start in range(0, len(images), batch):
                logits = self.network(to_tensor(images[start : start + batch], device)).float()
                parts.append(logits.softmax(1) if self.card.kind == "multiclass" else logits.sigmoid())
        self.network.train(training)
        empty = torch.empty((0, len(self.card.outputs)))
        return np.asarray(torch.cat(parts).cpu().numpy() if parts else empty.numpy(), dtype=np.float32)

    def save(self, folder: str | Path) -> None:
        """Write ``model.safetensors`` and ``model.json``."""
        with replace_file(Path(folder) / WEIGHTS) as temporary:
            save_file(
                {name: value.contiguous().cpu() for name, value in self.network.state_dict().items()},
                temporary,
            )
        write_json(Path(folder) / CARD, asdict(self.card))

    @classmethod
    def load(cls, folder: str | Path) -> Classifier:
        """Read a classifier written by ``save``.

        Raises InputError where a file is missing or damaged, or a weight is of another shape, NaN or infinite.
        """
        try:
            card = Card(**read_json(Path(folder) / CARD))
            network = SmallResNet(len(card.outputs), card.width)
            network.load_state_dict(load_file(Path(folder) / WEIGHTS))
            fault = nonfinite_weight(network.state_dict())
            if fault is not None:
                raise ValueError(fault)
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            message = f"is no whole classifier ({reason})"
            problem = Problem(message, "train it again, or copy it again", file=str(folder))
            raise InputError("The classifier cannot be used.", [problem]) from error
        return cls(network.eval(), card)


def to_tensor(images: NDArray[np.uint8], device: torch.device) -> Tensor:
    """[B, H, W, 3] uint8 -> [B, 3, H, W] float32 in [0, 1], channels last in memory."""
    tensor = torch.from_numpy(np.ascontiguousarray(images)).to(device).permute(0, 3, 1, 2).float() / 255
    return tensor.contiguous(memory_format=torch.channels_last)

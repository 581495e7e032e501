"""The Inception network of FID, a variant of Inception v3, with weights from a file of the user."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, linear, max_pool2d, relu

from equigen.quality.encoders.base import CHANNELS, NetworkEncoder, NetworkOutput, read_pair
from equigen.quality.encoders.weights import load_strict, read_state, state_hash

SIDE, CLASSES, FEATURES = 299, 1008, 2048


class Convolution(nn.Module):
    """Convolution without bias, batch norm (epsilon 0.001), ReLU: [N, c_in, H, W] -> [N, c_out, H', W']."""

    def __init__(self, c_in: int, c_out: int, kernel: int | tuple[int, int], stride: int = 1, same: bool = False):
        super().__init__()
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (height // 2, width // 2) if same else 0
        self.conv = nn.Conv2d(c_in, c_out, (height, width), stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(c_out, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer."""
        return relu(self.bn(self.conv(x)))


def average(x: Tensor) -> Tensor:
    """Return the mean over 3 x 3 pixels without padding, unlike in other Inception v3's."""
    return avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def maximum(x: Tensor) -> Tensor:
    """Return the maximum over 3 x 3 pixels, which the last block of the FID graph has in place of the paper's mean."""
    return max_pool2d(x, 3, stride=1, padding=1)


class BlockA(nn.Module):
    """Figure 5 of Szegedy et al. (CVPR 2016): 35 x 35, c -> 224 + pooled."""

    def __init__(self, c: int, pooled: int) -> None:
        super().__init__()
        self.branch1x1 = Convolution(c, 64, 1)
        self.branch5x5_1 = Convolution(c, 48, 1)
        self.branch5x5_2 = Convolution(48, 64, 5, same=True)
        self.branch3x3dbl_1 = Convolution(c, 64, 1)
        self.branch3x3dbl_2 = Convolution(64, 96, 3, same=True)
        self.branch3x3dbl_3 = Convolution(96, 96, 3, same=True)
        self.branch_pool = Convolution(c, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, c, 35, 35] to [N, 224 + pooled, 35, 35]."""
        five = self.branch5x5_2(self.branch5x5_1(x))
        three = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch1x1(x), five, three, self.branch_pool(average(x))], dim=1)


class BlockB(nn.Module):
    """Figure 10 of the paper, the first grid reduction: c -> 480 + c at half the width."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.branch3x3 = Convolution(c, 384, 3, stride=2)
        self.branch3x3dbl_1 = Convolution(c, 64, 1)
        self.branch3x3dbl_2 = Convolution(64, 96, 3, same=True)
        self.branch3x3dbl_3 = Convolution(96, 96, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, c, 35, 35] to [N, 480 + c, 17, 17]."""
        three = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), three, max_pool2d(x, 3, stride=2)], dim=1)


class BlockC(nn.Module):
    """Figure 6 of the paper: 17 x 17, 768 -> 768, 7 x 7 filters as pairs of 1 x 7 and 7 x 1."""

    def __init__(self, inner: int) -> None:
        super().__init__()
        across, down = (1, 7), (7, 1)
        self.branch1x1 = Convolution(768, 192, 1)
        self.branch7x7_1 = Convolution(768, inner, 1)
        self.branch7x7_2 = Convolution(inner, inner, across, same=True)
        self.branch7x7_3 = Convolution(inner, 192, down, same=True)
        self.branch7x7dbl_1 = Convolution(768, inner, 1)
        self.branch7x7dbl_2 = Convolution(inner, inner, down, same=True)
        self.branch7x7dbl_3 = Convolution(inner, inner, across, same=True)
        self.branch7x7dbl_4 = Convolution(inner, inner, down, same=True)
        self.branch7x7dbl_5 = Convolution(inner, 192, across, same=True)
        self.branch_pool = Convolution(768, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, 768, 17, 17] to [N, 768, 17, 17]."""
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), seven, double, self.branch_pool(average(x))], dim=1)


class BlockD(nn.Module):
    """The second grid reduction: 768 -> 1 280 at half the width."""

    def __init__(self) -> None:
        super().__init__()
        self.branch3x3_1 = Convolution(768, 192, 1)
        self.branch3x3_2 = Convolution(192, 320, 3, stride=2)
        self.branch7x7x3_1 = Convolution(768, 192, 1)
        self.branch7x7x3_2 = Convolution(192, 192, (1, 7), same=True)
        self.branch7x7x3_3 = Convolution(192, 192, (7, 1), same=True)
        self.branch7x7x3_4 = Convolution(192, 192, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, 768, 17, 17] to [N, 1280, 8, 8]."""
        seven = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        return torch.cat(
            [self.branch3x3_2(self.branch3x3_1(x)), self.branch7x7x3_4(seven), max_pool2d(x, 3, stride=2)], dim=1
        )


class BlockE(nn.Module):
    """Figure 7 of the paper: 8 x 8, c -> 2 048; ``pool`` is the pooling of its last branch."""

    def __init__(self, c: int, pool: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        across, down = (1, 3), (3, 1)
        self.branch1x1 = Convolution(c, 320, 1)
        self.branch3x3_1 = Convolution(c, 384, 1)
        self.branch3x3_2a = Convolution(384, 384, across, same=True)
        self.branch3x3_2b = Convolution(384, 384, down, same=True)
        self.branch3x3dbl_1 = Convolution(c, 448, 1)
        self.branch3x3dbl_2 = Convolution(448, 384, 3, same=True)
        self.branch3x3dbl_3a = Convolution(384, 384, across, same=True)
        self.branch3x3dbl_3b = Convolution(384, 384, down, same=True)
        self.branch_pool = Convolution(c, 192, 1)
        self._pool = pool

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, c, 8, 8] to [N, 2048, 8, 8]."""
        three = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        return torch.cat(
            [
                self.branch1x1(x),
                self.branch3x3_2a(three),
                self.branch3x3_2b(three),
                self.branch3x3dbl_3a(double),
                self.branch3x3dbl_3b(double),
                self.branch_pool(self._pool(x)),
            ],
            dim=1,
        )


class FIDInception(nn.Module):
    """Inception v3 as in the graph that defines FID (2015-12-05), for images in about -1 to 1.

    Architecture: Szegedy et al., CVPR 2016, table 1 and figures 5 to 7; used for FID by Heusel et al., NeurIPS 2017.
    It differs from other Inception v3's in the 1 008 classes and in its pooling (``average``, ``maximum``).
    Parameters have the names of the known conversion of that graph, pt_inception-2015-12-05.
    """

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Convolution(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = Convolution(32, 32, 3)
        self.Conv2d_2b_3x3 = Convolution(32, 64, 3, same=True)
        self.maxpool1 = nn.MaxPool2d(3, stride=2)
        self.Conv2d_3b_1x1 = Convolution(64, 80, 1)
        self.Conv2d_4a_3x3 = Convolution(80, 192, 3)
        self.maxpool2 = nn.MaxPool2d(3, stride=2)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = BlockA(192, 32), BlockA(256, 64), BlockA(288, 64)
        self.Mixed_6a = BlockB(288)
        self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e = (BlockC(inner) for inner in (128, 160, 160, 192))
        self.Mixed_7a = BlockD()
        self.Mixed_7b, self.Mixed_7c = BlockE(1280, average), BlockE(2048, maximum)
        self.fc = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Tensor) -> NetworkOutput:
        """Map [N, 3, 299, 299] to pool3 features [N, 2048], probabilities [N, 1008].

        The classifier's bias is in the weights but is not used, as in the released Inception Score.
        """
        for name, layer in self.named_children():
            if name != "fc":
                x = layer(x)
        features = x.mean(dim=(2, 3))
        return features, linear(features, self.fc.weight).softmax(dim=1)


class TF1Bilinear:
    """The resize of the FID graph (TensorFlow 1, corners not aligned): source position = target index x H / 299.

    Without antialiasing and without the half-pixel shift, then (x - 128) / 128: known flaws (Parmar et al., CVPR
    2022) that are part of FID as published.
    """

    resolution = SIDE
    description = (
        f"{CHANNELS}, bilinear resize to {SIDE} x {SIDE} as in TensorFlow 1 (no antialiasing, no half-pixel shift), "
        "not quantised, (x - 128) / 128"
    )

    def __call__(self, images: Tensor) -> Tensor:
        """Return float32 [N, 3, 299, 299] from uint8 [N, H, W, 3]."""
        return (_resample(_resample(images.permute(0, 3, 1, 2).float(), 3), 2) - 128) / 128


def _resample(x: Tensor, axis: int) -> Tensor:
    """Return the linear interpolation along one axis at the positions k · n / 299, k = 0 .. 298."""
    n = x.shape[axis]
    if n == SIDE:
        return x
    positions = torch.arange(SIDE, device=x.device) * (n / SIDE)
    low = positions.floor().long().clamp(max=n - 1)
    shape = [1, 1, 1, 1]
    shape[axis] = SIDE
    share = (positions - low).to(x.dtype).view(shape)
    return torch.lerp(x.index_select(axis, low), x.index_select(axis, (low + 1).clamp(max=n - 1)), share)


class Inception(NetworkEncoder):
    """The FID network with weights from a file: 2 048 features (FID, KID) and 1 008 probabilities (IS).

    Args:
        weights: the state dict of pt_inception-2015-12-05, ``.pth`` or ``.safetensors``.
        batch: images at once; None takes 16, on a GPU 128.

    Raises:
        InputError: the file is missing, damaged, or lacks keys, which are named.

    """

    def __init__(self, weights: str | Path, batch: int | None = None) -> None:
        state = read_state(weights, "inception")
        with torch.device("meta"):
            network = FIDInception()
        network.to_empty(device="cpu")
        load_strict(network, state, "inception", weights)
        super().__init__(
            network,
            read_pair,
            name="inception",
            weight_hash=state_hash(network.state_dict().items()),
            preparation=TF1Bilinear(),
            batch=batch,
        )

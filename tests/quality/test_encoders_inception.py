"""The FID network: names, shapes and pooling of the known graph, its resize, and weights that do not fit."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from equigen.errors import InputError
from equigen.quality.encoders import FIDInception, Inception, identity, load_encoder
from equigen.quality.encoders.inception import TF1Bilinear

# [channels, side] after each layer: Szegedy et al., table 1, with the released network's sizes
SHAPES = {
    "Conv2d_1a_3x3": (32, 149), "Conv2d_2a_3x3": (32, 147), "Conv2d_2b_3x3": (64, 147), "maxpool1": (64, 73),
    "Conv2d_3b_1x1": (80, 73), "Conv2d_4a_3x3": (192, 71), "maxpool2": (192, 35), "Mixed_5b": (256, 35),
    "Mixed_5c": (288, 35), "Mixed_5d": (288, 35), "Mixed_6a": (768, 17), "Mixed_6b": (768, 17),
    "Mixed_6c": (768, 17), "Mixed_6d": (768, 17), "Mixed_6e": (768, 17), "Mixed_7a": (1280, 8),
    "Mixed_7b": (2048, 8), "Mixed_7c": (2048, 8),
}  # fmt: skip
# shapes in the state dict pt_inception-2015-12-05
WEIGHTS = {
    "Conv2d_1a_3x3.conv.weight": [32, 3, 3, 3], "Conv2d_1a_3x3.bn.running_var": [32],
    "Conv2d_3b_1x1.conv.weight": [80, 64, 1, 1], "Conv2d_4a_3x3.conv.weight": [192, 80, 3, 3],
    "Mixed_5b.branch5x5_2.conv.weight": [64, 48, 5, 5], "Mixed_5b.branch_pool.conv.weight": [32, 192, 1, 1],
    "Mixed_5c.branch3x3dbl_3.conv.weight": [96, 96, 3, 3], "Mixed_5d.branch_pool.bn.bias": [64],
    "Mixed_6a.branch3x3.conv.weight": [384, 288, 3, 3], "Mixed_6a.branch3x3dbl_3.conv.weight": [96, 96, 3, 3],
    "Mixed_6b.branch7x7_2.conv.weight": [128, 128, 1, 7], "Mixed_6b.branch7x7_3.conv.weight": [192, 128, 7, 1],
    "Mixed_6c.branch7x7dbl_2.conv.weight": [160, 160, 7, 1], "Mixed_6e.branch7x7dbl_5.conv.weight": [192, 192, 1, 7],
    "Mixed_7a.branch3x3_2.conv.weight": [320, 192, 3, 3], "Mixed_7a.branch7x7x3_4.conv.weight": [192, 192, 3, 3],
    "Mixed_7b.branch3x3_2a.conv.weight": [384, 384, 1, 3], "Mixed_7b.branch3x3_2b.conv.weight": [384, 384, 3, 1],
    "Mixed_7b.branch3x3dbl_1.conv.weight": [448, 1280, 1, 1], "Mixed_7c.branch1x1.conv.weight": [320, 2048, 1, 1],
    "Mixed_7c.branch3x3dbl_2.conv.weight": [384, 448, 3, 3], "Mixed_7c.branch_pool.bn.weight": [192],
    "fc.weight": [1008, 2048], "fc.bias": [1008],
}  # fmt: skip


@pytest.fixture(scope="module")
def network():
    """The network with random weights that keep the scale of what passes through (He et al., ICCV 2015)."""
    generator = torch.Generator().manual_seed(5)
    network = FIDInception()
    for name, value in network.state_dict().items():
        if value.ndim == 4:
            scale = math.sqrt(2 / value[0].numel())
            value.copy_(torch.randn(value.shape, generator=generator) * scale)
        elif name == "fc.bias":
            value.copy_(torch.randn(value.shape, generator=generator) * 9)
    return network.eval()


@pytest.fixture(scope="module")
def weights(network, tmp_path_factory):
    file = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save(network.state_dict(), file)
    return file


@pytest.fixture(scope="module")
def encoder(weights):
    return Inception(weights, batch=2)


def test_names_and_shapes_are_those_of_the_known_weights(network):
    state = network.state_dict()
    assert {name: list(state[name].shape) for name in WEIGHTS} == WEIGHTS
    assert len(state) == 94 * 6 + 2  # 94 convolutions, each with the five tensors of its batch norm
    # the published 23 834 568 parameters with 1 000 classes and no auxiliary head, and 8 classes more
    assert sum(value.numel() for value in network.parameters()) == 23_834_568 + 8 * 2049


def test_every_layer_has_the_shape_of_the_paper(network):
    seen = {}
    hooks = [
        layer.register_forward_hook(lambda _, __, out, name=name: seen.update({name: tuple(out.shape[1:])}))
        for name, layer in network.named_children() if name != "fc"
    ]  # fmt: skip
    with torch.inference_mode():
        features, classes = network(torch.zeros(1, 3, 299, 299))
    for hook in hooks:
        hook.remove()
    assert seen == {name: (channels, side, side) for name, (channels, side) in SHAPES.items()}
    assert features.shape == (1, 2048)
    assert classes.shape == (1, 1008)


@pytest.mark.parametrize("block", ["5b", "5c", "5d", "6b", "6c", "6d", "6e", "7b", "7c"])
def test_pooling_takes_the_mean_of_existing_pixels_and_in_the_last_block_the_maximum(network, block):
    layer = getattr(network, f"Mixed_{block}")
    channels = layer.branch_pool.conv.in_channels
    x = torch.randn(1, channels, 4, 5, generator=torch.Generator().manual_seed(1))
    pooled = []
    hook = layer.branch_pool.register_forward_pre_hook(lambda _, inputs: pooled.append(inputs[0]))
    with torch.inference_mode():
        layer(x)
    hook.remove()
    reduce = np.max if block == "7c" else np.mean
    values = x[0].numpy()
    expected = [
        [reduce(values[:, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2], axis=(1, 2)) for j in range(5)]
        for i in range(4)
    ]
    assert pooled[0][0].numpy() == pytest.approx(np.moveaxis(np.array(expected), 2, 0), abs=1e-6)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (400, 310), (299, 100), (1, 1)])
def test_the_resize_reads_source_position_index_times_side_over_299(height, width):
    image = np.random.default_rng(2).integers(0, 256, (height, width, 3), dtype=np.uint8)
    ready = TF1Bilinear()(torch.from_numpy(image)[None])[0].numpy()
    assert ready.shape == (3, 299, 299)
    for i, j in [(0, 0), (298, 298), (10, 250), (171, 3), (149, 150)]:
        y, x = i * height / 299, j * width / 299
        top, left = math.floor(y), math.floor(x)
        low, right = min(top + 1, height - 1), min(left + 1, width - 1)
        p = image.astype(float)
        above = p[top, left] + (p[top, right] - p[top, left]) * (x - left)
        below = p[low, left] + (p[low, right] - p[low, left]) * (x - left)
        expected = (above + (below - above) * (y - top) - 128) / 128
        assert ready[:, i, j] == pytest.approx(expected, abs=1e-4)


def test_an_image_of_299_is_only_scaled():
    image = np.arange(299 * 299 * 3, dtype=np.uint32).astype(np.uint8).reshape(1, 299, 299, 3)
    ready = TF1Bilinear()(torch.from_numpy(image))
    assert torch.equal(ready[0], (torch.from_numpy(image)[0].permute(2, 0, 1).float() - 128) / 128)


def test_features_are_pool3_and_probabilities_leave_the_bias_out(encoder, network):
    images = np.random.default_rng(0).integers(0, 256, (3, 40, 40, 3), dtype=np.uint8)
    images[0] //= 8
    images[1, :20] = 255
    values, classes = encoder(images)
    assert values.shape == (3, encoder.dimension) == (3, 2048)
    assert classes.shape == (3, 1008)
    with torch.inference_mode():
        direct = network(TF1Bilinear()(torch.from_numpy(images)))[0].numpy()
    assert values == pytest.approx(direct, rel=1e-3, abs=1e-3 * float(np.abs(direct).max()))
    assert np.ptp(direct, axis=0).max() > 0.05 * np.abs(direct).max()  # images are told apart
    logits = values @ network.fc.weight.detach().numpy().T
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    assert classes == pytest.approx(odds / odds.sum(axis=1, keepdims=True), abs=1e-5)
    turned, _ = encoder(images[::-1])
    assert np.array_equal(turned[::-1], values)
    assert "no antialiasing" in encoder.preprocessing
    assert "(x - 128) / 128" in encoder.preprocessing


def test_the_hash_is_of_the_weights_not_of_their_file(weights, encoder, tmp_path):
    state = torch.load(weights, weights_only=True)
    save_file(
        {f"module.{key}": value for key, value in state.items() if "num_batches" not in key}, tmp_path / "w.safetensors"
    )
    other = load_encoder(f"inception:{tmp_path / 'w.safetensors'},batch=2")
    assert identity(other) == identity(encoder)
    state["fc.weight"][0, 0] += 1
    torch.save({"state_dict": state}, tmp_path / "changed.pth")
    assert identity(Inception(tmp_path / "changed.pth", batch=2)) != identity(encoder)


def test_weights_that_lack_keys_or_have_others_are_refused_by_name(weights, tmp_path):
    state = torch.load(weights, weights_only=True)
    del state["Mixed_6b.branch1x1.conv.weight"]
    state["AuxLogits.fc.weight"] = torch.zeros(2, 2)
    state["fc.weight"], state["fc.bias"] = torch.zeros(1000, 2048), torch.zeros(1000)
    torch.save(state, tmp_path / "partial.pth")
    with pytest.raises(InputError) as error:
        load_encoder(f"inception:{tmp_path / 'partial.pth'}")
    text = str(error.value)
    assert error.value.problems[0].file == str(tmp_path / "partial.pth")
    for part in (
        "1 missing: Mixed_6b.branch1x1.conv.weight",
        "1 unknown: AuxLogits.fc.weight",
        "fc.weight [1000, 2048] for [1008, 2048]",
        "efficientnet-lite0",
    ):
        assert part in text

"""Encoders from files that a user brings: RadImageNet, ONNX, and weights that are never unpickled."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn.functional import batch_norm, conv2d, linear, max_pool2d, relu

from equigen.errors import InputError
from equigen.quality.encoders import ONNXEncoder, RadImageNet, identity, load_encoder
from equigen.quality.encoders.weights import read_state
from equigen.quality.features import extract_features
from equigen.quality.image_sets import load_image_set

DEPTHS, WIDTHS = (3, 4, 6, 3), (64, 128, 256, 512)


def norm(state, name, width, generator):
    state[f"{name}.weight"] = 0.6 + 0.4 * torch.rand(width, generator=generator)
    state[f"{name}.bias"] = 0.1 * torch.randn(width, generator=generator)
    state[f"{name}.running_mean"] = 0.1 * torch.randn(width, generator=generator)
    state[f"{name}.running_var"] = 1 + torch.rand(width, generator=generator)
    state[f"{name}.num_batches_tracked"] = torch.tensor(7)


def resnet50_state(seed=0):
    """A random state dict with the names and shapes of torchvision's ResNet-50 without classifier."""
    generator, state = torch.Generator().manual_seed(seed), {}

    def add(conv, bn, c_out, c_in, kernel):
        scale = (2 / (c_in * kernel * kernel)) ** 0.5
        state[f"{conv}.weight"] = torch.randn(c_out, c_in, kernel, kernel, generator=generator) * scale
        norm(state, bn, c_out, generator)

    add("conv1", "bn1", 64, 3, 7)
    c_in = 64
    for stage, (depth, width) in enumerate(zip(DEPTHS, WIDTHS, strict=True), 1):
        for block in range(depth):
            at = f"layer{stage}.{block}"
            add(f"{at}.conv1", f"{at}.bn1", width, c_in, 1)
            add(f"{at}.conv2", f"{at}.bn2", width, width, 3)
            add(f"{at}.conv3", f"{at}.bn3", 4 * width, width, 1)
            if block == 0:
                add(f"{at}.downsample.0", f"{at}.downsample.1", 4 * width, c_in, 1)
            c_in = 4 * width
    return state


def resnet50(state, x):
    """ResNet-50 v1.5 written from He et al. (CVPR 2016), with the stride in the 3 x 3 convolution."""

    def layer(x, conv, bn, stride=1, padding=0):
        x = conv2d(x, state[f"{conv}.weight"], stride=stride, padding=padding)
        mean, var = state[f"{bn}.running_mean"], state[f"{bn}.running_var"]
        return batch_norm(x, mean, var, state[f"{bn}.weight"], state[f"{bn}.bias"])

    x = max_pool2d(relu(layer(x, "conv1", "bn1", 2, 3)), 3, 2, 1)
    for stage, depth in enumerate(DEPTHS, 1):
        for block in range(depth):
            at, stride = f"layer{stage}.{block}", 2 if block == 0 and stage > 1 else 1
            short = layer(x, f"{at}.downsample.0", f"{at}.downsample.1", stride) if block == 0 else x
            y = relu(layer(x, f"{at}.conv1", f"{at}.bn1"))
            y = relu(layer(y, f"{at}.conv2", f"{at}.bn2", stride, 1))
            x = relu(layer(y, f"{at}.conv3", f"{at}.bn3") + short)
    return x.mean(dim=(2, 3))


def sequence_names(state):
    """The names of RadImageNet's release: places in a sequence of ResNet-50's children."""
    places = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
    parts = ((key.split(".", 1), value) for key, value in state.items())
    return {f"backbone.{places[head]}.{rest}": value for (head, rest), value in parts}


@pytest.fixture(scope="module")
def state():
    return resnet50_state()


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(3).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)


def test_radimagenet_is_resnet50_of_the_file_in_either_naming(state, images, tmp_path):
    assert len(state) == 318  # torchvision's ResNet-50 has 320 with its classifier
    torch.save(sequence_names(state), tmp_path / "release.pt")
    save_file(state, tmp_path / "named.safetensors")
    release = load_encoder(f"radimagenet:{tmp_path / 'release.pt'},resolution=64,batch=2")
    named = RadImageNet(tmp_path / "named.safetensors", 64, batch=2)
    assert identity(release) == identity(named)
    images = images[:2]
    values, classes = release(images)
    x = (torch.from_numpy(images).permute(0, 3, 1, 2).float() - 127.5) / 127.5
    with torch.inference_mode():
        expected = resnet50(state, x).numpy()
    assert classes is None
    assert values.shape == (2, release.dimension) == (2, 2048)
    assert values == pytest.approx(expected, rel=1e-3, abs=1e-4 * float(expected.max()))
    assert release.name == "radimagenet@64"


def test_radimagenet_gives_probabilities_where_the_file_has_a_classifier(state, images, tmp_path):
    generator = torch.Generator().manual_seed(4)
    weight, bias = torch.randn(5, 2048, generator=generator) * 0.01, torch.randn(5, generator=generator)
    save_file({**state, "fc.weight": weight, "fc.bias": bias}, tmp_path / "w.safetensors")
    values, classes = RadImageNet(tmp_path / "w.safetensors", 64, batch=1)(images[:1])
    expected = linear(torch.from_numpy(values), weight, bias).softmax(dim=1).numpy()
    assert classes == pytest.approx(expected, abs=1e-5)


def test_radimagenet_names_what_a_file_lacks(state, tmp_path):
    part = {key: value for key, value in state.items() if not key.startswith("layer4.2.conv3")}
    save_file(part, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"1 missing: layer4\.2\.conv3\.weight") as error:
        RadImageNet(tmp_path / "w.safetensors")
    assert error.value.problems[0].file == str(tmp_path / "w.safetensors")


class Harmless:
    """Something that is no tensor."""


def test_only_tensors_are_read(tmp_path):
    def refused(name, message):
        with pytest.raises(InputError, match=message) as error:
            read_state(tmp_path / name, "inception")
        assert str(tmp_path / name) in str(error.value)
        assert "efficientnet-lite0" in str(error.value)

    refused("none.pth", "the weights file is not there")
    torch.save({"a": Harmless()}, tmp_path / "object.pt")
    refused("object.pt", "never unpickled")
    torch.save([torch.zeros(1)], tmp_path / "list.pt")
    refused("list.pt", "does not hold tensors by name")
    (tmp_path / "half.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{")
    refused("half.safetensors", "not a whole safetensors file")
    (tmp_path / "half.pth").write_bytes(b"PK\x03\x04 and no more")
    refused("half.pth", "damaged")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_is_refused_for_what_it_is(tmp_path):
    torch.jit.trace(torch.nn.Linear(2, 1), torch.zeros(1, 2)).save(tmp_path / "script.pt")
    with pytest.raises(InputError, match="TorchScript archive holds code, which is never run"):
        load_encoder(f"radimagenet:{tmp_path / 'script.pt'}")


def write_onnx(file, shape=("N", 3, "H", "W"), flat=True, outputs=1):
    """A network whose features are the mean of each channel."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    kind, helper = onnx.TensorProto.FLOAT, onnx.helper
    nodes = [helper.make_node("GlobalAveragePool", ["x"], ["pooled"])]
    nodes += [helper.make_node("Flatten", ["pooled"], ["features"])] if flat else []
    names = ["features" if flat else "pooled", "pooled"][:outputs]
    given = [helper.make_tensor_value_info(name, kind, None) for name in names]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", kind, list(shape))], given)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(file))
    return file


def expected_means(images, mean, std):
    return (images.mean(axis=(1, 2)) / 255 - mean) / std


OPTIONS = "mean=0.5/0.25/0,std=0.5/1/2"


def test_an_onnx_file_encodes_what_it_was_told(images, tmp_path):
    file = write_onnx(tmp_path / "m.onnx")
    encoder = load_encoder(f"onnx:{file},resolution=64,{OPTIONS}")
    values, classes = encoder(images)
    assert classes is None
    assert values == pytest.approx(expected_means(images, [0.5, 0.25, 0], [0.5, 1, 2]), abs=1e-5)
    assert encoder.dimension == 3
    assert encoder.name == "onnx:m.onnx@64"
    assert "(x / 255 - [0.5, 0.25, 0]) / [0.5, 1, 2]" in encoder.preprocessing


def test_an_onnx_file_whose_weights_are_not_finite_is_refused_by_name(images, tmp_path):
    onnx, file = pytest.importorskip("onnx"), write_onnx(tmp_path / "m.onnx")
    model = onnx.load(str(file))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.full(3, np.nan, np.float32), "w"))
    model.graph.node.append(onnx.helper.make_node("Mul", ["features", "w"], ["damaged"]))
    model.graph.output[0].name = "damaged"
    onnx.save(model, str(file))
    for row, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{row}.png")
    table = pd.DataFrame({"path": [str(tmp_path / f"{row}.png") for row in range(len(images))]})
    encoder = load_encoder(f"onnx:{file},resolution=64,{OPTIONS}")
    with pytest.raises(InputError, match=r"(?s)onnx:m\.onnx@64 .*not finite"):
        extract_features(load_image_set(table, "real"), encoder, 64)


def test_options_beside_an_onnx_file_are_read_and_written_ones_go_first(images, tmp_path):
    file = write_onnx(tmp_path / "m.onnx")
    (tmp_path / "m.onnx.json").write_text(json.dumps({"resolution": 32, "mean": [0, 0, 0], "std": 1}))
    encoder = load_encoder(f"onnx:{file},resolution=64")
    assert encoder.name == "onnx:m.onnx@64"
    assert encoder(images)[0] == pytest.approx(expected_means(images, 0, 1), abs=1e-5)


def test_an_onnx_file_for_one_image_of_one_size_is_run_so(images, tmp_path):
    file = write_onnx(tmp_path / "m.onnx", (1, 3, 64, 64))
    encoder = ONNXEncoder(file, mean=[0], std=[1])
    assert (encoder.batch, encoder.name) == (1, "onnx:m.onnx@64")
    assert encoder(images)[0] == pytest.approx(expected_means(images, 0, 1), abs=1e-5)
    with pytest.raises(InputError, match="the file takes 64 only"):
        ONNXEncoder(file, 32, mean=[0], std=[1])


def test_onnx_hash_covers_weights_kept_beside_the_file(tmp_path):
    file = write_onnx(tmp_path / "m.onnx")
    made = [ONNXEncoder(file, 32, [0], [1]).weight_hash]
    (tmp_path / "m.onnx.data").write_bytes(b"weights")
    made.append(ONNXEncoder(file, 32, [0], [1]).weight_hash)
    assert made[0] != made[1]


@pytest.mark.parametrize(
    ("form", "options", "message"),
    [
        ({}, f",{OPTIONS}", "no resolution"),
        ({}, ",resolution=32,mean=0.5", "no std"),
        ({"flat": False}, f",resolution=32,{OPTIONS}", r"features must be \[N, D\]"),
        ({"outputs": 2}, f",resolution=32,{OPTIONS}", "say output= one of features, pooled"),
        ({"outputs": 2}, f",resolution=32,{OPTIONS},output=none", "no output 'none'"),
        ({"shape": ("N", 1, "H", "W")}, f",resolution=32,{OPTIONS}", "export it with one input"),
        ({}, f",resolution=big,{OPTIONS}", "resolution is 'big'"),
        ({}, ",resolution=32,mean=0/0/0,std=0/1/1", "std .* .give three finite positive numbers"),
    ],
)
def test_an_onnx_file_that_cannot_serve_is_refused(tmp_path, form, options, message):
    file = write_onnx(tmp_path / "m.onnx", **form)
    with pytest.raises(InputError, match=message):
        load_encoder(f"onnx:{file}{options}")


def test_onnx_says_what_is_missing(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="the file is not there"):
        load_encoder(f"onnx:{tmp_path / 'm.onnx'},resolution=32,{OPTIONS}")
    (tmp_path / "m.onnx").write_bytes(b"nothing")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"install equigen\[onnx\]; efficientnet-lite0 needs no file"):
        load_encoder(f"onnx:{tmp_path / 'm.onnx'},resolution=32,{OPTIONS}")


def test_a_damaged_onnx_file_is_named(tmp_path):
    pytest.importorskip("onnxruntime")
    (tmp_path / "m.onnx").write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot be opened") as error:
        load_encoder(f"onnx:{tmp_path / 'm.onnx'},resolution=32,{OPTIONS}")
    assert error.value.problems[0].file == str(tmp_path / "m.onnx")

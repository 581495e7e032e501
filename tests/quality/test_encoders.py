"""Encoders by name, any module, and transformers' models from folders and by hub id."""

from __future__ import annotations

import json

import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from quality_images import ColourEncoder
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.functional import interpolate
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    Dinov2Config,
    Dinov2Model,
    ResNetConfig,
    ResNetModel,
)

from equigen.devices import best_device
from equigen.errors import InputError
from equigen.quality.encoders import ENCODERS, ModuleEncoder, load_encoder
from equigen.quality.encoders.base import Bicubic, _full_precision, encode_batches


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (5, 40, 40, 3), dtype=np.uint8)


def colour(**options):
    return ModuleEncoder(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), "colour", 40, **options)


# ---------------------------------------------------------------- preparation and batches


def test_a_prepared_pixel_by_hand():
    image = torch.full((1, 4, 4, 3), 51, dtype=torch.uint8)  # 51 / 255 = 0.2
    ready = Bicubic(4, (0.1, 0.2, 0.0), (0.5, 0.5, 0.25))(image)
    assert ready.shape == (1, 3, 4, 4)
    assert ready[0, :, 2, 3].tolist() == pytest.approx([0.2, 0.0, 0.8], abs=1e-6)


def test_shrinking_is_antialiased_and_stays_between_0_and_255():
    stripes = np.broadcast_to((np.arange(64) % 4 == 0) * 255, (64, 64)).astype(np.uint8)
    image = torch.from_numpy(np.repeat(stripes[None, :, :, None], 3, axis=3))
    ready = Bicubic(16, (0, 0, 0), (1, 1, 1))(image)
    assert ready[..., 3:-3].numpy() == pytest.approx(0.25, abs=0.03)  # every stripe counts, where sampling sees none
    edge = torch.zeros(1, 8, 8, 3, dtype=torch.uint8)
    edge[:, :, 4:] = 255
    large = Bicubic(32, (0, 0, 0), (1, 1, 1))(edge)
    assert (large.min(), large.max()) == (0, 1)  # bicubic overshoots; clipped


def test_the_words_say_filter_antialiasing_quantisation_and_grey_images():
    words = Bicubic(24, (0.5, 0.5, 0.5), (0.1, 0.2, 0.3)).description
    assert words == (
        "RGB (grey images repeated to three channels), bicubic resize with antialiasing to 24 x 24, clipped to 0..255, "
        "not quantised, (x / 255 - 0.5) / [0.1, 0.2, 0.3]"
    )


@pytest.mark.parametrize(
    ("resolution", "mean", "std", "message"),
    [
        (0, (0, 0, 0), (1, 1, 1), "resolution 0"),
        (8, (0, 0), (1, 1, 1), "mean"),
        (8, (0, 0, float("nan")), (1, 1, 1), "mean"),
        (8, (0, 0, 0), (1, 0, 1), "three finite positive"),
    ],
)
def test_senseless_preparations_are_refused(resolution, mean, std, message):
    with pytest.raises(InputError, match=message):
        Bicubic(resolution, mean, std)


def test_batches_are_of_one_size_and_their_filling_is_dropped():
    sizes = []

    def one(part):
        sizes.append(len(part))
        return part.reshape(len(part), -1)[:, :2].astype(np.float32), None

    images = np.arange(7 * 12, dtype=np.uint8).reshape(7, 2, 2, 3)
    values, classes = encode_batches(images, 3, one, lambda: (np.zeros((0, 2), np.float32), None))
    assert sizes == [3, 3, 3]
    assert values.tolist() == [[12 * i, 12 * i + 1] for i in range(7)]
    assert classes is None


def test_features_do_not_depend_on_what_else_is_encoded():
    encoder = load_encoder("efficientnet-lite0@32")
    images = np.random.default_rng(1).integers(0, 256, (37, 32, 32, 3), dtype=np.uint8)
    values, classes = encoder(images)
    order = np.random.default_rng(2).permutation(37)
    assert np.array_equal(encoder(images[order])[0], values[order])
    assert np.array_equal(encoder(images[30:31])[1], classes[30:31])
    none = encoder(images[:0])
    assert (none[0].shape, none[1].shape) == ((0, 1280), (0, 1000))


def test_encoders_run_on_the_best_device_in_full_precision():
    assert colour().device.type == best_device()
    assert colour(device="cpu").device.type == "cpu"
    with _full_precision(torch.device("cuda")):
        assert not torch.backends.cudnn.allow_tf32
        assert torch.backends.cudnn.deterministic


# ---------------------------------------------------------------- any module


def test_a_module_gives_the_features_that_a_person_computes(images):
    encoder = colour(mean=(0.5, 0.25, 0), std=(0.5, 1, 2))
    values, classes = encoder(images)
    expected = (images.mean(axis=(1, 2)) / 255 - [0.5, 0.25, 0]) / [0.5, 1, 2]
    assert values == pytest.approx(expected, abs=1e-5)
    assert classes is None
    assert (encoder.name, encoder.dimension) == ("colour@40", 3)


class Twofold(nn.Module):
    def forward(self, x):
        means = x.mean(dim=(2, 3))
        return means, 10 * means[:, :2]


def test_logits_of_a_module_become_probabilities(images):
    values, classes = ModuleEncoder(Twofold(), "two", 40)(images)
    odds = np.exp(10 * values[:, :2])
    assert classes == pytest.approx(odds / odds.sum(axis=1, keepdims=True), abs=1e-5)


def test_a_module_is_copied_frozen_and_put_in_evaluation_mode(images):
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    encoder = ModuleEncoder(module, "mine", 40)
    before, _ = encoder(images)
    with torch.no_grad():
        module[0].weight.zero_()
    again, _ = encoder(images)
    assert np.array_equal(before, again)
    assert module.training
    assert module[0].weight.requires_grad


def test_the_hash_of_a_module_is_of_names_shapes_bytes_and_layers():
    def digest(module):
        flat = nn.Sequential(module, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        return ModuleEncoder(flat, "m", 8).weight_hash

    layer = nn.Conv2d(3, 2, 1)
    other = nn.Conv2d(3, 2, 1)
    other.load_state_dict(layer.state_dict())
    assert digest(layer) == digest(other)
    with torch.no_grad():
        other.weight[0, 0] += 1e-6
    made = [digest(layer), digest(other), digest(nn.Sequential(layer)), digest(nn.Sequential(layer, nn.ReLU()))]
    assert len(set(made)) == 4


class Named(nn.Module):
    def forward(self, x):
        return {"features": x.mean(dim=(2, 3))}


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Conv2d(3, 2, 1), r"\(1, 2, 8, 8\) for one image .*pool and flatten"),
        (nn.Conv2d(1, 2, 1), "fails: .*channels"),
        (Named(), "gives dict, not a tensor or the pair"),
    ],
)
def test_modules_that_give_no_features_are_refused_before_the_work(module, message):
    with pytest.raises(InputError, match=message):
        ModuleEncoder(module, "m", 8)


def test_a_bare_module_is_not_guessed_at():
    with pytest.raises(InputError, match="wrap it: ModuleEncoder"):
        load_encoder(nn.Flatten())
    for encoder in (colour(), ColourEncoder()):
        assert load_encoder(encoder) is encoder


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("inception", "use inception:FILE; efficientnet-lite0 needs no file"),
        ("dinov2:", "use dinov2:FOLDER_OR_ID"),
        ("resnet:x", "use efficientnet-lite0.*inception:FILE.*onnx:FILE"),
        ("", "no encoder ''"),
        ("efficientnet-lite0@", "no encoder"),
        ("efficientnet-lite0:x", "no encoder"),
        ("inception:/none/w.pth", "/none/w.pth: the weights file is not there .*efficientnet-lite0"),
        ("inception:w.pth,resolution=64", "no option 'resolution'"),
        ("radimagenet:w.pth,resolution=0", "resolution is '0'"),
    ],
)
def test_names_that_cannot_be_used_say_what_can(text, message):
    with pytest.raises(InputError, match=message):
        load_encoder(text)


def test_the_table_of_encoders_names_each_kind():
    assert [form.partition(":")[0].partition("[")[0] for form in ENCODERS] == [
        "efficientnet-lite0", "inception", "dinov2", "clip", "radimagenet", "onnx"
    ]  # fmt: skip


# ---------------------------------------------------------------- transformers' models


VISION = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28, "patch_size": 14,
          "intermediate_size": 24}  # fmt: skip
DINO = {key: value for key, value in VISION.items() if key != "intermediate_size"}


def random_weights(model, seed=0):
    """Weights with more spread than transformers' own, so that images are told apart."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in model.parameters():
            value.copy_(0.3 * torch.randn(value.shape, generator=generator))
    return model.eval()


def prepared(images, side, mean, std):
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    pixels = interpolate(pixels, (side, side), mode="bicubic", antialias=True).clamp(0, 255) / 255
    return (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


@pytest.fixture
def dino(tmp_path):
    model = random_weights(Dinov2Model(Dinov2Config(**DINO)))
    model.save_pretrained(tmp_path / "dino")
    return model, tmp_path / "dino"


def test_dinov2_is_the_class_token_with_imagenets_mean(dino, images):
    model, folder = dino
    encoder = load_encoder(f"dinov2:{folder}")
    values, classes = encoder(images)
    x = prepared(images, 28, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    with torch.inference_mode():
        expected = model(x).pooler_output.numpy()
    assert classes is None
    assert values == pytest.approx(expected, abs=1e-4)
    assert np.ptp(values, axis=0).max() > 0.01
    assert (encoder.name, encoder.dimension) == ("dinov2:dino@28", 16)


def test_dinov2_takes_crop_mean_and_deviation_from_the_preprocessor(dino, images):
    model, folder = dino
    settings = {"size": {"shortest_edge": 64}, "crop_size": {"height": 42, "width": 42},
                "image_mean": [0.5, 0.4, 0.3], "image_std": [0.1, 0.2, 0.3]}  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    encoder = load_encoder(f"dinov2:{folder}")
    with torch.inference_mode():
        expected = model(prepared(images, 42, (0.5, 0.4, 0.3), (0.1, 0.2, 0.3))).pooler_output.numpy()
    assert encoder(images)[0] == pytest.approx(expected, abs=1e-4)
    assert "to 42 x 42" in encoder.preprocessing
    assert load_encoder(f"dinov2:{folder},resolution=14").name == "dinov2:dino@14"
    with pytest.raises(InputError, match="multiple of the patch, 14"):
        load_encoder(f"dinov2:{folder},resolution=30")
    (folder / "preprocessor_config.json").write_text("[")
    with pytest.raises(InputError, match=r"preprocessor_config\.json: no preprocessing can be read"):
        load_encoder(f"dinov2:{folder}")


@pytest.mark.parametrize("whole", [False, True])
def test_clip_is_the_projected_embedding_of_the_whole_or_the_half_model(tmp_path, images, whole):
    if whole:
        text = {**VISION, "vocab_size": 99, "eos_token_id": 98, "bos_token_id": 97, "pad_token_id": 1}
        model = random_weights(CLIPModel(CLIPConfig(vision_config=VISION, text_config=text, projection_dim=6)))
    else:
        model = random_weights(CLIPVisionModelWithProjection(CLIPVisionConfig(**VISION, projection_dim=6)))
    model.save_pretrained(tmp_path / "clip")
    encoder = load_encoder(f"clip:{tmp_path / 'clip'}")
    x = prepared(images, 28, (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
    with torch.inference_mode():
        pooled = model.vision_model(x).pooler_output
        expected = model.visual_projection(pooled).numpy()
    values, classes = encoder(images)
    assert classes is None
    assert values == pytest.approx(expected, abs=1e-4)
    assert (encoder.name, encoder.dimension) == ("clip:clip@28", 6)


def test_weights_that_transformers_would_fill_with_noise_are_an_error(dino, capfd):
    _, folder = dino
    file = folder / "model.safetensors"
    state = load_file(file)
    del state["layernorm.weight"]
    save_file(state, file, metadata={"format": "pt"})
    capfd.readouterr()
    with pytest.raises(InputError, match=r"1 weights are missing or of another shape, such as layernorm\.weight"):
        load_encoder(f"dinov2:{folder}")
    assert capfd.readouterr().err == ""
    file.write_bytes(b"nothing")
    with pytest.raises(InputError, match="the weights cannot be read"):
        load_encoder(f"dinov2:{folder}")


def test_folders_that_only_hold_pickles_ask_for_code_or_hold_no_numbers(dino, monkeypatch):
    _, folder = dino
    weights = folder / "model.safetensors"
    state, config = load_file(weights), json.loads((folder / "config.json").read_text())

    def refused(message):
        with pytest.raises(InputError, match=message) as error:
            load_encoder(f"dinov2:{folder}")
        assert "efficientnet-lite0" in error.value.problems[0].mend

    save_file(
        {**state, "layernorm.bias": torch.full_like(state["layernorm.bias"], torch.nan)},
        weights,
        metadata={"format": "pt"},
    )
    refused(r"layernorm\.bias holds NaN")
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "mine.Mine"}}))
    refused("'auto_map' asks for code")
    (folder / "config.json").write_text(json.dumps(config))
    weights.unlink()
    torch.save(state, folder / "pytorch_model.bin")
    refused(r"only weights are pickles \(pytorch_model\.bin\)")
    save_file(state, weights, metadata={"format": "pt"})
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("a pickle was opened"))
    load_encoder(f"dinov2:{folder}")


def test_another_kind_of_model_is_refused(tmp_path):
    config = ResNetConfig(embedding_size=4, hidden_sizes=[4], depths=[1])
    ResNetModel(config).save_pretrained(tmp_path / "resnet")
    for name in ("dinov2", "clip"):
        with pytest.raises(InputError, match="a model of the kind 'resnet'"):
            load_encoder(f"{name}:{tmp_path / 'resnet'}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no config\.json") as error:
        load_encoder(f"clip:{tmp_path / 'empty'}")
    assert error.value.problems[0].file == str(tmp_path / "empty")


@pytest.fixture
def hub(monkeypatch):
    """A hub that is out of reach unless a test gives it a folder; its calls are kept."""
    calls, cache = [], {}

    def snapshot(source, **options):
        calls.append(options)
        if source in cache:
            return str(cache[source])
        raise LocalEntryNotFoundError("no answer")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    return calls, cache


def test_a_hub_out_of_reach_is_given_up_with_the_offline_alternative(hub):
    with pytest.raises(InputError) as error:
        load_encoder("dinov2:some/model")
    assert error.value.problems[0].file == "some/model"
    assert "give its folder; efficientnet-lite0 needs no file and no network" in str(error.value)
    assert [call.get("local_files_only", False) for call in hub[0]] == [True, False]
    assert hub[0][1]["etag_timeout"] <= 10


def test_a_model_in_the_hubs_cache_is_used_without_asking_the_hub(hub, dino, images):
    calls, cache = hub
    cache["some/model"] = dino[1]
    encoder = load_encoder("dinov2:some/model")
    assert encoder.name == "dinov2:some/model@28"
    assert np.array_equal(encoder(images)[0], load_encoder(f"dinov2:{dino[1]}")(images)[0])
    assert [call["local_files_only"] for call in calls] == [True]


@pytest.mark.parametrize("path", ["/no/such/folder", "./model", "~/model", "a/b/c"])
def test_a_path_that_is_not_there_never_asks_the_hub(hub, path):
    with pytest.raises(InputError, match="no folder of a model") as error:
        load_encoder(f"clip:{path}")
    assert error.value.problems[0].file == path
    assert hub[0] == []

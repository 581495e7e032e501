"""Pickles, references to code and weights without a value are named before a model is used."""

import json

import pytest
import torch

from equigen.model_files import PICKLES, folder_problems, nonfinite_weight


def messages(folder, **options):
    return [problem.message for problem in folder_problems(folder, **options)]


@pytest.mark.parametrize("suffix", [*PICKLES, ".BIN"])
def test_pickles_are_a_problem_only_where_they_are_the_only_weights(tmp_path, suffix):
    (tmp_path / "config.json").write_text("{}")
    assert messages(tmp_path) == []
    (tmp_path / f"model{suffix}").write_bytes(b"")
    (problem,) = folder_problems(tmp_path)
    assert f"model{suffix}" in problem.message and problem.file == str(tmp_path)
    assert ".safetensors" in problem.mend and "save_pretrained" in problem.mend
    assert messages(tmp_path, weights=False) == []
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert messages(tmp_path) == []


@pytest.mark.parametrize(
    ("file", "settings", "message"),
    [
        ("config.json", {"auto_map": {"AutoModel": "mine.Mine"}}, "its 'auto_map' asks for code"),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["mine.Mine", None]}}, "its 'auto_map' asks for code"),
        ("config.json", {"trust_remote_code": True}, "its 'trust_remote_code' asks for code"),
        ("model_index.json", {"custom_pipeline": "mine"}, "its 'custom_pipeline' asks for code"),
        ("model_index.json", {"extra": ["mine", "Extra"]}, "its 'extra' is mine.Extra"),
        ("config.json", {"architectures": ["BertModel", "MyModel"]}, "its class 'MyModel' is of no known library"),
        ("config.json", {"_class_name": "MyUNet"}, "its class 'MyUNet' is of no known library"),
    ],
)
@pytest.mark.parametrize("weights", [True, False])
def test_references_to_code(tmp_path, file, settings, message, weights):
    (tmp_path / file).write_text(json.dumps(settings))
    (problem,) = folder_problems(tmp_path, weights)
    assert message in problem.message and problem.file == str(tmp_path / file) and "never run" in problem.mend


def test_settings_that_ask_for_no_code(tmp_path):
    index = {
        "_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"],
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"], "image_encoder": [None, None],
        "tokens": ["equigen.diffusion.networks", "ConditionTokens"], "size": 64, "latent_mean": [0.5, 0.25],
    }  # fmt: skip
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["BertModel"], "trust_remote_code": False}))
    assert messages(tmp_path) == []
    for text in ("{", "[1, 2]", "null"):  # for the reader to refuse
        (tmp_path / "config.json").write_text(text)
        assert messages(tmp_path) == []
    assert messages(tmp_path / "absent") == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_weight_that_is_not_finite_is_named(value, dtype):
    weights = {"count": torch.tensor(3), "first": torch.ones(2, 2, dtype=dtype), "second": torch.ones(3, dtype=dtype)}
    assert nonfinite_weight(weights) is None
    weights["second"][1] = value
    assert nonfinite_weight(weights) == "weight second holds NaN or infinity"

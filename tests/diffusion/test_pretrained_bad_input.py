"""What cannot be opened is said before anything is computed, with the file and the mend."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_pipelines import unet

from equigen.diffusion.pretrained import open_pretrained
from equigen.errors import InputError


@pytest.fixture
def copied(folder_of, tmp_path):
    """copied(kind): a folder that a test may harm."""
    return lambda kind: shutil.copytree(folder_of(kind), tmp_path / kind)


def refused(place):
    with pytest.raises(InputError) as caught:
        open_pretrained(place)
    return caught.value, caught.value.problems[0]


def rewritten(file, **changes):
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.mark.parametrize("place", ["/nowhere/at/all", "./none", "~/none", "a/b/c", "word"])
def test_a_place_that_is_none(place):
    error, problem = refused(place)
    assert error.title == "There is no pretrained pipeline." and problem.file == place
    assert "owner/name" in problem.mend


def test_a_hub_id_without_a_hub(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    error, problem = refused("nobody/no-such-model")
    assert error.title == "There is no pretrained pipeline." and problem.file == "nobody/no-such-model"
    assert "model_index.json cannot be had from the hub" in problem.message
    assert "--local-dir FOLDER" in problem.mend and "nobody/no-such-model" in problem.mend


def test_a_hub_id_is_looked_for_in_the_cache_first(monkeypatch, folder_of):
    asked = []

    def download(place, **settings):
        asked.append((place, settings["use_safetensors"], settings.get("local_files_only", False)))
        if not settings.get("local_files_only"):
            return str(folder_of("sd"))
        raise OSError("not cached")

    monkeypatch.setattr("diffusers.DiffusionPipeline.download", download)
    pretrained = open_pretrained("owner/name")
    assert asked == [("owner/name", True, True), ("owner/name", True, False)]
    assert pretrained.name == "owner/name" and pretrained.hash == open_pretrained(folder_of("sd")).hash


def test_an_empty_folder_and_one_of_lora_weights(tmp_path):
    _, problem = refused(tmp_path)
    assert problem.file == str(tmp_path) and "model_index.json" in problem.message and "save_pretrained" in problem.mend
    (tmp_path / "pytorch_lora_weights.safetensors").touch()
    assert "load_lora" in refused(tmp_path)[1].mend


def test_a_single_file(tmp_path):
    (tmp_path / "model.safetensors").touch()
    assert "from_single_file" in refused(tmp_path / "model.safetensors")[1].mend


def test_a_table_of_contents_that_is_none(copied):
    folder = copied("sd")
    (folder / "model_index.json").write_text("{")
    error, problem = refused(folder)
    assert error.title == "The pretrained pipeline is damaged." and problem.file.endswith("model_index.json")


@pytest.mark.parametrize(
    ("kind", "told"),
    [("FluxPipeline", "holds a FluxPipeline"), (["my_pipeline", "Mine"], "code of its own"), (None, "its own")],
)
def test_another_kind_of_pipeline(copied, kind, told):
    folder = copied("sd")
    rewritten(folder / "model_index.json", _class_name=kind)
    error, problem = refused(folder)
    assert error.title == "This kind of pipeline is not supported." and told in problem.message
    assert "StableDiffusion3Pipeline" in problem.mend and "PixArtAlphaPipeline" in problem.mend


@pytest.mark.parametrize(
    ("part", "value", "told"),
    [
        ("text_encoder", ["my_code", "Encoder"], "its 'text_encoder' is my_code.Encoder"),
        ("scheduler", ["diffusers", "NoSuchScheduler"], "diffusers.NoSuchScheduler"),
        ("tokenizer", [None, None], "has no 'tokenizer'"),
        ("text_encoder", ["transformers", "logging"], "transformers.logging"),
    ],
)
def test_parts_that_no_library_has(copied, part, value, told):
    """Code that comes with a model is not run, be it listed or lying there."""
    folder = copied("sd")
    (folder / "my_code.py").write_text("raise SystemExit('ran')")
    rewritten(folder / "model_index.json", **{part: value})
    _, problem = refused(folder)
    assert told in problem.message and "never run" in problem.mend


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_weights_that_are_missing(copied, part):
    """diffusers and transformers alone would fill them with random numbers."""
    folder = copied("sd")
    file = next((folder / part).glob("*.safetensors"))
    state = load_file(file)
    name = sorted(state)[3]
    save_file({key: value for key, value in state.items() if key != name}, file, {"format": "pt"})
    error, problem = refused(folder)
    assert error.title == "The pretrained pipeline is damaged." and problem.file == str(folder / part)
    assert name in problem.message


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
@pytest.mark.parametrize("harm", ["cut", "pickle", "gone"])
def test_weights_that_cannot_be_read(copied, part, harm):
    folder = copied("sd")
    file = next((folder / part).glob("*.safetensors"))
    if harm == "cut":
        file.write_bytes(file.read_bytes()[:-10])
    if harm == "pickle":
        torch.save(load_file(file), file.with_name({"text_encoder": "pytorch_model.bin"}.get(part, f"{file.stem}.bin")))
    if harm != "cut":
        file.unlink()
    error, problem = refused(folder)
    title = "This pipeline cannot be opened." if harm == "pickle" else "The pretrained pipeline is damaged."
    assert error.title == title and problem.file == str(folder / part)
    assert ".safetensors alone" in problem.mend


def test_pickles_and_code_of_several_parts_are_named_together(copied):
    folder = copied("sd")
    for part in ("unet", "vae"):
        file = next((folder / part).glob("*.safetensors"))
        file.rename(file.with_suffix(".ckpt"))
    rewritten(folder / "text_encoder" / "config.json", auto_map={"AutoModel": "mine.Mine"})
    rewritten(folder / "model_index.json", extra=["mine", "Extra"])
    error, _ = refused(folder)
    assert [problem.file.removeprefix(f"{folder}/") for problem in error.problems] == [
        "model_index.json", "text_encoder/config.json", "vae", "unet",
    ]  # fmt: skip


def test_pickles_beside_the_weights_are_never_opened(copied, monkeypatch):
    folder = copied("sd")
    for part, name in (("unet", "diffusion_pytorch_model.bin"), ("text_encoder", "pytorch_model.bin")):
        (folder / part / name).write_bytes(b"no pickle at all")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("a pickle was opened"))
    assert open_pretrained(folder).hash


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
@pytest.mark.parametrize("harm", ["nan", "shape"])
def test_weights_without_a_value_or_of_another_shape(copied, part, harm):
    folder = copied("sd")
    file = next((folder / part).glob("*.safetensors"))
    state = load_file(file)
    name = sorted(name for name in state if name.endswith("bias"))[0]
    value = torch.full_like(state[name], torch.nan) if harm == "nan" else torch.zeros(len(state[name]) + 1)
    save_file({**state, name: value}, file, {"format": "pt"})
    error, problem = refused(folder)
    assert error.title == "The pretrained pipeline is damaged." and problem.file == str(folder / part)
    assert harm == "shape" or f"weight {name} holds NaN or infinity" in problem.message


def test_a_network_for_another_task(copied):
    """Inpainting takes the mask and the masked image too."""
    folder = copied("sd")
    unet(1, in_channels=9).save_pretrained(str(folder / "unet"))
    error, problem = refused(folder)
    assert error.title == "This kind of pipeline is not supported." and "takes 9 channels" in problem.message
    assert "inpainting" in problem.mend


def test_a_prediction_that_cannot_be_trained(copied):
    folder = copied("sd2")
    rewritten(folder / "scheduler" / "scheduler_config.json", prediction_type="sample")
    assert "predicts 'sample'" in refused(folder)[1].message


def test_another_kind_of_autoencoder(copied):
    folder = copied("sd")
    rewritten(folder / "model_index.json", vae=["diffusers", "VQModel"])
    assert "holds a VQModel" in refused(folder)[1].message

"""LoRA and full training: which weights move, and folders that plain diffusers takes."""

import json

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from tiny_pipelines import tiny_sd

from equigen.diffusion.pretrained import MemoryTable, open_pretrained
from equigen.diffusion.prompt_cache import prompt_table
from equigen.diffusion.trainable_weights import (
    add_lora,
    enable_gradient_checkpointing,
    load_lora,
    save_lora,
    set_trainable,
)
from equigen.errors import InputError
from equigen.files import read_json

KINDS = ["sd", "sd2", "sdxl", "sd3", "pixart"]
TEXTS = ["", "a retina with glaucoma"]


@pytest.fixture
def opened(folder_of):
    return lambda kind: open_pretrained(folder_of(kind))


def trained(pretrained):
    """Names of what is trained, of all parts."""
    parts = {"network": pretrained.network, **pretrained.encoders}
    return {f"{part}.{name}" for part, network in parts.items()
            for name, weight in network.named_parameters() if weight.requires_grad}  # fmt: skip


def moved(pretrained, by=0.3):
    """As if training had moved the LoRA weights."""
    draws = torch.Generator().manual_seed(0)
    for part in (pretrained.network, *pretrained.encoders.values()):
        for name, weight in part.named_parameters():
            if "lora_B" in name:
                weight.data = by * torch.randn(weight.shape, generator=draws)
    return pretrained


def module_of(pretrained, tmp_path):
    return pretrained.denoiser(prompt_table(pretrained, TEXTS, tmp_path / "cache", show=False))


def gradients(module):
    module.zero_grad()
    draws = torch.Generator().manual_seed(1)
    noisy, target = (torch.randn(2, 4, 8, 8, generator=draws) for _ in range(2))
    output = module(noisy, torch.tensor([10, 500]), torch.tensor([[0], [1]]))
    (output - target).square().mean().backward()
    return {name: weight.grad for name, weight in module.named_parameters() if weight.requires_grad}


@pytest.mark.parametrize(
    ("kind", "text"),
    [("sd", False), ("sd", True), ("sd2", False), ("sdxl", False), ("sdxl", True), ("sd3", False), ("sd3", True)],
)
def test_plain_load_lora_weights_gives_the_same_image(kind, text, folder_of, opened, plain, image_of, tmp_path):
    """Alpha is not the rank here: it has to be read from the file."""
    pretrained = opened(kind)
    add_lora(pretrained, rank=3, alpha=7.5, text_encoder=text)
    before = image_of(plain(folder_of(kind)))
    assert np.array_equal(image_of(pretrained.pipeline()), before)
    ours = image_of(moved(pretrained).pipeline())
    save_lora(pretrained, tmp_path / "l", {"mechanism": "none"})
    pipeline = plain(folder_of(kind))
    pipeline.load_lora_weights(str(tmp_path / "l"))
    assert np.array_equal(image_of(pipeline), ours) and np.abs(ours - before).max() > 0.05
    names = {"equigen.json", "pytorch_lora_weights.safetensors"}
    assert {path.name for path in (tmp_path / "l").iterdir()} == names
    prefixes = {name.split(".")[0] for name in load_file(tmp_path / "l" / "pytorch_lora_weights.safetensors")}
    assert prefixes == {pretrained.family.network, *(pretrained.family.text_trained if text else ())}
    record = read_json(tmp_path / "l" / "equigen.json")
    assert record.items() > {"kind": "lora", "base": str(folder_of(kind)), "mechanism": "none", "size": 32}.items()
    assert record["hash"] == pretrained.hash and record["lora"]["base"] == opened(kind).hash
    assert record["lora"]["rank"] == 3 and record["lora"]["alpha"] == 7.5


def test_pixart_is_loaded_by_peft(folder_of, opened, plain, image_of, tmp_path):
    pretrained = opened("pixart")
    add_lora(pretrained, rank=3, alpha=7.5)
    ours = image_of(moved(pretrained).pipeline())
    save_lora(pretrained, tmp_path / "l")
    pipeline = plain(folder_of("pixart"))
    before = image_of(pipeline)
    assert not hasattr(pipeline, "load_lora_weights")  # once it has, so may our files
    pipeline.transformer = PeftModel.from_pretrained(pipeline.transformer, str(tmp_path / "l"))
    assert np.array_equal(image_of(pipeline), ours) and np.abs(ours - before).max() > 0.05


@pytest.mark.parametrize(("kind", "text"), [("sd", True), ("sdxl", False), ("sd3", True), ("pixart", False)])
def test_weights_are_loaded_again(kind, text, opened, image_of, tmp_path):
    pretrained = opened(kind)
    add_lora(pretrained, rank=2, text_encoder=text)
    save_lora(moved(pretrained), tmp_path / "l")
    again = opened(kind)
    load_lora(again, tmp_path / "l")
    assert again.hash == pretrained.hash != opened(kind).hash and trained(again) == set()
    assert np.array_equal(image_of(again.pipeline()), image_of(pretrained.pipeline()))
    assert (again.text_hash != opened(kind).text_hash) == text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ["unet", "unet+text", "lora", "lora+text"])
def test_every_trained_weight_gets_a_gradient(kind, what, opened, tmp_path):
    """One without would stop a run of several processes, and moves by weight decay alone."""
    pretrained = opened(kind)
    if (kind, what) == ("pixart", "lora+text"):
        with pytest.raises(InputError, match="CLIP text encoders only"):
            set_trainable(pretrained, what)
        return
    count = set_trainable(pretrained, what, rank=2)
    moved(pretrained)
    module = module_of(pretrained, tmp_path)
    found = gradients(module)
    assert all(grad is not None and bool(grad.isfinite().all()) for grad in found.values())
    assert count == sum(grad.numel() for grad in found.values())
    names = {name.removeprefix("encoders.") for name in found}
    assert names == trained(pretrained)
    assert all("lora_" in name for name in names) == what.startswith("lora")
    assert any(name.startswith("text_encoder") for name in names) == what.endswith("+text")


def test_whole_networks_are_trained(opened):
    pretrained = opened("sd")
    assert set_trainable(pretrained, "unet") == sum(weight.numel() for weight in pretrained.network.parameters())
    both, parts = set_trainable(pretrained, "unet+text"), (pretrained.network, pretrained.encoders["text_encoder"])
    assert both == sum(weight.numel() for part in parts for weight in part.parameters())
    assert not any(weight.requires_grad for weight in pretrained.autoencoder.network.parameters())
    assert set_trainable(pretrained, "unet") < both  # what was trained before no longer is


@pytest.mark.parametrize("kind", ["sd", "sd3", "pixart"])
@pytest.mark.parametrize("what", ["unet+text", "lora"])
def test_checkpointing_leaves_gradients_as_they_are(kind, what, opened, tmp_path, monkeypatch):
    pretrained = opened(kind)
    set_trainable(pretrained, what)
    module = module_of(moved(pretrained), tmp_path).train()
    before = {name: grad.clone() for name, grad in gradients(module).items()}
    calls, checkpoint = [], torch.utils.checkpoint.checkpoint
    monkeypatch.setattr(torch.utils.checkpoint, "checkpoint", lambda *a, **k: (calls.append(1), checkpoint(*a, **k))[1])
    enable_gradient_checkpointing(pretrained)
    for name, grad in gradients(module).items():
        torch.testing.assert_close(grad, before[name], rtol=1e-5, atol=1e-7)
    assert pretrained.network.is_gradient_checkpointing and calls


def test_the_first_weights_come_from_the_seed(opened):
    first, second, third = (opened("sd") for _ in range(3))
    state = torch.get_rng_state()
    for pretrained, seed in ((first, 4), (second, 4), (third, 5)):
        add_lora(pretrained, rank=2, seed=seed)
    assert torch.equal(torch.get_rng_state(), state)
    one, two, three = (
        next(weight for name, weight in pretrained.network.state_dict().items() if "lora_A" in name)
        for pretrained in (first, second, third)
    )
    assert torch.equal(one, two) and first.hash == second.hash and not torch.equal(one, three)
    values = one * one.shape[1] ** 0.5  # uniform between -1 and 1
    assert bool((values.abs() <= 1).all()) and values.std() == pytest.approx(3**-0.5, rel=0.3)


def test_targets(opened):
    pretrained = opened("sd")
    add_lora(pretrained, rank=2, targets=["to_q", "ff.net.2"])
    layers = {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in trained(pretrained)}
    assert layers == {"to_q", "2"}


def test_a_layer_by_hand(opened):
    """W x + (alpha / rank) B A x."""
    pretrained = opened("sd")
    add_lora(pretrained, rank=2, alpha=8)
    layer = next(part for name, part in moved(pretrained).network.named_modules() if name.endswith("attn1.to_q"))
    x = torch.randn(3, layer.in_features)
    weight, down, up = layer.base_layer.weight, layer.lora_A["default"].weight, layer.lora_B["default"].weight
    torch.testing.assert_close(layer(x), x @ weight.T + 8 / 2 * (x @ down.T @ up.T))


def test_a_base_in_half_precision(folder_of, tmp_path):
    """LoRA weights are float32 all the same, and gradients reach them."""
    pretrained = open_pretrained(folder_of("sd"), dtype=torch.bfloat16)
    set_trainable(pretrained, "lora", rank=2)
    found = gradients(module_of(moved(pretrained), tmp_path))
    assert {grad.dtype for grad in found.values()} == {torch.float32} and pretrained.dtype == torch.bfloat16
    save_lora(pretrained, tmp_path / "l")
    saved = load_file(tmp_path / "l" / "pytorch_lora_weights.safetensors")
    assert {value.dtype for value in saved.values()} == {torch.float32}
    with pytest.raises(InputError, match="cannot be trained in full"):
        set_trainable(open_pretrained(folder_of("sd"), dtype=torch.bfloat16), "unet")


def test_averages_of_lora_are_saved(opened, tmp_path):
    """An average holds what is trained alone; it is written instead of the last weights, which then go on."""
    pretrained = opened("sd")
    add_lora(pretrained, rank=2)
    module = moved(pretrained).denoiser(MemoryTable(pretrained.encode(TEXTS)))
    average = {name: 0.5 * value.detach() for name, value in module.named_parameters() if value.requires_grad}
    with module.swap_parameters(average):
        save_lora(pretrained, tmp_path / "l")
    saved = load_file(tmp_path / "l" / "pytorch_lora_weights.safetensors")
    last = {name: value.detach() for name, value in module.named_parameters()}
    for name, value in saved.items():
        own = "network." + name.removeprefix("unet.").replace(".weight", ".default.weight")
        assert torch.equal(value, 0.5 * last[own]), name
    assert len(saved) == len(average)


def test_lora_is_no_pipeline(opened, tmp_path):
    pretrained = opened("sd")
    with pytest.raises(InputError, match="add_lora was not used"):
        save_lora(pretrained, tmp_path / "l")
    add_lora(pretrained, rank=2)
    for refused in (lambda: pretrained.save(tmp_path / "g"), lambda: set_trainable(pretrained, "unet")):
        with pytest.raises(InputError, match="add_lora was used"):
            refused()
    with pytest.raises(InputError, match="there are LoRA layers already"):
        add_lora(pretrained)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"rank": 0}, "rank 0"), ({"alpha": 0}, "alpha 0"), ({"targets": ["to_q", "to_w"]}, "no layer 'to_w'"),
    ],
)  # fmt: skip
def test_settings_that_cannot_work(opened, settings, told):
    pretrained = opened("sd")
    with pytest.raises(InputError, match=told):
        add_lora(pretrained, **settings)
    assert pretrained.lora is None and pretrained.hash == opened("sd").hash


def test_another_way_to_train(opened):
    with pytest.raises(InputError, match="'transformer' is unknown"):
        set_trainable(opened("sd"), "transformer")


def test_lora_weights_that_do_not_fit(opened, folder_of, tmp_path):
    pretrained = opened("sd")
    add_lora(pretrained, rank=2)
    save_lora(moved(pretrained), tmp_path / "l")
    other = open_pretrained(tiny_sd(tmp_path / "p", seed=9))
    with pytest.raises(InputError, match="another base") as caught:
        load_lora(other, tmp_path / "l")
    assert "/sd' as it was" in caught.value.problems[0].mend and other.lora is None
    with pytest.raises(InputError, match="no LoRA weights") as caught:
        load_lora(opened("sd"), tmp_path)
    assert caught.value.problems[0].file == str(tmp_path / "pytorch_lora_weights.safetensors")


@pytest.mark.parametrize("harm", ["cut", "lacking", "record", "settings"])
def test_damaged_lora_weights(opened, tmp_path, harm):
    pretrained = opened("sd")
    add_lora(pretrained, rank=2)
    save_lora(pretrained, tmp_path / "l")
    file = tmp_path / "l" / "pytorch_lora_weights.safetensors"
    if harm == "cut":
        file.write_bytes(file.read_bytes()[:-4])
    if harm == "lacking":
        state = load_file(file)
        save_file(dict(list(state.items())[1:]), file)
    if harm in {"record", "settings"}:
        (tmp_path / "l" / "equigen.json").write_text(json.dumps({"lora": {"rank": 2}} if harm == "settings" else []))
    with pytest.raises(InputError, match="LoRA weights are damaged"):
        load_lora(opened("sd"), tmp_path / "l")

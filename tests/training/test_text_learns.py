"""Real training with prompts on phantoms: images show what the prompt says, read by the phantom's oracle.

What takes longer to learn, the cup-disc ratio of the diagnosis, is in `python -m benchmarks learning`.
"""

import pytest
import yaml

from equigen.cohort import Cohort, load_images
from equigen.cohort.phantom import Oracle, PhantomSettings, write_phantom
from equigen.diffusion.stand_in import stable_diffusion
from equigen.synthesis import generate, plan
from equigen.training import TrainSettings, train

PROMPTS = ["fundus of a {race} {sex} patient: {glaucoma}", "{glaucoma}, {race}, {sex}"]
WORDS = ["fundus", "of", "a", "patient", "asian", "black", "white", "female", "male", "healthy", "glaucoma", "unknown"]
SIZE, SEEN, MADE = 64, 9_600, 360


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    """What was asked for and what the oracle reads, of generated images, as many of each race, sex and diagnosis."""
    folder = tmp_path_factory.mktemp("learns")
    place = write_phantom(folder / "phantom", 500, settings=PhantomSettings(size=SIZE), show=False) / "cohort.yaml"
    place.write_text(yaml.safe_dump({**yaml.safe_load(place.read_text()), "prompt": PROMPTS}))
    cohort = Cohort.read(place, show_progress=False)
    pipeline = stable_diffusion(8, divisor=8, length=16, whole_words=WORDS)
    for part in (pipeline.text_encoder, pipeline.tokenizer):
        part.save_pretrained(folder / "encoder")
    settings = TrainSettings(
        size=SIZE, text_encoder=str(folder / "encoder"), tune="unet", preset="tiny", images=SEEN, batch=32,
        learning_rate=2e-3, warmup=500, ema=2_000, mechanism="balanced", probe_every=SEEN, trackers="none",
    )  # fmt: skip
    run = train(cohort, settings=settings, out=folder / "run", latents=folder / "latents", show=False)
    rows = plan(cohort, "uniform", MADE, seed=1, guidance=3.0, steps=12)
    frame = generate(run, rows, folder / "set", show=False).frame
    seen = Oracle(PhantomSettings(size=SIZE)).measure(load_images(list(frame["path"]), SIZE))
    return frame.assign(pigmentation=seen["pigmentation"].to_numpy())


@pytest.mark.slow
@pytest.mark.parametrize("group", ["attr.sex", "label.glaucoma"])
def test_pigmentation_follows_the_race_in_the_prompt_within_every_other_group(read, group):
    cells = read.groupby([group, "attr.race"])["pigmentation"]
    means = cells.mean().unstack()
    assert means.shape == (2, 3) and (cells.count() >= 4).all()  # of 60; what is too blurred is not read
    assert (means["white"] + 0.15 < means["asian"]).all() and (means["asian"] + 0.15 < means["black"]).all(), means

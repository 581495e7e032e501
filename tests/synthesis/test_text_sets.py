"""Sets and calibrations of text-to-image pipelines: the same ways as for a generator that was trained from scratch."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from designed_images import BrightnessEncoder, halves
from diffusers import StableDiffusionPipeline
from diffusers.utils import logging
from painted import asks
from PIL import Image

from equigen.diffusion import open_any_generator, solver
from equigen.errors import InputError
from equigen.progress import silence_library
from equigen.synthesis import calibrate, generate, load_calibration, plan

sys.path.append(str(Path(__file__).parents[1] / "diffusion"))
from tiny_pipelines import old_habits, tiny_pixart, tiny_sd

CHOICES = {"guidance": [3.0, 1.0, 3.0, 2.0] * 2, "solver": [None, None, "euler", None] * 2,
           "guidance_low": [None, None, 0.3, None] * 2, "negative": [None, "grey", None, "grey"] * 2}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_sd(tmp_path_factory.mktemp("text") / "sd")


@pytest.fixture(scope="module")
def rows(phantom_cohort):
    return plan(phantom_cohort, "match", 8, seed=1, steps=3).assign(**CHOICES)


def pictures(made):
    return np.stack([np.asarray(Image.open(path)) for path in made.frame["path"]])


def test_a_set_of_a_folder_holds_the_images_of_plain_diffusers(folder, rows, tmp_path):
    made = generate(folder, rows, tmp_path / "set", show=False)
    table, images = made.frame, pictures(made)
    assert set(table["generator"]) == {open_any_generator(folder).hash}
    assert list(table["prompt"]) == list(rows["prompt"]) and table["negative"].isna().sum() == 4
    with silence_library(logging):
        pipeline = StableDiffusionPipeline.from_pretrained(str(folder))
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = solver("dpm++", pipeline.scheduler)
    for row in (0, 1, 3, 7):  # those without an interval
        negative = rows["negative"][row] if isinstance(rows["negative"][row], str) else None
        noise = torch.Generator().manual_seed(int(rows["seed"][row]))
        with old_habits():
            alone = pipeline(
                rows["prompt"][row], generator=noise, height=32, width=32, num_inference_steps=3,
                guidance_scale=float(rows["guidance"][row]), negative_prompt=negative,
            ).images[0]  # fmt: skip
        assert np.abs(np.asarray(alone, dtype=int) - images[row].astype(int)).max() <= 1
    assert len({image.tobytes() for image in images}) == 8


def test_a_set_goes_on_to_the_same_images(folder, rows, tmp_path):
    whole = generate(folder, rows, tmp_path / "whole", show=False)
    for index in (1, 0):
        made = generate(open_any_generator(folder), rows, tmp_path / "shared", shard=(index, 2), show=False)
    np.testing.assert_array_equal(pictures(made), pictures(whole))
    (made.folder / "images/0000002.png").unlink()
    np.testing.assert_array_equal(pictures(generate(folder, rows, made.folder, show=False)), pictures(whole))


def test_what_the_pipeline_cannot_do_is_refused_before_anything_is_written(folder, rows, tmp_path):
    with pytest.raises(InputError, match=r"guidance 0\.5"):
        generate(folder, rows.assign(guidance=0.5), tmp_path / "set", show=False)
    with pytest.raises(InputError, match="column 'prompt': is missing"):
        generate(folder, asks(3), tmp_path / "set", show=False)
    with pytest.raises(InputError, match="cannot change it between steps"):
        generate(tiny_pixart(tmp_path / "pixart"), rows, tmp_path / "set", show=False)
    assert not (tmp_path / "set").exists()


def test_guidance_is_calibrated_for_a_text_pipeline(folder, phantom_cohort, tmp_path):
    tune, confirm = halves(phantom_cohort)
    how = {"attribute": "sex", "budget": 64, "images": 8, "steps": 2, "min_patients": 10, "replicates": 20,
           "confirm_images": 8, "encoder": BrightnessEncoder(), "show": False}  # fmt: skip
    found = calibrate(folder, tune, confirm, out=tmp_path, **how)
    try:
        saved = load_calibration(folder, open_any_generator(folder).hash)
    finally:
        (folder / "calibration.json").unlink()
    assert saved == found.guidance and set(saved.groups) == {"female", "male"}
    assert all(1 <= value <= 4 for value in saved.groups.values()) and saved.spent == 64
    evaluated = found.table[found.table["kind"] == "evaluated"]
    assert evaluated.groupby("group")["estimate"].nunique().min() > 1  # guidance made a difference
    assert len(pd.read_parquet(tmp_path / "gain.parquet")) == len(found.gain)
    with pytest.raises(InputError, match=r"guidance 0\.5 .use 1 or more"):
        calibrate(folder, tune, confirm, out=tmp_path / "low", bounds=(0.5, 2.0), **how)

"""The examples of text-to-image can be rehearsed with stand-ins that a script of theirs writes."""

import runpy
import sys
from pathlib import Path

import pytest

from equigen.cohort import Cohort
from equigen.diffusion import open_pretrained
from equigen.study import read_study
from equigen.study.checks import generator_settings

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "images"), [("sd-lora", 600), ("fairgenmed", 400)])
def test_an_example_with_its_stand_ins_is_a_study_whose_prompts_the_base_reads_to_their_end(
    tmp_path, monkeypatch, name, images
):
    monkeypatch.setattr(sys, "argv", ["stand_ins.py", name, str(tmp_path)])
    runpy.run_path(str(EXAMPLES / "stand_ins.py"))["main"]()
    settings = read_study(tmp_path / f"{name}.yaml")
    if isinstance(settings.cohort, str):
        cohort = Cohort.read(settings.cohort, show_progress=False)
    else:
        cohort = Cohort.from_spec(settings.cohort, tmp_path, show_progress=False)
    prompts = {cohort.prompt(row) for row in cohort.frame.to_dict("records")}
    assert len(cohort) == images and len(prompts) > 5
    (base,) = {chosen.base for chosen in generator_settings(settings, tmp_path, name).values()}
    assert not any(open_pretrained(base).excess(sorted(prompts)))

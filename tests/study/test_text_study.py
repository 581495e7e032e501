"""A whole study of a fine-tuned base: LoRA, screening, counterfactual pairs, report; what it skips and redoes."""

import copy
import json
import shutil

import pandas as pd
import pytest
from study_folder import StudyFolder
from tiny_pipelines import tiny_sd

from equigen.diffusion import open_any_generator
from equigen.files import hash_file
from equigen.synthesis import SyntheticSet, screen

TRAIN = {
    "base": "models/sd", "rank": 2, "images": 16, "batch": 8, "probe_images": 8, "warmup": 8, "ema": 16,
    "learning_rate": 1e-3,
}  # fmt: skip
PLANS = {
    "match": {"policy": "match", "size": 24, "steps": 2, "guidance": 2.0, "solver": "euler", "negative": "grey"},
    "flip": {"policy": "counterfactual", "attribute": "sex", "size": 8, "steps": 2, "guidance_high": 0.9},
}
STAGES = {
    *("cohort", "latents", "generators/none", "synthetic/none-match", "synthetic/none-flip", "screening/none-match"),
    *("pairs/none", "quality", "diagnosis", "fairness"),
}


def text_study(data, place):
    """A study of a base beside its file."""
    study = StudyFolder(data, place)
    study.values |= {"train": copy.deepcopy(TRAIN), "mechanisms": {"none": {}}, "plans": copy.deepcopy(PLANS)}
    study.values["evaluate"] |= {"metrics": ["kd"], "intersections": False}
    study.values["diagnose"] |= {"plan": "match", "ratios": [1]}
    study.values["screen"] = {"fields": ["attr.sex"], "tries": 1, "min_patients": 5, "replicates": 20}
    study.values["pairs"] = {"plan": "flip", "number": 3, "shown": 2, "min_patients": 5, "min_pairs": 2,
                            "replicates": 20}  # fmt: skip
    tiny_sd(place / "models" / "sd")
    return study


@pytest.fixture(scope="module")
def done(phantom_folder, tmp_path_factory):
    """The study, run to its end once. Read only."""
    study = text_study(phantom_folder, tmp_path_factory.mktemp("text-study"))
    study.run()
    return study


@pytest.fixture
def copied(done, phantom_folder, tmp_path):
    """A finished study elsewhere, its base too, that a test may change."""
    study = text_study(phantom_folder, tmp_path)
    shutil.copytree(done.out, study.out)
    return study


@pytest.fixture
def quick(monkeypatch):
    """Without what is not of screening, pairs and training: measurement, classifiers, drawings."""
    for name in ("evaluate_study", "diagnose", "audit"):
        monkeypatch.setattr(f"equigen.study.study.Study.{name.split('_')[0]}", lambda *_: pd.DataFrame())
    told = {}

    def write(folder, **given):
        told.update(given)
        return folder / "index.html"

    monkeypatch.setattr("equigen.study.study.write_report", write)
    monkeypatch.setattr("equigen.study.study.report_tables", lambda *_: {})
    return told


def table(study, name="none-match"):
    return pd.read_parquet(study.out / "synthetic" / name / "synthetic.parquet")


def test_a_study_of_a_base_ends_with_a_report_of_all_its_parts(done):
    assert set(done.stamps()) == STAGES
    content = json.loads((done.out / "report/report.json").read_text())
    assert content["facts"]["Base"] == "sd, lora"
    record = json.loads((done.out / "generators/none/equigen.json").read_text())
    assert (record["kind"], record["base"]) == ("lora", str((done.place / "models/sd").resolve()))
    made = table(done)
    assert set(made["generator"]) == {open_any_generator(done.out / "generators/none", "cpu").hash}
    assert set(made["solver"]) == {"euler"} and set(made["negative"]) == {"grey"}
    assert made["prompt"].str.startswith("A ").all()
    assert set(table(done, "none-flip")["guidance_high"]) == {0.9}
    assert {"reconstruction", "none"} <= {row[content["quality"]["columns"].index("run")]
                                         for row in content["quality"]["rows"]}  # fmt: skip
    # latents of the base's own autoencoder and its prompts lie in the run folder
    kinds = [path.parent.name for path in (done.out / "latents").rglob("*.safetensors")]
    assert sum(name.endswith("-32") for name in kinds) == 1 and sum(name.endswith("-half") for name in kinds) == 1


def test_screening_reaches_the_report_and_what_comes_after_it(done):
    content, made = json.loads((done.out / "report/report.json").read_text()), table(done)
    assert list(content["screening"]) == ["none, match"]
    figures = pd.read_parquet(done.out / "synthetic/none-match/screening.parquet")
    assert {"accepted_first", "false_rejection", "tries"} <= set(figures["metric"]) and set(figures["field"]) >= {
        "*", "attr.sex"}  # fmt: skip
    assert {"tries", "first_seed"} <= set(made.columns) and set(made["tries"]) <= {1, 2}
    refused = int((~made["accepted"]).sum())
    assert 0 < refused < len(made)  # random images: some show the other sex to the judge, twice
    assert "tries" not in table(done, "none-flip")  # pairs are never screened
    notes = pd.read_parquet(done.out / "quality/quality.parquet")
    whole = notes[(notes["run"] == "none") & (notes["group"] == "*") & (notes["metric"] == "kd")]
    assert f"{refused} of {len(made)} images were refused by screening" in whole["note"].iloc[0]
    assert int(whole["n_generated"].iloc[0]) == len(made) - refused


def test_the_page_of_pairs_lies_in_the_reports_folder_and_is_linked(done):
    page = (done.out / "report/index.html").read_text()
    assert '<a href="pairs/none/index.html">Counterfactual pairs of none</a>' in page
    pairs = json.loads((done.out / "report/pairs/none/report.json").read_text())
    assert pairs["attribute"] == "sex" and pairs["levels"] == ["female", "male"] and pairs["shown"][0] == 2
    assert pairs["facts"]["Pairs"] == "3" and "real images of train" in pairs["facts"]["Judge"]
    assert pairs["phantom"] is True
    assert {"pixel_difference", "read_as_asked"} <= {
        row[pairs["measured"]["columns"].index("metric")] for row in pairs["measured"]["rows"]
    }
    assert json.loads((done.out / "report/report.json").read_text())["pages"] == {
        "Counterfactual pairs of none": "pairs/none/index.html"
    }


def test_again_and_with_the_base_elsewhere_every_stage_is_skipped(copied, quick):
    before = copied.stamps()
    copied.run()
    assert copied.stamps() == before
    assert len(quick["grids"]) == 3 and list(quick["screening"]) == ["none, match"]


def test_another_base_is_another_training(copied, quick):
    tiny_sd(copied.place / "models" / "sd", seed=7)
    before = copied.stamps()
    copied.run()
    assert {name for name, time in copied.stamps().items() if before.get(name) == time} == {
        "cohort", "quality", "diagnosis", "fairness",  # the last three are not run here
    }  # fmt: skip


def test_without_screening_the_verdicts_are_taken_back_and_given_again_when_asked(copied, quick):
    screened, digest = table(copied), hash_file(copied.out / "synthetic/none-match/synthetic.parquet")
    copied.run({"screen": None})
    bare = table(copied)
    assert bare["accepted"].all() and "tries" not in bare and list(bare["seed"]) == list(screened["first_seed"])
    assert quick["screening"] == {} and not (copied.out / "synthetic/none-match/screening.parquet").exists()
    before = copied.stamps()["screening/none-match"]
    copied.run()
    assert copied.stamps()["screening/none-match"] == before  # done before: nothing is judged again
    assert hash_file(copied.out / "synthetic/none-match/synthetic.parquet") == digest
    assert list(quick["screening"]) == ["none, match"]


def test_a_set_that_was_screened_by_hand_is_left_as_it_is(copied, quick, phantom_cohort):
    from equigen.quality import fit_classifier

    shutil.rmtree(copied.out / "screening")
    judge = fit_classifier(phantom_cohort.split("train"), size=32, encoder="efficientnet-lite0@32",
                           columns=["attr.sex"], min_patients=5, show=False)  # fmt: skip
    made = SyntheticSet(copied.out / "synthetic/none-match")
    screen(made, copied.out / "generators/none", judge, tries=0, replicates=20, show=False)
    kept = table(copied)
    copied.run({"screen": None})
    pd.testing.assert_frame_equal(table(copied), kept)
    assert list(quick["screening"]) == ["none, match"]


def test_other_rules_screen_again_and_change_what_is_measured(copied, quick):
    from equigen.study.screening import set_version

    made = SyntheticSet(copied.out / "synthetic/none-match")
    before = set_version(made)
    copied.run({"screen.threshold": 0.999, "screen.tries": 0})
    assert (~table(copied)["accepted"]).mean() >= 0.5 and set(table(copied)["tries"]) == {1}
    after = set_version(made)
    assert before[0] == after[0] and before[1] != after[1]
    assert isinstance(set_version(SyntheticSet(copied.out / "synthetic/none-flip")), str)
    shown = {title: grid for title, grid in ((grid.title, grid) for grid in quick["grids"])}
    few = int(table(copied)["accepted"].sum())
    grey = (shown["sex"].generated["none"] == 235).all(axis=(2, 3, 4)).sum()
    assert grey >= 10 - few  # tiles that no accepted image fills

"""A calibration from beginning to end, of a generator whose best guidance of each group is known by design."""

import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from designed_images import BEST, BrightnessEncoder, Designed, halves

from equigen.cohort import load_images
from equigen.errors import InputError
from equigen.quality import kernel_distance
from equigen.report.calibration.findings import calibration_sentences
from equigen.synthesis import apply_guidance, calibrate, load_calibration, match_plan
from equigen.synthesis.calibration.checks import images_per_group, require_autoencoder

measure = sys.modules["equigen.synthesis.calibration.measurement"]
module = sys.modules["equigen.synthesis.generation"]
EACH, BUDGET = 24, 24 * 2 * 9 + 23  # 23 images are too few for one more evaluation
ASKED = {"attribute": "sex", "budget": BUDGET, "images": EACH, "steps": 1, "min_patients": 10, "replicates": 40,
         "confirm_images": 80, "show": False}  # fmt: skip


@pytest.fixture(scope="module")
def sides(phantom_cohort):
    return halves(phantom_cohort)


@pytest.fixture(scope="module")
def stand_in(phantom_cohort):
    """The generator's images are those of ``Designed``, both in the search and in the sets of the gain."""
    made = Designed(phantom_cohort, 32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "render", made)
        patch.setattr(module, "render", made)
        yield made


@pytest.fixture
def designed(stand_in):
    stand_in.made, stand_in.stop = 0, None
    return stand_in


def run(pipeline, sides, out, **more):
    return calibrate(pipeline, sides[0], sides[1], out=out, encoder=BrightnessEncoder(), **{**ASKED, **more})


@pytest.fixture(scope="module")
def found(pipeline, sides, stand_in, tmp_path_factory):
    """One finished calibration, read only; ``images`` were made for it."""
    out = tmp_path_factory.mktemp("calibration") / "out"
    stand_in.made = 0
    result = run(pipeline, sides, out)
    (out / "images").write_text(str(stand_in.made))
    return result


def test_each_group_gets_its_best_guidance_within_the_budget(found):
    chosen = found.guidance
    for group, best in BEST.items():
        assert chosen.groups[group] == pytest.approx(best, abs=0.15)
    assert BEST["female"] < chosen.common < BEST["male"]
    assert chosen.spent == 9 * 2 * EACH <= chosen.budget == BUDGET
    assert int((found.folder / "images").read_text()) == chosen.spent + 3 * 80  # the gain's three sets come on top
    evaluated = found.table[found.table["kind"] == "evaluated"]
    assert len(evaluated) == 18 and not evaluated.duplicated(["group", "guidance"]).any()
    assert (evaluated["excess"] == evaluated["estimate"] - evaluated["floor"]).all()


def test_the_distance_is_the_unbiased_kernel_distance_of_the_same_prompts(found, sides, designed, pipeline):
    """Against ``kernel_distance`` on the group's images and on those made for one guidance."""
    tune, encoder = sides[0], BrightnessEncoder()
    rows = measure.group_rows(tune, ["female", "male"], "sex", EACH, 1, 0)
    for name in ("female", "male"):
        own = rows[rows["group"] == name].reset_index(drop=True)
        assert set(own["attr.sex"]) == {name} and len(own) == EACH
        shares = tune.frame[tune.frame["attr.sex"] == name]["label.glaucoma"].value_counts(normalize=True)
        made = own["label.glaucoma"].value_counts()
        assert ((made - shares * EACH).abs() < 1).all()
        row = found.table.query("kind == 'evaluated' and group == @name and guidance == 2").iloc[0]
        images = designed(pipeline, own.assign(guidance=2.0), list(range(EACH)))
        real = designed.pixels[[list(designed_paths(sides)).index(p) for p in real_paths(tune, name)]]
        expected = kernel_distance(encoder(real)[0], encoder(images)[0], clusters=patients(tune, name))
        assert row["estimate"] == pytest.approx(expected, rel=1e-6)
    assert rows["seed"].nunique() == 2 * EACH


def designed_paths(sides):
    return sorted(pd.concat([side.frame for side in sides])["path"])


def real_paths(tune, name):
    return tune.frame.loc[tune.frame["attr.sex"] == name, "path"]


def patients(tune, name):
    return tune.frame.loc[tune.frame["attr.sex"] == name, "patient"].to_numpy()


def test_the_gain_is_measured_on_other_images_with_other_seeds(found, sides, pipeline):
    gain = found.gain.set_index(["set", "reference", "figure", "group"]).sort_index()
    own = gain.loc["group", "default"]
    assert own.loc[("gap", "*"), "difference"] < 0  # of 60 images its interval may hold 0
    for figure in (("worst", "*"), ("mean", "*"), ("overall", "*"), ("group", "male")):
        row = own.loc[figure]
        assert row["difference"] < 0, figure
        if figure[0] != "overall":  # both groups mixed: its interval may hold 0 too
            assert row["difference_high"] < 0 and row["p_value"] <= 0.06, figure
        other = gain.loc[("default", "", *figure)]
        assert row["difference"] == pytest.approx(row["excess"] - other["excess"])
    groups = gain.loc["group", ""].loc["group"]["excess"]
    assert gain.loc[("group", "", "gap", "*"), "excess"] == pytest.approx(groups.max() - groups.min())
    assert gain.loc[("group", "", "worst", "*"), "excess"] == pytest.approx(groups.max())
    assert gain.loc[("group", "", "overall", "*"), "n_real"] == len(sides[1])
    tuned = measure.group_rows(sides[0], ["female", "male"], "sex", EACH, 1, 0)
    assert not set(tuned["seed"]) & fresh(found)


def fresh(found):
    return {
        seed
        for path in (found.folder / "confirm").glob("*/synthetic.parquet")
        for seed in pd.read_parquet(path)["seed"]
    }


def test_the_three_sets_differ_in_guidance_alone(found):
    tables = [pd.read_parquet(path) for path in sorted((found.folder / "confirm").glob("*/synthetic.parquet"))]
    assert len(tables) == 3
    first = tables[0].drop(columns=["guidance", "sha256"])  # other guidance makes other images
    for table in tables[1:]:
        pd.testing.assert_frame_equal(table.drop(columns=["guidance", "sha256"]), first)
    assert {tuple(sorted(set(table["guidance"]))) for table in tables} == {
        (2.0,),
        (found.guidance.common,),
        tuple(sorted(found.guidance.groups.values())),
    }


def test_the_choice_says_who_gets_worse(found):
    choice = found.choice.set_index("group")
    assert (choice["default"] == 2).all() and (choice["common"] == found.guidance.common).all()
    chosen = found.table[found.table["kind"] == "chosen"].set_index(["name", "group"])["excess"]
    for group in BEST:
        assert choice.loc[group, "change_default"] == chosen["group", group] - chosen["default", group] < 0
    leveled = found.table.query("kind == 'front'")
    assert leveled["gap"].iloc[0] >= leveled["gap"].iloc[-1] and leveled["mean"].is_monotonic_increasing


def test_done_it_is_read_back_and_interrupted_it_goes_on_to_the_same(found, pipeline, sides, designed, tmp_path):
    again = run(pipeline, sides, found.folder)
    assert designed.made == 0 and again.guidance == found.guidance
    pd.testing.assert_frame_equal(again.table, found.table)
    pd.testing.assert_frame_equal(again.gain, found.gain)
    designed.made, designed.stop = 0, 10 * EACH + 5
    with pytest.raises(RuntimeError, match="power cut"):
        run(pipeline, sides, tmp_path / "cut")
    assert not (tmp_path / "cut" / "calibration.json").exists()
    kept = sorted((tmp_path / "cut" / "evaluations").glob("*.safetensors"))
    assert len(kept) == 10
    kept[0].write_bytes(b"half")  # damaged: made again
    designed.made, designed.stop = 0, None
    after = run(pipeline, sides, tmp_path / "cut")
    assert designed.made == 9 * EACH + 3 * 80
    pd.testing.assert_frame_equal(after.table, found.table)
    pd.testing.assert_frame_equal(after.gain, found.gain)


def test_against_reconstructions_real_images_are_those_that_the_autoencoder_keeps(
    found, pipeline, sides, designed, tmp_path
):
    own = run(pipeline, sides, tmp_path, against="reconstructions", budget=24 * 2 * 4)
    tune, encoder = sides[0], BrightnessEncoder()
    rows = measure.group_rows(tune, ["female", "male"], "sex", EACH, 1, 0)
    for name in ("female", "male"):
        row = own.table.query("kind == 'evaluated' and group == @name and guidance == 2").iloc[0]
        asked = rows[rows["group"] == name].reset_index(drop=True).assign(guidance=2.0)
        kept = pipeline.autoencoder.reconstruct(load_images(list(real_paths(tune, name)), 32), batch=7)
        images = designed(pipeline, asked, list(range(EACH)))
        expected = kernel_distance(encoder(kept)[0], encoder(images)[0], clusters=patients(tune, name))
        assert row["estimate"] == pytest.approx(expected, rel=1e-4)
        plain = found.table.query("kind == 'evaluated' and group == @name and guidance == 2").iloc[0]
        assert row["estimate"] != pytest.approx(plain["estimate"], rel=1e-3)
    both = [result.gain.query("set == 'default' and reference == '' and figure == 'group'") for result in (own, found)]
    assert (both[0]["floor"].to_numpy() != both[1]["floor"].to_numpy()).all()  # of the real images confirmed on
    assert load_calibration(tmp_path).against == "reconstructions" and found.guidance.against == "images"
    said = calibration_sentences(own.choice, own.gain, own.settings)[0].text
    assert "against real images as the autoencoder keeps them" in said
    with pytest.raises(InputError, match="the generator has no autoencoder"):
        require_autoencoder(object())


def test_without_images_to_confirm_on_there_is_no_gain(pipeline, sides, designed, tmp_path):
    out = calibrate(pipeline, sides[0], None, out=tmp_path, encoder=BrightnessEncoder(), **ASKED)
    assert out.gain is None and designed.made == out.guidance.spent
    assert not (tmp_path / "gain.parquet").exists()
    assert calibrate(pipeline, sides[0], None, out=tmp_path, encoder=BrightnessEncoder(), **ASKED).gain is None


def test_it_is_saved_with_the_generator_whose_hash_stays(generator, sides, designed, tmp_path):
    (generator.folder / "trained_on.parquet").rename(tmp_path / "seen")  # these sides are split anew, its patients too
    before = generator.pipeline().hash
    more = {"budget": 24 * 2 * 4, "objective": "gap", "gap_weight": 50.0}
    try:
        found = run(generator, sides, tmp_path / "out", **more)
        saved = load_calibration(generator.folder, generator.pipeline().hash)
    finally:
        (tmp_path / "seen").rename(generator.folder / "trained_on.parquet")
        (generator.folder / "calibration.json").unlink(missing_ok=True)
    assert saved == found.guidance == load_calibration(tmp_path / "out") and saved.generator == before
    assert (saved.objective, saved.gap_weight, saved.split, saved.cohort_hash) == ("gap", 50, "val", sides[0].hash)
    rows = match_plan(sides[1], 10, seed=4)
    assert set(apply_guidance(rows, found)["guidance"]) <= set(saved.groups.values())
    # So heavy a weight makes both groups equally far off, at the price of the better one.
    chosen = found.table.query("kind == 'chosen' and name == 'group'")
    first = found.table.query("kind == 'front'")["gap"].iloc[0]
    assert chosen["gap"].iloc[0] < 0.5 * first


def test_groups_that_are_too_small_take_the_common_guidance(pipeline, phantom_cohort, sides, designed, tmp_path):
    tune = sides[0]
    counts = {(s, r): tune.frame[(tune.frame["attr.sex"] == s) & (tune.frame["attr.race"] == r)]["patient"].nunique()
              for s in ("female", "male") for r in phantom_cohort.attributes["race"].levels}  # fmt: skip
    least = sorted(counts.values())[-2]
    more = {"attribute": "sex & race", "min_patients": least, "budget": 24 * len(counts) * 4, "confirm_images": 30}
    found = calibrate(pipeline, tune, None, out=tmp_path, encoder=BrightnessEncoder(), **{**ASKED, **more})
    large = {f"{s} & {r}" for (s, r), n in counts.items() if n >= least}
    assert set(found.guidance.groups) == large and len(large) < len(counts)
    assert found.guidance.left_out == {
        f"{s} & {r}": f"too small: {n} patients" for (s, r), n in counts.items() if n < least
    }
    small = found.choice[found.choice["group"].isin(found.guidance.left_out)]
    assert (small["calibrated"] == found.guidance.common).all() and small["note"].str.startswith("too small").all()


def test_what_cannot_be_calibrated_is_refused_before_an_image_is_made(pipeline, sides, designed, tmp_path):
    tune, confirm = sides

    def refused(match, sides=sides, **more):
        with pytest.raises(InputError, match=match):
            run(pipeline, sides, tmp_path / "out", **more)

    refused("objective 'mean'", objective="mean")
    refused("against 'paintings' .use one of images, reconstructions", against="paintings")
    refused(r"gap_weight -1(.|\n)*bounds \(4, 1\)(.|\n)*steps 0", gap_weight=-1, bounds=(4, 1), steps=0)
    refused("tune has no attribute 'age'", attribute="sex & age")
    refused(r"budget of 100 images for 2 groups .give at least 192", budget=100)
    refused("fewer than two groups have 500 patients", min_patients=500)
    both = replace(confirm, frame=pd.concat([confirm.frame, tune.frame.head(1)]).reset_index(drop=True))
    refused(f"share 1 patients, '{tune.frame['patient'].iloc[0]}'", (tune, both))
    trained = replace(tune, frame=tune.frame.assign(split="train"))
    refused("tune holds images of the training split", (trained, confirm))
    refused("tune holds no image", (tune.where(np.zeros(len(tune), bool)), confirm))
    strange = replace(tune, frame=tune.frame.assign(**{"label.glaucoma": "maybe"}))
    refused("'maybe' is unknown to this generator", (strange, confirm))
    with pytest.raises(InputError, match="an open pipeline has no folder"):
        run(pipeline, sides, None)
    assert designed.made == 0 and not (tmp_path / "out").exists()


def test_images_of_an_evaluation_follow_from_the_budget():
    assert images_per_group(None, 4000, 3, 4) == 166
    assert images_per_group(None, 10_000, 2, 4) == 250
    assert images_per_group(40, 480, 3, 4) == 40
    with pytest.raises(InputError, match="give at least 480"):
        images_per_group(40, 479, 3, 4)
    with pytest.raises(InputError, match="give at least 192"):
        images_per_group(None, 191, 3, 4)

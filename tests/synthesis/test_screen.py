"""Screening: right images pass, wrong ones are drawn again by a fixed chain of seeds, and work that stopped goes on."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from screen_world import Painter, asked, blue, luck, male, reader, real_cohort, row, write_set

from equigen.cohort import load_images
from equigen.diagnosis.training_images import read_source
from equigen.errors import InputError
from equigen.files import hash_file
from equigen.quality.image_sets import load_image_set
from equigen.seeds import derive_seed
from equigen.synthesis import Screening, generate, plan, screen
from equigen.synthesis.generation import render
from equigen.synthesis.screening import rounds

N, WRONG = 300, 0.5  # more rows than are drawn together; half of all images show the other diagnosis
FAST = {"replicates": 40, "show": False}


def half_wrong():
    return Painter(lambda row, luck: luck < WRONG)


def files(folder) -> dict[str, bytes]:
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def table(found: Screening) -> pd.DataFrame:
    return found.synthetic.frame.drop(columns="path")


def shows_ill(frame) -> np.ndarray:
    return load_images(list(frame["path"]), 8)[:, 0, 0, 0] > 128


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The set before screening. Read only."""
    return write_set(tmp_path_factory.mktemp("made") / "set", asked(N), half_wrong())


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "set")


@pytest.fixture(scope="module")
def done(made, tmp_path_factory) -> Screening:
    """A perfect classifier's screening. Read only."""
    place = shutil.copytree(made, tmp_path_factory.mktemp("done") / "set")
    return screen(place, half_wrong(), reader(), tries=3, **FAST)


def chain(seed: int, tries: int) -> list[int]:
    return [seed, *(derive_seed(seed, "redraw", k) for k in range(1, tries + 1))]


# A perfect classifier


def test_without_redraws_exactly_the_wrong_images_are_refused(folder):
    found = screen(folder, half_wrong(), reader(), tries=0, **FAST)
    frame = found.synthetic.frame
    right = shows_ill(frame) == (frame["label.dx"] == "ill").to_numpy()
    assert list(frame["accepted"]) == list(right)
    assert [luck(seed) >= WRONG for seed in frame["seed"]] == list(right)
    assert set(frame["tries"]) == {1} and list(frame["seed"]) == list(frame["first_seed"])
    assert (frame["reason"] == "").tolist() == list(right)
    refused = frame[~right].iloc[0]
    other = {"ill": "healthy", "healthy": "ill"}[refused["label.dx"]]
    assert refused["reason"] == f"label.dx: asked for {refused['label.dx']} (0.10), reads as {other} (0.90)"


def test_refused_images_are_drawn_again_with_the_next_seeds_of_their_own_chain(done):
    frame = done.synthetic.frame
    for seed, used, tries, accepted in zip(frame["first_seed"], frame["seed"], frame["tries"], frame["accepted"],
                                           strict=True):  # fmt: skip
        right = [luck(own) >= WRONG for own in chain(seed, 3)]
        wanted = right.index(True) + 1 if any(right) else 4
        assert (tries, accepted, used) == (wanted, any(right), chain(seed, 3)[wanted - 1])
    assert set(frame["tries"]) == {1, 2, 3, 4} and 0 < (~frame["accepted"]).sum() < N / 8
    right = shows_ill(frame) == (frame["label.dx"] == "ill").to_numpy()
    assert list(right) == list(frame["accepted"])  # the files are those of the table


def test_seeds_of_redraws_are_pinned():
    assert [rounds.next_seed(5, k) for k in (1, 2, 3)] == [
        1457412094512876135, 8169476158632959662, 6316881621596206929]  # fmt: skip


def test_first_images_stay_and_what_was_asked_for_stays(done, made):
    before, after = pd.read_parquet(made / "synthetic.parquet"), done.synthetic.frame
    assert list(after["first_image"]) == list(before["image"]) and list(after["first_seed"]) == list(before["seed"])
    for name in before.columns.difference(["image", "seed", "accepted", "reason"]):
        assert list(after[name]) == list(before[name])
    assert list(after.columns)[: len(before.columns)] == list(before.columns)
    for name in before["image"]:
        assert (done.folder / name).read_bytes() == (made / name).read_bytes()


def test_images_given_up_stay_with_their_last_try_and_the_reason(done):
    given_up = done.synthetic.frame.query("not accepted").iloc[0]
    assert given_up["tries"] == 4 and given_up["image"].endswith(f"{given_up.name:07d}-3.png")
    assert np.asarray(Image.open(given_up["path"])).shape == (8, 8, 3)
    assert given_up["reason"].startswith("label.dx: asked for ")


def test_every_draw_is_on_record(done):
    draws, frame = done.draws, done.synthetic.frame
    assert len(draws) == frame["tries"].sum()
    assert (draws.groupby("row")["draw"].max().to_numpy() == frame["tries"].to_numpy()).all()
    assert not draws[draws["draw"] < draws["row"].map(frame["tries"])]["accepted"].any()
    first = draws[draws["draw"] == 1]
    assert (first["ok.label.dx"] == first["accepted"]).all() and (first["ok.attr.sex"] == 1).all()
    assert set(first["p.label.dx"].round(6)) == {0.1, 0.9}


# The rule


@pytest.mark.parametrize(("threshold", "share"), [(None, 1.0), (0.9, 1.0), (0.91, 0.0), (0.05, 1.0)])
def test_a_threshold_is_the_least_probability_of_the_asked_level(tmp_path, threshold, share):
    place = write_set(tmp_path / "set", asked(40), Painter())
    found = screen(place, Painter(), reader(), tries=0, threshold=threshold, **FAST)
    assert found.synthetic.frame["accepted"].mean() == share


def test_a_low_threshold_accepts_what_another_level_is_likelier_for(folder):
    found = screen(folder, half_wrong(), reader(), tries=0, threshold=0.09, **FAST)
    assert found.synthetic.frame["accepted"].all()


def test_a_tie_counts_as_asked(tmp_path):
    place = write_set(tmp_path / "set", asked(40), Painter())
    assert screen(place, Painter(), reader(sure=0.5), tries=0, **FAST).synthetic.frame["accepted"].all()


def test_only_chosen_fields_are_checked(folder):
    found = screen(folder, half_wrong(), reader(), fields=["attr.sex"], **FAST)
    frame = found.synthetic.frame
    assert frame["accepted"].all() and set(frame["tries"]) == {1}
    assert set(found.table["field"]) == {"*", "attr.sex"}


def test_unknown_levels_are_not_checked(tmp_path):
    rows = asked(200)
    rows.loc[:49, "label.dx"] = "rare"  # a level that the classifier does not know
    rows.loc[50:99, "attr.sex"] = None
    painter = Painter(lambda row, luck: True)
    painter.one = lambda row, seed: np.full((8, 8, 3), 200 * (row["label.dx"] == "healthy"), np.uint8)
    found = screen(write_set(tmp_path / "set", rows, painter), painter, reader(), tries=0, fields=["label.dx"], **FAST)
    frame = found.synthetic.frame
    assert frame["accepted"][:50].all() and not frame["accepted"][50:].any()
    whole = row(found.table, "accepted_first", field="label.dx")
    assert whole["n"] == 150 and "50 of 200 images not checked" in whole["note"]


# What stopped goes on


def test_the_same_call_makes_nothing_again(done):
    before, painter = files(done.folder), half_wrong()
    again = screen(done.folder, painter, reader(), tries=3, **FAST)
    assert painter.calls == 0 and files(done.folder) == before
    pd.testing.assert_frame_equal(again.table, done.table)


@pytest.mark.parametrize("stop", [0, 1, 2, 4])
def test_work_that_was_cut_off_goes_on_to_the_same_bits(folder, done, stop):
    failing = half_wrong()
    failing.stop = stop
    with pytest.raises(RuntimeError, match="power cut"):
        screen(folder, failing, reader(), **FAST)
    for place in (folder / "screening").iterdir():
        (place / "draw-1" / ".0000128.dead.part.parquet").write_bytes(b"half")  # as a killed process leaves it
    untouched = pd.read_parquet(folder / "synthetic.parquet")
    assert untouched["accepted"].all() and "tries" not in untouched  # no half a verdict
    screen(folder, half_wrong(), reader(), **FAST)
    assert files(folder) == files(done.folder)


def test_a_lost_image_is_drawn_again_and_a_lost_table_written_again(folder, done):
    shutil.rmtree(folder)
    shutil.copytree(done.folder, folder)
    lost = next((folder / "screening").rglob("*-2.png"))
    for path in (lost, folder / "screening.parquet"):
        path.unlink()
    screen(folder, half_wrong(), reader(), **FAST)
    assert files(folder) == files(done.folder)


@pytest.mark.parametrize("together", [7, 64, 4096])
def test_how_many_are_drawn_together_changes_nothing(folder, done, monkeypatch, together):
    monkeypatch.setattr(rounds, "BATCH", together)
    found = screen(folder, half_wrong(), reader(), **FAST)
    pd.testing.assert_frame_equal(table(found), table(done))
    pd.testing.assert_frame_equal(found.table, done.table)


def test_another_screen_starts_from_the_first_images_and_keeps_its_own(folder, done):
    first = screen(folder, half_wrong(), reader(), fields=["attr.sex"], **FAST)
    assert first.synthetic.frame["accepted"].all()
    second = screen(folder, half_wrong(), reader(), **FAST)
    pd.testing.assert_frame_equal(table(second), table(done))
    assert len(list((folder / "screening").iterdir())) == 2
    screen(folder, half_wrong(), reader(name="another"), tries=0, **FAST)
    assert len(list((folder / "screening").iterdir())) == 3


def test_more_tries_go_on_from_fewer(folder, done):
    screen(folder, half_wrong(), reader(), tries=1, **FAST)
    painter = half_wrong()
    found = screen(folder, painter, reader(), tries=3, **FAST)
    second = set(done.draws.query("draw == 2")["seed"])
    assert not second & set(painter.seeds) and painter.calls
    pd.testing.assert_frame_equal(found.table, done.table)


# A trained generator


def test_redraws_of_a_trained_generator_are_its_images_of_the_new_seeds(phantom_cohort, generator, pipeline, tmp_path):
    rows = plan(phantom_cohort, "match", 40, seed=1, steps=2)
    made = generate(pipeline, rows, tmp_path / "set", show=False)
    bright = reader()
    level = np.median(load_images(list(made.frame["path"]), 32)[:, 0, 0, 0])
    questions = [replace(bright.targets[0], column="label.glaucoma", levels=["healthy", "glaucoma"])]
    odd = replace(bright, targets=questions, function=lambda images: {
        "label.glaucoma": np.where((images[:, 0, 0, 0] > level)[:, None] == [False, True], 0.9, 0.1)})  # fmt: skip
    found = screen(made, generator, odd, tries=1, **FAST)
    again = found.synthetic.frame.query("tries == 2")
    asked_again = rows.iloc[again.index].assign(seed=again["seed"])
    want = render(pipeline, asked_again, list(range(len(again))))
    np.testing.assert_array_equal(load_images(list(again["path"]), 32), want)
    assert len(again) > 5 and 0 < found.synthetic.frame["accepted"].sum() < 40
    generate(pipeline, rows, made.folder, show=False)  # is done, and keeps the verdicts
    pd.testing.assert_frame_equal(made.frame, found.synthetic.frame)


# Whom it treats how


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    return real_cohort(tmp_path_factory.mktemp("real") / "images")


def test_a_screen_that_is_unfair_shows_in_the_table_and_so_does_its_cause(tmp_path, held_out):
    """It misreads two fifths of the men, real and generated; the generator is perfect."""
    place = write_set(tmp_path / "set", asked(800), Painter())
    unfair = reader(lambda images: male(images) & (blue(images) < 0.4))
    found = screen(place, Painter(), unfair, held_out=held_out, show=False)
    men, women = (row(found.table, "accepted_first", "sex", group) for group in ("male", "female"))
    assert women["estimate"] == 1 and men["estimate"] == pytest.approx(0.6, abs=0.05)
    assert men["ci_low"] < 0.6 < men["ci_high"] and men["n"] == 400 and men["count"] == round(men["estimate"] * 400)
    gap = row(found.table, "accepted_first", "sex", "gap")
    assert gap["estimate"] == pytest.approx(1 - men["estimate"]) and gap["estimate"] > gap["null_high"]
    assert gap["p_value"] < 0.02
    real = row(found.table, "false_rejection", "sex", "male")
    assert real["estimate"] == pytest.approx(0.4, abs=0.1) and real["n"] == 200 and real["n_patients"] == 100
    assert row(found.table, "false_rejection", "sex", "female")["estimate"] == 0
    excess = row(found.table, "excess_rejection", "sex", "male")
    assert excess["ci_low"] < 0 < excess["ci_high"]  # the screen's own mistakes explain it all
    assert row(found.table, "tries", "sex", "male")["estimate"] > 1.3 and row(found.table, "tries", "sex", "female")[
        "estimate"] == 1  # fmt: skip
    assert row(found.table, "given_up", "sex", "male")["estimate"] == pytest.approx(0.4**4, abs=0.03)
    by_dx = row(found.table, "accepted_first", "label.dx", "gap")
    assert by_dx["p_value"] > 0.05  # both diagnoses alike


def test_a_generator_that_fails_a_group_is_told_from_an_unfair_screen(tmp_path, held_out):
    painter = Painter(lambda row, luck: row["attr.sex"] == "female" and luck < 0.5)
    found = screen(write_set(tmp_path / "set", asked(400), painter), painter, reader(), held_out=held_out, show=False)
    women, men = (row(found.table, "excess_rejection", "sex", group) for group in ("female", "male"))
    assert women["ci_low"] > 0.3 and men["estimate"] == 0
    assert row(found.table, "false_rejection")["estimate"] == 0
    none = row(found.table, "false_rejection")
    assert "without exception" in none["note"] and 0 == none["ci_low"] < none["ci_high"] < 0.03


def test_real_images_choose_nothing(made, tmp_path, held_out):
    """Whatever real images are given, validation, test or none, the verdicts are the same."""
    test = real_cohort(tmp_path / "test", split="test", prefix="q")
    frames = []
    for index, real in enumerate((None, held_out, test)):
        place = shutil.copytree(made, tmp_path / str(index))
        frames.append(table(screen(place, half_wrong(), reader(), held_out=real, **FAST)))
    pd.testing.assert_frame_equal(frames[0], frames[1])
    pd.testing.assert_frame_equal(frames[0], frames[2])


def test_real_images_are_judged_once(made, tmp_path, held_out):
    place = shutil.copytree(made, tmp_path / "set")
    first = screen(place, half_wrong(), reader(), held_out=held_out, tries=0, **FAST)
    silent = replace(reader(), function=lambda images: pytest.fail("an image was judged again"))
    again = screen(place, half_wrong(), silent, held_out=held_out, tries=0, **FAST)
    pd.testing.assert_frame_equal(again.table, first.table)


def test_the_table_is_on_disk(done):
    kept = pd.read_parquet(done.folder / "screening.parquet")
    pd.testing.assert_frame_equal(kept, done.table)


# Images that change


@pytest.fixture
def recorded(folder):
    """A set whose table has the hash of each image, as ``generate`` writes it."""
    frame = pd.read_parquet(folder / "synthetic.parquet")
    hashes = [hash_file(folder / name) for name in frame["image"]]
    frame.assign(sha256=hashes).to_parquet(folder / "synthetic.parquet", index=False)
    return folder


def test_the_table_has_the_hashes_of_the_first_and_the_last_draw(recorded):
    before = pd.read_parquet(recorded / "synthetic.parquet")
    frame = screen(recorded, half_wrong(), reader(), **FAST).synthetic.frame
    assert list(frame["sha256"]) == [hash_file(path) for path in frame["path"]]
    assert list(frame["first_sha256"]) == list(before["sha256"]) and (frame["sha256"] != frame["first_sha256"]).any()
    pd.testing.assert_frame_equal(rounds.unscreened_table(frame.drop(columns="path")), before)


def test_a_changed_image_that_was_drawn_again_is_told_and_screening_makes_it_again(recorded):
    first = screen(recorded, half_wrong(), reader(), **FAST)
    before, frame = files(recorded), first.synthetic.frame
    victim = frame["image"][frame["accepted"] & (frame["tries"] == 2)].iloc[0]
    Image.new("RGB", (8, 8)).save(recorded / victim)
    with pytest.raises(InputError, match=f"1 images are not the ones that were generated.*{victim}"):
        load_image_set(recorded, "generated")
    screen(recorded, half_wrong(), reader(), **FAST)
    assert files(recorded) == before
    load_image_set(recorded, "generated")


def test_a_changed_first_image_is_not_screened(recorded):
    Image.new("RGB", (8, 8)).save(recorded / "images/0000007.png")
    with pytest.raises(InputError, match=r"1 images are not the ones that were generated.*0000007\.png"):
        screen(recorded, half_wrong(), reader(), **FAST)


def test_an_edit_that_the_user_of_a_study_accepts_is_taken(recorded):
    Image.new("RGB", (8, 8)).save(recorded / "images/0000007.png")
    (recorded / "stage.json").write_text('{"accepted": ["images/0000007.png"]}')
    assert len(load_image_set(recorded, "generated")) == N


# Who uses a screened set


def test_only_accepted_images_are_evaluated_and_learned_from(done):
    frame = done.synthetic.frame
    refused = int((~frame["accepted"]).sum())
    side = load_image_set(done.synthetic, "generated")
    assert list(side.frame["path"]) == list(frame["path"][frame["accepted"]])
    assert side.remark == f"{refused} of {N} images were refused by screening and are left out"
    again = load_image_set(frame, "generated")  # the table itself, as some callers give it
    assert len(again) == N - refused and again.remark == side.remark
    source = read_source(done.folder, ["dx"])
    assert list(source.table["image"]) == list(frame["image"][frame["accepted"]])
    assert source.remark == side.remark


# Bad input


def test_what_cannot_be_screened_is_refused_before_anything_is_drawn(folder, tmp_path, held_out):
    before, painter = files(folder), half_wrong()
    cases = [
        ({"fields": ["label.age"]}, r"'label\.age': the classifier cannot read this field .*label\.dx, attr\.sex"),
        ({"threshold": 1.5}, r"threshold 1\.5"),
        ({"tries": -1}, "tries -1"),
        ({"replicates": 2}, "replicates is 2"),
        ({"held_out": held_out.where(np.zeros(len(held_out), bool))}, "there is no image"),
        ({"held_out": replace(held_out, frame=held_out.frame.assign(split="train"))}, "training split"),
    ]
    for change, words in cases:
        with pytest.raises(InputError, match=words):
            screen(folder, painter, reader(), **{**FAST, **change})
    with pytest.raises(InputError, match="learned from 1 of their patients, 'p0-0' for one"):
        screen(folder, painter, reader(patients=frozenset({"p0-0", "zz"})), held_out=held_out, **FAST)
    other = half_wrong()
    other.hash = "another"
    with pytest.raises(InputError, match=r"was made by painter .*this one is another"):
        screen(folder, other, reader(), **FAST)
    with pytest.raises(InputError, match="There is no synthetic set"):
        screen(tmp_path, painter, reader(), **FAST)
    assert files(folder) == before and painter.calls == 0
    pd.read_parquet(folder / "synthetic.parquet").drop(columns="steps").to_parquet(folder / "synthetic.parquet")
    with pytest.raises(InputError, match=r"column 'steps', .*: is missing"):
        screen(folder, painter, reader(), **FAST)


def test_counterfactual_pairs_are_not_screened(folder):
    frame = pd.read_parquet(folder / "synthetic.parquet")
    frame.assign(pair=np.arange(N) // 2, changed="sex").to_parquet(folder / "synthetic.parquet")
    with pytest.raises(InputError, match="is a set of counterfactual pairs"):
        screen(folder, half_wrong(), reader(), **FAST)


def test_a_field_that_the_set_does_not_ask_for_is_refused(folder):
    frame = pd.read_parquet(folder / "synthetic.parquet").drop(columns="attr.sex")
    frame.to_parquet(folder / "synthetic.parquet")
    with pytest.raises(InputError, match="the set does not ask for this field"):
        screen(folder, half_wrong(), reader(), fields=["attr.sex"], **FAST)
    with pytest.raises(InputError, match="nothing is checked"):
        screen(folder, half_wrong(), replace(reader(), targets=reader().targets[1:]), **FAST)


def test_a_generator_of_another_size_and_a_classifier_that_breaks_its_word_are_refused(folder):
    large = half_wrong()
    large.one = lambda row, seed: np.zeros((16, 16, 3), np.uint8)
    with pytest.raises(InputError, match=r"images of the set are uint8 \[\d+, 8, 8, 3\]"):
        screen(folder, large, reader(), **FAST)
    with pytest.raises(InputError, match=r"column 'label\.dx': .*do not sum to 1"):
        screen(folder, half_wrong(), replace(reader(name="odd"), function=lambda images: {
            "label.dx": np.ones((len(images), 2)), "attr.sex": np.ones((len(images), 2)) / 2}), **FAST)  # fmt: skip

"""A generator's digests of whom it was trained on, and the refusal of a cohort that holds these people out."""

import numpy as np
import pandas as pd
import pytest

from equigen.cohort import Cohort, carry_trained_on, check_unseen, read_trained_on, write_trained_on
from equigen.cohort.trained_on import digest
from equigen.errors import InputError


@pytest.fixture
def split_by_column(tree):
    """cohort(sides): one image each of p0 ... with these sides of the split."""
    tree.spec["split"] = {"column": "side"}

    def cohort(sides, name="small", image=None):
        tree.rows.clear()
        tree.spec["name"] = name
        for index, side in enumerate(sides):
            file = tree.image(f"images/{image or 'i'}{index}.png")
            tree.add(f"p{index}", "a", ["nv", "mel"][index % 2], "F", "30", file, side=side)
        return tree.read(check_images=False)

    return cohort


BEFORE = ["train"] * 5 + ["val", "test", "test"]
AFTER = ["train", "train", "test", "val", "test", "test", "test", "val"]


def test_the_cohort_that_it_was_trained_on_is_taken(split_by_column, tmp_path):
    cohort = split_by_column(BEFORE)
    write_trained_on(tmp_path / "g", cohort, "key")
    check_unseen(cohort, [("none", tmp_path / "g")], "No")
    check_unseen(cohort.split("test"), [("none", tmp_path / "g")], "No")
    check_unseen(cohort, [("foreign", tmp_path)], "No")  # nothing is known of it


def test_patients_who_were_moved_are_counted(split_by_column, tmp_path):
    """p2, p3 and p4 were trained on and are held out now: three of six held-out patients."""
    write_trained_on(tmp_path / "g", split_by_column(BEFORE), "key")
    with pytest.raises(InputError, match="No: the generator has seen these patients") as caught:
        check_unseen(split_by_column(AFTER), [("none", tmp_path / "g")], "No")
    assert "none was trained on 3 of the 6 held-out patients" in str(caught.value)


def test_the_same_people_with_other_images_are_known_by_their_ids(split_by_column, tmp_path):
    write_trained_on(tmp_path / "g", split_by_column(BEFORE), "key")
    with pytest.raises(InputError, match="3 of the 6 held-out patients"):
        check_unseen(split_by_column(AFTER, image="later"), [("none", tmp_path / "g")], "No")


def test_the_same_images_are_known_under_another_name(split_by_column, tmp_path):
    write_trained_on(tmp_path / "g", split_by_column(BEFORE), "key")
    with pytest.raises(InputError, match="3 of the 6 held-out patients"):
        check_unseen(split_by_column(AFTER, name="other"), [("none", tmp_path / "g")], "No")


def test_equal_ids_of_another_data_set_are_other_people(split_by_column, tmp_path):
    write_trained_on(tmp_path / "g", split_by_column(BEFORE), "key")
    check_unseen(split_by_column(AFTER, name="other", image="other"), [("none", tmp_path / "g")], "No")


def test_no_id_and_no_hash_stands_in_clear(split_by_column, tmp_path):
    cohort = split_by_column(BEFORE)
    table = pd.read_parquet(write_trained_on(tmp_path / "g", cohort, "key"))
    assert table["kind"].value_counts().to_dict() == {"patient": 5, "image": 5}
    assert set(table["salt"]) == {"key"} and digest("key", "small/p0") in set(table["digest"])
    shown = " ".join(table.astype(str).to_numpy().ravel())
    assert not any(patient in shown.split() for patient in cohort.frame["patient"])
    assert not any(sha256 in shown for sha256 in cohort.frame["sha256"])
    assert digest("key", "small/p0") != digest("other", "small/p0")


def test_what_was_gone_on_from_and_snapshots_and_sets_count_too(split_by_column, tmp_path):
    write_trained_on(tmp_path / "first", split_by_column(BEFORE), "key")
    nobody = split_by_column(["train"] * 8, image="new", name="new")
    write_trained_on(tmp_path / "second", nobody, "other", tmp_path / "first")
    carry_trained_on(tmp_path / "second", tmp_path / "set")
    after = split_by_column(AFTER)
    for place in ("second", "second/snapshots/000000064", "set"):
        with pytest.raises(InputError, match="3 of the 6"):
            check_unseen(after, [("none", tmp_path / place)], "No")
    assert len(read_trained_on(tmp_path / "second")) == 10 + 16


def test_a_saved_cohort_read_by_row_group_gives_the_same_digests(split_by_column, tmp_path):
    from equigen.cohort import Manifest

    cohort = split_by_column(BEFORE)
    cohort.save(tmp_path / "saved")
    one = pd.read_parquet(write_trained_on(tmp_path / "a", Cohort.load(tmp_path / "saved"), "key"))
    two = pd.read_parquet(write_trained_on(tmp_path / "b", Manifest.load(tmp_path / "saved"), "key"))
    assert one.equals(two) and len(one) == 10


@pytest.fixture
def foreign_set(split_by_column, tmp_path):
    """The folder of a set whose generator was trained on p0 to p4."""
    write_trained_on(tmp_path / "set", split_by_column(BEFORE), "key")
    frame = pd.DataFrame({"image": ["a.png"], "label.dx": ["nv"], "attr.sex": ["female"], "seed": [1]})
    frame.to_parquet(tmp_path / "set" / "synthetic.parquet")
    return tmp_path / "set"


def test_evaluate_refuses_it(split_by_column, foreign_set):
    from equigen.quality import evaluate

    for real in (split_by_column(AFTER).split("test"), split_by_column(AFTER).split("test").frame):
        with pytest.raises(InputError, match="cannot be evaluated against: the generator has seen these patients"):
            evaluate(real, foreign_set, show=False)


def test_diagnose_refuses_it(split_by_column, foreign_set):
    from equigen.diagnosis import diagnose

    with pytest.raises(InputError, match="cannot be diagnosed: the generator has seen these patients"):
        diagnose(split_by_column(AFTER), {"none": foreign_set}, show=False)


def test_calibrate_refuses_it(split_by_column, foreign_set):
    from equigen.synthesis import calibrate

    cohort = split_by_column(AFTER)
    unseen = cohort.split("val").where(np.array([0, 1]))
    for tune, confirm in ((cohort.split("val"), None), (unseen, cohort.split("test"))):
        with pytest.raises(InputError, match="cannot calibrate: the generator has seen these patients"):
            calibrate(foreign_set, tune, confirm, attribute="sex", show=False)

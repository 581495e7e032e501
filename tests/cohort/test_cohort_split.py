"""The split: whole patients, and a patient's side from the seed and the id alone."""

import hashlib
import zlib

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equigen.cohort.splits import absent_levels, split_patients, unit_position
from equigen.errors import InputError

SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}


def split(patients, seed: int = 0, shares=SHARES) -> pd.Series:
    return split_patients(pd.Series(patients, dtype=object), shares, seed)[0]


def sides(patients, seed: int = 0, shares=SHARES) -> dict[str, str]:
    return dict(zip(patients, split(patients, seed, shares), strict=True))


def test_the_position_is_a_hash_of_seed_and_id():
    digest = hashlib.sha256(b"5/split/p7/0").digest()
    assert unit_position(5, "p7") == (int.from_bytes(digest[:8], "big") >> 1) / 2**63


def test_the_side_is_the_interval_by_hand():
    patients = [f"p{index}" for index in range(300)]
    for patient, side in sides(patients, 3).items():
        place = unit_position(3, patient)
        assert side == ("train" if place < 0.7 else "val" if place < 0.8 else "test")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 11).map(str), min_size=3, max_size=40), st.integers(0, 5))
def test_no_patient_is_on_two_sides_and_order_does_not_matter(patients, seed):
    units = pd.Series(patients, dtype=object)
    if units.nunique() < 3:
        with pytest.raises(InputError, match="cannot fill 3 splits"):
            split_patients(units, SHARES, seed)
        return
    parts = split(patients, seed)
    assert set(parts) == set(SHARES) and parts.groupby(units).nunique().max() == 1
    shuffled = units.sample(frac=1, random_state=seed)
    assert split_patients(shuffled, SHARES, seed)[0].sort_index().equals(parts)


def test_more_patients_move_nobody():
    some = [f"p{index}" for index in range(0, 400, 2)]
    everyone = sides([f"p{index}" for index in range(400)])
    assert sides(some).items() <= everyone.items()


def test_shares_are_those_of_a_random_sample():
    """Of 20 000 patients a fifth has a standard deviation of 0.0028."""
    found = split([f"p{index}" for index in range(20_000)]).value_counts(normalize=True)
    assert all(abs(found[name] - share) < 0.012 for name, share in SHARES.items())


def test_seed_decides():
    patients = [f"p{index}" for index in range(80)]
    assert sides(patients, 1) == sides(patients, 1) != sides(patients, 2)


def test_one_split_alone_and_a_split_without_a_share():
    patients = [f"p{index}" for index in range(20)]
    assert set(split(patients, shares={"train": 0.0, "val": 0.0, "test": 1.0})) == {"test"}
    assert set(split(patients, shares={"train": 0.5, "test": 0.5})) == {"train", "test"}


def test_an_empty_split_gets_the_nearest_patient_and_it_is_told():
    patients = [name for name in (f"p{index}" for index in range(50)) if unit_position(0, name) < 0.7][:4]
    parts, told = split_patients(pd.Series(patients), SHARES, 0)
    order = sorted(patients, key=lambda patient: unit_position(0, patient))
    # val starts at 0.7, so the highest goes there; test starts at 0.8, so the next one does
    assert dict(zip(patients, parts, strict=True)) == {
        order[0]: "train", order[1]: "train", order[2]: "test", order[3]: "val",
    }  # fmt: skip
    assert [str(item.message) for item in told] == [
        f"split 'val' (10 % of 4 patients) would be empty, so patient '{order[3]}', the nearest, is in it",
        f"split 'test' (20 % of 4 patients) would be empty, so patient '{order[2]}', the nearest, is in it",
    ]


def test_nothing_is_told_of_full_splits():
    assert split_patients(pd.Series([f"p{index}" for index in range(200)]), SHARES, 0)[1] == []


def test_a_level_that_misses_a_split_is_told():
    frame = pd.DataFrame(
        {
            "patient": list("abcdef"),
            "split": ["train", "train", "train", "test", "test", "train"],
            "label.f": ["x", "x", "x|y", "y", "", "x"],
            "attr.g": ["m", "f", None, "m", "f", "only"],
        },
        dtype=object,
    )
    assert [item.message for item in absent_levels(frame)] == ["no patient of label.f=x is in test, of 4 patients"]


# whole cohorts


def moved(before, after) -> int:
    """How many patients of both cohorts are in another split."""
    first, second = (
        dict(zip(cohort.frame["patient"], cohort.frame["split"], strict=True)) for cohort in (before, after)
    )
    return sum(first[patient] != second[patient] for patient in set(first) & set(second))


@pytest.fixture
def large(tree):
    tree.spec["split"] = {"fractions": {"train": 0.6, "val": 0.1, "test": 0.3}, "seed": 4}
    return tree.fill(60)


def rewritten_bins(tree):
    tree.spec["attributes"]["age"] = {"column": "age", "bins": [0, 25, 700]}


def rewritten_labels(tree):
    for row in tree.rows[::3]:
        row["dx"] = "mel"


def without_attributes(tree):
    tree.spec["attributes"] = {}
    tree.spec.pop("prompt")


def with_an_attribute(tree):
    for number, row in enumerate(tree.rows):
        row["skin"] = "I" if number % 3 else "II"
    tree.header.append("skin")
    tree.spec["attributes"]["skin"] = {"column": "skin"}


def with_rows(tree):
    for index in range(0, 60, 2):
        tree.add(f"p{index}", "ab"[index % 2])


def with_patients(tree):
    for index in range(20):
        tree.add(f"a{index}")


@pytest.mark.parametrize(
    "change",
    [rewritten_bins, rewritten_labels, without_attributes, with_an_attribute, with_rows, with_patients],
)
def test_nobody_moves(large, change):
    large.spec["attributes"]["age"]["bins"] = [0, 40, 60, 700]
    before = large.read(check_images=False)
    change(large)
    after = large.read(check_images=False)
    assert moved(before, after) == 0
    assert set(before.frame["split"]) == {"train", "val", "test"}


def test_another_seed_moves_patients(large):
    large.spec["attributes"]["age"]["bins"] = [0, 40, 60, 700]
    before = large.read(check_images=False)
    large.spec["split"]["seed"] = 5
    assert moved(before, large.read(check_images=False)) > 10


def test_the_cohort_tells_of_a_split_that_would_be_empty(tree):
    tree.spec["split"] = {"fractions": {"train": 0.999, "test": 0.001}}
    cohort = tree.fill(6).read()
    assert set(cohort.frame["split"]) == {"train", "test"}
    assert "split 'test' (0.1 % of 6 patients) would be empty" in " ".join(map(str, cohort.warnings))


def test_the_same_image_of_two_patients_keeps_them_together(large):
    for index in range(0, 60, 2):
        large.add(
            f"q{index}", file=large.image(f"images/copy{index}.png", seed=zlib.crc32(f"images/{index}.png".encode()))
        )
    large.spec["attributes"]["age"]["bins"] = [0, 40, 60, 700]
    frame = large.read(check_images=False).frame
    side = dict(zip(frame["patient"], frame["split"], strict=True))
    assert all(side[f"p{index}"] == side[f"q{index}"] for index in range(0, 60, 2))
    assert len({side[f"q{index}"] for index in range(0, 60, 2)}) > 1

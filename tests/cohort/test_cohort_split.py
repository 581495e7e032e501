"""The split: whole patients, exact shares, even strata, the same whatever the order of rows."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equigen.cohort.split import split_patients, strata
from equigen.errors import InputError

SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}


def made(patients: int, seed: int = 0) -> pd.DataFrame:
    """Patients with one to four images; a fifth ill, half of them women, some unknown."""
    rng = np.random.default_rng(seed)
    rows = []
    for patient in range(patients):
        ill = "ill" if rng.random() < 0.2 else "well"
        sex = ["f", "m", None][rng.choice(3, p=[0.45, 0.45, 0.1])]
        rows += [(f"p{patient:04d}", ill, sex)] * int(rng.integers(1, 5))
    frame = pd.DataFrame(rows, columns=["patient", "label.dx", "attr.sex"], dtype=object)
    return frame.where(frame.notna(), None)


def split(frame: pd.DataFrame, seed: int = 0, shares=SHARES) -> pd.Series:
    return split_patients(frame["patient"], strata(frame), shares, seed)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 11),
            st.sampled_from(["a", "b", "a|b", "", None]),
            st.sampled_from(["x", "y", None]),
        ),
        min_size=3,
        max_size=40,
    ),
    st.integers(0, 5),
)
def test_no_patient_is_on_two_sides_and_order_does_not_matter(rows, seed):
    frame = pd.DataFrame(rows, columns=["patient", "label.f", "attr.g"], dtype=object)
    frame["patient"] = frame["patient"].map(str)
    patients = frame["patient"].nunique()
    if patients < 3:
        with pytest.raises(InputError, match="cannot fill 3 splits"):
            split(frame, seed)
        return
    parts = split(frame, seed)
    assert set(parts) <= set(SHARES) and parts.groupby(frame["patient"]).nunique().max() == 1
    sizes = frame.groupby(parts)["patient"].nunique()
    assert sizes.sum() == patients and (sizes.reindex(list(SHARES), fill_value=0) >= 1).all()
    shuffled = frame.sample(frac=1, random_state=seed)
    assert split(shuffled, seed).sort_index().equals(parts)


def test_shares_are_exact_and_strata_even():
    frame = made(500)
    parts = split(frame)
    assert frame.groupby(parts)["patient"].nunique().to_dict() == {"train": 350, "val": 50, "test": 100}
    cells = pd.crosstab([frame["label.dx"], frame["attr.sex"].fillna("?")], parts)
    expected = np.outer(cells.sum(axis=1), [SHARES[name] for name in cells.columns])
    assert np.abs(cells.to_numpy() - expected).max() <= 4  # images of one patient: up to four
    random = pd.Series(np.random.default_rng(0).choice(list(SHARES), 500, p=list(SHARES.values())))
    drawn = frame["patient"].str[1:].astype(int).map(random)
    by_chance = pd.crosstab([frame["label.dx"], frame["attr.sex"].fillna("?")], drawn)
    assert np.abs(by_chance[cells.columns].to_numpy() - expected).max() > 4  # a random split would not do


def test_seed_decides():
    frame = made(80)
    assert split(frame, 1).equals(split(frame, 1))
    assert not split(frame, 1).equals(split(frame, 2))


def test_one_split_alone():
    frame = made(20)
    assert set(split(frame, shares={"train": 0.0, "val": 0.0, "test": 1.0})) == {"test"}


def test_strata_by_hand():
    frame = pd.DataFrame({"label.f": ["a|b", "", None], "attr.g": ["x", "x", "y"]}, dtype=object)
    features = strata(frame)
    assert features["images"].tolist() == [1, 1, 1]
    assert features["label.f=a"].tolist() == [1, 0, 0] and features["label.f="].tolist() == [0, 1, 0]
    assert features["label.f=?&attr.g=y"].tolist() == [0, 0, 1]
    assert "label.f=a&attr.g=y" not in features

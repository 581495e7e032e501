from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from equigen.cohort.phantom import Camera, PhantomSettings, RaceAppearance, sample_parameters
from equigen.errors import InputError

N = 3000


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return sample_parameters(N, seed=11)


def test_same_seed_gives_the_same_table_and_another_seed_another() -> None:
    first = sample_parameters(40, seed=3)
    pd.testing.assert_frame_equal(first, sample_parameters(40, seed=3))
    assert not np.allclose(first["cup_disc_ratio"], sample_parameters(40, seed=4)["cup_disc_ratio"])


@pytest.mark.parametrize("n", [1, 2, 17, 40])
def test_row_does_not_depend_on_how_many_rows_there_are(n: int) -> None:
    whole = sample_parameters(60, seed=3)
    pd.testing.assert_frame_equal(whole.iloc[:n], sample_parameters(n, seed=3))
    tail = sample_parameters(60 - n, seed=3, start=n)
    pd.testing.assert_frame_equal(whole.iloc[n:].reset_index(drop=True), tail)


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("race", {"asian": 0.15, "black": 0.20, "white": 0.65}),
        ("sex", {"female": 0.55, "male": 0.45}),
        ("site", {"alpha": 0.45, "beta": 0.35, "gamma": 0.20}),
    ],
)
def test_group_sizes_lie_within_monte_carlo_error(table: pd.DataFrame, column: str, expected: dict[str, float]) -> None:
    patients = table.drop_duplicates("patient")
    shares = patients[column].value_counts(normalize=True)
    for name, share in expected.items():
        assert abs(shares[name] - share) < 4 * np.sqrt(share * (1 - share) / len(patients))


def test_half_of_the_pairs_are_two_eyes_of_one_patient(table: pd.DataFrame) -> None:
    pairs = table["patient"].to_numpy().reshape(-1, 2)
    shared = pairs[:, 0] == pairs[:, 1]
    assert abs(shared.mean() - 0.5) < 4 * 0.5 / np.sqrt(len(shared))
    assert table.groupby("patient").size().max() == 2
    both = table[table.duplicated("patient", keep=False)]
    assert (both.groupby("patient")["eye"].nunique() == 2).all()
    for column in ("race", "sex", "site", "pigmentation"):
        assert (both.groupby("patient")[column].nunique() == 1).all()
    assert (both.groupby("patient")["cup_disc_ratio"].nunique() == 2).mean() > 0.9


def test_label_is_exactly_the_ratio_above_the_threshold(table: pd.DataFrame) -> None:
    truth = np.where(table["cup_disc_ratio"] > 0.6, "glaucoma", "healthy")
    assert (table["glaucoma"] == truth).all()
    assert table["cup_disc_ratio"].between(0.25, 0.85).all()
    assert table["disc_radius"].between(0.28, 0.375).all()


def test_appearance_and_prevalence_follow_the_group() -> None:
    table = sample_parameters(N, 11, PhantomSettings(both_eyes=0))
    by_race = table.groupby("race")["pigmentation"].agg(["mean", "count"])
    for race, mean in {"asian": 0.5, "black": 0.8, "white": 0.2}.items():
        assert abs(by_race.loc[race, "mean"] - mean) < 4 * 0.07 / np.sqrt(by_race.loc[race, "count"])
    # P(ratio > 0.6) = prevalence * P(N(.73,.07) > .6) + (1 - prevalence) * P(N(.42,.09) > .6)
    for race, prevalence in {"asian": 0.40, "black": 0.52, "white": 0.42}.items():
        expected = prevalence * 0.96835 + (1 - prevalence) * 0.02275
        found = (table.loc[table["race"] == race, "glaucoma"] == "glaucoma").to_numpy()
        assert abs(found.mean() - expected) < 4 * np.sqrt(expected * (1 - expected) / len(found))


def test_noise_is_the_product_of_group_sex_and_camera() -> None:
    table = sample_parameters(400, 1)
    row = table[(table["race"] == "black") & (table["sex"] == "male") & (table["site"] == "gamma")].iloc[0]
    assert row["noise"] == pytest.approx(0.020 * 1.1 * 1.5)


def test_eyes_of_patients_with_one_image_are_on_either_side() -> None:
    alone = sample_parameters(600, 2, PhantomSettings(both_eyes=0))
    assert 0.4 < (alone["eye"] == "left").mean() < 0.6
    assert alone["patient"].is_unique


def test_empty_table_has_the_columns() -> None:
    assert list(sample_parameters(0).columns) == list(sample_parameters(1).columns)


def test_negative_number_is_refused() -> None:
    with pytest.raises(InputError, match="negative"):
        sample_parameters(-1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": 16}, "size"),
        ({"colour": 1}, "colour"),
        ({"threshold": 0.3}, "between healthy_ratio and glaucoma_ratio"),
        ({"sites": {"a": {"share": 0.5}}}, "shares of sites sum to 0.5"),
        ({"sites": {"a": {"share": 1, "ood": True}}}, "nothing is left to train on"),
        ({"sites": {"a": {"share": 1, "gain_red": 9}}}, "sites.a.gain_red"),
        ({"races": {"a": {"share": 1, "prevalence": 0.5, "pigmentation": 0.5}}}, "races"),
    ],
)
def test_settings_that_cannot_be_are_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        PhantomSettings.read(values)


def test_every_problem_of_the_settings_is_told_at_once() -> None:
    with pytest.raises(InputError) as caught:
        PhantomSettings.read({"size": 16, "both_eyes": 2})
    assert len(caught.value.problems) == 2


def test_settings_are_frozen_and_every_field_is_described() -> None:
    settings = PhantomSettings()
    with pytest.raises(ValidationError, match="frozen"):
        settings.size = 32  # type: ignore[misc]
    for model in (PhantomSettings, RaceAppearance, Camera):
        assert [name for name, field in model.model_fields.items() if not field.description] == []


def test_settings_survive_json() -> None:
    settings = PhantomSettings(size=96)
    assert PhantomSettings.read(settings.model_dump(mode="json")) == settings

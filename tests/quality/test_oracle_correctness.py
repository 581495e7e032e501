from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from equigen.errors import InputError
from equigen.quality import COLUMNS, oracle_correctness


class Reader:
    """Reads red as glaucoma and green as race; blue above 200: nothing is found."""

    def judge(self, images):
        red, green, blue = images[:, 0, 0].T
        found = blue <= 200
        return pd.DataFrame(
            {
                "glaucoma": [
                    ("glaucoma" if r > 100 else "healthy") if ok else None for r, ok in zip(red, found, strict=True)
                ],
                "race": [("white" if g > 100 else "black") if ok else None for g, ok in zip(green, found, strict=True)],
            }
        )


def asked(n: int, wrong_black: float = 0.5) -> tuple[np.ndarray, pd.DataFrame]:
    """Every white request is met; a share of the black ones shows the other diagnosis; a tenth is unseen."""
    rng = np.random.default_rng(0)
    white, ill = np.arange(n) % 2 == 0, rng.random(n) < 0.5
    flip = ~white & (rng.random(n) < wrong_black)
    images = np.zeros((n, 4, 4, 3), dtype=np.uint8)
    images[..., 0] = np.where(ill ^ flip, 200, 0)[:, None, None]
    images[..., 1] = np.where(white, 200, 0)[:, None, None]
    images[np.arange(n) % 10 == 9, :, :, 2] = 255
    frame = pd.DataFrame(
        {
            "label.glaucoma": np.where(ill, "glaucoma", "healthy").astype(object),
            "attr.race": np.where(white, "white", "black").astype(object),
            "attr.sex": np.array(["f", "m", "m"])[np.arange(n) % 3].astype(object),
        }
    )
    return images, frame


def row(table, metric, attribute, group):
    return table[(table.metric == metric) & (table.attribute == attribute) & (table.group == group)].iloc[0]


@pytest.fixture(scope="module")
def table():
    return oracle_correctness(*asked(600), Reader(), replicates=80, show=False)


def test_shares_are_those_counted_by_hand(table):
    images, frame = asked(600)
    shown = Reader().judge(images)
    right = (shown.glaucoma == frame["label.glaucoma"]).to_numpy()
    for group in ("black", "white"):
        inside = (frame["attr.race"] == group).to_numpy()
        assert row(table, "oracle_accuracy", "race", group).estimate == pytest.approx(right[inside].mean())
    assert row(table, "oracle_found", "*", "*").estimate == pytest.approx(0.9)
    assert row(table, "oracle_found", "race", "black").estimate == pytest.approx(0.8)  # all unseen ones are odd
    assert row(table, "oracle_attribute_accuracy", "*", "*").estimate == pytest.approx(0.9)
    assert list(table.columns) == COLUMNS
    assert set(table.encoder) == {"oracle"}


def test_the_gap_is_beyond_chance_for_race_and_not_for_sex(table):
    race, sex = (row(table, "oracle_accuracy", name, "gap") for name in ("race", "sex"))
    black, white = (row(table, "oracle_accuracy", "race", name) for name in ("black", "white"))
    assert race.estimate == pytest.approx(white.estimate - black.estimate)
    assert race.estimate > race.null_high
    assert race.p_value == pytest.approx(2 / 81)  # Holm over two attributes
    assert sex.p_value > 0.05
    assert black.ci_low < black.estimate < black.ci_high < white.estimate


def test_interval_is_that_of_a_proportion(table):
    whole = row(table, "oracle_accuracy", "*", "*")
    width = 2 * 1.96 * np.sqrt(whole.estimate * (1 - whole.estimate) / 600)
    assert whole.ci_high - whole.ci_low == pytest.approx(width, rel=0.3)


def test_a_perfect_share_is_not_sold_as_certain(table):
    images, frame = asked(200, wrong_black=0)
    images[..., 2] = 0
    perfect = oracle_correctness(images, frame, Reader(), run="real", replicates=50, show=False)
    white = row(perfect, "oracle_accuracy", "race", "white")
    assert white.estimate == 1
    assert "rule of three up to 0.03" in white.note
    assert perfect.n_generated.isna().all()
    assert row(perfect, "oracle_accuracy", "*", "*").n_real == 200
    assert table.n_real.isna().all()


def test_images_without_a_request_do_not_count():
    images, frame = asked(200)
    frame.loc[:99, "label.glaucoma"] = None
    table = oracle_correctness(images, frame, Reader(), replicates=50, show=False)
    assert row(table, "oracle_accuracy", "*", "*").n_generated == 100
    assert row(table, "oracle_found", "*", "*").n_generated == 200


def test_small_groups_have_no_number():
    images, frame = asked(200)
    frame["attr.sex"] = np.where(np.arange(200) < 5, "f", "m").astype(object)
    table = oracle_correctness(images, frame, Reader(), replicates=50, show=False)
    assert row(table, "oracle_found", "sex", "f").note == "too small: 5 images"
    assert np.isnan(row(table, "oracle_found", "sex", "f").estimate)


def test_requests_that_do_not_fit_are_refused():
    images, frame = asked(20)
    with pytest.raises(InputError, match="20 images, 19 rows"):
        oracle_correctness(images, frame.iloc[:19], Reader(), show=False)
    with pytest.raises(InputError, match="it judges glaucoma, race"):
        oracle_correctness(images, frame.drop(columns="label.glaucoma"), Reader(), show=False)

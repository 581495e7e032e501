"""The copy check sees copies: thumbnails under the changes that a diffusion model makes, and its measured power."""

import numpy as np
import pandas as pd
import pytest

from equigen.cohort.phantom import PhantomSettings, render, sample_parameters
from equigen.quality import ImageSet, evaluate
from equigen.quality.copy_power import CHANGES, changed_images, fold_limits, sample_planted_rows, thumbnail_rows
from equigen.quality.metrics.memorisation import search_training, shared_thresholds
from equigen.quality.metrics.registration import nearest_thumbnails, windows


class Means:
    """An encoder that sees no more than mean colours, so that thumbnails have to find the copies."""

    name, weight_hash, preprocessing, dimension = "means", "none", "mean of each channel", 3

    def __call__(self, images):
        return images.mean(axis=(1, 2), dtype=np.float64).astype(np.float32), None


@pytest.fixture(scope="module")
def images():
    return render(sample_parameters(240, 3, PhantomSettings()), 64)


def names(side, count):
    return np.array([f"{side}{row}" for row in range(count)])


def test_windows_by_hand():
    found = [(window.share, window.y, window.x) for window in windows((1.0, 0.9), 0.05)]
    assert found[0] == (1.0, 0.0, 0.0)
    assert np.allclose(found[1:], [(0.9, a, b) for a in (0, 0.05, 0.1) for b in (0, 0.05, 0.1)])


def test_one_view_has_its_quantile_and_two_share_the_rate():
    rng = np.random.default_rng(0)
    first, second = rng.random(1000), rng.random(1000)
    assert shared_thresholds([first]) == [np.quantile(first, 0.01)]
    limits = shared_thresholds([first, second])
    assert np.mean((first <= limits[0]) | (second <= limits[1])) == pytest.approx(0.01, abs=0.0011)
    # equal views spend nothing on the second: the limits are those of one
    assert shared_thresholds([first, first]) == pytest.approx([np.quantile(first, 0.01)] * 2, abs=1e-3)


def test_changed_copies_are_nearest_to_their_original_and_nearer_than_new_images(images):
    train, new, copied = images[:100], images[100:200], np.arange(0, 100, 5)
    small = thumbnail_rows(train)
    limit = np.quantile(nearest_thumbnails(thumbnail_rows(new), small)[0], 0.01)
    assert set(CHANGES) == {
        "blur 1 px",
        "JPEG quality 50",
        "noise sd 5",
        "mirror image",
        "90 % crop",
        "half size and back",
    }
    for name, changed in changed_images(train[copied], 0).items():
        distance, nearest = nearest_thumbnails(thumbnail_rows(changed), small)
        assert np.mean((distance <= limit) & (nearest == copied)) >= 0.95, name
    brighter = np.clip(train[copied] * 0.8 + 20, 0, 255).astype(np.uint8)
    assert nearest_thumbnails(thumbnail_rows(brighter), small)[1].tolist() == copied.tolist()


def test_a_patients_own_images_are_passed_over_and_a_flat_image_resembles_nothing(images):
    small, codes = thumbnail_rows(images[:20]), np.arange(20) // 2
    distance, nearest = nearest_thumbnails(small, small)
    assert nearest.tolist() == list(range(20)) and distance.max() < 1e-3
    apart = nearest_thumbnails(small, small, query_groups=codes, reference_groups=codes)[1]
    assert (apart // 2 != codes).all()
    alone = nearest_thumbnails(small[:2], small[:2], query_groups=codes[:2], reference_groups=codes[:2])
    assert np.isinf(alone[0]).all() and alone[1].tolist() == [-1, -1]
    flat = thumbnail_rows(np.full((1, 64, 64, 3), 7, np.uint8))
    assert nearest_thumbnails(flat, small)[0] == pytest.approx(1.0)
    assert nearest_thumbnails(small[:1], np.repeat(flat, 3, axis=0))[0] >= 1


def test_limits_of_a_fold_come_from_other_patients():
    rng = np.random.default_rng(1)
    values, train = rng.standard_normal((60, 3)), rng.standard_normal((50, 3))
    held = search_training(values, values[:5], train, names("r", 60), names("t", 50)).held_out
    limits, alarms = fold_limits(held, np.repeat(names("r", 20), 3), 0)
    assert all(len(np.unique(limits[start : start + 3])) == 1 for start in range(0, 60, 3))
    assert len(np.unique(limits)) > 1
    assert (alarms == (held.distance <= limits[:, 0])).all()
    nearest = held.distance.argmin()
    assert alarms[nearest]  # an image nearer than all others is a false alarm, although not by its own limit
    assert limits[nearest, 0] > held.distance.min()


def test_planted_rows_are_one_of_each_patient():
    patients = np.repeat(names("p", 30), 4)
    rows = sample_planted_rows(patients, 0, 20)
    assert len(rows) == 20 == len(np.unique(patients[rows]))
    assert rows.tolist() == sorted(rows) == sample_planted_rows(patients, 0, 20).tolist()


def test_evaluation_finds_copies_that_features_miss_and_tells_its_power(images):
    train, real, fresh = images[:80], images[80:180], images[180:240]
    copies = changed_images(train[:20], 1)["90 % crop"]
    sexes = lambda n: np.where(np.arange(n) % 2, "female", "male")  # noqa: E731
    sides = {
        name: ImageSet(pd.DataFrame({"attr.sex": sexes(len(own))}), own)
        for name, own in {"real": real, "train": train, "made": np.concatenate([copies, fresh])}.items()
    }
    result = evaluate(
        sides["real"],
        {"made": sides["made"]},
        ["sex"],
        train=sides["train"],
        encoder=Means(),
        metrics=["near_copies", "nn_ratio"],
        labels=[],
        intersections=False,
        replicates=20,
        show=False,
    )
    row = result.quality.query("metric == 'near_copies' and group == '*'").iloc[0]
    assert row["estimate"] >= 0.23 and row["floor"] <= 0.02
    assert "in aligned thumbnails: 1 % of held-out images are near in either" in row["note"]
    first = result.copies.head(18)
    assert first["view"].isin(["thumbnails", "both"]).all() and first["near_copy"].all()
    assert (first["generated"] == first["training"]).all()  # row k of the copies is of row k of the training images
    power = result.copy_power
    assert power["change"].unique().tolist() == [*CHANGES, "autoencoder"]
    whole = power[power["attribute"] == "*"]
    assert (whole["n"] == 100).all() and (whole["share"] >= 0.9).all() and (whole["false_alarm"] <= 0.03).all()
    assert (power[power["attribute"] == "sex"].groupby("change")["n"].sum() == 100).all()
    assert ((power["ci_low"] <= power["share"]) & (power["share"] <= power["ci_high"])).all()

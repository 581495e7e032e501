from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr

from equigen.cohort.phantom import Oracle, PhantomSettings, render, sample_parameters
from equigen.cohort.phantom.fitting import PRIOR, _model
from equigen.errors import InputError

Images = NDArray[np.uint8]


@pytest.fixture(scope="module")
def truth() -> pd.DataFrame:
    return sample_parameters(240, seed=77)


@pytest.fixture(scope="module")
def images(truth: pd.DataFrame) -> Images:
    return render(truth, 64)


def _jpeg(images: Images, quality: int) -> Images:
    def one(image: Images) -> Images:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=quality)
        return np.asarray(Image.open(buffer))

    return np.stack([one(image) for image in images])


def _blur(images: Images, sigma: float) -> Images:
    return gaussian_filter(images, (0, sigma, sigma, 0))


def _error(truth: pd.DataFrame, images: Images) -> tuple[pd.Series, pd.DataFrame]:
    measured = Oracle().measure(images)
    return (measured["cup_disc_ratio"] - truth["cup_disc_ratio"]).abs(), measured


def test_clean_images_are_measured_well(truth: pd.DataFrame, images: Images) -> None:
    error, measured = _error(truth, images)
    assert measured["ok"].mean() > 0.99
    assert error.mean() < 0.015
    assert error.max() < 0.1


def test_every_camera_is_measured_well(truth: pd.DataFrame, images: Images) -> None:
    error, measured = _error(truth, images)
    for site in ("alpha", "beta", "gamma"):
        here = (truth["site"] == site) & measured["ok"]
        assert error[here].mean() < 0.02
        assert spearmanr(measured["pigmentation"][here], truth["pigmentation"][here])[0] > 0.95
        assert (measured["pigmentation"] - truth["pigmentation"])[here].abs().mean() < 0.03


def test_judgement_is_right_on_clean_images(truth: pd.DataFrame, images: Images) -> None:
    judged = Oracle().judge(images)
    assert (judged["glaucoma"] == truth["glaucoma"]).mean() > 0.97
    assert (judged["race"] == truth["race"]).mean() > 0.95


@pytest.mark.parametrize(
    ("name", "limit", "accuracy"), [("blur", 0.02, 0.97), ("noise", 0.02, 0.96), ("jpeg", 0.05, 0.88)]
)
def test_lossy_images_are_still_measured(
    truth: pd.DataFrame, images: Images, name: str, limit: float, accuracy: float
) -> None:
    grain = np.random.default_rng(0).normal(0, 0.03 * 255, images.shape)
    worse = {
        "blur": lambda: _blur(images, 0.7),
        "noise": lambda: np.clip(images + grain, 0, 255).astype(np.uint8),
        "jpeg": lambda: _jpeg(images, 60),
    }[name]()
    error, measured = _error(truth, worse)
    ok = measured["ok"]
    assert ok.mean() > 0.95
    assert error[ok].mean() < limit
    verdict = Oracle().classify(measured)["glaucoma"]
    assert (verdict == truth["glaucoma"])[ok].mean() > accuracy
    assert spearmanr(measured["pigmentation"][ok], truth["pigmentation"][ok])[0] > 0.9


@pytest.mark.parametrize("size", [32, 100, 128])
def test_other_sizes_are_measured(truth: pd.DataFrame, size: int) -> None:
    some = truth.iloc[:60]
    error, measured = _error(some, render(some, size))
    assert measured["ok"].mean() > 0.95
    assert error.mean() < 0.03


def test_measurement_follows_the_cup_of_one_eye(truth: pd.DataFrame) -> None:
    ratios = np.linspace(0.3, 0.8, 6)
    same = pd.concat([truth.iloc[:1]] * 6).assign(cup_disc_ratio=ratios)
    measured = Oracle().measure(render(same))["cup_disc_ratio"]
    assert np.abs(measured - ratios).max() < 0.05
    assert (np.diff(measured) > 0).all()


def test_pigmentation_follows_the_pigment_and_not_the_exposure(truth: pd.DataFrame) -> None:
    same = pd.concat([truth.iloc[:1]] * 5)
    darker = Oracle().measure(render(same.assign(pigmentation=[0.1, 0.3, 0.5, 0.7, 0.9])))["pigmentation"]
    assert np.abs(darker - [0.1, 0.3, 0.5, 0.7, 0.9]).max() < 0.08
    lit = Oracle().measure(render(same.assign(exposure=[0.8, 0.85, 0.9, 0.95, 1.0])))["pigmentation"]
    assert lit.max() - lit.min() < 0.05


def _no_eyes() -> dict[str, Images]:
    rng = np.random.default_rng(1)
    clouds = [gaussian_filter(rng.normal(size=(64, 64, 3)), (s, s, 0)) * s * 120 for s in (1, 2, 4, 6, 8) * 8]
    axis = np.arange(64)
    disc = np.where(np.hypot(axis[None] - 40, axis[:, None] - 32) < 10, 200, 80)[None, ..., None]
    return {
        "noise": rng.integers(0, 256, (40, 64, 64, 3)).astype(np.uint8),
        "clouds": np.clip(128 + np.stack(clouds), 0, 255).astype(np.uint8),
        "black": np.zeros((2, 64, 64, 3), np.uint8),
        "white": np.full((2, 64, 64, 3), 255, np.uint8),
        "grey disc": np.repeat(disc, 3, axis=3).astype(np.uint8),
    }


@pytest.mark.parametrize("name", list(_no_eyes()))
def test_images_without_an_eye_are_not_ok(name: str) -> None:
    measured = Oracle().measure(_no_eyes()[name])
    assert not measured["ok"].any()
    assert measured[["cup_disc_ratio", "pigmentation"]].isna().all(axis=None)
    judged = Oracle().classify(measured)
    assert all(value is None for value in judged.to_numpy().ravel())


def test_eyes_without_a_disc_or_behind_heavy_noise_are_not_ok(truth: pd.DataFrame, images: Images) -> None:
    assert not Oracle().measure(render(truth.iloc[:60].assign(disc_offset=5.0)))["ok"].any()
    assert Oracle().measure(render(truth.iloc[:60].assign(cup_disc_ratio=0.0)))["ok"].mean() < 0.1
    grain = np.random.default_rng(2).normal(0, 60, images.shape)
    assert Oracle().measure(np.clip(images + grain, 0, 255).astype(np.uint8))["ok"].mean() < 0.05


def test_measurement_does_not_depend_on_its_neighbours(images: Images) -> None:
    oracle = Oracle()
    whole = oracle.measure(images[:70])
    alone = oracle.measure(images[65:70])
    pd.testing.assert_frame_equal(whole.iloc[65:].reset_index(drop=True), alone, rtol=1e-9)


def test_thresholds_come_from_the_settings() -> None:
    measured = pd.DataFrame(
        {
            "cup_disc_ratio": [0.55, 0.65, np.nan],
            "pigmentation": [0.34, 0.36, np.nan],
            "ok": [True, True, False],
        }
    )
    # equal spreads: the borders are half-way, at 0.35 between white (0.2) and asian (0.5)
    default = Oracle().classify(measured)
    assert default["glaucoma"].tolist() == ["healthy", "glaucoma", None]
    assert default["race"].tolist() == ["white", "asian", None]
    strict = Oracle(PhantomSettings(threshold=0.5)).classify(measured)
    assert strict["glaucoma"].tolist() == ["glaucoma", "glaucoma", None]


def test_wrong_arrays_are_refused(images: Images) -> None:
    for wrong in (images[0], images.astype(float), images[:, :32], images[..., :1]):
        with pytest.raises(InputError, match="cannot read"):
            Oracle().measure(wrong)


def test_no_images_give_an_empty_table() -> None:
    measured = Oracle().measure(np.empty((0, 64, 64, 3), np.uint8))
    assert list(measured.columns) == ["cup_disc_ratio", "pigmentation", "ok"]
    assert len(measured) == 0


def test_derivatives_of_the_model_match_finite_differences() -> None:
    rng = np.random.default_rng(4)
    theta = (PRIOR + rng.normal(0, 0.03, PRIOR.shape))[None]
    x, y = rng.uniform(-0.45, 0.45, (2, 50))
    slopes = _model(theta, x, y)[1][0]
    for k in range(theta.shape[1]):
        step = np.zeros_like(theta)
        step[0, k] = 1e-6
        central = (_model(theta + step, x, y)[0] - _model(theta - step, x, y)[0])[0] / 2e-6
        np.testing.assert_allclose(slopes[:, k], central, atol=1e-6, rtol=1e-5)

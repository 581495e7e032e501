from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from equigen.cohort.phantom import Camera, PhantomSettings, render, sample_parameters
from equigen.errors import InputError


@pytest.fixture(scope="module")
def params() -> pd.DataFrame:
    return sample_parameters(24, seed=5)


def _plain(params: pd.DataFrame, **changes: object) -> pd.DataFrame:
    """The first eye without noise, with some parameters changed."""
    return params.iloc[:1].assign(noise=0.0, **changes)


def _green_disc(params: pd.DataFrame, size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Distance of every pixel from the disc's middle in half-widths, and the green channel."""
    row = params.iloc[0]
    axis = (np.arange(size) + 0.5) * 2 / size - 1
    sign = 1 if row["eye"] == "right" else -1
    right = (axis[None] - sign * row["disc_offset"]) * row["disc_aspect"]
    far = np.hypot(right, axis[:, None] - row["disc_y"])
    return far, render(params, size)[0, ..., 1].astype(float)


def test_shape_type_and_determinism(params: pd.DataFrame) -> None:
    images = render(params, 64)
    assert images.shape == (24, 64, 64, 3)
    assert images.dtype == np.uint8
    assert np.array_equal(images, render(params, 64))


def test_image_depends_on_its_row_alone(params: pd.DataFrame) -> None:
    images = render(params, 64)
    assert np.array_equal(images[7:9], render(params.iloc[7:9], 64))
    assert np.array_equal(images[[20, 3]], render(params.iloc[[20, 3]], 64))
    assert not np.array_equal(images[0], images[1])


def test_image_is_the_same_when_made_in_batches() -> None:
    params = sample_parameters(5, seed=2)
    whole = render(params, 512)  # two images at once
    assert np.array_equal(whole[4], render(params.iloc[4:], 512)[0])


@pytest.mark.parametrize("size", [32, 100, 256])
def test_other_sizes_show_the_same_anatomy(params: pd.DataFrame, size: int) -> None:
    quiet = params.iloc[:4].assign(noise=0.0)
    large, small = render(quiet, size * 2).astype(float), render(quiet, size).astype(float)
    reduced = large.reshape(4, size, 2, size, 2, 3).mean((2, 4))
    assert np.abs(reduced - small).mean() < 4
    assert np.corrcoef(reduced.ravel(), small.ravel())[0, 1] > 0.99


def test_disc_is_on_the_side_of_the_nose(params: pd.DataFrame) -> None:
    bright = render(params.assign(noise=0.0), 64)[..., 1].astype(float)
    left, right = bright[:, :, :32].max((1, 2)), bright[:, :, 32:].max((1, 2))
    assert np.array_equal(right > left, (params["eye"] == "right").to_numpy())


def test_cup_is_paler_than_rim_and_rim_paler_than_ground(params: pd.DataFrame) -> None:
    quiet = _plain(params, cup_disc_ratio=0.5, cup_shift=0.0)
    far, green = _green_disc(quiet)
    radius = quiet["disc_radius"].iloc[0]
    cup = np.median(green[far < 0.35 * radius])
    rim = np.median(green[(far > 0.65 * radius) & (far < 0.9 * radius)])
    ground = np.median(green[(far > 1.2 * radius) & (far < 1.6 * radius)])
    assert cup > 1.3 * rim
    assert rim > 1.3 * ground


@pytest.mark.parametrize("ratio", [0.3, 0.55, 0.8])
def test_area_of_the_cup_is_the_ratio_squared(params: pd.DataFrame, ratio: float) -> None:
    # without vessels' shade: the blue light of the cup, drawn large and counted at half height
    base = _plain(params, cup_disc_ratio=ratio, cup_shift=0.0, blur=0.0, vignette=0.0)
    far, _ = _green_disc(base, 512)
    with_cup = render(base, 512)[0, ..., 2].astype(float)
    without = render(base.assign(cup_disc_ratio=0.0), 512)[0, ..., 2].astype(float)
    gained = (with_cup > 1.5 * np.maximum(without, 1)) & (far < 0.5)
    disc = np.pi * (base["disc_radius"].iloc[0] * 256) ** 2 / base["disc_aspect"].iloc[0]
    assert np.sqrt(gained.sum() / disc) == pytest.approx(ratio, abs=0.01)


def test_pigment_darkens_the_ground_by_beer_and_lambert(params: pd.DataFrame) -> None:
    fair, dark = _plain(params, pigmentation=0.2), _plain(params, pigmentation=0.8)
    far, pale = _green_disc(fair)
    _, deep = _green_disc(dark)
    ring = (far > 0.5) & (far < 0.7)
    # absorption of green: exp(-0.78 * (0.8 - 0.2))
    assert np.median(deep[ring]) / np.median(pale[ring]) == pytest.approx(np.exp(-0.78 * 0.6), abs=0.04)


def test_vessels_are_darker_lines_and_change_with_their_seed(params: pd.DataFrame) -> None:
    one, other = _plain(params, vessel_seed=1), _plain(params, vessel_seed=2)
    first, second = render(one)[0, ..., 1].astype(float), render(other)[0, ..., 1].astype(float)
    changed = np.abs(first - second) > 20
    assert 0.05 < changed.mean() < 0.4
    highest = np.maximum(first, second)  # where vessels of either tree lie, the other shows the tissue
    assert np.minimum(first, second)[changed].mean() < 0.75 * highest[changed].mean()


def test_camera_shifts_colours_and_sharpness() -> None:
    table = sample_parameters(300, 8)
    colours = pd.DataFrame(render(table).mean((1, 2)), columns=list("rgb"))
    means = colours.groupby(table["site"].to_numpy()).mean()
    warmth = means["r"] / means["b"]
    assert warmth["gamma"] < 0.6 * warmth["alpha"]
    assert warmth["beta"] < 0.95 * warmth["alpha"]
    gained = PhantomSettings(sites={"a": Camera(share=1.0, gain_blue=0.5)})
    plain = PhantomSettings(sites={"a": Camera(share=1.0)})
    tables = [sample_parameters(4, 1, settings).assign(noise=0.0) for settings in (gained, plain)]
    half, whole = (render(table).astype(float) for table in tables)
    assert np.abs(half[..., 2] - whole[..., 2] / 2).max() <= 1
    assert np.array_equal(half[..., 0], whole[..., 0])


def test_noise_has_the_given_deviation(params: pd.DataFrame) -> None:
    row = params.iloc[:1].assign(pigmentation=0.5)
    grain = render(row.assign(noise=0.03), 128).astype(float) - render(row.assign(noise=0.0), 128)
    lit = render(row.assign(noise=0.0), 128)[0, ..., 0] > 60  # away from clipping at black
    lit &= render(row.assign(noise=0.0), 128)[0, ..., 0] < 180
    assert grain[0, lit, 0].std() == pytest.approx(0.03 * 255, rel=0.05)


def test_outside_of_the_field_is_black(params: pd.DataFrame) -> None:
    images = render(params.assign(noise=0.0, field=0.98))
    assert images[:, [0, 0, -1, -1], [0, -1, 0, -1]].max() == 0


def test_bad_requests_are_refused(params: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="16 pixels"):
        render(params, 16)
    with pytest.raises(InputError, match="blur"):
        render(params.drop(columns="blur"))


def test_no_rows_give_no_images(params: pd.DataFrame) -> None:
    assert render(params.iloc[:0], 48).shape == (0, 48, 48, 3)

"""Images that are read right or refused: byte orders, windows, pixels that are not square, bounds, file kinds."""

import os

import numpy as np
import pytest
from PIL import Image
from test_cohort_images import CT, GREY, dicom

from equigen.cohort import Cohort, read_image
from equigen.errors import InputError


def test_big_endian_values_are_read_as_little_endian_ones(tmp_path):
    wide = GREY.astype(np.uint16) * 257
    Image.frombytes("I;16B", (2, 2), wide.astype(">u2").tobytes()).save(tmp_path / "a.tif")
    np.savez(tmp_path / "a.npz", a=wide.astype(">u2"))
    np.save(tmp_path / "a.npy", wide.astype(">u2"))
    for name in ("a.tif", "a.npz", "a.npy"):
        assert np.array_equal(read_image(tmp_path / name)[:, :, 0], GREY)


SHAPES = {"2 1": (2, 4, 3), "1 2": (1, 8, 3), "1 1": (1, 4, 3)}


@pytest.mark.parametrize("sides", SHAPES)
def test_pixels_are_made_square(tmp_path, sides):
    assert read_image(dicom(tmp_path / "a.dcm", CT, PixelSpacing=sides.split())).shape == SHAPES[sides]


def test_padding_does_not_enter_the_window(tmp_path):
    ramp = np.arange(1001, dtype=np.uint16).reshape(7, 143)
    padded = np.vstack([ramp, np.full((7, 143), 60000, dtype=np.uint16)])
    read = read_image(dicom(tmp_path / "a.dcm", padded, PixelPaddingValue=60000))[:7, :, 0].ravel()
    assert read[500] == round(255 * (500 - 5) / 990)


def test_no_ordinary_file(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "b.png").mkdir()
    (tmp_path / "c.png").touch()
    for name, word in (("a", "no ordinary file"), ("b", "is a folder"), ("c", "is empty")):
        with pytest.raises(InputError, match=word):
            read_image(tmp_path / f"{name}.png")


def test_hidden_copies_are_passed_over_and_dark_images_told(tmp_path):
    for name in ("a.png", ".ipynb_checkpoints/a-checkpoint.png", "__MACOSX/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(GREY.astype(np.uint16) * 16).save(tmp_path / name)
    cohort = Cohort.from_table(tmp_path, show_progress=False)
    told = " ".join(item.message for item in cohort.warnings)
    assert len(cohort) == 1 and "2 images in hidden" in told and "1 of 1 image is nearly black" in told
    assert "at most 4080" in told

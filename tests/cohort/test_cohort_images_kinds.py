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


def table_of(folder, names):
    lines = ["file,patient", *(f"{name},p{row}" for row, name in enumerate(names))]
    (folder / "t.csv").write_text("\n".join(lines) + "\n")
    return {"name": "x", "table": "t.csv", "image": {"column": "file", "root": "root"}, "patient": "patient",
            "split": {"fractions": {"test": 1.0}}}  # fmt: skip


def test_linked_folders_work_when_the_user_says_so(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "root").mkdir()
    for number in range(30):
        values = np.random.default_rng(number).integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(values).save(tmp_path / f"out/{number}.png")
    (tmp_path / "out/0.png").rename(tmp_path / "secret.png")
    (tmp_path / "out/0.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "root/sub").symlink_to(tmp_path / "out")
    spec = table_of(tmp_path, [f"sub/{number}.png" for number in range(30)])
    with pytest.raises(InputError, match="a folder that is a link") as caught:
        Cohort.from_spec(spec, tmp_path, show_progress=False)
    assert len(caught.value.problems) == 30 and "and 27 more rows like these" in str(caught.value)
    spec["image"]["links"] = True
    with pytest.raises(InputError, match="out of the linked folder 'sub'") as caught:
        Cohort.from_spec(spec, tmp_path, show_progress=False)
    assert [item.row for item in caught.value.problems] == [2]


def test_paths_of_another_system_and_absolute_ones(tmp_path):
    (tmp_path / "root/a").mkdir(parents=True)
    for name in "12":
        Image.fromarray(GREY + int(name)).save(tmp_path / f"root/a/{name}.png")
    good = ["a\\1.png", str(tmp_path / "root/a/2.png")]
    assert len(Cohort.from_spec(table_of(tmp_path, good), tmp_path, show_progress=False)) == 2
    with pytest.raises(InputError) as caught:
        Cohort.from_spec(table_of(tmp_path, ["C:\\a\\1.png", "..\\1.png"]), tmp_path, show_progress=False)
    assert "Windows path with a drive" in str(caught.value) and "leads out of the image root" in str(caught.value)


def test_names_that_are_no_utf8_are_left_out_by_name(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "a.png")
    os.link(tmp_path / "a.png", os.fsencode(tmp_path) + b"/caf\xe9.png")
    cohort = Cohort.from_table(tmp_path, quarantine=True, show_progress=False)
    assert len(cohort) == 1 and "is no UTF-8 text" in str(cohort.quarantined[0])
    assert len(Cohort.load(cohort.save(tmp_path / "saved"))) == 1


@pytest.mark.parametrize(
    "tags", [{"WindowWidth": 0, "WindowCenter": 5}, {"WindowCenter": 5}, {"RescaleSlope": 0}, {"PixelSpacing": [0, 1]}]
)
def test_numbers_that_mean_nothing_are_refused(tmp_path, tags):
    with pytest.raises(InputError, match=next(iter(tags))):
        read_image(dicom(tmp_path / "a.dcm", CT, **tags))

"""Damaged images of every kind are read or refused in words: no other exception, no warning, no wrong PNG or NPZ."""

import io
import random

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from test_cohort_images import dicom

from equigen.cohort import read_image
from equigen.errors import InputError

PICTURE = np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)
GREY = PICTURE[:, :, 0].astype(np.uint16) * 257


def saved(values, kind, **options):
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, kind, **options)
    return buffer.getvalue()


def arrays(save):
    buffer = io.BytesIO()
    save(buffer, PICTURE)
    return buffer.getvalue()


def deflated(folder, **tags):
    data = pydicom.dcmread(dicom(folder / "plain.dcm", GREY, WindowCenter=32768, WindowWidth=65536))
    data.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    for name, value in tags.items():
        setattr(data, name, value)
    data.save_as(folder / "deflated.dcm")
    return folder / "deflated.dcm"


def table(values):
    item = Dataset()
    item.LUTDescriptor, item.LUTData = [len(values), 0, 16], list(values)
    item["LUTDescriptor"].VR = item["LUTData"].VR = "US"
    return [item]


KINDS = {
    "png": lambda _: saved(PICTURE, "PNG"),
    "jpeg": lambda _: saved(PICTURE, "JPEG"),
    "tiff": lambda _: saved(GREY, "TIFF"),
    "lzw": lambda _: saved(PICTURE, "TIFF", compression="tiff_lzw"),
    "bmp": lambda _: saved(PICTURE, "BMP"),
    "webp": lambda _: saved(PICTURE, "WEBP"),
    "gif": lambda _: saved(PICTURE[:, :, 0], "GIF"),
    "ppm": lambda _: saved(PICTURE, "PPM"),
    "npz": lambda _: arrays(np.savez_compressed),
    "npy": lambda _: arrays(np.save),
    "dicom": lambda folder: dicom(folder / "a.dcm", GREY, VOILUTSequence=table([0, 65535])).read_bytes(),
    "deflated": lambda folder: deflated(folder).read_bytes(),
}


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_refused_in_words(tmp_path, kind):
    data, draw, file = KINDS[kind](tmp_path), random.Random(1), tmp_path / "x"
    file.write_bytes(data)
    whole, refused = read_image(file), 0
    for _ in range(150):
        damaged = bytearray(data)
        for _ in range(draw.choice([1, 2, 5])):
            damaged[draw.randrange(min(len(damaged), draw.choice([64, 600, 10**6])))] = draw.randrange(256)
        file.write_bytes(damaged[: draw.randrange(len(damaged)) if draw.random() < 0.2 else None])
        try:
            read = read_image(file)
        except InputError:
            refused += 1
            continue
        assert read.dtype == np.uint8 and read.ndim == 3 and read.shape[2] == 3 and read.size
        if kind in {"png", "npz"}:
            assert np.array_equal(read, whole)
    assert refused


def test_a_deflated_file_is_read_as_its_twin_and_a_bomb_is_refused(tmp_path):
    path = deflated(tmp_path)
    assert np.array_equal(read_image(path), read_image(tmp_path / "plain.dcm"))
    with pytest.raises(InputError, match="unpacks to more than its pixels need"):
        read_image(deflated(tmp_path, PixelData=bytes(20_000_000)))


def test_look_up_tables_are_applied(tmp_path):
    stored = np.array([[0, 1, 2, 3]], dtype=np.uint16)
    voi = dicom(tmp_path / "a.dcm", stored, VOILUTSequence=table([65535, 0, 32768, 257]))
    assert read_image(voi)[0, :, 0].tolist() == [255, 0, 128, 1]
    modality = dicom(tmp_path / "b.dcm", stored, ModalityLUTSequence=table([3, 2, 1, 0]), WindowCenter=1.5,
                     WindowWidth=3, VOILUTFunction="LINEAR_EXACT")  # fmt: skip
    assert read_image(modality)[0, :, 0].tolist() == [255, 170, 85, 0]

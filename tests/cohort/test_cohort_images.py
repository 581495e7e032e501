"""Reading images: values by hand for every kind, and refusals that leak nothing."""

import io
import zipfile

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, generate_uid

from equigen.cohort import load_images, read_image, square
from equigen.errors import InputError

GREY = np.array([[0, 128], [200, 255]], dtype=np.uint8)


def save(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.bmp", "a.webp"])
def test_lossless_colour_kinds_read_exactly(tmp_path, name):
    picture = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    options = {"lossless": True} if name.endswith("webp") else {}
    assert np.array_equal(read_image(save(tmp_path / name, picture, **options)), picture)


def test_content_decides_not_the_suffix(tmp_path):
    (tmp_path / "a.jpg").write_bytes(save(tmp_path / "a.png", GREY).read_bytes())
    assert np.array_equal(read_image(tmp_path / "a.jpg")[:, :, 1], GREY)


def test_sixteen_bit_grey_is_scaled_by_its_full_range(tmp_path):
    values = np.array([[0, 257], [32896, 65535]], dtype=np.uint16)
    for name in ("a.png", "a.tif"):
        read = read_image(save(tmp_path / name, values))
        assert read.dtype == np.uint8 and read.shape == (2, 2, 3)
        assert np.array_equal(read[:, :, 2], [[0, 1], [128, 255]])


def test_alpha_is_laid_over_black(tmp_path):
    rgba = np.array([[[200, 100, 50, 255], [200, 100, 50, 0], [200, 100, 50, 51]]], dtype=np.uint8)
    assert read_image(save(tmp_path / "a.png", rgba))[0].tolist() == [[200, 100, 50], [0, 0, 0], [40, 20, 10]]


def test_palette_transparency_and_one_bit(tmp_path):
    image = Image.fromarray(np.array([[0, 1]], dtype=np.uint8), mode=None).convert("P")
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.save(tmp_path / "p.png", transparency=0)
    assert read_image(tmp_path / "p.png")[0].tolist() == [[0, 0, 0], [0, 255, 0]]
    Image.fromarray(GREY > 150).save(tmp_path / "b.png")
    assert read_image(tmp_path / "b.png")[:, :, 0].tolist() == [[0, 0], [255, 255]]


def test_exif_orientation_is_applied(tmp_path):
    picture = np.zeros((16, 32, 3), dtype=np.uint8)
    picture[:, :16] = 255  # left half white
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned 90 degrees clockwise: left becomes top
    read = read_image(save(tmp_path / "a.jpg", picture, exif=exif, quality=95))
    assert read.shape == (32, 16, 3)
    assert read[:14].min() > 230 and read[18:].max() < 25


def test_float_tiff(tmp_path):
    read = read_image(save(tmp_path / "a.tif", np.array([[0.0, 0.5, 1.0]], dtype=np.float32)))
    assert read[0, :, 0].tolist() == [0, 128, 255]
    with pytest.raises(InputError, match="outside 0 to 1"):
        read_image(save(tmp_path / "b.tif", np.array([[0.0, 300.0]], dtype=np.float32)))


def test_several_pages_are_refused(tmp_path):
    page = Image.fromarray(GREY)
    page.save(tmp_path / "a.tif", save_all=True, append_images=[page])
    with pytest.raises(InputError, match="several pages"):
        read_image(tmp_path / "a.tif")


def test_bomb_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    save(tmp_path / "a.png", np.zeros((40, 50), dtype=np.uint8))
    np.savez(tmp_path / "a.npz", slo_fundus=np.zeros((200, 50), dtype=np.uint8))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 900)  # above twice this Pillow itself raises
    for name in ("a.png", "a.npz"):
        with pytest.raises(InputError, match="than is safe to open"):
            read_image(tmp_path / name)


def test_npz(tmp_path):
    fundus = np.arange(12, dtype=np.uint8).reshape(3, 4)
    np.savez(tmp_path / "a.npz", slo_fundus=fundus, oct_bscans=np.zeros((5, 3, 4)), race=np.array(1))
    assert np.array_equal(read_image(tmp_path / "a.npz")[:, :, 0], fundus)
    np.savez_compressed(tmp_path / "b.npz", x=np.full((2, 3, 3), 0.5), age=np.array([1.0]))
    assert read_image(tmp_path / "b.npz").tolist() == np.full((2, 3, 3), 128).tolist()
    np.savez(tmp_path / "c.npz", x=fundus, y=fundus)
    with pytest.raises(InputError, match=r"found: x, y.*name the image 'slo_fundus'"):
        read_image(tmp_path / "c.npz")
    np.savez(tmp_path / "d.npz", x=np.full((2, 2), 70000))
    with pytest.raises(InputError, match="holds int64 values"):
        read_image(tmp_path / "d.npz")


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_npz_of_objects_is_refused_without_unpickling(tmp_path):
    trap = np.empty((2, 2), dtype=object)
    trap[:] = Trap(str(tmp_path / "sprung"))
    np.savez(tmp_path / "a.npz", slo_fundus=trap)
    with pytest.raises(InputError, match=r"holds Python objects under 'slo_fundus'.*never unpickled"):
        read_image(tmp_path / "a.npz")
    assert not (tmp_path / "sprung").exists()


def test_npz_that_is_damaged(tmp_path):
    np.savez(tmp_path / "a.npz", slo_fundus=GREY)
    data = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="truncated or no NPZ"):
        read_image(tmp_path / "a.npz")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("word/document.xml", "x")
    (tmp_path / "b.npz").write_bytes(buffer.getvalue())
    with pytest.raises(InputError, match="no NPZ"):
        read_image(tmp_path / "b.npz")


def dicom(path, pixels, photometric="MONOCHROME2", **tags):
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.PatientName, data.PatientID = "Secret^Person", "ID-4711"
    bits = pixels.dtype.itemsize * 8
    data.Rows, data.Columns = pixels.shape[:2]
    data.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    data.PhotometricInterpretation = photometric
    data.BitsAllocated = data.BitsStored = bits
    data.HighBit, data.PixelRepresentation = bits - 1, int(pixels.dtype.kind == "i")
    if pixels.ndim == 3:
        data.PlanarConfiguration = 0
    data.PixelData = pixels.tobytes()
    for name, value in tags.items():
        setattr(data, name, value)
    data.save_as(path)
    return path


CT = np.array([[0, 924, 1024, 1124]], dtype=np.uint16)


def test_dicom_window_after_rescale(tmp_path):
    rescale = {"RescaleSlope": 1, "RescaleIntercept": -1024}
    path = dicom(tmp_path / "a.dcm", CT, WindowCenter=0, WindowWidth=201, **rescale)
    # y = ((x + 0.5) / 200 + 0.5) * 255 of x = -1024, -100, 0, 100, cut to 0..255: 0, 0.6, 128.1, 255
    assert read_image(path)[0, :, 0].tolist() == [0, 1, 128, 255]
    exact = dicom(tmp_path / "b.dcm", CT, WindowCenter=[0, 50], WindowWidth=[400, 10],
                  VOILUTFunction="LINEAR_EXACT", **rescale)  # fmt: skip
    assert read_image(exact)[0, :, 0].tolist() == [0, 64, 128, 191]  # 255 * (x / 400 + 0.5)
    curve = dicom(tmp_path / "c.dcm", CT, WindowCenter=1024, WindowWidth=400, VOILUTFunction="SIGMOID")
    assert read_image(curve)[0, 1:, 0].tolist() == [69, 128, 186]  # 255 / (1 + exp(-+1))


def test_dicom_monochrome1_is_inverted(tmp_path):
    path = dicom(tmp_path / "a.dcm", CT, "MONOCHROME1", WindowCenter=1024, WindowWidth=201)
    assert read_image(path)[0, :, 0].tolist() == [255, 254, 127, 0]


def test_dicom_without_window_uses_percentiles(tmp_path):
    ramp = np.arange(1001, dtype=np.uint16).reshape(7, 143)
    read = read_image(dicom(tmp_path / "a.dcm", ramp))[:, :, 0].ravel()
    assert read[:6].max() == 0 and read[995:].min() == 255  # 0.5 % of 1000 is 5
    assert read[500] == round(255 * (500 - 5) / 990)
    flat = read_image(dicom(tmp_path / "b.dcm", np.full((2, 2), 7, dtype=np.uint16)))
    assert flat.max() == 0


def test_dicom_colour(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    assert np.array_equal(read_image(dicom(tmp_path / "a.dcm", picture, "RGB")), picture)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"NumberOfFrames": 3}, "holds 3 frames"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "colours that are not read"),
        ({"PixelData": b"\0\0"}, "truncated or damaged"),
        ({"Rows": 60000, "Columns": 60000}, "than is safe to open"),
        ({"RescaleSlope": None, "PhotometricInterpretation": None}, r"no readable DICOM|colours"),
    ],
)
def test_bad_dicom_never_names_the_patient(tmp_path, change, words, caplog):
    path = dicom(tmp_path / "a.dcm", CT, **change)
    with pytest.raises(InputError, match=words) as caught:
        read_image(path)
    error: BaseException | None = caught.value
    while error is not None:
        assert "Secret" not in str(error) and "4711" not in str(error)
        error = error.__cause__
    assert "Secret" not in caplog.text and "4711" not in caplog.text


def test_compressed_dicom_without_decoder(tmp_path):
    path = dicom(tmp_path / "a.dcm", CT, PixelData=pydicom.encaps.encapsulate([b"\xff\x4f\xff\x51" * 8]))
    data = pydicom.dcmread(path)
    data.file_meta.TransferSyntaxUID = JPEG2000Lossless
    data["PixelData"].VR = "OB"
    data["PixelData"].is_undefined_length = True
    data.save_as(path)
    with pytest.raises(InputError, match=r"no installed decoder|damaged") as caught:
        read_image(path)
    assert "Secret" not in str(caught.value)


def test_square_is_a_central_crop_and_lanczos():
    picture = np.zeros((4, 7, 3), dtype=np.uint8)
    picture[:, :] = np.arange(7)[None, :, None]
    assert square(picture, 4)[0, :, 0].tolist() == [1, 2, 3, 4]  # floor((7 - 4) / 2) = 1
    flat = np.full((90, 128, 3), 77, dtype=np.uint8)
    assert square(flat, 32).shape == (32, 32, 3) and np.all(square(flat, 32) == 77)
    stripes = np.zeros((64, 64, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    assert np.ptp(square(stripes, 16)[:, 2:-2]) <= 2  # antialiased: fine stripes become grey, not a pattern
    with pytest.raises(InputError, match="as read_image does"):
        square(np.zeros((4, 4), dtype=np.uint8), 2)


def test_load_images_keeps_order_and_names_every_bad_file(tmp_path):
    paths = [save(tmp_path / f"{value}.png", np.full((5, 6), value, dtype=np.uint8)) for value in (10, 20, 30)]
    assert load_images(paths, 4)[:, 0, 0, 0].tolist() == [10, 20, 30]
    assert load_images(paths, 4, threads=1).shape == (3, 4, 4, 3)
    (tmp_path / "20.png").write_text("x")
    with pytest.raises(InputError) as caught:
        load_images([*paths, tmp_path / "no.png"], 4)
    assert "20.png is not an image" in str(caught.value) and "no.png cannot be opened" in str(caught.value)


def test_no_other_formats_are_opened(tmp_path):
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")
    with pytest.raises(InputError, match="is not an image"):
        read_image(tmp_path / "a.png")

"""Features in one pass: each image once, memory bounded, the cache exact, and what files say about a comparison."""

from __future__ import annotations

import tracemalloc
import weakref

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from quality_images import ColourEncoder, make_images
from safetensors import safe_open
from safetensors.numpy import save_file

from equigen.cohort import Cohort, pack
from equigen.errors import InputError
from equigen.quality import ImageSet
from equigen.quality import features as module
from equigen.quality.features import extract_features, file_remarks, jpeg_remark
from equigen.quality.image_sets import load_image_set

RNG = np.random.default_rng(0)


def save(folder, count, suffix=".png", size=8, seed=0, names=None):
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    names = names or [f"{index}{suffix}" for index in range(count)]
    for name in names:
        pixels = rng.integers(0, 256, (size, size + 3, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name, format="JPEG" if suffix == ".jpg" else "PNG")
    return ImageSet(pd.DataFrame({"path": [str(folder / name) for name in names]}))


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 4)
    monkeypatch.setattr(module, "SHARD", 8)


@pytest.mark.parametrize("cached", [False, True])
def test_equal_images_are_encoded_once_and_get_the_same_row(small, tmp_path, cached):
    images = make_images(10, 0)
    rows = np.array([3, 0, 3, 9, 0, 1, 2, 3, 4, 5, 5, 6, 7, 8, 9])
    encoder, plain = ColourEncoder(), ColourEncoder()(images.pixels)
    place = tmp_path if cached else None
    found = extract_features(images.take(rows), encoder, 8, cache_dir=place, show=False)
    assert encoder.seen == 10
    assert np.array_equal(found.values, plain[0][rows])
    assert np.array_equal(found.probabilities, plain[1][rows])
    assert found.values.dtype == np.float32


def test_equal_files_are_encoded_once(tmp_path):
    images = save(tmp_path, 3)
    copy = tmp_path / "copy.png"
    copy.write_bytes((tmp_path / "1.png").read_bytes())
    frame = pd.concat([images.frame, pd.DataFrame({"path": [str(copy)]})], ignore_index=True)
    encoder = ColourEncoder()
    values = extract_features(ImageSet(frame), encoder, 8, show=False).values
    assert encoder.seen == 3
    assert np.array_equal(values[3], values[1])
    assert not np.array_equal(values[0], values[1])


def test_images_of_unknown_hash_are_not_taken_for_one_another(tmp_path):
    frame = save(tmp_path, 4).frame.assign(sha256=[None, None, "unknown", "unknown"])
    values = extract_features(ImageSet(frame), ColourEncoder(), 8, show=False).values
    assert len(np.unique(values, axis=0)) == 4


def test_a_cache_filled_in_part_and_in_another_order_gives_the_same_bits(small, tmp_path):
    images = make_images(30, 0)
    plain = extract_features(images, ColourEncoder(), 8, show=False)
    order = RNG.permutation(30)
    extract_features(images.take(order[:11]), ColourEncoder(), 8, cache_dir=tmp_path, show=False)
    encoder = ColourEncoder()
    found = extract_features(images, encoder, 8, cache_dir=tmp_path, show=False)
    assert encoder.seen == 19
    third = ColourEncoder()
    turned = extract_features(images.take(order), third, 8, cache_dir=tmp_path, show=False)
    assert third.seen == 0
    for values, rows in ((found, np.arange(30)), (turned, order)):
        assert np.array_equal(values.values, plain.values[rows])
        assert np.array_equal(values.probabilities, plain.probabilities[rows])


class Watchful(ColourEncoder):
    """Counts the images that are alive whenever it is called."""

    def __init__(self):
        super().__init__()
        self.most, self._held = 0, []

    def __call__(self, images):
        self._held = [(held, count) for held, count in self._held if held() is not None]
        self._held.append((weakref.ref(images), len(images)))
        self.most = max(self.most, sum(count for _, count in self._held))
        return super().__call__(images)


def test_no_more_than_one_block_of_images_is_alive(small, tmp_path):
    images = save(tmp_path / "images", 21)
    encoder = Watchful()
    extract_features(images, encoder, 8, cache_dir=tmp_path / "cache", show=False)
    assert (encoder.seen, encoder.most) == (21, 4)


class Wide(ColourEncoder):
    dimension = 500

    def __call__(self, images):
        values = np.repeat(images[:, 0, 0, :1].astype(np.float32), 500, axis=1)
        return values, None


def peak(count, monkeypatch, folder):
    """Greatest traced memory while ``count`` images are encoded and while they are read back, less the features."""
    monkeypatch.setattr(module, "load_images", lambda paths, size: np.zeros((len(paths), size, size, 3), np.uint8))
    frame = pd.DataFrame({"path": ["x"] * count, "sha256": [f"{index:064x}" for index in range(count)]})
    peaks = []
    for _ in range(2):
        tracemalloc.start()
        found = extract_features(ImageSet(frame), Wide(), 16, cache_dir=folder, show=False)
        peaks.append(tracemalloc.get_traced_memory()[1] - found.values.nbytes)
        tracemalloc.stop()
    return peaks


def test_memory_does_not_grow_with_the_images_beyond_the_features(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "SHARD", 512)
    few, many = (peak(count, monkeypatch, tmp_path / str(count)) for count in (1024, 4096))
    for less, more in zip(few, many, strict=True):
        assert more - less < 3072 * 500  # a hash and a few numbers a row; its features would be 2 000 bytes


def flipped(data: bytes, place: int) -> bytes:
    changed = bytearray(data)
    changed[place] ^= 4
    return bytes(changed)


HARMS = {
    "cut in its header": lambda data: data[:20], "cut": lambda data: data[:-1], "empty": lambda data: b"",
    "zeroed": lambda data: bytes(len(data)), "flipped": lambda data: flipped(data, -2),
    "flipped header": lambda data: flipped(data, 12), "no file of tensors": lambda data: b"a note to myself",
}  # fmt: skip


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS)
def test_a_damaged_cache_file_is_told_deleted_and_made_again(tmp_path, harm, capsys):
    images = make_images(4, 0)
    whole = extract_features(images, ColourEncoder(), 8, cache_dir=tmp_path, show=False)
    file = next(tmp_path.rglob("*.safetensors"))
    before = file.read_bytes()
    file.write_bytes(harm(before))
    capsys.readouterr()
    encoder = ColourEncoder()
    again = extract_features(images, encoder, 8, cache_dir=tmp_path, show=False)
    assert encoder.seen == 4 and np.array_equal(again.values, whole.values) and file.read_bytes() == before
    text = "".join(capsys.readouterr().err.split())
    assert file.name in text and "isdamaged" in text


def test_a_cache_file_of_an_earlier_version_has_no_hash_and_is_read(tmp_path):
    images, encoder = make_images(4, 0), ColourEncoder()
    whole = extract_features(images, ColourEncoder(), 8, cache_dir=tmp_path, show=False)
    file = next(tmp_path.rglob("*.safetensors"))
    with safe_open(file, framework="numpy") as shard:
        stated, tensors = shard.metadata(), {name: shard.get_tensor(name) for name in shard.keys()}  # noqa: SIM118
    del tensors["sha256"]
    save_file(tensors, file, metadata={"keys": stated["keys"]})
    again = extract_features(images, encoder, 8, cache_dir=tmp_path, show=False)
    assert encoder.seen == 0 and np.array_equal(again.values, whole.values)


class Lapsing(ColourEncoder):
    """Forgets something after the first block."""

    def __init__(self, what):
        super().__init__()
        self.what = what

    def __call__(self, images):
        first = self.seen == 0
        values, classes = super().__call__(images)
        if first:
            return values, classes
        lapses = {"classes": (values, None), "width": (values[:, :5], classes), "nan": (values, classes * np.nan),
                  "rows": (values[:1], classes), "fewer": (values, classes[:, :2])}  # fmt: skip
        return lapses[self.what]


@pytest.mark.parametrize("what", ["classes", "width", "nan", "rows", "fewer"])
def test_an_encoder_that_changes_its_mind_is_refused(small, what):
    with pytest.raises(InputError, match="colour does not keep its word"):
        extract_features(make_images(8, 0), Lapsing(what), 8, show=False)


# ---------------------------------------------------------------- files


def test_jpegs_are_counted_by_their_first_bytes(tmp_path):
    save(tmp_path, 2, ".jpg", names=["a.png", "b.jpg"])
    pngs = save(tmp_path, 0, ".png", names=["c.jpg", "d.png", "e.png"])
    both = ImageSet(pd.DataFrame({"path": [str(tmp_path / "a.png"), str(tmp_path / "b.jpg"), *pngs.frame.path]}))
    assert jpeg_remark(both, "real") == "2 of 5 real images are JPEG files: the encoder sees their compression"
    assert jpeg_remark(pngs, "generated") == ""
    assert jpeg_remark(make_images(3, 0), "real") == ""


def test_sides_that_differ_in_compression_and_size_are_told(tmp_path):
    jpegs, pngs = save(tmp_path / "a", 4, ".jpg", size=20), save(tmp_path / "b", 3, ".png", size=16)
    remarks = file_remarks(jpegs, pngs, 16)
    assert remarks[0] == "4 of 4 real images are JPEG files: the encoder sees their compression"
    assert "the two sides differ in this" in remarks[1]
    assert "shorter side: real 20, generated 16 px" in remarks[2]
    assert "to 16 px" in remarks[2]
    assert len(remarks) == 3


def test_sides_that_are_alike_need_no_remark(tmp_path):
    pngs = save(tmp_path / "a", 3, size=16), save(tmp_path / "b", 5, size=16, seed=1)
    assert file_remarks(*pngs, 16) == []
    jpegs = save(tmp_path / "c", 2, ".jpg", size=16), save(tmp_path / "d", 2, ".jpg", size=16)
    assert [text[:6] for text in file_remarks(*jpegs, 16)] == ["2 of 2", "2 of 2"]


def test_sizes_of_memory_and_of_files_without_a_readable_header(tmp_path):
    memory = ImageSet(pd.DataFrame({"x": [1]}), np.zeros((1, 9, 12, 3), np.uint8))
    files = save(tmp_path / "a", 2, size=10)
    assert "shorter side: real 9, generated 10 px" in file_remarks(memory, files, 9)[0]
    np.savez(tmp_path / "b.npz", image=np.zeros((4, 4), np.uint8))
    hidden = ImageSet(pd.DataFrame({"path": [str(tmp_path / "b.npz")]}))
    assert file_remarks(memory, hidden, 9) == []


def test_a_cohort_in_tar_shards_gives_what_its_files_give(tmp_path):
    files = {"real": save(tmp_path / "real", 5, ".jpg"), "generated": save(tmp_path / "generated", 5, size=9)}
    found = []
    for name, images in files.items():
        spec = pack(Cohort.from_table(tmp_path / name, show_progress=False), tmp_path / f"{name}-packed", show=False)
        found.append(load_image_set(Cohort.read(spec, show_progress=False), name))
        assert all(".tar/" in path for path in found[-1].frame["path"])
        same = [extract_features(side, ColourEncoder(), 8, show=False).values for side in (found[-1], images)]
        assert np.array_equal(*same)
    assert file_remarks(*found, 8) == file_remarks(*files.values(), 8) and len(file_remarks(*found, 8)) == 3
    frame = found[0].frame.assign(path=[*found[0].frame["path"][:4], found[0].frame["path"].iloc[4] + "x"])
    with pytest.raises(InputError, match=r"row 6, column 'path': no file"):
        load_image_set(frame, "real")

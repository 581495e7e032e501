"""Latents on disk in the order of rows: those of the cache, in no memory, by any number of processes."""

import os
import shutil
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from equigen.cohort import Cohort, Manifest, load_images, pack
from equigen.errors import InputError
from equigen.files import hash_bytes
from equigen.latents import LatentStore, LatentView, cache, channel_statistics, encode, encode_store, store, store_file

SCRIPT = Path(__file__).with_name("storing.py")


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(store, "PART", 8)
    monkeypatch.setattr(store, "BLOCK", 7)


@pytest.fixture
def counted(shipped, monkeypatch):
    """The shipped autoencoder, with the number of images in each call of encode."""
    calls, plain = [], type(shipped).encode

    def counting(self, images):
        calls.append(len(images))
        return plain(self, images)

    monkeypatch.setattr(type(shipped), "encode", counting)
    shipped.calls = calls
    return shipped


@pytest.fixture(scope="module")
def packed(cohort, tmp_path_factory):
    """The cohort in shards of seven."""
    return Cohort.read(pack(cohort, tmp_path_factory.mktemp("pack"), images=7, show=False), show_progress=False)


def part(cohort, rows):
    return cohort.where(np.isin(np.arange(len(cohort)), list(rows)))


def made(cohort, coder, folder, **options):
    return LatentStore(encode_store(cohort, coder, folder, 32, show=False, **options))


def everything(found):
    return found[torch.arange(len(found))]


def test_a_store_gives_the_latents_of_the_cache_in_any_order(cohort, shipped, tmp_path):
    expected = encode(cohort, shipped, tmp_path / "cache", 32, batch=8, show=False).values
    found = made(cohort, shipped, tmp_path, batch=8)
    assert (found.shape, len(found), found.size, found.autoencoder) == ((30, 12, 4, 4), 30, 32, shipped.hash)
    rows = torch.tensor([29, 0, 7, 7, 13])
    assert torch.equal(found[rows], expected[rows]) and found[rows].dtype == torch.float32
    assert torch.equal(everything(found), expected) and found[rows[:0]].shape == (0, 12, 4, 4)


def test_shards_are_encoded_one_after_another_from_front_to_back(packed, cohort, counted, tmp_path, monkeypatch):
    opened, plain = [], cache.load_images
    monkeypatch.setattr(cache, "load_images", lambda paths, size: opened.extend(paths) or plain(paths, size))
    mixed = packed.where([True] * 30)
    mixed.frame.loc[:, :] = packed.frame.iloc[np.random.default_rng(0).permutation(30)].to_numpy()
    found = made(mixed, counted, tmp_path, batch=4)
    shards = [path.partition(".tar")[0] for path in opened]
    assert len(opened) == 30 and sum(one != other for one, other in pairwise(shards)) == 4
    for shard in set(shards):
        inside = [path for path in opened if path.startswith(shard)]
        assert inside == sorted(inside)
    direct = counted.encode(load_images(list(mixed.frame["path"]), 32))
    torch.testing.assert_close(everything(found), direct, rtol=1e-3, atol=2e-3)


def test_the_cache_too_goes_through_a_shard_from_front_to_back(packed, counted, tmp_path, monkeypatch):
    opened, plain = [], cache.load_images
    monkeypatch.setattr(cache, "load_images", lambda paths, size: opened.extend(paths) or plain(paths, size))
    mixed = packed.where([True] * 30)
    mixed.frame.loc[:, :] = packed.frame.iloc[::-1].to_numpy()
    values = encode(mixed, counted, tmp_path, 32, batch=4, show=False).values
    assert opened == list(packed.frame["path"])
    torch.testing.assert_close(values.flip(0), counted.encode(load_images(opened, 32)), rtol=1e-3, atol=2e-3)


def test_a_manifest_and_its_cohort_share_a_store(packed, counted, tmp_path):
    packed.save(tmp_path / "saved")
    few = Manifest.load(tmp_path / "saved").split("train", domain="id")
    one = made(few, counted, tmp_path, batch=4)
    calls = len(counted.calls)
    other = made(packed.split("train", domain="id"), counted, tmp_path)
    assert one.file.file == other.file.file and len(counted.calls) == calls and len(one) == len(few) < 30


def test_the_file_is_a_safetensors_file_with_hashes(cohort, shipped, tmp_path):
    found = made(cohort, shipped, tmp_path)
    with safe_open(found.file.file, framework="pt") as handle:
        assert handle.metadata() == {"autoencoder": shipped.hash, "size": "32"}
        assert torch.equal(handle.get_tensor("latents").float(), everything(found))
        assert handle.get_tensor("latents").dtype == torch.float16 and bool(handle.get_tensor("done").all())
        hashes = [bytes(row.tolist()).hex() for row in handle.get_tensor("images")]
    assert hashes == list(cohort.frame["sha256"])


def test_two_processes_share_the_work_and_give_the_same_bits(packed, shipped, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "PART", 4)
    packed.save(tmp_path / "saved")
    alone = made(packed, shipped, tmp_path / "alone", batch=3)
    command = [sys.executable, str(SCRIPT), str(tmp_path / "saved"), str(tmp_path / "both")]
    options = {"stdout": subprocess.PIPE, "text": True, "env": {**os.environ, "OMP_NUM_THREADS": "1"}}
    logs = [tmp_path / f"log{rank}" for rank in range(2)]
    running = [subprocess.Popen([*command, str(rank), "2", str(logs[rank])], **options) for rank in range(2)]
    places = {process.communicate()[0].strip() for process in running}
    assert [process.returncode for process in running] == [0, 0] and len(places) == 1
    assert LatentStore(places.pop()).file.file.read_bytes() == alone.file.file.read_bytes()
    seen = [Counter(log.read_text().split()) for log in logs]
    pictures = Counter(hash_bytes(image.tobytes()) for image in load_images(list(packed.frame["path"]), 32))
    assert seen[0] + seen[1] == pictures and set(pictures.values()) == {1}
    assert [sum(one.values()) for one in seen] == [7 + 7 + 2, 7 + 7]  # shards 0, 2, 4 and 1, 3


def test_one_share_alone_is_not_whole_and_is_told(cohort, counted, tmp_path):
    file = encode_store(cohort, counted, tmp_path, 32, rank=1, world=3, show=False)
    assert sum(counted.calls) == 8  # of four parts of 8, 8, 8 and 6 the second
    with pytest.raises(InputError, match="22 of 30 images are not encoded yet") as caught:
        LatentStore(file)
    assert caught.value.problems[0].file == str(file)
    assert len(made(cohort, counted, tmp_path)) == 30 and sum(counted.calls) == 30  # one process does the rest


def test_an_interruption_costs_the_part_at_work_and_no_bit(cohort, counted, tmp_path, monkeypatch):
    whole = made(cohort, counted, tmp_path / "whole", batch=4)
    counted.calls.clear()
    plain = cache.load_images

    def failing(paths, size):
        if len(counted.calls) == 5:  # in the third part of 8, after one of its two batches
            raise KeyboardInterrupt
        return plain(paths, size)

    monkeypatch.setattr(cache, "load_images", failing)
    with pytest.raises(KeyboardInterrupt):
        made(cohort, counted, tmp_path / "out", batch=4)
    monkeypatch.setattr(cache, "load_images", plain)
    again = made(cohort, counted, tmp_path / "out", batch=4)
    assert sum(counted.calls[5:]) == 14 and again.file.file.read_bytes() == whole.file.file.read_bytes()


def test_a_grown_cohort_encodes_only_what_is_new(cohort, counted, tmp_path):
    made(part(cohort, range(3, 20)), counted, tmp_path)
    encode_store(part(cohort, range(18, 26)), counted, tmp_path, 32, rank=1, world=2, show=False)  # nothing for it
    counted.calls.clear()
    found = made(cohort, counted, tmp_path)
    assert sum(counted.calls) == 13
    fresh = made(cohort, counted, tmp_path / "other")
    torch.testing.assert_close(everything(found), everything(fresh), rtol=0, atol=2e-3)
    assert torch.equal(everything(made(part(cohort, range(5, 9)), counted, tmp_path)), everything(found)[5:9])


def test_equal_images_are_encoded_once(cohort, counted, tmp_path):
    twice = cohort.where([True] * 30)
    twice.frame["sha256"] = twice.frame["sha256"].iloc[[0] * 10 + list(range(10, 28)) + [4, 0]].to_list()
    values = everything(made(twice, counted, tmp_path))
    assert sum(counted.calls) == 20
    assert torch.equal(values[3], values[0]) and torch.equal(values[29], values[0])
    assert not torch.equal(values[28], values[0])  # the picture of row 28 goes by the hash of row 4


def test_another_autoencoder_or_size_has_another_store(cohort, shipped, tmp_path):
    few = part(cohort, range(3))
    places = {encode_store(few, shipped, tmp_path, size, show=False) for size in (32, 40)}
    assert {place.parent.parent.name for place in places} == {f"{shipped.hash}-32", f"{shipped.hash}-40"}


@pytest.mark.parametrize("rows", [None, [4, 9, 2, 28, 17, 3, 1, 5, 6, 22], [7], [3, 3, 8]])
def test_statistics_are_those_of_all_latents_at_once(cohort, shipped, tmp_path, rows):
    found = made(cohort, shipped, tmp_path)
    chosen = range(30) if rows is None else rows
    expected = channel_statistics(everything(found)[list(chosen)])
    mean, std = found.statistics(None if rows is None else np.array(rows))
    np.testing.assert_allclose(mean, expected[0], rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(std, expected[1], rtol=1e-12)


def test_statistics_do_not_read_the_latents(cohort, shipped, tmp_path, monkeypatch):
    found = made(cohort, shipped, tmp_path)
    monkeypatch.setattr(store_file.StoreFile, "read", lambda *arguments: pytest.fail("latents were read"))
    assert len(found.statistics()[0]) == 12


def test_statistics_by_hand(tmp_path):
    told = {"autoencoder": "a", "size": "8"}
    store_file.create_store(tmp_path / "s", (3, 2, 1, 2), np.zeros((3, 32), dtype=np.uint8), told)
    file = store_file.StoreFile(tmp_path / "s" / store_file.STORE_FILE, write=True)
    file.write(np.array([0, 2]), np.array([[[1, 3]], [[5, 5]]], dtype=np.float16))
    file.write(np.array([1]), np.array([[[5, 7]], [[5, 5]]], dtype=np.float16))
    file.mark(np.arange(3))
    mean, std = LatentStore(file.file).statistics(np.array([0, 1]))
    assert mean == [4.0, 5.0] and std == [pytest.approx((20 / 3) ** 0.5), 1e-6]
    assert file.moments(0, 3).tolist() == [[[2, 2], [5, 0]], [[6, 2], [5, 0]], [[2, 2], [5, 0]]]


def test_a_view_is_the_normalised_tensor(cohort, shipped, tmp_path):
    found, rows = made(cohort, shipped, tmp_path), np.array([3, 28, 0, 14])
    values = everything(found)
    mean, std = channel_statistics(values)
    view = LatentView(found, rows, mean, std)
    expected = ((values - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None])[rows]
    asked = torch.tensor([2, 2, 0, 3])
    assert torch.equal(view[asked], expected[asked]) and (len(view), view.shape) == (4, (4, 12, 4, 4))


def test_rows_outside_are_refused(cohort, shipped, tmp_path):
    found = made(part(cohort, range(3)), shipped, tmp_path)
    for rows in ([-1], [0, 3]):
        with pytest.raises(IndexError, match="of 3"):
            found[torch.tensor(rows)]


def test_an_image_that_cannot_be_read_keeps_what_was_done(tmp_path, cohort, counted):
    own = shutil.copytree(cohort.root, tmp_path / "images")
    moved = cohort.where([True] * 30)
    moved.frame["path"] = [str(own / image) for image in moved.frame["image"]]
    Path(moved.frame["path"].iloc[20]).write_bytes(b"no image")
    object.__setattr__(moved, "root", own)
    with pytest.raises(InputError, match="is not an image"):
        made(moved, counted, tmp_path)
    assert store_file.StoreFile(next(tmp_path.glob(f"*/store-*/{store_file.STORE_FILE}"))).filled_rows().sum() == 16


def test_latents_beyond_half_precision_are_refused(cohort, shipped, tmp_path, monkeypatch):
    monkeypatch.setattr(type(shipped), "encode", lambda self, images: torch.full((len(images), 12, 4, 4), 1e6))
    with pytest.raises(InputError, match="8 images have latents beyond half precision"):
        made(cohort, shipped, tmp_path)


def test_a_size_or_share_that_does_not_fit_is_refused_before_an_image_is_opened(cohort, shipped, tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "load_images", lambda *arguments: pytest.fail("an image was opened"))
    with pytest.raises(InputError, match="does not fit"):
        encode_store(cohort, shipped, tmp_path, 36, show=False)
    for some, rank in ((cohort, 2), (cohort, -1), (part(cohort, []), 0)):
        with pytest.raises(InputError, match="nothing to encode"):
            encode_store(some, shipped, tmp_path, 32, rank=rank, world=2, show=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("keep", [0, 5, 200, -3000, -1])
def test_a_truncated_store_is_named(cohort, shipped, tmp_path, keep):
    file = made(part(cohort, range(3)), shipped, tmp_path).file.file
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(InputError, match="store of latents") as caught:
        LatentStore(file)
    assert caught.value.problems[0].file == str(file)
    with pytest.raises(InputError, match="cannot be opened"):
        LatentStore(tmp_path / "nothing")


@pytest.mark.parametrize("tensor", ["latents", "moments"])
def test_a_flipped_bit_of_a_store_is_named_when_its_row_is_read(cohort, shipped, tmp_path, tensor):
    found = made(part(cohort, range(3)), shipped, tmp_path)
    file, at = found.file.file, found.file._starts[tensor] + 5 + (2 * 12 * 16 if tensor == "latents" else 16 * 12)
    whole = everything(found)
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)
    damaged = LatentStore(file)
    if tensor == "latents":
        assert torch.equal(damaged[torch.tensor([0, 2])], whole[[0, 2]])
    with pytest.raises(InputError, match=r"row 1 does not fit its checksum \(delete it and encode again"):
        damaged.statistics() if tensor == "moments" else damaged[torch.tensor([1])]
    if tensor == "latents":  # nor is it taken over by a store of more images
        with pytest.raises(InputError, match="row 1 does not fit"):
            made(cohort, shipped, tmp_path)
    file.unlink()  # the mend
    assert torch.equal(everything(made(part(cohort, range(3)), shipped, tmp_path)), whole)


def test_a_store_of_an_earlier_version_has_no_checksums_and_is_read(cohort, shipped, tmp_path, monkeypatch):
    monkeypatch.setattr(store_file, "_SUMS", {})
    old = made(part(cohort, range(3)), shipped, tmp_path / "old")
    monkeypatch.undo()
    found = LatentStore(old.file.file)
    assert "sums" not in found.file._starts
    assert torch.equal(everything(found), everything(made(part(cohort, range(3)), shipped, tmp_path / "new")))
    assert len(found.statistics()[0]) == 12


def test_a_store_that_is_cut_while_it_is_open_gives_no_made_up_numbers(cohort, shipped, tmp_path):
    found = made(part(cohort, range(3)), shipped, tmp_path)
    os.truncate(found.file.file, 500)
    with pytest.raises(InputError, match="was cut off meanwhile"):
        everything(found)


def test_processes_that_make_the_store_at_once_make_one(tmp_path, monkeypatch):
    digests, plain = np.zeros((2, 32), dtype=np.uint8), Path.rename

    def late(self, target):
        monkeypatch.setattr(Path, "rename", plain)
        store_file.create_store(target, (2, 1, 1, 1), digests, {"by": "another"})
        return plain(self, target)

    monkeypatch.setattr(Path, "rename", late)
    store_file.create_store(tmp_path / "s", (2, 1, 1, 1), digests, {"by": "me"})
    assert store_file.StoreFile(tmp_path / "s" / store_file.STORE_FILE).metadata == {"by": "another"}
    assert [item.name for item in tmp_path.iterdir()] == ["s"]


def test_images_are_found_by_hash_among_many(tmp_path):
    rng = np.random.default_rng(0)
    digests = rng.integers(0, 256, (500, 32), dtype=np.uint8)
    digests[:, :2] %= 3  # many share their first bytes
    store_file.create_store(tmp_path / "s", (500, 1, 1, 1), digests, {})
    open_store = store_file.StoreFile(tmp_path / "s" / store_file.STORE_FILE, write=True)
    open_store.mark(np.arange(0, 500, 2))
    asked = np.concatenate([digests[100:110], rng.integers(0, 256, (3, 32), dtype=np.uint8)])
    found = store._StoreIndex(open_store.file).find(asked)
    assert found.tolist() == [100, -1, 102, -1, 104, -1, 106, -1, 108, -1, -1, -1, -1]


def test_a_new_store_takes_no_space_and_a_read_takes_no_memory(tmp_path):
    store_file.create_store(tmp_path / "s", (100_000, 4, 64, 64), np.zeros((100_000, 32), dtype=np.uint8), {})
    file = store_file.StoreFile(tmp_path / "s" / store_file.STORE_FILE)
    assert file.file.stat().st_size > 3_276_800_000 and file.file.stat().st_blocks * 512 < 10_000_000
    assert file.read(np.array([99_999, 0])).shape == (2, 4, 64, 64)

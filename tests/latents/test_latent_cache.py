"""Latents on disk: encoded once, found again, never mixed up."""

import os
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from equigen.cohort import load_images
from equigen.errors import InputError
from equigen.latents import LatentCache, cache, channel_statistics, encode, load_autoencoder, reconstruction_error


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(cache, "SHARD", 8)


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


def part(cohort, *rows):
    return cohort.where([number in rows for number in range(len(cohort))])


def shards(folder, autoencoder, size=32):
    return sorted((folder / f"{autoencoder.hash}-{size}").glob("*"))


def test_latents_are_those_of_the_images_in_the_order_of_rows(cohort, shipped, tmp_path):
    latents = encode(cohort, shipped, tmp_path, 32, show=False)
    assert latents.values.shape == (30, 12, 4, 4) and latents.values.dtype == torch.float32
    assert (latents.size, latents.autoencoder) == (32, shipped.hash)
    direct = shipped.encode(load_images(list(cohort.frame["path"]), 32))
    assert torch.equal(latents.values, direct.half().float())  # kept in half precision, and so at the first call
    shuffled = cohort.where([True] * 30)
    shuffled.frame.loc[:, :] = cohort.frame.iloc[::-1].to_numpy()
    assert torch.equal(encode(shuffled, shipped, tmp_path, 32, show=False).values, latents.values.flip(0))


def test_the_second_time_only_reads(cohort, counted, tmp_path, monkeypatch):
    first = encode(cohort, counted, tmp_path, 32, batch=7, show=False)
    assert counted.calls == [7, 7, 7, 7, 2]
    monkeypatch.setattr(cache, "load_images", lambda *arguments: pytest.fail("an image was opened"))
    second = encode(cohort, counted, tmp_path, 32, show=False)
    assert torch.equal(first.values, second.values) and len(counted.calls) == 5


def test_a_grown_cohort_encodes_only_what_is_new(cohort, counted, tmp_path):
    encode(part(cohort, *range(20)), counted, tmp_path, 32, show=False)
    whole = encode(cohort, counted, tmp_path, 32, show=False)
    assert counted.calls == [20, 10] and len(shards(tmp_path, counted)) == 2
    fresh = encode(cohort, counted, tmp_path / "other", 32, show=False)
    torch.testing.assert_close(whole.values, fresh.values, rtol=0, atol=2e-3)


def test_an_image_that_stands_twice_is_encoded_once(cohort, counted, tmp_path):
    twice = cohort.where([True] * 30)
    twice.frame["sha256"] = twice.frame["sha256"].iloc[[0] * 10 + list(range(10, 30))].to_list()
    values = encode(twice, counted, tmp_path, 32, show=False).values
    assert sum(counted.calls) == 21 and torch.equal(values[3], values[0])


def test_an_interruption_loses_only_the_unfinished_shard(cohort, counted, tmp_path, small_shards, monkeypatch):
    plain = cache.load_images

    def failing(paths, size):
        if len(counted.calls) == 5:  # in the third shard of 8, after one of its two batches
            raise KeyboardInterrupt
        return plain(paths, size)

    monkeypatch.setattr(cache, "load_images", failing)
    with pytest.raises(KeyboardInterrupt):
        encode(cohort, counted, tmp_path, 32, batch=4, show=False)
    assert len(shards(tmp_path, counted)) == 2
    monkeypatch.setattr(cache, "load_images", plain)
    encode(cohort, counted, tmp_path, 32, batch=4, show=False)
    assert sum(counted.calls[5:]) == 14
    assert len(LatentCache(tmp_path, counted.hash, 32).locations) == 30


def test_what_a_killed_process_leaves_is_no_shard(cohort, counted, tmp_path):
    encode(cohort, counted, tmp_path, 32, show=False)
    (shard,) = shards(tmp_path, counted)
    shard.with_name(f".{shard.stem}.12345678.part.safetensors").write_bytes(shard.read_bytes()[:50])
    encode(cohort, counted, tmp_path, 32, show=False)
    assert counted.calls == [30]


def flipped(path, place):
    """Flip one bit of a file and keep its size and time."""
    data, old = bytearray(path.read_bytes()), path.stat()
    data[place] ^= 4
    path.write_bytes(data)
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))


HARMS = {
    "empty": lambda path: path.write_bytes(b""),
    "in its header": lambda path: path.write_bytes(path.read_bytes()[:40]),
    "at its end": lambda path: path.write_bytes(path.read_bytes()[:-10]),
    "zeroed": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "flipped": lambda path: flipped(path, -100),
    "flipped header": lambda path: flipped(path, 20),
}


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS)
def test_a_damaged_shard_is_told_deleted_and_encoded_again(cohort, counted, tmp_path, small_shards, harm, capsys):
    whole = encode(cohort, counted, tmp_path, 32, batch=8, show=False)
    shard = shards(tmp_path, counted)[1]
    before, seen = shard.read_bytes(), sum(counted.calls)
    harm(shard)
    capsys.readouterr()
    assert torch.equal(encode(cohort, counted, tmp_path, 32, batch=8, show=False).values, whole.values)
    assert sum(counted.calls) == seen + 8
    text = "".join(capsys.readouterr().err.split())
    assert shard.name in text and "isdamaged" in text
    fresh = [path.read_bytes() for path in shards(tmp_path, counted)]
    assert before in fresh and len(fresh) == 4


def test_a_damaged_shard_is_told_to_who_reads_the_cache_alone(tmp_path):
    LatentCache(tmp_path, "coder", 32).add(["a"], torch.ones(1, 1, 2, 2))
    (shard,) = (tmp_path / "coder-32").glob("*")
    flipped(shard, -1)
    with pytest.raises(InputError, match="was damaged, and is deleted") as caught:
        LatentCache(tmp_path, "coder", 32).read(["a"])
    assert caught.value.problems[0].file == str(shard) and not shard.exists()


def test_a_disk_that_damages_every_shard_ends_the_encoding(cohort, counted, tmp_path, monkeypatch):
    plain = LatentCache.add

    def add(self, names, latents):
        plain(self, names, latents)
        for path in self.folder.glob("*"):
            flipped(path, -1)

    monkeypatch.setattr(LatentCache, "add", add)
    with pytest.raises(InputError, match="was damaged"):
        encode(part(cohort, 0), counted, tmp_path, 32, show=False)
    assert counted.calls == [1, 1, 1]


def test_a_shard_of_an_earlier_version_has_no_hash_and_is_read(cohort, counted, tmp_path):
    whole = encode(cohort, counted, tmp_path, 32, show=False)
    (shard,) = shards(tmp_path, counted)
    with safe_open(shard, framework="pt") as handle:
        old, values = handle.metadata(), handle.get_tensor("latents")
    save_file({"latents": values}, shard, metadata={"images": old["images"]})
    assert torch.equal(encode(cohort, counted, tmp_path, 32, show=False).values, whole.values)
    assert counted.calls == [30]


def test_a_deleted_shard_does_not_cost_another(cohort, counted, tmp_path, small_shards):
    whole = encode(cohort, counted, tmp_path, 32, batch=8, show=False)
    files = shards(tmp_path, counted)
    kept = {path: path.read_bytes() for path in files if path != files[1]}
    files[1].unlink()
    again = encode(cohort, counted, tmp_path, 32, batch=8, show=False)
    assert all(path.read_bytes() == content for path, content in kept.items())
    assert torch.equal(again.values, whole.values) and sum(counted.calls) == 38


def test_two_processes_that_encode_at_once_do_not_overwrite_each_other(tmp_path):
    one, two = (LatentCache(tmp_path, "coder", 32) for _ in range(2))
    one.add(["a"], torch.full((1, 1, 2, 2), 1.0))
    two.locations.clear()
    for path in one.folder.glob("*"):
        path.rename(path.with_suffix(".aside"))  # as if both had looked before either wrote
    two.add(["b"], torch.full((1, 1, 2, 2), 2.0))
    for path in one.folder.glob("*.aside"):
        assert not path.with_suffix(".safetensors").exists()
        path.rename(path.with_suffix(".safetensors"))
    assert LatentCache(tmp_path, "coder", 32).read(["b", "a"])[:, 0, 0, 0].tolist() == [2, 1]
    assert one.read(["a"])[0, 0, 0, 0] == 1 and two.read(["b"])[0, 0, 0, 0] == 2


def test_another_autoencoder_or_size_has_another_folder(cohort, counted, kl_folder, tmp_path):
    few = part(cohort, 0, 1, 2)
    encode(few, counted, tmp_path / "l", 32, show=False)
    encode(few, counted, tmp_path / "l", 40, show=False)
    other = load_autoencoder(kl_folder)
    encode(few, other, tmp_path / "l", 32, show=False)
    names = {path.name for path in (tmp_path / "l").iterdir()}
    assert names == {f"{counted.hash}-32", f"{counted.hash}-40", f"{other.hash}-32"}
    assert counted.calls == [3, 3, 3]


def test_latents_beyond_half_precision_are_refused(tmp_path):
    with pytest.raises(InputError, match="1 images have latents beyond half precision"):
        LatentCache(tmp_path, "coder", 32).add(["a", "b"], torch.tensor([1.0, 1e6]).view(2, 1, 1, 1))
    assert not list(tmp_path.rglob("*.safetensors"))


def test_shards_are_half_precision_on_disk(cohort, shipped, tmp_path):
    encode(part(cohort, 0), shipped, tmp_path, 32, show=False)
    assert load_file(shards(tmp_path, shipped)[0])["latents"].dtype == torch.float16


def test_a_size_that_does_not_fit_is_refused_before_an_image_is_opened(cohort, shipped, tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "load_images", lambda *arguments: pytest.fail("an image was opened"))
    with pytest.raises(InputError, match="does not fit"):
        encode(cohort, shipped, tmp_path, 36, show=False)


def test_channel_statistics_by_hand():
    latents = torch.tensor([[[[1.0, 3.0]], [[5.0, 5.0]]], [[[5.0, 7.0]], [[5.0, 5.0]]]])  # [2, 2, 1, 2]
    mean, std = channel_statistics(latents)
    assert mean == [4.0, 5.0]
    assert std == [pytest.approx((20 / 3) ** 0.5), 1e-6]  # deviations -3 -1 1 3; a constant channel is not divided by 0


def test_reconstruction_error_by_hand(cohort):
    images = load_images(list(cohort.frame["path"].iloc[[0, 29]]), 32)
    off = (images.astype(int) + 5 * (images < 128) - 5 * (images >= 128)).astype("uint8")
    coder = SimpleNamespace(decode=lambda latents: off[[int(value) for value in latents[:, 0]]])
    latents = SimpleNamespace(values=torch.tensor([[0]] + [[9]] * 28 + [[1]]), size=32)
    expected = pytest.approx(34.1514, abs=1e-4)  # 10 log10(65025 / 25)
    assert reconstruction_error(cohort, latents, coder, sample=2) == expected

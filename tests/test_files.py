"""Files are whole or absent, and a full disk is an error that a user can mend."""

import errno
import json
import os

import pandas as pd
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from equigen import files
from equigen.errors import InputError
from equigen.files import (
    hash_bytes,
    hash_file,
    hash_value,
    read_json,
    replace_file,
    write_bytes,
    write_json,
    write_text,
)
from equigen.parquet import is_sealed, read_parquet, write_parquet


def names(folder):
    """What lies in a folder."""
    return sorted(path.name for path in folder.iterdir())


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path):
    place = tmp_path / "table.txt"
    write_text(place, "old")
    with replace_file(place) as temporary:
        temporary.write_text("new")
        assert place.read_text() == "old"
    assert place.read_text() == "new"
    assert names(tmp_path) == ["table.txt"]


def test_an_exception_leaves_nothing_half_written(tmp_path):
    place = tmp_path / "table.txt"
    write_text(place, "old")
    with pytest.raises(ZeroDivisionError), replace_file(place) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert place.read_text() == "old"
    assert names(tmp_path) == ["table.txt"]


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), replace_file(tmp_path / "a.txt"):
        pass
    assert names(tmp_path) == []


def test_the_temporary_name_is_hidden_and_keeps_the_suffix(tmp_path):
    with replace_file(tmp_path / "shard-00001.safetensors") as temporary:
        assert temporary.parent == tmp_path and temporary.name.startswith(".") and temporary.suffix == ".safetensors"
        temporary.write_bytes(b"half")
        assert list(tmp_path.glob("shard-*.safetensors")) == []  # what a killed process leaves is not found
        with replace_file(tmp_path / "shard-00001.safetensors") as other:
            assert other != temporary  # two processes do not write into one another
            other.write_bytes(b"whole")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("kind", ["python", "safetensors"])
def test_a_full_disk_names_the_file_and_the_mend(tmp_path, number, kind):
    text = f"Error while serializing: I/O error: {os.strerror(number)} (os error {number})"
    error = OSError(number, os.strerror(number)) if kind == "python" else SafetensorError(text)
    with pytest.raises(InputError, match="disk is full") as caught, replace_file(tmp_path / "big.bin") as temporary:
        temporary.write_bytes(b"half")
        raise error
    problem = caught.value.problems[0]
    assert problem.file == str(tmp_path / "big.bin")
    assert os.strerror(number) in problem.message and "free some space" in problem.mend
    assert caught.value.__cause__ is error
    assert names(tmp_path) == []


def test_a_full_disk_while_making_the_folder(tmp_path, monkeypatch):
    def full(self, *args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pathlib.Path.mkdir", full)
    with pytest.raises(InputError, match="disk is full"):
        write_text(tmp_path / "new" / "a.txt", "a")


def test_the_words_of_a_real_safetensors_error(tmp_path):
    """What safetensors reports ends in the number of the system's error, which is what is looked for."""
    with pytest.raises(SafetensorError, match=rf"\(os error {errno.ENOENT}\)"):
        save_file({"a": torch.zeros(2)}, tmp_path / "absent" / "a.safetensors")


def test_a_table_on_a_really_full_device(tmp_path):
    frame = pd.DataFrame({"a": range(100_000)})
    with pytest.raises(InputError, match="disk is full"), replace_file(tmp_path / "a.parquet") as temporary:
        temporary.symlink_to("/dev/full")
        frame.to_parquet(temporary)
    assert names(tmp_path) == []


@pytest.mark.parametrize("error", [PermissionError(errno.EACCES, "denied"), SafetensorError("invalid header")])
def test_other_errors_pass_unchanged(tmp_path, error):
    with pytest.raises(type(error)) as caught, replace_file(tmp_path / "a.bin"):
        raise error
    assert caught.value is error


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": [float("-inf")]}])
def test_json_refuses_what_it_has_no_word_for(tmp_path, value):
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(tmp_path / "a.json", value)
    assert names(tmp_path) == []


def test_json_and_tables_come_back(tmp_path):
    value = {"b": [1, 2.5, None, "ü"], "a": {"c": True}}
    write_json(tmp_path / "new" / "a.json", value)
    assert read_json(tmp_path / "new" / "a.json") == value
    assert json.loads((tmp_path / "new" / "a.json").read_text()) == value
    frame = pd.DataFrame({"x": [1, 2], "y": ["a", None]}, index=[7, 8])
    write_parquet(tmp_path / "a.parquet", frame)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "a.parquet"), frame.reset_index(drop=True))


def test_hashes(tmp_path):
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # FIPS 180-4, of no bytes
    write_bytes(tmp_path / "a", b"")
    assert hash_bytes(b"") == empty == hash_file(tmp_path / "a")
    assert hash_value({"a": 1, "b": 2}) == hash_value({"b": 2, "a": 1})
    assert hash_value([1, 2]) != hash_value([2, 1])


def test_bytes_reach_the_disk_before_the_name_does(tmp_path, monkeypatch):
    seen = []
    sync = os.fsync
    monkeypatch.setattr(files.os, "fsync", lambda handle: (seen.append(names(tmp_path)), sync(handle)))
    write_bytes(tmp_path / "a.bin", b"abc")
    assert len(seen) == 1 and "a.bin" not in seen[0]


def sheet():
    return pd.DataFrame({"name": ["a", "b", None] * 9, "auc": [index / 27 for index in range(27)], "n": range(27)})


def test_no_flipped_bit_of_a_table_goes_unseen(tmp_path):
    """One bit in every byte of the file: the same table comes back, or an error names the file; never other values."""
    place, frame = tmp_path / "quality.parquet", sheet()
    write_parquet(place, frame)
    whole, told = place.read_bytes(), 0
    for index in range(len(whole)):
        harmed = bytearray(whole)
        harmed[index] ^= 1 << (index % 8)
        place.write_bytes(harmed)
        try:
            pd.testing.assert_frame_equal(read_parquet(place), frame)
        except InputError as error:
            assert error.problems[0].file == str(place)
            told += 1
    assert told > len(whole) / 3  # the rest is of no consequence: statistics, names of the writer


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no table", b"\0" * 400])
def test_what_is_no_table_is_named(tmp_path, content):
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.parquet: is no readable Parquet file"):
        read_parquet(tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"b\.parquet: there is no such file"):
        read_parquet(tmp_path / "b.parquet")


def test_a_table_of_another_writer_is_read_without_checksums(tmp_path):
    sheet().to_parquet(tmp_path / "a.parquet", index=False)
    write_parquet(tmp_path / "b.parquet", sheet())
    assert [is_sealed(tmp_path / f"{name}.parquet") for name in "ab"] == [False, True]
    pd.testing.assert_frame_equal(read_parquet(tmp_path / "a.parquet", ["auc"]), sheet())

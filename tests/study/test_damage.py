"""Damage and edits of what a finished stage wrote: made again or told by name, never passed on in silence."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from equigen.errors import InputError
from equigen.files import write_json
from equigen.integrity import is_readable, remove_temporary_files
from equigen.locks import lock_folder
from equigen.parquet import write_parquet
from equigen.pngs import write_png
from equigen.study.stages import DamageError, Stages

FILES = ("table.parquet", "record.json", "weights.safetensors", "images/a.png", "notes.csv")


def work(out: Path) -> None:
    """Write one file of every kind that is not there yet, as a stage that was interrupted does."""
    makers = {
        "table.parquet": lambda path: write_parquet(path, pd.DataFrame({"auc": np.linspace(0, 1, 40)})),
        "record.json": lambda path: write_json(path, {"generator": "abc", "seen": 96}),
        "weights.safetensors": lambda path: save_file({"w": torch.arange(40.0)}, path),
        "images/a.png": lambda path: write_png(path, np.arange(192, dtype=np.uint8).reshape(8, 8, 3)),
        "notes.csv": lambda path: path.write_text("a,b\n1,2\n"),
    }
    for name, make in makers.items():
        if not (out / name).is_file():
            make(out / name)


class Two:
    """A folder with a stage and one that reads it; ``calls`` counts what was done."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.calls = folder, []

    def go(self, later: int = 1, **options: bool) -> Stages:
        stages = Stages(self.folder, **options)
        for _ in range(2):
            try:
                stages.run("first", [1], lambda out: (self.calls.append("first"), work(out)), ["record.json"])
                stages.run("later", [later], lambda out: (self.calls.append("later"), write_json(out / "b.json", 1)))
            except DamageError:
                continue
            return stages
        raise AssertionError("damage was not mended")

    def content(self) -> dict[str, bytes]:
        return {name: (self.folder / "first" / name).read_bytes() for name in FILES}


@pytest.fixture
def two(tmp_path) -> Two:
    folder = Two(tmp_path)
    folder.go()
    folder.calls.clear()
    return folder


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


def zero(path):
    path.write_bytes(bytes(path.stat().st_size))


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) * 2 // 3] ^= 4
    path.write_bytes(data)


def delete(path):
    path.unlink()


HARMS = (truncate, empty, zero, flip, delete)


@pytest.mark.parametrize("quiet", [False, True], ids=["with a new time", "with the old time"])
@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("name", FILES)
def test_every_harm_is_told_by_name_or_mended_before_the_file_is_used(two, name, harm, quiet, capsys):
    path, before = two.folder / "first" / name, two.content()
    old = path.stat()
    harm(path)
    if path.exists():
        os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns + (0 if quiet else 10**9)))
    capsys.readouterr()
    try:
        two.go(later=2)  # a stage that really runs reads the first one's files
    except InputError as error:
        assert not quiet and [problem.file for problem in error.problems] == [str(path)]
        assert "--accept" in str(error) and "delete it" in str(error)
        return
    assert two.content() == before
    assert Path(name).name in "".join(capsys.readouterr().err.split())
    assert two.calls[-1] == "later" and two.calls.count("first") == 1


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_done_again_where_only_a_time_has_changed(two, name):
    os.utime(two.folder / "first" / name, ns=(1, 10**18))
    two.go()
    assert two.calls == []
    record = json.loads((two.folder / "first" / "stage.json").read_text())["files"][name]
    assert record["mtime_ns"] == 10**18


def test_weights_flipped_with_their_old_time_are_found_by_verify_alone(two):
    path = two.folder / "first" / "weights.safetensors"
    before, old = path.read_bytes(), path.stat()
    flip(path)
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))
    two.go()
    assert two.calls == [] and path.read_bytes() != before  # nothing has read them
    two.go(verify=True)
    assert two.calls == ["first"] and path.read_bytes() == before


def test_an_edit_is_refused_until_it_is_accepted_and_then_stays_known(two):
    path = two.folder / "first" / "record.json"
    path.write_text('{"generator": "abc", "seen": 97}')
    os.utime(path, ns=(10**18 * 3, 10**18 * 3))
    with pytest.raises(InputError, match=r"first/record\.json: has other content"):
        two.go()
    assert two.go(accept=True).accepted == ["first/record.json"]
    assert two.go().accepted == ["first/record.json"] and two.calls == []


def test_a_stamp_without_hashes_is_taken_over_once(two, capsys):
    stamp = two.folder / "first" / "stage.json"
    old = json.loads(stamp.read_text())
    write_json(stamp, {"key": old["key"], "seconds": old["seconds"]})
    two.go()
    assert "first: written before hashes were kept" in " ".join(capsys.readouterr().err.split())
    two.go()
    assert "before hashes" not in capsys.readouterr().err and two.calls == []
    assert json.loads(stamp.read_text()) == old


@pytest.mark.parametrize("harm", HARMS)
def test_a_harmed_stamp_costs_its_stage_and_no_result(two, harm):
    before = two.content()
    harm(two.folder / "first" / "stage.json")
    two.go()
    assert two.calls == ["first"] and two.content() == before


def test_files_that_a_later_stage_changes_are_recorded_anew_even_if_that_was_interrupted(two):
    stages = Stages(two.folder)
    with stages.changing("first"):
        (two.folder / "first" / "notes.csv").write_text("c\n")
    two.go()
    with pytest.raises(ZeroDivisionError), stages.changing("first"):
        (two.folder / "first" / "notes.csv").write_text("d\n")
        raise ZeroDivisionError
    two.go()
    assert two.calls == []


def test_what_a_killed_process_left_is_swept_and_nothing_else(tmp_path):
    (tmp_path / "set").mkdir()
    orphans = [tmp_path / ".a.0123abcd.part.parquet", tmp_path / "set" / ".b.89abcdef.part.png"]
    others = [tmp_path / ".lock", tmp_path / "a.part.parquet", tmp_path / ".hidden.json"]
    for path in [*orphans, *others]:
        path.write_text("x")
    assert sorted(remove_temporary_files(tmp_path)) == sorted(orphans)
    assert all(path.is_file() for path in others) and not any(path.exists() for path in orphans)


def test_a_second_process_is_told_and_a_killed_one_leaves_no_lock(tmp_path):
    code = "import sys, time\nfrom equigen.locks import lock_folder\n" \
           "with lock_folder(sys.argv[1]):\n    print(1, flush=True)\n" \
           "    time.sleep(60)"  # fmt: skip
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"1\n"
        with pytest.raises(InputError, match=f"process {other.pid} on"), lock_folder(tmp_path):
            pass
        other.kill()
        other.wait()
    with lock_folder(tmp_path):
        pass


@pytest.mark.parametrize("name", FILES)
def test_a_whole_file_can_be_read(two, name):
    assert is_readable(two.folder / "first" / name)
    zero(two.folder / "first" / name)
    assert not is_readable(two.folder / "first" / name)

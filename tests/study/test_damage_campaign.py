"""Every artefact of a whole small study is harmed: each harm is found, and one run mends them together."""

import shutil

import pandas as pd
from test_damage import HARMS, truncate

from equigen.files import read_json
from equigen.integrity import STAMP, file_changes

TABLES = ("quality/quality.parquet", "diagnosis/predictions.parquet", "fairness/fairness.parquet")


def artefacts(folder):
    """(stage folder, file, its record) of every file that a finished study recorded."""
    for stamp in sorted(folder.rglob(STAMP)):
        for name, entry in read_json(stamp)["files"].items():
            yield stamp.parent, name, entry


def test_every_harm_to_every_artefact_is_found(finished, tmp_path):
    missed, count, spare = [], 0, tmp_path / "spare"
    for folder, name, entry in artefacts(finished.out):
        path = folder / name
        shutil.copy2(path, spare)
        try:
            for harm in HARMS:
                harm(path)
                changes, _ = file_changes(folder, {name: entry}, hash_all=True)
                missed += [(str(path), harm.__name__)] if [change.file for change in changes] != [name] else []
                count += 1
                shutil.copy2(spare, path)
        finally:
            shutil.copy2(spare, path)
    assert not missed and count > 700
    assert not [name for folder, name, entry in artefacts(finished.out)
                if file_changes(folder, {name: entry}, hash_all=True)[0]]  # fmt: skip


def test_a_study_of_which_every_kind_of_artefact_is_cut_off_is_made_again_and_says_so(copied, capsys):
    before = {name: pd.read_parquet(copied.out / name) for name in TABLES}
    harmed = {}
    for folder, name, _ in artefacts(copied.out):
        harmed.setdefault((folder, name.rpartition(".")[2]), folder / name)  # one of each suffix in each stage
    for path in harmed.values():
        truncate(path)
    capsys.readouterr()
    copied.run()
    words = "".join(capsys.readouterr().err.split())
    assert [path.name for path in harmed.values() if path.name not in words] == []
    for name, table in before.items():
        pd.testing.assert_frame_equal(pd.read_parquet(copied.out / name), table)

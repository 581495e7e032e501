"""Training with a mechanism of one's own: what is recorded, what is resumed, and what is refused."""

from pathlib import Path

import pytest
import torch
from generator_folder import images
from small_training import Stopped, stopping

from equigen.equity import BaseMechanism
from equigen.errors import InputError
from equigen.files import read_json
from equigen.training import TrainSettings, train

SOURCE = '''
import torch

from equigen.equity import BaseMechanism


class Thrice(BaseMechanism):
    """Weights of ``factor``."""

    name = "thrice"

    def __init__(self, groups, seed, *, factor=3.0):
        super().__init__(groups, seed, {"factor": factor})
        self.factor = factor

    def weights(self, losses, groups, timesteps, images_seen):
        return torch.full_like(losses, self.factor)
'''


class Thrice(BaseMechanism):
    """The same, in this module."""

    name = "thrice"

    def weights(self, losses, groups, timesteps, images_seen):
        return torch.full_like(losses, 3.0)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "code" / "thrice.py"
    path.parent.mkdir()
    path.write_text(SOURCE)
    return path


def test_a_run_records_the_class_and_keeps_the_source_that_nothing_runs(go, file, cohort, latents):
    run = go(mechanism=f"{file}:Thrice")
    record = read_json(run.folder / "training.json")
    assert record["settings"]["mechanism"].startswith("Thrice@") and str(file.parent) not in str(record)
    assert (run.folder / "mechanism.py.txt").read_text() == SOURCE and "mechanism.py.txt" in record["files"]
    assert repr(run).startswith("Run 'g' (Thrice, seed 1, 48 images seen) in ")
    plain = go("plain")
    assert not (plain.folder / "mechanism.py.txt").exists()
    assert read_json(plain.folder / "training.json")["generator"] != record["generator"]  # weights of 3 are no 1
    (run.folder / "mechanism.py.txt").write_text("raise SystemExit('it ran')")
    assert images(run.pipeline()).shape == (2, 32, 32, 3)


def test_the_same_content_elsewhere_goes_on_and_changed_content_is_refused(go, file, tmp_path):
    run = go(mechanism=f"{file}:Thrice")
    written = (run.folder / "training.json").stat().st_mtime_ns
    moved = file.rename(tmp_path / "moved.py")
    assert go(mechanism=f"{moved}:Thrice") == run
    assert (run.folder / "training.json").stat().st_mtime_ns == written
    moved.write_text(SOURCE + "\n# a comment\n")
    with pytest.raises(InputError, match="holds a generator of other data or settings"):
        go(mechanism=f"{moved}:Thrice")


def test_an_interrupted_run_goes_on_with_the_same_content_alone(go, file):
    with stopping(3), pytest.raises(Stopped):
        go(mechanism=f"{file}:Thrice")
    file.write_text(SOURCE.replace("factor=3.0", "factor=30.0"))
    with pytest.raises(InputError, match=r"checkpoint"):
        go(mechanism=f"{file}:Thrice")
    file.write_text(SOURCE)
    resumed, plain = go(mechanism=f"{file}:Thrice"), go("other", mechanism=f"{file}:Thrice")
    records = [read_json(run.folder / "training.json") for run in (resumed, plain)]
    assert records[0]["generator"] == records[1]["generator"]


def test_a_class_and_an_object_train_as_the_file_does(go, quick, cohort, latents, file, tmp_path, small_preset):
    def run(name, mechanism):
        arguments = {"settings": quick(), "latents": latents, "out": tmp_path / name, "show": False}
        folder = train(cohort, mechanism, **arguments).folder
        return read_json(folder / "training.json"), (folder / "mechanism.py.txt").read_text()

    from equigen.training import cohort_groups

    named, _ = run("file", f"{file}:Thrice")
    for name, mechanism in (("class", Thrice), ("object", Thrice(cohort_groups(cohort), 1))):
        record, source = run(name, mechanism)
        assert record["generator"] == named["generator"]
        assert record["settings"]["mechanism"].startswith("Thrice@") and source.startswith("class Thrice(")


def test_settings_hold_a_class_as_its_name_and_the_default_folder_is_short(cohort, quick, file, monkeypatch, tmp_path):
    assert TrainSettings(mechanism=Thrice).mechanism_label == "Thrice"
    copied = TrainSettings(**TrainSettings(mechanism=Thrice).model_dump())
    assert copied == TrainSettings(mechanism=Thrice)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("equigen.training.class_conditional.check_settings", lambda *_: None)
    folders = []

    def record(folder, key):
        folders.append(folder)
        return True

    monkeypatch.setattr("equigen.training.class_conditional.is_finished", record)
    train(cohort, f"{file}:Thrice", settings=quick(), show=False)
    assert folders == [Path("generators/Thrice-seed1")]

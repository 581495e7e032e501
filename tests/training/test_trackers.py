"""Trackers are told the history as it grows, and the grids: TensorBoard for real, the others by a stand-in."""

import sys
import types

import numpy as np
import pytest
from test_loop_and_resume import assert_same_run
from worded import settings, trainer

from equigen.errors import InputError
from equigen.training import TrainSettings, trackers
from equigen.training import requirements as needs
from equigen.training.trackers import HistoryTracker

NONE = {"mechanism": "none"}


def grids(run):
    return {"sex/female": np.full((4, 6, 3), run.images_seen, np.uint8)}


def name_of(row):
    return row[1] if row[2] == "*" else f"{row[1]}/{row[2]}/{row[3]}"


def events(folder):
    """What TensorBoard would show of a run: scalars by name as (images seen, value), and the names of images."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    shown = accumulator.EventAccumulator(str(folder / "logs"), {"images": 0, "scalars": 0}).Reload()
    tags = shown.Tags()
    scalars = {tag: [(event.step, event.value) for event in shown.Scalars(tag)] for tag in tags["scalars"]}
    return scalars, {tag: [event.step for event in shown.Images(tag)] for tag in tags["images"]}


@pytest.mark.parametrize("asked", ["tensorboard", "auto"])
def test_tensorboard_shows_the_history_and_the_grids(tmp_path, asked):
    pytest.importorskip("tensorboard")
    chosen = settings(40, trackers=asked, grid_every=16)
    run = trainer(tmp_path / "c.safetensors", {"mechanism": "reweight"}, chosen, sample_grids=grids)
    run.run(show=False)
    scalars, images = events(tmp_path)
    expected = {}
    for row in run.history.rows:
        expected.setdefault(name_of(row), []).append((row[0], pytest.approx(row[4], rel=1e-6)))
    assert {"train", "train/sex/female", "probe_heldout/age/old", "learning_rate", "weight/sex/male"} <= set(expected)
    assert scalars == expected
    assert images == {"grid/sex/female": [0, 16, 32, 40]}
    trainer(tmp_path / "plain.safetensors", {"mechanism": "reweight"}, settings(40)).run(show=False)
    assert_same_run(tmp_path / "c.safetensors", tmp_path / "plain.safetensors")  # training is not touched


def test_nothing_is_told_twice_when_a_run_goes_on(tmp_path):
    pytest.importorskip("tensorboard")
    trainer(tmp_path / "c.safetensors", NONE, settings(24, trackers="tensorboard")).run(show=False)
    run = trainer(tmp_path / "c.safetensors", NONE, settings(48, trackers="tensorboard"))
    run.run(show=False)
    scalars, _ = events(tmp_path)
    assert [step for step, _ in scalars["train"]] == [16, 24, 32, 48]
    assert [step for step, _ in scalars["probe_heldout"]] == [0, 24, 48]


class Wandb(types.SimpleNamespace):
    """What accelerate uses of wandb."""

    def __init__(self):
        super().__init__(told=[], begun=[], known={}, ended=[])
        self.config = types.SimpleNamespace(update=lambda values, allow_val_change: self.known.update(values))

    def init(self, **how):
        self.begun.append(how)
        return types.SimpleNamespace(
            log=lambda values, step: self.told.append((step, values)), finish=lambda: self.ended.append(1)
        )

    def Image(self, image):
        return image.shape


class Mlflow(types.SimpleNamespace):
    """What accelerate uses of mlflow."""

    def __init__(self):
        super().__init__(told=[], begun=[], known={}, ended=[], files=[])
        limits = {"MAX_PARAM_VAL_LENGTH": 500, "MAX_PARAMS_TAGS_PER_BATCH": 100}
        self.utils = types.SimpleNamespace(validation=types.SimpleNamespace(**limits))

    def search_experiments(self, filter_string):
        return []

    def create_experiment(self, **how):
        return how["name"]

    def start_run(self, **how):
        self.begun.append(how)

    def log_params(self, values):
        self.known.update(values)

    def log_metrics(self, values, step):
        self.told.append((step, values))

    def log_artifact(self, local_path, artifact_path):
        self.files.append((local_path, artifact_path))

    def end_run(self):
        self.ended.append(1)


@pytest.mark.parametrize(("name", "kind"), [("wandb", Wandb), ("mlflow", Mlflow)])
def test_others_are_told_the_same(tmp_path, monkeypatch, name, kind):
    other = kind()
    monkeypatch.setitem(sys.modules, name, other)
    monkeypatch.setattr(needs, "is_installed", lambda package: package == name)
    chosen = settings(24, trackers=name, grid_every=24, mechanism_settings={"rho": 1})
    run = trainer(tmp_path / "run" / "c.safetensors", NONE, chosen, sample_grids=grids)
    run.run(show=False)
    told = {}
    for step, values in other.told:
        told.update({(step, key): value for key, value in values.items()})
    assert len(other.begun) == len(other.ended) == 1 and other.known["batch"] == 8
    assert other.known["mechanism_settings"] == '{"rho": 1}'
    assert {(row[0], name_of(row)): row[4] for row in run.history.rows}.items() <= told.items()
    if name == "wandb":
        assert other.begun == [{"project": "equigen", "name": "run", "dir": str(tmp_path / "run")}]
        assert told[24, "grid/sex/female"] == [(4, 6, 3)]
        assert [step for step, _ in other.told] == sorted(step for step, _ in other.told)  # wandb drops what goes back
    else:
        assert other.begun[0]["run_name"] == "run" and other.begun[0]["experiment_id"] == "equigen"
        place = tmp_path / "run" / "grids" / "000000024" / "sex" / "female.png"
        assert other.files[-1] == (str(place), "grids/000000024")


def test_a_tracker_is_ended_however_the_run_ends(tmp_path, monkeypatch):
    other = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", other)
    monkeypatch.setattr(needs, "is_installed", lambda package: True)
    run = trainer(tmp_path / "c.safetensors", NONE, settings(24, trackers="wandb"))
    run._check_finite = lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        run.run(show=False)
    assert other.ended == [1]


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_tracker_that_is_not_installed_is_refused_before_any_work(tmp_path, monkeypatch, name):
    monkeypatch.setattr(needs, "is_installed", lambda package: False)
    with pytest.raises(InputError, match=f"'{name}' was asked for") as caught:
        trainer(tmp_path / "c.safetensors", NONE, settings(24, trackers=name))
    assert caught.value.problems[0].mend == f"pip install {name}"


def test_without_tensorboard_auto_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(trackers, "is_installed", lambda package: False)
    trainer(tmp_path / "c.safetensors", NONE, settings(8, trackers="auto")).run(show=False)
    assert [path.name for path in tmp_path.iterdir()] == ["c.safetensors"]
    assert TrainSettings().tracker == "none"
    assert TrainSettings(base="a pipeline").tracker == "auto"


def test_processes_after_the_first_tell_and_write_nothing(tmp_path):
    follower = HistoryTracker(tmp_path, settings(trackers="wandb"), [[0, "train", "*", "*", 1.0, 1]], active=False)
    follower.log_history()
    follower.log_images(grids(types.SimpleNamespace(images_seen=1)), 1)
    follower.close()
    assert list(tmp_path.iterdir()) == []

"""A comparison's YAML: what it means, and every way in which it is refused before any work."""

import copy
import sys
from pathlib import Path

import pytest
import yaml

from equigen.comparison.checks import check_before_images, training_settings
from equigen.comparison.jobs import JobBuilder, calibrated_sets, constant_sets
from equigen.comparison.paths import RunPaths, Training
from equigen.comparison.settings import read_comparison
from equigen.comparison.steps import JobContext
from equigen.errors import InputError
from equigen.files import read_json

EXAMPLES = Path(__file__).parents[2] / "examples"
COMPARISONS = [file.stem for file in sorted(EXAMPLES.glob("compare-*.yaml")) if "mechanisms:" in file.read_text()]
SMALL = {
    "name": "c", "phantom": {"images": 60}, "size": 32, "seeds": [0, 4],
    "train": {"preset": "tiny", "images": 64, "batch": 16, "learning_rate": 0.001},
    "pretrain": {"images": 128, "snapshot_every": 64},
    "mechanisms": {"none": {}, "mine": {"mechanism": "perturbation", "window_images": 32}},
    "plans": {"all": {"policy": "balanced", "size": 12, "steps": 2}},
    "guidance": [1, 2.5],
}  # fmt: skip


def read(tmp_path, changes=None, overrides=None):
    values = {**copy.deepcopy(SMALL), **(changes or {})}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    return read_comparison(tmp_path / "c.yaml", overrides)


def test_mechanisms_go_on_from_a_plain_pretraining_of_their_seed_with_other_noise(tmp_path):
    settings = read(tmp_path, {"train": {**SMALL["train"], "warmup": 7}})
    runs = training_settings(settings, RunPaths(tmp_path / "out"), tmp_path, "c.yaml")
    assert [member.path for member in runs] == [
        *("default/pretrained-seed0", "default/none-seed0", "default/mine-seed0"),
        *("default/pretrained-seed4", "default/none-seed4", "default/mine-seed4"),
    ]
    first, mine = runs[Training("default", "pretrained", 4)], runs[Training("default", "mine", 4)]
    assert (first.mechanism, first.images, first.seed, first.start, first.warmup) == ("none", 128, 1004, None, 7)
    assert first.snapshot_every == 64 and first.size == mine.size == 32
    assert (mine.mechanism, mine.images, mine.seed, mine.snapshot_every) == ("perturbation", 64, 4, 0)
    assert mine.mechanism_settings == {"window_images": 32}
    assert mine.start == str(tmp_path / "out/generators/default/pretrained-seed4")


def test_named_settings_change_training_and_pretraining(tmp_path):
    changes = {"settings": {"a": {}, "b": {"preset": "small", "images": 32, "pretrain": {"images": 16}}}}
    runs = training_settings(read(tmp_path, changes), RunPaths(tmp_path), tmp_path, "c.yaml")
    kept = {member.path: (run.preset, run.images) for member, run in runs.items() if member.seed == 0}
    assert kept == {
        "a/pretrained-seed0": ("tiny", 128), "a/none-seed0": ("tiny", 64), "a/mine-seed0": ("tiny", 64),
        "b/pretrained-seed0": ("small", 16), "b/none-seed0": ("small", 32), "b/mine-seed0": ("small", 32),
    }  # fmt: skip


def test_without_pretraining_every_mechanism_starts_from_nothing_or_from_the_file_that_is_named(tmp_path):
    settings = read(tmp_path, {"pretrain": None})
    assert {run.start for run in training_settings(settings, RunPaths(tmp_path), tmp_path, "c").values()} == {None}
    settings = read(tmp_path, {"pretrain": None, "train": {**SMALL["train"], "start": "there"}})
    starts = {run.start for run in training_settings(settings, RunPaths(tmp_path), tmp_path / "yaml", "c").values()}
    assert starts == {str(tmp_path / "yaml" / "there")}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cohort": "x.yaml"}, "give either 'cohort' or 'phantom'"),
        ({"mechanism": {}}, r"mechanism: unknown key \(did you mean 'mechanisms'"),
        ({"guidance": [1, 0]}, r"guidance\.1: .*greater than 0"),
        ({"guidance": [1, 1.0]}, "guidance .* names one twice"),
        ({"seeds": [1, 1]}, r"seeds \[1, 1\] names one twice"),
        ({"plans": {"a": {"policy": "match", "guidance": 2}}}, r"plans\.a\.guidance: unknown key"),
        ({"mechanisms": {"pretrained": {}}}, r"mechanisms\.pretrained: the name means something else"),
        ({"settings": {"a/b": {}}}, "'a/b' cannot name a folder"),
        ({"train": {"seed": 3}}, "train.seed is set elsewhere: use 'seeds'"),
        ({"settings": {"a": {"pretrain": {"size": 32}}}}, r"settings\.a\.pretrain\.size is set elsewhere: use 'size'"),
        ({"settings": {"a": {"pretrain": 3}}}, r"settings\.a\.pretrain is 3, which has no keys"),
        ({"settings": {"a": {"pretrain": {}}}, "pretrain": None}, "changes a pretrain that is not there"),
        ({"train": {"start": "x"}}, "train.start: training goes on from 'pretrain'"),
        ({"calibrate": {"attribute": "sex", "mechanisms": ["balanced"]}}, "calibrate.mechanisms 'balanced' is not"),
        ({"calibrate": {"attribute": "sex", "images": 4}}, r"calibrate\.images: .*greater than or equal to 8"),
        ({"calibrate": {"attribute": "sex", "bounds": [4, 1]}}, r"bounds \[4.0, 1.0\]: give the least"),
        ({"curve": {"plan": "b"}}, r"curve.plan 'b' is not among plans \(all\)"),
        ({"curve": {"plan": "all", "mechanism": "x"}}, "curve.mechanism 'x' is not among mechanisms"),
        ({"jobs": 0}, "jobs: .*greater than or equal to 1"),
        ({"engine": "slurm"}, "engine: .*'local', 'ray' or 'submitit'"),
    ],
)
def test_settings_that_make_no_sense_are_refused_with_their_key(tmp_path, changes, message):
    with pytest.raises(InputError, match=message) as caught:
        read(tmp_path, changes)
    assert "c.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": {"imagess": 3}}, r"train\.imagess: unknown key"),
        ({"settings": {"a": {"batch": 0}}}, r"train\.batch: .*greater than or equal to 1"),
        ({"settings": {"a": {"pretrain": {"preset": "base"}}}}, "settings.a: preset is tiny in train and base in pre"),
        ({"mechanisms": {"balance": {}}}, r"mechanisms\.balance: there is no mechanism .*balanced"),
        ({"mechanisms": {"t": {"mechanism": "my.py:Tilt"}}}, r"mechanisms\.t: .*my.py: there is no such file"),
        ({"mechanisms": {"none": {"x": 1}}}, r"mechanisms\.none: 'x' is not known"),
        ({"evaluate": {"encoder": "vgg"}}, r"evaluate\.encoder: "),
        ({"evaluate": {"metrics": ["kid"]}}, r"evaluate\.metrics: no metric 'kid'"),
        ({"evaluate": {"groups": ["gender"]}}, r"evaluate\.groups: 'gender' is not an attribute"),
        ({"calibrate": {"attribute": "sex & raze"}}, r"calibrate\.attribute: 'raze' is not .*race"),
        ({"engine_settings": {"num_gpus": 1}}, r"engine_settings: engine_settings\.num_gpus"),
        ({"engine": "ray"}, r"engine_settings: ray is not installed"),
        ({"phantom": None, "cohort": {"name": "n"}}, "image"),
    ],
)
def test_what_can_be_known_without_images_is_refused_before_any(tmp_path, monkeypatch, changes, message):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=message):
        settings = read(tmp_path, changes)
        training_settings(settings, RunPaths(tmp_path), tmp_path, "c.yaml")
        check_before_images(settings, tmp_path, "c.yaml")


def test_overrides_reach_every_part_and_are_left_as_they_are(tmp_path):
    given = {"seeds": [9], "plans.all.size": 5, "calibrate.attribute": "sex", "jobs": 3}
    settings = read(tmp_path, overrides=given)
    assert settings.seeds == [9] and settings.plans["all"].size == 5 and settings.jobs == 3
    assert settings.calibrate.budget == 4000 and settings.calibrate.mechanisms == ["none"]


def test_jobs_are_one_a_generator_behind_its_pretraining_with_sets_at_every_guidance(tmp_path, phantom_cohort):
    changes = {
        "calibrate": {"attribute": "sex", "budget": 200},
        "curve": {"plan": "all", "guidance": 4.0},
        "threads": 2,
    }
    settings, paths = read(tmp_path, changes), RunPaths(tmp_path)
    runs = training_settings(settings, paths, tmp_path, "c.yaml")
    context = JobContext(tmp_path, phantom_cohort, "shipped", 32)
    jobs = {job.name: job for job in JobBuilder(settings, runs, paths, context).jobs()}
    after = {name: job.after for name, job in jobs.items() if "seed4" not in name}
    assert after == {
        "latents": (),
        "default/pretrained-seed0": ("latents",),
        "default/none-seed0": ("default/pretrained-seed0",),
        "default/mine-seed0": ("default/pretrained-seed0",),
        "default/none-seed0/curve": ("default/none-seed0",),
        "default/none-seed0/calibration": ("default/none-seed0",),
    }
    assert jobs["default/none-seed0"].environment["OMP_NUM_THREADS"] == "2"
    assert constant_sets(settings) == [("all", 1.0), ("all", 2.5)]
    curve = read_json(Path(jobs["default/none-seed0/curve"].command[-1]))["steps"]
    ends = [made["stage"] for step in curve if step["kind"] == "sets" for made in step["sets"]]
    assert ends == ["synthetic/default/pretrained-seed0/all-g4", "synthetic/default/none-seed0/all-g4"]
    assert calibrated_sets(settings, "none") == [("all", "common"), ("all", "calibrated")]
    assert calibrated_sets(settings, "mine") == []
    assert not jobs["latents"].is_done() and not jobs["default/none-seed0"].is_done()


@pytest.mark.parametrize("name", COMPARISONS)
def test_the_examples_are_in_order(tmp_path, name):
    assert len(COMPARISONS) >= 4
    settings = read_comparison(EXAMPLES / f"{name}.yaml")
    runs = training_settings(settings, RunPaths(tmp_path), EXAMPLES, name)
    check_before_images(settings, EXAMPLES, name)
    assert len(runs) == 3 * (1 + len(settings.mechanisms)) and settings.calibrate and settings.curve

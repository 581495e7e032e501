"""A whole comparison, its jobs run within this process: what it leaves, what it skips, what it does again."""

import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from equigen.cohort import Cohort
from equigen.comparison import checks, compare, job_process, steps
from equigen.comparison import comparison as module
from equigen.comparison.runners.base import Handle
from equigen.errors import EquigenError, InputError
from equigen.parquet import write_parquet
from equigen.quality import load_encoder
from equigen.study.checks import check_only
from equigen.synthesis.guidance import Guidance
from equigen.training import TrainSettings, train

COHORT = {
    "name": "tiny",
    "phantom": True,
    "table": "metadata.csv",
    "image": {"column": "image", "root": "images"},
    "patient": "patient",
    "split": {"fractions": {"train": 0.3, "val": 0.1, "test": 0.6}, "seed": 1},
    "labels": {"glaucoma": {"kind": "binary", "column": "glaucoma", "levels": ["healthy", "glaucoma"]}},
    "attributes": {"sex": {"column": "sex", "levels": ["female", "male"]}},
}
COMPARISON = {
    "name": "tiny comparison",
    "cohort": COHORT,
    "size": 32,
    "pretrain": {"images": 32, "snapshot_every": 16},
    "train": {"preset": "tiny", "images": 16, "batch": 16, "probe_images": 16, "warmup": 32, "ema": 64},
    "mechanisms": {"none": {}, "equal": {"mechanism": "balanced"}},
    "seeds": [0, 1],
    "plans": {"all": {"policy": "balanced", "size": 60, "steps": 1}},
    "guidance": [1],
    "evaluate": {"groups": ["sex"], "encoder": "efficientnet-lite0@64", "replicates": 20, "permutations": 20},
    "curve": {"mechanism": "none", "plan": "all", "guidance": 1},
}
JOBS = {
    "latents", *(f"default/{name}-seed{seed}" for name in ("pretrained", "none", "equal") for seed in (0, 1)),
    "default/none-seed0/curve", "default/none-seed1/curve",
}  # fmt: skip


class Inline(Handle):
    """A job that is done at once, here."""

    ran: list[str] = []  # noqa: RUF012

    def ready(self):
        return True

    def start(self):
        Inline.ran.append(self.job.name)
        try:
            job_process.run_steps(Path(self.job.command[-1]))
            self.end = "done"
        except InputError as error:
            self.message, self.end = str(error), "failed"

    def check(self):
        return self.end

    def cancel(self):
        pass


class Here:
    slots = 1

    def submit(self, job, after):
        return Inline(job, after)

    def close(self):
        pass


class ComparisonFolder:
    def __init__(self, data, place):
        self.place, self.out, self.values = place, place / "run", copy.deepcopy(COMPARISON)
        self.values["cohort"]["table"] = str(data / "metadata.csv")
        self.values["cohort"]["image"]["root"] = str(data / "images")

    def run(self, overrides=None) -> list[str]:
        """Run it; the names of the jobs that did something."""
        self.place.mkdir(parents=True, exist_ok=True)
        (self.place / "c.yaml").write_text(yaml.safe_dump(self.values, sort_keys=False))
        Inline.ran = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "open_engine", lambda *_: Here())
            patch.setattr("torch.set_num_threads", lambda _count: None)
            self.page = compare(self.place / "c.yaml", self.out, overrides, show=False)
        return Inline.ran

    def read(self, name) -> pd.DataFrame:
        return pd.read_parquet(self.out / name)

    def hashes(self) -> dict[str, str]:
        return {
            path.parent.relative_to(self.out / "generators").as_posix(): json.loads(path.read_text())["generator"]
            for path in (self.out / "generators").rglob("training.json")
        }

    def settings(self, name) -> dict:
        return json.loads((self.out / "generators" / name / "training.json").read_text())["settings"]


@pytest.fixture(scope="module")
def finished(phantom_folder, tmp_path_factory) -> ComparisonFolder:
    """Run to its end once. Read only."""
    folder = ComparisonFolder(phantom_folder, tmp_path_factory.mktemp("contest"))
    assert set(folder.run()) == JOBS
    return folder


@pytest.fixture
def copied(finished, phantom_folder, tmp_path) -> ComparisonFolder:
    folder = ComparisonFolder(phantom_folder, tmp_path)
    shutil.copytree(finished.out, folder.out)
    return folder


def test_a_comparison_ends_with_its_tables_and_a_page(finished):
    summary, seeds = finished.read("quality/contest.parquet"), finished.read("quality/contest_seeds.parquet")
    assert set(summary["mechanism"]) == {"none", "equal"} and set(seeds["seed"]) == {0, 1}
    overall = summary[(summary["figure"] == "overall") & (summary["mechanism"] == "equal")].iloc[0]
    assert overall["seeds"] == 2 and pd.notna(overall["estimate"]) and pd.notna(overall["difference"])
    assert finished.page == finished.out.resolve() / "report" / "index.html" or finished.page.is_file()
    assert "equal" in finished.page.read_text()
    assert "does not ask for each group&#39;s own diagnoses" in finished.page.read_text()


def test_only_one_diagnosis_can_be_measured_and_nothing_is_trained_for_it(copied):
    assert copied.run({"evaluate": {**COMPARISON["evaluate"], "only": {"glaucoma": "healthy"}}, "curve": None}) == []
    overall = copied.read("quality/contest.parquet").query("figure == 'overall'")
    assert overall["note"].str.contains("only glaucoma healthy: ").all()
    assert overall["note"].str.contains("too small: 29 patients").all()  # the healthy ones of the 53
    assert "patients, glaucoma healthy alone" in copied.page.read_text()
    for only, message in (
        ({"glaucom": ["healthy"]}, "'glaucom' is no label .did you mean 'glaucoma'"),
        ({"glaucoma": ["sick"]}, "'sick' is no level of 'glaucoma'"),
        ({"glaucoma": []}, "no level of 'glaucoma' is named"),
    ):
        with pytest.raises(InputError, match=f"c.yaml: evaluate.only: {message}"):
            copied.run({"evaluate": {"only": only}})
    rows = {"plan 'one'": pd.DataFrame({"label.glaucoma": ["healthy", None]})}
    with pytest.raises(InputError, match=r"c.yaml: evaluate.only: no image of plan 'one' has glaucoma glaucoma"):
        check_only({"glaucoma": ["glaucoma"]}, Cohort.load(copied.out / "cohort"), rows, "c.yaml")


def test_a_plan_that_matches_the_cohort_needs_no_warning(copied):
    copied.run({"plans": {"all": {"policy": "match", "size": 60, "steps": 1}}})
    assert "does not ask for each group" not in (copied.out / "report/index.html").read_text()


def test_generators_are_trained_as_asked_and_go_on_from_their_own_pretraining(finished):
    first, own = finished.settings("default/pretrained-seed1"), finished.settings("default/equal-seed1")
    assert (first["mechanism"], first["images"], first["seed"], first["start"]) == ("none", 32, 1001, None)
    assert (own["mechanism"], own["images"], own["seed"]) == ("balanced", 16, 1)
    assert own["start"].endswith("generators/default/pretrained-seed1")
    assert len(set(finished.hashes().values())) == 6
    made = finished.read("synthetic/default/equal-seed1/all-g1/synthetic.parquet")
    assert len(made) == 60 and set(made["generator"]) == {finished.hashes()["default/equal-seed1"]}


def test_the_curve_goes_over_snapshots_the_pretraining_and_what_went_on(finished):
    curve = finished.read("curve/curve.parquet")
    whole = curve[curve["figure"] == "overall"]
    assert list(zip(whole["seed"], whole["images_seen"], strict=True)) == [
        (seed, seen) for seed in (0, 1) for seen in (16, 32, 48)
    ]
    seeds = finished.read("quality/contest_seeds.parquet")
    same = seeds[(seeds["figure"] == "overall") & (seeds["mechanism"] == "none") & (seeds["seed"] == 0)]
    assert whole["estimate"].iloc[2] == pytest.approx(same["estimate"].iloc[0], rel=0.5)
    kept = {path.name for path in (finished.out / "synthetic").rglob("0*")}
    assert "000000016" in kept and "000000032" not in kept  # the last snapshot is the generator itself
    change = finished.read("curve/curve_change.parquet")
    assert sorted(set(zip(change["images_seen"], change["end"], strict=True))) == [(16, 48), (32, 48)]
    values = whole.pivot(index="images_seen", columns="seed", values="estimate")
    for seen, row in change[change["figure"] == "overall"].set_index("images_seen").iterrows():
        gained = values.loc[48] - values.loc[seen]
        assert row["change"] == pytest.approx(gained.mean(), abs=1e-12)
        assert (row["estimate"], row["estimate_end"]) == pytest.approx((values.loc[seen].mean(), values.loc[48].mean()))
        assert row["change_low"] < row["change"] < row["change_high"] and row["seeds"] == 2
        spread = gained.std(ddof=1) / 2**0.5
        assert row["change_high"] - row["change_low"] > 2 * spread  # other seeds are in it, and other patients


def test_what_the_autoencoder_costs_is_measured_and_told(finished):
    found = finished.read("reconstruction/reconstruction.parquet").set_index("figure")
    assert list(found.index) == ["overall", "female", "male", "worst", "gap"]
    whole = found.loc["overall"]
    assert whole["ci_low"] < whole["estimate"] < whole["ci_high"]
    assert "through the autoencoder and back stand at" in finished.page.read_text()


def test_sets_can_be_measured_against_what_the_autoencoder_keeps_and_nothing_is_trained_for_it(copied, finished):
    asked = {**COMPARISON["evaluate"], "against": "reconstructions"}
    assert copied.run({"evaluate": asked}) == []
    page = copied.page.read_text()
    assert "as the autoencoder keeps them" in page and "through the autoencoder and back stand at" not in page
    for name in ("quality/contest.parquet", "curve/curve.parquet"):
        own, other = (folder.read(name).query("figure == 'overall'")["estimate"] for folder in (copied, finished))
        assert own.notna().all() and (own != other).all()
    assert copied.run({"evaluate": asked}) == []
    with pytest.raises(InputError, match=r"c.yaml: evaluate.against is reconstructions, and the settings have diff"):
        checks.check_against("reconstructions", ["a", "b", "a"], "c.yaml")
    checks.check_against("reconstructions", ["a", "a"], "c.yaml")
    checks.check_against("images", ["a", "b"], "c.yaml")


def test_a_curve_may_have_sets_of_its_own_size_and_the_comparison_keeps_its_own(copied, finished):
    curve = {**COMPARISON["curve"], "size": 70, "guidance": 2}
    assert set(copied.run({"curve": curve})) == {f"default/none-seed{seed}/curve" for seed in (0, 1)}
    for place in ("none-seed0/all@70-g2", "none-seed1/all@70-g2", "pretrained-seed0/snapshots/000000016/all@70-g2"):
        assert len(copied.read(f"synthetic/default/{place}/synthetic.parquet")) == 70
    assert not (copied.out / "synthetic/default/equal-seed0/all@70-g2").exists()
    assert copied.read("quality/contest.parquet").equals(finished.read("quality/contest.parquet"))
    points = copied.read("curve/curve.parquet").query("figure == 'overall'")
    assert points["images_seen"].tolist() == [16, 32, 48] * 2 and points["estimate"].notna().all()
    assert copied.run({"curve": curve}) == []


def test_again_nothing_is_done_and_trainings_made_elsewhere_are_found_done(copied, monkeypatch):
    for path in (copied.out / "generators").rglob("*.json"):
        if path.name in ("stage.json", "begun.json"):
            path.unlink()
    monkeypatch.setattr(module, "measure", None)  # neither may be measured again
    monkeypatch.setattr(module, "measure_curve", None)
    monkeypatch.setattr(module, "measure_reconstruction", None)
    assert copied.run() == []


def test_jobs_leave_the_features_of_their_sets_and_make_lost_ones_again(copied, monkeypatch):
    sets = {path.parent.relative_to(copied.out) for path in (copied.out / "synthetic").rglob("synthetic.parquet")}
    places = {path.parent.relative_to(copied.out / "features") for path in copied.out.rglob("encoded.json")}
    assert places == sets and len(sets) == 8
    monkeypatch.setattr("equigen.comparison.evaluation.load_encoder", Counted)
    shutil.rmtree(copied.out / "quality")
    assert copied.run({"curve": None}) == []
    assert Counted.seen == 0  # the measurement reads what jobs and the first measurement have left
    (copied.out / "features/synthetic/default/none-seed0/all-g1/encoded.json").unlink()
    assert copied.run({"curve": None}) == ["default/none-seed0"]


class Counted:
    """The encoder, counting what it is given."""

    seen = 0

    def __init__(self, name):
        self.own = load_encoder(name)

    def __getattr__(self, name):
        return getattr(self.own, name)

    def __call__(self, images):
        Counted.seen += len(images)
        return self.own(images)


def harm(path, how):
    """Cut a file off, flip a bit of it, or delete it; its time stays the same."""
    data, old = bytearray(path.read_bytes()), path.stat()
    if how == "delete":
        path.unlink()
        return
    data[len(data) * 2 // 3] ^= 4
    path.write_bytes(data if how == "flip" else data[: len(data) // 2])
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))


HARMS, MEMBERS = ("truncate", "flip", "delete"), ("equal-seed0", "none-seed0")
TABLES = ("quality/contest.parquet", "quality/contest_seeds.parquet", "curve/curve.parquet",
          "curve/curve_change.parquet", "reconstruction/reconstruction.parquet",
          *(f"synthetic/default/{name}/all-g1/synthetic.parquet" for name in MEMBERS))  # fmt: skip


def test_a_comparison_whose_files_are_damaged_ends_with_the_tables_of_the_first_run(copied, finished):
    made = ("generators/", "synthetic/", "features/synthetic/")
    rooms = [f"{room}default/{name}/" for name in MEMBERS for room in made]
    rooms += ["generators/default/pretrained-seed0/snapshots/", "cohort/", "quality/", "curve/", "reconstruction/",
              "latents/", "logs/", "report/", "features/c"]  # fmt: skip
    damaged = [
        path
        for path in sorted(copied.out.rglob("*"))
        if path.is_file()
        and path.relative_to(copied.out).as_posix().startswith(tuple(rooms))
        and path.name not in ("stage.json", "begun.json")
        and (path.suffix != ".png" or path.stem < "0000003")
    ]
    for place, path in enumerate(damaged):
        harm(path, HARMS[place % 3])
    for room in made:  # records of stages whose files are whole
        place = copied.out / f"{room}default/none-seed1"
        harm(place / ("stage.json" if room == "generators/" else "all-g1/stage.json"), "flip")
    assert {path.suffix for path in damaged} >= {".parquet", ".json", ".safetensors", ".png", ".html"}
    assert {f"default/{name}" for name in MEMBERS} <= set(copied.run())
    for name in TABLES:
        pd.testing.assert_frame_equal(copied.read(name), finished.read(name))
    assert copied.hashes() == finished.hashes()
    snapshot = "generators/default/pretrained-seed0/snapshots/000000016/unet/diffusion_pytorch_model.safetensors"
    assert (copied.out / snapshot).read_bytes() == (finished.out / snapshot).read_bytes()
    assert copied.run() == []


def test_another_guidance_makes_its_sets_alone_and_measures_again(copied, finished):
    before = copied.hashes()
    ran = copied.run({"guidance": [1, 2], "curve": None})
    assert set(ran) == {f"default/{name}-seed{seed}" for name in ("none", "equal") for seed in (0, 1)}
    assert copied.hashes() == before
    assert set(copied.read("quality/contest.parquet")["guidance"]) == {"1", "2"}
    old = finished.out / "synthetic/default/none-seed0/all-g1/stage.json"
    assert (copied.out / old.relative_to(finished.out)).read_text() == old.read_text()
    assert set(copied.read("synthetic/default/none-seed0/all-g2/synthetic.parquet")["guidance"]) == {2.0}


def test_a_changed_training_is_done_again_and_the_old_one_kept(copied, finished):
    ran = copied.run({"mechanisms.equal": {"mechanism": "reweight"}, "curve": None})
    assert set(ran) == {"default/equal-seed0", "default/equal-seed1"}
    before, after = finished.hashes(), copied.hashes()
    assert {name for name in before if before[name] != after[name]} == {"default/equal-seed0", "default/equal-seed1"}
    kept = {path.name.rsplit("-", 1)[0] for path in (copied.out / "stale").iterdir()}
    assert {"generators-default-equal-seed0", "synthetic-default-equal-seed0-all-g1", "quality"} <= kept


def test_a_training_that_train_itself_began_is_taken_over_and_gives_the_same(copied, finished, monkeypatch):
    from equigen.cohort import Cohort

    place = copied.out / "generators/default/pretrained-seed0"
    for name in ("generators", "synthetic"):
        shutil.rmtree(copied.out / name)

    class Cut(BaseException):
        pass

    with monkeypatch.context() as patch:
        module = sys.modules["equigen.training.class_conditional"]
        patch.setattr(module, "write_trained_on", lambda *_: (_ for _ in ()).throw(Cut()))
        settings = TrainSettings(**finished.settings("default/pretrained-seed0"))
        with pytest.raises(Cut):
            train(
                Cohort.load(copied.out / "cohort"),
                settings=settings,
                out=place,
                latents=copied.out / "latents",
                show=False,
            )
    written = (place / "checkpoint.safetensors").stat().st_mtime_ns
    copied.run({"curve": None})
    assert copied.hashes() == finished.hashes()
    assert (place / "checkpoint.safetensors").stat().st_mtime_ns == written


def test_a_failed_job_leaves_no_page_but_all_that_does_not_need_it(copied, monkeypatch):
    shutil.rmtree(copied.out / "synthetic/default/none-seed0")
    (copied.out / "report/index.html").unlink()
    shutil.rmtree(copied.out / "synthetic/default/equal-seed1")

    def fails(folder, *_):
        raise InputError("This one is broken.")

    real = steps.open_any_generator
    monkeypatch.setattr(
        steps, "open_any_generator",
        lambda folder, *rest: (fails if "none" in str(folder) else real)(folder, *rest),
    )  # fmt: skip
    with pytest.raises(EquigenError, match=r"1 of 9 jobs failed; 1 that need them.*\n  default/none-seed0: see"):
        copied.run()
    assert not (copied.out / "report/index.html").exists()
    assert (copied.out / "synthetic/default/equal-seed1/all-g1/synthetic.parquet").is_file()


def test_calibrated_and_common_guidance_are_sampled_and_measured(copied, monkeypatch):
    calls = []

    def calibrate(generator, tune, confirm, *, attribute, out, seed, **rest):
        calls.append((Path(generator).name, set(tune.frame["split"]), confirm, seed, rest))
        shown = Guidance(
            attribute, {"female": 1.5, "male": 3.0}, 2.5, 2.0, "gap", 1.0, (1, 4), 9, 9, 3, 1, seed, "e", "c", "h",
            "val", "g", {}, "v",
        )  # fmt: skip
        shown.save(generator)
        write_parquet(out / "calibration.parquet", pd.DataFrame({"a": [1]}))

    monkeypatch.setattr(steps, "calibrate", calibrate)
    monkeypatch.setattr(checks, "MIN_PATIENTS", 1)
    asked = {
        "calibrate": {
            "attribute": "sex",
            "objective": "gap",
            "budget": 64,
            "images": 8,
            "bounds": [1, 6],
            "against": "reconstructions",
        },
        "curve": None,
    }
    ran = copied.run(asked)
    assert set(ran) == {"default/none-seed0/calibration", "default/none-seed1/calibration"}
    assert [call[:4] for call in calls] == [(f"none-seed{seed}", {"val"}, None, seed) for seed in (0, 1)]
    assert calls[0][4] == {
        "objective": "gap",
        "gap_weight": 1.0,
        "budget": 64,
        "images": 8,
        "steps": 20,
        "bounds": [1, 6],
        "against": "reconstructions",
        "encoder": "efficientnet-lite0@64",
    }
    made = copied.read("synthetic/default/none-seed0/all-gcalibrated/synthetic.parquet")
    assert made.groupby("attr.sex")["guidance"].unique().str[0].to_dict() == {"female": 1.5, "male": 3.0}
    assert set(copied.read("synthetic/default/none-seed1/all-gcommon/synthetic.parquet")["guidance"]) == {2.5}
    assert set(copied.read("quality/contest.parquet")["guidance"]) == {"1", "common", "calibrated"}
    assert copied.run(asked) == []
    (copied.out / "generators/default/none-seed1/calibration.json").unlink()
    assert copied.run(asked) == ["default/none-seed1/calibration"] and len(calls) == 3
    with pytest.raises(InputError, match=r"calibrate: .*budget of 5 images"):
        copied.run({**asked, "calibrate": {**asked["calibrate"], "budget": 5}})


def test_a_job_as_a_process_tells_what_can_be_mended_with_exit_status_2(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(job_process, "end_on_sigterm", lambda: None)
    job = {"out": str(tmp_path), "root": ".", "autoencoder": "shipped", "size": 32, "threads": 1, "steps": []}
    (tmp_path / "job.json").write_text(json.dumps(job))
    assert job_process.main(str(tmp_path / "job.json")) == 2
    assert "This is no saved cohort." in capsys.readouterr().err

    def interrupted(_file):
        raise KeyboardInterrupt

    monkeypatch.setattr(job_process, "run_steps", interrupted)
    assert job_process.main("x") == 143


FLAT = """
import sys
from pathlib import Path

import torch

from equigen.equity import BaseMechanism

with Path(__file__).parent.joinpath("processes.txt").open("a") as file:
    file.write(Path(sys.argv[0]).name)


class Flat(BaseMechanism):
    name = "flat"

    def weights(self, losses, groups, timesteps, images_seen):
        return torch.full_like(losses, 2.0)
"""


def test_jobs_in_processes_of_their_own_load_the_copy_of_a_mechanism_s_file(phantom_folder, tmp_path, monkeypatch):
    folder = ComparisonFolder(phantom_folder, tmp_path)
    (tmp_path / "flat.py").write_text(FLAT)
    folder.values |= {"mechanisms": {"none": {}, "flat": {"mechanism": "flat.py:Flat"}}, "seeds": [0]}
    del folder.values["pretrain"], folder.values["curve"]

    class Processes(Inline):
        def start(self):
            (tmp_path / "flat.py").unlink(missing_ok=True)  # an edit meanwhile changes nothing
            if "flat" in self.job.name:
                done = subprocess.run(self.job.command, cwd="/", capture_output=True, text=True, check=False)
                self.message, self.end = done.stderr, "failed" if done.returncode else "done"
            else:
                super().start()

    monkeypatch.setattr(Here, "submit", lambda _, job, after: Processes(job, after))
    folder.run()
    settings = folder.settings("default/flat-seed0")
    (copy,) = (folder.out / "mechanisms").glob("Flat-*.py")
    assert settings["mechanism"] == f"Flat@{copy.stem[-16:]}" and copy.read_text() == FLAT
    assert "job_process.py" in (copy.parent / "processes.txt").read_text()
    assert len(set(folder.hashes().values())) == 2
    report = json.loads((folder.out / "report" / "report.json").read_text())
    assert report["facts"]["Mechanism flat"] == f"Flat in flat.py, SHA-256 {copy.stem[-16:]}"
    assert "flat" in folder.page.read_text()

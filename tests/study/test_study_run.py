"""A whole study: to its report, skipped when nothing changed, and the same when it was interrupted."""

import json
import shutil
import sys

import pandas as pd
import pytest

from equigen.errors import InputError
from equigen.fairness import Audit
from equigen.files import write_text
from equigen.quality import Evaluation
from equigen.study import run_study

STAGES = {
    "cohort", "latents", "generators/none", "generators/perturbation", "synthetic/none-match",
    "synthetic/none-balanced", "synthetic/perturbation-match", "synthetic/perturbation-balanced", "quality",
    "diagnosis", "fairness",
}  # fmt: skip
TABLES = ("quality/quality.parquet", "diagnosis/predictions.parquet", "fairness/fairness.parquet")


def report_of(study) -> dict:
    return json.loads((study.out / "report" / "report.json").read_text())


def column(table, name) -> set:
    """The values of one column of a table in the report."""
    return {row[table["columns"].index(name)] for row in table["rows"]}


@pytest.fixture
def brief(monkeypatch):
    """A report without its pictures and tables, which take seconds to draw."""

    def write(folder, *, settings, summary_facts, **_rest):
        write_text(folder / "report.json", json.dumps({"settings": settings, "facts": summary_facts}))
        write_text(folder / "index.html", "brief")
        return folder / "index.html"

    monkeypatch.setattr("equigen.study.study.write_report", write)


def test_a_study_ends_with_a_report_of_all_its_parts(finished):
    page = (finished.out / "report" / "index.html").read_text()
    content = report_of(finished)
    assert set(finished.stamps()) == STAGES
    assert content["title"] == "tiny" and content["phantom"] is True
    assert content["facts"]["Cohort"].startswith("tiny: 120 images")
    assert set(content["history"]) == {"none", "perturbation"}
    assert column(content["quality"], "run") == {"none", "perturbation", "reconstruction", "real"}
    found = {"fd", "kd", "precision", "nn_ratio", "semantic_auc", "oracle_accuracy"}
    assert found <= column(content["quality"], "metric")
    copied = [dict(zip(content["quality"]["columns"], row, strict=True)) for row in content["quality"]["rows"]]
    assert not any(row["run"] == "reconstruction" and row["metric"] == "nn_ratio" for row in copied)
    assert column(content["comparison"], "run") == {"perturbation"}
    assert column(content["comparison"], "difference_to") == {"none"}
    assert column(content["copies"], "run") == {"none", "perturbation"}
    recipes = {"real", "real+none@1", "real+perturbation@1"}
    assert column(content["fairness"], "recipe") == recipes
    assert {"auc", "dpd", "deodds"} <= column(content["fairness"], "metric")
    assert {"id", "ood", "all"} <= column(content["fairness"], "domain")
    assert [grid["title"] for grid in content["grids"]] == ["race", "sex", "glaucoma"]
    assert content["grids"][0]["sources"] == ["real", "none", "perturbation"]
    assert content["settings"]["train"]["images"] == 96 and content["counts"]
    assert set(content["timings"]) >= STAGES and all(value >= 0 for value in content["timings"].values())
    for words in ("asian", "perturbation", "oracle", "glaucoma"):
        assert words in page


def test_the_whole_set_has_numbers_and_small_groups_say_so(finished):
    table = pd.read_parquet(finished.out / TABLES[0])
    whole = table[(table["group"] == "*") & table["metric"].isin(["fd", "kd"]) & (table["run"] == "none")]
    assert len(whole) == 2 and whole["estimate"].notna().all()


def test_again_every_stage_is_skipped_and_only_the_report_is_written(copied, brief, capsys):
    before = {path: path.stat().st_mtime_ns for path in copied.out.rglob("*") if path.is_file()}
    stamps = copied.stamps()
    copied.run()
    assert copied.stamps() == stamps and set(stamps) == STAGES
    changed = {path for path, time in before.items() if path.stat().st_mtime_ns != time and path.name != ".lock"}
    assert changed == {copied.out / "report" / name for name in ("index.html", "report.json")}
    assert {path for path in copied.out.rglob("*") if path.is_file()} == set(before)
    assert not (copied.out / "stale").exists()
    assert capsys.readouterr().err.count("nothing changed") == len(STAGES)


def test_a_changed_training_reruns_what_depends_on_it_and_keeps_the_old(copied, brief, monkeypatch):
    table = pd.read_parquet(copied.out / TABLES[0])  # measuring again takes long, and is not what is tested
    measured = Evaluation(table, pd.DataFrame(), pd.DataFrame())
    monkeypatch.setattr("equigen.study.study.evaluate_study", lambda *_: measured)
    audited = Audit(pd.read_parquet(copied.out / TABLES[2]))
    monkeypatch.setattr("equigen.study.study.audit", lambda *_, **__: audited)
    before, old = copied.stamps(), (copied.out / "generators/none/training.json").read_text()
    copied.run({"train.images": 64})
    after = copied.stamps()
    assert {name for name in STAGES if after[name] == before[name]} == {"cohort", "latents"}
    kept = sorted(path.name for path in (copied.out / "stale").iterdir())
    assert [name.rsplit("-", 1)[0] for name in kept] == sorted(
        name.replace("/", "-") for name in STAGES - {"cohort", "latents"}
    )
    stale = next(path for path in (copied.out / "stale").iterdir() if path.name.startswith("generators-none"))
    assert (stale / "training.json").read_text() == old
    assert json.loads((copied.out / "generators/none/training.json").read_text())["images_seen"] == 64
    assert report_of(copied)["settings"]["train"]["images"] == 64


def test_changed_audit_settings_rerun_the_audit_alone(copied, brief):
    before = copied.stamps()
    copied.run({"audit.replicates": 30})
    assert {name for name in STAGES if copied.stamps()[name] != before[name]} == {"fairness"}


def test_a_lost_result_is_made_again_although_its_stage_was_done(copied, brief):
    kept = {name: (copied.out / name).read_bytes() for name in TABLES}
    for name in TABLES:
        (copied.out / name).unlink()
    copied.run()
    for name, content in kept.items():
        assert (copied.out / name).read_bytes() == content


def test_a_damaged_record_is_named_and_its_stage_done_again(copied, brief, capsys):
    before = (copied.out / TABLES[2]).read_bytes()
    (copied.out / "fairness" / "stage.json").write_text("{")
    copied.run()
    told = "".join(capsys.readouterr().err.split())
    assert "fairness/stage.json:thisrecordisdamaged" in told
    assert (copied.out / TABLES[2]).read_bytes() == before


class Cut(BaseException):
    """Not an error that anybody catches."""


def at_call(monkeypatch, owner, name, number):
    """Let one function fail at its n-th call, before it does anything."""
    real, calls = getattr(owner, name), []

    def failing(*args, **rest):
        calls.append(1)
        if len(calls) == number:
            raise Cut(name)
        return real(*args, **rest)

    monkeypatch.setattr(owner, name, failing)


def test_a_study_interrupted_in_every_stage_gives_the_numbers_of_one_that_was_not(finished, study, monkeypatch, brief):
    from equigen.training.loop import Trainer

    modules = sys.modules
    faults = [
        (modules["equigen.latents.cache"].LatentCache, "add", 1),
        (Trainer, "_check_finite", 4),  # after 48 images, the checkpoint is of 32
        (Trainer, "_check_finite", 6),
        (modules["equigen.synthesis.generation"], "write_png", 20),
        (modules["equigen.study.quality"], "evaluate", 1),
        (modules["equigen.diagnosis.experiment"], "_predict", 2),
        (modules["equigen.study.study"], "audit", 1),
        (modules["equigen.study.study"], "write_report", 1),
    ]
    for owner, name, number in faults:
        with monkeypatch.context() as patched:
            at_call(patched, owner, name, number)
            with pytest.raises(Cut, match=name):
                study.run()
        assert not (study.out / "report" / "index.html").exists()
        assert not (study.out / "stale").exists()
    study.run()
    for name in TABLES:
        pd.testing.assert_frame_equal(pd.read_parquet(study.out / name), pd.read_parquet(finished.out / name))
    for name in ("none", "perturbation"):
        first, second = (
            json.loads((side.out / "generators" / name / "training.json").read_text()) for side in (finished, study)
        )
        assert first["generator"] == second["generator"]


def test_time_spent_before_an_interruption_is_counted(tmp_path, monkeypatch):
    from equigen.study import stages

    clock = iter([0.0, 5.0, 100.0, 102.0])
    monkeypatch.setattr(stages.time, "monotonic", lambda: next(clock))
    run = stages.Stages(tmp_path)

    def fail(_place):
        raise Cut

    with pytest.raises(Cut):
        run.run("work", [1], fail)
    run.run("work", [1], lambda place: None)
    assert run.seconds == {"work": 7.0}


def test_image_quality_can_be_kept_to_one_diagnosis(copied, brief):
    before = copied.stamps()
    copied.values["evaluate"]["only"] = {"glaucoma": "healthy"}
    copied.run()
    assert {name for name, when in copied.stamps().items() if before[name] != when} == {"quality"}
    table = pd.read_parquet(copied.out / TABLES[0])
    real = pd.read_parquet(copied.out / "cohort/cohort.parquet").query("split == 'test' and domain == 'id'")
    healthy = int((real["label.glaucoma"] == "healthy").sum())
    whole = table[(table["metric"] == "kd") & (table["group"] == "*")]
    assert set(whole["run"]) == {"none", "perturbation", "reconstruction"} and set(whole["n_real"]) == {healthy}
    assert report_of(copied)["facts"]["Image quality is of"] == "glaucoma healthy alone"
    copied.values["evaluate"]["only"] = {"glaucoma": ["healthi"]}
    with pytest.raises(InputError, match=r"study.yaml: evaluate.only: 'healthi' is no level .*did you mean 'healthy'"):
        copied.run()


def test_several_seeds_name_generators_by_seed_and_a_phantom_may_be_a_stage(study, brief):
    """Also: a generator's name is its key in `mechanisms`, and groups may be chosen."""
    del study.values["cohort"]
    study.values |= {"phantom": {"images": 60, "seed": 2}, "mechanisms": {"plain": {"mechanism": "none"}}}
    study.values |= {"seeds": [1, 7], "audit": {"groups": ["sex"], "replicates": 20, "permutations": 20}}
    study.values["train"] |= {"images": 16}
    study.values["plans"] = {"one": {"policy": "balanced", "size": 6, "steps": 1}}
    study.values["evaluate"] |= {"plan": "one", "groups": []}
    study.values["diagnose"] |= {"plan": "one", "ratios": [1], "images": 16}
    study.run()
    assert set(study.stamps()) == {
        *("phantom", "cohort", "latents", "generators/plain-seed1", "generators/plain-seed7"),
        *("synthetic/plain-seed1-one", "synthetic/plain-seed7-one", "quality", "diagnosis", "fairness"),
    }
    fairness = pd.read_parquet(study.out / TABLES[2])
    assert set(fairness["recipe"]) == {"real+plain-seed1@1", "real+plain-seed7@1"}
    assert set(fairness["attribute"]) == {"*", "sex"}
    assert report_of(study)["facts"]["Generators"] == "plain (2 training seeds)"
    first = (study.out / "generators/plain-seed1/training.json").read_text()
    assert first != (study.out / "generators/plain-seed7/training.json").read_text()


def test_a_cohort_file_gives_the_same_study_as_its_content(copied, brief):
    """The cohort's hash is of its content, so nothing is made again."""
    import yaml

    (copied.place / "cohort.yaml").write_text(yaml.safe_dump(copied.values["cohort"]))
    copied.values["cohort"] = "cohort.yaml"
    before = copied.stamps()
    copied.run()
    assert copied.stamps() == before


def test_bad_rows_stop_a_study_or_are_left_out_and_listed(study, phantom_folder, monkeypatch):
    data = study.place / "data"
    shutil.copytree(phantom_folder, data)
    (data / "images" / "000004.png").write_bytes(b"no image")
    study.values["cohort"] |= {"table": "data/metadata.csv", "image": {"column": "image", "root": "data/images"}}
    with pytest.raises(InputError, match=r"row 6, column 'image': the image '000004.png'"):
        study.run()
    assert not (study.out / "latents").exists()
    monkeypatch.setattr("equigen.study.study.Study.encode", lambda self: (_ for _ in ()).throw(Cut()))
    with pytest.raises(Cut):
        study.run({"quarantine": True})
    sheet = json.loads((study.out / "cohort" / "cohort.json").read_text())
    assert sheet["images"] == 119 and [problem["row"] for problem in sheet["problems"]] == [6]


def test_the_run_folder_is_named_after_the_study(study, monkeypatch):
    monkeypatch.chdir(study.place)
    monkeypatch.setattr("equigen.study.study.Workspace.run", lambda self, work: self.folder)
    assert run_study(study.write()).as_posix() == "runs/tiny"

"""Tables that others made: evaluate, diagnose, audit and report from the command line, and whole studies."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

import equigen as eg
from equigen.cli.commands import app
from equigen.errors import InputError


def call(*words):
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})


def fine(*words) -> str:
    done = call(*words)
    assert done.exit_code == 0, done.output
    return done.stdout


def refused(*words) -> str:
    done = call(*words)
    assert done.exit_code == 2 and "Traceback" not in done.output, done.output
    return done.stderr


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    """70 real images of 35 patients in a table, 40 generated ones in another that has no patient."""
    place, rng = tmp_path_factory.mktemp("sides"), np.random.default_rng(1)
    for name, count in (("real", 70), ("fake", 40)):
        (place / name).mkdir()
        rows = []
        for index in range(count):
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(place / name / f"{index}.png")
            rows.append({"file": f"{name}/{index}.png", "patient": f"p{index // 2}", "sex": "FM"[index // 2 % 2]})
        frame = pd.DataFrame(rows)
        (frame if name == "real" else frame.drop(columns="patient")).to_csv(place / f"{name}.csv", index=False)
    return place


def measured(sides, out, *words, real="real.csv", generated="fake.csv") -> pd.DataFrame:
    fine("evaluate", "--real", sides / real, "--generated", sides / generated, "--out", out, "--replicates", 20, *words)
    return pd.read_parquet(out / "quality.parquet")


def test_evaluate_takes_tables_of_others_and_generated_images_need_no_patient(sides, tmp_path):
    table = measured(sides, tmp_path / "q", "--groups", "sex")
    assert set(table["run"]) == {"fake"}
    assert set(table.loc[table["attribute"] == "sex", "group"]) == {"F", "M", "gap", "es"}
    whole = table[(table["group"] == "*") & (table["metric"] == "kd")].iloc[0]
    assert (whole["n_real"], whole["n_generated"]) == (70, 40) and np.isfinite(whole["estimate"])


def test_a_group_may_have_a_slash_in_its_name(sides, tmp_path):
    frames = {name: pd.read_csv(sides / f"{name}.csv").rename(columns={"sex": "race/ethnicity"})
              for name in ("real", "fake")}  # fmt: skip
    for name, frame in frames.items():
        frame.to_csv(sides / f"{name}-slash.csv", index=False)
    words, tables = ("--metrics", "kd", "--groups", "race/ethnicity"), ("real-slash.csv", "fake-slash.csv")
    table = measured(sides, tmp_path / "q", *words, real=tables[0], generated=tables[1])
    plain = measured(sides, tmp_path / "p", "--metrics", "kd", "--groups", "sex")
    assert set(table.loc[table["attribute"] == "race/ethnicity", "group"]) == {"F", "M", "gap", "es"}
    assert table["estimate"].equals(plain["estimate"])
    predictions().rename(columns={"sex": "race/ethnicity"}).to_csv(tmp_path / "p.csv", index=False)
    words = ("audit", tmp_path / "p.csv", "--truth", "y", "--score", "p", "--patient", "pid", "--replicates", 10)
    fine(*words, "--groups", "race/ethnicity", "--out", tmp_path / "f")
    found = pd.read_parquet(tmp_path / "f" / "fairness.parquet")
    assert set(found.loc[found["attribute"] == "race/ethnicity", "group"]) == {"F", "M", "gap", "worst", "es"}
    fine("report", "--quality", tmp_path / "q" / "quality.parquet", "--fairness", tmp_path / "f" / "fairness.parquet",
         "--out", tmp_path / "r")  # fmt: skip
    assert "race/ethnicity" in (tmp_path / "r" / "index.html").read_text()


def test_evaluate_keeps_to_diagnoses(sides, tmp_path):
    frames = {name: pd.read_csv(sides / f"{name}.csv") for name in ("real", "fake")}
    for name, frame in frames.items():
        frame.assign(dx=["easy", "hard"] * (len(frame) // 2)).to_csv(sides / f"{name}-dx.csv", index=False)
    tables = {"real": "real-dx.csv", "generated": "fake-dx.csv"}
    table = measured(sides, tmp_path / "q", "--metrics", "kd", "--only", "dx=hard", **tables)
    whole = table[table["group"] == "*"].iloc[0]
    assert (whole["n_real"], whole["n_generated"]) == (35, 20) and "only dx hard: 35 of 70" in whole["note"]
    head = ("evaluate", "--out", tmp_path / "r", "--real", sides / "real-dx.csv", "--generated", sides / "fake-dx.csv")
    table = measured(sides, tmp_path / "s", "--only", "dx=hard,easy", "--train", sides / "real.csv", **tables)
    assert not table["metric"].str.startswith("semantic").any()  # dx was read to be kept to, nobody asked for a judge
    assert "'heard' is no level of 'dx' (did you mean 'hard'?)" in refused(*head, "--only", "dx=easy,heard")
    assert "labels.stage: the table has no such column" in refused(*head, "--only", "stage=1")
    for wrong in (["dx"], ["=hard"], ["dx="], ["dx=hard", "--only", "dx=easy"]):
        assert "write a label and its levels once" in refused(*head, "--only", *wrong)


def test_evaluate_takes_other_column_names(sides, tmp_path):
    frame = pd.read_csv(sides / "real.csv").rename(columns={"file": "path", "patient": "pid"})
    frame.to_csv(sides / "named.csv", index=False)
    pd.read_csv(sides / "fake.csv").rename(columns={"file": "path"}).to_csv(sides / "made.csv", index=False)
    words = ("--image", "path", "--patient", "pid")
    table = measured(sides, tmp_path / "a", *words, real="named.csv", generated="made.csv")
    assert set(table["group"]) == {"*"}  # no groups were asked for
    head = ("evaluate", "--out", tmp_path / "b", "--real", sides / "named.csv", "--generated")
    text = refused(*head, sides / "fake.csv")
    assert "image: the table has no such column" in text and "name the column with --image" in text
    text = refused(*head, sides / "made.csv", "--image", "path")
    assert "column 'patient'" in text and "--patient; none: every image is its own patient" in text
    words = ("--image", "path", "--patient", "none")
    own = measured(sides, tmp_path / "c", *words, real="named.csv", generated="made.csv")
    assert (own["n_real"] == 70).any()


def test_the_function_does_all_that_the_command_does_with_paths(sides, phantom_folder, tmp_path):
    options = {"groups": ["sex"], "metrics": ["kd", "coverage"], "replicates": 20, "seed": 3, "repeats": 2}
    words = ("--groups", "sex", "--metrics", "kd,coverage", "--seed", 3, "--repeats", 2)
    command = measured(sides, tmp_path / "q", *words)
    result = eg.evaluate(sides / "real.csv", {"fake": sides / "fake.csv"}, show=False, **options)
    pd.testing.assert_frame_equal(result.table, command, check_dtype=False)
    settings = eg.EvaluateSettings(**options)
    again = eg.evaluate(str(sides / "real.csv"), {"fake": str(sides / "fake.csv")}, settings=settings, show=False)
    pd.testing.assert_frame_equal(again.table, result.table)
    cohort = eg.evaluate(phantom_folder, sides / "fake", [], metrics=["nn_ratio"], labels=[], replicates=20,
                         min_patients=5, size=32, show=False)  # fmt: skip
    assert cohort.overall["nn_ratio"].notna().all()  # the cohort's path brought its training images
    with pytest.raises(InputError, match=r"no such column.*--image .in Python image=."):
        eg.evaluate(sides / "real.csv", sides / "fake.csv", image="picture", show=False)


def test_the_help_of_options_is_the_description_of_their_settings():
    for command, model in (("evaluate", eg.EvaluateSettings), ("audit", eg.AuditSettings)):
        text = " ".join(call(command, "--help").stdout.replace("│", " ").split())
        for name, field in model.model_fields.items():
            if name not in {"kinds", "permutations"} and not (command == "audit" and name == "replicates"):
                start = field.description.split(".")[0].replace("`", "").replace("[", "\\[")
                assert f"--{name.replace('_', '-')}" in text and start[1:].replace("\\[", "[") in text, name


def test_evaluate_takes_bare_folders_a_cohort_and_a_synthetic_set(sides, phantom_folder, finished_set, tmp_path):
    assert set(measured(sides, tmp_path / "a", real="real", generated="fake")["group"]) == {"*"}
    table = measured(sides, tmp_path / "b", real=phantom_folder, generated=finished_set)
    assert {"*", "race", "sex", "race & sex"} == set(table["attribute"])  # all that both have
    assert {"nn_ratio", "semantic_auc"} <= set(table["metric"])  # the cohort brings its training split and labels
    head = ("evaluate", "--out", tmp_path / "c", "--generated", sides / "fake.csv")
    text = refused(*head, "--real", sides / "real", "--groups", "sex")
    assert "A folder of images has no groups" in text and "give a table with these columns" in text


def test_evaluate_compares_sets_looks_for_copies_and_writes_a_report(sides, tmp_path):
    draws = np.random.default_rng(7)
    diagnosed = pd.read_csv(sides / "real.csv").assign(dx=lambda rows: np.where(rows.index % 3, "well", "ill"))
    diagnosed.to_csv(sides / "held.csv", index=False)
    owners = [f"t{row}" for row in range(40)]
    trained_on = pd.read_csv(sides / "fake.csv").assign(patient=owners, dx=draws.choice(["well", "ill"], 40))
    trained_on.to_csv(sides / "train.csv", index=False)
    trained_on.drop(columns="patient").to_csv(sides / "stolen.csv", index=False)  # the training images themselves
    (sides / "own").mkdir()
    for index in range(40):
        pixels = draws.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(sides / "own" / f"{index}.png")
    names = [f"own/{index}.png" for index in range(40)]
    trained_on.drop(columns="patient").assign(file=names).to_csv(sides / "asked.csv", index=False)
    out = tmp_path / "q"
    options = ("--train", sides / "train.csv", "--labels", "dx", "--generated", f"theirs={sides / 'stolen.csv'}")
    more = ("--encoder", "efficientnet-lite0@32", "--no-intersections", "--matched-n", 8)
    table = measured(sides, out, "--groups", "sex", *options, *more, real="held.csv", generated="asked.csv")
    assert list(dict.fromkeys(table["run"])) == ["asked", "theirs"] and not table["attribute"].str.contains("&").any()
    whole = table[table["group"] == "*"].set_index(["run", "metric"])["estimate"]
    assert whole["theirs", "near_copies"] == 1 and whole["theirs", "nn_ratio"] == 0
    assert whole["asked", "near_copies"] < 1 and whole["asked", "nn_ratio"] > 0.5
    difference = pd.read_parquet(out / "comparison.parquet").set_index(["run", "metric", "group"])
    found = difference.loc[("theirs", "near_copies", "*"), "difference"]
    assert found == pytest.approx(1 - whole["asked", "near_copies"])
    copies = pd.read_parquet(out / "copies.parquet")
    first = copies[(copies["run"] == "theirs") & (copies["rank"] == 1)].iloc[0]
    assert first["distance"] == 0 and Path(first["generated"]) == Path(first["training"]) and first["near_copy"]
    page = (out / "report" / "index.html").read_text()
    assert str(sides) not in page + (out / "report" / "report.json").read_text()  # names of files, not where they lie
    assert "theirs" in page and "near copy" in page and "Memorisation" in page
    text = refused(
        "evaluate",
        "--out",
        out,
        "--real",
        sides / "held.csv",
        "--generated",
        sides / "asked.csv",
        "--generated",
        sides / "asked.csv",
    )
    assert "'asked' names two sets" in text and "--generated other=" in text
    text = refused(
        "evaluate",
        "--out",
        out,
        "--real",
        sides / "held.csv",
        "--generated",
        sides / "asked.csv",
        "--metrics",
        "kd,beauty",
    )
    assert "beauty" in text and "near_copies" in text


@pytest.fixture(scope="module")
def finished_set(phantom_folder, generator, tmp_path_factory):
    out = tmp_path_factory.mktemp("set") / "s"
    fine("generate", generator.folder, "--cohort", phantom_folder, "--out", out, "--steps", 1, "--size", 32)
    return out


def test_evaluate_names_what_is_wrong(sides, tmp_path):
    head = ("evaluate", "--out", tmp_path / "q", "--generated", sides / "fake.csv", "--real")
    assert "nowhere: not found (check the path)" in refused(*head, sides / "nowhere")
    assert "rael.csv: there is no such table (did you mean 'real.csv'?)" in refused(*head, sides / "rael.csv")
    assert "is neither a table (.csv, .tsv, .parquet), a cohort.yaml nor" in refused(*head, sides / "real" / "0.png")
    assert "attributes.age: the table has no such column" in refused(*head, sides / "real.csv", "--groups", "age")
    frame = pd.read_csv(sides / "real.csv").replace({"sex": {"F": "female"}})
    frame.to_csv(sides / "other.csv", index=False)
    text = refused(*head, sides / "other.csv", "--groups", "sex")
    assert "level 'F' of the generated images is not listed (levels: M, female)" in text
    assert not (tmp_path / "q" / "quality.parquet").exists()


def predictions() -> pd.DataFrame:
    rng = np.random.default_rng(2)
    truth = rng.integers(0, 2, 160)
    return pd.DataFrame(
        {
            "pid": [f"p{index // 2}" for index in range(160)],
            "y": truth,
            "p": np.clip(truth * 0.3 + rng.uniform(0, 0.7, 160), 0, 1),
            "sex": ["F", "F", "M", "M"] * 40,
            "hospital": ["a"] * 80 + ["b"] * 80,
        }
    )


def test_audit_takes_a_users_table_and_report_takes_tables_alone(tmp_path, sides):
    predictions().to_csv(tmp_path / "p.csv", index=False)
    words = ("audit", tmp_path / "p.csv", "--truth", "y", "--score", "p", "--patient", "pid", "--site", "hospital")
    out = fine(*words, "--groups", "sex", "--out", tmp_path / "f", "--replicates", 30)
    assert "hospital" not in out and str(tmp_path / "f" / "fairness.parquet") in out
    table = pd.read_parquet(tmp_path / "f" / "fairness.parquet")
    assert {"all", "a", "b"} <= set(table["domain"])
    auc = table[(table["metric"] == "auc") & (table["domain"] == "all")].set_index("group")
    assert {"*", "F", "M", "gap", "es"} <= set(auc.index) and auc.loc["*", "n"] == 160
    page = fine("report", "--fairness", tmp_path / "f" / "fairness.parquet", "--out", tmp_path / "r", "--title", "Mine")
    assert page.strip() == str(tmp_path / "r" / "index.html")
    content = json.loads((tmp_path / "r" / "report.json").read_text())
    assert content["title"] == "Mine" and content["quality"] is None and len(content["fairness"]["rows"]) == len(table)


def test_audit_and_report_name_what_is_wrong(tmp_path):
    predictions().to_csv(tmp_path / "p.csv", index=False)
    text = refused("audit", tmp_path / "p.csv", "--out", tmp_path / "f", "--groups", "sex")
    assert "column 'truth'" in text and "column 'probability'" in text
    words = ("audit", tmp_path / "p.csv", "--truth", "y", "--score", "p", "--patient", "pid", "--out", tmp_path / "f")
    assert "no column starts with 'attr.' and no groups were named" in refused(*words)
    assert "nothing.csv" in refused("audit", tmp_path / "nothing.csv", "--out", tmp_path / "f")
    assert "give --quality, --fairness or both" in refused("report", "--out", tmp_path / "r")
    assert "no such file" in refused("report", "--out", tmp_path / "r", "--quality", tmp_path / "q.parquet")
    assert "p.csv: is no readable" in refused("report", "--out", tmp_path / "r", "--quality", tmp_path / "p.csv")
    assert not (tmp_path / "r").exists() and not (tmp_path / "f").exists()


def test_audit_reads_words_and_keeps_to_a_diagnosis(tmp_path):
    table = predictions().assign(y=lambda t: t["y"].map({0: "benign", 1: "malignant"}))
    table["dx"] = ["nv" if row % 4 else "mel" for row in range(len(table))]
    table.loc[::8, "sex"] = "prefer not to say"
    table.to_csv(tmp_path / "p.csv", index=False)
    words = ("audit", tmp_path / "p.csv", "--truth", "y", "--score", "p", "--patient", "pid", "--site", "hospital",
             "--groups", "sex", "--out", tmp_path / "f", "--replicates", 10)  # fmt: skip
    assert "--positive 'malignant'" in refused(*words)
    more = ("--positive", "malignant", "--only", "dx=nv", "--unknown", "9,Prefer not to say", "--site", "none")
    out = fine(*words, *more)
    assert "note: only dx nv: 40 of 160 rows are left out" in out
    assert "note: truth: 'malignant' is 1, benign is 0" in out
    found = pd.read_parquet(tmp_path / "f" / "fairness.parquet")
    assert set(found["domain"]) == {"all"} and set(found["group"]) == {"*", "F", "M", "gap", "worst", "es"}
    assert found.loc[found["group"] == "*", "note"].str.contains("40 of 160 rows are left out").all()
    assert "no row has 'nevus'" in refused(*words, *more, "--only", "sex=nevus")
    assert "--only cannot be read" in refused(*words, "--only", "dx")


def test_diagnose_on_real_and_on_real_and_synthetic(phantom_folder, finished_set, tmp_path):
    words = ("diagnose", phantom_folder, "--images", 32, "--size", 32)
    fine(*words, "--out", tmp_path / "a")
    assert set(pd.read_parquet(tmp_path / "a" / "predictions.parquet")["recipe"]) == {"real"}
    fine(*words, "--out", tmp_path / "b", "--synthetic", finished_set, "--ratios", "0.5", "--seeds", "1,2")
    made = pd.read_parquet(tmp_path / "b" / "predictions.parquet")
    assert set(made["recipe"]) == {"real+synthetic@0.5"} and set(made["seed"]) == {1, 2}
    assert "give --synthetic, or leave --ratios out" in refused(*words, "--out", tmp_path / "c", "--ratios", "0,1")
    assert "--seeds cannot be read" in refused(*words, "--out", tmp_path / "c", "--seeds", "one")
    assert "--seeds cannot be read" in refused(*words, "--out", tmp_path / "c", "--seeds", "")
    assert "there is no label 'dx' (labels are: glaucoma)" in refused(*words, "--out", tmp_path / "c", "--label", "dx")


def test_run_and_demo_pass_their_options_on(tmp_path, monkeypatch):
    seen, integrity = [], []

    def fake(path, out, overrides, **rest):
        seen.append((path.name, out, overrides))
        integrity.append(rest)
        return tmp_path / "index.html"

    monkeypatch.setattr("equigen.study.run_study", fake)
    (tmp_path / "study.yaml").write_text("name: s\ncohort: {labels: {dx: {}}}\n")
    sets = ("--set", "train.images=50", "--set", "seeds=[0,1]", "--set", "cohort.labels.dx.levels=[no, yes]")
    assert fine("run", tmp_path / "study.yaml", "--out", tmp_path / "r", *sets).strip() == str(tmp_path / "index.html")
    fine("demo", "--set", "name=7")
    changed = {"train.images": 50, "seeds": [0, 1], "cohort.labels.dx.levels": ["no", "yes"]}
    assert seen[0] == ("study.yaml", tmp_path / "r", changed)
    assert seen[1][0] == "demo.yaml" and seen[1][1].name == "equigen-demo" and seen[1][2] == {"name": "7"}
    for command in (("run", tmp_path / "study.yaml"), ("demo",)):
        fine(*command, "--verify")
        fine(*command, "--accept")
    assert integrity[:2] == [{"verify": False, "accept": False}] * 2
    assert integrity[2:] == [{"verify": True, "accept": False}, {"verify": False, "accept": True}] * 2
    assert "'train.images' (write --set key=value)" in refused("run", "s.yaml", "--set", "train.images")
    assert "'=5' (write --set key=value)" in refused("run", "s.yaml", "--set", "=5")
    assert "'seeds=[0' is no YAML" in refused("run", "s.yaml", "--set", "seeds=[0")


def test_a_reduced_demo_runs_to_its_page(tmp_path):
    small = {
        "phantom.images": 60, "size": 32, "train.images": 16, "train.batch": 16, "mechanisms": "{none: {}}",
        "plans.match": "{policy: match, size: 6, steps: 1}", "plans.balanced": "{policy: balanced, size: 6, steps: 1}",
        "evaluate.encoder": "efficientnet-lite0@64", "evaluate.replicates": 20, "diagnose.images": 16,
        "diagnose.width": 8, "audit.replicates": 20, "audit.permutations": 20, "evaluate.groups": "[]",
        "audit.groups": "[]",
    }  # fmt: skip
    sets = [word for key, value in small.items() for word in ("--set", f"{key}={value}")]
    page = fine("demo", "--out", tmp_path / "demo", *sets).strip()
    assert page == str(tmp_path / "demo" / "report" / "index.html")
    assert "artificial image model" in (tmp_path / "demo" / "report" / "index.html").read_text()
    shutil.rmtree(tmp_path / "demo" / "report")


@pytest.fixture(scope="module")
def kept(generator, phantom_cohort, tmp_path_factory):
    """A generator without its checkpoint, and a saved cohort."""
    place = tmp_path_factory.mktemp("kept")
    shutil.copytree(generator.folder, place / "g", ignore=shutil.ignore_patterns("checkpoint*"))
    phantom_cohort.save(place / "c")
    return place


@pytest.mark.parametrize("how", ["cut", "flip"])
@pytest.mark.parametrize("name", [
    "g/model_index.json", "g/trained_on.parquet", "g/training.json", "g/unet/config.json", "c/cohort.json",
    "c/cohort.parquet",
])  # fmt: skip
def test_a_damaged_file_of_a_generator_or_cohort_is_named(kept, name, how, tmp_path):
    file = kept / name
    data = file.read_bytes()
    spot = data.index(b"{") if name == "g/training.json" else len(data) // 3
    flipped = data[:spot] + bytes([data[spot] ^ 4]) + data[spot + 1 :]
    try:
        file.write_bytes(data[: len(data) // 2] if how == "cut" else flipped)
        words = ("generate", kept / "g", "--cohort", kept / "c", "--out", tmp_path / "s", "--size", 2, "--steps", 1)
        text = refused(*words)
        assert str(file) in text or (str(file.parent) in text and file.parent.name == "unet"), text
    finally:
        file.write_bytes(data)
    assert not list(tmp_path.rglob("*.png"))


def test_a_study_of_bad_settings_ends_with_status_two(tmp_path):
    (tmp_path / "study.yaml").write_text("name: x\nphantom: {images: 100}\nmechanisms: {fair: {}}\n")
    text = refused("run", tmp_path / "study.yaml", "--out", tmp_path / "r")
    assert "study.yaml: mechanisms.fair: there is no mechanism 'fair'" in text and not (tmp_path / "r").exists()

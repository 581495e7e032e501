"""Roles, levels, findings, bins, counts, prompts and files of a cohort."""

import io
import json

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from equigen.cohort import SPLITS, Cohort, print_counts
from equigen.errors import InputError


def test_frame_follows_the_contract(tree):
    tree.fill().add("p9", sex="", age="unknown", dx="", site="")
    cohort = tree.read()
    assert list(cohort.frame) == [
        "row", "image", "path", "sha256", "patient", "site", "split", "domain",
        "label.dx", "attr.sex", "attr.age",
    ]  # fmt: skip
    last = cohort.frame.iloc[-1]
    assert last[["site", "label.dx", "attr.sex", "attr.age"]].tolist() == [None] * 4
    assert last["row"] == 8 and last["image"] == "images/6.png"
    assert last["path"] == str(tree.root / "images/6.png")
    assert len(last["sha256"]) == 64 and set(cohort.frame["domain"]) == {"id"}
    assert cohort.frame["attr.sex"].tolist()[:4] == ["female", "female", "male", "male"]
    assert cohort.labels["dx"].levels == ["nv", "mel"] and cohort.labels["dx"].high_risk == ["mel"]
    assert not cohort.phantom and len(cohort) == 7


def test_bins_are_half_open_and_the_last_is_closed(tree):
    for index, age in enumerate(["0", "39.9", "40", "59", "60", "120", "60.0"]):
        tree.add(f"p{index}", age=age)
    cohort = tree.read()
    assert cohort.groups("age").tolist() == [0, 0, 1, 1, 2, 2, 2]
    assert cohort.attributes["age"].levels == ["under 40", "40 to 59", "60 and over"]


def test_multiclass_and_binary_targets(tree):
    tree.add("a", dx="mel"), tree.add("b", dx="nv"), tree.add("c", dx="")
    truth, names = tree.read().targets("dx")
    assert names == ["nv", "mel"] and truth.dtype == np.float32
    np.testing.assert_array_equal(truth, [[0, 1], [1, 0], [np.nan, np.nan]])
    tree.spec["labels"]["dx"] = {"kind": "binary", "column": "dx", "levels": ["nv", "mel"]}
    truth, names = tree.read().targets("dx")
    assert names == ["mel"]
    np.testing.assert_array_equal(truth, [[1], [0], [np.nan]])


def findings(tree, **more):
    levels = {"Edema": "oedema", "Mass": "mass"}
    tree.spec["labels"] = {"f": {"kind": "multilabel", "column": "f", "levels": levels, **more}}
    tree.spec["prompt"] = "X-ray of a {sex} patient with {f}"


def test_findings(tree):
    findings(tree)
    for index, cell in enumerate(["Mass|Edema", "No Finding", "Edema", ""]):
        tree.add(f"p{index}", f=cell)
    cohort = tree.read()
    assert cohort.frame["label.f"].tolist() == ["oedema|mass", "", "oedema", None]
    truth, names = cohort.targets("f")
    assert names == ["oedema", "mass"]
    np.testing.assert_array_equal(truth, [[1, 1], [0, 0], [1, 0], [np.nan, np.nan]])
    prompts = [cohort.prompt(row) for row in cohort.frame.to_dict("records")]
    assert [text.removeprefix("X-ray of a female patient with ") for text in prompts] == [
        "oedema, mass", "no finding", "oedema", "unknown",
    ]  # fmt: skip


def test_unlisted_and_contradicting_findings(tree):
    findings(tree)
    tree.add("p0", f="Edema|Nodule"), tree.add("p1", f="No Finding|Mass"), tree.add("p2", f="Mass")
    text = str(tree.refused())
    assert "row 2, column 'f': unknown level 'Nodule' for label 'f'" in text and "others: ignore" in text
    assert "row 3, column 'f': 'No Finding|Mass' says both nothing and something" in text
    findings(tree, others="ignore")
    assert {problem.row for problem in tree.refused().problems} == {3}
    assert tree.read(quarantine=True).frame["label.f"].tolist() == ["oedema", "mass"]


def test_other_separator_and_levels_from_the_table(tree):
    tree.spec["labels"] = {"f": {"kind": "multilabel", "column": "f", "separator": ";", "none": ["-"]}}
    del tree.spec["prompt"]
    tree.add("p0", f="b; a"), tree.add("p1", f="-")
    cohort = tree.read()
    assert cohort.labels["f"].levels == ["a", "b"] and cohort.frame["label.f"].tolist() == ["a|b", ""]


def test_levels_collapse_and_order_and_spelling(tree):
    tree.spec["attributes"] = {
        "skin": {"column": "skin", "levels": {"5": "dark", "6": "dark", "1": "light"}},
        "found": {"column": "found"},
    }
    tree.spec["prompt"] = None
    for index, (skin, found) in enumerate([("5.0", "10"), ("6", "9"), (" 1 ", "10"), ("", "")]):
        tree.add(f"p{index}", skin=skin, found=found)
    cohort = tree.read()
    assert cohort.attributes["skin"].levels == ["dark", "light"]
    assert cohort.groups("skin").tolist() == [0, 0, 1, -1]
    assert cohort.attributes["found"].levels == ["9", "10"]


def test_yaml_words_stay_as_they_are_written(tree):
    path = tree.fill().write()
    for row in tree.rows:
        row["flag"] = "No" if row["sex"] == "F" else "Yes"
    tree.header.append("flag")
    tree.write()
    flag = "attributes:\n  flag: {column: flag, levels: {No: no, Yes: 1}}\n"
    path.write_text(path.read_text().replace("attributes:\n", flag))
    assert Cohort.read(path, show_progress=False).attributes["flag"].levels == ["no", "1"]


def test_image_folders_suffix_template_and_patient_pattern(tree):
    tree.image("part1/a.png"), tree.image("part2/b.png"), tree.image("part2/patient_7/x_1.png")
    tree.spec["image"] = {"column": "file", "folders": ["part1", "part2"], "suffix": ".png"}
    tree.spec["patient"] = {"column": "pid", "pattern": r"(patient\d+)"}
    tree.spec["split"] = {"column": "@folder", "values": {"part1": "train", "part2": "test"}}
    tree.add("CheX/patient01/study1", file="a"), tree.add("CheX/patient02/study1", file="b")
    cohort = tree.read()
    assert cohort.frame["image"].tolist() == ["part1/a.png", "part2/b.png"]
    assert cohort.frame["patient"].tolist() == ["patient01", "patient02"]
    assert cohort.frame["split"].tolist() == ["train", "test"]
    tree.add("other", file="patient_7/x_1")
    assert "row 4, column 'pid': 'other' does not match" in str(tree.refused())
    tree.rows.pop(), tree.rows.pop(0)
    tree.spec["image"] = {"template": "part2/patient_{site}/x_{dx}.png"}
    tree.rows[0].update(site="7", dx="1")
    tree.spec["labels"]["dx"]["levels"] = ["0", "1"]
    tree.spec["labels"]["dx"]["high_risk"] = []
    tree.spec["split"] = {"fractions": {"test": 1}}
    assert tree.read().frame["image"].tolist() == ["part2/patient_7/x_1.png"]


def test_values_inside_the_images_npz(tree):
    tree.spec.update(labels={"g": {"kind": "binary", "column": "@npz:glaucoma", "levels": {"0": "no", "1": "yes"}}})
    tree.spec.update(attributes={"race": {"column": "@npz:race", "levels": ["0", "1"]}}, prompt=None)
    picture = np.zeros((4, 4), dtype=np.uint8)
    objects = np.array([{}], dtype=object)
    for index, race in enumerate([np.array(1), np.array(0.0), np.array(-1), objects, np.array([1, 2]), None]):
        members = {} if race is None else {"race": race}
        np.savez(tree.root / f"{index}.npz", slo_fundus=picture + index, glaucoma=np.array(index % 2), **members)
        tree.add(f"p{index}", file=f"{index}.npz")
    row = tree.add("p9", file=tree.image("x.png"))
    tree.spec["missing"] = ["-1"]
    error = tree.refused()
    assert {problem.row for problem in error.problems} == {5, 6, 7, row}
    assert "row 5, column '@npz:race': 'race' in '3.npz' is no single plain value" in str(error)
    assert "row 7, column '@npz:race': '5.npz' has no 'race'" in str(error)
    cohort = tree.read(quarantine=True)
    assert cohort.frame["attr.race"].tolist() == ["1", "0", None]
    assert cohort.frame["label.g"].tolist() == ["no", "yes", "no"]


@pytest.mark.parametrize("kind", ["tsv", "parquet"])
def test_other_kinds_of_table_give_the_same_cohort(tree, kind):
    expected = tree.fill().read()
    table = pd.read_csv(tree.root / "metadata.csv")
    path = tree.root / f"t.{kind}"
    table.to_csv(path, sep="\t", index=False) if kind == "tsv" else table.to_parquet(path)
    tree.spec["table"] = path.name
    assert tree.read().hash == expected.hash


def test_round_trip_and_hash(tree, tmp_path_factory):
    tree.fill().add("p9", sex="")
    tree.add("p10", file="images/none.png")
    tree.add("p11", file=tree.image("x.png", seed=1)), tree.add("p12", file=tree.image("y.png", seed=1))
    cohort = tree.read(quarantine=True)
    out = tmp_path_factory.mktemp("saved")
    again = Cohort.load(cohort.save(out))
    pd.testing.assert_frame_equal(again.frame, cohort.frame)
    assert again.hash == cohort.hash and again.spec == cohort.spec and again.labels == cohort.labels
    assert again.quarantined == cohort.quarantined and again.warnings == cohort.warnings != []
    assert again.frame["attr.sex"].tolist()[6] is None
    sheet = json.loads((out / "cohort.json").read_text())
    assert sheet["quarantined"] == 1 and sheet["images"] == 9 and sheet["equigen"]
    assert sheet["counts"][0]["images"] == (cohort.frame["split"] == "train").sum()
    moved = Cohort.load(out, root="elsewhere")
    assert moved.frame["path"][0] == "elsewhere/images/0.png" and moved.hash == cohort.hash
    assert tree.read(quarantine=True).hash == cohort.hash != cohort.split("train").hash


def test_files_of_two_runs_are_refused(tree, tmp_path_factory):
    cohort, out = tree.fill().read(), tmp_path_factory.mktemp("saved")
    cohort.save(out)
    cohort.split("train").frame.to_parquet(out / "cohort.parquet", index=False)
    with pytest.raises(InputError, match="do not belong together"):
        Cohort.load(out)
    (out / "cohort.json").unlink()
    with pytest.raises(InputError, match="run the cohort stage"):
        Cohort.load(out)


def test_subsets_and_wrong_words(tree):
    tree.fill(8).spec["split"]["ood"] = ["b"]
    cohort = tree.read()
    assert len(cohort.split(*SPLITS)) == 8 and len(cohort.split("test", domain="ood")) == 4
    assert sorted([len(cohort.split("train")), len(cohort.split("test", domain="id"))]) == [1, 3]
    assert cohort.where(cohort.groups("sex") == 0).frame["attr.sex"].unique().tolist() == ["female"]
    with pytest.raises(InputError, match="did you mean 'test'"):
        cohort.split("tests")
    with pytest.raises(InputError, match="there is: 'sex', 'age'"):
        cohort.groups("race")


def test_counts_by_hand(tree):
    tree.spec["split"] = {"fractions": {"test": 1.0}}
    tree.add("a", dx="mel", sex="F"), tree.add("a", dx="nv", sex="F"), tree.add("a", dx="nv", sex="F")
    tree.add("b", dx="nv", sex="M"), tree.add("c", dx="nv", sex="")
    cohort = tree.read()
    counts = cohort.counts("sex", small=2).set_index(["label", "level", "group"])
    assert set(counts["split"]) == {"test"} and set(counts["attribute"]) == {"sex"}
    assert counts.loc[("dx", "nv", "female"), ["images", "patients", "small"]].tolist() == [2, 1, True]
    assert counts.loc[("dx", "mel", "male"), ["images", "patients"]].tolist() == [0, 0]
    assert counts.loc[("*", "*", "female"), ["images", "patients"]].tolist() == [3, 1]
    assert counts.loc[("dx", "nv", "unknown"), "images"] == 1
    whole = cohort.counts(small=2)
    whole = whole[(whole["attribute"] == "*") & (whole["level"] == "nv")]
    assert whole[["images", "patients", "small"]].to_numpy().tolist() == [[4, 3, False]]


def test_printed_counts_mark_small_cells(tree):
    tree.fill().add("p9", file="images/none.png")
    page = io.StringIO()
    print_counts(tree.read(quarantine=True), Console(width=160, file=page), small=4)
    text = page.getvalue()
    assert "by sex" in text and "60 and over" in text and "3 (3)*" in text
    assert "* fewer than 4 patients" in text and "1 rows are in quarantine" in text


def test_prompt_needs_no_trust_in_values(tree):
    cohort = tree.fill().read()
    assert cohort.prompt({"sex": "{age}", "age": "old", "dx": "nv"}) == "A {age} patient aged old with nv"
    assert cohort.prompt({"attr.sex": "male", "attr.age": None, "label.dx": float("nan")}) == (
        "A male patient aged unknown with unknown"
    )
    tree.spec["prompt"] = None
    assert tree.read().prompt({"sex": "male"}) is None


def test_from_table_and_folder(tree):
    tree.fill().write()
    table = tree.root / "metadata.csv"
    cohort = Cohort.from_table(table, ["sex"], patient="pid", show_progress=False)
    assert cohort.groups("sex").tolist() == [0, 0, 1, 1, 0, 0] and set(cohort.frame["split"]) == {"test"}
    assert cohort.labels == {} and cohort.attributes["sex"].levels == ["F", "M"]
    alone = Cohort.from_table(table, {"gender": "sex"}, patient=None, show_progress=False)
    assert alone.frame["patient"].tolist() == alone.frame["image"].tolist() and "attr.gender" in alone.frame
    with pytest.raises(InputError, match=r"column 'patient'.*no such column"):
        Cohort.from_table(table, show_progress=False)
    folder = Cohort.from_table(tree.root / "images", show_progress=False)
    assert folder.frame["image"].tolist() == [f"{index}.png" for index in range(6)]
    assert len(folder.counts()) == 1
    with pytest.raises(InputError, match="give a table"):
        Cohort.from_table(tree.root / "images", ["sex"])
    (tree.root / "empty").mkdir()
    with pytest.raises(InputError, match="no image"):
        Cohort.from_table(tree.root / "empty")


def test_from_spec_takes_numbers_but_no_bare_truth_values(tree):
    tree.fill().write()
    age = {"column": "age", "levels": {20: "a", 30: "b"}}
    spec = {**tree.spec, "site": None, "attributes": {"age": age}, "prompt": None}
    with pytest.raises(InputError) as caught:
        Cohort.from_spec(spec, tree.root, source="study.yaml", show_progress=False)
    assert {problem.row for problem in caught.value.problems} == {4, 5, 6, 7}
    spec["attributes"] = {"x": {"column": "sex", "levels": {False: "female", "M": "male"}}}
    with pytest.raises(InputError, match=r"study.yaml: attributes.x.*write it in quotes"):
        Cohort.from_spec(spec, tree.root, source="study.yaml", show_progress=False)

"""What a cohort tells of people whom it describes in two ways, and of files that are the same."""

import json

import pandas as pd

from equigen.cohort.persons import same_files, same_files_note


def told(cohort) -> list[str]:
    messages = [problem.message for problem in cohort.warnings]
    return [message for message in messages if " patients have " in message or " patient has " in message]


def small(tree):
    tree.spec["split"] = {"fractions": {"test": 1.0}}
    tree.spec["attributes"]["age"] = {"column": "age", "bins": [0, 20, 40, 60, 120]}
    return tree


def test_two_sexes_of_one_patient_are_told_and_kept_in_the_sheet(tree, tmp_path):
    small(tree)
    for patient in ("p1", "p2", "p3", "p4", "p5"):
        tree.add(patient, sex="F")
        tree.add(patient, sex="F" if patient == "p5" else "M")
    cohort = tree.read()
    expected = (
        "4 patients have different sex: 'p1' (female and male), 'p2' (female and male), 'p3' (female and male) "
        "and 1 more"
    )
    assert told(cohort) == [expected] and len(cohort) == 10
    cohort.save(tmp_path / "out")
    assert expected in [item["message"] for item in json.loads((tmp_path / "out/cohort.json").read_text())["warnings"]]


def test_ages_may_pass_one_bin_and_no_more(tree):
    small(tree)
    for patient, ages in {"near": ("19", "21"), "far": ("19", "41"), "long": ("19", "30", "59")}.items():
        for age in ages:
            tree.add(patient, age=age)
    assert told(tree.read()) == [
        "2 patients have different age: 'far' (0 to 20 and 40 to 60), 'long' (0 to 20 and 20 to 40 and 40 to 60)"
    ]


def test_ages_of_one_patient_more_than_twenty_years_apart_are_told_within_neighbouring_bins_too(tree):
    small(tree).spec["attributes"]["age"]["bins"] = [0, 40, 80, 120]
    for patient, ages in {"slow": ("39", "59"), "quick": ("39", "41", "60"), "same": ("41", "79")}.items():
        for age in ages:
            tree.add(patient, age=age)
    for patient, age in (("far", "10"), ("far", "90"), ("lost", "20"), ("lost", "")):  # the groups tell of "far"
        tree.add(patient, age=age)
    assert told(tree.read()) == [
        "1 patient has different age: 'far' (0 to 40 and 80 to 120)",
        "2 patients have values of age more than 20 years apart: 'quick' (39 to 60), 'same' (41 to 79)",
    ]


def test_numbers_that_are_no_ages_may_span_anything(tree):
    small(tree).spec["attributes"]["age"]["bins"] = [0, 400, 800]
    tree.add("p1", age="39")
    tree.add("p1", age="390")
    assert told(tree.read()) == []


def test_two_sites_are_told(tree):
    small(tree).add("p1", site="a")
    tree.add("p1", site="b")
    tree.add("p2", site="b")
    assert told(tree.read()) == ["1 patient has different sites: 'p1' (a and b)"]


def test_unknown_values_contradict_nothing(tree):
    small(tree).add("p1", sex="F", age="30", site="")
    tree.add("p1", sex="unknown", age="", site="b")
    assert told(tree.read()) == []


def test_without_patients_nobody_contradicts_himself(tree):
    small(tree).spec["patient"] = None
    tree.add("p1", sex="F")
    tree.add("p1", sex="M")
    assert told(tree.read()) == []


def test_same_files_by_hand():
    one = pd.DataFrame({"image": ["a", "b", "c", "d"], "sha256": ["1", "2", "", "3"]})
    two = pd.DataFrame({"path": ["x", "y", "z"], "sha256": ["3", "1", ""]})
    found = same_files(one, two)
    assert found[["image", "same_as"]].to_numpy().tolist() == [["a", "y"], ["d", "x"]]
    assert same_files_note(one, two, "generated images", "real images") == (
        "2 of 4 generated images are byte for byte real images: 'a' is 'y', 'd' is 'x'"
    )
    assert same_files_note(one.iloc[1:3], two, "generated images", "real images") == ""

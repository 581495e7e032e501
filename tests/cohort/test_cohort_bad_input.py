"""Every bad input is named with its row, its column and the mend, and can be put into quarantine."""

import shutil

import pandas as pd
import pytest

from equigen.cohort import Cohort
from equigen.errors import InputError


def one(error: InputError, row: int | None, column: str | None, *words: str) -> None:
    """The error holds a problem at this place whose text has all the words."""
    here = [str(item) for item in error.problems if item.row == row and item.column == column]
    assert here, str(error)
    assert any(all(word in text for word in words) for text in here), here
    if row is not None:
        assert f"row {row}" in here[0] and f"column '{column}'" in here[0]


def test_all_problems_come_together_and_quarantine_goes_on(tree):
    tree.fill()
    level, age = tree.add("p6", sex="X"), tree.add("p7", age="130")
    gone, nobody = tree.add("p8", file="images/gone.png"), tree.add("")
    error = tree.refused()
    assert {item.row for item in error.problems} == {level, age, gone, nobody}
    assert "4 problems" in str(error)
    cohort = tree.read(quarantine=True)
    assert sorted(cohort.frame["row"]) == [2, 3, 4, 5, 6, 7]
    assert {item.row for item in cohort.quarantined} == {level, age, gone, nobody}


def test_table_that_is_missing(tree):
    tree.fill().spec["table"] = "metadat.csv"
    assert "did you mean 'metadata.csv'?" in str(tree.refused())


def test_column_that_is_not_there_suggests_the_nearest(tree):
    tree.fill().spec["attributes"]["sex"]["column"] = "sexe"
    tree.spec["patient"] = "patient"
    error = tree.refused()
    one(error, None, "sexe", "attributes.sex", "did you mean 'sex'?")
    one(error, None, "patient", "no such column", "'pid'")
    tree.spec["site"] = "@folders"
    one(tree.refused(), None, "@folders", "no such column")


@pytest.mark.parametrize(("column", "value", "hint"), [("sex", "f", "'F'?"), ("dx", "mell", "'mel'?")])
def test_unknown_level(tree, column, value, hint):
    row = tree.fill().add("p9", **{column: value})
    one(tree.refused(), row, column, f"unknown level '{value}'", hint, "allowed: ")


@pytest.mark.parametrize("value", ["-1", "120.5", "old", "inf"])
def test_number_outside_the_bins(tree, value):
    row = tree.fill().add("p9", age=value)
    one(tree.refused(), row, "age", value, "mend the cell")


def test_empty_patient(tree):
    row = tree.fill().add("unknown")
    one(tree.refused(), row, "pid", "patient is unknown", "leave the row out")


def test_missing_image_file(tree):
    row = tree.fill().add("p9", file="images/none.png")
    one(tree.refused(), row, "file", "there is no image 'images/none.png'", "image.root")


def test_image_that_is_no_image(tree):
    row = tree.fill().add("p9", file="images/text.png")
    (tree.root / "images/text.png").write_text("not an image")
    one(tree.refused(), row, "file", "is not an image", "PNG")


def test_truncated_image(tree):
    row = tree.fill().add("p9", file="images/cut.jpg")
    tree.image("images/cut.jpg", shape=(64, 64, 3))
    whole = (tree.root / "images/cut.jpg").read_bytes()
    (tree.root / "images/cut.jpg").write_bytes(whole[: len(whole) // 2])
    one(tree.refused(), row, "file", "truncated", "copy it again")
    assert len(tree.read(check_images=False)) == 7


@pytest.mark.parametrize("path", ["../outside.png", "/etc/outside.png", "images/../../outside.png"])
def test_path_that_leaves_the_root(tree, path):
    tree.fill().spec["image"]["root"] = "."
    row = tree.add("p9", file=path)
    one(tree.refused(), row, "file", "out of the image root", "below image.root")


def test_link_that_leaves_the_root(tree, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "secret.png"
    tree.fill()
    shutil.copy(tree.root / "images/0.png", outside)
    (tree.root / "images/link.png").symlink_to(outside)
    row = tree.add("p9", file="images/link.png")
    one(tree.refused(), row, "file", "is a link that leads out", "copy the file")


def test_same_path_twice(tree):
    row = tree.fill().add("p9", file="./images/0.png")
    one(tree.refused(), row, "file", "already in row 2", "one row an image")
    assert 2 in set(tree.read(quarantine=True).frame["row"])


def given_split(tree) -> None:
    tree.spec["split"] = {"column": "part", "values": {"training": "train", "testing": "test"}}


def test_patient_on_both_sides_of_a_given_split(tree):
    given_split(tree)
    rows = [tree.add("p1", part="training"), tree.add("p1", part="testing")]
    tree.add("p2", part="training", dx="mel")
    error = tree.refused()
    for row in rows:
        one(error, row, "part", "patient 'p1'", "test, train", "one split")
    assert list(tree.read(quarantine=True).frame["patient"]) == ["p2"]


def test_unknown_split(tree):
    given_split(tree)
    tree.add("p1", part="training")
    row = tree.add("p2", part="train")
    one(tree.refused(), row, "part", "unknown split 'train'", "did you mean 'training'?", "split.values")


def test_identical_images_across_a_given_split(tree):
    given_split(tree)
    tree.add("p1", part="training", file=tree.image("a.png", seed=1))
    tree.add("p2", part="testing", file=tree.image("b.png", seed=1))
    tree.add("p3", part="testing")
    error = tree.refused()
    for row in (2, 3):
        one(error, row, "part", "byte-identical images (rows 2, 3)", "id/test, id/train", "keep one copy")
    assert list(tree.read(quarantine=True).frame["row"]) == [4]


def test_identical_images_keep_patients_together_in_our_split(tree):
    tree.fill(8)
    tree.add("x", file=tree.image("a.png", seed=1))
    tree.add("y", file=tree.image("b.png", seed=1), dx="mel")
    for seed in range(6):
        tree.spec["split"]["seed"] = seed
        cohort = tree.read()
        both = cohort.frame[cohort.frame["patient"].isin(["x", "y"])]
        assert both["split"].nunique() == 1
    text = " ".join(str(item) for item in cohort.warnings)
    assert "rows 10, 11: byte-identical images of different patients" in text
    assert "different values of label.dx" in text


def test_patient_in_and_out_of_distribution(tree):
    tree.fill().spec["split"]["ood"] = ["far"]
    rows = [tree.add("p0", site="far"), tree.add("p8", site="far")]
    error = tree.refused()
    one(error, rows[0], "site", "patient 'p0' is both in and out of distribution", "leave the patient out")
    one(error, 2, "site", "patient 'p0'")
    cohort = tree.read(quarantine=True)
    assert set(cohort.frame["row"]) == {3, 4, 5, 6, 7, rows[1]}
    assert list(cohort.split("test", domain="ood").frame["row"]) == [rows[1]]


def test_unknown_site_where_sites_decide(tree):
    row = tree.fill().add("p9", site="")
    assert tree.read().frame["site"].isna().sum() == 1
    tree.spec["split"]["ood"] = ["b"]
    one(tree.refused(), row, "site", "site is unknown", "fill in the site")


def test_ood_site_that_is_not_there_is_fatal_even_in_quarantine(tree):
    tree.fill().spec["split"]["ood"] = ["bb"]
    one(tree.refused(quarantine=True), None, "site", "unknown site 'bb'", "did you mean 'b'?")


def test_table_with_ragged_rows_and_double_columns(tree):
    path = tree.fill().write()
    table = tree.root / "metadata.csv"
    table.write_text("file,pid,pid\na,b,c\n\nd,e\n")
    with pytest.raises(InputError) as caught:
        Cohort.read(path)
    assert "row 4: has 2 cells where the header has 3" in str(caught.value)
    assert "row 1, column 'pid': the column is there twice" in str(caught.value)


def test_rows_are_counted_as_a_spreadsheet_does(tree):
    path = tree.fill().write()
    table = tree.root / "metadata.csv"
    lines = table.read_text().splitlines()
    table.write_bytes(b"\xef\xbb\xbf" + "\n".join([*lines[:3], "", *lines[3:]]).encode())
    assert list(Cohort.read(path, show_progress=False).frame["row"]) == [2, 3, 5, 6, 7, 8]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"atributes": {}}, ["atributes: unknown key", "did you mean 'attributes'?"]),
        ({"patient": None, "table": None}, ["table"]),
        ({"split": {"fractions": {"train": 0.5, "test": 0.6}}}, ["split", "sum to 1"]),
        ({"split": {"fractions": {"train": 1.0}, "column": "x"}}, ["split", "not both"]),
        ({"prompt": "A {sexx} patient"}, ["prompt uses the unknown name {sexx}", "did you mean 'sex'?"]),
        ({"attributes": {"a": {"column": "age", "bins": [40, 0]}}}, ["attributes.a", "rising"]),
        ({"attributes": {"a": {"column": "age", "bins": [0, 1], "names": ["x", "y"]}}}, ["need 1 "]),
        ({"attributes": {"a": {"column": "sex", "levels": {"F": "unknown"}}}}, ["'unknown' cannot be"]),
        (
            {"labels": {"x": {"kind": "binary", "column": "dx", "levels": ["a", "b", "c"]}}},
            ["labels.x", "two levels"],
        ),
        ({"labels": {"dx": {"kind": "multi", "column": "dx"}}}, ["labels.dx.kind", "'multi'"]),
        ({"labels": {"sex": {"kind": "binary", "column": "dx"}}}, ["both a label and an attribute"]),
        ({"image": {"column": "a", "template": "b"}}, ["image", "either 'column' or 'template'"]),
        ({"patient": {"column": "a", "pattern": "("}}, ["patient.pattern", "regular expression"]),
    ],
)
def test_specification_faults_name_file_key_and_mend(tree, change, words):
    tree.fill().spec.update(change)
    text = str(tree.refused())
    assert str(tree.root / "cohort.yaml") in text
    assert all(word in text for word in words), text


def test_yaml_faults(tmp_path):
    path = tmp_path / "cohort.yaml"
    with pytest.raises(InputError, match="No such file"):
        Cohort.read(path)
    path.write_text("name: a\nname: b\n")
    with pytest.raises(InputError, match="line 2: the key 'name' is written twice"):
        Cohort.read(path)
    path.write_text("name: [a\n")
    with pytest.raises(InputError, match="line"):
        Cohort.read(path)


def test_no_row_left_and_no_folder(tree):
    tree.add(file="images/none.png")
    (tree.root / "images").mkdir()
    assert "has no usable row" in str(tree.refused(quarantine=True))
    tree.spec["image"]["root"] = "nowhere"
    assert "there is no such folder" in str(tree.refused())


def test_levels_found_in_the_table_are_never_words_for_unknown(tree):
    tree.fill().add("p9", sex="Unknown")
    tree.add("p10", sex="worst")
    del tree.spec["attributes"]["sex"]["levels"]
    one(tree.refused(), None, "sex", "'worst' cannot be a level", "'missing'")


def test_raw_numbers_are_no_attribute(tree):
    for index in range(60):
        tree.add(f"p{index}", age=str(index))
    tree.spec["attributes"]["age"] = {"column": "age"}
    one(tree.refused(), None, "age", "60 different values", "'bins'")


def test_binary_label_with_three_values(tree):
    tree.fill().add("p9", dx="bcc")
    tree.spec["labels"]["dx"] = {"kind": "binary", "column": "dx"}
    one(tree.refused(), None, "dx", "holds 3 levels", "kind: multiclass")


def test_parquet_that_is_none(tree):
    tree.fill().spec["table"] = "t.parquet"
    (tree.root / "t.parquet").write_text("no")
    assert "is no readable Parquet file" in str(tree.refused())
    pd.DataFrame(tree.rows).to_parquet(tree.root / "t.parquet")
    assert len(tree.read()) == 6

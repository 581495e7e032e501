"""Folders that the library ``datasets`` saved: the table and the images of a cohort."""

import io
import json
import shutil

import datasets
import numpy as np
import pytest
from PIL import Image

from equigen.cohort import Cohort, load_images, pack, read_image
from equigen.cohort.images import arrow
from equigen.errors import InputError

datasets.disable_progress_bars()


def features(**more):
    plain = {"pid": "string", "site": "string", "sex": "string", "age": "float64"}
    words = {"dx": datasets.ClassLabel(names=["nv", "mel"]), "scores": datasets.Sequence(datasets.Value("int64"))}
    kinds = {name: datasets.Value(kind) for name, kind in plain.items()}
    return datasets.Features({"scan": datasets.Image(), **kinds, **words, **more})


def columns(tree):
    """The tree's rows as columns, images as bytes, as ``datasets`` stores them."""
    rows = tree.rows
    made = {name: [row[name] for row in rows] for name in ("pid", "site", "sex")}
    scans = [{"bytes": (tree.root / row["file"]).read_bytes(), "path": None} for row in rows]
    dx = [["nv", "mel"].index(row["dx"]) for row in rows]
    return {**made, "scan": scans, "dx": dx, "age": [float(row["age"]) for row in rows], "scores": [[1, 2]] * len(rows)}


def saved(tree, values, name="scans", **more):
    datasets.Dataset.from_dict(values, features=features(**more)).save_to_disk(str(tree.root / name))
    tree.spec |= {"table": name, "image": {"column": "scan"}}
    return tree


def test_a_cohort_in_a_dataset_is_the_cohort_of_its_files(tree):
    plain = tree.fill(8).read()
    made = saved(tree, columns(tree)).read()
    same = [name for name in plain.frame.columns if name not in {"image", "path"}]
    assert made.frame[same].equals(plain.frame[same])
    assert list(made.frame["image"][:2]) == ["scan/0", "scan/1"] and made.root == tree.root / "scans"
    paths = [list(cohort.frame["path"]) for cohort in (plain, made)]
    assert np.array_equal(load_images(paths[0], 8), load_images(paths[1], 8))


def test_a_dataset_needs_no_yaml_to_be_evaluated_and_can_be_packed(tree, tmp_path):
    saved(tree.fill(6), columns(tree))
    made = Cohort.from_table(tmp_path / "scans", ["sex"], image="scan", patient="pid", show_progress=False)
    again = Cohort.read(pack(made, tmp_path / "packed", images=4, show=False), show_progress=False)
    for cohort in (made, again):
        assert list(cohort.frame["attr.sex"]) == [row["sex"] for row in tree.rows]
        expected = load_images([tmp_path / row["file"] for row in tree.rows], 8)
        assert np.array_equal(load_images(list(cohort.frame["path"]), 8), expected)


def test_a_saved_cohort_reads_the_dataset_where_it_was_moved(tree, tmp_path):
    saved(tree.fill(4), columns(tree)).read().save(tmp_path / "saved")
    (tmp_path / "scans").rename(tmp_path / "moved")
    again = Cohort.load(tmp_path / "saved", root=tmp_path / "moved")
    assert read_image(again.frame["path"].iloc[3]).shape == (8, 10, 3)
    with pytest.raises(InputError, match="cannot be opened: No such file"):
        read_image(tmp_path / "scans/scan/3")


def test_several_arrow_files_and_a_selection_keep_their_rows(tree, tmp_path):
    values = columns(tree.fill(6))
    made = datasets.Dataset.from_dict(values, features=features())
    made.select([4, 0, 5, 2]).save_to_disk(str(tmp_path / "some"), num_shards=3)
    assert len(list((tmp_path / "some").glob("*.arrow"))) == 3
    table = arrow.dataset_table(tmp_path / "some")
    assert list(table["pid"]) == ["p4", "p0", "p5", "p2"] and list(table["scan"]) == [f"scan/{n}" for n in range(4)]
    for row, source in enumerate([4, 0, 5, 2]):
        assert np.array_equal(read_image(tmp_path / f"some/scan/{row}"), read_image(tmp_path / f"images/{source}.png"))


def test_unknown_classes_missing_values_and_lists(tree):
    values = columns(tree.fill(6))
    values["dx"][1], values["sex"][2], values["age"][3] = -1, None, None
    made = saved(tree, values).read().frame
    assert made["label.dx"].iloc[1] is None and made["attr.sex"].iloc[2] is None and made["attr.age"].iloc[3] is None
    assert made["label.dx"].notna().sum() == 5
    assert "scores" not in arrow.dataset_table(tree.root / "scans").columns


def test_rows_without_an_image_or_with_a_damaged_one(tree):
    values = columns(tree.fill(6))
    values["scan"][1], values["scan"][2] = None, {"bytes": b"\x89PNG\r\n\x1a\n cut", "path": None}
    text = str(saved(tree, values).refused())
    assert "row 3, column 'scan': there is no image" in text
    assert "row 4, column 'scan': the image 'scan/2' is truncated or damaged" in text
    assert len(tree.read(quarantine=True)) == 4


def test_an_image_that_the_dataset_only_points_to_is_refused(tree):
    values = columns(tree.fill(4))
    parts = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    plain = datasets.Features(features() | {"scan": parts})
    values["scan"][0] = {"bytes": None, "path": str(tree.root / "images/0.png")}
    datasets.Dataset.from_dict(values, features=plain).save_to_disk(str(tree.root / "scans"))
    sheet = json.loads((tree.root / "scans/dataset_info.json").read_text())
    sheet["features"]["scan"] = {"_type": "Image"}
    (tree.root / "scans/dataset_info.json").write_text(json.dumps(sheet))
    tree.spec |= {"table": "scans", "image": {"column": "scan"}}
    assert "row 2, column 'scan': the image 'scan/0' is not held in the dataset itself" in str(tree.refused())


def test_a_column_that_is_not_there_or_holds_no_images(tree):
    saved(tree.fill(4), columns(tree))
    tree.spec["image"]["column"] = "scam"
    assert "column 'scam'" in str(tree.refused()) and "did you mean 'scan'?" in str(tree.refused())
    tree.spec["image"]["column"] = "sex"
    assert "the column 'sex' holds no images (there is: 'scan')" in str(tree.refused())
    tree.spec["image"] = {"column": "scan", "root": "images", "suffix": ".png"}
    assert [problem.message for problem in tree.refused().problems] == [
        "image.root has no meaning for a dataset", "image.suffix has no meaning for a dataset"
    ]  # fmt: skip


def test_a_dataset_of_several_splits_is_told_how_to_name_one(tree):
    made = datasets.Dataset.from_dict(columns(tree.fill(4)), features=features())
    datasets.DatasetDict({"train": made, "test": made}).save_to_disk(str(tree.root / "scans"))
    tree.spec |= {"table": "scans", "image": {"column": "scan"}}
    assert "holds several splits (name the folder of one: test, train)" in str(tree.refused())
    tree.spec["table"] = "scans/train"
    assert len(tree.read()) == 4


@pytest.mark.parametrize("harm", ["cut", "gone", "outside", "no json"])
def test_a_damaged_dataset_is_refused(tree, harm):
    saved(tree.fill(4), columns(tree))
    state, (data,) = tree.root / "scans/state.json", (tree.root / "scans").glob("*.arrow")
    if harm == "cut":
        data.write_bytes(data.read_bytes()[:50])
    elif harm == "gone":
        data.unlink()
    elif harm == "outside":
        shutil.copy(data, tree.root / "x.arrow")
        state.write_text(state.read_text().replace(data.name, "../x.arrow"))
    else:
        state.write_text("{")
    with pytest.raises(InputError, match="outside itself" if harm == "outside" else "is no whole dataset"):
        tree.read()


def test_a_dataset_that_was_saved_again_is_opened_again(tree):
    values = columns(tree.fill(4))
    saved(tree, values)
    before = read_image(tree.root / "scans/scan/0")
    picture = io.BytesIO()
    Image.fromarray(255 - before).save(picture, "PNG")
    values["scan"][0] = {"bytes": picture.getvalue(), "path": None}
    shutil.rmtree(tree.root / "scans")
    saved(tree, values)
    assert np.array_equal(read_image(tree.root / "scans/scan/0"), 255 - before)


def test_without_the_library_it_is_said_what_to_install(tree, monkeypatch):
    saved(tree.fill(4), columns(tree))
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    arrow._open_cached.cache_clear()
    with pytest.raises(InputError, match=r"needs the library 'datasets' \(install equigen\[datasets\]\)"):
        tree.read()

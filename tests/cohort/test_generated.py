"""The table of a generated set may come from anybody: what it names stays below its folder, in every command."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from equigen.cohort.generated_images import accepted_mask, add_paths, read_generated, screening_note
from equigen.diagnosis.training_images import read_source
from equigen.errors import InputError
from equigen.quality.image_sets import load_image_set
from equigen.study.screening import accepted_rows
from equigen.synthesis.counterfactual_pairs import read_pairs
from equigen.synthesis.generation import SyntheticSet
from equigen.synthesis.screening.screening import read_unscreened

READERS = {
    "evaluate": lambda folder: load_image_set(folder, "generated"),
    "diagnose": lambda folder: read_source(folder, []),
    "counterfactual": read_pairs,
    "screen": read_unscreened,
    "study": lambda folder: accepted_rows(SyntheticSet(folder)),
}


def a_set(folder, **columns) -> pd.DataFrame:
    (folder / "images").mkdir(parents=True)
    names = [f"images/{index}.png" for index in range(4)]
    for name in names:
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(folder / name)
    frame = pd.DataFrame(
        {
            "image": names,
            "seed": range(4),
            "generator": "g",
            "guidance": 1.0,
            "steps": 2,
            "prompt": None,
            "pair": [0, 0, 1, 1],
            "changed": "sex",
            "attr.sex": ["f", "m", "f", "m"],
        }
    ).assign(**columns)
    frame.to_parquet(folder / "synthetic.parquet")
    return frame


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("way", ["..", "absolute", "inside, then ..", "link", "linked folder", "empty", "number"])
def test_a_path_that_leads_out_of_the_set_is_refused_with_its_row(tmp_path, reader, way):
    folder, other = tmp_path / "set", tmp_path / "other"
    other.mkdir()
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(other / "secret.png")
    frame = a_set(folder)
    named = {
        "..": "../other/secret.png",
        "absolute": str(other / "secret.png"),
        "empty": " ",
        "number": None,
        "inside, then ..": "images/../../other/secret.png",
        "link": "images/link.png",
        "linked folder": "away/secret.png",
    }[way]
    (folder / "images" / "link.png").symlink_to(other / "secret.png")
    (folder / "away").symlink_to(other)
    frame.assign(image=[*frame["image"][:3], named]).to_parquet(folder / "synthetic.parquet")
    with pytest.raises(InputError) as error:
        READERS[reader](folder)
    assert [(p.row, p.column, bool(p.mend)) for p in error.value.problems] == [(5, "image", True)]


def test_links_within_the_set_and_a_linked_set_are_read(tmp_path):
    frame = a_set(tmp_path / "set")
    (tmp_path / "set" / "images" / "link.png").symlink_to("0.png")
    frame.assign(image=["images/link.png", *frame["image"][1:]]).to_parquet(tmp_path / "set" / "synthetic.parquet")
    (tmp_path / "alias").symlink_to(tmp_path / "set")
    assert len(load_image_set(tmp_path / "alias", "generated")) == 4


def test_the_first_image_of_a_screened_set_is_checked_too(tmp_path):
    a_set(tmp_path, first_image="../x.png", first_seed=1, tries=1)
    with pytest.raises(InputError) as error:
        read_generated(tmp_path, "It cannot be read.")
    assert {p.column for p in error.value.problems} == {"first_image"}
    assert len(error.value.problems) == 4


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("damage", ["no table", "no parquet", "no column image"])
def test_a_table_that_is_none_is_refused(tmp_path, reader, damage):
    frame = a_set(tmp_path)
    file = tmp_path / "synthetic.parquet"
    if damage == "no table":
        file.unlink()
    elif damage == "no parquet":
        file.write_bytes(b"PAR1 or not")
    else:
        frame.drop(columns="image").to_parquet(file)
    with pytest.raises(InputError):
        READERS[reader](tmp_path)


@pytest.mark.parametrize(
    "cells",
    [
        [True, False, None, True],
        ["True", "False", "", "yes"],
        [1, 0, None, 1],
        ["1", "0", "NA", "1"],
        [1.0, 0.0, np.nan, 1.0],
        ["TRUE", " false ", "unknown", "t"],
    ],
)
def test_verdicts_are_read_whatever_their_column_is_made_of(tmp_path, cells):
    frame = a_set(tmp_path, accepted=pd.Series(cells))
    assert accepted_mask(frame)[0].tolist() == [True, False, True, True]
    images = load_image_set(tmp_path, "generated")
    assert len(images) == 3
    assert images.remark == "1 of 4 images were refused by screening and are left out"
    source = read_source(tmp_path, [])
    assert len(source.table) == 3
    assert source.remark == images.remark
    assert len(load_image_set(add_paths(frame, tmp_path), "generated")) == 3
    assert read_pairs(tmp_path).frame["pair"].tolist() == [1, 1]
    assert len(accepted_rows(SyntheticSet(tmp_path))) == 3


@pytest.mark.parametrize("reader", READERS)
def test_a_verdict_that_says_neither_is_refused_with_its_row(tmp_path, reader):
    a_set(tmp_path, accepted=["True", "maybe", "False", "2"])
    with pytest.raises(InputError) as error:
        READERS[reader](tmp_path)
    assert [(p.row, p.column) for p in error.value.problems] == [(3, "accepted"), (5, "accepted")]


def test_a_table_given_in_python_is_held_to_the_same_verdicts():
    with pytest.raises(InputError, match="maybe"):
        load_image_set(pd.DataFrame({"path": ["a"], "accepted": ["maybe"]}), "generated")
    assert screening_note(np.array([True, True])) == ""

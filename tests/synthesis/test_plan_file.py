"""Plans as files: written and read they ask for the same images; what a spreadsheet spoils is told with its row."""

import numpy as np
import pandas as pd
import pytest

from equigen.errors import InputError
from equigen.synthesis import generate, plan, read_plan, write_plan
from equigen.synthesis.generation import plan_hash

TEXT = {"label.dx": ["edema|mass", "", None], "attr.sex": ["f", None, "m"], "prompt": ['an "eye", 1', None, "NA"],
        "solver": [None, "ddim", None], "changed": ["sex"] * 3}  # fmt: skip
ROWS = pd.DataFrame({
    **{name: pd.Series(cells, dtype=object) for name, cells in TEXT.items()}, "seed": [2**62 + 1, 5, 0],
    "guidance": [2.0, 1.5, 1], "steps": [3, 20, 1], "guidance_low": [np.nan, 0.25, np.nan], "pair": [0, 0, 1],
})  # fmt: skip


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet"])
def test_written_and_read_it_is_the_same_plan(tmp_path, kind):
    found = read_plan(write_plan(tmp_path / f"plan.{kind}", ROWS))
    assert plan_hash(found) == plan_hash(ROWS) and found["seed"].dtype == found["steps"].dtype == np.int64
    assert found["guidance"].dtype == found["guidance_low"].dtype == np.float64
    assert pd.isna(found["label.dx"][2]) and found["label.dx"][1] == ""


def test_a_plan_by_way_of_a_file_makes_the_same_set(pipeline, phantom_cohort, tmp_path):
    rows = plan(phantom_cohort, "match", 5, seed=1, steps=1)
    generate(pipeline, rows, tmp_path / "set", show=False)
    again = read_plan(write_plan(tmp_path / "p.csv", rows))
    assert len(generate(pipeline, again, tmp_path / "set", show=False)) == 5  # the folder is for just this plan


def test_what_somebody_wrote_by_hand(tmp_path):
    (tmp_path / "p.csv").write_text("attr.sex,prompt,seed,guidance,steps\n female ,unknown,7,2,4\n,None,8,1,4\n")
    found = read_plan(tmp_path / "p.csv")
    assert found["attr.sex"].tolist() == ["female", None] and found["prompt"].tolist() == ["unknown", "None"]


@pytest.mark.parametrize(("text", "words"), [
    ("seed,guidance,steps\n1.23E+18,2,4\n", r"row 2, column 'seed', .*: '1\.23E\+18' is no whole number \(write"),
    ("seed,guidance,steps\n1,2,4\n,x,4\n", r"row 3, column 'guidance', .*: 'x' is no number"),
    ("seed,guidance,steps\n1,2,4\n,2,4\n", r"row 3, column 'seed', .*: '' is no whole number"),
    ("seed,steps\n1,2.5\n", r"row 2, column 'steps', .*: '2\.5' is no whole number"),
    ("", r"is empty"),
    ("a,b\n1,2,3,4\n1,2\n1,2,3,4,5,6\n", "cannot be read"),
])  # fmt: skip
def test_what_cannot_be_read_is_told_with_its_row(tmp_path, text, words):
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(InputError, match=words):
        read_plan(tmp_path / "p.csv")


def test_files_that_are_no_tables(tmp_path):
    (tmp_path / "p.parquet").write_text("x")
    for name, words in (("p.parquet", "is no readable Parquet file"), ("none.csv", "there is no such file")):
        with pytest.raises(InputError, match=words):
            read_plan(tmp_path / name)
    with pytest.raises(InputError, match=r"plan\.xlsx: is no kind of table that is known .name it with \.csv, \.tsv"):
        write_plan(tmp_path / "plan.xlsx", ROWS)


@pytest.mark.parametrize("seed", ["18446744073709551616", "9223372036854775808", "-1", "1.5", "", "1e3", "1_0", "x"])
def test_seeds_that_cannot_be_held_are_named_with_their_row(tmp_path, seed):
    file = tmp_path / "p.csv"
    file.write_text(f"label.dx,seed,guidance,steps\na,3,2,2\n\na,{seed},2,2\n")
    with pytest.raises(InputError, match="row 4, column 'seed'"):
        read_plan(file)


@pytest.mark.parametrize("kind", ["attr.sex", "label.dx"])
def test_every_word_for_unknown_is_one_but_none_which_may_be_a_level(tmp_path, kind):
    cells = ["unknown", "Unknown", " NA ", "N/A", "nan", "null", "?", "missing", "Not Reported"]
    lines = "".join(f"{cell},{cell},{number},2,4\n" for number, cell in enumerate([*cells, "none", "male"]))
    (tmp_path / "p.csv").write_text(f"{kind},prompt,seed,guidance,steps\n{lines}")
    found = read_plan(tmp_path / "p.csv")
    assert found[kind].tolist() == [None] * len(cells) + ["none", "male"]
    assert found["prompt"].tolist() == [*(cell.strip() for cell in cells), "none", "male"]

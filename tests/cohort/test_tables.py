"""Tables as people save them: read right, or refused with file, row and hint."""

import gzip

import pandas as pd
import pytest

from equigen.cohort.levels import binary_order
from equigen.cohort.tables.reader import read_table, table_notes
from equigen.cohort.tables.values import is_rounded, spelling_variants
from equigen.errors import InputError

TEXT = "id,word\n007,x\n8,y\n"
CLEAN = {"id": ["007", "8"], "word": ["x", "y"]}


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("t.CSV", TEXT.encode("utf-8-sig")),
        ("t.csv", TEXT.replace(",", ";").encode()),
        ("t.csv", TEXT.replace(",", "\t").encode()),
        ("t.csv.gz", gzip.compress(TEXT.encode(), mtime=0)),
        ("t.csv", TEXT.replace("word\n", "word,,\n").replace("x\n", "x,,\n").encode()),
    ],
)
def test_text_tables_as_people_save_them(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    table = read_table(tmp_path / name)
    assert table.to_dict("list") == CLEAN
    assert list(table.index) == [2, 3]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("id,word\n1,\u00e9\n".encode("latin-1"), "row 2.*UTF-8"),
        (TEXT.encode("utf-16-le"), "NUL"),
        (TEXT.encode("utf-16"), "UTF-16 text, not UTF-8"),
        (gzip.compress(TEXT.encode(), mtime=0), "compressed, which its name does not say"),
        (gzip.compress(TEXT.encode(), mtime=0)[:-6], "damaged"),
        (b"a,b\n1,2,3\n", "row 2: has 3 cells"),
        (b'a,b\n1,"x\n', "row 2.*quote"),
        (b"", "is empty"),
        (b"a,a\n1,2\n", "column 'a'.*twice"),
        (b"PAR1junk", "no readable Parquet file"),
        (b"a|b\n1|2\n", "separated by"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path, data, words):
    (tmp_path / "t.csv").write_bytes(data)
    with pytest.raises(InputError, match=words):
        read_table(tmp_path / "t.csv")


def test_blank_rows_are_counted(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n1,2\n\n,\n3,4\n\n")
    table = read_table(tmp_path / "t.csv")
    assert list(table.index) == [2, 5]
    assert "2 blank rows" in str(table_notes(table)[0])


def test_frames_of_any_type():
    frame = pd.DataFrame({
        "c": pd.Categorical([1, None]), "i": pd.array([1, None], dtype="Int64"), "f": [3.0, None],
        "b": pd.array([True, None], dtype="boolean"), "o": ["x", pd.NA],
    })  # fmt: skip
    assert read_table(frame).iloc[0].tolist() == ["1", "1", "3", "True", "x"]
    assert read_table(frame).iloc[1].tolist() == [""] * 5


def test_positive_levels_and_spellings():
    assert binary_order(["glaucoma", "normal"], "l", "c") == (["normal", "glaucoma"], [])
    assert binary_order(["ill", "nevus"], "l", "c")[1]
    assert spelling_variants(["7", "007", "e\u0301", "\u00e9"]) == [{"7": 1, "007": 1}, {"e\u0301": 1, "\u00e9": 1}]
    assert is_rounded("1.23457E+11") and not is_rounded("1E5")

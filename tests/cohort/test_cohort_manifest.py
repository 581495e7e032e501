"""A saved cohort opened in little memory: what it says is what the ordinary cohort says."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from equigen.cohort import Cohort, Manifest, manifest
from equigen.cohort.manifest import ImageList
from equigen.diffusion import Vocabulary
from equigen.errors import InputError

FINDINGS = ["edema|mass", "No Finding", "", "mass", "edema", "mass", "edema", "No Finding", "mass", "edema"]


@pytest.fixture
def made(tree):
    """Ten images with everything: several findings, unknown values, sites out of distribution."""
    for number, cell in enumerate(FINDINGS):
        dx, sex, age = ["nv", "mel"][number % 2], "FM"[number % 2], str(25 + 9 * number)
        tree.add(f"p{number // 2}", "abc"[number // 2 % 3], dx, sex, age, finding=cell)
    tree.rows[4]["sex"], tree.rows[7]["age"], tree.rows[1]["dx"] = "unknown", "", ""
    tree.spec["labels"]["x-ray"] = {"kind": "multilabel", "column": "finding", "levels": ["mass", "edema"]}
    tree.spec["split"] = {"fractions": {"train": 0.7, "val": 0.3}, "seed": 0, "ood": ["c"]}
    cohort = tree.read()
    cohort.save(tree.root / "saved")
    return cohort, tree.root / "saved"


@pytest.fixture(params=[3, 100])
def opened(made, monkeypatch, request):
    """The cohort, and the manifest read in blocks of three rows or at once."""
    monkeypatch.setattr(manifest, "BLOCK", request.param)
    return made[0], Manifest.load(made[1])


def normalize_text_columns(column):
    return [None if pd.isna(value) else value for value in column]


def assert_same(found, cohort):
    assert len(found) == len(cohort)
    for name in found.frame.columns.difference(["row"]):
        assert normalize_text_columns(found.frame[name]) == list(cohort.frame[name]), name
    assert list(found.frame["row"]) == list(cohort.frame["row"])
    for name in cohort.attributes:
        assert np.array_equal(found.groups(name), cohort.groups(name)) and found.groups(name).dtype == np.int64
    tokens = Vocabulary.from_cohort(cohort).encode(cohort.frame)
    assert torch.equal(Vocabulary.from_cohort(found).encode(found.frame), tokens) and len(tokens.unique()) > 1
    images = found.images()
    assert images.paths(np.arange(len(found))) == list(cohort.frame["path"])
    assert [row.tobytes().hex() for row in images.digests] == list(cohort.frame["sha256"])
    same = ImageList.of(cohort)
    assert images.hash == same.hash == found.images_hash()
    assert same.paths(np.arange(len(found))) == list(cohort.frame["path"])


def test_a_manifest_says_what_its_cohort_says(opened):
    cohort, found = opened
    assert_same(found, cohort)
    assert (found.name, found.hash, found.labels, found.attributes) == (
        cohort.name, cohort.hash, cohort.labels, cohort.attributes
    )  # fmt: skip
    assert found.spec == cohort.spec and found.phantom is False and found.root == cohort.root


@pytest.mark.parametrize("part", [("train", None), ("test", "ood"), ("val", "id")])
def test_parts_are_the_parts_of_the_cohort(opened, part):
    cohort, found = opened
    one, other = found.split(part[0], domain=part[1]), cohort.split(part[0], domain=part[1])
    assert 0 < len(one) < len(found)
    assert_same(one, other)
    twice = found.split("train", "val").where(np.arange(len(found.split("train", "val"))) % 2 == 0)
    assert_same(twice, cohort.split("train", "val").where(np.arange(len(twice) * 2) % 2 == 0))
    assert len({found.hash, one.hash, twice.hash}) == 3


def test_patients_are_numbers(opened):
    cohort, found = opened
    assert list(found.patients()) == list(pd.factorize(cohort.frame["patient"])[0])
    part = found.split("train")
    assert list(part.patients()) == list(found.patients()[part.places]) and part.patients().dtype == np.int32


def test_images_that_were_moved(made, tmp_path):
    found = Manifest.load(made[1], root=tmp_path / "new").images()
    assert found.paths(np.array([9, 0])) == [str(tmp_path / "new" / made[0].frame["image"].iloc[row]) for row in (9, 0)]


def test_a_cohort_whose_images_are_their_own_patients(tree):
    tree.fill(4)
    tree.spec |= {"patient": None, "site": None}
    cohort = tree.read()
    place = cohort.save(tree.root / "saved")
    assert_same(Manifest.load(place), cohort)
    assert Cohort.load(place).hash == cohort.hash


def test_no_object_is_held_for_a_row(made, tmp_path):
    many = pd.concat([made[0].frame] * 500, ignore_index=True)
    cohort = Cohort(made[0].name, made[0].spec, made[0].root, many, made[0].labels, made[0].attributes)
    cohort.save(tmp_path / "many")
    found = Manifest.load(tmp_path / "many")
    assert found.frame.memory_usage(deep=True).sum() / len(found) < 25  # bytes a row; text takes some 800
    assert_same(found.where(np.arange(5000) < 10), made[0])


def test_prompts_of_a_column_are_kept(made):
    table = made[1] / "cohort.parquet"
    words = [None, "a", "b", "a", *["c"] * 6]
    pd.read_parquet(table).assign(prompt=pd.Series(words, dtype=object)).to_parquet(table)
    assert normalize_text_columns(Manifest.load(made[1]).frame["prompt"]) == words


def rewrite(folder, change):
    """Replace the table by what ``change`` makes of it."""
    place = folder / "cohort.parquet"
    pq.write_table(change(pq.read_table(place)), place)


def put(table, column, row, value):
    cells = table.column(column).to_pylist()
    cells[row] = value
    return table.set_column(table.schema.get_field_index(column), column, pa.array(cells, table.field(column).type))


def test_a_missing_column_is_named(made):
    rewrite(made[1], lambda table: table.rename_columns([name.replace("sex", "gender") for name in table.column_names]))
    with pytest.raises(InputError, match=r"column 'attr.sex', .*: the table has no such column \(did you mean"):
        Manifest.load(made[1])
    rewrite(made[1], lambda table: table.rename_columns([name.replace("gender", "sex") for name in table.column_names]))
    rewrite(made[1], lambda table: table.drop_columns(["sha256"]))
    with pytest.raises(InputError, match="column 'sha256'"):
        Manifest.load(made[1]).images()


def test_what_does_not_belong_together_or_is_damaged_is_refused(made, tmp_path):
    place = made[1] / "cohort.parquet"
    whole = place.read_bytes()
    rewrite(made[1], lambda table: table.slice(0, 9))
    with pytest.raises(InputError, match="do not belong together"):
        Manifest.load(made[1])
    place.write_bytes(whole)
    rewrite(made[1], lambda table: put(table, "attr.age", 8, "old"))
    with pytest.raises(InputError, match=r"column 'attr.age': 'old' is no level of this cohort"):
        Manifest.load(made[1])
    place.write_bytes(whole)
    rewrite(made[1], lambda table: put(table, "sha256", 3, "00"))
    with pytest.raises(InputError, match="is no SHA-256"):
        Manifest.load(made[1]).images()
    place.write_bytes(whole[:-50])
    with pytest.raises(InputError, match="is no readable Parquet file"):
        Manifest.load(made[1])
    (made[1] / "cohort.json").unlink()
    with pytest.raises(InputError, match="no saved cohort"):
        Manifest.load(made[1])


def test_unknown_words_are_refused(opened):
    found = opened[1]
    for ask in (lambda: found.split("trian"), lambda: found.split("train", domain="in"), lambda: found.groups("sexx")):
        with pytest.raises(InputError, match="There is no such"):
            ask()


def listed(names, digests):
    values = np.zeros((len(digests), 32), dtype=np.uint8)
    values[:, 0] = digests
    return ImageList(manifest.Path("/r"), pa.chunked_array([pa.array(names)]), values)


def test_images_are_cut_by_shard_or_by_number():
    names = ["b.tar/2", "plain/0", "a.tar/x.tar/1", "b.tar/1", "plain/1", "a.tar/0", "plain/2", "plain/3"]
    parts = listed(names, range(8)).parts(np.array([0, 1, 2, 4, 5, 6, 7]), 3)
    assert [part.tolist() for part in parts] == [[0], [2, 5], [1, 4, 6], [7]]
    assert listed(names, range(8)).parts(np.zeros(0, dtype=np.int64), 3) == []


def test_equal_images_have_one_first_row():
    first, which = listed(list("abcdef"), [7, 3, 7, 9, 3, 7]).first_rows()
    assert first.tolist() == [0, 1, 3] and which.tolist() == [0, 1, 0, 2, 1, 0]


def test_a_cohort_of_no_rows(made):
    nothing = Manifest.load(made[1]).where(np.zeros(10, dtype=bool))
    assert len(nothing) == len(nothing.images()) == 0 and nothing.groups("sex").tolist() == []


def test_hashes_in_a_slice_are_read_where_they_stand():
    texts = [f"{number:02x}" * 32 for number in (0, 1, 171, 255)]
    found = manifest.parse_digests(pa.array(texts).slice(1, 2))
    assert found.tolist() == [[1] * 32, [171] * 32]
    assert manifest.parse_digests(pa.array([], pa.string())).shape == (0, 32)


@pytest.mark.parametrize("text", ["0" * 63, "0" * 65, "g" + "0" * 63, "A" * 64, "é" * 32, "", None])
def test_what_is_no_hash_is_refused(text):
    with pytest.raises(InputError, match="is no SHA-256"):
        manifest.parse_digests(pa.array(["0" * 64, text], pa.string()))


def test_a_flipped_bit_anywhere_in_the_tables_pages_is_told(made):
    place = made[1] / "cohort.parquet"
    whole = place.read_bytes()
    end = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    for byte in np.linspace(4, end - 1, 40).astype(int):
        damaged = bytearray(whole)
        damaged[byte] ^= 1
        place.write_bytes(damaged)
        try:
            found = Manifest.load(made[1])
            values = found.patients(), found.images().hash
        except InputError as error:
            assert error.problems[0].file == str(place)
            continue
        place.write_bytes(whole)  # a bit without a meaning, or of a column that is not read
        right = Manifest.load(made[1])
        assert found.frame.equals(right.frame)
        assert np.array_equal(values[0], right.patients()) and values[1] == right.images().hash

"""Tables of other people, in any encoding of their cells: the figures of the clean table, or an error that says why."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from equigen.errors import InputError
from equigen.fairness import audit
from equigen.fairness.predictions import Columns, read_predictions

FAST = {"replicates": 8, "permutations": 8, "min_patients": 5}


def clean(n: int = 120) -> pd.DataFrame:
    rng = np.random.default_rng(4)
    patient = np.arange(n) // 2
    truth = (rng.random(n) < 0.5).astype(int)
    return pd.DataFrame(
        {
            "image": [f"i{k:03d}" for k in range(n)],
            "patient": patient + 100,
            "site": np.array(["north", "south"])[patient % 2],
            "split": np.where(patient % 5 == 0, "val", "test"),
            "truth": truth,
            "probability": (0.3 * truth + 0.7 * rng.random(n)).round(6),
            "sex": np.array(["F", "M", None], dtype=object)[rng.integers(0, 3, patient.max() + 1)][patient],
            "age": np.array([40.0, 60.0, np.nan])[rng.integers(0, 3, patient.max() + 1)][patient],
        }
    )


def read(table, groups=("sex", "age"), **options):
    columns = Columns(positive=options.pop("positive", None))
    return read_predictions(table, list(groups), columns, **options)


CLEAN = read(clean()).table
UNKNOWN = [None, np.nan, pd.NA, "", " ", "NA", "n/a", "Unknown", "unknown ", "None", "null", "NaN", "?", "not reported"]
SEX = ["object", "category", "string", "string[pyarrow]", "str"]
AGE = ["float64", "Float64", "Int64", "object", "string", "category", "int64[pyarrow]", "double[pyarrow]"]
TRUTH = {
    "int8": lambda t: t.astype("int8"), "float": lambda t: t.astype(float), "bool": lambda t: t.astype(bool),
    "boolean": lambda t: t.astype("boolean"), "text": lambda t: t.astype(str), "Int64": lambda t: t.astype("Int64"),
    "words": lambda t: t.map({0: "false", 1: "TRUE"}), "point": lambda t: t.map({0: "0.0", 1: " 1.0 "}),
    "category": lambda t: t.astype("category"), "arrow": lambda t: t.astype("bool[pyarrow]"),
}  # fmt: skip


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_encodings_and_orders_change_nothing(data):
    table = clean()
    gone = data.draw(st.sampled_from(UNKNOWN))
    table["sex"] = table["sex"].astype(object).where(table["sex"].notna(), gone).astype(data.draw(st.sampled_from(SEX)))
    table["age"] = table["age"].astype("Int64").astype(data.draw(st.sampled_from(AGE)))
    table["truth"] = TRUTH[data.draw(st.sampled_from(sorted(TRUTH)))](table["truth"])
    kinds = {"patient": ["int64", "float64", "str", "category"], "probability": ["float64", "str", "Float64", "object"]}
    table = table.astype({name: data.draw(st.sampled_from(dtypes)) for name, dtypes in kinds.items()})
    table["split"] = table["split"].map(data.draw(st.sampled_from([str, str.upper, str.title, " {} ".format])))
    table = table.sample(frac=1, random_state=data.draw(st.integers(0, 99)))
    table = table[data.draw(st.permutations(list(table.columns)))]
    if data.draw(st.booleans()):
        table = pd.read_csv(io.StringIO(table.to_csv(index=False)), dtype=str, keep_default_na=False)
    pd.testing.assert_frame_equal(read(table).table, CLEAN)


@pytest.mark.parametrize("column", ["truth", "probability", "patient"])
@pytest.mark.parametrize("value", [None, np.nan, pd.NA, pd.NaT, "", "NA", "?"])
def test_a_missing_cell_is_named_by_its_row(column, value):
    table = clean().astype({column: object})
    table.loc[7, column] = value
    with pytest.raises(InputError) as caught:
        read(table)
    assert [(p.row, p.column, p.message) for p in caught.value.problems] == [(9, column, "nothing is given")]


@pytest.mark.parametrize("drop", [["image"], ["image", "site"]])
def test_rows_without_image_and_trait_keep_their_patients(drop):
    table = clean()
    full, bare = (audit(part, ["sex", "age"], site=None, **FAST).table for part in (table, table.drop(columns=drop)))
    figures = ["attribute", "group", "metric", "n", "n_patients", "estimate"]
    pd.testing.assert_frame_equal(full[figures], bare[figures])
    pd.testing.assert_series_equal(full["ci_low"], bare["ci_low"])
    assert read(table.drop(columns=drop)).table["unit"].is_unique


def test_a_stroke_in_a_name_makes_no_other_patient_the_same_unit():
    table = clean().drop(columns=["image"])
    table["patient"] = np.where(np.arange(len(table)) % 2 == 0, "a/F", "a")
    table["sex"] = np.where(np.arange(len(table)) % 2 == 0, "M", "F/M")
    table["age"] = 1
    other = table.assign(recipe="b").iloc[1:]
    both = read(pd.concat([table.assign(recipe="a"), other]), ["sex"]).table
    assert (both.groupby("unit")[["patient", "attr.sex"]].nunique() == 1).all(axis=None)


def test_some_images_without_a_name_are_images_of_their_own():
    table = clean()
    table.loc[::7, "image"] = None
    known = read(table)
    assert known.table["unit"].is_unique and len(known.table) == len(table)
    assert f"{len(table[::7])} rows without an image name count as images of their own" in known.notes


def test_more_words_for_unknown_are_told():
    table = clean()
    table["sex"] = table["sex"].fillna("prefer not to say")
    table["age"] = table["age"].fillna(9.0)
    known = read(table, unknown=["9", "Prefer not to say"])
    pd.testing.assert_frame_equal(known.table, CLEAN)
    assert known.notes == ["sex is unknown in 42 rows ('prefer not to say' 42)", "age is unknown in 56 rows ('9' 56)"]
    table.loc[[0, 1, 2], "sex"] = ["NA", None, "NA"]
    notes = read(table, unknown=["9", "Prefer not to say"]).notes
    assert "sex is unknown in 45 rows ('prefer not to say' 42, 'NA' 2, empty 1)" in notes


def test_an_attribute_that_nobody_knows_has_rows_without_figures():
    found = audit(clean().assign(sex="Unknown"), ["sex", "age"], **FAST).table
    rows = found[found["attribute"] == "sex"]
    assert len(rows) and rows["estimate"].isna().all() and rows["note"].str.contains("no row has a known sex").all()
    both, alone = (part[part["attribute"] == "age"] for part in (found, audit(clean(), ["age"], **FAST).table))
    assert both["estimate"].tolist() == pytest.approx(alone["estimate"].tolist(), nan_ok=True)


def test_truth_in_words_asks_which_is_positive():
    table = clean().assign(truth=lambda t: t["truth"].map({0: "benign", 1: "malignant"}))
    with pytest.raises(InputError, match="--positive 'malignant'") as caught:
        read(table)
    assert len(caught.value.problems) == 1 and "'benign', 'malignant'" in str(caught.value)
    known = read(table, positive="malignant")
    pd.testing.assert_frame_equal(known.table, CLEAN)
    assert "truth: 'malignant' is 1, benign is 0" in known.notes
    reverse = read(table, positive="benign").table.set_index("image")["truth"]
    assert (reverse == 1 - CLEAN.set_index("image")["truth"]).all()
    with pytest.raises(InputError, match="did you mean 'malignant'"):
        read(table, positive="Malignant")
    assert audit(table, ["sex"], positive="malignant", **FAST).table["estimate"].notna().any()


def test_scores_off_by_rounding_are_clipped_and_counted():
    table = clean()
    table.loc[[10, 11, 12], "probability"] = [1 + 1e-7, -1e-9, float(np.float32(1) + np.finfo(np.float32).eps)]
    known = read(table)
    assert known.table["probability"].between(0, 1).all()
    assert "3 scores were outside [0, 1] by rounding and are taken as 0 or 1" in known.notes
    table.loc[13, "probability"] = 1.001
    with pytest.raises(InputError, match=r"row 15, column 'probability': '1.001' is not usable"):
        read(table)
    with pytest.raises(InputError, match="decimal point"):
        read(table.astype({"probability": str}).assign(probability=lambda t: t["probability"].str.replace(".", ",")))


@pytest.mark.parametrize("word", ["gap", "worst", "es", "*", "Gap", " WORST "])
def test_groups_named_like_summaries_are_refused(word):
    with pytest.raises(InputError, match=r"summarise all groups.*rename it"):
        read(clean().assign(sex=lambda t: t["sex"].replace("F", word)))


def test_splits():
    table = clean()
    table.loc[:3, "split"] = "tset"
    with pytest.raises(InputError, match=r"row 2, column 'split': 'tset' is no split \(4 rows\).*'test'"):
        read(table)
    known = read(table.assign(split=table["split"].replace("tset", "Train")))
    assert len(known.table) == len(table) - 4 and "4 rows of split 'train' are left out" in known.notes
    found = audit(table.assign(split=table["split"].replace("tset", "train")), ["sex"], **FAST).table
    assert found.loc[found["group"] == "*", "note"].str.contains("4 rows of split 'train' are left out").all()


@pytest.mark.parametrize(("name", "default"), [("recipe", "model"), ("task", "task"), ("seed", 0)])
def test_runs_named_for_some_rows_alone_are_refused_and_for_none_are_told(name, default):
    table = clean().assign(**{name: "1"})
    table.loc[::2, name] = None
    with pytest.raises(InputError) as caught:
        read(table)
    assert [problem.row for problem in caught.value.problems] == list(range(2, 122, 2))
    known = read(table.assign(**{name: np.nan}))
    assert (known.table[name] == default).all()
    assert f"column '{name}' is empty: every row is '{default}'" in known.notes


@pytest.mark.parametrize(("seeds", "expected"), [(["1", "2"], [1, 2]), ([1.0, 2.0], [1, 2]), (["x", "y"], ["x", "y"])])
def test_seeds_may_be_numbers_of_any_kind_or_names(seeds, expected):
    table = pd.concat([clean().assign(seed=seed) for seed in seeds])
    assert sorted(read(table).table["seed"].unique()) == expected
    assert audit(table, ["sex"], **FAST).table["note"].str.contains("mean of 2 seeds").any()


def test_names_that_are_spelled_alike_are_told():
    table = clean().astype({"patient": str})
    table.loc[[4, 5], "patient"] = ["7", "007"]
    table.loc[[6, 7], "patient"] = ["8", "8.0"]
    table.loc[[8, 9], "sex"] = ["f", "F\u200b"]
    table = table.drop(columns="image")
    known = read(table)
    notes = [note for note in known.notes if "differ only in zeros" in note]
    assert len(notes) == 3 and known.table["patient"].isin(["7", "007", "8"]).sum() == 4
    assert any("'8' (1 row), '8.0' (1 row)" in note and "for the same" in note for note in notes)
    assert any("'007' (1 row), '7' (1 row)" in note and "for 2 different ones" in note for note in notes)
    assert any(note.startswith("sex: ") and "'F\\u200b' (1 row)" in note for note in notes)
    assert read(table.sample(frac=1, random_state=1)).notes == known.notes


@pytest.mark.parametrize("kind", ["text", "float"])
def test_patients_whose_number_lost_digits_are_refused_by_row(kind):
    table = clean()
    numbers = 123456789012345680 + 1000 * table["patient"]
    table["patient"] = numbers.astype(float) if kind == "float" else [f"{number:.5E}" for number in numbers]
    with pytest.raises(InputError, match="is a number that was rounded, so patients may share it") as caught:
        read(table)
    rounded = [problem for problem in caught.value.problems if "rounded" in problem.message]
    assert [problem.row for problem in rounded] == list(range(2, 122))
    assert {problem.column for problem in rounded} == {"patient"}
    assert len(read(table.assign(patient=numbers)).table) == 120  # with all digits


def test_domains_and_sites():
    table = clean()
    known = read(table.assign(domain=np.where(table["site"] == "north", "ID", "Ood ")))
    assert set(known.table["domain"]) == {"id", "ood"}
    known = read(table.assign(domain=np.where(table["site"] == "north", "internal", "external")))
    assert "domain: 'external', 'internal' is shown under its own name, neither id nor ood" in known.notes
    with pytest.raises(InputError, match="a domain cannot be called 'all'"):
        read(table.assign(domain="all"))
    with pytest.raises(InputError, match="'north' is a domain and a site"):
        read(table.assign(domain="north"))
    for word in ("all", "id", "ood"):
        with pytest.raises(InputError, match=f"a site cannot be called '{word}'"):
            read(table.assign(site=table["site"].replace("north", word)))
    table.loc[0:3, "site"] = "NA"
    assert "4 rows of unknown site are in the rows of no site" in read(table).notes


def test_only_keeps_to_levels_and_counts_the_rest():
    table = clean()
    table["dx"] = np.where(np.arange(len(table)) % 3 == 0, "nv", "mel")
    known = read(table, only={"dx": ["nv"]})
    assert len(known.table) == 40 and known.notes[0] == "only dx nv: 80 of 120 rows are left out"
    alone = audit(table[table["dx"] == "nv"], ["sex"], **FAST).table
    nevi = audit(table, ["sex"], only={"dx": ["nv"]}, **FAST).table
    pd.testing.assert_series_equal(nevi["estimate"], alone["estimate"])
    with pytest.raises(InputError, match=r"no row has 'nevus'"):
        read(table, only={"dx": ["nevus"]})
    with pytest.raises(InputError, match="no such column"):
        read(table, only={"diagnosis": ["nv"]})


def test_an_image_has_one_truth_in_a_task():
    table = clean()
    other = table.assign(recipe="other", truth=table["truth"].where(table.index != 5, 1 - table["truth"]))
    with pytest.raises(InputError, match="another truth than before"):
        read(pd.concat([table.assign(recipe="real"), other]))


def test_a_baseline_that_is_no_recipe_is_refused():
    with pytest.raises(InputError, match="no recipe is called 'reel'"):
        audit(clean(), ["sex"], baseline="reel", **FAST)


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """The bytes with some of them changed, taken out, or doubled."""
    place, kind = int(rng.integers(len(data))), int(rng.integers(4))
    noise = rng.integers(0, 256, int(rng.integers(1, 6)), dtype=np.uint8).tobytes()
    if kind == 0:
        return data[:place] + noise + data[place + len(noise) :]
    if kind == 1:
        return data[:place]
    if kind == 2:
        return data[:place] + noise + data[place:]
    return data[:place] + data[place + int(rng.integers(1, 40)) :]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet"])
def test_damaged_files_are_read_or_refused(tmp_path, suffix):
    stream = io.BytesIO()
    if suffix == "parquet":
        clean(30).to_parquet(stream)
    else:
        stream.write(clean(30).to_csv(index=False, sep="," if suffix == "csv" else "\t").encode())
    rng, path, refused = np.random.default_rng(1), tmp_path / f"t.{suffix}", 0
    for _ in range(70):
        path.write_bytes(mutated(stream.getvalue(), rng))
        try:
            read(path)
        except InputError as error:
            refused += 1
            assert error.problems and all(problem.mend for problem in error.problems)
    assert refused > 10

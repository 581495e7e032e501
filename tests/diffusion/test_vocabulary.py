"""Words to token numbers, and what is refused."""

import numpy as np
import pandas as pd
import pytest
import torch

from equigen.cohort import Cohort
from equigen.cohort.phantom import PhantomSettings, write_phantom
from equigen.diffusion import Vocabulary
from equigen.errors import InputError


def test_token_numbers_by_hand(words, conditions):
    """0 dropped, 1 unknown, 2 and up the levels."""
    assert words.sizes == [4, 5, 4, 4, 4]
    assert words.encode(conditions).tolist() == [[2, 2, 2, 2, 2], [3, 4, 3, 3, 3], [1, 4, 3, 1, 1], [3, 1, 2, 2, 3]]
    assert words.encode(conditions).dtype == torch.int64
    assert not bool((words.encode(conditions) == 0).any())  # dropping is training's matter


@pytest.mark.parametrize("missing", [None, float("nan"), np.float32("nan"), pd.NA, pd.NaT, ""])
def test_missing_is_unknown_never_a_level(missing):
    frame = pd.DataFrame({"attr.sex": pd.Series([missing, "male"], dtype=object)})
    assert Vocabulary({"attr.sex": ["female", "male"]}).encode(frame).tolist() == [[1], [3]]


def test_an_empty_list_of_findings_is_known_and_a_missing_one_is_not():
    words = Vocabulary({"label.f=a": ["absent", "present"]})
    assert words.encode(pd.DataFrame({"label.f": ["", None, "a"]})).tolist() == [[2], [1], [3]]


def test_a_finding_is_a_whole_word():
    words = Vocabulary({"label.f=mass": ["absent", "present"], "label.f=mass effect": ["absent", "present"]})
    assert words.encode(pd.DataFrame({"label.f": ["mass effect"]})).tolist() == [[2, 3]]


def test_unknown_levels_name_row_and_column(words, conditions):
    wrong = conditions.assign(**{"attr.sex": ["female", "Male", "x", None]})
    with pytest.raises(InputError, match="do not fit the generator") as caught:
        words.encode(wrong)
    found = [(problem.row, problem.column, problem.message) for problem in caught.value.problems]
    assert found == [
        (3, "attr.sex", "'Male' is unknown to this generator"),
        (4, "attr.sex", "'x' is unknown to this generator"),
    ]
    assert "female, male" in caught.value.problems[0].mend


def test_unknown_findings_are_refused_not_taken_for_absent(words, conditions):
    wrong = conditions.assign(**{"label.findings": ["Mass", "mass|oedema", "edema", None]})
    with pytest.raises(InputError) as caught:
        words.encode(wrong)
    found = [(problem.row, problem.column, problem.message.split("'")[1]) for problem in caught.value.problems]
    assert found == [(2, "label.findings", "Mass"), (3, "label.findings", "oedema")]
    assert "mass, edema" in caught.value.problems[0].mend


def test_missing_columns_are_all_named_once(words, conditions):
    with pytest.raises(InputError) as caught:
        words.encode(conditions.drop(columns=["label.findings", "attr.age"]))
    assert [problem.column for problem in caught.value.problems] == ["attr.age", "label.findings"]


def test_no_fields_and_no_rows(words, conditions):
    assert Vocabulary({}).encode(pd.DataFrame({"x": [1, 2]})).shape == (2, 0)
    assert words.encode(conditions.iloc[:0]).shape == (0, 5)


def test_other_columns_and_the_index_do_not_matter(words, conditions):
    other = conditions.assign(prompt="x", seed=3).set_index(pd.Index([9, 9, 3, 1]))
    assert torch.equal(words.encode(other), words.encode(conditions))


def test_the_vocabulary_of_a_cohort(tmp_path):
    folder = write_phantom(tmp_path, 12, 0, PhantomSettings(size=32), show=False)
    cohort = Cohort.read(folder / "cohort.yaml", show_progress=False)
    words = Vocabulary.from_cohort(cohort)
    assert words.fields == {
        "attr.race": ["asian", "black", "white"],
        "attr.sex": ["female", "male"],
        "label.glaucoma": ["healthy", "glaucoma"],
    }
    ids = words.encode(cohort.frame)
    assert torch.equal(ids[:, 0] - 2, torch.from_numpy(cohort.groups("race")))
    assert torch.equal(ids[:, 2] == 3, torch.from_numpy(cohort.targets("glaucoma")[0][:, 0] == 1))


def test_a_multilabel_cohort_has_a_field_a_finding():
    from types import SimpleNamespace

    spec = SimpleNamespace(kind="multilabel", levels=["mass", "edema"])
    words = Vocabulary.from_cohort(SimpleNamespace(attributes={}, labels={"findings": spec}))
    assert words.fields == {f"label.findings={name}": ["absent", "present"] for name in ("mass", "edema")}

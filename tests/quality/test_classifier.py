"""The judge as a classifier of images: what it learns from, what it says, and that rare levels get a fair chance."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from quality_images import ColourEncoder

from equigen.cohort import AttributeSpec, Cohort, LabelSpec, parse_spec
from equigen.errors import InputError
from equigen.quality.judge.classifier import FunctionClassifier, equal_priors, fit_classifier, predict_levels
from equigen.quality.judge.questions import Target

SPEC = {"name": "c", "table": "t.csv", "image": {"column": "f"}, "patient": None}
GROUPS = {"white": 40, "black": 160}
RARE = 0.1


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Cohort:
    """Brightness shows the race; the diagnosis, ill in a tenth, shows in nothing."""
    from PIL import Image

    folder, rng, rows = tmp_path_factory.mktemp("c"), np.random.default_rng(0), []
    for index in range(600):
        race = ["white", "black"][index % 2]
        pixels = np.clip(rng.normal(GROUPS[race], 10, (8, 8, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
        rows.append({"path": str(folder / f"{index}.png"), "image": f"{index}.png", "patient": f"p{index // 2}",
                     "attr.race": race, "label.dx": "ill" if rng.random() < RARE else "healthy",
                     "label.f": ["", "edema", "edema|nodule"][index % 3], "split": ["train", "val"][index // 2 % 2],
                     "domain": "id", "sha256": ""})  # fmt: skip
    labels = {"dx": LabelSpec("binary", ["healthy", "ill"], []), "f": LabelSpec("multilabel", ["edema", "nodule"], [])}
    return Cohort("c", parse_spec({**SPEC, "labels": {}, "attributes": {}}, "c"), folder, pd.DataFrame(rows), labels,
                  {"race": AttributeSpec(["white", "black"])})  # fmt: skip


@pytest.fixture(scope="module")
def judge(cohort):
    return fit_classifier(cohort, size=8, encoder=ColourEncoder(), show=False)


def flat(*levels) -> np.ndarray:
    rng = np.random.default_rng(9)
    return np.stack([np.clip(rng.normal(level, 10, (8, 8, 3)), 0, 255) for level in levels]).astype(np.uint8)


def test_it_reads_what_the_images_show(judge):
    found = predict_levels(judge, flat(*[40] * 20, *[160] * 20))
    names = [question.name for question in judge.targets]
    assert names == ["attr.race", "label.dx", "label.f edema", "label.f nodule"]
    assert (found["attr.race"].argmax(axis=1) == np.repeat([0, 1], 20)).all()
    assert found["attr.race"].max(axis=1).min() > 0.95


def test_a_rare_level_is_not_ruled_out_because_it_is_rare(judge):
    """The diagnosis cannot be seen: with equal chances beforehand, both levels stay near one half."""
    p = predict_levels(judge, flat(*[40] * 50))["label.dx"]
    assert np.abs(p - 0.5).max() < 0.25 and p.sum(axis=1) == pytest.approx(1)
    place = [question.name for question in judge.targets].index("label.dx")
    assert judge.shares[place][1] == pytest.approx(RARE, abs=0.04)
    assert judge.probes[place].probabilities(judge.encoder(flat(40))[0])[0, 1] < 0.2  # as it was before


def test_equal_priors_by_hand():
    np.testing.assert_allclose(equal_priors(np.array([[0.5, 0.3, 0.2]]), np.array([0.5, 0.3, 0.2])), 1 / 3)
    np.testing.assert_allclose(equal_priors(np.array([[0.8, 0.2]]), np.array([0.8, 0.2]) / 2), 0.5)
    np.testing.assert_allclose(equal_priors(np.array([[0.6, 0.4]]), np.array([0.75, 0.25])), [[1 / 3, 2 / 3]])


def test_it_knows_its_patients_and_says_what_it_is(judge, cohort):
    assert judge.patients == set(cohort.frame["patient"])
    assert judge.notes[0].endswith("learned from 600 real images of train and val at 8 px")
    same = fit_classifier(cohort, size=8, encoder=ColourEncoder(), show=False)
    assert judge.identity == same.identity and judge.identity.startswith("judge#")
    others = [fit_classifier(cohort.split("train"), size=8, encoder=ColourEncoder(), show=False),
              fit_classifier(cohort, size=8, encoder=ColourEncoder(), columns=["attr.race"], show=False),
              replace(judge, size=16)]  # fmt: skip
    assert len({judge.identity, *(other.identity for other in others)}) == 4


def test_test_images_are_refused_and_so_is_what_teaches_nothing(cohort):
    mixed = replace(cohort, frame=cohort.frame.assign(split=["test", *["val"] * 599]))
    with pytest.raises(InputError, match="column 'split': 1 images are of the test split"):
        fit_classifier(mixed, size=8, encoder=ColourEncoder(), show=False)
    with pytest.raises(InputError, match=r"column 'attr\.age': there is no such column"):
        fit_classifier(cohort, size=8, encoder=ColourEncoder(), columns=["attr.age"], show=False)
    with pytest.raises(InputError, match="teach a judge nothing"):
        fit_classifier(cohort.where(cohort.frame["attr.race"] == "white"), size=8, encoder=ColourEncoder(),
                       columns=["attr.race"], show=False)  # fmt: skip
    with pytest.raises(InputError, match="0 images"):
        fit_classifier(cohort.where(np.zeros(600, bool)), size=8, encoder=ColourEncoder(), show=False)


def test_images_of_another_size_are_refused(judge):
    with pytest.raises(InputError, match="images of 16 x 16 pixels"):
        judge(np.zeros((1, 16, 16, 3), np.uint8))


@pytest.mark.parametrize(
    "given",
    [{}, {"a": np.ones((2, 2))}, {"a": np.array([[0.5, 0.5], [np.nan, 1]])}, {"a": np.array([[1.5, -0.5]] * 2)},
     {"a": np.ones((3, 2)) / 2}, {"a": np.ones((2, 3)) / 3}],
)  # fmt: skip
def test_a_classifier_must_keep_its_word(given):
    own = FunctionClassifier(lambda images: given, [Target("a", ["x", "y"])], "mine")
    with pytest.raises(InputError, match="classifier mine returns invalid probabilities"):
        predict_levels(own, np.zeros((2, 4, 4, 3), np.uint8))


def test_a_findings_answer_is_found_by_its_name():
    question = Target("label.f", ["no edema", "edema"], "edema")
    own = FunctionClassifier(lambda images: {"label.f edema": [[0.2, 0.8]]}, [question], "mine")
    np.testing.assert_array_equal(predict_levels(own, np.zeros((1, 4, 4, 3), np.uint8))["label.f edema"], [[0.2, 0.8]])

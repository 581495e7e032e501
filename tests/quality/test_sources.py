"""The images of an evaluation, opened from paths as from memory."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from equigen.errors import InputError
from equigen.quality import EvaluateSettings, ImageSet, load_image_set, open_sources


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A table of six images of three patients with sex and dx, one of images alone, and the folder of the images."""
    folder, rng = tmp_path_factory.mktemp("place"), np.random.default_rng(0)
    (folder / "images").mkdir()
    rows = []
    for index in range(6):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f"images/{index}.png")
        rows.append(
            {"file": f"images/{index}.png", "patient": f"p{index // 2}", "sex": "FM"[index % 2], "dx": "ab"[index // 3]}
        )
    pd.DataFrame(rows).to_csv(folder / "real.csv", index=False)
    pd.DataFrame(rows)[["file", "sex", "dx"]].to_csv(folder / "fake.csv", index=False)
    return folder


def opened(real, generated, train=None, **settings):
    return open_sources(real, {"mine": generated}, train, EvaluateSettings(**settings))


def test_columns_of_the_settings_are_read_from_tables(place):
    sources = opened(place / "real.csv", place / "fake.csv", place / "real.csv", groups=["sex"], labels=["dx"])
    real, fake = sources.real.frame, sources.generated["mine"].frame
    assert list(real["attr.sex"]) == ["F", "M"] * 3 and list(real["label.dx"]) == ["a"] * 3 + ["b"] * 3
    assert real["patient"].nunique() == 3 and fake["patient"].nunique() == 6  # a generated image is its own patient
    assert list(sources.train.frame["label.dx"]) == list(real["label.dx"]) and sources.labels == ["dx"]
    assert str(place) in real["path"].iloc[0]


def test_a_label_that_restricts_a_table_is_read_and_not_judged(place):
    sources = opened(str(place / "real.csv"), str(place / "fake.csv"), only={"dx": ["a"]})
    assert "label.dx" in sources.real.frame and sources.labels == []
    assert opened(place / "real.csv", place / "fake.csv").labels is None
    both = opened(place / "real.csv", place / "fake.csv", only={"dx": ["a"]}, labels=["sex"])
    assert both.labels == ["sex"] and {"label.dx", "label.sex"} <= set(both.real.frame.columns)


def test_a_folder_has_images_alone_and_no_groups(place):
    sources = opened(place / "images", place / "images")
    assert len(sources.real.frame) == 6 and not sources.real.attributes
    with pytest.raises(InputError, match="A folder of images has no groups"):
        opened(place / "images", place / "images", groups=["sex"])


def test_the_path_of_a_cohort_brings_its_test_and_training_images(phantom_folder, phantom_cohort):
    for path in (phantom_folder, phantom_folder / "cohort.yaml"):
        sources = opened(path, phantom_folder)
        assert set(sources.real.frame["split"]) == {"test"} and set(sources.train.frame["split"]) == {"train"}
        assert set(sources.real.frame["domain"]) == set(sources.train.frame["domain"]) == {"id"}
        assert sources.labels is None and len(sources.generated["mine"]) == len(sources.real)
    val = phantom_cohort.split("val")
    assert opened(phantom_folder, phantom_folder, val).train is val  # what is given stands


def test_what_lies_in_memory_stays_what_it_is(phantom_cohort):
    frame, images = pd.DataFrame({"path": []}), ImageSet(pd.DataFrame(index=range(2)), np.zeros((2, 4, 4, 3), np.uint8))
    sources = open_sources(phantom_cohort, {"a": frame, "b": images}, None, EvaluateSettings(only={"dx": ["a"]}))
    assert sources.real is phantom_cohort and sources.generated["a"] is frame and sources.generated["b"] is images
    assert sources.train is None and sources.labels is None and sources.warnings == []


def test_a_set_that_is_not_finished_is_no_folder_of_images(place, tmp_path):
    (tmp_path / "generation.json").write_text("{}")
    with pytest.raises(InputError, match=r"there is no synthetic\.parquet"):
        load_image_set(opened(place / "real.csv", tmp_path).generated["mine"], "generated")


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("nothing.csv", {}, r"nothing.csv: there is no such table .there is: 'fake.csv'"),
        ("nothing", {}, "nothing: not found"),
        ("images/0.png", {}, "is neither a table .*nor a folder"),
        ("fake.csv", {}, r"column 'patient'.*--patient; none: every image is its own patient"),
        ("real.csv", {"image": "picture"}, r"column 'picture'.*name the column with --image"),
        ("real.csv", {"groups": ["sexx"]}, "sexx.*did you mean 'sex'"),
    ],
)
def test_a_path_that_cannot_be_opened_is_named_with_a_hint(place, name, settings, message):
    with pytest.raises(InputError, match=message):
        opened(place / name, place / "fake.csv", **settings)
    if name != "fake.csv":
        assert opened(place / "fake.csv", place / "fake.csv", patient=None).real.frame["patient"].nunique() == 6

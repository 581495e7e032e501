"""What can be wrong with a study of a base, of screening or of pairs: told before the first training, with its key."""

import pytest
from study_folder import StudyFolder
from tiny_pipelines import tiny_pixart, tiny_sd

from equigen.errors import InputError
from equigen.study import read_study, run_study
from equigen.study.settings import resolve_training_paths

PAIRS = {"policy": "counterfactual", "attribute": "sex", "size": 4, "steps": 2}


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    place = tmp_path_factory.mktemp("bases")
    return {"sd": tiny_sd(place / "sd"), "pixart": tiny_pixart(place / "pixart")}


@pytest.fixture(autouse=True)
def nothing_expensive(monkeypatch):
    """No training, latent or image may be made in these tests."""
    for name in ("encode", "encode_store", "train", "generate"):
        monkeypatch.setattr(f"equigen.study.study.{name}", lambda *_, **__: pytest.fail("expensive work began"))


@pytest.fixture
def study(phantom_folder, tmp_path):
    study = StudyFolder(phantom_folder, tmp_path)
    study.values["mechanisms"] = {"none": {}}
    return study


def refused(study, changes) -> str:
    with pytest.raises(InputError) as caught:
        run_study(study.write(), study.out, changes, show=False)
    assert str(study.file) in str(caught.value)
    assert not study.out.exists() or {path.name for path in study.out.iterdir() if path.name != ".lock"} <= {"cohort"}
    return str(caught.value)


def based(place, **more):
    return {"base": str(place), "images": 16, "batch": 8, "probe_images": 8, **more}


@pytest.mark.parametrize(("kind", "changes", "words"), [
    ("sd", {"autoencoder": "shipped"}, "autoencoder: a base has its own, leave it out"),
    ("sd", {"size": 30}, "size: size 30 (use a multiple of 4"),
    ("sd", {"cohort.prompt": None}, "train: the cohort has no 'prompt'"),
    ("sd", {"train.preset": "tiny"}, "train: preset and prediction are the base's own"),
    ("sd", {"train.base": "nobody/nothing/here"}, "train.base: is no folder"),
    ("sd", {"train.tune": "unet", "train.rank": 4}, "train: rank and alpha are LoRA's"),
    ("sd", {"plans.match.guidance": 0.5}, "plans.match: guidance 0.5 (use 1 or more"),
    ("sd", {"plans.match.steps": 2000}, "plans.match: 2000 steps"),
    ("pixart", {"train.tune": "lora+text"}, "train: its text encoder is a T5EncoderModel"),
    ("pixart", {"plans.match.guidance_low": 0.5}, "plans.match: PixArtAlphaPipeline cannot change it between steps"),
])  # fmt: skip
def test_a_base_that_does_not_fit_is_told_before_any_training(study, bases, kind, changes, words):
    study.values["train"] = based(bases[kind])
    assert words in refused(study, changes)


@pytest.mark.parametrize(("changes", "words"), [
    ({"plans.match.negative": "blur"}, "plans.match: 'blur' (leave it empty: this generator takes attributes"),
    ({"plans.match.solver": "eulre"}, "plans.match: solver 'eulre' is unknown (use one of dpm++"),
    ({"plans.match.guidance_high": 1.5}, "plans.match.guidance_high: Input should be less than or equal to 1"),
    ({"plans.match.guidance_low": 0.9, "plans.match.guidance_high": 0.2}, "plans.match: 0.9 (use a noise level"),
    ({"plans.match.attribute": "sex"}, "plans.match: attribute 'sex' with the policy match"),
    ({"pairs": {"plan": "flop"}}, "pairs.plan 'flop' is not among plans (match, balanced"),
    ({"pairs": {"plan": "match"}}, "pairs.plan 'match' has the policy match: name a plan with the policy counterf"),
    ({"plans.flip": {**PAIRS, "attribute": "age"}, "pairs": {"plan": "flip"}}, "plans.flip: attribute 'age' is unkn"),
    ({"plans.flip": PAIRS, "pairs": {"plan": "flip", "min_patients": 90}}, "pairs: no judge of label.glaucoma"),
    ({"plans.match": PAIRS, "screen": {}}, "evaluate.plan 'match' is counterfactual, and with 'screen' its pairs"),
    ({"screen": {"field": ["attr.sex"]}}, "screen.field: unknown key (did you mean 'fields'?)"),
    ({"screen": {"fields": ["attr.age"], "min_patients": 2}}, "screen: there is no such column"),
    ({"screen": {"fields": ["attr.sex"], "min_patients": 90}}, "screen: no judge of attr.sex: fewer than two levels"),
    ({"screen": {"threshold": 2}}, "screen.threshold: Input should be less than or equal to 1"),
    ({"screen": {"encoder": "inception"}}, "screen.encoder: no encoder 'inception'"),
])  # fmt: skip
def test_plans_screening_and_pairs_are_checked_before_any_training(study, changes, words):
    study.values["train"] |= {"images": 16}
    assert words in refused(study, changes)


def test_captions_that_are_not_there_are_missed_by_generators_that_read_them_alone(study, bases, monkeypatch):
    """Each race and sex has its captions, but no healthy man is described."""
    import pandas as pd

    table = pd.read_csv(study.values["cohort"]["table"])
    said = [None if (sex, dx) == ("male", "healthy") else f"an eye {row}"
            for row, (sex, dx) in enumerate(zip(table["sex"], table["glaucoma"], strict=True))]  # fmt: skip
    table.assign(caption=said).to_csv(study.place / "told.csv", index=False)
    study.values["cohort"] |= {"table": "told.csv", "prompt": {"column": "caption"}}
    study.values["train"] = based(bases["sd"])
    text = refused(study, {})
    assert "plans.match: no training image with label.glaucoma = healthy, attr.race = " in text and "male" in text
    assert "attr.sex = female" not in text
    monkeypatch.setattr("equigen.study.study.Study.encode", lambda self: (_ for _ in ()).throw(Stop()))
    study.values["train"] = {"preset": "tiny", "images": 16, "batch": 8, "probe_images": 8}  # no captions
    with pytest.raises(Stop):  # all checks were passed
        study.run()


class Stop(BaseException):
    pass


def test_folders_are_found_beside_the_file_and_names_of_the_hub_stay(tmp_path):
    (tmp_path / "models/sd").mkdir(parents=True)
    given = {"base": "models/sd", "start": "g", "text_encoder": "minilm", "images": 3}
    there = str((tmp_path / "models/sd").resolve())
    assert resolve_training_paths(given, tmp_path) == {**given, "base": there}
    assert resolve_training_paths({"base": "owner/name"}, tmp_path) == {"base": "owner/name"}


def test_the_same_plans_without_new_settings_ask_for_the_same(study):
    """What a finished run was made with counts as unchanged: settings that were not given are not told."""
    from equigen.study.starting_points import plan_arguments
    from equigen.training import TrainSettings

    class NoPrompts:
        class spec:
            prompt = None

    asked = read_study(study.write()).plans["match"]
    expected = {"policy": "match", "size": 36, "steps": 2, "seed": 0, "guidance": 2.0}
    assert plan_arguments(asked, NoPrompts, TrainSettings()) == expected


def test_a_generator_that_is_gone_on_from_is_found_beside_the_file_and_looked_at(study, generator):
    (study.place / "before").symlink_to(generator.folder)
    study.values["train"] = {"preset": "tiny", "start": "before", "images": 16, "batch": 8, "probe_images": 8}
    more = {"cohort.attributes.race.levels": ["asian", "black", "white", "x"]}
    assert "train.start: has another conditions (attributes and labels with their levels)" in refused(study, more)

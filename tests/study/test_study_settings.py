"""What study.yaml may say: every fault named with file and key, before anything expensive."""

import pytest
import yaml

from equigen.cohort.phantom import PhantomSettings
from equigen.config import parse_override, parse_scalars
from equigen.errors import InputError
from equigen.study import StudySettings, read_study, run_study
from equigen.study.checks import PHANTOM_LABELS, generator_settings
from equigen.study.mechanisms import mechanism_facts


@pytest.fixture(autouse=True)
def nothing_expensive(monkeypatch, request):
    """No image may be read, drawn or encoded in these tests."""
    for name in ("equigen.study.workspace.write_phantom", "equigen.study.study.encode", "equigen.study.study.train"):
        monkeypatch.setattr(name, lambda *_, **__: pytest.fail("expensive work began"))
    if "reads_cohort" not in request.fixturenames:
        for name in ("from_spec", "read"):
            reader = f"equigen.study.workspace.Cohort.{name}"
            monkeypatch.setattr(reader, lambda *_, **__: pytest.fail("images were read"))


@pytest.fixture
def reads_cohort():
    """This test may read the cohort."""


def refused(study, overrides=None) -> str:
    with pytest.raises(InputError) as caught:
        run_study(study.write(), study.out, overrides, show=False)
    assert str(study.file) in str(caught.value)
    assert not study.out.exists()
    return str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("mechanism", {}, "mechanism: unknown key (did you mean 'mechanisms'?)"),
        ("evaluate.replicate", 30, "evaluate.replicate: unknown key (did you mean 'replicates'?)"),
        ("plans.match.stepps", 3, "plans.match.stepps: unknown key (did you mean 'steps'?)"),
        ("plans.third", {"size": 3}, "plans.third.policy: the key is missing (add 'policy')"),
        ("plans.match.policy", "fair", "plans.match.policy: Input should be 'match', 'balanced', 'uniform'"),
        ("plans.match.size", "many", "plans.match.size: Input should be a valid integer"),
        ("size", "big", "size: Input should be a valid integer, unable to parse string as an integer, not 'big'"),
        ("size", 36, "size: "),  # the shipped autoencoder makes one latent of 8 pixels
        ("evaluate.plan", "mach", "evaluate.plan 'mach' is not among plans (match, balanced)"),
        ("diagnose.plan", "none", "diagnose.plan 'none' is not among plans"),
        ("diagnose.ratios", [-1], "diagnose.ratios.0: Input should be greater than or equal to 0"),
        ("diagnose.label", "glaucom", "diagnose.label: 'glaucom' is not a label of the cohort (did you mean 'gl"),
        ("evaluate.groups", ["rase"], "evaluate.groups: 'rase' is not an attribute of the cohort (did you mean 'ra"),
        ("audit.groups", ["age"], "audit.groups: 'age' is not an attribute of the cohort (there is: 'race', 'sex')"),
        ("evaluate.encoder", "inception", "evaluate.encoder: no encoder 'inception'"),
        ("mechanisms.pertubation", {}, "mechanisms.pertubation: there is no mechanism 'pertubation' (did you mean"),
        ("mechanisms", {}, "mechanisms: "),
        ("mechanisms.real", {"mechanism": "none"}, "mechanisms.real: the name means something else"),
        ("mechanisms.a/b", {"mechanism": "none"}, "'a/b' cannot name a folder"),
        ("mechanisms", {"my.py:Tilt": {}}, "'my.py:Tilt' cannot name a folder: write tilt: {mechanism: my.py:Tilt}"),
        ("mechanisms", {"t": {"mechanism": "my.py:Tilt"}}, "my.py: there is no such file (check the path)"),
        ("seeds", [], "seeds: List should have at least 1 item"),
        ("seeds", [1, 1], "seeds [1, 1] names a seed twice"),
        ("train.image", 5, "train.image: unknown key (did you mean 'images'?)"),
        ("train.preset", "huge", "train.preset: Input should be 'tiny', 'small' or 'base', not 'huge'"),
        ("train.seed", 1, "train.seed is set elsewhere: use 'size', 'mechanisms' and 'seeds'"),
        ("phantom", {"images": 100}, "give either 'cohort' or 'phantom'"),
        ("cohort", None, "give either 'cohort' or 'phantom'"),
        ("cohort", ["a"], "cohort: Input should be a valid"),
    ],
)
def test_faults_of_a_study_name_file_and_key_before_any_work(study, key, value, words):
    assert words in refused(study, {key: value})


def test_several_faults_are_told_together(study):
    text = refused(study, {"evaluate.replicates": 3, "seeds": [], "audit.group": ["sex"]})
    assert all(words in text for words in ("evaluate.replicates", "seeds", "audit.group: unknown key"))


def test_faults_of_a_cohort_within_a_study_name_the_study(study):
    study.values["cohort"]["pattient"] = "p"
    text = refused(study)
    assert "pattient: unknown key" in text and "did you mean 'patient'?" in text


def test_settings_of_a_mechanism_are_checked_on_a_phantom_before_it_is_drawn(study):
    del study.values["cohort"]
    study.values["phantom"] = {"images": 100}
    study.values["mechanisms"] = {"perturbation": {"windows": 5}}
    assert "mechanisms.perturbation: 'windows' is not known" in refused(study)
    study.values["mechanisms"] = {"perturbation": {"variant": "better"}}
    assert "mechanisms.perturbation: variant 'better' is not known" in refused(study)


def test_a_mechanism_of_a_file_is_relative_to_the_study_and_its_faults_name_the_key(study):
    study.place.mkdir(parents=True, exist_ok=True)
    (study.place / "mine").mkdir()
    text = "from equigen.equity.none import UniformWeights\n\n\nclass Flat(UniformWeights):\n    pass\n"
    (study.place / "mine" / "flat.py").write_text(text)
    study.values["mechanisms"] = {"none": {}, "flat": {"mechanism": "mine/flat.py:Flat"}}
    settings = read_study(study.write())
    runs = generator_settings(settings, study.place, "study.yaml")
    assert runs["flat"].mechanism.startswith(f"{(study.place / 'mine' / 'flat.py').resolve()}:Flat@")
    digest = runs["flat"].mechanism[-16:]
    assert mechanism_facts(runs) == {"Mechanism flat": f"Flat in flat.py, SHA-256 {digest}"}
    study.values["mechanisms"]["flat"] = {"mechanism": "mine/flat.py:Falt"}
    assert "mechanisms.flat: " in refused(study) and "did you mean 'Flat'?" in refused(study)
    del study.values["cohort"]
    study.values["phantom"] = {"images": 100}
    study.values["mechanisms"]["flat"] = {"mechanism": "mine/flat.py:Flat", "power": 3}
    assert "mechanisms.flat: 'power' is not known (it takes no settings)" in refused(study)
    (study.place / "mine" / "flat.py").write_text(text + "\n1 / 0\n")
    assert "running it failed at line 7: ZeroDivisionError" in refused(study)


def test_what_is_known_of_a_phantom_beforehand_is_true(phantom_cohort):
    shape = PhantomSettings()
    assert tuple(phantom_cohort.labels) == PHANTOM_LABELS
    levels = {name: spec.levels for name, spec in phantom_cohort.attributes.items()}
    assert levels == {"race": list(shape.races), "sex": list(shape.sexes)}


def test_a_missing_study_and_a_file_that_is_no_yaml(tmp_path):
    with pytest.raises(InputError, match=r"nowhere.yaml: No such file or directory \(check the path\)"):
        run_study(tmp_path / "nowhere.yaml")
    (tmp_path / "bad.yaml").write_text("name: x\nsize: [1\n")
    with pytest.raises(InputError, match=r"bad.yaml: line 3"):
        run_study(tmp_path / "bad.yaml")
    (tmp_path / "nameless.yaml").write_text("phantom: {}\n")
    with pytest.raises(InputError, match=r"nameless.yaml: name: the key is missing \(add 'name'\)"):
        run_study(tmp_path / "nameless.yaml")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mechanisms.perturbation.minimum": 8}, "no attribute has two groups with 8 images"),
        ({"cohort.split.fractions": {"train": 0.5, "val": 0.0, "test": 0.5}}, "split val has no image"),
        ({"cohort.split.fractions": {"train": 0.8, "val": 0.2}}, "split test (in distribution) has no image"),
        ({"mechanisms.perturbation.variant": "better"}, "variant 'better' is not known"),
    ],
)
def test_what_only_the_cohort_can_tell_comes_before_the_first_training(study, reads_cohort, change, words):
    with pytest.raises(InputError) as caught:
        run_study(study.write(), study.out, change, show=False)
    assert words in str(caught.value)
    assert {path.name for path in study.out.iterdir() if path.name != ".lock"} == {"cohort"}


def test_a_plan_without_rows_comes_before_the_first_training(study, reads_cohort):
    study.values["plans"]["balanced"]["policy"] = "complement"
    study.values["cohort"]["attributes"] = {}
    study.values["cohort"]["prompt"] = None
    study.values["mechanisms"] = {"none": None}
    with pytest.raises(InputError, match=r"plans.balanced: asks for no image"):
        run_study(study.write(), study.out, show=False)


def test_overrides_reach_every_depth_and_are_left_as_they_are(study):
    given = {
        "train": {"preset": "tiny"},
        "train.images": 7,
        "plans.new.policy": "uniform",
        "mechanisms.none": {},
        "evaluate.groups": ["sex"],
        "phantom": None,
    }
    kept = {**given, "train": dict(given["train"])}
    settings = read_study(study.write(), given)
    assert given == kept
    assert settings.train == {"preset": "tiny", "images": 7}
    assert settings.plans["new"].policy == "uniform" and settings.plans["match"].size == 36
    assert settings.evaluate.groups == ["sex"]


def test_overrides_of_an_inline_cohort_and_of_the_whole_cohort(study):
    settings = read_study(study.write(), {"cohort.table": "mine.csv", "cohort.split.seed": 5, "cohort.site": None})
    assert settings.cohort["table"] == "mine.csv" and settings.cohort["split"]["seed"] == 5
    assert settings.cohort["split"]["fractions"] == {"train": "0.35", "val": "0.15", "test": "0.5"}
    assert settings.cohort["site"] is None
    assert read_study(study.write(), {"cohort": "other.yaml"}).cohort == "other.yaml"
    assert read_study(study.write()).cohort["table"] == study.values["cohort"]["table"]


def test_an_override_through_something_that_has_no_keys_is_refused(study):
    study.values["cohort"] = "cohort.yaml"
    with pytest.raises(InputError, match=r"'cohort.table' cannot be set: 'cohort' is 'cohort.yaml', which has no"):
        read_study(study.write(), {"cohort.table": "mine.csv"})
    with pytest.raises(InputError, match=r"'size.x' cannot be set: 'size' is 32"):
        read_study(study.write(), {"size.x": 1})


def test_a_study_without_a_phantom_part_can_be_given_one(study):
    del study.values["cohort"]
    assert read_study(study.write(), {"phantom.images": 60}).phantom.images == 60


def test_scalars_are_read_as_numbers_only_where_they_are():
    values = {"a": "1e-4", "b": "-2", "c": "0.5", "d": "true", "e": "~", "f": ["3", "x"], "g": {"h": "1_0"}}
    assert parse_scalars(values) == {"a": 1e-4, "b": -2, "c": 0.5, "d": True, "e": None, "f": [3, "x"], "g": {"h": 10}}
    for text in ("a: b", "[x", "1:30", "#1", "", "2024-01-01", "2024-13-45", "@x", "under 40"):
        assert parse_scalars(text) == text


def test_names_stay_text(study):
    study.values["name"] = "2024"
    assert read_study(study.write()).name == "2024"
    assert parse_override("name", "2024") == "2024"
    assert parse_override("cohort.labels.dx.levels", "[no, yes]") == ["no", "yes"]
    assert parse_override("cohort.site", "null") is None
    assert parse_override("mechanisms.perturbation", "{beta: 1e-1, variant: released}") == {
        "beta": 0.1,
        "variant": "released",
    }
    with pytest.raises(InputError, match=r"'seeds=\[1' is no YAML"):
        parse_override("seeds", "[1")


def test_a_mechanism_without_settings_may_be_written_empty(study):
    study.write()
    study.file.write_text(study.file.read_text().replace("  none: {}\n", "  none:\n"))
    assert yaml.safe_load(study.file.read_text())["mechanisms"]["none"] is None
    assert read_study(study.file).mechanisms["none"] == {}


def test_the_shipped_demo_and_the_examples_are_studies():
    from importlib import resources
    from pathlib import Path

    assert isinstance(read_study(Path(str(resources.files("equigen.study") / "demo.yaml"))), StudySettings)
    files = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))
    studies = [file for file in files if not file.name.startswith("compare-")]
    assert len(studies) >= 2 and all(read_study(file).cohort is not None for file in studies)


def test_mistakes_of_the_study_and_of_its_training_are_told_together(tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text("name: a\nphantom: {images: 60}\nseds: [1]\nevaluate: {metric: kd}\ntrain: {imags: 3}\n")
    with pytest.raises(InputError) as caught:
        read_study(file)
    assert {problem.message for problem in caught.value.problems} == {
        "seds: unknown key", "evaluate.metric: unknown key", "train.imags: unknown key",
    }  # fmt: skip

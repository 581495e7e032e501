"""The command `equigen list`: every name that can be used, without heavy libraries."""

import json
import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest
import yaml
from typer.testing import CliRunner

from equigen.cli import app
from equigen.cli.listing import file_schema
from equigen.comparison import ComparisonSettings
from equigen.equity import Groups, build_mechanism, registry
from equigen.fairness import AuditSettings, auc
from equigen.quality import EvaluateSettings
from equigen.quality.encoders import ENCODERS
from equigen.quality.measurement import KINDS, METRICS
from equigen.schema import setting_rows, type_text
from equigen.study import StudySettings
from equigen.training import TrainSettings

GROUPS = Groups((("sex", ("female", "male")), ("age", ("young", "old"))))


def listed(*words):
    outcome = CliRunner().invoke(app, ["list", *words])
    assert outcome.exit_code == 0, outcome.output
    return outcome.stdout


def test_bare_list_says_what_it_lists():
    text = listed()
    assert all(f"equigen list {word}" in text for word in ("mechanisms", "metrics", "encoders", "settings"))


def test_listed_settings_of_mechanisms_are_those_that_they_take():
    rows = {row["name"]: row for row in json.loads(listed("mechanisms", "--json"))}
    assert list(rows) == list(registry.BUILT_IN) and all(row["description"].endswith(".") for row in rows.values())
    corrected = rows["perturbation"]["settings"]["corrected"]
    assert rows["perturbation"]["settings"]["variant"] == "corrected" and corrected["window_images"] == 10_000
    for name, row in rows.items():
        values = {key: value for key, value in row["settings"].items() if not isinstance(value, dict)}
        build_mechanism(name, GROUPS, 0, **values)  # refuses a setting that it has not
        for variant in ("corrected", "released") if name == "perturbation" else ():
            build_mechanism(name, GROUPS, 0, variant=variant, **row["settings"][variant])
    assert rows["balanced"]["settings"] == {"combine": "joint", "max_weight": 10.0}
    text = listed("mechanisms")
    assert "    settings: combine (joint), max_weight (10.0)" in text and "FILE.py:CLASS" in text


def test_a_mechanism_of_a_package_is_listed_and_not_loaded(monkeypatch):
    points = (EntryPoint("mine", "absent_package:Mine", registry.ENTRY_POINTS),)
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    assert json.loads(listed("mechanisms", "--json"))[-1] == {
        "name": "mine", "description": "Of a package: absent_package:Mine.", "settings": None,
    }  # fmt: skip
    assert "mine\n    Of a package: absent_package:Mine." in listed("mechanisms")


def test_every_metric_is_listed_with_its_direction_and_range():
    rows = {row["name"]: row for row in json.loads(listed("metrics", "--json"))}
    assert set(METRICS) <= {name for name, row in rows.items() if row["command"] == "evaluate"}
    assert auc.__name__ in {name for name, row in rows.items() if row["command"] == "audit"}
    assert all(row["range"] and row["meaning"] for row in rows.values())
    directions = {name: kind for name, kind in KINDS.items() if kind in ("lower", "higher") and name in rows}
    assert directions and {name: rows[name]["better"] for name in directions} == directions
    assert "kd  (equigen evaluate; lower is better; about 0 and up (shown x 1000))\n    Kernel distance" in listed(
        "metrics"
    )


def test_every_encoder_is_listed():
    assert {row["form"]: row["description"] for row in json.loads(listed("encoders", "--json"))} == ENCODERS
    assert all(f"{form}\n" in listed("encoders") for form in ENCODERS)


@pytest.mark.parametrize(
    ("file", "model"),
    [
        ("study", StudySettings),
        ("comparison", ComparisonSettings),
        ("train", TrainSettings),
        ("evaluate", EvaluateSettings),
        ("audit", AuditSettings),
    ],
)
def test_every_setting_has_a_type_and_a_description(file, model):
    rows = json.loads(listed("settings", file, "--json"))
    assert set(model.model_fields) == {row["key"].partition(".")[0] for row in rows}
    assert len({row["key"] for row in rows}) == len(rows)
    undescribed = [row["key"] for row in rows if not row["description"] or not row["type"]]
    assert undescribed == []
    assert not [row["key"] for row in rows if row["type"] == "any value"]


def test_types_ranges_defaults_and_nested_keys():
    rows = {row.key: row for row in setting_rows(file_schema("study"))}
    expected = {
        "name": ("text", "required"),
        "size": ("integer, 16 or more", "64"),
        "seeds": ("list of integer", "[0]"),
        "train.learning_rate": ("number, above 0", "0.0006"),
        "train.schedule": ("cosine | constant", "cosine"),
        "train.alpha": ("number, above 0", "null"),
        "train.gradient_checkpointing": ("true or false", "false"),
        "plans": ("mapping", "match, balanced"),
        "plans.NAME.guidance_high": ("number, above 0, at most 1", "null"),
        "plans.NAME.policy": ("match | balanced | uniform | complement | counterfactual", "required"),
        "screen.threshold": ("number, above 0, at most 1", "null"),
        "mechanisms": ("mapping", "none, perturbation"),
        "cohort": ("mapping or text", "null"),
    }
    assert {key: (rows[key].type, rows[key].default) for key in expected} == expected
    assert not {"train.size", "train.seed", "train.mechanism"} & set(rows)  # set elsewhere
    assert (
        type_text({"anyOf": [{"const": "a"}, {"type": "array", "items": {"type": "number"}}]}) == "a or list of number"
    )
    text = listed("settings", "study")
    assert "size  (integer, 16 or more; default 64)\n    side of all images in pixels" in text


def keys_of(schema, definitions, value, trail=""):
    """Keys of a YAML value that a schema with closed mappings does not know; an oracle for the examples."""
    options = [
        definitions[option["$ref"].rpartition("/")[2]] if "$ref" in option else option
        for option in schema.get("anyOf", [schema])
    ]
    closed = next((option for option in options if "properties" in option), None)
    inner = next((option["additionalProperties"] for option in options
                  if isinstance(option.get("additionalProperties"), dict)), None)  # fmt: skip
    if not isinstance(value, dict):
        return []
    if closed is not None:
        assert closed["additionalProperties"] is False
        unknown = [f"{trail}{key}" for key in value if key not in closed["properties"]]
        parts = [(key, closed["properties"][key]) for key in value if key in closed["properties"]]
    else:
        unknown, parts = [], [(key, inner) for key in value if inner is not None]
    return unknown + [word for key, part in parts for word in keys_of(part, definitions, value[key], f"{trail}{key}.")]


def test_the_schema_knows_every_key_of_the_examples_and_marks_a_typo(examples):
    for file, paths in examples.items():
        schema = json.loads(listed("settings", file, "--schema"))
        assert schema["$schema"].startswith("https://json-schema.org/") and schema["type"] == "object"
        for path in paths:
            values = yaml.safe_load(path.read_text())
            assert keys_of(schema, schema["$defs"], values) == []
            assert keys_of(schema, schema["$defs"], {**values, "train": {"imags": 1}}) == ["train.imags"]
    pretrain = schema["properties"]["pretrain"]["anyOf"]
    assert pretrain == [{"$ref": "#/$defs/TrainSettings"}, {"type": "null"}]


@pytest.fixture
def examples(request):
    folder = request.config.rootpath / "examples"
    studies = [*folder.glob("*.yaml"), request.config.rootpath / "src" / "equigen" / "study" / "demo.yaml"]
    found = {
        "study": [path for path in studies if not path.name.startswith("compare-")],
        "comparison": [path for path in studies if path.name.startswith("compare-")],
    }
    assert all(found.values())
    return found


def test_the_help_of_train_is_the_description_of_its_settings():
    outcome = CliRunner().invoke(app, ["train", "--help"], env={"COLUMNS": "400", "TERMINAL_WIDTH": "400"})
    text = " ".join(outcome.output.replace("│", " ").split())
    for name in ("images", "rank", "min_snr", "snapshot_every"):
        field = TrainSettings.model_fields[name]
        assert f"{field.description[0].upper()}{field.description[1:]}. [default: ({field.default})]" in text
    assert "--preset tiny|small|base" in text


def test_the_page_of_settings_is_what_the_code_says(request):
    program = "import runpy, sys; print(runpy.run_path(sys.argv[1])['settings_page'](), end='')"
    tool = request.config.rootpath / "tools" / "settings_page.py"
    done = subprocess.run([sys.executable, "-c", program, str(tool)], capture_output=True, text=True, check=True)
    page = (request.config.rootpath / "docs" / "settings.md").read_text()
    assert page == done.stdout, "run python tools/settings_page.py"


def test_lists_load_no_heavy_library(tmp_path):
    program = """
import sys
from typer.testing import CliRunner
from equigen.cli import app
for words in ([], ["mechanisms"], ["metrics"], ["encoders"], ["settings"], ["settings", "comparison", "--schema"]):
    outcome = CliRunner().invoke(app, ["list", *words])
    assert outcome.exit_code == 0 and outcome.output, words
print(sorted({"torch", "diffusers", "sklearn", "matplotlib", "scipy"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.strip() == "[]"

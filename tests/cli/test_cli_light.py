"""A command that only reports a mistake loads no heavy library."""

import subprocess
import sys

import pytest

SCRIPT = """
import sys
from typer.testing import CliRunner
from equigen.cli import app
result = CliRunner().invoke(app, sys.argv[1:])
print(result.exit_code, sorted({"torch", "diffusers", "sklearn", "matplotlib"} & set(sys.modules)))
print(result.output)
"""


@pytest.mark.parametrize(
    ("arguments", "text", "message"),
    [
        (["run", "FILE"], "name: t\ncohort: c.yaml\ntrain: {imags: 3}\n", "did you mean 'images'"),
        (["run", "FILE", "--set", "seds=[1]"], "name: t\ncohort: c.yaml\n", "did you mean 'seeds'"),
        (["run", "absent.yaml"], "", "absent.yaml"),
        (["compare", "FILE"], "name: t\nphantom: {images: 20}\n", "greater than or equal to 50"),
        (["train", "FILE", "--images", "0"], "name: t\n", "images"),
        (["train", "FILE", "--mechanism", "perturbatio"], "name: t\n", "'perturbatio' is not known (use one of: none,"),
        (["train", "FILE", "--mechanism", "my.py:Tilt"], "name: t\n", "my.py: there is no such file"),
        (["run", "FILE"], "name: t\ncohort: c.yaml\nmechanisms: {nnone: {}}\n", "there is no mechanism 'nnone'"),
        (["evaluate", "--real", "no.csv", "--generated", "no.csv", "--out", "OUT"], "", "no.csv"),
        (["audit", "no.csv", "--truth", "y", "--score", "p", "--out", "OUT"], "", "no.csv"),
        (["cohort", "check", "FILE"], "nme: x\n", "nme"),
    ],
)
def test_a_mistake_is_told_without_heavy_libraries(arguments, text, message, tmp_path):
    (tmp_path / "settings.yaml").write_text(text)
    names = {"FILE": str(tmp_path / "settings.yaml"), "OUT": str(tmp_path / "out")}
    line = [sys.executable, "-c", SCRIPT, *(names.get(word, word) for word in arguments)]
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, check=True)
    status, _, output = done.stdout.partition("\n")
    assert status == "2 []"
    assert message in " ".join(f"{output} {done.stderr}".split())


@pytest.mark.parametrize(("command", "key"), [("run", "imags"), ("compare", "mechanism")])
def test_a_misspelt_key_and_the_help_load_not_even_pandas(command, key, tmp_path):
    script = SCRIPT.replace('"torch", ', '"torch", "pandas", "numpy", "pyarrow", ')
    file = tmp_path / "settings.yaml"
    file.write_text(f"name: t\nphantom: {{images: 60}}\n{key}: {{x: 3}}\n")
    for line, status in ([[command, str(file)], "2 []"], [["--help"], "0 []"]):
        done = subprocess.run([sys.executable, "-c", script, *line], capture_output=True, text=True, check=True)
        assert done.stdout.partition("\n")[0] == status

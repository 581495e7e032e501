"""The examples that documents show are run as a reader would run them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from equigen.equity import build_mechanism, mechanism_reference
from equigen.equity.groups import Groups
from equigen.files import read_json

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


@pytest.fixture
def execute(tmp_path):
    """execute(name): the output of an example that wrote into ``tmp_path``; a warning in it is an error."""

    def run(name):
        command = [sys.executable, "-W", "error", str(EXAMPLES / name), "result"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_from_images_to_a_report(execute, tmp_path):
    output = execute("phantom.py")
    assert "Cohort 'phantom': 400 images" in output and "Run 'balanced' (balanced, seed 0, 160 images seen)" in output
    assert "female" in output and "male" in output and "null_high" in output and "Empty DataFrame" not in output
    assert "NaN" not in output
    report = read_json(tmp_path / "result" / "report" / "report.json")
    assert {row[report["quality"]["columns"].index("metric")] for row in report["quality"]["rows"]} == {"kd"}


def test_the_audit_finds_the_gap_that_is_there_and_no_other(execute, tmp_path):
    output = execute("audit.py")
    assert "AUC gap by sex: 0.007, no more than chance gives" in output
    assert "AUC gap by age: 0.191, more than chance gives" in output
    assert (tmp_path / "result" / "report" / "index.html").is_file()
    written = pd.read_csv(tmp_path / "result" / "predictions.csv")
    older, younger = (written[(written["age"] == age) & (written["split"] == "test")] for age in
                      ("60 and over", "under 60"))  # fmt: skip
    gap = pair_share(younger) - pair_share(older)
    assert f"{gap:.3f}" == "0.191"


def pair_share(rows):
    """AUC as the share of pairs of an ill and a healthy image that the score orders, by counting."""
    ill, healthy = (rows.loc[rows["y"] == value, "p"].to_numpy() for value in (1, 0))
    return float((ill[:, None] > healthy[None, :]).mean())


def test_a_mechanism_of_one_s_own_in_one_file(execute, tmp_path):
    output = execute("tilt.py")
    assert re.search(r"Run 'none' \(none, .*\nRun 'tilt' \(Tilt, seed 0, 96 images seen\)", output)
    weights = dict(re.findall(r"(female|male) +([\d.]+)$", output, re.MULTILINE))
    assert set(weights) == {"female", "male"} and weights["female"] != weights["male"]
    generators = tmp_path / "result" / "generators"
    assert "class Tilt" in (generators / "tilt" / "mechanism.py.txt").read_text()
    hashes = {read_json(generators / name / "training.json")["generator"] for name in ("none", "tilt")}
    assert len(hashes) == 2
    groups = Groups((("sex", ("female", "male")),))
    assert build_mechanism(mechanism_reference(f"{EXAMPLES / 'tilt.py'}:Tilt"), groups, 0, power=3.0).power == 3.0


def test_documents_show_the_examples_as_they_are():
    text = (ROOT / "docs" / "examples.md").read_text()
    names = re.findall(r'--8<-- "(.*)"', text)
    assert names == ["phantom.py", "audit.py", "tilt.py"] and all((EXAMPLES / name).is_file() for name in names)
    assert "(examples/tilt.py)" in (ROOT / "CONTRIBUTING.md").read_text()
    block = re.search(r"```python\n.*?(class Tilt.*?)```", (ROOT / "docs" / "mechanisms.md").read_text(), re.DOTALL)[1]
    assert block.strip() in (EXAMPLES / "tilt.py").read_text()

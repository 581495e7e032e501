"""The example of docs/mechanisms.md, as an installed package: found, built, trained on, cut and resumed."""

import re
import sys
import tomllib
from pathlib import Path

import pytest
import torch

from equigen.equity import build_mechanism, mechanism_names
from equigen.errors import InputError

TEXT = (Path(__file__).parents[2] / "docs" / "mechanisms.md").read_text()


def block(language):
    return re.search(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)[1]


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """What an installer would write: the module, and the entry points in a .dist-info folder."""
    project = tomllib.loads(block("toml"))["project"]
    (tmp_path / "equigen_tilt.py").write_text(block("python"))
    info = tmp_path / f"equigen_tilt-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in points.items())
        for group, points in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("equigen_tilt", None)


def test_before_it_is_installed_it_is_not_known(groups):
    assert "tilt" not in mechanism_names()
    with pytest.raises(InputError, match="'tilt' is not known"):
        build_mechanism("tilt", groups, 0)


def test_the_example_works_as_it_stands_in_the_docs(installed, groups, training, batch):
    assert mechanism_names()[-1] == "tilt"
    mechanism = build_mechanism("tilt", groups, 0, power=3.0)
    assert mechanism.sampling_weights(training) is None
    losses, index, timesteps = batch
    raised = losses + 2.0 * (index[:, 0] == 1)  # men's losses are larger
    weights = mechanism.weights(raised, index, timesteps, 0)
    assert weights.dtype == losses.dtype
    assert float(weights.min()) > 0
    records = mechanism.records()
    assert records["weight/sex/male"] > 1.3 > 0.9 > records["weight/sex/female"]
    over_all = mechanism.cell_weights()[mechanism.census.find(training)]
    assert float(over_all.mean()) == pytest.approx(1)
    resumed = build_mechanism("tilt", groups, 0, power=3.0)
    resumed.sampling_weights(training)
    resumed.load_state_dict(mechanism.state_dict())
    assert torch.equal(resumed.weights(losses, index, timesteps, 64), mechanism.weights(losses, index, timesteps, 64))
    with pytest.raises(InputError, match="'settings' is"):
        build_mechanism("tilt", groups, 0).load_state_dict(mechanism.state_dict())
    with pytest.raises(InputError, match=r"'strength' is not known .use some of: power"):
        build_mechanism("tilt", groups, 0, strength=1)


def test_the_example_has_about_thirty_lines_and_the_table_names_every_mechanism():
    lines = [line for language in ("toml", "python") for line in block(language).splitlines() if line.strip()]
    assert len(lines) <= 32
    for name in ("none", "perturbation", "random", "reweight", "balanced", "group_dro", "minmax_noise"):
        assert f"| `{name}` |" in TEXT

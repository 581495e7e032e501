"""The command `equigen compare`: its options reach the settings."""

import typer
from typer.testing import CliRunner

from equigen.cli.compare import compare

app = typer.Typer()
app.command()(compare)


def test_options_and_overrides_reach_the_comparison(tmp_path, monkeypatch):
    calls = []
    run = "equigen.comparison.compare"
    monkeypatch.setattr(run, lambda *given, **options: calls.append(given) or "page")
    file = tmp_path / "c.yaml"
    file.write_text("name: c\nphantom: {images: 100}\n")
    words = [str(file), "--out", str(tmp_path), "--jobs", "3", "--engine", "ray", "--set", "seeds=[1]"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0 and done.stdout == "page\n"
    path, out, overrides = calls[0]
    assert path.name == "c.yaml" and out == tmp_path
    assert overrides == {"seeds": [1], "jobs": 3, "engine": "ray"}
    assert CliRunner().invoke(app, [str(file)]).exit_code == 0 and calls[1][1:] == (None, {})

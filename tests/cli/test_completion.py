"""Completion in a shell: commands, options, names and files, as the shell's own script asks for them."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import sys
sys.argv[0] = "equigen"
from equigen.cli import main
try:
    main()
finally:
    print(sorted({"torch", "diffusers", "sklearn", "matplotlib"} & set(sys.modules)), file=sys.stderr)
"""


@pytest.fixture
def complete(tmp_path):
    """complete(line): what zsh offers for the last word of a command line, and no heavy library was loaded."""

    def ask(line, shell="zsh"):
        asked = {"_EQUIGEN_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": line}
        if shell == "bash":
            asked |= {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
        command = [sys.executable, "-c", PROGRAM]
        done = subprocess.run(
            command, env={**os.environ, **asked}, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.stderr.strip() == "[]"
        return done.stdout

    return ask


def test_commands_and_options_are_completed(complete):
    assert complete("equigen t", "bash").split() == ["train"]
    assert complete("equigen list m", "bash").split() == ["mechanisms", "metrics"]
    assert complete("equigen train --mech", "bash").split() == ["--mechanism"]


def test_mechanisms_are_completed_with_their_description(complete):
    text = complete("equigen train c.yaml --mechanism b")
    assert '"balanced"' in text and "Training images are drawn equally often" in text and '"none"' not in text
    words = complete("equigen train c.yaml --mechanism ", "bash").split()
    assert {"none", "perturbation", "group_dro"} <= set(words)


def test_classes_of_a_file_are_completed_without_running_it(complete, tmp_path):
    (tmp_path / "my.py").write_text("raise SystemExit\n\n\nclass Tilt:\n    pass\n\n\nclass Turn:\n    pass\n")
    assert complete("equigen train c.yaml --mechanism my.py:T", "bash").split() == ["my.py:Tilt", "my.py:Turn"]


def test_files_are_left_to_the_shell(complete, tmp_path):
    """Nothing is offered in bash, whose script falls back to files; zsh is told to offer files."""
    (tmp_path / "cohort.yaml").touch()
    assert complete("equigen train co", "bash").split() == []
    assert complete("equigen train co").strip() == "_files"
    assert complete("equigen train c.yaml --mechanism my").strip() == "_files"


def test_encoders_and_metrics_are_completed(complete):
    assert complete("equigen evaluate --encoder in", "bash").split() == ["inception:"]
    assert complete("equigen calibrate g c.yaml --encoder eff", "bash").split() == ["efficientnet-lite0"]
    assert complete("equigen evaluate --metrics cov", "bash").split() == ["coverage"]
    assert complete("equigen evaluate --metrics kd,fd,f", "bash").split() == ["kd,fd,fd_inf"]


def test_keys_and_choices_of_settings_are_completed(complete):
    assert complete("equigen run s.yaml --set train.im", "bash").split() == ["train.images="]
    assert complete("equigen compare c.yaml --set cal", "bash").split()[:2] == ["calibrate=", "calibrate.attribute="]
    assert complete("equigen train c.yaml --preset ", "bash").split() == ["tiny", "small", "base"]
    assert complete("equigen train c.yaml --tune lora", "bash").split() == ["lora", "lora+text"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_can_be_shown_and_installed(shell, tmp_path):
    environment = {**os.environ, "HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    for option in ("--show-completion", "--install-completion"):
        line = [sys.executable, "-c", PROGRAM, option, shell]
        done = subprocess.run(line, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "equigen" in done.stdout or "completion" in done.stdout
    scripts = [path for path in tmp_path.rglob("*equigen*") if path.is_file()]
    assert len(scripts) == 1 and f"complete_{shell}" in scripts[0].read_text()

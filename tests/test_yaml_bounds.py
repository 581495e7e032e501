"""A YAML text that is too deep, recursive or too large is refused before any object is built from it."""

import time

import pytest
import yaml

from equigen.cohort import Cohort
from equigen.comparison.settings import read_comparison
from equigen.config import MAX_DEPTH, MAX_NODES, check_bounds, parse_override, read_yaml
from equigen.errors import InputError
from equigen.study.settings import read_study

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)
)
HOSTILE = {
    "bomb": (BOMB, f"line 5: stands for more than {MAX_NODES} values"),
    "deep": ("a: " + "[" * 5000, f"line 1: is nested more than {MAX_DEPTH} levels deep"),
    "recursive": ("name: x\na: &a [1, *a]\n", "line 2: '*a' stands within what it means"),
    "recursive mapping": ("a: &a\n  b: *a\n", "line 2: '*a' stands within what it means"),
}


@pytest.mark.parametrize("reader", [read_yaml, Cohort.read, read_study, read_comparison])
@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_files_are_refused_at_once_with_their_line(tmp_path, kind, reader):
    text, message = HOSTILE[kind]
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    start = time.process_time()
    with pytest.raises(InputError) as error:
        reader(file)
    (problem,) = error.value.problems
    assert message in problem.message and problem.file == str(file)
    assert time.process_time() - start < 5


@pytest.mark.parametrize("key", ["name", "seed"])
@pytest.mark.parametrize("text", ["[" * 5000, "&a [1, *a]"])
def test_hostile_overrides_are_refused(key, text):
    with pytest.raises(InputError, match="override cannot be read"):
        parse_override(key, text)


def test_the_bounds_themselves_by_hand():
    """A list of n values is n + 1 nodes; an alias counts as what it stands for."""
    check_bounds("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    with pytest.raises(yaml.MarkedYAMLError, match="nested"):
        check_bounds("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1))
    inner = ", ".join(["x"] * 999)  # with its list, 1000 nodes
    check_bounds(f"[&a [{inner}], {', '.join(['*a'] * 98)}]")  # 1 + 99 * 1000
    with pytest.raises(yaml.MarkedYAMLError, match="stands for more than"):
        check_bounds(f"[&a [{inner}], {', '.join(['*a'] * 99)}]")  # 1 + 100 * 1000

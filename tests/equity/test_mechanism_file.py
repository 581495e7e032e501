"""A mechanism of one's own: from one Python file, or as a class or an object of a Python program."""

import subprocess
import sys
from typing import ClassVar

import pytest
import torch

from equigen.equity import (
    BaseMechanism,
    build_mechanism,
    check_mechanism_name,
    mechanism_copy,
    mechanism_identity,
    mechanism_label,
    mechanism_reference,
    mechanism_source,
)
from equigen.errors import InputError

FACTOR = 2.0
SOURCE = '''
import torch

from equigen.equity import BaseMechanism


class Twice(BaseMechanism):
    """Weights of 2."""

    name = "twice"

    def __init__(self, groups, seed, *, factor=2.0):
        super().__init__(groups, seed, {"factor": factor})
        self.factor = factor

    def weights(self, losses, groups, timesteps, images_seen):
        return self.factor * torch.ones_like(losses)


class Bare:
    name = "bare"

    def __init__(self, groups, seed):
        pass


class Wrong(BaseMechanism):
    def __init__(self, groups, seed):
        self.missing = groups.nothing


constant = 3
'''


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "twice.py"
    path.write_text(SOURCE)
    return path


def ones(mechanism):
    return mechanism.weights(torch.ones(2), torch.zeros(2, 2, dtype=torch.int64), torch.zeros(2), 0).tolist()


def test_a_class_of_a_file_is_built_with_its_settings(file, groups):
    assert ones(build_mechanism(f"{file}:Twice", groups, 0)) == [2.0, 2.0]
    assert ones(build_mechanism(f"{file}:Twice", groups, 0, factor=5.0)) == [5.0, 5.0]
    with pytest.raises(InputError, match=r"mechanism 'Twice' cannot be used.*\n.*'speed' is not known .use some of: f"):
        build_mechanism(f"{file}:Twice", groups, 0, speed=1)


def test_a_path_is_relative_to_a_folder_and_the_identity_is_class_and_content(file, monkeypatch):
    reference = mechanism_reference("twice.py:Twice", file.parent)
    assert reference.startswith(f"{file.resolve()}:Twice@")
    monkeypatch.chdir(file.parent)
    assert mechanism_reference("twice.py:Twice") == reference
    assert mechanism_label(reference) == "Twice"
    elsewhere = file.parent / "deep" / "other name.py"
    elsewhere.parent.mkdir()
    elsewhere.write_text(SOURCE)
    moved = mechanism_reference(f"{elsewhere}:Twice")
    assert mechanism_identity(moved) == mechanism_identity(reference) != moved
    elsewhere.write_text(SOURCE.replace("constant = 3", "constant = 4"))
    assert mechanism_identity(mechanism_reference(f"{elsewhere}:Twice")) != mechanism_identity(reference)


def test_naming_a_file_runs_nothing(tmp_path):
    path = tmp_path / "bomb.py"
    path.write_text("raise SystemExit('it ran')\n\n\nclass Bomb:\n    pass\n")
    reference = mechanism_reference(f"{path}:Bomb")
    check_mechanism_name(reference)
    assert mechanism_label(reference) == "Bomb"
    with pytest.raises(InputError, match="running it failed at line 1: SystemExit: it ran"):
        build_mechanism(reference, None, 0)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("twic.py:Twice", r"there is no such file .did you mean 'twice.py'"),
        ("absent-entirely.py:Twice", r"there is no such file .there is: 'twice.py'"),
        ("twice.py:Twise", r"it has no class 'Twise' .did you mean 'Twice'"),
        ("twice.py:Zzz", r"it has no class 'Zzz' .there is: 'BaseMechanism', 'Twice', 'Bare', 'Wrong', 'constant'"),
        ("empty/twice.py:Twice", r"there is no such file .check the path"),
        ("twice.py", r"no class of it is named .write twice.py:"),
        ("twice.py:", r"no class of it is named .write twice.py:"),
    ],
)
def test_a_missing_file_or_class_is_told_with_what_is_near(file, name, message):
    with pytest.raises(InputError, match=message):
        mechanism_reference(name, file.parent)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\nclass Twice(:\n    pass\n", "is no Python: line 2: SyntaxError"),
        ("x = 1\n\ny = x / 0\nclass Twice: pass\n", "running it failed at line 3: ZeroDivisionError: division by zero"),
        ("def f():\n    return nothing\n\n\nf()\nclass Twice: pass\n", "failed at line 2: NameError: name 'nothing'"),
        ("import helper_beside\nclass Twice: pass\n", "line 1: ModuleNotFoundError.*one file, and imports installed"),
    ],
)
def test_an_error_in_the_file_is_told_with_its_line(tmp_path, groups, text, message):
    (tmp_path / "helper_beside.py").write_text("")
    path = tmp_path / "faulty.py"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        build_mechanism(f"{path}:Twice", groups, 0)


@pytest.mark.parametrize(
    ("symbol", "message"),
    [
        ("Bare", r"'Bare' makes no mechanism.\n.*lacks weights, wants_probe, observe_probe, records, sampling_weights"),
        ("Wrong", r"'Wrong' cannot be made.\n.*making it failed at line 29: AttributeError: 'Groups' object"),
        ("constant", r"'constant' makes no mechanism.\n.*it is a int"),
    ],
)
def test_what_is_no_mechanism_is_told(file, groups, symbol, message):
    with pytest.raises(InputError, match=message):
        build_mechanism(f"{file}:{symbol}", groups, 0)


def test_a_file_that_changed_after_it_was_named_is_refused_and_a_copy_is_not_touched(file, groups, tmp_path):
    reference = mechanism_reference(f"{file}:Twice")
    copy = mechanism_copy(reference, tmp_path / "run")
    file.write_text(SOURCE.replace("self.factor *", "7 *"))
    with pytest.raises(InputError, match=r"twice.py: has changed since the run began"):
        build_mechanism(reference, groups, 0)
    assert mechanism_identity(copy) == mechanism_identity(reference)
    assert ones(build_mechanism(copy, groups, 0)) == [2.0, 2.0]
    assert mechanism_source(copy) == SOURCE
    assert ones(build_mechanism(f"{file}:Twice", groups, 0)) == [14.0 / 2, 14.0 / 2]


def test_another_process_finds_the_copy(file, tmp_path):
    copy = mechanism_copy(mechanism_reference(f"{file}:Twice"), tmp_path / "run" / "mechanisms")
    file.unlink()
    program = (
        "import sys\nfrom equigen.equity import Groups, build_mechanism\n"
        "print(build_mechanism(sys.argv[1], Groups((('sex', ('f', 'm')),)), 0, factor=3.0).factor)"
    )
    done = subprocess.run([sys.executable, "-c", program, copy], capture_output=True, text=True, cwd="/", check=True)
    assert done.stdout == "3.0\n"


def scale():
    return FACTOR


class Scaled(BaseMechanism):
    """Weights that a function and a constant of this module decide."""

    name = "scaled"
    shift = 0.0

    def weights(self, losses, groups, timesteps, images_seen):
        return scale() * torch.ones_like(losses) + self.shift


def test_a_class_and_an_object_have_names_by_their_code(groups, monkeypatch):
    name = mechanism_reference(Scaled)
    assert mechanism_label(name) == "Scaled" and mechanism_reference(Scaled) == name == mechanism_identity(name)
    assert ones(build_mechanism(name, groups, 0)) == [2.0, 2.0]
    assert mechanism_source(name).startswith("class Scaled(BaseMechanism):")
    monkeypatch.setattr(Scaled, "shift", 1.0)
    shifted = mechanism_reference(Scaled)
    monkeypatch.setitem(globals(), "FACTOR", 5.0)
    assert len({name, shifted, mechanism_reference(Scaled)}) == 3
    monkeypatch.undo()
    assert mechanism_reference(Scaled) == name
    exec_class = {"BaseMechanism": BaseMechanism}
    for weight in ("1", "2"):  # without a source
        exec(f"class Typed(BaseMechanism):\n def weights(self, losses, *_):\n  return losses * {weight}", exec_class)
        exec_class[weight] = mechanism_reference(exec_class["Typed"])
    assert exec_class["1"] != exec_class["2"] and mechanism_source(exec_class["1"]) is None


class Counting(BaseMechanism):
    """Weights that grow with every call: a mechanism with a state."""

    name = "counting"

    def __init__(self, groups, seed):
        super().__init__(groups, seed)
        self.memory["calls"] = torch.zeros(1, dtype=torch.int64)

    def weights(self, losses, groups, timesteps, images_seen):
        self.memory["calls"] += 1
        return self.memory["calls"] * torch.ones_like(losses)


def test_every_training_gets_a_copy_of_an_object(groups):
    mechanism = Counting(groups, 0)
    name = mechanism_reference(mechanism)
    for _ in range(2):
        built = build_mechanism(name, groups, 0)
        assert ones(built) == [1.0, 1.0] and ones(built) == [2.0, 2.0]
    ones(mechanism)
    assert mechanism_reference(mechanism) != name  # its state is another
    assert ones(build_mechanism(name, groups, 0)) == [1.0, 1.0]
    with pytest.raises(InputError, match="is of other groups"):
        build_mechanism(name, type(groups)((("sex", ("a", "b")),)), 0)


def test_what_is_no_mechanism_at_all_and_a_class_of_another_program(groups):
    with pytest.raises(InputError, match="it is a int"):
        mechanism_reference(3)
    with pytest.raises(InputError, match=r"'Gone' was a class of another Python program"):
        check_mechanism_name("Gone@0123456789abcdef")
    with pytest.raises(InputError, match=r"use one of: none, .*or FILE.py:CLASS"):
        check_mechanism_name("peturbation")


def test_settings_checks_load_no_torch(file):
    program = (
        "import sys\nfrom equigen.equity import check_mechanism_name, describe_mechanisms, mechanism_reference\n"
        "check_mechanism_name(mechanism_reference(sys.argv[1]))\ndescribe_mechanisms()\nprint('torch' in sys.modules)"
    )
    line = [sys.executable, "-c", program, f"{file}:Twice"]
    assert subprocess.run(line, capture_output=True, text=True, check=True).stdout == "False\n"


SCALE = 1


def tilt(factor, powers=(1.0,)):
    """A class whose weights depend on a variable around it, a class attribute and a constant of this module."""

    class Inner(BaseMechanism):
        exponents: ClassVar[list[float]] = list(powers)

        @torch.no_grad()
        def weights(self, losses, groups, timesteps, images_seen):
            return torch.ones_like(losses) * factor * SCALE

    return Inner


def test_the_name_of_a_class_changes_with_all_that_its_code_reads(monkeypatch):
    names = [mechanism_reference(tilt(1.0)), mechanism_reference(tilt(3.0)), mechanism_reference(tilt(1.0, [3.0]))]
    assert mechanism_reference(tilt(1.0)) == names[0] and len(set(names)) == 3
    monkeypatch.setitem(globals(), "SCALE", 2)
    assert mechanism_reference(tilt(1.0)) != names[0]


def test_an_object_that_holds_itself_has_a_name(groups):
    first, second = (build_mechanism("none", groups, 0) for _ in range(2))
    first.parts, second.parts = [first, 1], [second, 2]
    assert mechanism_reference(first) != mechanism_reference(second)

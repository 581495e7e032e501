"""A mechanism in one Python file of the user: ``my.py:Tilt``, and ``my.py:Tilt@HASH`` once its content is fixed.

Loading a file runs its code. It is loaded for a name that the user wrote in a command, a settings file or a program;
generators, tables and cohorts never name one.
"""

from __future__ import annotations

import ast
import re
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from equigen.errors import InputError, Problem, suggestion
from equigen.files import hash_bytes, write_text

REFERENCE = re.compile(r"(?P<file>.+\.py)(:(?P<symbol>[^:@/\\]*))?(@(?P<digest>[0-9a-f]{16}))?")
DIGITS = 16  # of a SHA-256
TITLE = "The mechanism's file cannot be used."
COPY = "mechanism.py.txt"  # in a generator's folder; never run

_sources: dict[str, str] = {}  # text of the files that this process loaded, by the beginning of their hash


@dataclass(frozen=True)
class MechanismFile:
    """A class, or another callable, in a Python file; ``digest``: beginning of the SHA-256 of the file's content."""

    path: Path
    symbol: str
    digest: str = ""

    def __str__(self) -> str:
        """Return the name that settings hold."""
        return f"{self.path}:{self.symbol}" + (f"@{self.digest}" if self.digest else "")

    @property
    def identity(self) -> str:
        """The class and the content, without the path."""
        return f"{self.symbol}@{self.digest}"

    def problem(self, message: str, mend: str) -> InputError:
        """Return an error about this file."""
        return InputError(TITLE, [Problem(f"{self.path}: {message}", mend)])


def parse_file_name(name: str) -> MechanismFile | None:
    """Return the file and class in a name, or None for a name of another form.

    >>> parse_file_name("my.py:Tilt").symbol, parse_file_name("balanced")
    ('Tilt', None)
    """
    match = REFERENCE.fullmatch(name)
    return MechanismFile(Path(match["file"]), match["symbol"] or "", match["digest"] or "") if match else None


def fix_content(file: MechanismFile, folder: Path | None = None) -> MechanismFile:
    """Return the file with an absolute path and the hash of its present content; nothing is run.

    ``folder``: folder that the path is relative to, by default the working folder. Raises InputError where the file is
    missing, is no Python, or defines no such name.
    """
    if file.digest:
        return file
    path = (folder or Path()) / file.path.expanduser()
    absolute = MechanismFile(path.resolve(), file.symbol)
    source = _read(absolute)
    _check_symbol(absolute, _definitions(absolute, source))
    return MechanismFile(absolute.path, file.symbol, hash_bytes(source.encode())[:DIGITS])


def file_classes(path: Path) -> list[str]:
    """Return the classes that a file defines at its top, without running it; none for a file that is no Python."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8-sig"))
    except (OSError, SyntaxError, ValueError):
        return []
    return [node.name for node in tree.body if isinstance(node, ast.ClassDef)]


def load_file(file: MechanismFile) -> Any:
    """Run a file once in a process for each content, and return the object that it names.

    Raises InputError where the content is not that of the hash, where running it fails, with the line, and where it
    does not define the name.
    """
    name = f"equigen_mechanism_{file.digest}_{hash_bytes(str(file.path).encode())[:DIGITS]}"
    if name not in sys.modules:
        source = _read(file)
        if hash_bytes(source.encode())[:DIGITS] != file.digest:
            raise file.problem(
                "has changed since the run began", "restore it, or start again, which trains with the new content"
            )
        sys.modules[name] = _run(file, name, source)
        _sources[file.digest] = source
    module = sys.modules[name]
    if not hasattr(module, file.symbol):
        _check_symbol(file, [key for key in vars(module) if not key.startswith("_")])
    return getattr(module, file.symbol)


def file_source(file: MechanismFile) -> str:
    """Return the text of the content that was loaded, or else that of the file."""
    return _sources.get(file.digest) or _read(file)


def copy_file(file: MechanismFile, folder: Path) -> MechanismFile:
    """Write the content to a folder of the run, so that its later processes load what the first one checked."""
    copy = MechanismFile((folder / f"{file.symbol}-{file.digest}.py").resolve(), file.symbol, file.digest)
    source = file_source(file)
    if not copy.path.is_file() or copy.path.read_text(encoding="utf-8") != source:
        write_text(copy.path, source)
    return copy


def error_place(error: BaseException, path: str | Path) -> str:
    """Return ``line 7: NameError: ...``: the last line of a file that an error passed through, and its message."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    if isinstance(error, SyntaxError) and error.filename == str(path):
        lines = [error.lineno]
    place = f"line {lines[-1]}: " if lines else ""
    return f"{place}{type(error).__name__}: {error.msg if isinstance(error, SyntaxError) else error}"


def _read(file: MechanismFile) -> str:
    try:
        return file.path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        neighbours = sorted(path.name for path in file.path.parent.glob("*.py"))
        mend = suggestion(file.path.name, neighbours) if neighbours else "check the path"
        raise file.problem("there is no such file", mend) from None
    except (OSError, UnicodeDecodeError) as error:
        raise file.problem(f"cannot be read: {error}", "give a Python file in UTF-8") from error


def _definitions(file: MechanismFile, source: str) -> list[str] | None:
    """Return the names that a file defines or imports at its top; None where it cannot be told without running it."""
    try:
        tree = ast.parse(source, str(file.path))
    except (SyntaxError, ValueError) as error:
        raise file.problem(f"is no Python: {error_place(error, file.path)}", "correct the line") from error
    names: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign):
            names += [target.id for target in node.targets if isinstance(target, ast.Name)]
        elif not isinstance(node, ast.Import | ast.ImportFrom | ast.Expr):
            return None
        elif isinstance(node, ast.ImportFrom):
            names += [alias.asname or alias.name for alias in node.names]
    return None if "*" in names else names


def _check_symbol(file: MechanismFile, names: list[str] | None) -> None:
    """Raise InputError where a file names no class, or one that is not among ``names``."""
    listed = [name for name in names or [] if not name.startswith("_") and name != "annotations"]
    classes = [name for name in file_classes(file.path) if name in listed]
    example = (classes or listed or ["CLASS"])[0]
    if not file.symbol:
        raise file.problem("no class of it is named", f"write {file.path.name}:{example}")
    if names is None or file.symbol in names:
        return
    raise file.problem(f"it has no class '{file.symbol}'", suggestion(file.symbol, listed))


def _run(file: MechanismFile, name: str, source: str) -> ModuleType:
    """Run the source as a module, which is registered only once it has run."""
    module = ModuleType(name)
    module.__file__ = str(file.path)
    sys.modules[name] = module  # dataclasses look their module up
    try:
        exec(compile(source, str(file.path), "exec"), vars(module))
    except BaseException as error:
        del sys.modules[name]
        if not isinstance(error, Exception | SystemExit):
            raise
        mend = "correct it; a mechanism is one file, and imports installed packages alone"
        raise file.problem(f"running it failed at {error_place(error, file.path)}", mend) from error
    return module

"""Mechanisms that a Python program hands over as a class or an object, known by a hash of their code."""

from __future__ import annotations

import copy
import inspect
import textwrap
from collections.abc import Callable, Mapping
from types import CodeType, FunctionType
from typing import Any

from equigen.equity.mechanism_file import DIGITS
from equigen.errors import InputError, Problem
from equigen.files import hash_bytes, hash_value

LIBRARIES = ("equigen", "torch", "typing", "abc", "numpy")  # known by their versions, not by their code
CONSTANTS = (int, float, str, bytes, bool, type(None))
CONTAINERS = (list, tuple, dict, set)

_objects: dict[str, Any] = {}


def register_object(mechanism: Any) -> str:
    """Return the name ``Tilt@HASH`` by which ``registered_factory`` finds a class or an object again.

    The hash is of the code that the class consists of, and for an object also of its state, so that a run is not
    resumed with another one. Raises InputError for what is neither a class nor a mechanism.
    """
    kind = mechanism if isinstance(mechanism, type | FunctionType) else type(mechanism)
    if not isinstance(mechanism, type | FunctionType) and not callable(getattr(mechanism, "state_dict", None)):
        problem = Problem(f"it is a {kind.__name__}", "give a name, FILE.py:CLASS, a class or an object of one")
        raise InputError("This is no mechanism.", [problem])
    digest = code_hash(kind)
    if kind is not mechanism:
        digest = hash_value([digest, _constant_text(mechanism.state_dict()), _constant_text(vars(mechanism))])
    name = f"{kind.__name__}@{digest[:DIGITS]}"
    _objects[name] = mechanism if kind is mechanism else copy.deepcopy(mechanism)
    return name


def registered_factory(name: str) -> Callable[..., Any] | None:
    """Return the callable (groups, seed, **settings) of a registered name; None for one that is not registered.

    An object is copied, so that every training starts from the state in which it was handed over.
    """
    if name not in _objects:
        return None
    mechanism = _objects[name]
    if isinstance(mechanism, type | FunctionType):
        return mechanism

    def make(groups: Any, seed: int) -> Any:
        expected = getattr(mechanism, "groups", groups)
        if expected != groups:
            problem = Problem(f"it is of {expected.names}, and the cohort has {groups.names}", "give the class instead")
            raise InputError(f"The mechanism '{name}' is of other groups.", [problem])
        return copy.deepcopy(mechanism)

    return make


def object_source(name: str) -> str | None:
    """Return the source of a registered class, or None where it cannot be read."""
    mechanism = _objects.get(name)
    return _source(mechanism if isinstance(mechanism, type | FunctionType) else type(mechanism))


def code_hash(kind: Any) -> str:
    """Return the SHA-256 of the code of a class or function, with what it uses of its own module, and its bases."""
    parts: dict[str, str] = {}
    _collect(kind, parts)
    return hash_bytes("\n".join(f"{name}\n{text}" for name, text in sorted(parts.items())).encode())


def _collect(item: Any, parts: dict[str, str]) -> None:
    """Add the text of a class or function, and of all that it refers to, to ``parts``, by name."""
    item = inspect.unwrap(item) if isinstance(item, FunctionType) else item  # without the decorator of a library
    name = f"{getattr(item, '__module__', '')}.{getattr(item, '__qualname__', '')}"
    if name in parts or str(getattr(item, "__module__", "")).partition(".")[0] in LIBRARIES:
        return
    parts[name] = ""  # it may refer to itself
    if isinstance(item, FunctionType):
        cells = [cell.cell_contents for cell in item.__closure__ or ()]
        for inner in cells:
            if isinstance(inner, type | FunctionType):
                _collect(inner, parts)
        values = [item.__defaults__, item.__kwdefaults__, *(cell for cell in cells if not callable(cell))]
        parts[name] = (_source(item) or _code_text(item.__code__)) + _constant_text(values)
        for key in sorted(_global_names(item.__code__)):
            _collect_global(item, key, parts)
        return
    for key, value in vars(item).items():
        function = getattr(value, "__func__", getattr(value, "fget", value))
        if isinstance(function, FunctionType):
            _collect(function, parts)
        elif not key.startswith("__") or key == "__slots__":
            parts[f"{name}.{key}"] = _constant_text(value)
    for base in item.__bases__:
        _collect(base, parts)


def _collect_global(function: FunctionType, key: str, parts: dict[str, str]) -> None:
    value = function.__globals__.get(key)
    if isinstance(value, type | FunctionType) and value.__module__ == function.__module__:
        _collect(value, parts)
    elif isinstance(value, (*CONSTANTS, *CONTAINERS)) and key in function.__globals__:
        parts[f"{function.__module__}.{key}"] = _constant_text(value)


def _constant_text(value: Any, outer: tuple[int, ...] = ()) -> str:
    """Return the text of a value: constants, and containers and arrays of them; of other objects type and state.

    ``outer``: ids of the objects that this one is within, of which it may hold one.
    """
    if isinstance(value, CONSTANTS):
        return repr(value)
    if id(value) in outer:
        return type(value).__qualname__
    within = (*outer, id(value))
    if isinstance(value, Mapping):
        return str(sorted((str(key), _constant_text(item, within)) for key, item in value.items()))
    if isinstance(value, list | tuple | set | frozenset):
        texts = [_constant_text(item, within) for item in value]
        return str(texts if isinstance(value, list | tuple) else sorted(texts))
    if hasattr(value, "tolist"):
        return repr(value.tolist())
    state = {} if isinstance(value, type | FunctionType) else getattr(value, "__dict__", {})
    return f"{type(value).__qualname__} {_constant_text(state, within)}"


def _global_names(code: CodeType) -> set[str]:
    inner = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return set(code.co_names).union(*map(_global_names, inner))


def _code_text(code: CodeType) -> str:
    constants = [_code_text(item) if isinstance(item, CodeType) else repr(item) for item in code.co_consts]
    return repr((code.co_code, code.co_names, constants))


def _source(item: Any) -> str | None:
    try:
        return textwrap.dedent(inspect.getsource(item))
    except (OSError, TypeError):
        return None

"""Settings in YAML: reading a file within bounds, overrides, and errors that name file and key."""

from __future__ import annotations

import copy
import re
from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from equigen.errors import InputError, Problem, suggestion

Model = TypeVar("Model", bound=BaseModel)

MAX_CHARACTERS = 2**24
MAX_DEPTH = 40
MAX_NODES = 100_000
TEXT_KEYS = {"only"}  # their values are levels of a table, which stay as they are written
_EXPONENT = re.compile(r"^[+-]?\d+(\.\d*)?[eE][+-]?\d+$")  # 1e-4, which YAML 1.1 takes for text
_RESOLVED_TAGS = {"tag:yaml.org,2002:null", "tag:yaml.org,2002:merge"}


class StrictModel(BaseModel):
    """Settings in which an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def level_lists(value: object) -> object:
    """Return levels as lists of text: ``{"dx": "nv", "grade": [1]}`` becomes ``{"dx": ["nv"], "grade": ["1"]}``.

    None becomes an empty mapping.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        return value
    lists = {}
    for key, levels in value.items():
        items = list(levels) if isinstance(levels, Iterable) and not isinstance(levels, str) else [levels]
        lists[key] = [str(item) if isinstance(item, int | float) else item for item in items]
    return lists


LevelLists = Annotated[dict[str, list[str]], BeforeValidator(level_lists)]
"""Levels by label or column; a single level may stand without a list."""
OptionalTexts = Annotated[dict[str, str], BeforeValidator(lambda value: {} if value is None else value)]
"""Texts by name; None is no text."""
OptionalColumn = Annotated[str | None, BeforeValidator(lambda value: None if value == "none" else value)]
"""A column, or None, which a command writes as none."""


def check_bounds(text: str) -> None:  # noqa: C901  (one branch an event)
    """Raise ``yaml.MarkedYAMLError`` when a YAML text is too long, nested too deeply, recursive, or too large.

    Its size is the number of nodes with every alias written out, so that nested aliases
    count with their full size.
    """
    if len(text) > MAX_CHARACTERS:
        raise yaml.MarkedYAMLError(problem=f"has more than {MAX_CHARACTERS} characters")
    sizes: dict[str, int | None] = {}  # anchor -> its number of nodes; None while it is open
    stack: list[tuple[str | None, int]] = []  # open collections: (anchor, nodes before it)
    nodes = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            size = sizes.get(str(event.anchor), 0)
            if size is None:
                raise _located_error(f"'*{event.anchor}' stands within what it means", event)
            nodes += size
        elif isinstance(event, yaml.ScalarEvent):
            nodes += 1
            if event.anchor is not None:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            stack.append((event.anchor, nodes))
            nodes += 1
            if event.anchor is not None:
                sizes[event.anchor] = None
            if len(stack) > MAX_DEPTH:
                raise _located_error(f"is nested more than {MAX_DEPTH} levels deep", event)
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = stack.pop()
            if anchor is not None:
                sizes[anchor] = nodes - before
        if nodes > MAX_NODES:
            raise _located_error(f"stands for more than {MAX_NODES} values", event)


def _located_error(problem: str, event: yaml.Event) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)  # type: ignore[arg-type, unused-ignore]


class _Loader(yaml.SafeLoader):
    """YAML loader that leaves plain scalars as text (except null) and refuses repeated keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Build a mapping; raises ``MarkedYAMLError`` for a repeated key."""
        keys: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            if key.value in keys:
                raise yaml.MarkedYAMLError(
                    problem=f"the key '{key.value}' is written twice", problem_mark=key.start_mark
                )
            keys.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in resolvers if tag in _RESOLVED_TAGS]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML mapping with scalars as written; raises ``InputError`` that names the file and the line."""
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8-sig")
        check_bounds(text)
        value = yaml.load(text, Loader=_Loader)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "is not UTF-8 text"
        raise InputError(
            "The specification cannot be read.", [Problem(reason, "check the path", file=str(file))]
        ) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark is not None else ""
        problem = Problem(f"{line}{getattr(error, 'problem', None) or 'is no YAML'}", "mend the line", file=str(file))
        raise InputError("The specification is no valid YAML.", [problem]) from error
    if not isinstance(value, dict):
        problem = Problem("holds no mapping of keys", "start from the example in the documentation", file=str(file))
        raise InputError("The specification is empty or no mapping.", [problem])
    return value


def parse_scalars(value: Any) -> Any:
    """Parse the texts in nested mappings and lists as YAML scalars.

    Numbers, truth values and null are parsed; everything else stays text, as do the values of
    ``TEXT_KEYS``. ``read_yaml`` returns all scalars as text, since a cohort's levels are text.
    """
    if isinstance(value, str):
        return _parse_scalar(value)
    if isinstance(value, Mapping):
        return {key: item if key in TEXT_KEYS else parse_scalars(item) for key, item in value.items()}
    return [parse_scalars(item) for item in value] if isinstance(value, list) else value


def _parse_scalar(text: str) -> Any:
    """Parse a text as a number, a truth value or null; return it unchanged if it is none of these."""
    if _EXPONENT.match(text.strip()):
        return float(text)
    try:
        check_bounds(text)
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):  # no YAML, or a date that no calendar has: then it is text
        return text
    clock = ":" in text  # YAML 1.1 takes 1:30 for ninety
    scalar = isinstance(value, bool | int | float) or (value is None and text.strip().lower() in {"null", "~"})
    return value if scalar and not clock else text


def parse_override(key: str, text: str) -> Any:
    """Parse the value in ``key=text`` of a command line as YAML; scalars of ``name`` and ``cohort`` stay text.

    Raises InputError when the text is no YAML.
    """
    keys = key.split(".")
    textual = key == "name" or keys[0] == "cohort" or bool(TEXT_KEYS & set(keys))
    try:
        check_bounds(text)
        value = yaml.load(text, Loader=yaml.BaseLoader if textual else yaml.SafeLoader)
    except (yaml.YAMLError, ValueError) as error:
        problem = Problem(f"'{key}={text}' is no YAML", "quote the value, as in --set 'key=\"a: b\"'")
        raise InputError("An override cannot be read.", [problem]) from error
    if textual:
        return None if value in ("null", "~") else value
    return parse_scalars(value)


def read_values(path: str | Path, overrides: Mapping[str, Any] | None) -> dict[str, Any]:
    """Read a settings file and apply overrides, without checking keys."""
    values = read_yaml(path)
    texts = {key: values[key] for key in ("name", "cohort") if key in values}
    settings = {**parse_scalars(values), **texts}
    for key, value in copy.deepcopy(dict(overrides or {})).items():
        set_key(settings, key.split("."), value, str(path))
    return settings


def set_key(values: Any, keys: list[str], value: Any, source: str) -> None:
    """Set a nested key in place, adding missing mappings. Raises InputError where a parent has no keys."""
    for depth, key in enumerate(keys[:-1], start=1):
        if values.get(key) is None:
            values[key] = {}
        values = values[key]
        if not isinstance(values, dict):
            problem = Problem(
                f"'{'.'.join(keys)}' cannot be set: '{'.'.join(keys[:depth])}' is {values!r}, which has no keys",
                "override that itself, or mend the file it names",
                file=source,
            )
            raise InputError("A setting cannot be overridden.", [problem])
    values[keys[-1]] = value


def check_keys(
    model: type[Model], values: Mapping[str, Any], source: str | None, title: str, prefix: str = ""
) -> Model:
    """Build a settings object.

    Raises InputError with the file (``source``) and the key, after ``prefix``, of every problem.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        problems = [_problem(model, dict(detail), source, prefix) for detail in error.errors(include_url=False)]
        raise InputError(title, list(dict.fromkeys(problems))) from error


def update_settings(settings: Model, changes: Mapping[str, Any], title: str) -> Model:
    """Return settings with single fields changed.

    Raises InputError with every field that is unknown (and the nearest that is known) or out of range.
    """
    return check_keys(type(settings), {**settings.model_dump(), **changes}, None, title) if changes else settings


def _problem(model: type[BaseModel], detail: dict[str, Any], source: str | None, prefix: str) -> Problem:
    """Return one error of pydantic as a problem with key, message, value and mend.

    A validator may end its message with "; " and the mend.
    """
    keys = [str(key) for key in detail["loc"] if not re.match(r"^(dict|list)\[|^str$", str(key))]  # arms of a union
    path, kind = ".".join([prefix, *keys] if prefix else keys), detail["type"]
    if kind == "extra_forbidden":
        for key in keys[:-1]:
            field = model.model_fields.get(key)
            model = next(iter(_models(field.annotation if field is not None else model)), model)
        return Problem(f"{path}: unknown key", suggestion(keys[-1], list(model.model_fields)), file=source)
    if kind == "missing":
        return Problem(f"{path}: the key is missing", f"add '{keys[-1]}'", file=source)
    mend = f"mend '{path}'" if path else "mend this setting"
    if kind != "value_error":
        return Problem(f"{path}: {detail['msg']}, not {detail['input']!r}", mend, file=source)
    message, _, hint = str(detail["msg"]).removeprefix("Value error, ").partition("; ")
    return Problem(f"{path}: {message}" if path else message, hint or mend, file=source)


def _models(annotation: Any) -> list[type[BaseModel]]:
    """Return the settings classes in a type, such as ``PlanSettings`` in ``dict[str, PlanSettings]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models(inner)]


@contextmanager
def settings_key(key: str, source: str) -> Iterator[None]:
    """Add a settings key and its file to every problem of an InputError that the block raises."""
    try:
        yield
    except InputError as error:
        problems = [replace(problem, message=f"{key}: {problem.message}", file=source) for problem in error.problems]
        raise InputError(error.title, problems) from error

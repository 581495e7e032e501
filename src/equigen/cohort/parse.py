"""Read ``cohort.yaml`` with scalars as text, and report errors with file, key and mend."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from equigen.cohort.spec import (
    AttributeRole,
    CohortSpec,
    ImageRole,
    LabelRole,
    PatientRole,
    SplitRole,
    suggestion,
)
from equigen.cohort.yaml_bounds import check_bounds
from equigen.errors import InputError, Problem

_RESOLVED_TAGS = {"tag:yaml.org,2002:null", "tag:yaml.org,2002:merge"}


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


def parse_spec(values: Mapping[str, Any], source: str) -> CohortSpec:
    """Check a mapping against the schema; every error becomes a ``Problem`` with ``source`` and key.

    Raises:
        InputError: with all unknown, missing and ill-typed keys.

    """
    try:
        return CohortSpec.model_validate(values)
    except ValidationError as error:
        problems = [_schema_problem(dict(fault), source) for fault in error.errors(include_url=False)]
        raise InputError("The cohort specification has errors.", problems) from error


_KEYS = sorted(
    {
        key
        for model in (CohortSpec, ImageRole, PatientRole, SplitRole, LabelRole, AttributeRole)
        for key in model.model_fields
    }
)
_NOT_KEYS = {"list[function-before[_text(), str]]", "dict[str,function-before[_text(), str]]"}


def _schema_problem(fault: dict[str, Any], source: str) -> Problem:
    """Return the ``Problem`` of one pydantic error."""
    key = ".".join(str(item) for item in fault["loc"] if str(item) not in _NOT_KEYS) or "cohort"
    last = str(fault["loc"][-1]) if fault["loc"] else ""
    if fault["type"] == "extra_forbidden":
        return Problem(f"{key}: unknown key '{last}'", suggestion(last, _KEYS), file=source)
    if fault["type"] == "missing":
        return Problem(f"{key}: the key is missing", f"add '{last}'", file=source)
    if fault["type"] == "value_error":
        message, _, mend = str(fault["msg"]).removeprefix("Value error, ").partition("; ")
        return Problem(f"{key}: {message}", mend or f"mend '{key}'", file=source)
    return Problem(f"{key}: {fault['msg']}, not {fault['input']!r}", f"mend '{key}'", file=source)

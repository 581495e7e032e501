"""Settings as rows of key, type, default and description, and as JSON schemas for editors."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import BaseModel

Schema = dict[str, Any]
TYPES = {
    "integer": "integer", "number": "number", "string": "text", "boolean": "true or false", "object": "mapping",
}  # fmt: skip
BOUNDS = {
    "minimum": "{} or more", "exclusiveMinimum": "above {}", "maximum": "at most {}", "exclusiveMaximum": "below {}",
}  # fmt: skip
ENTRY = "NAME"  # stands for a name that the user chooses, in a dotted key


@dataclass(frozen=True)
class SettingRow:
    """One setting: its dotted key, its type, its default as YAML would have it ("" for a mapping), and its meaning."""

    key: str
    type: str
    default: str
    description: str

    def to_dict(self) -> dict[str, str]:
        """Return the row as a mapping."""
        return asdict(self)


def json_schema(
    model: type[BaseModel], title: str, nested: Mapping[str, tuple[type[BaseModel], tuple[str, ...]]] | None = None
) -> Schema:
    """Return the JSON schema of a settings model, for editors and for ``setting_rows``.

    Args:
        model: the settings.
        title: title of the schema.
        nested: keys that the model holds as plain mappings and another model checks later, with that model and those of
            its keys that are set elsewhere.

    """
    schema = model.model_json_schema()
    definitions = schema.setdefault("$defs", {})
    for key, (inner, elsewhere) in (nested or {}).items():
        inner_schema = inner.model_json_schema()
        definitions.update(inner_schema.pop("$defs", {}))
        properties = {name: value for name, value in inner_schema["properties"].items() if name not in elsewhere}
        definitions[inner.__name__] = {**inner_schema, "properties": properties}
        property_ = schema["properties"][key]
        nullable = any(option.get("type") == "null" for option in property_.get("anyOf", []))
        reference = {"$ref": f"#/$defs/{inner.__name__}"}
        schema["properties"][key] = {
            **{name: value for name, value in property_.items() if name in ("default", "description", "title")},
            **({"anyOf": [reference, {"type": "null"}]} if nullable else reference),
        }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": title}


def setting_rows(schema: Schema, prefix: str = "") -> list[SettingRow]:
    """Return a row for every key of a schema.

    Keys of a mapping follow it, with a dot, and ``NAME`` for any name. The keys of a kind of mapping that stands twice,
    such as ``pretrain`` beside ``train``, are listed once.
    """
    return list(_rows(schema, schema.get("$defs", {}), prefix, set()))


def _rows(schema: Schema, definitions: Mapping[str, Schema], prefix: str, expanded: set[int]) -> Iterator[SettingRow]:
    if id(schema) in expanded:
        return
    expanded.add(id(schema))
    required = schema.get("required", [])
    for key, entry in schema["properties"].items():
        default = "required" if key in required else _default_text(entry.get("default", ""))
        yield SettingRow(f"{prefix}{key}", type_text(entry, definitions), default, entry.get("description", ""))
        for option in _options(entry, definitions):
            if "properties" in option:
                yield from _rows(option, definitions, f"{prefix}{key}.", expanded)
            values = option.get("additionalProperties")
            if isinstance(values, dict):
                for inner in _options(values, definitions):
                    if "properties" in inner:
                        yield from _rows(inner, definitions, f"{prefix}{key}.{ENTRY}.", expanded)


def _options(entry: Schema, definitions: Mapping[str, Schema]) -> list[Schema]:
    """Return the alternatives of a schema other than null, with references resolved."""
    options = []
    for option in entry.get("anyOf", [entry]):
        resolved = definitions[option["$ref"].rpartition("/")[2]] if "$ref" in option else option
        if resolved.get("type") != "null":
            options.append(resolved)
    return options


def type_text(entry: Schema, definitions: Mapping[str, Schema] | None = None) -> str:
    """Return the type of a setting in words, with its range.

    >>> type_text({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]})
    'integer, 1 or more'
    >>> type_text({"type": "array", "items": {"enum": ["a", "b"]}})
    'list of a | b'
    """
    texts = []
    for option in _options(entry, definitions or {}):
        if "enum" in option or "const" in option:
            texts.append(" | ".join(map(str, option.get("enum", [option.get("const")]))))
        elif option.get("type") == "array":
            items = option.get("items") or (option.get("prefixItems") or [{}])[0]
            texts.append(f"list of {type_text(items, definitions)}")
        else:
            bounds = [text.format(option[key]) for key, text in BOUNDS.items() if key in option]
            texts.append(", ".join([TYPES.get(str(option.get("type")), "any value"), *bounds]))
    return " or ".join(dict.fromkeys(texts))


def _default_text(value: Any) -> str:
    """Return a default as YAML of one line; "" for a mapping of mappings, whose keys have rows of their own."""
    if isinstance(value, dict):
        return "" if not value else ", ".join(value) if all(isinstance(item, dict) for item in value.values()) else ""
    if isinstance(value, str):
        return value
    return json.dumps(value)

"""Descriptions of the mechanisms, made without importing them, so that they load no torch."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from equigen.equity.registry import BUILT_IN, mechanism_names, package_class


def describe_mechanisms() -> list[dict[str, Any]]:
    """Return name, description and settings with their defaults of every mechanism.

    The settings of a mechanism of an installed package are None, since they are known only once it is loaded. One with
    variants has those of each variant, and ``variant`` among them.
    """
    rows: list[dict[str, Any]] = []
    for name in mechanism_names():
        if name not in BUILT_IN:
            rows.append({"name": name, "description": f"Of a package: {package_class(name)}.", "settings": None})
            continue
        entry = BUILT_IN[name]
        settings: dict[str, Any] = {} if len(entry.variants) == 1 else {"variant": next(iter(entry.variants))}
        for variant, location in entry.variants.items():
            values = class_defaults(*location.split(":"))
            settings.update({variant: values} if variant else values)
        rows.append({"name": name, "description": entry.summary, "settings": settings})
    return rows


def class_defaults(module: str, symbol: str) -> dict[str, Any]:
    """Return the keyword-only arguments of a class of this room with their defaults, read from its source."""
    tree = ast.parse((Path(__file__).parent / f"{module}.py").read_text(encoding="utf-8"))
    (body,) = (node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == symbol)
    (arguments,) = (node.args for node in body if isinstance(node, ast.FunctionDef) and node.name == "__init__")
    pairs = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    return {argument.arg: ast.literal_eval(default) for argument, default in pairs if default is not None}

"""Encoders from their names, such as ``inception:FILE`` or ``dinov2:FOLDER,resolution=224``."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from equigen.errors import InputError, Problem
from equigen.quality.encoder_forms import ENCODER_FORMS
from equigen.quality.encoders.base import Encoder
from equigen.quality.encoders.efficientnet import EfficientNetLite0
from equigen.quality.encoders.hub import CLIP, DINOv2
from equigen.quality.encoders.inception import Inception
from equigen.quality.encoders.onnx import ONNXEncoder
from equigen.quality.encoders.radimagenet import RadImageNet
from equigen.quality.encoders.weights import OFFLINE

OPTION = re.compile(r"(?P<rest>.+),(?P<name>resolution|mean|std|output|batch)=(?P<value>[^,=]+)")


@dataclass(frozen=True)
class Kind:
    """One kind of encoder: the form of its name, a description, its class and its options."""

    form: str
    help: str
    make: Callable[..., Encoder]
    options: tuple[str, ...] = ()


KINDS = {
    "efficientnet-lite0": Kind(*ENCODER_FORMS["efficientnet-lite0"], EfficientNetLite0),
    "inception": Kind(*ENCODER_FORMS["inception"], Inception, ("batch",)),
    "dinov2": Kind(*ENCODER_FORMS["dinov2"], DINOv2, ("resolution", "batch")),
    "clip": Kind(*ENCODER_FORMS["clip"], CLIP, ("batch",)),
    "radimagenet": Kind(*ENCODER_FORMS["radimagenet"], RadImageNet, ("resolution", "batch")),
    "onnx": Kind(*ENCODER_FORMS["onnx"], ONNXEncoder, ("resolution", "mean", "std", "output", "batch")),
}
ENCODERS: Mapping[str, str] = {kind.form: kind.help for kind in KINDS.values()}


def load_encoder(encoder: str | Encoder | nn.Module) -> Encoder:
    """Return the encoder of a name, or an encoder unchanged.

    Forms of names are the keys of ``ENCODERS``: ``efficientnet-lite0@224``, ``inception:FILE``, ``dinov2:FOLDER``,
    ``clip:FOLDER``, ``radimagenet:FILE``, ``onnx:FILE``; options follow as ``,name=value``, three numbers as
    ``a/b/c``. Options of an ONNX file may also be in ``FILE.json`` beside it; those in the name override them.

    Raises:
        InputError: an unknown encoder or option; unavailable weights, with the file and an encoder that works
            offline; a bare module, whose preprocessing is unknown (wrap it in ``ModuleEncoder``).

    """
    if isinstance(encoder, str):
        return _load_named(encoder)
    if isinstance(encoder, Encoder):
        return encoder
    problem = Problem(
        f"{type(encoder).__name__} alone does not say how images are prepared for it",
        "wrap it: ModuleEncoder(module, name='mine', resolution=224, mean=..., std=...)",
    )
    raise InputError("Not an encoder.", [problem])


def _load_named(text: str) -> Encoder:
    """Return the encoder of a name."""
    name, colon, rest = text.partition(":")
    if not colon:
        name, _, resolution = text.partition("@")
        if name == "efficientnet-lite0" and (not resolution or resolution.isdigit()) and text[-1] != "@":
            return EfficientNetLite0(int(resolution)) if resolution else EfficientNetLite0()
    kind = KINDS.get(name)
    if kind is None or not rest or name == "efficientnet-lite0":
        forms = ", ".join(ENCODERS) if kind is None else kind.form
        raise InputError("Unknown encoder.", [Problem(f"no encoder '{text}'", f"use {forms}; {OFFLINE}")])
    source, options = rest, dict[str, Any]()
    while not Path(source).expanduser().exists() and (match := OPTION.fullmatch(source)):  # unless part of a file name
        source = match["rest"]
        options.setdefault(match["name"], match["value"])
    if name == "onnx":
        options = {**_options_file(source), **options}
    return kind.make(source, **_convert_options(options, kind, text))


def _options_file(source: str) -> dict[str, Any]:
    """Return the options in the JSON file beside an ONNX file."""
    file = Path(f"{source}.json").expanduser()
    if not file.is_file():
        return {}
    try:
        options = json.loads(file.read_text())
    except ValueError as error:
        raise InputError(
            "The options beside an ONNX file cannot be read.",
            [Problem(f"no JSON: {error}", "correct it", file=str(file))],
        ) from error
    if not isinstance(options, dict):
        raise InputError(
            "The options beside an ONNX file cannot be read.",
            [Problem("no JSON object", 'write {"resolution": 224, ...}', file=str(file))],
        )
    return options


def _convert_options(options: Mapping[str, Any], kind: Kind, text: str) -> dict[str, Any]:
    """Return the options as numbers; InputError names all that are unknown or malformed."""
    result: dict[str, Any] = {}
    problems = []
    for name, value in options.items():
        if name not in kind.options:
            problems.append(Problem(f"no option '{name}'", f"use {', '.join(kind.options)}"))
            continue
        try:
            if name in {"resolution", "batch"}:
                result[name] = int(value)
                if result[name] < 1:
                    raise ValueError(name)
            elif name == "output":
                result[name] = str(value)
            else:
                values = value.split("/") if isinstance(value, str) else value if isinstance(value, list) else [value]
                result[name] = tuple(map(float, values))
        except (ValueError, TypeError):
            problems.append(Problem(f"{name} is '{value}'", "write resolution=224, mean=0.5 or mean=0.5/0.5/0.5"))
    if problems:
        raise InputError(f"The encoder '{text}' cannot be made.", problems)
    return result

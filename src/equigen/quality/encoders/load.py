"""From what a user writes to an encoder."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from equigen.errors import InputError, Problem
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
    """One kind of encoder: how it is written, what it is, how it is made and which options it takes."""

    form: str
    help: str
    make: Callable[..., Encoder]
    options: tuple[str, ...] = ()


KINDS = {
    "efficientnet-lite0": Kind(
        "efficientnet-lite0[@RESOLUTION]", "ImageNet features that need no file and no network (default, at 128 px)",
        EfficientNetLite0,
    ),
    "inception": Kind("inception:FILE", "the network of FID, with your file of its weights (pt_inception-2015-12-05)",
                      Inception, ("batch",)),
    "dinov2": Kind("dinov2:FOLDER_OR_ID", "DINOv2 from a local folder, or by hub id", DINOv2, ("resolution", "batch")),
    "clip": Kind("clip:FOLDER_OR_ID", "CLIP's image embedding from a local folder, or by hub id", CLIP, ("batch",)),
    "radimagenet": Kind("radimagenet:FILE", "ResNet-50 trained on radiology, with your file of its weights",
                        RadImageNet, ("resolution", "batch")),
    "onnx": Kind("onnx:FILE,resolution=R,mean=A/B/C,std=A/B/C", "any ONNX file, [N, 3, R, R] -> [N, D] (extra onnx)",
                 ONNXEncoder, ("resolution", "mean", "std", "output", "batch")),
}
ENCODERS: Mapping[str, str] = {kind.form: kind.help for kind in KINDS.values()}


def load_encoder(encoder: str | Encoder | nn.Module) -> Encoder:
    """An encoder by what a user writes, or the given one as it is.

    Forms are the keys of ``ENCODERS``: ``efficientnet-lite0@224``, ``inception:FILE``, ``dinov2:FOLDER``,
    ``clip:FOLDER``, ``radimagenet:FILE``, ``onnx:FILE``; options follow as ``,name=value``, three numbers as
    ``a/b/c``. Options of an ONNX file may also stand in ``FILE.json`` beside it; those written out go first.

    Raises:
        InputError: no such encoder or option; weights that cannot be had, with the file and what works offline; a
            bare module, of which nobody knows the resolution (wrap it in ``ModuleEncoder``).

    """
    if isinstance(encoder, str):
        return _by_name(encoder)
    if isinstance(encoder, Encoder):
        return encoder
    problem = Problem(f"{type(encoder).__name__} alone does not say how images are prepared for it",
                      "wrap it: ModuleEncoder(module, name='mine', resolution=224, mean=..., std=...)")
    raise InputError("Not an encoder.", [problem])


def _by_name(text: str) -> Encoder:
    name, colon, rest = text.partition(":")
    if not colon:
        name, _, resolution = text.partition("@")
        if name == "efficientnet-lite0" and (not resolution or resolution.isdigit()) and text[-1] != "@":
            return EfficientNetLite0(int(resolution)) if resolution else EfficientNetLite0()
    kind = KINDS.get(name)
    if kind is None or not rest or name == "efficientnet-lite0":
        forms = ", ".join(ENCODERS) if kind is None else kind.form
        raise InputError("Unknown encoder.", [Problem(f"no encoder '{text}'", f"use {forms}; {OFFLINE}")])
    source, options = _options(rest)
    if name == "onnx":
        options = {**_beside(source), **options}
    return kind.make(source, **_typed(options, kind, text))


def _options(text: str) -> tuple[str, dict[str, Any]]:
    """Take ``,name=value`` off the end, as often as it stands there; a file of that very name goes first."""
    options: dict[str, Any] = {}
    while not Path(text).expanduser().exists() and (found := OPTION.fullmatch(text)):
        text = found["rest"]
        options.setdefault(found["name"], found["value"])
    return text, options


def _beside(source: str) -> dict[str, Any]:
    """Options in the JSON file beside an ONNX file."""
    file = Path(f"{source}.json").expanduser()
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text())
    except ValueError as error:
        raise InputError("The options beside an ONNX file cannot be read.",
                         [Problem(f"no JSON: {error}", "correct it", file=str(file))]) from error
    if not isinstance(found, dict):
        raise InputError("The options beside an ONNX file cannot be read.",
                         [Problem("no JSON object", "write {\"resolution\": 224, ...}", file=str(file))])
    return found


def _typed(options: Mapping[str, Any], kind: Kind, text: str) -> dict[str, Any]:
    """Numbers from what was written, or an error with every option that cannot be used."""
    typed: dict[str, Any] = {}
    problems = []
    for name, value in options.items():
        if name not in kind.options:
            problems.append(Problem(f"no option '{name}'", f"use {', '.join(kind.options)}"))
            continue
        try:
            typed[name] = _value(name, value)
        except (ValueError, TypeError):
            problems.append(Problem(f"{name} is '{value}'", "write resolution=224, mean=0.5 or mean=0.5/0.5/0.5"))
    if problems:
        raise InputError(f"The encoder '{text}' cannot be made.", problems)
    return typed


def _value(name: str, value: Any) -> Any:
    if name in {"resolution", "batch"}:
        number = int(value)
        if number < 1:
            raise ValueError(name)
        return number
    if name == "output":
        return str(value)
    parts = value.split("/") if isinstance(value, str) else value if isinstance(value, list) else [value]
    return tuple(float(part) for part in parts)

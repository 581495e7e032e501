"""Checks of a model before it is used: pickles instead of safetensors, references to code, weights without a value."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from equigen.errors import Problem

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
CODE_KEYS = ("auto_map", "trust_remote_code", "custom_pipeline")
INDEX = "model_index.json"
SETTINGS = (
    INDEX, "config.json", "tokenizer_config.json", "scheduler_config.json", "preprocessor_config.json",
    "processor_config.json", "generation_config.json",
)  # fmt: skip
LIBRARIES = ("diffusers", "transformers", "equigen")
CONVERT = (
    "weights are read from .safetensors alone: take the model's .safetensors, or convert it where you trust it, with "
    "save_pretrained(FOLDER, safe_serialization=True)"
)
NO_CODE = "code of a model's own is never run: give a model whose classes are those of diffusers or transformers"


def folder_problems(folder: Path, weights: bool = True) -> list[Problem]:
    """What makes a model's folder unfit to be opened, found without opening any weights.

    Pickles are a problem where they are the only weights; beside a ``.safetensors`` they are never opened, and lie
    there without harm.

    Args:
        folder: where the settings are; its subfolders are not looked into. A folder that is not there has no problems.
        weights: whether the folder is one of weights: a tokenizer's, a scheduler's and a pipeline's own are not.

    """
    problems = [problem for name in SETTINGS for problem in _code_problems(folder / name)]
    return problems + (_pickle_problems(folder) if weights else [])


def _pickle_problems(folder: Path) -> list[Problem]:
    names = sorted(file.name for file in folder.iterdir()) if folder.is_dir() else []
    pickles = [name for name in names if name.lower().endswith(PICKLES)]
    if not pickles or any(name.endswith(".safetensors") for name in names):
        return []
    message = f"its only weights are pickles ({', '.join(pickles[:3])}), which could run code and are never opened"
    return [Problem(message, CONVERT, file=str(folder))]


def _code_problems(file: Path) -> list[Problem]:
    """References to code in one file of settings; one that is no JSON mapping is for its reader to refuse."""
    try:
        settings = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return []
    if not isinstance(settings, dict):
        return []
    messages = [f"its '{key}' asks for code that comes with the model" for key in CODE_KEYS if settings.get(key)]
    messages += _index_messages(settings) if file.name == INDEX else _class_messages(settings)
    return [Problem(message, NO_CODE, file=str(file)) for message in messages]


def _index_messages(index: Mapping[str, Any]) -> Iterable[str]:
    """Parts of a pipeline whose module is of no known library; each is listed as [module, class]."""
    import diffusers

    pipelines = dir(diffusers.pipelines)  # a safety checker's module is named so: ["stable_diffusion", ...]
    for part, value in index.items():
        if isinstance(value, list) and len(value) == 2 and all(isinstance(word, str) for word in value):
            home, kind = value
            if home.partition(".")[0] not in LIBRARIES and home not in pipelines:
                yield f"its '{part}' is {home}.{kind}"


def _class_messages(settings: Mapping[str, Any]) -> Iterable[str]:
    """Classes in a part's settings that no known library has."""
    architectures = settings.get("architectures")
    classes = [settings.get("_class_name"), *(architectures if isinstance(architectures, list) else [])]
    classes = [kind for kind in classes if isinstance(kind, str)]
    if not classes:
        return []
    import diffusers
    import transformers

    known = {*dir(diffusers), *dir(transformers)} | {"ConditionTokens", "EquigenPipeline"}
    return [f"its class '{kind}' is of no known library" for kind in classes if kind not in known]


def weight_fault(weights: Mapping[str, torch.Tensor]) -> str | None:
    """A sentence about the first weight that holds NaN or infinity, in the order given; None where all are finite."""
    for name, value in weights.items():
        if (value.is_floating_point() or value.is_complex()) and not bool(value.isfinite().all()):
            return f"weight {name} holds NaN or infinity"
    return None

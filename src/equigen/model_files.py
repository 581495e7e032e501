"""Check a model before it is used: pickled weights, references to code, weights that are not finite."""

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
    """Return the problems of a model's folder, without opening any weights.

    Pickles are a problem if they are the only weights; beside a ``.safetensors`` they are ignored.

    Args:
        folder: folder of the settings, without its subfolders. A folder that does not exist has no problems.
        weights: whether the folder should contain weights, unlike that of a tokenizer, a scheduler or a pipeline.

    """
    problems = [problem for name in SETTINGS for problem in _code_problems(folder / name)]
    names = sorted(file.name for file in folder.iterdir()) if weights and folder.is_dir() else []
    pickles = [name for name in names if name.lower().endswith(PICKLES)]
    if pickles and not any(name.endswith(".safetensors") for name in names):
        message = f"its only weights are pickles ({', '.join(pickles[:3])}), which could run code and are never opened"
        problems.append(Problem(message, CONVERT, file=str(folder)))
    return problems


def _code_problems(file: Path) -> list[Problem]:
    """Return problems of references to code in one settings file; a file that is no JSON mapping has none."""
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
    """Yield a message per component [module, class] of a pipeline whose module is of no known library."""
    import diffusers

    pipelines = dir(diffusers.pipelines)  # a safety checker's module is named so: ["stable_diffusion", ...]
    for component, value in index.items():
        if isinstance(value, list) and len(value) == 2 and all(isinstance(item, str) for item in value):
            module, kind = value
            if module.partition(".")[0] not in LIBRARIES and module not in pipelines:
                yield f"its '{component}' is {module}.{kind}"


def _class_messages(settings: Mapping[str, Any]) -> Iterable[str]:
    """Return a message per class in a component's settings that no known library has."""
    architectures = settings.get("architectures")
    classes = [settings.get("_class_name"), *(architectures if isinstance(architectures, list) else [])]
    classes = [kind for kind in classes if isinstance(kind, str)]
    if not classes:
        return []
    import diffusers
    import transformers

    library_names = {*dir(diffusers), *dir(transformers)} | {"ConditionTokens", "EquigenPipeline"}
    return [f"its class '{kind}' is of no known library" for kind in classes if kind not in library_names]


def nonfinite_weight(weights: Mapping[str, torch.Tensor]) -> str | None:
    """Return a sentence about the first weight with NaN or infinity; None if all are finite."""
    for name, value in weights.items():
        if (value.is_floating_point() or value.is_complex()) and not bool(value.isfinite().all()):
            return f"weight {name} holds NaN or infinity"
    return None

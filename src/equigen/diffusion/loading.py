"""Opening a generator: a folder of `equigen train`, a text-to-image pipeline of diffusers, or LoRA weights."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import logging
from safetensors import SafetensorError

from equigen.devices import best_device
from equigen.diffusion.pipeline import EquigenPipeline, open_generator
from equigen.diffusion.pretrained import open_pretrained
from equigen.diffusion.text_generator import TextGenerator
from equigen.diffusion.trainable_weights import load_lora
from equigen.errors import InputError, Problem
from equigen.files import DamagedJSONError, hash_file, read_json
from equigen.model_files import folder_problems
from equigen.progress import silence_library

PROVENANCE = "equigen.json"  # keys kind (full, lora or tokens), base (of LoRA) and size (of the images, in pixels)
RECORD = "training.json"
WEIGHTS = (".safetensors",)
INDEX, CONFIG = "model_index.json", ".json"  # of diffusers: what the parts are, and each part's settings in its folder
KINDS = ("full", "lora", "tokens")
PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
HUB = re.compile(r"[\w.-]+/[\w.-]+")


def open_any_generator(
    source: str | Path, device: str | None = None, precision: str = "fp32"
) -> EquigenPipeline | TextGenerator:
    """Open a generator.

    ``source``: a folder that `equigen train` wrote, a folder of diffusers with a text-to-image pipeline, a folder of
    LoRA weights with an ``equigen.json`` that names their base, or a model of the Hugging Face hub as OWNER/NAME.
    ``precision``: fp32, fp16 or bf16, of text-to-image pipelines. Raises InputError for what is missing, damaged or of
    another kind.
    """
    path = Path(source)
    check_files(path)
    provenance = _provenance(path)
    if precision not in PRECISIONS:
        problem = Problem(f"precision '{precision}'", f"use one of {', '.join(PRECISIONS)}")
        raise InputError("The generator cannot be opened so.", [problem])
    if provenance.get("kind") == "lora":
        return _open_lora(path, provenance, device, precision)
    is_hub_id = not path.exists() and HUB.fullmatch(str(source))
    if is_hub_id or _class_name(path) not in {"", "EquigenPipeline"}:
        pretrained = open_pretrained(source, device=device or best_device(), dtype=PRECISIONS[precision])
        return TextGenerator(pretrained.pipeline(), provenance.get("size"))
    if precision != "fp32":
        problem = Problem(f"precision '{precision}'", "use fp32: it was trained from scratch in that", file=str(path))
        raise InputError("The generator cannot be opened so.", [problem])
    return open_generator(path, device)


def check_files(path: Path) -> None:
    """Raise InputError where files of a generator are not those that training wrote, by the hashes in its record.

    Nothing is checked where there is no record with hashes: a folder of diffusers, or of an older version.
    """
    record = path / RECORD
    if not record.is_file():
        return
    try:
        files = dict(read_json(record).get("files", {}))
    except DamagedJSONError:
        raise
    except (ValueError, TypeError, AttributeError) as error:
        problem = Problem(f"cannot be understood ({error})", "copy the whole folder, or train again", file=str(record))
        raise InputError("The generator is damaged.", [problem]) from error
    mend = "copy the whole folder, or delete its training.json and run `equigen train` again"
    problems = []
    for name, digest in files.items():
        file = path / name
        is_checked = file.suffix in WEIGHTS or name == INDEX or ("/" in name and file.suffix == CONFIG)
        if is_checked and (not file.is_file() or hash_file(file) != digest):
            message = "is not what training wrote" if file.is_file() else "is missing"
            problems.append(Problem(message, mend, file=str(file)))
    if problems:
        raise InputError("The generator is damaged.", problems)


def _open_lora(path: Path, provenance: dict[str, Any], device: str | None, precision: str) -> TextGenerator:
    """Open the base of LoRA weights and load the weights into it."""
    base = str(provenance.get("base") or "")
    local_base = path / base
    if not base:
        problem = Problem("names no base", "write the folder or hub name of the model under 'base'", file=str(path))
        raise InputError("The base of these LoRA weights is unknown.", [problem])
    source, target_device = str(local_base) if local_base.is_dir() else base, device or best_device()
    if "lora" in provenance:
        pretrained = open_pretrained(source)  # the weights know their base by its hash in full precision
        load_lora(pretrained, path)
        with silence_library(logging):  # it remarks on half precision on a CPU
            pipeline = pretrained.diffusers_pipeline.to(target_device, PRECISIONS[precision])
        return TextGenerator(pipeline, provenance.get("size"))
    # weights of another trainer, which says nothing of rank and layers
    pipeline = open_pretrained(source, device=target_device, dtype=PRECISIONS[precision]).pipeline()
    if not hasattr(pipeline, "load_lora_weights"):
        problem = Problem(f"{type(pipeline).__name__} takes none in diffusers", "train it in full", file=str(path))
        raise InputError("LoRA weights cannot be used with this model.", [problem])
    problems = folder_problems(path)
    if problems:
        raise InputError("LoRA weights cannot be used.", problems)
    try:
        with silence_library(logging):
            pipeline.load_lora_weights(str(path), use_safetensors=True)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        problem = Problem(str(error), "copy the whole folder, or train again", file=str(path))
        raise InputError("The LoRA weights are damaged, or of another model.", [problem]) from error
    return TextGenerator(pipeline, provenance.get("size"))


def _provenance(path: Path) -> dict[str, Any]:
    """Return the record that equigen wrote beside the weights; empty where there is none."""
    file = path / PROVENANCE
    if not file.is_file():
        return {}
    try:
        provenance: dict[str, Any] = read_json(file)
        kind, size = provenance["kind"], provenance.get("size")
        if kind not in KINDS or not (size is None or (isinstance(size, int) and size > 0)):
            raise ValueError(f"kind {kind}, size {size}")
    except (ValueError, KeyError, TypeError) as error:
        mend = "mend it, or delete it if diffusers opens the folder by itself"
        problem = Problem(f"cannot be understood ({error})", mend, file=str(file))
        raise InputError("The generator's provenance is damaged.", [problem]) from error
    return provenance


def _class_name(path: Path) -> str:
    """Return the class of a folder's pipeline by its index; "" without one."""
    try:
        return str(read_json(path / "model_index.json").get("_class_name", ""))
    except (OSError, ValueError):
        return ""

"""Writing a plain pipeline folder, whole or not at all, with where it comes from beside it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import diffusers
import torch
import transformers
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from equigen.files import convert_disk_full, write_json
from equigen.progress import silence_library

INDEX, RECORD = "model_index.json", "equigen.json"


def versions() -> dict[str, str]:
    """The libraries that a generator's files were written by."""
    import equigen

    modules: dict[str, Any] = {
        "equigen": equigen, "torch": torch, "diffusers": diffusers, "transformers": transformers
    }  # fmt: skip
    return {name: str(module.__version__) for name, module in modules.items()}


def save_pipeline(pipeline: Any, folder: Path, record: Mapping[str, Any]) -> Path:
    """Write all parts beside ``folder``, then move them into it, ``model_index.json`` last of them.

    So a folder without that file is no generator yet. Other files in ``folder`` stay; those of an earlier generator are
    replaced.
    """
    hidden = folder.with_name(f".{folder.name}.{uuid4().hex[:8]}.part")
    with convert_disk_full(folder):
        try:
            with silence_library(diffusers_logging), silence_library(transformers_logging):
                pipeline.save_pretrained(str(hidden), safe_serialization=True)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / INDEX).unlink(missing_ok=True)
            for entry in sorted(hidden.iterdir(), key=lambda path: path.name == INDEX):
                if (folder / entry.name).is_dir():
                    shutil.rmtree(folder / entry.name)
                entry.replace(folder / entry.name)
        finally:
            shutil.rmtree(hidden, ignore_errors=True)
    write_json(folder / RECORD, {**record, "versions": versions()})
    return folder

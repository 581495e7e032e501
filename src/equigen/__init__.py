"""equigen: train, generate, measure and report medical image models for every patient group.

The names below are loaded when first used, so that an audit never pays for a generator's libraries.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PLACES = {
    "Cohort": "equigen.cohort",
    "Manifest": "equigen.cohort",
    "pack": "equigen.cohort",
    "encode": "equigen.latents",
    "load_autoencoder": "equigen.latents",
    "ConditionTokens": "equigen.diffusion",  # diffusers looks its class up here when it opens a generator
    "EquigenPipeline": "equigen.diffusion",
    "open_generator": "equigen.diffusion",
    "open_any_generator": "equigen.diffusion",
    "TrainSettings": "equigen.training",
    "train": "equigen.training",
    "plan": "equigen.synthesis",
    "generate": "equigen.synthesis",
    "calibrate": "equigen.synthesis",
    "screen": "equigen.synthesis",
    "compare_pairs": "equigen.synthesis",
    "EvaluateSettings": "equigen.quality",
    "evaluate": "equigen.quality",
    "fit_classifier": "equigen.quality",
    "diagnose": "equigen.diagnosis",
    "AuditSettings": "equigen.fairness",
    "audit": "equigen.fairness",
    "report": "equigen.report",
    "write_pairs_page": "equigen.report",
    "run_study": "equigen.study",
    "pairs": "equigen.study",
    "compare": "equigen.comparison",
}

__all__ = ["__version__", *_PLACES]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    """Load a public name from its room."""
    if name not in _PLACES:
        raise AttributeError(f"module 'equigen' has no attribute '{name}'")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    """Return the public names, for completion."""
    return sorted(__all__)

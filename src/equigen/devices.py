"""The default device of networks."""

from __future__ import annotations

import os


def best_device() -> str:
    """Return ``cuda`` if a GPU is available, else ``cpu``; processes of torchrun get a GPU by their local rank."""
    import torch  # here, so that rooms which only offer a device load no torch

    if not torch.cuda.is_available():
        return "cpu"
    rank = os.environ.get("LOCAL_RANK")
    return "cuda" if rank is None else f"cuda:{int(rank) % torch.cuda.device_count()}"

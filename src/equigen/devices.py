"""Where networks run when nobody says otherwise."""

from __future__ import annotations

import os


def best_device() -> str:
    """``cuda`` where a GPU can be used, else ``cpu``; of processes that torchrun started, to each a GPU of its own."""
    import torch  # here, so that rooms which only offer a device load no torch

    if not torch.cuda.is_available():
        return "cpu"
    rank = os.environ.get("LOCAL_RANK")
    return "cuda" if rank is None else f"cuda:{int(rank) % torch.cuda.device_count()}"

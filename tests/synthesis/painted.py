"""A generator by design: an image is made of its row's request and seed, and memory holds so many of them."""

import hashlib

import numpy as np
import pandas as pd
import torch

ERRORS = {
    "gpu": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "cpu": RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried"),
    "python": MemoryError(),
}


class Painter:
    """Small images in colours that follow from what is asked; ``calls`` lists the seeds of each call."""

    hash, size, latent_side = "painter", 8, 4

    def __init__(self, holds=10**9, error="gpu", device="cpu", mixes_guidance=True):
        self.holds, self.error, self.device = holds, ERRORS[error], torch.device(device)
        self.mixes_guidance, self.calls = mixes_guidance, []

    def check(self, plan):
        assert len(plan)

    def __call__(self, conditions, seeds, guidance, steps, solver="dpm++", interval=(0.0, 1.0), negative=""):
        if len(seeds) > self.holds:
            raise self.error
        self.calls.append(list(seeds))
        asked = zip(seeds, guidance, strict=True)
        return np.stack([self.paint(seed, scale, steps, solver, interval, negative) for seed, scale in asked])

    def paint(self, *asked):
        digest = hashlib.sha256(repr(asked).encode()).digest()
        return np.frombuffer(digest * 6, dtype=np.uint8).reshape(8, 8, 3)


def asks(count, **columns):
    """A plan of ``count`` rows."""
    rows = {"label.dx": "nv", "attr.sex": "male", "seed": range(100, 100 + count), "guidance": 2.0, "steps": 3}
    return pd.DataFrame({**rows, **columns}, index=range(count))


def expected(plan):
    """The images of a plan, row by row."""
    painter = Painter()
    given = {"solver": "dpm++", "guidance_low": 0.0, "guidance_high": 1.0, "negative": ""}
    whole = plan.assign(**{name: plan[name].fillna(value) if name in plan else value for name, value in given.items()})
    names = ["seed", "guidance", "steps", "solver", "guidance_low", "guidance_high", "negative"]
    rows = whole[names].itertuples(index=False, name=None)
    return np.stack([painter.paint(*row[:4], row[4:6], row[6]) for row in rows])

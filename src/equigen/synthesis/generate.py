"""From a plan to images on disk, each from its own seed, with the record of how it was made."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from equigen.diffusion import EquigenPipeline, open_generator
from equigen.errors import InputError, Problem
from equigen.files import hash_value, read_json, write_bytes, write_json, write_parquet
from equigen.progress import progress_bar
from equigen.training import Run

CHUNK = 32  # images that pass through the network together, always: rounding depends on it


@dataclass(frozen=True)
class SyntheticSet:
    """A folder of generated images: ``synthetic.parquet`` and lossless PNGs."""

    folder: Path

    @property
    def frame(self) -> pd.DataFrame:
        """One row an image; ``path`` is where it lies now."""
        frame = pd.read_parquet(self.folder / "synthetic.parquet")
        return frame.assign(path=[str(self.folder / name) for name in frame["image"]])

    def __len__(self) -> int:
        """Number of images."""
        return len(self.frame)


def generate(
    generator: str | Path | Run | EquigenPipeline,
    plan: pd.DataFrame,
    out: str | Path | None = None,
    *,
    batch: int = 32,
    device: str = "cpu",
    show: bool = True,
) -> SyntheticSet:
    """Make the images of a plan. Interrupted, the same call goes on; done, it returns at once.

    ``out``: folder of the set (``synthetic/<generator>`` by default). ``batch``: images decoded and written together, a
    matter of memory alone: images pass through the network in fixed chunks of the plan, so the same row gives the
    same image whatever the batch or the order of work. Raises InputError when the folder holds another plan or generator, or
    when the plan asks for what the generator does not know.
    """
    pipeline = _open(generator, device)
    folder = (
        Path(out)
        if out
        else Path("synthetic") / (generator.name if isinstance(generator, Run) else pipeline.hash)
    )
    _check(plan, pipeline, batch)
    _claim(folder, plan, pipeline.hash)
    names = [f"images/{index:07d}.png" for index in range(len(plan))]
    missing = [index for index, name in enumerate(names) if not (folder / name).is_file()]
    with progress_bar(
        "generate", len(plan), done=len(plan) - len(missing), show=show and bool(missing)
    ) as bar:
        for rows in _chunks(missing, max(1, batch // CHUNK) * CHUNK):
            for index, image in zip(rows, render(pipeline, plan, rows), strict=True):
                write_png(folder / names[index], image)
            bar.advance(len(rows))
    write_parquet(folder / "synthetic.parquet", _record(plan, names, pipeline.hash))
    return SyntheticSet(folder)


def _open(generator: str | Path | Run | EquigenPipeline, device: str) -> EquigenPipeline:
    if isinstance(generator, EquigenPipeline):
        return generator
    return open_generator(generator.folder if isinstance(generator, Run) else generator, device)


def _chunks(rows: list[int], count: int) -> list[list[int]]:
    return [rows[low : low + count] for low in range(0, len(rows), count)]


def render(pipeline: EquigenPipeline, plan: pd.DataFrame, rows: list[int]) -> NDArray[np.uint8]:
    """Images [n, size, size, 3] of some rows of a plan.

    Rows of unlike step counts are sampled apart. Every call of the network has exactly CHUNK images (the last rows
    are repeated to fill it), because convolution libraries round differently at different batch sizes.
    """
    images: dict[int, NDArray[np.uint8]] = {}
    part = plan.iloc[rows].assign(_row=rows)
    for steps, group in part.groupby("steps", sort=True):
        for low in range(0, len(group), CHUNK):
            real = group.iloc[low : low + CHUNK]
            full = real.iloc[np.arange(CHUNK) % len(real)]
            made = pipeline(full, list(full["seed"]), guidance=list(full["guidance"]), steps=int(str(steps)))
            images |= dict(zip(real["_row"], made, strict=False))
    return np.stack([images[row] for row in rows])


def write_png(path: Path, image: NDArray[np.uint8]) -> None:
    """Write [H, W, 3] uint8 as a lossless PNG, whole or not at all."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    write_bytes(path, buffer.getvalue())


def _check(plan: pd.DataFrame, pipeline: EquigenPipeline, batch: int) -> None:
    """Everything that can be wrong with a plan, before the first image."""
    problems = [
        Problem("is missing", "make the plan with equigen.plan", column=name)
        for name in ("seed", "guidance", "steps")
        if name not in plan
    ]
    if len(plan) == 0:
        problems.append(Problem("the plan has no rows", "ask for at least one image"))
    if batch < 1:
        problems.append(Problem(f"batch {batch}", "use at least 1"))
    if problems:
        raise InputError("This plan cannot be carried out.", problems)
    pipeline.words.encode(plan)


def _claim(folder: Path, plan: pd.DataFrame, generator: str) -> None:
    """Write what this folder is for; refuse one that is for something else."""
    content = plan.astype(object).where(plan.notna(), None).to_dict("list")
    claim = {"plan": hash_value(content), "generator": generator, "images": len(plan)}
    place = folder / "generation.json"
    if place.is_file() and read_json(place) != claim:
        raise InputError(
            "The output folder is taken.",
            [
                Problem(
                    "holds images of another plan or generator",
                    "choose another folder with --out",
                    file=str(folder),
                )
            ],
        )
    if not place.is_file():
        write_json(place, claim)


def _record(plan: pd.DataFrame, names: list[str], generator: str) -> pd.DataFrame:
    """The table that says of each image what was asked for and how it was made."""
    words = [name for name in plan.columns if name.startswith(("label.", "attr."))]
    record = pd.DataFrame({"image": names, "seed": plan["seed"].astype("int64"), "generator": generator})
    record = pd.concat([record, plan[words].reset_index(drop=True)], axis=1)
    return record.assign(
        prompt=plan["prompt"].to_numpy() if "prompt" in plan else None,
        guidance=plan["guidance"].to_numpy(),
        steps=plan["steps"].to_numpy(),
        accepted=True,
        reason="",
    )

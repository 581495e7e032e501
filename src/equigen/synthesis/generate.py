"""From a plan to images on disk, each from its own seed, with the record of how it was made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from equigen.diffusion import EquigenPipeline, open_generator
from equigen.errors import InputError, Problem
from equigen.files import hash_value, read_json, write_json, write_parquet
from equigen.pngs import is_whole, write_png
from equigen.progress import progress_bar
from equigen.training import Run

CHUNK = 32  # images that pass through the network together, always the same ones: rounding depends on it


@dataclass(frozen=True)
class SyntheticSet:
    """A folder of generated images: ``synthetic.parquet`` and lossless PNGs. It can be given where a path is asked."""

    folder: Path

    def __fspath__(self) -> str:
        """The folder, for functions that take a path."""
        return str(self.folder)

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
    device: str | None = None,
    show: bool = True,
) -> SyntheticSet:
    """Make the images of a plan. Interrupted, the same call goes on; done, it makes nothing again.

    ``out``: folder of the set (``synthetic/<generator>`` by default). ``batch``: images held and written together, a
    matter of memory alone: images pass through the network in fixed chunks of the plan, so the same row gives the
    same image whatever the batch or the order of work. Images that are there are kept if they are whole PNGs of the
    right size, and made again if not. Raises InputError when the folder holds another plan or generator, or when the
    plan asks for what the generator does not know.
    """
    plan = plan.reset_index(drop=True)
    pipeline = _open(generator, device)
    folder = (
        Path(out)
        if out
        else Path("synthetic") / (generator.name if isinstance(generator, Run) else pipeline.hash)
    )
    _check(plan, pipeline, batch)
    _claim(folder, plan, pipeline.hash)
    names = [f"images/{index:07d}.png" for index in range(len(plan))]
    size = int(pipeline.config["size"])
    missing = [index for index, name in enumerate(names) if not is_whole(folder / name, size)]
    with progress_bar("generate", len(plan), done=len(plan) - len(missing), show=show and bool(missing)) as bar:
        for rows in _batches(plan, missing, batch):
            for index, image in zip(rows, render(pipeline, plan, rows), strict=True):
                write_png(folder / names[index], image)
            bar.advance(len(rows))
    _finish(folder, _record(plan, names, pipeline.hash), changed=bool(missing))
    return SyntheticSet(folder)


def _open(generator: str | Path | Run | EquigenPipeline, device: str | None) -> EquigenPipeline:
    if isinstance(generator, EquigenPipeline):
        return generator
    return open_generator(generator.folder if isinstance(generator, Run) else generator, device)


def _chunks(plan: pd.DataFrame) -> list[list[int]]:
    """Row numbers that pass through the network together: at most CHUNK of one step count, guided or not guided.

    A function of the plan alone, not of what is still missing. Unguided rows (guidance 1) stand apart, since beside a
    guided row they would be computed as u + 1 (c - u), which rounds differently from c.
    """
    kinds: dict[tuple[int, bool], list[int]] = {}
    for row, (steps, guidance) in enumerate(zip(plan["steps"], plan["guidance"], strict=True)):
        kinds.setdefault((int(steps), float(guidance) != 1.0), []).append(row)
    return [rows[low : low + CHUNK] for rows in kinds.values() for low in range(0, len(rows), CHUNK)]


def _batches(plan: pd.DataFrame, missing: list[int], batch: int) -> list[list[int]]:
    """Missing rows in the order of work: whole chunks together, about ``batch`` images each time."""
    wanted, parts = set(missing), []
    lacking = [rows for rows in ([row for row in chunk if row in wanted] for chunk in _chunks(plan)) if rows]
    together = max(1, batch // CHUNK)
    for low in range(0, len(lacking), together):
        parts.append([row for rows in lacking[low : low + together] for row in rows])
    return parts


def render(pipeline: EquigenPipeline, plan: pd.DataFrame, rows: list[int]) -> NDArray[np.uint8]:
    """Images [n, size, size, 3] of some rows (positions) of a plan, in their order.

    Convolution and matrix libraries may round differently with another batch size or place in the batch. So each row
    is always computed in the same place of the same chunk of the plan; a chunk that is too short is filled by
    repeating its rows.
    """
    images: dict[int, NDArray[np.uint8]] = {}
    wanted = set(rows)
    for chunk in _chunks(plan):
        if wanted.isdisjoint(chunk):
            continue
        full = plan.iloc[[chunk[index % len(chunk)] for index in range(CHUNK)]]
        steps = int(full["steps"].iloc[0])
        made = pipeline(full, list(full["seed"]), guidance=list(full["guidance"]), steps=steps)
        images |= dict(zip(chunk, made, strict=False))
    return np.stack([images[row] for row in rows])


def _check(plan: pd.DataFrame, pipeline: EquigenPipeline, batch: int) -> None:
    """Everything that can be wrong with a plan, before the first image."""
    problems = [
        Problem("is missing", "make the plan with equigen.plan", column=name)
        for name in ("seed", "guidance", "steps")
        if name not in plan
    ]
    if len(plan) == 0:
        mend = "ask for at least one image; a 'complement' is empty when all groups are equally large"
        problems.append(Problem("the plan has no rows", mend))
    if batch < 1:
        problems.append(Problem(f"batch {batch}", "use at least 1"))
    if problems:
        raise InputError("This plan cannot be carried out.", problems)
    pipeline.words.encode(plan)


def plan_hash(plan: pd.DataFrame) -> str:
    """SHA-256 over every cell of a plan, in its order."""
    return hash_value(plan.astype(object).where(plan.notna(), None).to_dict("list"))


def _claim(folder: Path, plan: pd.DataFrame, generator: str) -> None:
    """Write what this folder is for; refuse one that is for something else."""
    claim = {"plan": plan_hash(plan), "generator": generator, "images": len(plan)}
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
    words = [name for start in ("label.", "attr.") for name in plan.columns if str(name).startswith(start)]
    record = pd.DataFrame({"image": names, "seed": plan["seed"].astype("int64"), "generator": generator})
    record = pd.concat([record, plan[words]], axis=1)
    return record.assign(
        prompt=plan["prompt"].to_numpy() if "prompt" in plan else None,
        guidance=plan["guidance"].to_numpy(),
        steps=plan["steps"].to_numpy(),
        accepted=True,
        reason="",
    )


def _finish(folder: Path, record: pd.DataFrame, changed: bool) -> None:
    """Write the table last, so that a folder that has it is complete; sweep up what a killed process left.

    A table that is there while no image was missing is kept: screening may have filled in its verdicts.
    """
    for left in (folder / "images").glob(".*.part.png"):
        left.unlink(missing_ok=True)
    if changed or not (folder / "synthetic.parquet").is_file():
        write_parquet(folder / "synthetic.parquet", record)

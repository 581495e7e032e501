"""Generation of the images of a plan, each from its own seed, with a table of conditions and settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from equigen.cohort import add_paths, carry_trained_on, read_generated
from equigen.diffusion import Generator, open_any_generator
from equigen.errors import InputError, Problem
from equigen.files import hash_file, hash_value, read_json, write_json
from equigen.integrity import is_readable
from equigen.parquet import read_parquet, write_parquet
from equigen.pngs import is_complete_png, write_png
from equigen.progress import console, progress_bar
from equigen.synthesis.chunks import CHUNK, Batched, Images, device_kind, render, share_of, write_first
from equigen.synthesis.guidance import Level, set_guidance
from equigen.training import Run

GENERATION_FILE, TABLE = "generation.json", "synthetic.parquet"
WRITERS = 4  # threads that compress images while a GPU generates the next ones; none on a CPU
EXTRA = ("guidance_low", "guidance_high", "solver", "negative", "pair", "changed")  # optional columns of a plan


@dataclass(frozen=True)
class SyntheticSet:
    """A folder of generated images, ``synthetic.parquet`` and lossless PNGs; usable as a path."""

    folder: Path

    def __fspath__(self) -> str:
        """The folder, for functions that take a path."""
        return str(self.folder)

    @property
    def frame(self) -> pd.DataFrame:
        """One row an image with its absolute ``path``; InputError while jobs of an array are missing."""
        if not (self.folder / TABLE).is_file():
            mend = "run the jobs that are left, or those that broke off"
            problem = Problem(f"holds no {TABLE}", mend, file=str(self.folder))
            raise InputError("This set is not complete.", [problem])
        return add_paths(read_generated(self.folder, "This set cannot be used."), self.folder)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.frame)


def generate(
    generator: str | Path | Run | Generator,
    plan: pd.DataFrame,
    out: str | Path | None = None,
    *,
    guidance: Level | None = None,
    batch: int = 32,
    chunk: int | None = None,
    shard: tuple[int, int] | None = None,
    device: str | None = None,
    show: bool = True,
) -> SyntheticSet:
    """Generate the images of a plan. An interrupted call is resumed by the same call; a complete one does nothing.

    Images are generated in fixed chunks of the plan, so the image of a row does not depend on the batch, the order of
    work, or the number of processes. Existing images are used if they are complete PNGs of the right size and, in a
    complete set, match the hashes of its table; others are generated again. ``synthetic.parquet`` has the SHA-256 of
    each file. ``generation.json`` identifies the plan, the generator and the size of the chunks.

    Args:
        generator: a folder or hub name (``open_any_generator``), a finished run, or an open generator.
        plan: one row an image; besides the conditions (for text the column ``prompt``) the columns ``seed``,
            ``guidance``, ``steps``, and if they are there ``guidance_low``, ``guidance_high``, ``solver``,
            ``negative`` (see ``Request``).
        out: folder of the set; ``synthetic/<generator>`` by default.
        guidance: a number for all rows, "calibrated" (that of each row's group) or "common" (the best one for all).
            None: "calibrated" where the generator's folder has a ``calibration.json`` and all rows have the default
            guidance of ``plan``, else the plan's guidance. A generator that is open already has no calibration.
        batch: images in memory and written together; it does not change the images.
        chunk: images of a chunk; None: that of the existing set, else 32 on a CPU and up to 256 on a GPU. Another size
            may round differently. Where memory is short the chunk is halved, which ``generation.json`` records
            (``smallest_chunk``).
        shard: (index, count) of one job of an array, which generates every count-th chunk; the last job to finish
            writes the table. Processes of torchrun share the plan automatically, and all return when the set is
            complete.
        device: for a generator that is not open yet.
        show: show a progress bar of this process.

    Raises:
        InputError: the folder is of another plan, generator or chunk; the plan has conditions unknown to the generator;
            the guidance cannot be used, or its calibration is missing, damaged or of another generator; not one image
            fits in memory.

    """
    share = share_of(shard)
    source = generator.folder if isinstance(generator, Run) else generator
    origin = Path(source) if isinstance(source, (str, Path)) else None
    pipeline = open_pipeline(generator, device)
    plan = set_guidance(plan.reset_index(drop=True), guidance, origin, pipeline.hash)[0]
    folder = Path(out) if out else Path("synthetic") / (generator.name if isinstance(generator, Run) else pipeline.hash)
    _check(plan, pipeline, batch, chunk)
    batched = Batched(pipeline, _claim(folder, plan, Batched(pipeline, chunk), fixed=chunk is not None))
    names = [f"images/{index:07d}.png" for index in range(len(plan))]
    chunks = share.select(batched.cut(plan))
    _remove_damaged(folder, names)
    share.wait()
    missing = [[row for row in rows.tolist() if not is_complete_png(folder / names[row], pipeline.size)]
               for rows in chunks]  # fmt: skip
    total, absent = sum(map(len, chunks)), sum(map(len, missing))
    if absent:
        (folder / TABLE).unlink(missing_ok=True)  # a folder that has the table is complete
    incomplete = [pair for pair in zip(chunks, missing, strict=True) if pair[1]]
    step = max(1, batch // batched.chunk)
    with (
        progress_bar("generate", total, completed=total - absent, show=show and absent > 0 and share.leads) as bar,
        _writer(threads=0 if device_kind(pipeline) == "cpu" else WRITERS) as write,
    ):
        for low in range(0, len(incomplete), step):
            images, paths = [], []
            for rows, absent_rows in incomplete[low : low + step]:
                images.append(render(batched, plan.iloc[rows], np.searchsorted(rows, absent_rows).tolist()))
                paths += [folder / names[row] for row in absent_rows]
            memory_path = folder / f"smallest-chunk-{batched.capacity}.json"  # by size: several processes may write
            if batched.capacity < batched.chunk and not memory_path.is_file():
                write_json(memory_path, {"chunk": batched.capacity})
            write(paths, np.concatenate(images))
            bar.advance(len(paths))
    share.wait()
    if share.leads:
        if origin is not None:
            carry_trained_on(origin, folder)
        _finish(folder, plan, names, pipeline.hash)
    share.wait()
    return SyntheticSet(folder)


def open_pipeline(generator: str | Path | Run | Generator, device: str | None) -> Generator:
    """An open generator from a run, a folder or a hub name; an open one is returned as it is."""
    if isinstance(generator, Run):
        return open_any_generator(generator.folder, device)
    return open_any_generator(generator, device) if isinstance(generator, (str, Path)) else generator


def _remove_damaged(folder: Path, names: list[str]) -> None:
    """Remove images whose hash differs from the table, of every process, then the table: the set is incomplete then.

    An unreadable table is removed too. Images are removed first, so that a process that finds no table finds no
    damaged image.
    """
    table = folder / TABLE
    if not table.is_file():
        return
    if not is_readable(table):
        console.print(f"[yellow]{table}: cannot be read; it is made again[/yellow]")
        table.unlink(missing_ok=True)
        return
    frame = read_parquet(table)
    prefix = "first_" if "first_sha256" in frame else ""
    if not {f"{prefix}image", f"{prefix}sha256"} <= set(frame.columns):
        return
    recorded = dict(zip(frame[f"{prefix}image"], frame[f"{prefix}sha256"], strict=True))
    damaged = [
        name
        for name in names
        if (folder / name).is_file() and recorded.get(name) and hash_file(folder / name) != recorded[name]
    ]
    if damaged:
        listed = ", ".join(damaged[:3]) + (", ..." if len(damaged) > 3 else "")
        console.print(f"[yellow]{folder}: {len(damaged)} images are not those of {TABLE} and are made again: "
                      f"{listed}[/yellow]")  # fmt: skip
        for name in damaged:
            (folder / name).unlink(missing_ok=True)
        table.unlink(missing_ok=True)


@contextmanager
def _writer(threads: int) -> Iterator[Callable[[list[Path], Images], None]]:
    """Yield a function that writes images to files, asynchronously with ``threads``.

    Each call waits for the previous one, and leaving the block for the last, so that errors are raised early.
    """

    def write_all(paths: list[Path], images: Images) -> None:
        for path, image in zip(paths, images, strict=True):
            write_png(path, image)

    if not threads:
        yield write_all
        return
    with ThreadPoolExecutor(threads) as pool:
        pending: list[Future[None]] = []

        def write(paths: list[Path], images: Images) -> None:
            while pending:
                pending.pop(0).result()
            pending.extend(pool.submit(write_png, *pair) for pair in zip(paths, images, strict=True))

        yield write
        write([], np.empty(0, dtype=np.uint8))


def _check(plan: pd.DataFrame, generator: Generator, batch: int, chunk: int | None) -> None:
    """Raise InputError for an invalid plan or setting, before the first image."""
    problems = [
        Problem("is missing", "make the plan with equigen.plan", column=name)
        for name in ("seed", "guidance", "steps")
        if name not in plan
    ]
    if len(plan) == 0:
        mend = "ask for at least one image; a 'complement' is empty when all groups are equally large"
        problems.append(Problem("the plan has no rows", mend))
    sizes = {"batch": batch, "chunk": chunk}
    problems += [Problem(f"{name} {size}", "use at least 1")
                 for name, size in sizes.items() if size is not None and size < 1]  # fmt: skip
    if problems:
        raise InputError("This plan cannot be carried out.", problems)
    generator.check(plan)


def plan_hash(plan: pd.DataFrame) -> str:
    """SHA-256 of all cells of a plan in order."""
    return hash_value(plan.astype(object).where(plan.notna(), None).to_dict("list"))


def _claim(folder: Path, plan: pd.DataFrame, batched: Batched, *, fixed: bool) -> int:
    """Size of the folder's chunks, after writing ``generation.json``; InputError where it is of other inputs.

    ``fixed``: the user named the size, so another size is an error too.
    """
    inputs = {"plan": plan_hash(plan), "generator": batched.generator.hash, "images": len(plan)}
    path = folder / GENERATION_FILE
    if not path.is_file():
        write_first(path, {**inputs, "chunk": batched.chunk, "device": device_kind(batched.generator)})
    recorded = read_json(path)
    chunk = int(recorded.get("chunk", CHUNK))  # absent in files of earlier versions
    message = None
    if {name: recorded.get(name) for name in inputs} != inputs:
        message = "holds images of another plan or generator", "choose another folder with --out"
    elif fixed and chunk != batched.chunk:
        message = f"was begun in chunks of {chunk}", "go on with that, or choose another folder with --out"
    if message:
        raise InputError("The output folder is taken.", [Problem(*message, file=str(folder))])
    return chunk


def _finish(folder: Path, plan: pd.DataFrame, names: list[str], generator: str) -> None:
    """Write the table of a complete set and remove partial files of killed processes; otherwise do nothing.

    Of independent jobs the last one finds the set complete, since each job checks after writing its images. An
    existing table is not overwritten: it may have the verdicts of a screening, and a process with missing images has
    removed an old one.
    """
    files = {path.name for path in (folder / "images").glob("*.png")}
    if not files.issuperset(Path(name).name for name in names) or (folder / TABLE).is_file():
        return
    for partial in (folder / "images").glob(".*.part.png"):
        partial.unlink(missing_ok=True)
    halved = [read_json(path)["chunk"] for path in folder.glob("smallest-chunk-*.json")]
    if halved:
        write_json(folder / GENERATION_FILE, {**read_json(folder / GENERATION_FILE), "smallest_chunk": min(halved)})
    conditions = [name for start in ("label.", "attr.") for name in plan.columns if str(name).startswith(start)]
    table = pd.DataFrame({"image": names, "seed": plan["seed"].astype("int64"), "generator": generator})
    table = pd.concat([table, plan[conditions]], axis=1)
    table = table.assign(
        prompt=plan["prompt"].to_numpy() if "prompt" in plan else None,
        guidance=plan["guidance"].to_numpy(),
        steps=plan["steps"].to_numpy(),
        accepted=True,
        reason="",
    )
    table = pd.concat([table, plan[[name for name in EXTRA if name in plan]]], axis=1)
    write_parquet(folder / TABLE, table.assign(sha256=[hash_file(folder / name) for name in names]))

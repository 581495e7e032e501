"""From a plan to images on disk, each from its own seed, with the record of how it was made."""

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
from equigen.files import hash_file, hash_value, read_json, read_parquet, write_json, write_parquet
from equigen.integrity import is_readable
from equigen.pngs import is_complete_png, write_png
from equigen.progress import console, progress_bar
from equigen.synthesis.chunks import CHUNK, Batched, Images, Rows, device_kind, render
from equigen.synthesis.sharding import share_of, write_first
from equigen.training import Run

GENERATION_FILE, TABLE = "generation.json", "synthetic.parquet"
WRITERS = 4  # threads that compress images while a GPU makes the next ones; a CPU has no thread to spare
EXTRA = ("guidance_low", "guidance_high", "solver", "negative", "pair", "changed")  # kept where a plan has them


@dataclass(frozen=True)
class SyntheticSet:
    """A folder of generated images: ``synthetic.parquet`` and lossless PNGs. It can be given where a path is asked."""

    folder: Path

    def __fspath__(self) -> str:
        """The folder, for functions that take a path."""
        return str(self.folder)

    @property
    def frame(self) -> pd.DataFrame:
        """One row an image; ``path`` is where it lies now. InputError while jobs of an array are still to come."""
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
    batch: int = 32,
    chunk: int | None = None,
    shard: tuple[int, int] | None = None,
    device: str | None = None,
    show: bool = True,
) -> SyntheticSet:
    """Make the images of a plan. Interrupted, the same call goes on; done, it makes nothing again.

    Images pass through the network in fixed chunks of the plan, so the same row gives the same image whatever the
    batch, the order of work, or the number of processes. Images that are there are kept if they are whole PNGs of the
    right size and, in a set that was complete, the very files that its table records; and made again if not.
    ``synthetic.parquet`` ends with the SHA-256 of each file. ``generation.json`` says what the folder is for and in
    which chunks it is made.

    Args:
        generator: a folder or hub name (``open_any_generator``), a finished run, or an open generator.
        plan: one row an image; besides the conditions (for text the column ``prompt``) the columns ``seed``,
            ``guidance``, ``steps``, and if they are there ``guidance_low``, ``guidance_high``, ``solver``,
            ``negative`` (see ``Request``).
        out: folder of the set; ``synthetic/<generator>`` by default.
        batch: images held and written together, a matter of memory alone.
        chunk: images that pass through the network together; None: what the set was begun with, else 32 on a CPU and
            up to 256 on a GPU. Other chunks may round differently. Where memory is short the chunk is halved, which
            ``generation.json`` then says (``smallest_chunk``).
        shard: (index, count) of one job of an array: it makes every count-th chunk, and the job that finds the set
            complete writes its table. Processes that torchrun started share the work by themselves, and all come
            back when the set is complete.
        device: for a generator that is not open yet.
        show: show a progress bar, of this process' share.

    Raises:
        InputError: the folder holds another plan or generator, or one in other chunks; the plan asks for what the
            generator does not know; not one image fits in memory.

    """
    plan = plan.reset_index(drop=True)
    share = share_of(shard)
    made_by = open_pipeline(generator, device)
    folder = Path(out) if out else Path("synthetic") / (generator.name if isinstance(generator, Run) else made_by.hash)
    _check(plan, made_by, batch, chunk)
    work = Batched(made_by, _claim(folder, plan, Batched(made_by, chunk), fixed=chunk is not None))
    names = [f"images/{index:07d}.png" for index in range(len(plan))]
    own = share.of(work.cut(plan))
    _clear_damage(folder, names)
    share.wait()
    parts = [_missing(folder, names, rows, made_by.size) for rows in own]
    total, missing = sum(map(len, own)), sum(map(len, parts))
    if missing:
        (folder / TABLE).unlink(missing_ok=True)  # a folder that has the table is complete
    with (
        progress_bar("generate", total, done=total - missing, show=show and missing > 0 and share.leads) as bar,
        _writing(threads=0 if device_kind(made_by) == "cpu" else WRITERS) as write,
    ):
        for rows, images in _made(work, plan, own, parts, batch):
            _note_memory(folder, work)
            write([folder / names[row] for row in rows], images)
            bar.advance(len(rows))
    share.wait()
    if share.leads:
        if isinstance(generator, (Run, str, Path)):
            carry_trained_on(generator.folder if isinstance(generator, Run) else generator, folder)
        _finish(folder, plan, names, made_by.hash)
    share.wait()
    return SyntheticSet(folder)


def open_pipeline(generator: str | Path | Run | Generator, device: str | None) -> Generator:
    """A generator from whatever names it, or itself."""
    if isinstance(generator, Run):
        return open_any_generator(generator.folder, device)
    return open_any_generator(generator, device) if isinstance(generator, (str, Path)) else generator


def _missing(folder: Path, names: list[str], rows: Rows, size: int) -> list[int]:
    """Rows whose image is not there, or not whole."""
    return [row for row in rows.tolist() if not is_complete_png(folder / names[row], size)]


def _clear_damage(folder: Path, names: list[str]) -> None:
    """Remove the images that are not those of the table, of every share, then the table; the set is incomplete then.

    A table that cannot be read is removed too. Images are removed first: whoever finds no table finds none of them.
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
    harmed = [name for name in names
              if (folder / name).is_file() and recorded.get(name) and hash_file(folder / name) != recorded[name]]
    if harmed:
        listed = ", ".join(harmed[:3]) + (", ..." if len(harmed) > 3 else "")
        console.print(f"[yellow]{folder}: {len(harmed)} images are not those of {TABLE} and are made again: "
                      f"{listed}[/yellow]")  # fmt: skip
        for name in harmed:
            (folder / name).unlink(missing_ok=True)
        table.unlink(missing_ok=True)


def _made(
    work: Batched, plan: pd.DataFrame, own: list[Rows], parts: list[list[int]], batch: int
) -> Iterator[tuple[list[int], Images]]:
    """Missing rows with their images in the order of work: whole chunks, about ``batch`` images each time."""
    lacking = [(rows, part) for rows, part in zip(own, parts, strict=True) if part]
    together = max(1, batch // work.chunk)
    for low in range(0, len(lacking), together):
        rows, images = [], []
        for chunk, part in lacking[low : low + together]:
            images.append(render(work, plan.iloc[chunk], np.searchsorted(chunk, part).tolist()))
            rows += part
        yield rows, np.concatenate(images)


@contextmanager
def _writing(threads: int) -> Iterator[Callable[[list[Path], Images], None]]:
    """Give a function that writes images to files; with threads it comes back before they are written.

    Each call waits for the call before it, and leaving the block for the last, so an error is told soon.
    """
    if not threads:
        yield _write_all
        return
    with ThreadPoolExecutor(threads) as pool:
        waiting: list[Future[None]] = []

        def write(paths: list[Path], images: Images) -> None:
            while waiting:
                waiting.pop(0).result()
            waiting.extend(pool.submit(write_png, *pair) for pair in zip(paths, images, strict=True))

        yield write
        write([], np.empty(0, dtype=np.uint8))


def _write_all(paths: list[Path], images: Images) -> None:
    for path, image in zip(paths, images, strict=True):
        write_png(path, image)


def _check(plan: pd.DataFrame, generator: Generator, batch: int, chunk: int | None) -> None:
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
    if chunk is not None and chunk < 1:
        problems.append(Problem(f"chunk {chunk}", "use at least 1"))
    if problems:
        raise InputError("This plan cannot be carried out.", problems)
    generator.check(plan)


def plan_hash(plan: pd.DataFrame) -> str:
    """SHA-256 over every cell of a plan, in its order."""
    return hash_value(plan.astype(object).where(plan.notna(), None).to_dict("list"))


def _claim(folder: Path, plan: pd.DataFrame, work: Batched, *, fixed: bool) -> int:
    """Write what this folder is for, and refuse one that is for something else; returns its size of chunks.

    ``fixed``: the user named the size, so another one is refused too.
    """
    claim = {"plan": plan_hash(plan), "generator": work.generator.hash, "images": len(plan)}
    place = folder / GENERATION_FILE
    if not place.is_file():
        write_first(place, {**claim, "chunk": work.chunk, "device": device_kind(work.generator)})
    found = read_json(place)
    chunk = int(found.get("chunk", CHUNK))  # before there was a choice it was this
    told = None
    if {name: found.get(name) for name in claim} != claim:
        told = "holds images of another plan or generator", "choose another folder with --out"
    elif fixed and chunk != work.chunk:
        told = f"was begun in chunks of {chunk}", "go on with that, or choose another folder with --out"
    if told:
        raise InputError("The output folder is taken.", [Problem(*told, file=str(folder))])
    return chunk


def _note_memory(folder: Path, work: Batched) -> None:
    """Leave word that memory was short, before images say so; one file a size, for several processes may do it."""
    place = folder / f"smallest-chunk-{work.fits}.json"
    if work.fits < work.chunk and not place.is_file():
        write_json(place, {"chunk": work.fits})


def _record(plan: pd.DataFrame, names: list[str], generator: str) -> pd.DataFrame:
    """The table that says of each image what was asked for and how it was made."""
    words = [name for start in ("label.", "attr.") for name in plan.columns if str(name).startswith(start)]
    record = pd.DataFrame({"image": names, "seed": plan["seed"].astype("int64"), "generator": generator})
    record = pd.concat([record, plan[words]], axis=1)
    record = record.assign(
        prompt=plan["prompt"].to_numpy() if "prompt" in plan else None,
        guidance=plan["guidance"].to_numpy(),
        steps=plan["steps"].to_numpy(),
        accepted=True,
        reason="",
    )
    return pd.concat([record, plan[[name for name in EXTRA if name in plan]]], axis=1)


def _finish(folder: Path, plan: pd.DataFrame, names: list[str], generator: str) -> None:
    """Write the table of a complete set, after which nothing is left to do; sweep up what a killed process left.

    Of jobs that share a set without knowing each other, the last one finds it complete: it looks after it has written
    its own images, and whoever looked before did not see them. A table that is there is kept: screening may have
    filled in its verdicts, and who had an image to make took an old one away.
    """
    made = {path.name for path in (folder / "images").glob("*.png")}
    if not made.issuperset(Path(name).name for name in names) or (folder / TABLE).is_file():
        return
    for left in (folder / "images").glob(".*.part.png"):
        left.unlink(missing_ok=True)
    halved = [read_json(path)["chunk"] for path in folder.glob("smallest-chunk-*.json")]
    if halved:
        write_json(folder / GENERATION_FILE, {**read_json(folder / GENERATION_FILE), "smallest_chunk": min(halved)})
    hashes = [hash_file(folder / name) for name in names]
    write_parquet(folder / TABLE, _record(plan, names, generator).assign(sha256=hashes))

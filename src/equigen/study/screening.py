"""The screening stage of a study: a set's verdicts, kept beside it, and taken back where they are not asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from shutil import rmtree

import pandas as pd

import equigen
from equigen.cohort import Cohort, accepted_mask
from equigen.diffusion import Generator
from equigen.files import hash_file, read_parquet, write_bytes, write_parquet
from equigen.integrity import Change
from equigen.progress import console
from equigen.quality import JudgeClassifier
from equigen.study.stage_settings import ScreenSettings
from equigen.study.stages import Stages
from equigen.synthesis import GENERATION_FILE, SyntheticSet, screen, unscreened_table

FIGURES, TABLE = "screening.parquet", "synthetic.parquet"


def screen_set(
    stages: Stages, made: SyntheticSet, asked: ScreenSettings, encoder: str, validation: Cohort, *,
    generator: Callable[[], Generator], judge: Callable[[], JudgeClassifier], show: bool,
) -> None:
    """Screen a set of the run folder, unless that is done; its table then has the verdicts.

    The stage keeps screening.parquet and a copy of the set's table: what a set's table says now may be of another
    screening, and is then put right.
    """
    settings = {**asked.model_dump(exclude={"encoder"}), "encoder": encoder}
    inputs = [equigen.__version__, (made.folder / GENERATION_FILE).read_text(), validation.hash, settings]

    owner = f"synthetic/{made.folder.name}"

    def work(out: Path) -> None:
        with stages.changing(owner):
            _work(out)

    def _work(out: Path) -> None:
        found = screen(
            made, generator(), judge(), fields=asked.fields, tries=asked.tries, threshold=asked.threshold,
            held_out=validation, replicates=asked.replicates, min_patients=asked.min_patients, show=show,
        )  # fmt: skip
        write_parquet(out / FIGURES, found.table)
        write_bytes(out / TABLE, (made.folder / TABLE).read_bytes())

    place = stages.run(_stage(made), inputs, work, [FIGURES, TABLE])
    stale = [name for name in (FIGURES, TABLE) if not (made.folder / name).is_file()
             or hash_file(made.folder / name) != hash_file(place / name)]  # fmt: skip
    if stale:
        with stages.changing(owner):
            for name in stale:
                write_bytes(made.folder / name, (place / name).read_bytes())


def clear_screened(folder: Path, place: Path, harmed: Sequence[Change]) -> None:
    """Remove the verdicts on a set with damaged images, so that screening draws again what is lost of its own draws."""
    screening = folder / "screening" / place.name
    if (screening / TABLE).is_file() and not {change.file for change in harmed} <= {FIGURES, TABLE}:
        rmtree(screening)


def unscreen(stages: Stages, made: SyntheticSet) -> None:
    """Take back the verdicts that a screening of this study gave, where it is not asked for; others are left alone."""
    kept = stages.folder / _stage(made) / TABLE
    if kept.is_file() and hash_file(kept) == hash_file(made.folder / TABLE):
        with stages.changing(f"synthetic/{made.folder.name}"):
            write_parquet(made.folder / TABLE, unscreened_table(read_parquet(made.folder / TABLE)))
            (made.folder / FIGURES).unlink(missing_ok=True)
        console.print(f"[yellow]{made.folder.name}: 'screen' is not asked for, its verdicts are taken back[/yellow]")


def _stage(made: SyntheticSet) -> str:
    return f"screening/{made.folder.name}"


def is_screened(made: SyntheticSet) -> bool:
    """Whether a set's table has verdicts, by this study or by hand."""
    return "first_seed" in read_parquet(made.folder / TABLE).columns


def made_by(made: SyntheticSet) -> str | list[str]:
    """What the images of a set depend on: plan and generator, and the verdicts where it is screened."""
    claim = (made.folder / GENERATION_FILE).read_text()
    return [claim, hash_file(made.folder / TABLE)] if is_screened(made) else claim


def accepted(made: SyntheticSet) -> pd.DataFrame:
    """The rows of a set whose images count."""
    frame = made.frame
    return frame[accepted_mask(frame)[0]].reset_index(drop=True)

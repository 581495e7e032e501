"""The screening stage of a study: the verdicts on a synthetic set, written to its table and removed from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from shutil import rmtree

import pandas as pd

import equigen
from equigen.cohort import Cohort, accepted_mask
from equigen.diffusion import Generator
from equigen.files import hash_file, write_bytes
from equigen.integrity import Change
from equigen.parquet import read_parquet, write_parquet
from equigen.progress import console
from equigen.quality import JudgeClassifier
from equigen.study.stage_settings import ScreenSettings
from equigen.study.stages import Stages
from equigen.synthesis import GENERATION_FILE, SyntheticSet, screen, unscreened_table

SCREENING, TABLE = "screening.parquet", "synthetic.parquet"


def screen_set(
    stages: Stages,
    synthetic: SyntheticSet,
    settings: ScreenSettings,
    encoder: str,
    validation: Cohort,
    *,
    generator: Callable[[], Generator],
    judge: Callable[[], JudgeClassifier],
    show: bool,
) -> None:
    """Screen a set of the run folder, unless that is done; its table then has the verdicts.

    The stage's folder has screening.parquet and a copy of the set's table. They are copied to the set where the files
    there differ, as after another screening.
    """
    options = {**settings.model_dump(exclude={"encoder"}), "encoder": encoder}
    inputs = [equigen.__version__, (synthetic.folder / GENERATION_FILE).read_text(), validation.hash, options]
    owner = f"synthetic/{synthetic.folder.name}"

    def work(out: Path) -> None:
        with stages.changing(owner):
            result = screen(
                synthetic, generator(), judge(), fields=settings.fields, tries=settings.tries,
                threshold=settings.threshold, held_out=validation, replicates=settings.replicates,
                min_patients=settings.min_patients, show=show,
            )  # fmt: skip
            write_parquet(out / SCREENING, result.table)
            write_bytes(out / TABLE, (synthetic.folder / TABLE).read_bytes())

    folder = stages.run(_stage(synthetic), inputs, work, [SCREENING, TABLE])
    stale = [name for name in (SCREENING, TABLE) if not (synthetic.folder / name).is_file()
             or hash_file(synthetic.folder / name) != hash_file(folder / name)]  # fmt: skip
    if stale:
        with stages.changing(owner):
            for name in stale:
                write_bytes(synthetic.folder / name, (folder / name).read_bytes())


def clear_screening(run: Path, synthetic: Path, damaged: Sequence[Change]) -> None:
    """Remove the screening of a set with damaged images, so that screening makes its redrawn images again.

    ``run``: the run folder. ``synthetic``: folder of the set. ``damaged``: its damaged files.
    """
    screening = run / "screening" / synthetic.name
    if (screening / TABLE).is_file() and not {change.file for change in damaged} <= {SCREENING, TABLE}:
        rmtree(screening)


def remove_screening(stages: Stages, synthetic: SyntheticSet) -> None:
    """Remove from a set's table the verdicts of this study's screening; verdicts of other screenings stay."""
    screened = stages.folder / _stage(synthetic) / TABLE
    table = synthetic.folder / TABLE
    if screened.is_file() and hash_file(screened) == hash_file(table):
        with stages.changing(f"synthetic/{synthetic.folder.name}"):
            write_parquet(table, unscreened_table(read_parquet(table)))
            (synthetic.folder / SCREENING).unlink(missing_ok=True)
        name = synthetic.folder.name
        console.print(f"[yellow]{name}: 'screen' is not asked for, its verdicts are taken back[/yellow]")


def _stage(synthetic: SyntheticSet) -> str:
    return f"screening/{synthetic.folder.name}"


def is_screened(synthetic: SyntheticSet) -> bool:
    """Whether a set's table has verdicts, of this study or of another screening."""
    return "first_seed" in read_parquet(synthetic.folder / TABLE).columns


def set_version(synthetic: SyntheticSet) -> str | list[str]:
    """Return what determines the images of a set: its plan and generator, and its verdicts if it is screened."""
    claim = (synthetic.folder / GENERATION_FILE).read_text()
    return [claim, hash_file(synthetic.folder / TABLE)] if is_screened(synthetic) else claim


def accepted_rows(synthetic: SyntheticSet) -> pd.DataFrame:
    """Return the rows of a set whose images are accepted."""
    frame = synthetic.frame
    return frame[accepted_mask(frame)[0]].reset_index(drop=True)

"""Screening of generated images by a classifier: refused images are generated again, with a table per group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
import pandas as pd

from equigen.cohort import Cohort, check_images, read_generated, read_image
from equigen.diffusion import Generator
from equigen.errors import InputError, Problem
from equigen.files import hash_value
from equigen.integrity import renew_record
from equigen.parquet import read_parquet, write_parquet
from equigen.quality import Classifier, ResamplingSettings, check_held_out, load_image_set, predict_images
from equigen.synthesis.chunks import render
from equigen.synthesis.generation import SyntheticSet, open_pipeline
from equigen.synthesis.screening.rounds import Rounds, make_rule, screened_table, unscreened_table
from equigen.synthesis.screening.table import FieldVerdicts, field_verdicts, groupings, screening_table
from equigen.training import Run

REQUIRED = ("image", "seed", "generator", "guidance", "steps")
TABLE, SYNTHETIC, FOLDER = "screening.parquet", "synthetic.parquet", "screening"


@dataclass(frozen=True)
class Screening:
    """The result of a screening: its table (``screening.parquet``) and the verdict on every generated image.

    ``draws``: ``row`` (position in ``synthetic.parquet``), ``draw`` (1 is the first), ``seed``, ``image``,
    ``sha256`` (of its file), ``accepted``, ``reason``, and for each field ``ok.<field>`` (1, 0, NaN unchecked) and
    ``p.<field>`` (probability of the requested level).
    """

    folder: Path
    table: pd.DataFrame
    draws: pd.DataFrame

    @property
    def synthetic(self) -> SyntheticSet:
        """The screened set."""
        return SyntheticSet(self.folder)


def screen(
    synthetic: SyntheticSet | str | PathLike[str],
    generator: str | Path | Run | Generator,
    classifier: Classifier,
    *,
    fields: Sequence[str] | None = None,
    tries: int = 3,
    threshold: float | None = None,
    held_out: Cohort | None = None,
    replicates: int = 500,
    min_patients: int = 30,
    seed: int = 0,
    device: str | None = None,
    show: bool = True,
) -> Screening:
    """Check generated images against their conditions; generate refused images again with the next seed.

    An image is accepted where the classifier reads the requested level of each checked field: by default that level
    must be the most probable one, which treats all levels alike if the classifier does (``fit_classifier``); with a
    threshold its probability must reach it. The k-th redraw of an image has the seed ``derive_seed(first seed,
    "redraw", k)``. ``synthetic.parquet`` gets ``image`` and ``seed`` of the last draw, ``accepted``, ``reason``,
    ``tries`` (number of draws, the first included), ``first_image`` and ``first_seed``; where it has ``sha256``, that
    of the last draw and ``first_sha256``. Images refused in every draw stay in the set, not accepted; ``evaluate`` and
    ``diagnose`` leave them out. The images of the first draw are never changed and the others lie in
    ``screening/<hash>/images``, so a set can be screened again by another rule. An interrupted call is resumed with
    identical results; a complete one generates nothing, except for images that differ from those it judged.

    A screening can be unfair: ``screening.parquet`` (see ``screening_table``) has its rejection rate in each group,
    and that of real images of the group. ``held_out`` changes no verdict.

    Args:
        synthetic: the set, made by ``generate``.
        generator: its generator: a folder, a run, or an open one.
        classifier: the judge: of ``fit_classifier``, or an ``FunctionClassifier``.
        fields: columns to check, such as ``label.dx`` (or one finding of a multi-label column, ``label.dx edema``);
            None checks all columns of the set that the classifier reads. All must agree, so of many findings name
            those that matter.
        tries: greatest number of redraws of an image; 0 only checks.
        threshold: least probability of the requested level; None: it must be the most probable one.
        held_out: real images, not of the training split nor of patients in the classifier's training data.
        replicates: number of bootstrap replicates and of permutations.
        min_patients: groups with fewer images, or fewer real patients, get no estimate.
        seed: of the resampling.
        device: for the generator.
        show: show progress bars.

    Raises:
        InputError: before any image is generated, for a set that is missing, of another generator, or of
            counterfactual pairs; a field that cannot be checked; invalid settings; real images of the training split
            or of patients in the classifier's training data.

    """
    folder = Path(synthetic)
    base = read_unscreened(folder)
    settings = ResamplingSettings(replicates=replicates, seed=seed, min_patients=min_patients)
    settings.check()
    rule = make_rule(classifier.targets, fields, [str(name) for name in base.columns], threshold)
    pipeline = open_pipeline(generator, device)
    _check(base, pipeline, tries, folder)
    if held_out is not None:
        check_held_out(held_out, classifier)
    size = int(min(read_image(folder / str(base["image"].iloc[0])).shape[:2]))
    key = [
        base.astype(object).where(base.notna(), None).to_dict("list"),
        classifier.identity,
        [[question.name, question.levels] for question in rule.questions],
        rule.threshold,
    ]
    screen_folder = folder / FOLDER / hash_value(key)[:12]
    rounds = Rounds(
        base, folder, screen_folder, rule, classifier, lambda rows: render(pipeline, rows, list(range(len(rows)))), size
    )
    verdicts = rounds.run(tries, show)
    for partial in screen_folder.rglob(".*.part.*"):  # of a killed process
        partial.unlink(missing_ok=True)
    real: FieldVerdicts | None = None
    frames = [base]
    levels: dict[str, list[str]] = {}
    kinds: dict[str, str] = {}
    if held_out is not None:
        images = load_image_set(held_out, "real")
        path = screen_folder / f"real-{held_out.hash[:12]}.parquet"
        if path.is_file():
            real_verdicts = read_parquet(path)
        else:
            readings = predict_images(classifier, images, size, title="screen, real images", show=show)
            real_verdicts = rule.verdicts(readings, images.frame)
            write_parquet(path, real_verdicts)
        real = field_verdicts(images.frame, real_verdicts, images.patients("real"))
        frames.append(images.frame)
        levels = {
            **{f"attr.{name}": spec.levels for name, spec in held_out.attributes.items()},
            **{f"label.{name}": spec.levels for name, spec in held_out.labels.items()},
        }
        kinds = {name: spec.kind for name, spec in held_out.labels.items()}
    first = verdicts[verdicts["draw"] == 1].sort_values("row").reset_index(drop=True)
    last = verdicts.groupby("row", sort=True).tail(1).sort_values("row")
    table = screening_table(
        rule,
        field_verdicts(base, first),
        last["draw"].to_numpy(np.int64),
        ~last["accepted"].to_numpy(dtype=bool),
        real,
        groupings(frames, levels, kinds),
        settings,
    )
    write_parquet(folder / TABLE, table)
    write_parquet(folder / SYNTHETIC, screened_table(base, verdicts))
    renew_record(folder)
    return Screening(folder, table, verdicts)


def read_unscreened(folder: Path) -> pd.DataFrame:
    """The table of a set before any screening; InputError where columns or images are missing or damaged."""
    path = folder / SYNTHETIC
    frame = read_generated(folder, "There is no synthetic set that can be used.")
    problems = [Problem("is missing", "give a set that generate made", column=name, file=str(path))
                for name in REQUIRED if name not in frame]  # fmt: skip
    if problems:
        raise InputError("This set cannot be screened.", problems)
    base = unscreened_table(frame)
    check_images(base, folder, "This set cannot be screened.")
    return base


def _check(base: pd.DataFrame, generator: Generator, tries: int, folder: Path) -> None:
    """Raise InputError for another generator, an empty set, counterfactual pairs or negative ``tries``."""
    problems = []
    hashes = sorted(set(base["generator"]) - {generator.hash})
    if hashes:
        mend = f"give the generator that made it; this one is {generator.hash}"
        problems.append(Problem(f"was made by {', '.join(map(str, hashes))}", mend, file=str(folder)))
    if tries < 0:
        problems.append(Problem(f"tries {tries}", "use 0 (only check) or more"))
    if len(base) == 0:
        problems.append(Problem("the set holds no image", "generate some", file=str(folder)))
    if "pair" in base:
        mend = "screen a set of another plan: a screen would hide what the pairs are to show, and part their seeds"
        problems.append(Problem("is a set of counterfactual pairs", mend, file=str(folder)))
    if problems:
        raise InputError("This set cannot be screened.", problems)

"""Screening: a classifier checks generated images, refused ones are drawn again, each group is accounted for."""

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
from equigen.files import hash_value, read_parquet, write_parquet
from equigen.integrity import renew_record
from equigen.quality import Classifier, ImageSet, Settings, check_held_out, image_set, read_images
from equigen.synthesis.chunks import render
from equigen.synthesis.generation import SyntheticSet, opened
from equigen.synthesis.screening.rounds import Redraw, Rounds, first_drawn, screened
from equigen.synthesis.screening.rules import Rule, make_rule
from equigen.synthesis.screening.table import groupings, judged, screening_table
from equigen.training import Run

NEEDED = ("image", "seed", "generator", "guidance", "steps")
TABLE, SYNTHETIC, FOLDER = "screening.parquet", "synthetic.parquet", "screening"


@dataclass(frozen=True)
class Screening:
    """What a screening did: its table (``screening.parquet``), and every image that was drawn with its verdict.

    ``draws``: ``row`` (position in ``synthetic.parquet``), ``draw`` (1 is the first), ``seed``, ``image``,
    ``sha256`` (of its file), ``accepted``, ``reason``, and for each field ``ok.<field>`` (1, 0, NaN unchecked) and
    ``p.<field>`` (probability of the asked level).
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
    """Check that each generated image shows what was asked for; draw refused ones again with the next seed.

    An image is accepted where each checked field whose asked level is known reads as asked: by default the asked level
    is the most probable one, which is the same bar for every level where the classifier treats levels alike
    (``fit_classifier`` does); with a threshold its probability must reach it. The k-th redraw of an image has the seed
    ``derive(first seed, "redraw", k)``. Into ``synthetic.parquet`` go ``image`` and ``seed`` of the last draw,
    ``accepted``, ``reason``, ``tries`` (images drawn, the first included), ``first_image`` and ``first_seed``; where
    the set has ``sha256``, that of the last draw and ``first_sha256``. Images given up stay, not accepted;
    ``evaluate`` and ``diagnose`` leave them out. First images are never touched, and those drawn again lie in
    ``screening/<screen>/images``, so the same set can be screened again by other rules. Interrupted, the same
    call goes on to the same bits; done, it makes nothing again, but for images that are not those it judged.

    A screen can be unfair: ``screening.parquet`` (see ``screening_table``) says how it treats each group, beside how it
    treats real images of the group. Nothing is chosen by it: ``held_out`` changes no verdict.

    Args:
        synthetic: the set, as ``generate`` made it.
        generator: the one that made it: its folder, a run, or an open one.
        classifier: ``fit_classifier``'s judge, or a user's own (``OwnClassifier``).
        fields: columns to check, such as ``label.dx`` (or one finding of a multi-label column, ``label.dx edema``);
            None checks all that the classifier reads and the set asks for. All must agree, so of many findings name
            those that matter.
        tries: how often an image may be drawn again; 0 only checks.
        threshold: least probability of the asked level; None: it is the most probable one.
        held_out: real images of patients that the classifier has not learned from, not of the training split.
        replicates: bootstrap replicates, and permutations.
        min_patients: groups with fewer images, or fewer real patients, get no number.
        seed: of the resampling.
        device: for the generator.
        show: show progress bars.

    Raises:
        InputError: before anything is drawn, for a set that is missing, of another generator, or of counterfactual
            pairs; a field that cannot be checked; senseless settings; real images of training or of the classifier's
            own patients.

    """
    folder = Path(synthetic)
    base = _base(folder)
    settings = Settings(replicates=replicates, seed=seed, min_patients=min_patients)
    settings.check()
    rule = make_rule(classifier.questions, fields, [str(name) for name in base.columns], threshold)
    maker = opened(generator, device)
    _check(base, maker, tries, folder)
    if held_out is not None:
        check_held_out(held_out, classifier)
    size = int(min(read_image(folder / str(base["image"].iloc[0])).shape[:2]))
    key = [base.astype(object).where(base.notna(), None).to_dict("list"), classifier.identity,
           [[question.name, question.levels] for question in rule.questions], rule.threshold]
    place = folder / FOLDER / hash_value(key)[:12]
    rounds = Rounds(base, folder, place, rule, classifier, _redraw(maker), size)
    found = rounds.run(tries, show)
    for left in place.rglob(".*.part.*"):  # of a process that was killed
        left.unlink(missing_ok=True)
    real = None if held_out is None else _real(held_out, rule, classifier, size, place, show)
    table = _table(base, found, rule, held_out, real, settings)
    write_parquet(folder / TABLE, table)
    write_parquet(folder / SYNTHETIC, screened(base, found))
    renew_record(folder)
    return Screening(folder, table, found)


def _base(folder: Path) -> pd.DataFrame:
    """The set's table before any screening."""
    path = folder / SYNTHETIC
    frame = read_generated(folder, "There is no synthetic set that can be used.")
    lacking = [name for name in NEEDED if name not in frame]
    if lacking:
        problems = [Problem("is missing", "give a set that generate made", column=name, file=str(path))
                    for name in lacking]  # fmt: skip
        raise InputError("This set cannot be screened.", problems)
    base = first_drawn(frame)
    check_images(base, folder, "This set cannot be screened.")
    return base


def _redraw(generator: Generator) -> Redraw:
    """How rows with new seeds become images: as ``generate`` makes those of a plan."""
    return lambda rows: render(generator, rows, list(range(len(rows))))


def _check(base: pd.DataFrame, generator: Generator, tries: int, folder: Path) -> None:
    problems = []
    strange = sorted(set(base["generator"]) - {generator.hash})
    if strange:
        mend = f"give the generator that made it; this one is {generator.hash}"
        problems.append(Problem(f"was made by {', '.join(map(str, strange))}", mend, file=str(folder)))
    if tries < 0:
        problems.append(Problem(f"tries {tries}", "use 0 (only check) or more"))
    if len(base) == 0:
        problems.append(Problem("the set holds no image", "generate some", file=str(folder)))
    if "pair" in base:
        mend = "screen a set of another plan: a screen would hide what the pairs are to show, and part their seeds"
        problems.append(Problem("is a set of counterfactual pairs", mend, file=str(folder)))
    if problems:
        raise InputError("This set cannot be screened.", problems)


def _real(
    held_out: Cohort, rule: Rule, classifier: Classifier, size: int, place: Path, show: bool
) -> tuple[ImageSet, pd.DataFrame]:
    """Verdicts on real images, each asked for what it shows; kept for the next call."""
    images, path = image_set(held_out, "real"), place / f"real-{held_out.hash[:12]}.parquet"
    if path.is_file():
        return images, read_parquet(path)
    found = rule.verdicts(read_images(classifier, images, size, title="screen, real images", show=show), images.frame)
    write_parquet(path, found)
    return images, found


def _table(
    base: pd.DataFrame, found: pd.DataFrame, rule: Rule, held_out: Cohort | None,
    real: tuple[ImageSet, pd.DataFrame] | None, settings: Settings,
) -> pd.DataFrame:
    """screening.parquet from the verdicts."""
    first = found[found["draw"] == 1].sort_values("row").reset_index(drop=True)
    last = found.groupby("row", sort=True).tail(1).sort_values("row")
    levels, kinds = {}, {}
    if held_out is not None:
        levels = {**{f"attr.{name}": spec.levels for name, spec in held_out.attributes.items()},
                  **{f"label.{name}": spec.levels for name, spec in held_out.labels.items()}}
        kinds = {name: spec.kind for name, spec in held_out.labels.items()}
    frames = [base] if real is None else [base, real[0].frame]
    own = None if real is None else judged(real[0].frame, real[1], real[0].patients("real"))
    return screening_table(rule, judged(base, first), last["draw"].to_numpy(np.int64),
                           ~last["accepted"].to_numpy(dtype=bool), own, groupings(frames, levels, kinds), settings)

"""The rule by which a screening accepts an image, and its resumable rounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from equigen.cohort import load_images
from equigen.errors import InputError, Problem
from equigen.files import hash_file
from equigen.parquet import read_parquet, write_parquet
from equigen.pngs import is_complete_png, write_png
from equigen.progress import Bar, progress_bar
from equigen.quality import Classifier, Target, predict_levels
from equigen.seeds import derive_seed

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Rule:
    """Accepts an image whose every checked question of known requested level is answered with that level.

    ``threshold`` None: the requested level is the most probable one, ties included. A number: the least probability of
    the requested level.
    """

    questions: Sequence[Target]
    threshold: float | None = None

    def verdicts(self, answers: Mapping[str, Array], requested: pd.DataFrame) -> pd.DataFrame:
        """One row an image: ``accepted``, ``reason`` ("" where accepted), and ``ok.<question>``, ``p.<question>``.

        Args:
            answers: probabilities [N, L] by question.
            requested: [N] rows with ``label.*`` and ``attr.*``: the request, or the true levels of a real image.

        ``ok`` is 1 or 0, and ``p`` the probability of the requested level; both are NaN (not checked) where that level
        is unknown to the classifier or missing.

        """
        columns: dict[str, Array] = {}
        reasons: list[list[str]] = [[] for _ in range(len(requested))]
        for question in self.questions:
            codes, probabilities = question.truth(requested), answers[question.name]
            checked, rows = codes >= 0, np.arange(len(requested))
            p = np.where(checked, probabilities[rows, np.maximum(codes, 0)], np.nan)
            least = probabilities.max(axis=1) if self.threshold is None else np.full(len(p), self.threshold)
            right = p >= least  # a comparison with NaN is false
            columns[f"ok.{question.name}"] = np.where(checked, right.astype(np.float64), np.nan)
            columns[f"p.{question.name}"] = p
            for row in np.flatnonzero(checked & ~right):
                code, best = int(codes[row]), int(probabilities[row].argmax())
                request = f"{question.name}: asked for {question.levels[code]} ({probabilities[row, code]:.2f})"
                reading = f", reads as {question.levels[best]} ({probabilities[row, best]:.2f})" if best != code else ""
                reasons[row].append(request + reading)
        text = pd.Series(["; ".join(sentences) for sentences in reasons], dtype="str")
        return pd.DataFrame({"accepted": [not sentences for sentences in reasons], "reason": text, **columns})


def make_rule(
    questions: Sequence[Target], fields: Sequence[str] | None, columns: Sequence[str], threshold: float | None
) -> Rule:
    """The rule for a set with these columns; without ``fields`` it checks every question that applies.

    Args:
        questions: those of the classifier.
        fields: columns (``label.dx``, all findings of a multi-label one) or names of questions; None takes all
            columns of the set.
        columns: of the set.
        threshold: as in ``Rule``.

    Raises:
        InputError: a field that the classifier cannot read or the set does not have, no field at all, or a threshold
            outside (0, 1].

    """
    readable = ", ".join(question.name for question in questions) or "nothing"
    problems = []
    if threshold is not None and not 0 < threshold <= 1:
        problems.append(Problem(f"threshold {threshold}", "use a probability above 0, at most 1, or None"))
    for name in fields or []:
        matches = [question for question in questions if name in (question.column, question.name)]
        if not matches:
            problems.append(Problem("the classifier cannot read this field", f"it reads {readable}", column=name))
        elif matches[0].column not in columns:
            problems.append(Problem("the set does not ask for this field", "leave it out", column=matches[0].column))
    checked = [
        question
        for question in questions
        if question.column in columns and (fields is None or question.column in fields or question.name in fields)
    ]
    if not checked and not problems:
        mend = f"name a field that the set asks for; the classifier reads {readable}"
        problems.append(Problem("nothing is checked", mend))
    if problems:
        raise InputError("These images cannot be screened so.", problems)
    return Rule(checked, threshold)


BATCH = 128  # images generated, judged and saved together; fixed, since rounding may depend on the batch
Images = NDArray[np.uint8]
Redraw = Callable[[pd.DataFrame], Images]
"""Rows of a plan (conditions, prompt, seed, guidance, steps) -> images [n, size, size, 3] uint8."""


def next_seed(seed: int, redraw: int) -> int:
    """Seed of the k-th redraw (1, 2, ...) of an image whose first draw has ``seed``."""
    return derive_seed(seed, "redraw", redraw)


@dataclass(frozen=True)
class Rounds:
    """The inputs of a screening and the folder of its intermediate results.

    ``base``: one row an image of the first draw, with ``image`` and ``seed``. ``folder``: of the set.
    ``screen_folder``: below it, of this screening: ``draw-<number>/*.parquet`` hold the verdicts,
    ``images/<row>-<redraw>.png`` the images of later draws.
    """

    base: pd.DataFrame
    folder: Path
    screen_folder: Path
    rule: Rule
    classifier: Classifier
    redraw: Redraw
    size: int

    def run(self, tries: int, show: bool) -> pd.DataFrame:
        """Verdicts on every generated image: ``row``, ``draw`` (1 is the first), ``seed``, ``image``, verdict.

        Each round generates the refused images of the round before, at most ``tries`` times. The rows, seeds and
        batches depend on the set and the rule alone, so an interrupted screening is resumed with identical results.
        """
        rows, rounds = np.arange(len(self.base)), []
        for draw in range(1, tries + 2):
            with progress_bar(f"screen, draw {draw}", len(rows), show=show) as bar:
                batches = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
                rounds.append(
                    pd.concat([self._batch_verdicts(draw, batch, bar) for batch in batches], ignore_index=True)
                )
            rows = rounds[-1]["row"].to_numpy()[~rounds[-1]["accepted"].to_numpy(dtype=bool)]
            if not len(rows):
                break
        return pd.concat(rounds, ignore_index=True)

    def _batch_verdicts(self, draw: int, rows: NDArray[np.int64], bar: Bar) -> pd.DataFrame:
        """Verdicts on some rows of one round: read from disk where they and their images are intact, else computed."""
        path = self.screen_folder / f"draw-{draw}" / f"{rows[0]:07d}.parquet"
        if draw == 1:
            names = [str(self.base["image"].iloc[row]) for row in rows]
        else:
            folder = self.screen_folder.relative_to(self.folder) / "images"
            names = [(folder / f"{row:07d}-{draw - 1}.png").as_posix() for row in rows]
        verdicts = read_parquet(path) if path.is_file() else pd.DataFrame()
        paths = [self.folder / name for name in names]
        # Saved verdicts are used if they are on these rows, and the image files are those that were judged.
        intact = "sha256" in verdicts and list(verdicts["row"]) == list(rows) and all(
            is_complete_png(file, self.size) and hash_file(file) == recorded
            for file, recorded in zip(paths, verdicts["sha256"], strict=True)
        )  # fmt: skip
        if not intact:
            verdicts = self._judge(draw, rows, names)
            write_parquet(path, verdicts)
        bar.advance(len(rows))
        return verdicts

    def _judge(self, draw: int, rows: NDArray[np.int64], names: list[str]) -> pd.DataFrame:
        """Verdicts on some rows of one round; images of a later draw are generated, and judged as written to disk."""
        requested = self.base.iloc[rows].reset_index(drop=True)
        if draw == 1:
            images = load_images([self.folder / name for name in names], self.size)
        else:
            requested = requested.assign(seed=[next_seed(int(seed), draw - 1) for seed in requested["seed"]])
            images = self.redraw(requested)
            shape = (len(requested), self.size, self.size, 3)
            if images.shape != shape or images.dtype != np.uint8:
                mend = f"images of the set are uint8 {list(shape)}"
                problem = Problem(f"it makes {images.dtype} {list(images.shape)}", mend)
                raise InputError("This generator does not make images like those of the set.", [problem])
            for name, image in zip(names, images, strict=True):
                write_png(self.folder / name, image)
        verdicts = self.rule.verdicts(predict_levels(self.classifier, images), requested)
        head = pd.DataFrame({"row": rows, "draw": draw, "seed": requested["seed"].astype("int64"), "image": names,
                             "sha256": [hash_file(self.folder / name) for name in names]})  # fmt: skip
        return pd.concat([head, verdicts], axis=1)


def unscreened_table(frame: pd.DataFrame) -> pd.DataFrame:
    """The table of a set before any screening, without verdicts."""
    bare = frame.reset_index(drop=True).assign(accepted=True, reason="")
    if "first_seed" not in bare:
        return bare
    restored = bare.assign(image=bare["first_image"], seed=bare["first_seed"])
    if "first_sha256" in restored:
        restored = restored.assign(sha256=restored["first_sha256"]).drop(columns="first_sha256")
    return restored.drop(columns=["tries", "first_image", "first_seed"])


def screened_table(base: pd.DataFrame, verdicts: pd.DataFrame) -> pd.DataFrame:
    """The set's table with the last draw of each row.

    ``image``, ``seed`` and ``sha256`` (where the set has it) are of the last draw, ``first_image``, ``first_seed`` and
    ``first_sha256`` of the first; ``tries`` counts the draws. Rows refused in every draw have ``accepted`` False and a
    ``reason``.
    """
    last = verdicts.groupby("row", sort=True).tail(1).sort_values("row")
    changed = {name: last[name].to_numpy() for name in ("image", "seed", "accepted", "reason")}
    first = {"first_image": base["image"].to_numpy(), "first_seed": base["seed"].to_numpy()}
    if "sha256" in base:
        changed["sha256"] = last["sha256"].to_numpy()
        first["first_sha256"] = base["sha256"].to_numpy()
    return base.assign(**changed, tries=last["draw"].to_numpy(), **first)

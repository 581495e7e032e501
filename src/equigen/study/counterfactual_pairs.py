"""Counterfactual pairs: their measurement and page, for one set and as a stage of a study."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import equigen
from equigen.cohort import Cohort
from equigen.files import hash_value, write_bytes
from equigen.quality import DEFAULT_ENCODER, JudgeClassifier
from equigen.report import write_pairs_page
from equigen.study.judges import fit_judge, image_side
from equigen.study.screening import set_version
from equigen.study.stage_settings import PairsSettings
from equigen.study.stages import Stages
from equigen.synthesis import PairComparison, SyntheticSet, compare_pairs, read_pairs

PAGE = ("index.html", "report.json")


def pairs(
    synthetic: str | Path,
    out: str | Path,
    cohort: Cohort | None = None,
    *,
    judge: str = "train",
    number: int = 1000,
    shown: int = 24,
    encoder: str = DEFAULT_ENCODER,
    min_pairs: int = 30,
    min_patients: int = 30,
    replicates: int = 500,
    seed: int = 0,
    show: bool = True,
) -> tuple[PairComparison, Path]:
    """Measure the counterfactual pairs of a synthetic set and write their page; return both.

    Args:
        synthetic: folder of a set with the policy counterfactual.
        out: folder of the page.
        cohort: real images, for a judge that reads what the generated ones show; None: no judge.
        judge: split that the judge learns from, see ``fit_judge``.
        number: pairs that are measured at most, the first of the plan.
        shown: pairs whose images are on the page.
        encoder: of the distances, and of the judge.
        min_pairs: fewer pairs get no number.
        min_patients: patients that a level needs for the judge.
        replicates: bootstrap replicates.
        seed: of the judge's folds and of resampling.
        show: show progress bars.

    Raises:
        InputError: the set has no pairs or no image; errors of the judge.

    """
    folder = Path(synthetic)
    read_pairs(folder)  # no judge is fitted for a set without pairs
    classifier, held_out = None, None
    if cohort is not None:
        classifier, held_out = fit_judge(
            cohort, judge, size=image_side(folder), encoder=encoder, min_patients=min_patients, seed=seed,
            cache_dir=folder / "features", show=show,
        )  # fmt: skip
    result = compare_pairs(
        folder, encoder=encoder, classifier=classifier, held_out=held_out, limit=number, min_pairs=min_pairs,
        replicates=replicates, seed=seed, cache_dir=folder / "features", show=show,
    )  # fmt: skip
    phantom = cohort is not None and cohort.phantom
    return result, _write_page(out, result, folder.resolve().name, {}, classifier, max_pairs=shown, phantom=phantom)


def _write_page(
    out: str | Path,
    result: PairComparison,
    name: str,
    facts: Mapping[str, str],
    classifier: JudgeClassifier | None,
    **options: Any,
) -> Path:
    """Write the page of measured pairs, with what the judge says of itself; ``options``: of ``write_pairs_page``."""
    notes = [] if classifier is None else classifier.notes
    facts = {**facts, **({"Judge": notes[0]} if notes else {})}
    title = f"Counterfactual pairs: {name}"
    return write_pairs_page(Path(out), result, title=title, facts=facts, warnings=notes[1:], **options)


def pairs_stage(
    stages: Stages,
    name: str,
    synthetic: SyntheticSet,
    settings: PairsSettings,
    encoder: str,
    validation: Cohort,
    *,
    judge: Callable[[], JudgeClassifier],
    cache: Path,
    versions: Mapping[str, str],
    show: bool,
) -> Path:
    """Measure a generator's pairs and write their page, unless that is done; return the folder of the page."""
    version = hash_value(set_version(synthetic))
    inputs = [equigen.__version__, version, validation.hash, encoder, settings.model_dump()]

    def work(out: Path) -> None:
        classifier, real = (judge(), validation) if settings.judge else (None, None)
        result = compare_pairs(
            synthetic, encoder=encoder, classifier=classifier, held_out=real, limit=settings.number,
            min_pairs=settings.min_pairs, replicates=settings.replicates, cache_dir=cache, show=show,
        )  # fmt: skip
        _write_page(
            out, result, name, {"Generator": name, "Plan": settings.plan}, classifier, max_pairs=settings.shown,
            settings=settings.model_dump(), versions=versions, phantom=validation.phantom,
        )  # fmt: skip

    return stages.run(f"pairs/{name}", inputs, work, PAGE)


def copy_pages(pages: Mapping[str, Path], report: Path) -> dict[str, str]:
    """Copy the pages into the report's folder, which may then be moved; return their addresses by the text of the link.

    ``pages``: generator name -> folder of its page.
    """
    shutil.rmtree(report / "pairs", ignore_errors=True)
    links = {}
    for name, folder in pages.items():
        for file in PAGE:
            write_bytes(report / "pairs" / name / file, (folder / file).read_bytes())
        links[f"Counterfactual pairs of {name}"] = f"pairs/{name}/{PAGE[0]}"
    return links

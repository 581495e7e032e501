"""The stage of a study that measures counterfactual pairs and writes a page for each generator."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import equigen
from equigen.cohort import Cohort
from equigen.files import hash_value, write_bytes
from equigen.quality import JudgeClassifier
from equigen.report import write_pairs_page
from equigen.study.screening import set_version
from equigen.study.stage_settings import PairsSettings
from equigen.study.stages import Stages
from equigen.synthesis import SyntheticSet, compare_pairs

PAGE = ("index.html", "report.json")


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
        pairs = compare_pairs(
            synthetic, encoder=encoder, classifier=classifier, held_out=real, limit=settings.number,
            min_pairs=settings.min_pairs, replicates=settings.replicates, cache_dir=cache, show=show,
        )  # fmt: skip
        facts = {"Generator": name, "Plan": settings.plan}
        facts |= {} if classifier is None else {"Judge": classifier.notes[0]}
        write_pairs_page(
            out, pairs, title=f"Counterfactual pairs: {name}", facts=facts, max_pairs=settings.shown,
            settings=settings.model_dump(), versions=versions, phantom=validation.phantom,
            warnings=[] if classifier is None else classifier.notes[1:],
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

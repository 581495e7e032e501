"""The stage of a study that measures counterfactual pairs, and the page of each generator's pairs beside the report."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import equigen
from equigen.cohort import Cohort
from equigen.files import hash_value, write_bytes
from equigen.quality import JudgeClassifier
from equigen.report import write_pairs_page
from equigen.study.screening import made_by
from equigen.study.stage_settings import PairsSettings
from equigen.study.stages import Stages
from equigen.synthesis import SyntheticSet, compare_pairs

PAGE = ("index.html", "report.json")


def pairs_stage(
    stages: Stages, name: str, made: SyntheticSet, asked: PairsSettings, encoder: str, validation: Cohort, *,
    judge: Callable[[], JudgeClassifier], cache: Path, versions: Mapping[str, str], show: bool,
) -> Path:
    """Measure a generator's pairs and write their page, unless that is done; the folder of the page."""
    inputs = [equigen.__version__, hash_value(made_by(made)), validation.hash, encoder, asked.model_dump()]

    def work(out: Path) -> None:
        reader, real = (judge(), validation) if asked.judge else (None, None)
        found = compare_pairs(
            made, encoder=encoder, classifier=reader, held_out=real, limit=asked.number, min_pairs=asked.min_pairs,
            replicates=asked.replicates, cache_dir=cache, show=show,
        )  # fmt: skip
        facts = {"Generator": name, "Plan": asked.plan, **({} if reader is None else {"Judge": reader.notes[0]})}
        write_pairs_page(
            out, found, title=f"Counterfactual pairs: {name}", facts=facts, shown=asked.shown,
            settings=asked.model_dump(), versions=versions, phantom=validation.phantom,
            warnings=[] if reader is None else reader.notes[1:],
        )  # fmt: skip

    return stages.run(f"pairs/{name}", inputs, work, PAGE)


def beside_report(pages: Mapping[str, Path], report: Path) -> dict[str, str]:
    """Copy pages into the report's folder, so that it may be moved as a whole; addresses for links, by their words."""
    shutil.rmtree(report / "pairs", ignore_errors=True)
    links = {}
    for name, place in pages.items():
        for file in PAGE:
            write_bytes(report / "pairs" / name / file, (place / file).read_bytes())
        links[f"Counterfactual pairs of {name}"] = f"pairs/{name}/{PAGE[0]}"
    return links

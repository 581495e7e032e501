"""The commands `equigen screen` and `equigen pairs`: what generated images show, by a judge of real ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from equigen.cli.evaluate import ENCODER_HELP
from equigen.cli.inputs import open_cohort, parse_words
from equigen.errors import InputError, Problem

HELD_OUT = {"train": "val", "val": "test"}  # split by which a judge of another split is checked
SetArgument = Annotated[Path, typer.Argument(metavar="SET", help="Folder that `equigen generate` wrote.")]
Judge = Annotated[
    str,
    typer.Option(help="Split that the judge learns from: train (held against val) or val (held against test)."),
]
MinPatients = Annotated[int, typer.Option(help="Patients that a level needs for the judge, a group for a number.")]
Replicates = Annotated[int, typer.Option(help="Bootstrap replicates and permutations.")]


def screen(
    *,
    synthetic: SetArgument,
    generator: Annotated[Path, typer.Option(help="The generator that made the set: refused images are drawn again.")],
    cohort: Annotated[Path, typer.Option(help="Real images, from which the judge learns what is shown.")],
    fields: Annotated[
        str | None,
        typer.Option(help="What is checked, separated by commas, such as label.dx,attr.sex; all by default."),
    ] = None,
    tries: Annotated[int, typer.Option(help="How often an image may be drawn again; 0 only checks.")] = 3,
    threshold: Annotated[
        float | None,
        typer.Option(help="Least probability of what was asked for; by default it is the most probable level."),
    ] = None,
    judge: Judge = "train",
    encoder: Annotated[str, typer.Option(help=ENCODER_HELP)] = "efficientnet-lite0",
    min_patients: MinPatients = 30,
    replicates: Replicates = 500,
    seed: Annotated[int, typer.Option(help="Of the judge's folds and of resampling.")] = 0,
    precision: Annotated[str, typer.Option(help="The precision that the set was made with.")] = "fp32",
) -> None:
    """Check that each generated image shows what was asked for, and draw refused ones again with the next seed.

    Example: `equigen screen synthetic/balanced --generator generators/none-seed0 --cohort cohort.yaml --fields
    label.dx`. Images still refused at the end stay in the folder, not accepted: `evaluate` and `diagnose` leave them
    out. A screen can be unfair too, so beside each group stands how often the same screen refuses real held-out images
    of it. Run again it goes on, with other rules it screens anew.
    """
    from equigen.diffusion import open_any_generator
    from equigen.report import screening_sentences
    from equigen.study import columns_of
    from equigen.synthesis import screen as check_images

    data, field_list = open_cohort(cohort), parse_words(fields)
    size = _side(synthetic)
    pipeline = open_any_generator(generator, precision=precision)
    columns = columns_of(field_list, data)
    classifier, held_out = _judge(data, judge, size, encoder, columns, min_patients, seed, synthetic)
    result = check_images(
        synthetic, pipeline, classifier, fields=field_list, tries=tries, threshold=threshold, held_out=held_out,
        replicates=replicates, min_patients=min_patients, seed=seed,
    )  # fmt: skip
    table = result.table[(result.table["field"] == "*") & result.table["metric"].isin(
        ["accepted_first", "given_up", "false_rejection", "excess_rejection"])]  # fmt: skip
    names = "metric attribute group n count estimate ci_low ci_high p_value note"
    typer.echo(table[names.split()].to_string(index=False, na_rep=""))
    _tell([*classifier.notes, *_lines(screening_sentences({synthetic.resolve().name: result.table}))])
    typer.echo(result.folder / "screening.parquet")


def pairs(
    *,
    synthetic: SetArgument,
    out: Annotated[Path, typer.Option(help="Folder of the page.")],
    cohort: Annotated[
        Path | None,
        typer.Option(help="Real images, for a judge that also reads what the generated ones show; optional."),
    ] = None,
    number: Annotated[int, typer.Option(help="Pairs that are measured at most, the first of the plan.")] = 1000,
    shown: Annotated[int, typer.Option(help="Pairs whose images are on the page.")] = 24,
    judge: Judge = "train",
    encoder: Annotated[str, typer.Option(help=ENCODER_HELP)] = "efficientnet-lite0",
    min_pairs: Annotated[int, typer.Option(help="With fewer pairs there is no number.")] = 30,
    min_patients: MinPatients = 30,
    replicates: Replicates = 500,
    seed: Annotated[int, typer.Option(help="Of the judge's folds and of resampling.")] = 0,
) -> None:
    """Show counterfactual pairs side by side, and measure what changes besides the attribute.

    Example: `equigen generate GENERATOR --cohort cohort.yaml --policy counterfactual --attribute sex --out pairs-sex`,
    then `equigen pairs pairs-sex --cohort cohort.yaml --out pairs-page`. Where only the attribute changes, the two
    images of a pair are alike in all that does not depend on it.
    """
    from equigen.report import pairs_sentences, write_pairs_page
    from equigen.synthesis import compare_pairs, read_pairs

    read_pairs(synthetic)  # no judge is fitted for a set without pairs
    data = None if cohort is None else open_cohort(cohort)
    classifier, held_out = (None, None) if data is None else _judge(
        data, judge, _side(synthetic), encoder, None, min_patients, seed, synthetic)  # fmt: skip
    result = compare_pairs(
        synthetic, encoder=encoder, classifier=classifier, held_out=held_out, limit=number, min_pairs=min_pairs,
        replicates=replicates, seed=seed, cache_dir=synthetic / "features",
    )  # fmt: skip
    facts = {} if classifier is None else {"Judge": classifier.notes[0]}
    page = write_pairs_page(
        out, result, title=f"Counterfactual pairs: {synthetic.resolve().name}", facts=facts, max_pairs=shown,
        phantom=data is not None and data.phantom, warnings=[] if classifier is None else classifier.notes[1:],
    )  # fmt: skip
    _tell([*result.warnings, *_lines(pairs_sentences(result.metrics, result.attribute))])
    typer.echo(page)


def _judge(
    data: Any,
    split: str,
    size: int,
    encoder: str,
    columns: Sequence[str] | None,
    min_patients: int,
    seed: int,
    synthetic: Path,
) -> tuple[Any, Any]:
    """Fit a judge on one split of the training domain; return it and the split by which it is checked."""
    from equigen.quality import fit_classifier

    if split not in HELD_OUT:
        problem = Problem(f"--judge {split}", "use train or val; nothing is chosen by the test split")
        raise InputError("A judge cannot learn from this split.", [problem])
    held_out = data.split(HELD_OUT[split], domain="id")
    if not len(held_out):
        problem = Problem(f"the split {HELD_OUT[split]} has no image of the training domain", "mend 'split'")
        raise InputError("The judge cannot be held against real images.", [problem])
    reader = fit_classifier(
        data.split(split, domain="id"), size=size, encoder=encoder, columns=columns, min_patients=min_patients,
        seed=seed, cache_dir=synthetic / "features",
    )  # fmt: skip
    return reader, held_out


def _side(synthetic: Path) -> int:
    """Return the side of a set's images in pixels."""
    from equigen.cohort import read_image
    from equigen.synthesis import SyntheticSet

    frame = SyntheticSet(synthetic).frame
    if not len(frame):
        problem = Problem("holds no image", "generate some", file=str(synthetic))
        raise InputError("There is nothing to look at.", [problem])
    return int(min(read_image(frame["path"].iloc[0]).shape[:2]))


def _lines(sentences: Sequence[Any]) -> list[str]:
    return ["\n  ".join([sentence.text, *sentence.parts]) for sentence in sentences]


def _tell(lines: Sequence[str]) -> None:
    for line in lines:
        typer.echo(line)

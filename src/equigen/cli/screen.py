"""The commands `equigen screen` and `equigen pairs`: what generated images show, by a judge of real ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from equigen.cli.inputs import open_cohort, parse_words, setting
from equigen.quality import DEFAULT_ENCODER, EvaluateSettings

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
    encoder: Annotated[str, setting(EvaluateSettings, "encoder")] = DEFAULT_ENCODER,
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
    from equigen.study import columns_of, fit_judge, image_side
    from equigen.synthesis import screen as check_images

    data, field_list = open_cohort(cohort), parse_words(fields)
    size = image_side(synthetic)
    pipeline = open_any_generator(generator, precision=precision)
    columns = columns_of(field_list, data)
    classifier, held_out = fit_judge(
        data, judge, size=size, encoder=encoder, columns=columns, min_patients=min_patients, seed=seed,
        cache_dir=synthetic / "features",
    )  # fmt: skip
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
    encoder: Annotated[str, setting(EvaluateSettings, "encoder")] = DEFAULT_ENCODER,
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
    from equigen.report import pairs_sentences
    from equigen.study import pairs as compare

    data = None if cohort is None else open_cohort(cohort)
    result, page = compare(
        synthetic, out, data, judge=judge, number=number, shown=shown, encoder=encoder, min_pairs=min_pairs,
        min_patients=min_patients, replicates=replicates, seed=seed,
    )  # fmt: skip
    _tell([*result.warnings, *_lines(pairs_sentences(result.metrics, result.attribute))])
    typer.echo(page)


def _lines(sentences: Sequence[Any]) -> list[str]:
    return ["\n  ".join([sentence.text, *sentence.parts]) for sentence in sentences]


def _tell(lines: Sequence[str]) -> None:
    for line in lines:
        typer.echo(line)

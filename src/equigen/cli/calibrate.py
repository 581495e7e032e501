"""The command `equigen calibrate`: guidance for each group of a trained generator."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from equigen.cli.inputs import open_cohort, parse_two_numbers, setting
from equigen.errors import InputError, Problem
from equigen.quality import DEFAULT_ENCODER, EvaluateSettings

GUIDANCE_HELP = (
    "A number (classifier-free guidance; 1 is none), `calibrated` or `common`. By default the generator's "
    "calibration where it has one, else 2."
)


def calibrate(
    *,
    generator: Annotated[Path, typer.Argument(metavar="GENERATOR", help="Folder that `equigen train` wrote.")],
    cohort: Annotated[
        Path,
        typer.Argument(
            metavar="COHORT",
            help="cohort.yaml, its folder, or a saved one. Tuned on its in-distribution validation split; the gain is "
            "measured on the test split.",
        ),
    ],
    attribute: Annotated[str, typer.Option(help="Attribute, or an intersection such as 'sex & age'.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of tables and page; GENERATOR/calibration by default.")
    ] = None,
    objective: Annotated[
        str, typer.Option(help="worst: the worst group; gap: mean of the groups plus a multiple of the gap.")
    ] = "worst",
    gap_weight: Annotated[float, typer.Option(help="Multiple of the gap, with --objective gap.")] = 1.0,
    budget: Annotated[int, typer.Option(help="Images that the search may make.")] = 4000,
    bounds: Annotated[str, typer.Option(help="Least and greatest guidance.")] = "1,4",
    images: Annotated[
        int | None,
        typer.Option(help="Images of a group in one evaluation; by default as many as let every group have eight."),
    ] = None,
    steps: Annotated[int, typer.Option(help="Steps of the sampler.")] = 20,
    encoder: Annotated[str, setting(EvaluateSettings, "encoder")] = DEFAULT_ENCODER,
    against: Annotated[
        str,
        typer.Option(
            help="images, or reconstructions: these as the autoencoder keeps them, so that what it loses "
            "is not counted."
        ),
    ] = "images",
    confirm: Annotated[bool, typer.Option(help="Measure the gain on the test split.")] = True,
    confirm_images: Annotated[int, typer.Option(help="Images of each of the three sets compared there.")] = 1000,
    replicates: Annotated[int, typer.Option(help="Bootstrap replicates of the gain.")] = 500,
    min_patients: Annotated[int, typer.Option(help="Groups with fewer patients take the common guidance.")] = 30,
    seed: Annotated[int, typer.Option(help="Of prompts, seeds and resampling.")] = 0,
    batch: Annotated[int, typer.Option(help="Images held at once.")] = 32,
) -> None:
    """Choose guidance for each group of a trained generator; nothing is trained again.

    Example: `equigen calibrate generators/none-seed0 cohort.yaml --attribute age`. The choice is saved with the
    generator, and `equigen generate` uses it. Run again, it goes on where it was interrupted.
    """
    from equigen.report import calibration_sentences, write_calibration_page
    from equigen.synthesis import calibrate as search

    data = open_cohort(cohort)
    result = search(
        generator,
        data.split("val", domain="id"),
        data.split("test", domain="id") if confirm else None,
        attribute=attribute,
        out=out,
        objective=objective,  # type: ignore[arg-type]
        gap_weight=gap_weight,
        budget=budget,
        bounds=parse_two_numbers(bounds, "--bounds", "give the least and the greatest guidance, such as 1,4"),
        images=images,
        steps=steps,
        encoder=encoder,
        against=against,  # type: ignore[arg-type]
        confirm_images=confirm_images,
        replicates=replicates,
        min_patients=min_patients,
        seed=seed,
        batch=batch,
    )
    page = write_calibration_page(
        result.folder / "report", table=result.table, choice=result.choice, gain=result.gain, settings=result.settings,
        title=f"Guidance by {result.guidance.attribute}: {generator.resolve().name}", phantom=data.phantom,
    )  # fmt: skip
    typer.echo(result.choice.to_string(index=False, na_rep=""))
    if result.gain is not None:
        columns = "set reference figure group excess ci_low ci_high difference difference_low difference_high p_value"
        typer.echo(result.gain[columns.split()].to_string(index=False, na_rep=""))
    for sentence in calibration_sentences(result.choice, result.gain, result.settings):
        typer.echo("\n  ".join([sentence.text, *sentence.parts]))
    for name in ("calibration", "gain"):
        if (result.folder / f"{name}.parquet").is_file():
            typer.echo(result.folder / f"{name}.parquet")
    typer.echo(page)


def parse_guidance(text: str) -> float:
    """Parse a guidance of the command line. Raises InputError for a text that is not a number of 0 or more."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        problem = Problem(f"'{text}'", "give a number of 0 or more, calibrated, or common")
        raise InputError("--guidance cannot be read.", [problem])
    return value

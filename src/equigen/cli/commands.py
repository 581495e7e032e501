"""The command `equigen`: one sub-command a stage, and `run` for all of them. Thin: it reads options and calls rooms."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from equigen import __version__
from equigen.cli.calibrate import calibrate
from equigen.cli.compare import compare
from equigen.cli.evaluate import evaluate, parse_label_filter
from equigen.cli.generate import generate, plan
from equigen.cli.inputs import (
    AcceptOption,
    BlindOption,
    NamesOption,
    VerifyOption,
    open_cohort,
    parse_numbers,
    parse_overrides,
    parse_words,
    print_rows,
    read_settings,
    result_table,
    set_option,
    setting,
)
from equigen.cli.listing import list_app
from equigen.cli.screen import pairs as show_pairs
from equigen.cli.screen import screen
from equigen.cli.train import CohortArgument, Settings, encode, train
from equigen.config import check_keys
from equigen.errors import InputError, Problem, problem_lines
from equigen.exit_status import Commands, end_on_sigterm
from equigen.fairness import DEFAULT_BASELINE, AuditSettings
from equigen.processes import leave_process_group
from equigen.progress import console

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
cohort_app = typer.Typer(no_args_is_help=True, help="Read and check a table of images by roles.")
autoencoder_app = typer.Typer(no_args_is_help=True, help="Fit an autoencoder to your own images.")
app.add_typer(cohort_app, name="cohort")
app.add_typer(autoencoder_app, name="autoencoder")
app.add_typer(list_app, name="list")

SetOption = Annotated[list[str] | None, set_option("study", "cohort.table=mine.csv")]


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    """Fair medical image generation: train, generate, measure and report image models for every patient group.

    Start with `equigen demo`, or with your own table: `equigen cohort check cohort.yaml`, then
    `equigen run study.yaml`. Every command goes on where it was interrupted when it is run again.
    """
    if version:
        typer.echo(f"equigen {__version__}")
        raise typer.Exit


@cohort_app.command("check")
def cohort_check(
    cohort: Annotated[Path, typer.Argument(metavar="COHORT_YAML", help="Which column of your table plays which role.")],
    out: Annotated[Path, typer.Option(help="Folder for cohort.parquet and cohort.json.")] = Path("cohort"),
    quarantine: Annotated[
        bool, typer.Option("--quarantine", help="Go on without the bad rows, and list them.")
    ] = False,
) -> None:
    """Check a table and its images, split by patient, count every diagnosis in every group.

    All problems are shown together, with row, column and mend. Writes cohort.parquet and cohort.json.
    """
    from rich.console import Console
    from rich.markup import escape

    from equigen.cohort import print_counts

    checked = open_cohort(cohort, quarantine, warn=False)
    checked.save(out)
    print_counts(checked, Console())
    for line in problem_lines(checked.quarantined):
        console.print(f"[yellow]left out[/yellow] {escape(line)}", highlight=False, soft_wrap=True)
    quarantined_rows = len({problem.row for problem in checked.quarantined})
    typer.echo(f"{len(checked)} images, {quarantined_rows} rows left out: {out / 'cohort.parquet'}")


@cohort_app.command("pack")
def cohort_pack(
    cohort: CohortArgument,
    out: Annotated[Path, typer.Option(help="Folder for shards/*.tar, table.parquet and cohort.yaml.")],
    images: Annotated[int, typer.Option(help="Images a shard.")] = 2048,
) -> None:
    """Pack a cohort as one table and tar shards (WebDataset), which large cohorts are read from as a stream.

    Image files go in byte for byte, and patients, splits and groups stay what they are. Interrupted, the same command
    goes on. The cohort.yaml in the folder is read as any other: `equigen cohort check FOLDER`.
    """
    from equigen.cohort import pack

    typer.echo(pack(open_cohort(cohort), out, images))


@app.command()
def phantom(
    out: Annotated[Path, typer.Option(help="Folder to write: images, metadata.csv, cohort.yaml.")],
    images: Annotated[int, typer.Option(help="How many images.")] = 4000,
    seed: Annotated[int, typer.Option(help="Another seed, other patients.")] = 0,
    settings: Annotated[
        Path | None,
        typer.Option(help="YAML of PhantomSettings: image size, group sizes, appearance, cameras."),
    ] = None,
) -> None:
    """Write a cohort of artificial fundus images with known truth, as an ordinary folder."""
    from equigen.cohort import PhantomSettings, write_phantom

    title = "The phantom's settings have errors."
    phantom_settings = check_keys(PhantomSettings, read_settings(settings), str(settings or "phantom"), title)
    typer.echo(write_phantom(out, images, seed, phantom_settings) / "cohort.yaml")


@autoencoder_app.command("train")
def autoencoder_train(
    cohort: CohortArgument,
    out: Annotated[Path, typer.Option(help="Folder that `--autoencoder` of other commands takes.")],
    patches: Annotated[
        int | None, typer.Option(help="Training patches to see; 100000 unless settings say otherwise.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Training seed.")] = 0,
    settings: Settings = None,
) -> None:
    """Fit an autoencoder to the training split, and print its reconstruction error on validation images.

    Example: `equigen autoencoder train cohort.yaml --out autoencoder`, then `equigen train cohort.yaml --autoencoder
    autoencoder`.
    """
    from equigen.cohort import load_images, read_image
    from equigen.latents import AutoencoderSettings, fit_autoencoder, psnr

    options = {} if patches is None else {"patches": patches}
    values = {"patches": 100_000, **read_settings(settings), **options}
    fit_settings = check_keys(AutoencoderSettings, values, str(settings or "options"), "The settings have errors.")
    data = open_cohort(cohort)
    images = [read_image(path) for path in data.split("train").frame["path"]]
    fitted = fit_autoencoder([images], out / "checkpoint.safetensors", fit_settings, seed)
    fitted.save(out)
    held_out = data.split("val").frame["path"][:512]
    if len(held_out):
        pixels = load_images(list(held_out), fit_settings.patch)
        decibels = psnr(pixels, fitted.reconstruct(pixels)).mean()
        typer.echo(f"{decibels:.1f} dB PSNR on {len(held_out)} validation images")
    typer.echo(out)


app.command()(encode)
app.command()(train)
app.command()(plan)
app.command()(generate)
app.command()(screen)
app.command("pairs")(show_pairs)
app.command()(calibrate)
app.command()(evaluate)
app.command()(compare)


@app.command()
def diagnose(
    *,
    cohort: CohortArgument,
    out: Annotated[Path, typer.Option(help="Folder for predictions.parquet and the fitted models.")],
    synthetic: Annotated[Path | None, typer.Option(help="Synthetic set to mix in.")] = None,
    label: Annotated[str | None, typer.Option(help="Diagnosis to learn; the cohort's first by default.")] = None,
    ratios: Annotated[
        str | None,
        typer.Option(help="Synthetic images shown for each real one; 0,1 by default with --synthetic, else 0."),
    ] = None,
    images: Annotated[int, typer.Option(help="Images shown to each classifier.")] = 40_000,
    size: Annotated[int, typer.Option(help="Side of the images in pixels.")] = 64,
    seeds: Annotated[str, typer.Option(help="Training seeds, separated by commas.")] = "0",
) -> None:
    """Train classifiers on real, and on real and synthetic images, for the same number of steps.

    Example: `equigen diagnose cohort.yaml --synthetic synthetic/balanced --ratios 0,0.5,1 --seeds 0,1 --out diagnosis`,
    then `equigen audit diagnosis/predictions.parquet --out fairness`.
    """
    from equigen.diagnosis import diagnose as fit

    ratio_list = None if ratios is None else parse_numbers(ratios, float, "--ratios")
    if synthetic is None and any(ratio_list or []):
        problem = Problem(f"--ratios {ratios}", "give --synthetic, or leave --ratios out")
        raise InputError("A ratio above 0 needs a synthetic set.", [problem])
    seed_list = parse_numbers(seeds, int, "--seeds")
    data = open_cohort(cohort)
    fit(data, synthetic, label=label, ratios=ratio_list, images=images, size=size, seeds=seed_list, out=out)
    typer.echo(out / "predictions.parquet")


@app.command()
def audit(
    *,
    predictions: Annotated[
        Path, typer.Argument(metavar="PREDICTIONS", help="csv, tsv or parquet; yours, or what `diagnose` wrote.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for fairness.parquet.")],
    groups: Annotated[str | None, setting(AuditSettings, "groups")] = None,
    truth: Annotated[str, setting(AuditSettings, "truth")] = "truth",
    positive: Annotated[str | None, setting(AuditSettings, "positive", metavar="WORD")] = None,
    score: Annotated[str, setting(AuditSettings, "score")] = "probability",
    patient: Annotated[str, setting(AuditSettings, "patient")] = "patient",
    site: Annotated[str, setting(AuditSettings, "site")] = "site",
    unknown: Annotated[str | None, setting(AuditSettings, "unknown")] = None,
    only: Annotated[list[str] | None, setting(AuditSettings, "only", metavar="COLUMN=LEVEL,...")] = None,
    baseline: Annotated[str, setting(AuditSettings, "baseline")] = DEFAULT_BASELINE,
    threshold: Annotated[float | None, setting(AuditSettings, "threshold")] = None,
    target_sensitivity: Annotated[float | None, setting(AuditSettings, "target_sensitivity")] = None,
    standardise: Annotated[str | None, setting(AuditSettings, "standardise")] = None,
    min_patients: Annotated[int, setting(AuditSettings, "min_patients")] = 30,
    min_cases: Annotated[int | None, setting(AuditSettings, "min_cases")] = None,
    replicates: Annotated[int, typer.Option(help="Bootstrap replicates, and draws of what chance gives.")] = 500,
    seed: Annotated[int, setting(AuditSettings, "seed")] = 0,
) -> None:
    """Audit predictions: AUC, sensitivity, calibration and gaps per group, with intervals and what chance gives.

    Example: `equigen audit predictions.csv --truth y --score p --patient pid --groups sex,race --out out`. The table
    may come from any model: one row for each image, with the truth, a probability and the patient. See docs/audit.md.
    """
    from equigen.fairness import audit as measure
    from equigen.parquet import write_parquet

    values = {
        "groups": parse_words(groups), "truth": truth, "score": score, "patient": patient,
        "site": site, "positive": positive, "unknown": parse_words(unknown) or [],
        "only": parse_label_filter(only), "baseline": baseline, "threshold": threshold,
        "target_sensitivity": target_sensitivity, "standardise": standardise, "min_patients": min_patients,
        "min_cases": min_cases, "replicates": replicates, "permutations": replicates, "seed": seed,
    }  # fmt: skip
    result = measure(predictions, settings=check_keys(AuditSettings, values, None, "The options have errors."))
    table = result.table
    write_parquet(out / "fairness.parquet", table)
    columns = "recipe task domain attribute group n n_patients estimate ci_low ci_high null_low null_high p_value"
    for note in table.attrs["notes"]:
        typer.echo(f"note: {note}")
    typer.echo("AUC; the other metrics are in the table:")
    print_rows(table[table["metric"] == "auc"], columns.split(), optional=("recipe", "task", "domain"))
    typer.echo(out / "fairness.parquet")


@app.command()
def report(
    out: Annotated[Path, typer.Option(help="Folder of the page.")],
    quality: Annotated[Path | None, typer.Option(help="quality.parquet of `equigen evaluate`.")] = None,
    fairness: Annotated[Path | None, typer.Option(help="fairness.parquet of `equigen audit`.")] = None,
    title: Annotated[str, typer.Option(help="What stands on top of the page.")] = "equigen report",
) -> None:
    """One self-contained HTML page and its JSON from result tables alone.

    Example: `equigen report --quality out/quality.parquet --fairness out/fairness.parquet --out report`.
    """
    from equigen.report import report as write

    if quality is None and fairness is None:
        problem = Problem("no table was named", "give --quality, --fairness or both")
        raise InputError("There is nothing to report.", [problem])
    typer.echo(write(result_table(quality), result_table(fairness), path=out, title=title))


@app.command()
def run(
    study: Annotated[Path, typer.Argument(metavar="STUDY_YAML", help="Cohort, generators, plans, what is measured.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the run; runs/NAME by default.")] = None,
    overrides: SetOption = None,
    blind: BlindOption = False,
    names: NamesOption = None,
    verify: VerifyOption = False,
    accept: AcceptOption = False,
) -> None:
    """Run a whole study to its report. Finished stages are skipped, an interrupted one goes on."""
    from equigen.study import run_study

    privacy = {"report.blind": True} if blind else {}
    privacy |= {} if names is None else {"report.names": names}
    typer.echo(run_study(study, out, parse_overrides(overrides) | privacy, verify=verify, accept=accept))


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("equigen-demo"),
    overrides: SetOption = None,
    verify: VerifyOption = False,
    accept: AcceptOption = False,
) -> None:
    """Run the main job on an embedded phantom: no download, no data, a few minutes on two CPU cores."""
    from equigen.study import run_study

    study = Path(str(resources.files("equigen.study") / "demo.yaml"))
    typer.echo(run_study(study, out, parse_overrides(overrides), verify=verify, accept=accept))


def main() -> None:
    """Run the command; exit status 2 for errors that a user can mend, 130 or 143 when interrupted or terminated."""
    end_on_sigterm()
    try:
        app()
    except SystemExit as end:
        if not end.code:  # after an error others may be lost, and nobody waits for them
            leave_process_group()
        raise

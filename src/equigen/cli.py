"""The command `equigen`: one sub-command a stage, and `run` for all of them. Thin: it reads options and calls rooms."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from equigen import __version__
from equigen.cli_calibrate import GUIDANCE_HELP, calibrate, with_guidance
from equigen.cli_compare import compare
from equigen.cli_errors import Commands, end_on_sigterm
from equigen.cli_evaluate import evaluate
from equigen.cli_inputs import numbers, open_cohort, pairs, read_settings, result_table, words
from equigen.errors import InputError, Problem
from equigen.progress import console

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
cohort_app = typer.Typer(no_args_is_help=True, help="Read and check a table of images by roles.")
autoencoder_app = typer.Typer(no_args_is_help=True, help="Fit an autoencoder to your own images.")
app.add_typer(cohort_app, name="cohort")
app.add_typer(autoencoder_app, name="autoencoder")

CohortArgument = Annotated[
    Path,
    typer.Argument(metavar="COHORT", help="cohort.yaml, its folder, or one that `equigen cohort check` wrote."),
]
Settings = Annotated[
    Path | None,
    typer.Option("--settings", help="YAML with further settings; options on the command line win."),
]
Coder = Annotated[str, typer.Option("--autoencoder", help="`shipped`, or a diffusers autoencoder folder.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override one setting, such as train.images=20000 or cohort.table=mine.csv. May be repeated.",
    ),
]


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
    cohort: Annotated[
        Path, typer.Argument(metavar="COHORT_YAML", help="Which column of your table plays which role.")
    ],
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

    checked = open_cohort(cohort, quarantine)
    checked.save(out)
    print_counts(checked, Console())
    for word, problems in (("warning", checked.warnings), ("left out", checked.quarantined)):
        for problem in problems:
            console.print(f"[yellow]{word}[/yellow] {escape(str(problem))}", highlight=False, soft_wrap=True)
    left = len({problem.row for problem in checked.quarantined})
    typer.echo(f"{len(checked)} images, {left} rows left out: {out / 'cohort.parquet'}")


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
    from equigen.cohort.phantom import PhantomSettings, write_phantom
    from equigen.study.settings import check_keys

    title = "The phantom's settings have errors."
    chosen = check_keys(PhantomSettings, read_settings(settings), str(settings or "phantom"), title)
    typer.echo(write_phantom(out, images, seed, chosen) / "cohort.yaml")


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
    """Fit an autoencoder to the training split, and print its reconstruction error on validation images."""
    from equigen.cohort import load_images, read_image
    from equigen.latents import AutoencoderSettings, fit_autoencoder, psnr
    from equigen.study.quality import reconstructed
    from equigen.study.settings import check_keys

    given = {} if patches is None else {"patches": patches}
    values = {"patches": 100_000, **read_settings(settings), **given}
    chosen = check_keys(AutoencoderSettings, values, str(settings or "options"), "The settings have errors.")
    data = open_cohort(cohort)
    images = [read_image(path) for path in data.split("train").frame["path"]]
    fitted = fit_autoencoder([images], out / "checkpoint.safetensors", chosen, seed)
    fitted.save(out)
    held_out = data.split("val").frame["path"][:512]
    if len(held_out):
        pixels = load_images(list(held_out), chosen.patch)
        decibels = psnr(pixels, reconstructed(fitted, pixels)).mean()
        typer.echo(f"{decibels:.1f} dB PSNR on {len(held_out)} validation images")
    typer.echo(out)


@app.command()
def encode(
    cohort: CohortArgument,
    out: Annotated[Path, typer.Option(help="Folder of the latent cache.")] = Path("latents"),
    size: Annotated[int, typer.Option(help="Side of the images in pixels.")] = 64,
    autoencoder: Coder = "shipped",
) -> None:
    """Encode every image once into safetensors shards, and print what the autoencoder loses."""
    from equigen.latents import encode as encode_cohort
    from equigen.latents import load_autoencoder, reconstruction_error

    coder = load_autoencoder(autoencoder)
    coder.check_size(size)
    data = open_cohort(cohort)
    latents = encode_cohort(data, coder, out, size)
    typer.echo(f"{len(data)} images, {reconstruction_error(data, latents, coder):.1f} dB PSNR: {out}")


@app.command()
def train(
    *,
    cohort: CohortArgument,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the generator; generators/MECHANISM-seedSEED by default."),
    ] = None,
    mechanism: Annotated[
        str | None, typer.Option(help="perturbation (the default), none, balanced, or another of docs/mechanisms.md.")
    ] = None,
    images: Annotated[
        int | None, typer.Option(help="Length of training in images seen; 200000 by default.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="Size of the network: tiny, small (the default) or base.")
    ] = None,
    size: Annotated[int | None, typer.Option(help="Side of the images in pixels; 64 by default.")] = None,
    seed: Annotated[int | None, typer.Option(help="Training seed; 0 by default.")] = None,
    start: Annotated[Path | None, typer.Option(help="Folder of a generator whose weights are gone on from.")] = None,
    min_snr: Annotated[
        float | None, typer.Option(help="Gamma of min-SNR loss weights, 5 is usual; off by default.")
    ] = None,
    accumulate: Annotated[
        int | None, typer.Option(help="Parts in which a batch passes the network, to save memory; 1 by default.")
    ] = None,
    precision: Annotated[str | None, typer.Option(help="auto (the default), fp32 or bf16.")] = None,
    snapshot_every: Annotated[
        int | None, typer.Option(help="Images between two kept generators; none are kept by default.")
    ] = None,
    autoencoder: Coder = "shipped",
    latents: Annotated[Path, typer.Option(help="Folder of the latent cache.")] = Path("latents"),
    settings: Settings = None,
) -> None:
    """Train a conditional latent diffusion model on the training split, with an equity mechanism."""
    from equigen.study.settings import check_keys
    from equigen.training import TrainSettings
    from equigen.training import train as train_generator

    given = {"mechanism": mechanism, "images": images, "preset": preset, "size": size, "seed": seed,
             "start": None if start is None else str(start), "min_snr": min_snr, "accumulate": accumulate,
             "precision": precision, "snapshot_every": snapshot_every}
    values = {**read_settings(settings), **{key: value for key, value in given.items() if value is not None}}
    title = "The training settings have errors."
    chosen = check_keys(TrainSettings, values, str(settings or "options"), title)
    data = open_cohort(cohort)
    run = train_generator(data, settings=chosen, out=out, latents=latents, autoencoder=autoencoder)
    typer.echo(run.folder)


@app.command()
def generate(
    *,
    generator: Annotated[Path, typer.Argument(metavar="GENERATOR", help="Folder that `equigen train` wrote.")],
    cohort: Annotated[Path, typer.Option(help="Cohort whose distribution the plan follows.")],
    out: Annotated[Path, typer.Option(help="Folder of the synthetic set.")],
    policy: Annotated[str, typer.Option(help="match, balanced, uniform or complement.")] = "match",
    size: Annotated[int, typer.Option(help="How many images.")] = 1000,
    guidance: Annotated[str | None, typer.Option(help=GUIDANCE_HELP)] = None,
    steps: Annotated[int, typer.Option(help="Steps of the sampler (DPM-Solver++).")] = 20,
    seed: Annotated[int, typer.Option(help="Another seed, other images.")] = 0,
    batch: Annotated[int, typer.Option(help="Images held at once; changes memory, never images.")] = 32,
) -> None:
    """Make a plan and its images: lossless PNGs and synthetic.parquet with seed and generator of each."""
    from equigen.diffusion import open_generator
    from equigen.synthesis import generate as make_images
    from equigen.synthesis import plan

    pipeline = open_generator(generator)
    rows = plan(open_cohort(cohort), policy, size, seed, steps=steps)  # type: ignore[arg-type]
    rows = with_guidance(rows, generator, pipeline.hash, guidance)
    typer.echo(make_images(pipeline, rows, out, batch=batch).folder / "synthetic.parquet")


app.command()(calibrate)
app.command()(evaluate)
app.command()(compare)


@app.command()
def diagnose(
    *,
    cohort: CohortArgument,
    out: Annotated[Path, typer.Option(help="Folder for predictions.parquet and the fitted models.")],
    synthetic: Annotated[Path | None, typer.Option(help="Synthetic set to mix in.")] = None,
    label: Annotated[
        str | None, typer.Option(help="Diagnosis to learn; the cohort's first by default.")
    ] = None,
    ratios: Annotated[
        str | None,
        typer.Option(help="Synthetic images shown for each real one; 0,1 by default with --synthetic, else 0."),
    ] = None,
    images: Annotated[int, typer.Option(help="Images shown to each classifier.")] = 40_000,
    size: Annotated[int, typer.Option(help="Side of the images in pixels.")] = 64,
    seeds: Annotated[str, typer.Option(help="Training seeds, separated by commas.")] = "0",
) -> None:
    """Train classifiers on real, and on real and synthetic images, for the same number of steps."""
    from equigen.diagnosis import diagnose as fit

    shares = None if ratios is None else numbers(ratios, float, "--ratios")
    if synthetic is None and any(shares or []):
        problem = Problem(f"--ratios {ratios}", "give --synthetic, or leave --ratios out")
        raise InputError("A ratio above 0 needs a synthetic set.", [problem])
    chosen = numbers(seeds, int, "--seeds")
    data = open_cohort(cohort)
    fit(data, synthetic, label=label, ratios=shares, images=images, size=size, seeds=chosen, out=out)
    typer.echo(out / "predictions.parquet")


@app.command()
def audit(
    *,
    predictions: Annotated[
        Path, typer.Argument(metavar="PREDICTIONS", help="csv, tsv or parquet; yours, or what `diagnose` wrote.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for fairness.parquet.")],
    groups: Annotated[
        str | None, typer.Option(help="Attributes, separated by commas; all attr.* by default.")
    ] = None,
    truth: Annotated[str, typer.Option(help="Column of the truth, 0 or 1.")] = "truth",
    score: Annotated[str, typer.Option(help="Column of the probability of 1.")] = "probability",
    patient: Annotated[str, typer.Option(help="Column of the patient.")] = "patient",
    site: Annotated[str, typer.Option(help="Column of the site; may be absent.")] = "site",
    replicates: Annotated[int, typer.Option(help="Bootstrap replicates and permutations.")] = 500,
) -> None:
    """Audit predictions: AUC, sensitivity, calibration and gaps per group, with intervals and what chance gives."""
    from equigen.fairness import audit as measure
    from equigen.files import write_parquet

    table = measure(
        predictions,
        words(groups),
        truth=truth,
        score=score,
        patient=patient,
        site=site,
        replicates=replicates,
        permutations=replicates,
    )
    write_parquet(out / "fairness.parquet", table)
    columns = "recipe task domain attribute group n n_patients estimate ci_low ci_high note"
    typer.echo("AUC; the other metrics are in the table:")
    typer.echo(table.loc[table["metric"] == "auc", columns.split()].to_string(index=False))
    typer.echo(out / "fairness.parquet")


@app.command()
def report(
    out: Annotated[Path, typer.Option(help="Folder of the page.")],
    quality: Annotated[Path | None, typer.Option(help="quality.parquet of `equigen evaluate`.")] = None,
    fairness: Annotated[Path | None, typer.Option(help="fairness.parquet of `equigen audit`.")] = None,
    title: Annotated[str, typer.Option(help="What stands on top of the page.")] = "equigen report",
) -> None:
    """One self-contained HTML page and its JSON from result tables alone."""
    from equigen.report import report as write

    if quality is None and fairness is None:
        problem = Problem("no table was named", "give --quality, --fairness or both")
        raise InputError("There is nothing to report.", [problem])
    typer.echo(write(result_table(quality), result_table(fairness), path=out, title=title))


@app.command()
def run(
    study: Annotated[
        Path, typer.Argument(metavar="STUDY_YAML", help="Cohort, generators, plans, what is measured.")
    ],
    out: Annotated[Path | None, typer.Option(help="Folder of the run; runs/NAME by default.")] = None,
    overrides: SetOption = None,
) -> None:
    """Run a whole study to its report. Finished stages are skipped, an interrupted one goes on."""
    from equigen.study import run_study

    typer.echo(run_study(study, out, pairs(overrides)))


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("equigen-demo"),
    overrides: SetOption = None,
) -> None:
    """Run the main job on an embedded phantom: no download, no data, a few minutes on two CPU cores."""
    from equigen.study import run_study

    page = run_study(Path(str(resources.files("equigen.study") / "demo.yaml")), out, pairs(overrides))
    typer.echo(page)


def main() -> None:
    """Run the command; exit status 2 for errors that a user can mend, 130 or 143 when interrupted or terminated."""
    end_on_sigterm()
    app()

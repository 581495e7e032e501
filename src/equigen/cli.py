"""The command `equigen`: one sub-command a stage, and `run` for all of them. Thin: it reads options and calls rooms."""

from __future__ import annotations

import sys
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import typer

from equigen import __version__
from equigen.errors import EquigenError, InputError, Problem
from equigen.progress import console

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown"
)
cohort_app = typer.Typer(no_args_is_help=True, help="Read and check a table of images by roles.")
autoencoder_app = typer.Typer(no_args_is_help=True, help="Fit an autoencoder to your own images.")
app.add_typer(cohort_app, name="cohort")
app.add_typer(autoencoder_app, name="autoencoder")

CohortArgument = Annotated[
    Path, typer.Argument(metavar="COHORT", help="cohort.yaml, or a folder that `equigen cohort check` wrote.")
]
Settings = Annotated[
    Path | None,
    typer.Option("--settings", help="YAML with further settings; options on the command line win."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override one setting, such as train.images=20000. May be repeated.",
    ),
]


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    """Fair medical image generation: train, generate, measure and report image models for every patient group.

    Start with `equigen demo`, or with your own table: `equigen cohort check cohort.yaml`, then `equigen run study.yaml`.
    Every command goes on where it was interrupted when it is run again.
    """
    if version:
        typer.echo(f"equigen {__version__}")
        raise typer.Exit


def open_cohort(path: Path, quarantine: bool = False) -> Any:
    """A cohort from cohort.yaml or from a saved folder."""
    from equigen.cohort import Cohort

    return Cohort.load(path) if path.is_dir() else Cohort.read(path, quarantine=quarantine)


def words(text: str | None) -> list[str] | None:
    """Comma-separated words; None stays None."""
    return None if text is None else [word.strip() for word in text.split(",") if word.strip()]


def read_settings(path: Path | None) -> dict[str, Any]:
    """A YAML file of settings; empty without one."""
    from equigen.cohort import read_yaml
    from equigen.study.settings import plain

    return {} if path is None else dict(plain(read_yaml(path)))


def pairs(items: list[str] | None) -> dict[str, Any]:
    """``key=value`` words as a mapping, values as YAML reads them."""
    from equigen.study.settings import plain

    wrong = [item for item in items or [] if "=" not in item]
    if wrong:
        raise InputError(
            "An override cannot be read.", [Problem(f"'{item}'", "write --set key=value") for item in wrong]
        )
    return {key: plain(value) for key, value in (item.split("=", 1) for item in items or [])}


@cohort_app.command("check")
def cohort_check(
    cohort: Annotated[Path, typer.Argument(help="cohort.yaml: which column of your table plays which role.")],
    out: Annotated[Path, typer.Option(help="Folder for cohort.parquet and cohort.json.")] = Path("cohort"),
    quarantine: Annotated[
        bool, typer.Option("--quarantine", help="Go on without the bad rows, and list them.")
    ] = False,
) -> None:
    """Check a table and its images, split by patient, count every diagnosis in every group.

    All problems are shown together, with row, column and mend. Writes cohort.parquet and cohort.json.
    """
    from rich.console import Console

    from equigen.cohort import print_counts

    checked = open_cohort(cohort, quarantine)
    checked.save(out)
    print_counts(checked, Console())
    for problem in checked.warnings:
        console.print(f"[yellow]warning[/yellow] {problem}", highlight=False)
    for problem in checked.quarantined:
        console.print(f"[yellow]left out[/yellow] {problem}", highlight=False)
    typer.echo(
        f"{len(checked)} images, {len(checked.quarantined)} problems set aside: {out / 'cohort.parquet'}"
    )


@app.command()
def phantom(
    out: Annotated[Path, typer.Option(help="Folder to write: images, metadata.csv, cohort.yaml.")],
    images: Annotated[int, typer.Option(help="How many images.")] = 4000,
    seed: Annotated[int, typer.Option(help="Another seed, other patients.")] = 0,
    settings: Annotated[
        Path | None,
        typer.Option(help="YAML of PhantomSettings: group sizes, appearance, cameras, image size."),
    ] = None,
) -> None:
    """Write a cohort of artificial fundus images with known truth, as an ordinary folder."""
    from equigen.cohort.phantom import PhantomSettings, write_phantom
    from equigen.study.settings import check_keys

    chosen = check_keys(
        PhantomSettings,
        read_settings(settings),
        str(settings or "phantom"),
        "The phantom's settings have errors.",
    )
    typer.echo(write_phantom(out, images, seed, chosen) / "cohort.yaml")


@autoencoder_app.command("train")
def autoencoder_train(
    cohort: CohortArgument,
    out: Annotated[Path, typer.Option(help="Folder that `--autoencoder` of other commands takes.")],
    patches: Annotated[int, typer.Option(help="Training patches to see.")] = 100_000,
    seed: int = 0,
    settings: Settings = None,
) -> None:
    """Fit an autoencoder to the training split, and print its reconstruction error on validation images."""
    from equigen.cohort import load_images, read_image
    from equigen.latents import AutoencoderSettings, fit_autoencoder, psnr
    from equigen.study.run import reconstructed
    from equigen.study.settings import check_keys

    chosen = check_keys(
        AutoencoderSettings,
        {"patches": patches, **read_settings(settings)},
        str(settings or "options"),
        "The settings have errors.",
    )
    data = open_cohort(cohort)
    fitted = fit_autoencoder(
        [[read_image(path) for path in data.split("train").frame["path"]]],
        out / "checkpoint.safetensors",
        chosen,
        seed,
    )
    fitted.save(out)
    held_out = data.split("val").frame["path"][:512]
    if len(held_out):
        pixels = load_images(list(held_out), chosen.patch)
        typer.echo(
            f"{psnr(pixels, reconstructed(fitted, pixels)).mean():.1f} dB PSNR on {len(held_out)} validation images"
        )
    typer.echo(out)


@app.command()
def encode(
    cohort: CohortArgument,
    out: Annotated[Path, typer.Option(help="Folder of the latent cache.")] = Path("latents"),
    size: Annotated[int, typer.Option(help="Side of the images in pixels.")] = 64,
    autoencoder: Annotated[
        str, typer.Option(help="`shipped`, or a diffusers autoencoder folder.")
    ] = "shipped",
) -> None:
    """Encode every image once into safetensors shards, and print what the autoencoder loses."""
    from equigen.latents import encode as encode_cohort
    from equigen.latents import load_autoencoder, reconstruction_error

    data, coder = open_cohort(cohort), load_autoencoder(autoencoder)
    latents = encode_cohort(data, coder, out, size)
    typer.echo(f"{len(data)} images, {reconstruction_error(data, latents, coder):.1f} dB PSNR: {out}")


@app.command()
def train(
    cohort: CohortArgument,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the generator; generators/<mechanism>-seed<seed> by default."),
    ] = None,
    mechanism: Annotated[
        str | None, typer.Option(help="none, perturbation, or one that a package adds.")
    ] = None,
    images: Annotated[int | None, typer.Option(help="Length of training in images seen.")] = None,
    preset: Annotated[str | None, typer.Option(help="Size of the network: tiny, small or base.")] = None,
    seed: Annotated[int | None, typer.Option(help="Training seed.")] = None,
    autoencoder: Annotated[
        str, typer.Option(help="`shipped`, or a diffusers autoencoder folder.")
    ] = "shipped",
    latents: Annotated[Path, typer.Option(help="Folder of the latent cache.")] = Path("latents"),
    settings: Settings = None,
) -> None:
    """Train a conditional latent diffusion model on the training split, with an equity mechanism."""
    from equigen.study.settings import check_keys
    from equigen.training import TrainSettings
    from equigen.training import train as train_generator

    given = {"mechanism": mechanism, "images": images, "preset": preset, "seed": seed}
    values = {**read_settings(settings), **{key: value for key, value in given.items() if value is not None}}
    chosen = check_keys(
        TrainSettings, values, str(settings or "options"), "The training settings have errors."
    )
    run = train_generator(
        open_cohort(cohort), settings=chosen, out=out, latents=latents, autoencoder=autoencoder
    )
    typer.echo(run.folder)


@app.command()
def generate(
    generator: Annotated[Path, typer.Argument(help="Folder that `equigen train` wrote.")],
    cohort: Annotated[Path, typer.Option(help="Cohort whose distribution the plan follows.")],
    out: Annotated[Path, typer.Option(help="Folder of the synthetic set.")],
    policy: Annotated[str, typer.Option(help="match, balanced, uniform or complement.")] = "match",
    size: Annotated[int, typer.Option(help="How many images.")] = 1000,
    guidance: Annotated[float, typer.Option(help="Classifier-free guidance scale; 1 is none.")] = 2.0,
    steps: Annotated[int, typer.Option(help="DPM-Solver++ steps.")] = 20,
    seed: int = 0,
    batch: Annotated[int, typer.Option(help="Images held at once; changes memory, never images.")] = 32,
) -> None:
    """Make a plan and its images: lossless PNGs and synthetic.parquet with seed and generator of each."""
    from equigen.synthesis import generate as make_images
    from equigen.synthesis import plan

    rows = plan(open_cohort(cohort), policy, size, seed, guidance, steps)  # type: ignore[arg-type]
    typer.echo(make_images(generator, rows, out, batch=batch).folder / "synthetic.parquet")


def _images(path: Path, groups: list[str] | None, image: str, patient: str | None) -> Any:
    """A side of an evaluation: a synthetic set, a cohort's test split, a table, or a folder of images."""
    from equigen.cohort import Cohort

    if (path / "synthetic.parquet").is_file():
        return path
    if path.suffix in {".yaml", ".yml"} or (path / "cohort.parquet").is_file():
        return open_cohort(path).split("test", domain="id")
    return Cohort.from_table(path, groups or [], image=image, patient=patient)


@app.command()
def evaluate(
    real: Annotated[Path, typer.Option(help="Table, folder, or cohort (its in-distribution test split).")],
    generated: Annotated[Path, typer.Option(help="Table, folder, or synthetic set; made by any model.")],
    out: Annotated[Path, typer.Option(help="Folder for quality.parquet.")],
    groups: Annotated[str | None, typer.Option(help="Attributes, separated by commas.")] = None,
    image: Annotated[str, typer.Option(help="Column of the image files.")] = "file",
    patient: Annotated[str, typer.Option(help="Column of the patient, in the real table.")] = "patient",
    size: Annotated[int | None, typer.Option(help="Side to which all images are brought.")] = None,
    replicates: Annotated[int, typer.Option(help="Bootstrap replicates and permutations.")] = 500,
) -> None:
    """Measure image quality for every group: KD, FD and IS at matched n, with floors, intervals and null bands."""
    from equigen.files import write_parquet
    from equigen.quality import evaluate as measure

    sides = _images(real, words(groups), image, patient), _images(generated, words(groups), image, None)
    table = measure(
        *sides,
        words(groups),
        run=generated.stem,
        size=size,
        replicates=replicates,
        cache_dir=out / "features",
    )
    write_parquet(out / "quality.parquet", table)
    typer.echo(
        table[
            [
                "metric",
                "attribute",
                "group",
                "matched_n",
                "estimate",
                "ci_low",
                "ci_high",
                "floor",
                "excess",
                "note",
            ]
        ].to_string(index=False)
    )
    typer.echo(out / "quality.parquet")


@app.command()
def diagnose(
    cohort: CohortArgument,
    out: Annotated[Path, typer.Option(help="Folder for predictions.parquet and the fitted models.")],
    synthetic: Annotated[Path | None, typer.Option(help="Synthetic set to mix in.")] = None,
    label: Annotated[
        str | None, typer.Option(help="Diagnosis to learn; the cohort's first by default.")
    ] = None,
    ratios: Annotated[str, typer.Option(help="Synthetic images shown for each real one.")] = "0,1",
    images: Annotated[int, typer.Option(help="Images shown to each classifier.")] = 40_000,
    size: Annotated[int, typer.Option(help="Side of the images in pixels.")] = 64,
    seeds: Annotated[str, typer.Option(help="Training seeds, separated by commas.")] = "0",
) -> None:
    """Train classifiers on real, and on real and synthetic images, for the same number of steps."""
    from equigen.diagnosis import diagnose as fit

    shares = _numbers(ratios, float, "--ratios") if synthetic is not None else [0.0]
    fit(
        open_cohort(cohort),
        synthetic,
        label=label,
        ratios=shares,
        images=images,
        size=size,
        seeds=_numbers(seeds, int, "--seeds"),
        out=out,
    )
    typer.echo(out / "predictions.parquet")


def _numbers(text: str, kind: Any, option: str) -> list[Any]:
    """Comma-separated numbers."""
    try:
        return [kind(word) for word in words(text) or []]
    except ValueError as error:
        raise InputError(
            f"{option} cannot be read.", [Problem(f"'{text}'", "give numbers separated by commas")]
        ) from error


@app.command()
def audit(
    predictions: Annotated[
        Path, typer.Argument(help="csv, tsv or parquet; yours, or what `diagnose` wrote.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for fairness.parquet.")],
    groups: Annotated[
        str | None, typer.Option(help="Attributes, separated by commas; all attr.* by default.")
    ] = None,
    truth: Annotated[str, typer.Option(help="Column of the truth, 0 or 1.")] = "truth",
    score: Annotated[str, typer.Option(help="Column of the probability of 1.")] = "probability",
    patient: Annotated[str, typer.Option(help="Column of the patient.")] = "patient",
    site: Annotated[str, typer.Option(help="Column of the site.")] = "site",
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
    shown = table[table["metric"] == "auc"]
    typer.echo(
        shown[
            [
                "recipe",
                "task",
                "domain",
                "attribute",
                "group",
                "n",
                "n_patients",
                "estimate",
                "ci_low",
                "ci_high",
                "note",
            ]
        ].to_string(index=False)
    )
    typer.echo(out / "fairness.parquet")


@app.command()
def report(
    out: Annotated[Path, typer.Option(help="Folder of the page.")],
    quality: Annotated[Path | None, typer.Option(help="quality.parquet")] = None,
    fairness: Annotated[Path | None, typer.Option(help="fairness.parquet")] = None,
    title: str = "equigen report",
) -> None:
    """One self-contained HTML page and its JSON from result tables alone."""
    import pandas as pd

    from equigen.report import report as write

    missing = [path for path in (quality, fairness) if path is not None and not path.is_file()]
    if missing:
        raise InputError(
            "A table is missing.",
            [Problem("there is no such file", "check the path", file=str(path)) for path in missing],
        )
    tables = [None if path is None else pd.read_parquet(path) for path in (quality, fairness)]
    typer.echo(write(*tables, path=out, title=title))


@app.command()
def run(
    study: Annotated[Path, typer.Argument(help="study.yaml: cohort, generators, plans, what is measured.")],
    out: Annotated[Path | None, typer.Option(help="Run folder; runs/<name> by default.")] = None,
    overrides: SetOption = None,
) -> None:
    """Run a whole study to its report. Finished stages are skipped, an interrupted one goes on."""
    from equigen.study import run_study

    typer.echo(run_study(study, out, pairs(overrides)))


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Run folder.")] = Path("equigen-demo"),
    overrides: SetOption = None,
) -> None:
    """Run the main job on an embedded phantom: no download, no data, a few minutes on two CPU cores."""
    from equigen.study import run_study

    page = run_study(Path(str(resources.files("equigen.study") / "demo.yaml")), out, pairs(overrides))
    typer.echo(page)


def main() -> None:
    """Run the command; errors that a user can mend are printed without a traceback, exit status 2."""
    try:
        app()
    except EquigenError as error:
        console.print("[bold red]error[/bold red] ", end="")
        console.print(str(error), markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        console.print("interrupted: run the same command again to go on")
        sys.exit(130)

"""The commands `equigen plan` and `equigen generate`: what is asked of a generator, and the images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from equigen.cli.calibrate import GUIDANCE_HELP, parse_guidance
from equigen.cli.inputs import echo, open_cohort, parse_two_numbers
from equigen.errors import InputError, Problem
from equigen.processes import is_first_process
from equigen.progress import console

ASKED, SAMPLER, MANY = "What is asked for", "How it is sampled", "Many devices and memory"
POLICIES = "match (the default), balanced, uniform, complement or counterfactual."
INTERVAL = "give the lowest and the highest noise level that is guided, such as 0.2,0.8"

Policy = Annotated[str | None, typer.Option(help=POLICIES, rich_help_panel=ASKED)]
Size = Annotated[int | None, typer.Option(help="How many images; 1000 by default.", rich_help_panel=ASKED)]
Seed = Annotated[int | None, typer.Option(help="Another seed, other images; 0 by default.", rich_help_panel=ASKED)]
Attribute = Annotated[
    str | None,
    typer.Option(help="What images of a counterfactual pair differ in, all else the same.", rich_help_panel=ASKED),
]
Steps = Annotated[int | None, typer.Option(help="Steps of the solver; 20 by default.", rich_help_panel=SAMPLER)]
Solver = Annotated[
    str | None,
    typer.Option(help="dpm++ (the default), ddim, unipc, euler, or own: a pipeline's.", rich_help_panel=SAMPLER),
]
Negative = Annotated[
    str | None,
    typer.Option(help="Prompt to guide away from, of text-to-image generators.", rich_help_panel=SAMPLER),
]
Limits = Annotated[
    str | None,
    typer.Option(
        metavar="LOW,HIGH", help="Noise levels t/T that are guided, from 0 to 1; all by default.",
        rich_help_panel=SAMPLER,
    ),
]  # fmt: skip


def plan(
    *,
    cohort: Annotated[Path, typer.Argument(metavar="COHORT", help="Cohort whose distribution the plan follows.")],
    out: Annotated[Path, typer.Option(help="File of the plan: csv, tsv or parquet.")],
    policy: Policy = None,
    size: Size = None,
    seed: Seed = None,
    attribute: Attribute = None,
    guidance: Annotated[str, typer.Option(help="Classifier-free guidance; 1 is none.", rich_help_panel=SAMPLER)] = "2",
    steps: Steps = None,
    solver: Solver = None,
    negative: Negative = None,
    interval: Limits = None,
) -> None:
    """Write what is to be sampled as a table, one row an image, to look at and to edit.

    `equigen plan cohort.yaml --policy balanced --size 500 --out plan.csv`, then
    `equigen generate GENERATOR --plan plan.csv --out synthetic/mine`. Policies: match follows the training split;
    balanced has every group equally often, diagnoses as in the whole; uniform every diagnosis in every group;
    complement what each group lacks to the largest; counterfactual pairs that differ in one attribute alone.
    In a csv `unknown` stands for a label or attribute that is not known.
    """
    from equigen.synthesis import write_plan

    rows = _rows(cohort, policy, size, seed, attribute, steps, solver, negative, interval)
    echo(write_plan(out, rows.assign(guidance=parse_guidance(guidance))))


def generate(
    *,
    generator: Annotated[
        Path,
        typer.Argument(
            metavar="GENERATOR",
            help="Folder that `equigen train` wrote, a text-to-image pipeline of diffusers, or OWNER/NAME of the hub.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the synthetic set.")],
    cohort: Annotated[Path | None, typer.Option(help="Cohort whose distribution the plan follows.")] = None,
    plan_file: Annotated[
        Path | None, typer.Option("--plan", help="Instead of a cohort: a table that `equigen plan` wrote.")
    ] = None,
    policy: Policy = None,
    size: Size = None,
    seed: Seed = None,
    attribute: Attribute = None,
    guidance: Annotated[str | None, typer.Option(help=GUIDANCE_HELP, rich_help_panel=SAMPLER)] = None,
    steps: Steps = None,
    solver: Solver = None,
    negative: Negative = None,
    interval: Limits = None,
    batch: Annotated[
        int, typer.Option(help="Images written together; changes memory, never images.", rich_help_panel=MANY)
    ] = 32,
    chunk: Annotated[
        int | None,
        typer.Option(
            help="Images that pass the network together; 32 on a CPU, up to 256 on a GPU. Others round differently.",
            rich_help_panel=MANY,
        ),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N", help="Part of a job array, counted from 1: 1/4, 2/4, 3/4, 4/4.", rich_help_panel=MANY
        ),
    ] = None,
    precision: Annotated[
        str, typer.Option(help="fp32, bf16 or fp16, of text-to-image pipelines.", rich_help_panel=MANY)
    ] = "fp32",
) -> None:
    """Make a plan and its images: lossless PNGs and synthetic.parquet with seed and generator of each.

    `equigen generate generators/none-seed0 --cohort cohort.yaml --policy balanced --size 5000 --out synthetic/balanced`

    Pairs that differ in one attribute: `... --policy counterfactual --attribute sex`, which `equigen pairs` shows.

    On two GPUs: `torchrun --nproc-per-node 2 -m equigen generate ...`; in a job array: `... --shard 1/4`. However the
    work is shared, the images are the same.
    """
    from equigen.cohort import carry_trained_on, read_trained_on
    from equigen.diffusion import EquigenPipeline, open_any_generator
    from equigen.synthesis import generate as make_images
    from equigen.synthesis import read_plan

    options = {"--cohort": cohort, "--policy": policy, "--size": size, "--seed": seed, "--attribute": attribute,
             "--guidance": guidance, "--steps": steps, "--solver": solver, "--negative": negative,
             "--interval": interval}  # fmt: skip
    _check_source(plan_file, options)
    process_shard = None if shard is None else _shard(shard)
    read_trained_on(generator)  # a damaged one is told before the images are made
    pipeline = open_any_generator(generator, precision=precision)
    if plan_file is not None:
        rows = read_plan(plan_file)
    else:
        reads = not isinstance(pipeline, EquigenPipeline)
        rows = _rows(cohort, policy, size, seed, attribute, steps, solver, negative, interval, captions=reads)
        rows = _with_guidance(rows, generator, pipeline.hash, guidance)
    synthetic = make_images(pipeline, rows, out, batch=batch, chunk=chunk, shard=process_shard)
    table = synthetic.folder / "synthetic.parquet"
    if is_first_process() and table.is_file():
        carry_trained_on(generator, synthetic.folder)
    echo(table if table.is_file() else f"{synthetic.folder}: part {shard} is made; the last part writes {table.name}")


def _rows(
    cohort: Any,
    policy: str | None,
    size: int | None,
    seed: int | None,
    attribute: str | None,
    steps: int | None,
    solver: str | None,
    negative: str | None,
    interval: str | None,
    captions: bool = True,
) -> Any:
    """Return the rows of a plan; None takes the default of ``plan``."""
    from equigen.synthesis import plan as make_plan

    low, high = (None, None) if interval is None else parse_two_numbers(interval, "--interval", INTERVAL)
    options = {"policy": policy, "size": size, "seed": seed, "attribute": attribute, "steps": steps, "solver": solver,
             "negative": negative, "guidance_low": low, "guidance_high": high}  # fmt: skip
    arguments: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    return make_plan(open_cohort(cohort), **arguments, captions=captions)


def _with_guidance(rows: Any, generator: Path, identity: str, guidance: str | None) -> Any:
    """Return the plan with the guidance of ``--guidance``, and print that of a calibration."""
    from equigen.synthesis import CALIBRATION_FILE, set_guidance

    level = guidance if guidance in {None, "calibrated", "common"} else parse_guidance(guidance)
    rows, calibration = set_guidance(rows, level, generator, identity)  # type: ignore[arg-type]
    if calibration is not None:
        groups = ", ".join(f"{name} {value:g}" for name, value in calibration.groups.items())
        description = f"{calibration.common:g} for all" if level == "common" else groups
        console.print(f"Guidance by {generator / CALIBRATION_FILE}: {description} (--guidance 2 takes 2)",
                      markup=False, highlight=False, soft_wrap=True)  # fmt: skip
    return rows


def _check_source(file: Path | None, options: dict[str, Any]) -> None:
    """Raise InputError unless there is either a plan's file, without other options of a plan, or a cohort."""
    conflicts = [option for option, value in options.items() if value is not None]
    if file is not None and conflicts:
        mend = "leave them out: the plan says it row by row; edit it"
        problem = Problem(f"{', '.join(conflicts)} beside --plan", mend)
        raise InputError("The plan is given twice.", [problem])
    if file is None and options["--cohort"] is None:
        problem = Problem("neither --cohort nor --plan", "give --cohort COHORT to make a plan, or --plan FILE")
        raise InputError("There is nothing to generate.", [problem])


def _shard(text: str) -> tuple[int, int]:
    """Parse ``2/4`` as (1, 4), index and count of shards."""
    first, _, last = text.partition("/")
    if not (first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last)):
        problem = Problem(f"'{text}'", "give the part and their number, such as 1/4 for the first of four")
        raise InputError("--shard cannot be read.", [problem])
    return int(first) - 1, int(last)

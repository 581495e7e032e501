"""The command `equigen compare`: mechanisms against each other, over seeds and guidance, from one YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from equigen.cli.inputs import AcceptOption, VerifyOption, parse_overrides, set_option


def compare(
    comparison: Annotated[
        Path, typer.Argument(metavar="COMPARISON_YAML", help="It names cohort, mechanisms, seeds, plans and guidance.")
    ],
    out: Annotated[Path | None, typer.Option(help="Folder of the run; runs/NAME by default.")] = None,
    jobs: Annotated[
        int | None, typer.Option(help="Jobs at once; by default one a GPU, or cores divided by threads.")
    ] = None,
    engine: Annotated[
        str | None, typer.Option(help="local (the default), ray or submitit; the last two are extras.")
    ] = None,
    overrides: Annotated[list[str] | None, set_option("comparison", "seeds=[0,1]")] = None,
    verify: VerifyOption = False,
    accept: AcceptOption = False,
) -> None:
    """Run equity mechanisms against each other: overall quality, worst group and gap, with intervals over seeds.

    Example: `equigen compare examples/compare-phantom.yaml` (no data needed). One table and one page come out. Jobs run
    in parallel; those that are done are skipped, so run it again to go on.
    """
    from equigen.comparison import compare as run

    options = {"jobs": jobs, "engine": engine}
    changes = {**parse_overrides(overrides), **{key: value for key, value in options.items() if value is not None}}
    typer.echo(run(comparison, out, changes, verify=verify, accept=accept))

"""The command `equigen evaluate`: images that any model made, against real ones, for every group."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from equigen.cli.inputs import BlindOption, NamesOption, parse_words, print_rows, print_warnings, setting
from equigen.config import check_keys
from equigen.errors import InputError, Problem
from equigen.quality import DEFAULT_ENCODER, EvaluateSettings


def evaluate(
    *,
    real: Annotated[
        Path, typer.Option(help="Held-out real images: table, folder, or cohort (its in-distribution test split).")
    ],
    generated: Annotated[
        list[str],
        typer.Option(
            metavar="[NAME=]PATH",
            help="Table, folder of images, or synthetic set; made by any model. Repeat it to compare several.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for quality.parquet and the report.")],
    groups: Annotated[str | None, setting(EvaluateSettings, "groups")] = None,
    labels: Annotated[str | None, setting(EvaluateSettings, "labels")] = None,
    only: Annotated[list[str] | None, setting(EvaluateSettings, "only", metavar="LABEL=LEVEL,...")] = None,
    train: Annotated[
        Path | None,
        typer.Option(
            help="What the generator was trained on, to look for copies: table, folder or cohort (its training split). "
            "A cohort given as --real brings its own."
        ),
    ] = None,
    image: Annotated[str, setting(EvaluateSettings, "image")] = "file",
    patient: Annotated[str, setting(EvaluateSettings, "patient")] = "patient",
    encoder: Annotated[str, setting(EvaluateSettings, "encoder")] = DEFAULT_ENCODER,
    metrics: Annotated[str | None, setting(EvaluateSettings, "metrics")] = None,
    size: Annotated[int | None, setting(EvaluateSettings, "size")] = None,
    matched_n: Annotated[int | None, setting(EvaluateSettings, "matched_n")] = None,
    repeats: Annotated[int, setting(EvaluateSettings, "repeats")] = 5,
    replicates: Annotated[int, setting(EvaluateSettings, "replicates")] = 500,
    min_patients: Annotated[int, setting(EvaluateSettings, "min_patients")] = 30,
    limit: Annotated[int, setting(EvaluateSettings, "limit")] = 4000,
    seed: Annotated[int, setting(EvaluateSettings, "seed")] = 0,
    intersections: Annotated[bool, setting(EvaluateSettings, "intersections")] = True,
    blind: BlindOption = False,
    names: NamesOption = None,
) -> None:
    """Measure image quality, memorisation and semantic correctness for every group, at matched n, with intervals.

    Example: `equigen evaluate --real real.csv --train train.csv --generated ours=a.csv --generated theirs=b.csv
    --groups sex,age --labels dx --out result`. Nothing of ours has to have made the images. Encoded images are kept
    in OUT/features, so a second run with other options is quick.
    """
    from equigen.quality import open_sources

    paths = parse_named_paths(generated)
    values = {
        "groups": parse_words(groups), "labels": parse_words(labels), "only": parse_label_filter(only), "image": image,
        "patient": patient, "encoder": encoder, "metrics": parse_words(metrics),
        "size": size, "matched_n": matched_n, "repeats": repeats, "replicates": replicates, "seed": seed,
        "min_patients": min_patients, "limit": limit, "intersections": intersections,
    }  # fmt: skip
    settings = check_keys(EvaluateSettings, values, None, "The options have errors.")
    opened = open_sources(real, paths, train, settings)
    print_warnings(opened.warnings)
    from equigen.quality import evaluate as measure  # heavy libraries, once the tables are there
    from equigen.study import write_evaluation

    result = measure(
        opened.real,
        opened.generated,
        train=opened.train,
        settings=settings,
        labels=opened.labels,
        cache_dir=out / "features",
    )
    title = f"Image quality: {', '.join(paths)}"
    page = write_evaluation(result, out, title=title, size=size or 128, blind=blind, names=names)
    main = result.quality[~result.quality["attribute"].str.contains(" & ")]
    columns = "run metric attribute group matched_n estimate ci_low ci_high floor excess p_value"
    print_rows(main, columns.split(), optional=("run",))
    for name in ("quality", "comparison", "copies", "copy_power"):
        if (out / f"{name}.parquet").is_file():
            typer.echo(out / f"{name}.parquet")
    typer.echo(page)


def parse_label_filter(items: Sequence[str] | None) -> dict[str, list[str]]:
    """Parse ``LABEL=LEVEL,...`` options to a mapping from label to levels.

    Raises:
        InputError: a word without label, equals sign or level, or a label named twice.

    """
    strata_levels: dict[str, list[str]] = {}
    for item in items or []:
        name, _, levels = (text.strip() for text in item.partition("="))
        level_list = parse_words(levels)
        if not name or not level_list or name in strata_levels:
            problem = Problem(f"'{item}'", "write a label and its levels once, such as --only dx=nv,mel")
            raise InputError("--only cannot be read.", [problem])
        strata_levels[name] = level_list
    return strata_levels


def parse_named_paths(items: Sequence[str]) -> dict[str, Path]:
    """Parse ``[NAME=]PATH`` options to a mapping from name to path; the name is the path's stem by default.

    Raises:
        InputError: two sets of one name.

    """
    paths: dict[str, Path] = {}
    for item in items:
        name, equals, rest = item.partition("=")
        has_name = bool(equals) and "/" not in name and not Path(item).exists()
        path = Path(rest if has_name else item)
        label = name.strip() if has_name else path.resolve().stem
        if not label or label in paths:
            problem = Problem(f"'{label}' names two sets", f"give each a name: --generated other={path}")
            raise InputError("Every generated set needs a name of its own.", [problem])
        if label in {"real", "train"}:
            problem = Problem(f"'{label}' names a side of the comparison", f"name it: --generated other={path}")
            raise InputError(f"A generated set cannot be called '{label}'.", [problem])
        paths[label] = path
    return paths

"""Quality of generated images for every group, each number with its n, floor, interval and null band."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path

import numpy as np
import pandas as pd

from equigen.cohort import check_unseen
from equigen.errors import InputError, Problem
from equigen.latents import Autoencoder, load_autoencoder
from equigen.progress import console, progress_bar
from equigen.quality.cells import ResamplingSettings
from equigen.quality.closest_pairs import copies_table
from equigen.quality.copy_power import (
    AUTOENCODER,
    POWER_COLUMNS,
    PlantedCopies,
    changed_images,
    copy_check_power,
    sample_planted_rows,
    thumbnail_rows,
)
from equigen.quality.differences import paired_differences
from equigen.quality.encoders import Encoder, identity, load_encoder
from equigen.quality.encoders.thumbnail import ThumbnailEncoder
from equigen.quality.features import default_size, extract_features, file_remarks, load_pixels, same_files_remark
from equigen.quality.image_sets import ImageSet, Source, attribute_levels, group_codes, load_image_set
from equigen.quality.judge.judge import fit_judges
from equigen.quality.measurement import (
    SEMANTIC,
    EncodedImages,
    EvaluationInputs,
    FamilyResult,
    count_passes,
    measure_families,
    select_metrics,
)
from equigen.quality.row_order import request_table, sort_by_content
from equigen.quality.rows import join_notes, quality_table
from equigen.quality.strata import LabelFilter, filter_by_labels


@dataclass(frozen=True)
class Evaluation:
    """Tables: ``quality`` of every set, ``comparison`` of each two of them, closest ``copies``.

    ``copy_power``: share of planted copies that the copy check finds, for each kind of change (``POWER_COLUMNS``).
    """

    quality: pd.DataFrame
    differences: pd.DataFrame
    copies: pd.DataFrame
    copy_power: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=POWER_COLUMNS))


def evaluate(
    real: Source,
    generated: Source,
    groups: list[str] | None = None,
    *,
    run: str = "generated",
    train: Source | None = None,
    labels: Sequence[str] | None = None,
    kinds: Mapping[str, str] | None = None,
    metrics: Sequence[str] | None = None,
    intersections: bool = True,
    encoder: str | Encoder = "efficientnet-lite0",
    matched_n: int | None = None,
    repeats: int = 5,
    replicates: int = 500,
    seed: int = 0,
    size: int | None = None,
    min_patients: int = 30,
    limit: int = 4000,
    only: LabelFilter | None = None,
    cache_dir: str | Path | None = None,
    show: bool = True,
) -> pd.DataFrame:
    """Measure one set of generated images: the quality table of ``evaluate_sets`` for a set named ``run``."""
    options = {"train": train, "labels": labels, "kinds": kinds, "metrics": metrics, "intersections": intersections,
               "encoder": encoder, "matched_n": matched_n, "repeats": repeats, "replicates": replicates,
               "seed": seed, "size": size, "min_patients": min_patients, "limit": limit,
               "only": only, "cache_dir": cache_dir, "show": show}
    return evaluate_sets(real, {run: generated}, groups, **options).quality  # type: ignore[arg-type]


def evaluate_sets(
    real: Source,
    generated: Mapping[str, Source],
    groups: list[str] | None = None,
    *,
    train: Source | None = None,
    labels: Sequence[str] | None = None,
    kinds: Mapping[str, str] | None = None,
    metrics: Sequence[str] | None = None,
    intersections: bool = True,
    encoder: str | Encoder = "efficientnet-lite0",
    matched_n: int | None = None,
    repeats: int = 5,
    replicates: int = 500,
    seed: int = 0,
    size: int | None = None,
    min_patients: int = 30,
    limit: int = 4000,
    only: LabelFilter | None = None,
    autoencoder: Autoencoder | None = None,
    cache_dir: str | Path | None = None,
    show: bool = True,
) -> Evaluation:
    """Measure sets of generated images, over all and for each group, and compare them (METHODS sections 5 and 6).

    Every cell of every set is compared at one n. ``floor`` is what two halves of the cell's own real images,
    disjoint by patient, give at that n, and ``excess`` is estimate minus floor; for a metric of which more is
    better the floor is what real images score, and there is no excess. Intervals are patient-cluster bootstraps
    (images without a patient stand for themselves), shared between groups and sets, so those of gaps and of
    differences are paired. The null band is what the same figure gives when group labels are permuted between
    patients, on both sides. Intersections of each two attributes have a matched n of their own.

    Args:
        real: a cohort or part of it, an ``ImageSet``, a table (``path``, ``patient``, ``attr.*``), a folder.
        generated: likewise, by name (``reconstruction``, a generator's); ``ImageSet(frame, pixels)`` in memory.
        groups: attributes to compare; None takes those that all sides have.
        train: real images that the generator was trained on, for mifid, nn_ratio, authenticity and near_copies.
        labels: names of labels (columns ``label.<name>``) that a judge looks for; None takes all that all sides
            have, an empty list none.
        kinds: kind of each label by name ("binary", "multiclass", "multilabel"); inferred where it is not given.
        metrics: names of metrics; None takes all that the inputs allow.
        intersections: measure the intersections of each two attributes too.
        encoder: name or instance; see ``load_encoder``.
        matched_n: images per side in each cell; None takes the most that all of them allow, at most 400.
        repeats: how often each row is used in subsamples of n, at least, and half splits of the floor.
        replicates: bootstrap replicates, and permutations.
        seed: of all resampling.
        size: side in pixels to which all are brought; None takes that of the first generated image.
        min_patients: cells with fewer real patients, or fewer generated images, get no number.
        limit: images per side and cell; beyond it whole patients are drawn at random, and the note says so.
        only: label to levels: images of other diagnoses are left out on both sides (``filter_by_labels``). The judge is
            not asked for a label of which one level is left, unless ``labels`` names it.
        autoencoder: through which planted copies go, to measure whether the copy check finds them; None takes the
            shipped one.
        cache_dir: folder that keeps features between calls; None keeps none.
        show: show progress bars.

    Returns:
        ``quality`` with the columns of quality.parquet (``COLUMNS``): rows with group ``*`` (attribute ``*``) are
        the whole set; ``gap`` and ``es`` sum up an attribute; a missing figure has a note that says why.
        ``comparison`` with ``COMPARISON_COLUMNS``, empty for one set. ``copies`` with the generated images that
        are most like copies of a training image, and ``copy_power``, both empty without ``train``.

    Raises:
        InputError: no set, images, attributes or diagnoses are missing, levels differ between the sides, an unknown
            metric or one that lacks its input, a setting is senseless, features are not finite.

    """
    settings = ResamplingSettings(matched_n, repeats, replicates, seed, min_patients, limit)
    settings.check()
    sources = _sources(real, generated, train)
    levels = _levels(sources["real"], [sources[name] for name in generated], groups)
    sources |= filter_by_labels({name: sources[name] for name in ("real", *generated)}, only or {})
    made = [sources[name] for name in generated]
    named = _labels(sources["real"], made, labels, only or {})
    wanted = select_metrics(metrics, train=train is not None, labels=bool(named))
    network = load_encoder(encoder)
    pixels = size or default_size(made[0])
    files = {name: file_remarks(sources["real"], sources[name], pixels) for name in generated}
    for name in generated:
        files[name] += _same_files(sources, name)
    if show:
        for name, remark in ((name, remark) for name, remarks in files.items() for remark in remarks):
            console.print(f"{name}: {remark}", style="yellow", markup=False)
    small = ThumbnailEncoder() if train is not None and "near_copies" in wanted else None
    encoded = {
        name: _encoded(images, (network, small), pixels, levels, name, cache_dir, show)
        for name, images in sources.items()
    }
    if encoded["real"].features.probabilities is None:
        wanted = select_metrics(metrics, train=train is not None, labels=bool(named), classes=False)
    planted = None if small is None else _planted(sources["real"], encoded["real"], pixels, autoencoder, seed)
    inputs = EvaluationInputs(
        encoded["real"], {name: encoded[name] for name in generated}, wanted, encoded.get("train"), None,
        _streams({name: encoded[name].frame for name in generated}), planted,
    )
    columns = [*(f"label.{name}" for name in named), *(f"attr.{name}" for name in levels)]
    result = measure_sets(inputs, levels, settings, encoder=identity(network), columns=columns, kinds=kinds,
                          intersections=intersections, show=show)
    about = f"images at {pixels} px; {network.preprocessing}"
    whole = result.quality["group"] == "*"
    remarks = {name: join_notes(sources["real"].remark, sources[name].remark, *files[name], about)
               for name in generated}
    result.quality.loc[whole, "note"] = [
        join_notes(note, remarks[run])
        for note, run in zip(result.quality.loc[whole, "note"], result.quality.loc[whole, "run"], strict=True)
    ]
    return result


def _encoded(
    images: ImageSet, networks: tuple[Encoder, Encoder | None], size: int, levels: dict[str, list[str]], name: str,
    cache_dir: str | Path | None, show: bool,
) -> EncodedImages:
    """One side with its features, patients and group codes."""
    network, small = networks
    features = extract_features(images, network, size, cache_dir=cache_dir, title=f"Encoding {name} images", show=show)
    thumbnails = None if small is None else extract_features(
        images, small, size, cache_dir=cache_dir, title=f"Thumbnails of {name} images", show=show,
    ).values.astype(np.float16)
    own = {attribute: group_codes(images.frame, attribute, levels[attribute])
           for attribute in levels if attribute in images.attributes}
    return sort_by_content(EncodedImages(images.patients(name), own, features, images.frame, thumbnails), name)


def _planted(
    images: ImageSet, real: EncodedImages, size: int, autoencoder: Autoencoder | None, seed: int
) -> PlantedCopies:
    """Held-out images to be planted, after each change; a size that the autoencoder cannot take is noted."""
    coder, notes = autoencoder or load_autoencoder(), {}
    try:
        coder.check_size(size)
    except InputError as error:
        notes[AUTOENCODER] = f"not tried: {size} px do not fit the autoencoder ({error.problems[0].mend})"
    rows = sample_planted_rows(real.patients, seed)
    places = real.frame.index.to_numpy()[rows]  # rows are in the order of their content, images in the table's
    changed = changed_images(load_pixels(images, places, size), seed, None if notes else coder)
    return PlantedCopies(rows, {name: thumbnail_rows(values) for name, values in changed.items()}, notes)


def measure_sets(
    inputs: EvaluationInputs, levels: dict[str, list[str]], settings: ResamplingSettings, *, encoder: str,
    columns: Sequence[str] = (), kinds: Mapping[str, str] | None = None, intersections: bool = True, show: bool = True,
) -> Evaluation:
    """The tables from features alone: the numerical part of ``evaluate_sets``.

    Args:
        inputs: real side, generated sets and wanted metrics; patients and group codes of each row.
        levels: names of the groups of each attribute, in the order of their codes.
        settings: of the resampling.
        encoder: identity written in the table.
        columns: ``label.*`` and ``attr.*`` columns that a judge looks for, where semantic metrics are wanted.
        kinds: of these labels, by name.
        intersections: measure the intersections of each two attributes too.
        show: show a progress bar.

    Raises:
        InputError: features are not finite.

    """
    inputs = replace(inputs, real=sort_by_content(inputs.real), train=inputs.train and sort_by_content(inputs.train),
                     sets={name: sort_by_content(side) for name, side in inputs.sets.items()})
    if set(inputs.metrics) & set(SEMANTIC):
        train = inputs.train.annotated() if inputs.train is not None else None
        order = {f"attr.{name}": groups for name, groups in levels.items()}
        judges = fit_judges(inputs.real.annotated(), train, columns=columns, kinds=kinds, levels=order,
                            min_patients=settings.min_patients, seed=settings.seed)
        inputs = replace(inputs, judges=judges)
    crossed = intersections and len(levels) > 1
    cells = 1 + sum(len(groups) for groups in levels.values())
    pairs = 1 + sum(len(a) * len(b) for i, a in enumerate(levels.values()) for b in list(levels.values())[i + 1 :])
    total = len(inputs.sets) * count_passes(inputs.metrics) * (cells + pairs * crossed)
    with progress_bar("Measuring quality", total, show=show) as bar:
        families = measure_families(inputs, levels, settings, bar, intersections=crossed)
    tables = [quality_table(family.metrics, family.cells, name, encoder, family.n, overall=index == 0)
              for name, own in families.items() for index, family in enumerate(own)]
    quality = pd.concat(tables, ignore_index=True)
    power = _power(inputs, families, levels, settings.seed)
    return Evaluation(quality, paired_differences(families, encoder), _copies(inputs, families, list(levels)), power)


def _power(
    inputs: EvaluationInputs, families: dict[str, list[FamilyResult]], levels: dict[str, list[str]], seed: int
) -> pd.DataFrame:
    """The power of the copy check, which is the same for all sets; empty where none was searched for copies."""
    found = next((own[0].closest for own in families.values() if own[0].closest is not None), None)
    real, train, planted = inputs.real, inputs.train, inputs.planted
    if found is None or planted is None or train is None or real.thumbnails is None or train.thumbnails is None:
        return pd.DataFrame(columns=POWER_COLUMNS)
    groups = {name: (real.groups[name], levels[name]) for name in levels}
    return copy_check_power(planted, found.held_out, (real.thumbnails, train.thumbnails),
                         (real.patients, train.patients), groups, seed=seed)


def _copies(inputs: EvaluationInputs, families: dict[str, list[FamilyResult]], attributes: list[str]) -> pd.DataFrame:
    tables = []
    for name, own in families.items():
        closest = own[0].closest
        if closest is not None and inputs.train is not None:
            tables.append(copies_table(name, closest, inputs.sets[name].frame, inputs.train.frame, attributes))
    return pd.concat(tables, ignore_index=True) if tables else copies_table("", None, None, None, attributes)


def _sources(real: Source, generated: Mapping[str, Source], train: Source | None) -> dict[str, ImageSet]:
    reserved = [name for name in generated if name in {"real", "train"}]
    if not generated or reserved:
        problem = Problem(f"sets: {', '.join(generated) or 'none'}", "give one or more, none named real or train")
        title = "A generated set cannot be called real or train." if reserved else "There is nothing to evaluate."
        raise InputError(title, [problem])
    check_unseen_sets(real, generated)
    sides = {"real": load_image_set(real, "real")}
    sides |= {name: load_image_set(source, name if len(generated) > 1 else "generated")
              for name, source in generated.items()}
    return sides if train is None else {**sides, "train": load_image_set(train, "train")}


def _same_files(sources: Mapping[str, ImageSet], name: str) -> list[str]:
    """What is byte for byte the same among a set, the real images and the training images, in words."""
    found = [same_files_remark(sources[name], sources["real"], "generated images", "real images")]
    if "train" in sources:
        found.append(same_files_remark(sources[name], sources["train"], "generated images", "training images"))
        found.append(same_files_remark(sources["real"], sources["train"], "real held-out images", "training images"))
    return [remark for remark in found if remark]


def check_unseen_sets(real: Source, generated: Mapping[str, object]) -> None:
    """Raise InputError where held-out real patients are among those that a set's generator was trained on."""
    if isinstance(real, str | PathLike):
        return
    frame = real.frame if isinstance(real, ImageSet) else real
    places = [(name, Path(place)) for name, place in generated.items() if isinstance(place, str | PathLike)]
    check_unseen(frame, places, "This cohort cannot be evaluated against")


def _levels(real: ImageSet, made: list[ImageSet], groups: list[str] | None) -> dict[str, list[str]]:
    """Attributes that all sides have, with the order of their groups."""
    names = groups if groups is not None else [
        name for name in real.attributes if all(name in images.attributes for images in made)]
    levels: dict[str, list[str]] = {}
    for images in made:
        levels = attribute_levels(real, images, names)
    return levels


def _labels(real: ImageSet, made: list[ImageSet], labels: Sequence[str] | None, only: LabelFilter) -> list[str]:
    """Labels that a judge looks for, of those that all sides have; none of which one level is left, unless named."""
    sides = [real, *made]
    shared = [name for name in real.labels if all(name in side.labels for side in sides)]
    if labels is None:
        return [name for name in shared if name not in only or real.frame[f"label.{name}"].nunique() > 1]
    problems = [Problem(f"not every side has the label '{name}'", f"all have: {', '.join(shared) or 'none'}",
                        column=f"label.{name}") for name in labels if name not in shared]
    if problems:
        raise InputError("These labels cannot be judged.", problems)
    return list(labels)


def _streams(frames: dict[str, pd.DataFrame]) -> dict[str, str]:
    """One random stream for the sets that answer the same requests in the same order, others apart."""
    streams: dict[str, str] = {}
    for name, frame in frames.items():
        like = [other for other in streams if request_table(frames[other]).equals(request_table(frame))]
        streams[name] = streams[like[0]] if like else ("generated" if not streams else f"generated/{name}")
    return streams

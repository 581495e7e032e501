"""Evaluation of generated images: the quality of each set, overall and for each group, and paired differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from equigen.cohort import check_unseen
from equigen.config import update_settings
from equigen.errors import InputError, Problem, problem_lines
from equigen.group_table import GroupTable
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
    HIGHER_IS_BETTER,
    EncodedImages,
    EvaluationInputs,
    count_passes,
    measure_families,
    select_metrics,
)
from equigen.quality.row_order import request_table, sort_by_content
from equigen.quality.rows import join_notes, quality_table
from equigen.quality.settings import SEMANTIC, EvaluateSettings
from equigen.quality.sources import open_sources
from equigen.quality.strata import LabelFilter, filter_by_labels


@dataclass(frozen=True, repr=False)
class Evaluation(GroupTable):
    """Tables of an evaluation, with views by group: ``overall``, ``by_group``, ``gaps``, ``worst``, ``notes``.

    ``table``: rows of quality.parquet for every set. ``differences``: paired
    differences of each two sets. ``copies``: the pairs of generated and training images that are most alike.
    ``copy_power``: share of planted copies that the copy check finds, for each kind of change (``POWER_COLUMNS``).
    """

    differences: pd.DataFrame
    copies: pd.DataFrame
    copy_power: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=POWER_COLUMNS))

    index_columns = ("run", "encoder")
    title = "Image quality"
    worst_is_low = HIGHER_IS_BETTER

    @property
    def quality(self) -> pd.DataFrame:
        """Rows of quality.parquet, another name of ``table``."""
        return self.table


def evaluate(
    real: Source,
    generated: Source | Mapping[str, Source],
    groups: Sequence[str] | None = None,
    *,
    train: Source | None = None,
    run: str = "generated",
    encoder: str | Encoder | None = None,
    settings: EvaluateSettings | None = None,
    autoencoder: Autoencoder | None = None,
    cache_dir: str | Path | None = None,
    show: bool = True,
    **options: Any,
) -> Evaluation:
    """Measure sets of generated images, overall and for each group, and their differences (METHODS sections 5 and 6).

    Every cell of every set is measured at one n. ``floor`` is the metric between two halves of the cell's own real
    images, disjoint by patient, at that n, and ``excess`` is estimate minus floor; for a metric of which more is
    better the floor is the metric of real images, and there is no excess. Intervals are patient-cluster bootstraps
    (an image without a patient counts as its own patient), shared between groups and sets, so those of gaps and of
    differences are paired. The null band holds the values of the metric when group labels are permuted between
    patients, of real and of generated images. Intersections of each two attributes have a matched n of their own.

    Args:
        real: held-out real images: a cohort or part of it, an ``ImageSet``, a DataFrame (``path``, ``patient``,
            ``attr.*``), or a path: a cohort (its test split, and its training split as ``train``), a table of image
            files or a folder of images; see ``open_sources``.
        generated: one set, likewise, or the folder of a synthetic set; or several by name.
        groups: attributes to compare, which overrides ``settings.groups``.
        train: real images that the generator was trained on, for mifid, nn_ratio, authenticity and near_copies.
        run: name of the set in the table, where one is given without a name.
        encoder: name or instance, which overrides ``settings.encoder``; see ``load_encoder``.
        settings: what is measured and how; None takes the defaults.
        autoencoder: reconstructs planted copies, to measure whether the copy check finds them; None takes the
            shipped one.
        cache_dir: folder that stores features between calls; None stores none.
        show: show progress bars.
        options: single fields of ``EvaluateSettings``, which override ``settings``.

    Returns:
        ``quality`` with the columns of quality.parquet (``COLUMNS``): rows with attribute and group ``*`` are of all
        images; ``gap`` and ``es`` summarise an attribute; a missing number has a note with the reason.
        ``differences`` with ``DIFFERENCES_COLUMNS``, empty for one set. ``copies`` with the generated images that
        are most like copies of a training image, and ``copy_power``, both empty without ``train``.

    Raises:
        InputError: no set, images, attributes or labels are missing, levels differ between the sets, an unknown
            metric or one that lacks its input, a setting is out of range, features are not finite.

    """
    options |= {} if groups is None else {"groups": [groups] if isinstance(groups, str) else list(groups)}
    options |= {"encoder": encoder} if isinstance(encoder, str) else {}
    settings = update_settings(settings or EvaluateSettings(), options, "The evaluation's settings cannot be used.")
    sets = generated if isinstance(generated, Mapping) else {run: generated}
    _check_names(sets)
    opened = open_sources(real, sets, train, settings)
    real, sets, train, labels = opened.real, opened.generated, opened.train, opened.labels
    only = settings.only
    for line in problem_lines(opened.warnings) if show else []:
        console.print(f"warning {line}", style="yellow", markup=False)
    sources = _load_sources(real, sets, train)
    levels: dict[str, list[str]] = {}
    names = (
        settings.groups
        if settings.groups is not None
        else [name for name in sources["real"].attributes if all(name in sources[title].attributes for title in sets)]
    )
    if settings.groups is None and not names and show:
        message = "no groups are compared: name attributes, or columns of a table, as groups"
        console.print(message, style="yellow", markup=False)
    for name in sets:
        levels = attribute_levels(sources["real"], sources[name], names)
    sources |= filter_by_labels({name: sources[name] for name in ("real", *sets)}, only)
    judged_labels = _judged_labels(sources["real"], [sources[name] for name in sets], labels, only)
    selection = select_metrics(settings.metrics, train=train is not None, labels=bool(judged_labels))
    network = load_encoder(settings.encoder if encoder is None or isinstance(encoder, str) else encoder)
    pixels = settings.size or default_size(sources[next(iter(sets))])
    remarks = {name: _file_remarks(sources, name, pixels) for name in sets}
    if show:
        for name in sets:
            for remark in remarks[name]:
                console.print(f"{name}: {remark}", style="yellow", markup=False)
    thumbnails = ThumbnailEncoder() if train is not None and "near_copies" in selection else None
    encoded = {
        name: _encode(images, (network, thumbnails), pixels, levels, name, cache_dir, show)
        for name, images in sources.items()
    }
    if encoded["real"].features.probabilities is None:
        selection = select_metrics(settings.metrics, train=train is not None, labels=bool(judged_labels), classes=False)
    planted = None
    if thumbnails is not None:
        planted = _plant_copies(sources["real"], encoded["real"], pixels, autoencoder, settings.seed)
    streams: dict[str, str] = {}  # sets with the same requests in the same order share a random stream
    requests = {name: request_table(encoded[name].frame) for name in sets}
    for name in sets:
        equal = [run for run in streams if requests[run].equals(requests[name])]
        streams[name] = streams[equal[0]] if equal else ("generated" if not streams else f"generated/{name}")
    inputs = EvaluationInputs(
        encoded["real"],
        {name: encoded[name] for name in sets},
        selection,
        encoded.get("train"),
        None,
        streams,
        planted,
    )
    columns = [*(f"label.{name}" for name in judged_labels), *(f"attr.{name}" for name in levels)]
    result = measure_sets(
        inputs,
        levels,
        ResamplingSettings.of(settings),
        encoder=identity(network),
        columns=columns,
        kinds=settings.kinds,
        intersections=settings.intersections,
        show=show,
    )
    preprocessing = f"images at {pixels} px; {network.preprocessing}"
    notes = {
        name: join_notes(sources["real"].remark, sources[name].remark, *remarks[name], preprocessing) for name in sets
    }
    overall = result.quality["group"] == "*"
    result.quality.loc[overall, "note"] = [
        join_notes(note, notes[run])
        for note, run in zip(result.quality.loc[overall, "note"], result.quality.loc[overall, "run"], strict=True)
    ]
    return result


def _encode(
    images: ImageSet,
    networks: tuple[Encoder, Encoder | None],
    size: int,
    levels: dict[str, list[str]],
    name: str,
    cache_dir: str | Path | None,
    show: bool,
) -> EncodedImages:
    """Encode a set; returns its features, thumbnails, patients and group codes in the order of their content."""
    network, small = networks
    features = extract_features(images, network, size, cache_dir=cache_dir, title=f"Encoding {name} images", show=show)
    thumbnails = (
        None
        if small is None
        else extract_features(
            images,
            small,
            size,
            cache_dir=cache_dir,
            title=f"Thumbnails of {name} images",
            show=show,
        ).values.astype(np.float16)
    )
    groups = {
        attribute: group_codes(images.frame, attribute, levels[attribute])
        for attribute in levels
        if attribute in images.attributes
    }
    return sort_by_content(EncodedImages(images.patients(name), groups, features, images.frame, thumbnails), name)


def _plant_copies(
    images: ImageSet, real: EncodedImages, size: int, autoencoder: Autoencoder | None, seed: int
) -> PlantedCopies:
    """Change held-out images in order to plant them as copies; a note where the size does not fit the autoencoder."""
    coder, notes = autoencoder or load_autoencoder(), {}
    try:
        coder.check_size(size)
    except InputError as error:
        notes[AUTOENCODER] = f"not tried: {size} px do not fit the autoencoder ({error.problems[0].mend})"
    rows = sample_planted_rows(real.patients, seed)
    indices = real.frame.index.to_numpy()[rows]  # ``real`` is sorted by content, ``images`` as the table
    changed = changed_images(load_pixels(images, indices, size), seed, None if notes else coder)
    return PlantedCopies(rows, {name: thumbnail_rows(values) for name, values in changed.items()}, notes)


def measure_sets(
    inputs: EvaluationInputs,
    levels: dict[str, list[str]],
    settings: ResamplingSettings,
    *,
    encoder: str,
    columns: Sequence[str] = (),
    kinds: Mapping[str, str] | None = None,
    intersections: bool = True,
    show: bool = True,
) -> Evaluation:
    """Measure sets of features: the numerical part of ``evaluate``, without images.

    Args:
        inputs: real images, generated sets and metrics, with patients and group codes of each row.
        levels: names of the groups of each attribute, in the order of their codes.
        settings: of the resampling.
        encoder: identity written in the table.
        columns: ``label.*`` and ``attr.*`` columns that judges predict, for semantic metrics.
        kinds: of these labels, by name.
        intersections: measure the intersections of each two attributes too.
        show: show a progress bar.

    Raises:
        InputError: features are not finite.

    """
    inputs = replace(
        inputs,
        real=sort_by_content(inputs.real),
        train=inputs.train and sort_by_content(inputs.train),
        sets={name: sort_by_content(images) for name, images in inputs.sets.items()},
    )
    if set(inputs.metrics) & set(SEMANTIC):
        train = inputs.train.annotated() if inputs.train is not None else None
        order = {f"attr.{name}": groups for name, groups in levels.items()}
        judges = fit_judges(
            inputs.real.annotated(),
            train,
            columns=columns,
            kinds=kinds,
            levels=order,
            min_patients=settings.min_patients,
            seed=settings.seed,
        )
        inputs = replace(inputs, judges=judges)
    crossed = intersections and len(levels) > 1
    cells = 1 + sum(len(groups) for groups in levels.values())
    pairs = 1 + sum(len(a) * len(b) for i, a in enumerate(levels.values()) for b in list(levels.values())[i + 1 :])
    total = len(inputs.sets) * count_passes(inputs.metrics) * (cells + pairs * crossed)
    with progress_bar("Measuring quality", total, show=show) as bar:
        families = measure_families(inputs, levels, settings, bar, intersections=crossed)
    tables = [
        quality_table(family.metrics, family.cells, name, encoder, family.n, overall=index == 0)
        for name, results in families.items()
        for index, family in enumerate(results)
    ]
    quality, differences = pd.concat(tables, ignore_index=True), paired_differences(families, encoder)
    closest = {name: results[0].closest for name, results in families.items() if results[0].closest is not None}
    copies = copies_table("", None, None, None, list(levels))
    if closest and inputs.train is not None:
        copies = pd.concat(
            [
                copies_table(name, nearest, inputs.sets[name].frame, inputs.train.frame, list(levels))
                for name, nearest in closest.items()
            ],
            ignore_index=True,
        )
    real, training, planted = inputs.real, inputs.train, inputs.planted
    if not closest or planted is None or training is None or real.thumbnails is None or training.thumbnails is None:
        return Evaluation(quality, differences, copies)
    held_out = next(iter(closest.values())).held_out  # the same for all sets
    power = copy_check_power(
        planted,
        held_out,
        (real.thumbnails, training.thumbnails),
        (real.patients, training.patients),
        {name: (real.groups[name], levels[name]) for name in levels},
        seed=settings.seed,
    )
    return Evaluation(quality, differences, copies, power)


def _check_names(sets: Mapping[str, Source]) -> None:
    """Raise InputError without a set, and for a set that is named as one side of the comparison."""
    reserved = [name for name in sets if name in {"real", "train"}]
    if not sets or reserved:
        problem = Problem(f"sets: {', '.join(sets) or 'none'}", "give one or more, none named real or train")
        title = "A generated set cannot be called real or train." if reserved else "There is nothing to evaluate."
        raise InputError(title, [problem])


def _load_sources(real: Source, generated: Mapping[str, Source], train: Source | None) -> dict[str, ImageSet]:
    """Load the sets by name, with "real" and "train" among them."""
    check_unseen_sets(real, generated)
    sets = {"real": load_image_set(real, "real")}
    sets |= {
        name: load_image_set(source, name if len(generated) > 1 else "generated") for name, source in generated.items()
    }
    return sets if train is None else {**sets, "train": load_image_set(train, "train")}


def _file_remarks(sources: Mapping[str, ImageSet], name: str, size: int) -> list[str]:
    """Remarks on the files of a set: formats and sizes, and files that it shares with real and training images."""
    remarks = file_remarks(sources["real"], sources[name], size)
    remarks.append(same_files_remark(sources[name], sources["real"], "generated images", "real images"))
    if "train" in sources:
        remarks.append(same_files_remark(sources[name], sources["train"], "generated images", "training images"))
        remarks.append(same_files_remark(sources["real"], sources["train"], "real held-out images", "training images"))
    return [remark for remark in remarks if remark]


def check_unseen_sets(real: Source, generated: Mapping[str, object]) -> None:
    """Raise InputError where held-out real patients are among those that a set's generator was trained on."""
    if isinstance(real, str | PathLike):
        return
    frame = real.frame if isinstance(real, ImageSet) else real
    folders = [(name, Path(source)) for name, source in generated.items() if isinstance(source, str | PathLike)]
    check_unseen(frame, folders, "This cohort cannot be evaluated against")


def _judged_labels(
    real: ImageSet, generated: list[ImageSet], labels: Sequence[str] | None, only: LabelFilter
) -> list[str]:
    """Labels that judges predict: ``labels``, or those of all sets except filtered ones with a single level left."""
    shared = [name for name in real.labels if all(name in images.labels for images in [real, *generated])]
    if labels is None:
        return [name for name in shared if name not in only or real.frame[f"label.{name}"].nunique() > 1]
    problems = [
        Problem(
            f"not every side has the label '{name}'", f"all have: {', '.join(shared) or 'none'}", column=f"label.{name}"
        )
        for name in labels
        if name not in shared
    ]
    if problems:
        raise InputError("These labels cannot be judged.", problems)
    return list(labels)

"""Quality of generated images for every group, each number with its n, floor, interval and null band."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from equigen.errors import InputError, Problem
from equigen.progress import progress_bar
from equigen.quality.cells import Settings, Side, make_cells, make_draws, matched_n
from equigen.quality.distances import feature_matrix
from equigen.quality.encoders import Encoder, identity, load_encoder
from equigen.quality.estimates import (
    Measured,
    Plan,
    inner_products,
    kernels,
    measure_frechet,
    measure_inception,
    measure_kernel,
)
from equigen.quality.features import Features, default_size, extract
from equigen.quality.rows import assemble, join
from equigen.quality.sources import ImageSet, Source, attribute_levels, codes, image_set
from equigen.seeds import numpy_generator

FIRST_ORDER = "interval and null band to first order"
CAUTIOUS = "for FD they are somewhat wide and p somewhat large"
INCEPTION_NOTE = join("the floor is the score of the real images at n, and higher is better", FIRST_ORDER)


@dataclass(frozen=True)
class EncodedSide(Side):
    """One side with its features."""

    features: Features


def evaluate(
    real: Source,
    generated: Source,
    groups: list[str] | None = None,
    *,
    run: str = "generated",
    encoder: str | Encoder = "efficientnet-lite0",
    matched_n: int | None = None,
    repeats: int = 5,
    replicates: int = 500,
    seed: int = 0,
    size: int | None = None,
    min_patients: int = 30,
    limit: int = 4000,
    cache_dir: str | Path | None = None,
    show: bool = True,
) -> pd.DataFrame:
    """Measure FD, KD and IS of generated images, over all and for each group (METHODS sections 5 and 6).

    Every cell is compared at one n. ``floor`` is what two halves of the cell's own real images, disjoint by
    patient, give at that n, and ``excess`` is estimate minus floor; for ``is`` the floor is the score of the
    real images, and there is no excess. Intervals are patient-cluster bootstraps (images without a patient
    stand for themselves), shared between groups, so those of gaps are paired. The null band is what the same
    figure gives when group labels are permuted between patients, on both sides.

    Args:
        real: a cohort or part of it, an ``ImageSet``, a table (``path``, ``patient``, ``attr.*``), a folder.
        generated: likewise, usually the folder of a synthetic set; ``ImageSet(frame, pixels)`` in memory.
        groups: attributes to compare; None takes those that both sides have.
        run: name of the row set, such as the generator's, or ``reconstruction``.
        encoder: name or instance; see ``load_encoder``.
        matched_n: images per side in each cell; None takes the most that all of them allow, at most 400.
        repeats: how often each row is used in subsamples of n, at least, and half splits of the floor.
        replicates: bootstrap replicates, and permutations.
        seed: of all resampling.
        size: side in pixels to which both sides are brought; None takes that of the first generated image.
        min_patients: cells with fewer real patients, or fewer generated images, get no number.
        limit: images per side at most; beyond it whole patients are drawn at random, and the note says so.
        cache_dir: folder that keeps features between calls; None keeps none.
        show: show progress bars.

    Returns:
        The columns of quality.parquet (``COLUMNS``). Rows with group ``*`` (attribute ``*``) are the whole
        set; ``gap`` and ``es`` sum up an attribute. A missing figure has a note that says why.

    Raises:
        InputError: images or attributes are missing, levels differ between the sides, a setting is senseless.

    """
    settings = Settings(matched_n, repeats, replicates, seed, min_patients)
    settings.check()
    sides = {"real": image_set(real, "real"), "generated": image_set(generated, "generated")}
    levels = attribute_levels(sides["real"], sides["generated"], groups)
    sides = {name: limited(side, name, limit, seed) for name, side in sides.items()}
    network = load_encoder(encoder)
    pixels = size or default_size(sides["generated"])
    encoded = {}
    for name, side in sides.items():
        title = f"Encoding {name} images"
        features = extract(side, network, pixels, cache_dir=cache_dir, title=title, show=show)
        groups_of = {attribute: codes(side.frame, attribute, levels[attribute]) for attribute in levels}
        encoded[name] = EncodedSide(side.patients(name), groups_of, features)
    both = encoded["real"], encoded["generated"]
    table = measure(*both, levels, settings, run=run, encoder=identity(network), show=show)
    remarks = [side.remark for side in sides.values()]
    about = f"images at {pixels} px; {network.preprocessing}"
    whole = table["group"] == "*"
    table.loc[whole, "note"] = [join(note, *remarks, about) for note in table.loc[whole, "note"]]
    return table


def limited(side: ImageSet, name: str, limit: int, seed: int) -> ImageSet:
    """At most ``limit`` images, whole patients drawn at random, in their old order; its remark says so.

    Raises InputError when even the first patient drawn has more images.
    """
    if len(side) <= limit:
        return side
    patients = np.unique(side.patients(name), return_inverse=True)[1]
    counts = np.bincount(patients)
    order = numpy_generator(seed, f"quality/limit/{name}").permutation(len(counts))
    kept = np.zeros(len(counts), dtype=bool)
    kept[order[np.cumsum(counts[order]) <= limit]] = True
    rows = np.flatnonzero(kept[patients])
    if len(rows) == 0:
        problem = Problem(f"one patient has more than {limit} images", "raise the limit")
        raise InputError(f"The {name} images cannot be limited.", [problem])
    part = side.take(rows)
    remark = f"{len(rows)} of {len(side)} {name} images, drawn by patient"
    return ImageSet(part.frame, part.pixels, part.levels, join(side.remark, remark))


def measure(
    real: EncodedSide, generated: EncodedSide, levels: dict[str, list[str]], settings: Settings, *,
    run: str, encoder: str, show: bool = True,
) -> pd.DataFrame:
    """The quality table from features alone: the numerical part of ``evaluate``.

    Args:
        real: features float32 [N, D], probabilities [N, C] or None, patients and group codes [N].
        generated: likewise of [M] rows.
        levels: names of the groups of each attribute, in the order of their codes.
        settings: of the resampling.
        run: name written in the table.
        encoder: identity written in the table.
        show: show a progress bar.

    Raises:
        InputError: features are not finite.

    """
    cells = make_cells(real, generated, levels, settings)
    n = matched_n(cells, settings)
    if n is None:
        kinds = {"fd": "lower", "kd": "lower", "is": "higher"}
        empty = [Measured(name, kind, {}, {}) for name, kind in kinds.items()]
        return assemble(empty, cells, run, encoder, None)
    values = feature_matrix(real.features.values), feature_matrix(generated.features.values)
    inner = inner_products(*values)
    together = np.unique(np.concatenate([real.patients, generated.patients]), return_inverse=True)[1]
    patients = together[: len(real.patients)], together[len(real.patients) :]
    classes = real.features.probabilities, generated.features.probabilities
    with progress_bar("Measuring quality", 3 * len(cells), show=show) as bar:
        plan = Plan(cells, make_draws(real, generated, settings), n, settings, bar)
        measured = [measure_frechet(inner, plan, _frechet_note(n, inner.dimension)),
                    measure_kernel(kernels(inner, *patients), plan)]
        if classes[0] is not None and classes[1] is not None:
            measured.append(measure_inception(classes[0], classes[1], plan, INCEPTION_NOTE))
    return assemble(measured, cells, run, encoder, n)


def _frechet_note(n: int, dimension: int) -> str:
    few = f"n {n} is below the {dimension} features, so FD is mostly bias: quote its excess, or KD"
    return join(few if n < dimension else "", FIRST_ORDER, CAUTIOUS)

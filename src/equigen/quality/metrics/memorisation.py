"""Memorisation: whether generated images are copies of training images, and for which groups it is worse.

Every figure compares distances to the training images with distances between images that cannot be copies: the
held-out real images, whose patients the generator never saw. The reference sets are whole (an image of one
group may be a copy of a training image of any group); only the images that are averaged are those of a group.

Near copies are looked for in two views: distances in an encoder's features, and the correlation of aligned
thumbnails (``registration``), which holds under blur, recompression, noise, mirror images and small crops. Both views
share one level, chosen so that 1 % of the held-out images would be called near copies by either.

What these figures cannot show. A copy that differs in what neither view sees may pass, and two different patients
whose images look the same are a near copy here. So a near copy is a reason to look at the pair, not a proof, and no
near copy is no proof of privacy; ``copy_power`` measures which changes of an image the thumbnails see. Intervals are
over generated images; the reference sets are held as given.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from equigen.errors import InputError, Problem
from equigen.quality.cells import Rows
from equigen.quality.estimates import measure_mean
from equigen.quality.metric_inputs import Measured, Plan
from equigen.quality.metrics.distances import Array
from equigen.quality.metrics.mifid import measure_mifid
from equigen.quality.metrics.neighbours import blocks, feature_rows, nearest, nearest_angle
from equigen.quality.metrics.registration import nearest_thumbnails

QUANTILE = 0.01
LARGEST_RATIO = 10.0
FLOOR = "the floor is what the held-out real images score, whom the generator never saw"
GIVEN = "interval over generated images, with the training and held-out sets as given"
FEATURES = "distances are in features: near is a reason to look at the pair, not proof, and far is no proof of privacy"
VIEWS = "near in either view is a reason to look at the pair, not proof, and far is no proof of privacy"


@dataclass(frozen=True)
class Closest:
    """For each generated image its nearest training image: by thumbnails where these alone call it a near copy.

    Elsewhere it is the nearest in features. ``training`` [M] row, ``distance`` [M] between the features of the pair,
    ``ratio`` [M] of it to the distance to the nearest held-out image, ``near_copy`` [M], and the ``threshold`` at or
    below which a distance is a near copy.
    ``view`` [M] names the view that calls the pair a near copy: "features", "thumbnails", "both" or "". With
    thumbnails ``thumbnail_distance`` [M] is that to the nearest training thumbnail, ``thumbnail_threshold`` its limit.
    ``held_out``: figures of the held-out images.
    """

    training: Rows
    distance: Array
    ratio: Array
    near_copy: NDArray[np.bool_]
    threshold: float
    view: NDArray[np.str_]
    held_out: Scores
    thumbnail_distance: Array | None = None
    thumbnail_threshold: float | None = None


@dataclass(frozen=True)
class Scores:
    """Per-image figures of one side, all [N].

    ``training``: nearest training row; ``distance`` to it; ``ratio``; ``authentic`` (1 or 0); ``angle``: cosine
    distance to the nearest training image, NaN where it has no direction; ``spacing``: distance to the nearest
    held-out image. ``thumbnail``: distance to the nearest
    training thumbnail and ``matched`` its row; None without thumbnails.
    """

    training: Rows
    distance: Array
    ratio: Array
    authentic: Array
    angle: Array
    spacing: Array
    thumbnail: Array | None = None
    matched: Rows | None = None

    @property
    def views(self) -> list[Array]:
        """Distances to the nearest training image, [N] for each view."""
        return [self.distance] if self.thumbnail is None else [self.distance, self.thumbnail]


@dataclass(frozen=True)
class Search:
    """Result of one search among the training images, for any number of tables of cells.

    ``thresholds``: limit of each view. ``shared``: how many held-out patients are training patients too, which
    should be none. ``pair_distance`` [M]: distance between the features of each generated image and its nearest
    training thumbnail; None without thumbnails.
    """

    generated: Scores
    held_out: Scores
    thresholds: list[float]
    shared: int
    pair_distance: Array | None = None

    @property
    def threshold(self) -> float:
        """Distance in features at or below which an image is a near copy."""
        return self.thresholds[0]

    @property
    def closest(self) -> Closest:
        """Each generated image with its nearest training image."""
        scores = self.generated
        near = [view <= limit for view, limit in zip(scores.views, self.thresholds, strict=True)]
        if scores.thumbnail is None or scores.matched is None or self.pair_distance is None:
            view = np.where(near[0], "features", "")
            return Closest(scores.training, scores.distance, scores.ratio, near[0], self.threshold, view,
                           self.held_out)
        view = np.select([near[0] & near[1], near[1], near[0]], ["both", "thumbnails", "features"], "")
        alone = near[1] & ~near[0]  # where both views call it a near copy, the pair is that of the features
        training = np.where(alone, scores.matched, scores.training)
        distance = np.where(alone, self.pair_distance, scores.distance)
        ratio = distance_ratio(distance, scores.spacing)
        return Closest(training, distance, ratio, near[0] | near[1], self.threshold, view, self.held_out,
                       scores.thumbnail, self.thresholds[1])


def shared_thresholds(held_out: list[Array], rate: float = QUANTILE) -> list[float]:
    """Limits of several views of which together a share ``rate`` of the held-out images falls short.

    A held-out image's level in a view is the share of the others that lie nearer to the training images; each view's
    limit is the quantile of its distances at one level, which is the ``rate`` quantile of the images' smallest levels.
    With one view that is the ``rate`` quantile of its distances.

    Args:
        held_out: [N] distances of the held-out images to their nearest training image, for each view.
        rate: share of held-out images that may be called near copies.

    >>> shared_thresholds([np.arange(101.0)])
    [1.0]

    """
    if len(held_out) == 1:
        return [float(np.quantile(held_out[0], rate))]
    count = max(len(held_out[0]) - 1, 1)
    levels = np.min([(rankdata(view, "min") - 1) / count for view in held_out], axis=0)
    level = float(np.quantile(levels, rate))
    return [float(np.quantile(view, level)) for view in held_out]


def distance_ratio(training: NDArray[Any], held_out: NDArray[Any]) -> Array:
    """Distance to the nearest training image over distance to the nearest held-out real image.

    An exact copy of a training image has 0, even when it is a copy of a held-out image too. The ratio is cut
    at 10: beyond it the image is (nearly) a held-out image, and one such image must not outweigh the copies
    in a mean.

    Args:
        training: [M] distances, at least 0.
        held_out: [M] distances, at least 0; infinity where there is nothing to compare with.

    Returns:
        [M] between 0 and 10; NaN where either distance is infinite.

    >>> distance_ratio(np.array([1.0, 0.0, 2.0]), np.array([2.0, 0.0, 0.0])).tolist()
    [0.5, 0.0, 10.0]

    """
    near, far = np.asarray(training, dtype=np.float64), np.asarray(held_out, dtype=np.float64)
    ratio = np.divide(near, far, out=np.where(near > 0, LARGEST_RATIO, 0.0), where=(far > 0) & np.isfinite(near))
    return np.where(np.isfinite(near) & np.isfinite(far), np.minimum(ratio, LARGEST_RATIO), np.nan)


def closest_pairs(closest: Closest, count: int = 24) -> Rows:
    """Rows of the ``count`` generated images most like copies: near copies first, by ratio, then distance, then order.

    An image without a ratio (no held-out image to compare with) comes last.
    """
    missing = np.isnan(closest.ratio)
    order = np.lexsort((np.arange(len(missing)), closest.distance, closest.ratio, ~closest.near_copy, missing))
    return order[:count].astype(np.int64)


def search_training(
    real_values: NDArray[Any],
    generated_values: NDArray[Any],
    train_values: NDArray[Any],
    real_patients: NDArray[Any],
    train_patients: NDArray[Any],
    *,
    generated_patients: NDArray[Any] | None = None,
    held_out: Scores | None = None,
    thumbnails: tuple[NDArray[Any], NDArray[Any], NDArray[Any]] | None = None,
) -> Search:
    """Search the training images for neighbours of every generated and held-out image: the dear part, done once.

    Args:
        real_values: [N, D] features of held-out real images, all of them, not only those of one group.
        generated_values: [M, D] features.
        train_values: [T, D] features of the images the generator was trained on.
        real_patients: [N] names of patients. A held-out image is compared with no image of its own patient.
        train_patients: [T] names.
        generated_patients: [M] names where a generated image stems from a known patient (a reconstruction): it
            is not compared with held-out images of that patient; None takes each image for its own.
        held_out: what a search with the same held-out and training images found for the former.
        thumbnails: of the real, generated and training images, rows as ``registration.nearest_thumbnails`` takes
            them; None looks for near copies in the features alone.

    Raises:
        InputError: held-out or training images of fewer than two patients, different D, NaN or infinity.

    """
    sides = tuple(feature_rows(values, f"{name} features") for values, name in
                  ((real_values, "Real"), (generated_values, "Generated"), (train_values, "Training")))
    patients = _patient_codes(real_patients, generated_patients, train_patients, len(sides[1]))
    _check(sides, patients)
    real, generated, train = sides
    codes, made_codes, train_codes = patients
    nobody = np.full(len(generated), -1)  # a generated image is held against every training image
    made = _scores((generated, real, train), (made_codes, codes), (nobody, train_codes))
    held = held_out or _scores((real, real, train), (codes, codes), (codes, train_codes))
    gap = None
    if thumbnails is not None:
        small = dict(zip(("real", "generated", "train"), thumbnails, strict=True))
        made = replace(made, **_matches(small["generated"], small["train"], nobody, train_codes))
        if held.thumbnail is None:
            held = replace(held, **_matches(small["real"], small["train"], codes, train_codes))
        gap = _row_distances(generated, train, made.matched)
    return Search(made, held, shared_thresholds(held.views), len(np.intersect1d(codes, train_codes)), gap)


def measure_memorisation(
    real_values: NDArray[Any],
    generated_values: NDArray[Any],
    train_values: NDArray[Any],
    real_patients: NDArray[Any],
    train_patients: NDArray[Any],
    plan: Plan,
    *,
    generated_patients: NDArray[Any] | None = None,
    search: Search | None = None,
) -> tuple[list[Measured], Closest]:
    """Memorisation in every eligible cell, each figure beside what held-out real images give.

    * ``nn_ratio``: mean of distance to the nearest training image over distance to the nearest held-out image
      (``distance_ratio``); near its floor is healthy, near 0 suspicious. The floor shows what the unequal
      sizes of the two reference sets do.
    * ``authenticity``: share of images farther from their nearest training image than that is from its own
      nearest training image of another patient (Alaa et al., ICML 2022).
    * ``near_copies``: share of images nearer to a training image than all but 1 % of the held-out images, in features
      or in aligned thumbnails (``shared_thresholds``; in features alone where the search had no thumbnails).
    * ``mifid``: at matched n, see ``memorisation_informed_distance``; FD against the held-out images,
      copies looked for among all training images.

    Arguments are those of ``search_training``, and the plan with cells, draws and n. ``search`` is what that
    function found for the same images; None searches now.

    Returns:
        The four metrics, and each generated image's nearest training image.

    Raises:
        InputError: as ``search_training``.

    """
    if search is None:
        plan.bar.note("nearest training images")
        search = search_training(real_values, generated_values, train_values, real_patients, train_patients,
                                 generated_patients=generated_patients)
        plan.bar.note("")
    made, held = search.generated, search.held_out
    notes = _notes(search)
    copies = [near_copies(side, search.thresholds).astype(np.float64) for side in (made, held)]
    return [
        measure_mean("nn_ratio", "higher", made.ratio, held.ratio, plan, notes["nn_ratio"]),
        measure_mean("authenticity", "share", made.authentic, held.authentic, plan, notes["authenticity"]),
        measure_mean("near_copies", "lower", copies[0], copies[1], plan, notes["near_copies"]),
        measure_mifid(real_values, generated_values, (made.angle, held.angle), plan, notes["mifid"]),
    ], search.closest


def near_copies(scores: Scores, thresholds: list[float]) -> NDArray[np.bool_]:
    """[N] whether an image lies at or below the limit of a view."""
    near = [view <= limit for view, limit in zip(scores.views, thresholds, strict=True)]
    return np.asarray(np.logical_or.reduce(near))


def _matches(query: NDArray[Any], train: NDArray[Any], codes: Rows, train_codes: Rows) -> dict[str, Any]:
    distance, rows = nearest_thumbnails(query, train, query_groups=codes, reference_groups=train_codes)
    return {"thumbnail": distance, "matched": rows}


def _row_distances(values: NDArray[Any], train: NDArray[Any], rows: Rows | None) -> Array:
    """[M] distance between the features of each image and of one training row; infinity for row -1."""
    result = np.full(len(values), np.inf)
    for part in blocks(len(values), 1024):
        own = np.arange(part.start, part.stop)
        other = np.asarray(rows)[part]
        own, other = own[other >= 0], other[other >= 0]
        result[own] = np.linalg.norm(values[own].astype(np.float64) - train[other].astype(np.float64), axis=1)
    return result


def _patient_codes(
    real: NDArray[Any], generated: NDArray[Any] | None, train: NDArray[Any], count: int
) -> tuple[Rows, Rows, Rows]:
    """Codes of the three sides on one scale; generated images without a patient get codes of their own."""
    names = [np.asarray(side).astype(str) for side in (real, train) if side is not None]
    if generated is not None:
        names.append(np.asarray(generated).astype(str))
    known = np.unique(np.concatenate(names), return_inverse=True)[1].astype(np.int64)
    first, second, *rest = np.split(known, np.cumsum([len(side) for side in names])[:-1])
    own = rest[0] if rest else len(known) + np.arange(count)
    return first, own, second


def _check(sides: tuple[NDArray[Any], ...], patients: tuple[Rows, Rows, Rows]) -> None:
    real, generated, train = sides
    problems = []
    if len({side.shape[1] for side in sides}) > 1:
        counts = f"{real.shape[1]}, {generated.shape[1]} and {train.shape[1]} columns"
        problems.append(Problem(counts, "use one encoder for real, generated and training images"))
    for side, codes, name in zip(sides, patients, ("held-out", "generated", "training"), strict=True):
        if len(side) != len(codes):
            problems.append(Problem(f"{len(side)} {name} rows, {len(codes)} patients", "give one patient per row"))
        elif name != "generated" and len(np.unique(codes)) < 2:
            count = f"{name} images are of {len(np.unique(codes))} patients"
            problems.append(Problem(count, "give images of at least two patients"))
    if problems:
        raise InputError("Memorisation cannot be measured.", problems)


def _scores(
    sides: tuple[NDArray[Any], NDArray[Any], NDArray[Any]], own: tuple[Rows, Rows], among: tuple[Rows, Rows]
) -> Scores:
    """Figures of the images of one side against held-out and training images.

    ``own`` holds codes of the images and of the held-out images, ``among`` those of the images and of the
    training images: pairs of equal codes are not compared.
    """
    rows, real, train = sides
    found, places = nearest(rows, train, 1, query_groups=among[0], reference_groups=among[1])
    other = nearest(rows, real, 1, query_groups=own[0], reference_groups=own[1])[0][:, 0]
    distance, training = found[:, 0], places[:, 0]
    # only training images that are somebody's nearest need their own nearest: all T x T would be dear
    used, back = np.unique(training, return_inverse=True)
    codes = among[1][used]
    spacing = nearest(train[used], train, 1, query_groups=codes, reference_groups=among[1])[0][back, 0]
    angle = nearest_angle(rows, train, query_groups=among[0], reference_groups=among[1])
    authentic = (distance > spacing).astype(np.float64)
    return Scores(training, distance, distance_ratio(distance, other), authentic, angle, other)


def _notes(search: Search) -> dict[str, str]:
    """What each metric's rows have to say."""
    leak = (f"{search.shared} held-out patients are training patients too, so the held-out images are not held out; "
            "floors leave out a patient's own training images" if search.shared
            else "no held-out patient is a training patient")
    count = len(search.held_out.distance)
    few = f"a 1 % quantile of {count} held-out images is hardly more than their smallest distance"
    copied = "held-out images have exact copies in training, so only exact copies count"
    limit = f"near is a distance of {search.threshold:.4g} or less, the 1 % quantile of held-out images"
    if len(search.thresholds) > 1:
        limit = (f"near is a distance of {search.threshold:.4g} or less in features, or of {search.thresholds[1]:.4g} "
                 "or less (1 - correlation) in aligned thumbnails: 1 % of held-out images are near in either")
    own = {
        "nn_ratio": ["1 where reference sets are alike, so read it beside the floor"], "authenticity": [],
        "near_copies": [limit, few if count < 1 / QUANTILE else "", copied if max(search.thresholds) == 0 else ""],
        "mifid": [],
    }
    last = {"near_copies": VIEWS} if len(search.thresholds) > 1 else {}
    own = {name: [*parts, GIVEN if name != "mifid" else "", FLOOR, leak, last.get(name, FEATURES)]
           for name, parts in own.items()}
    return {name: "; ".join(part for part in parts if part) for name, parts in own.items()}

"""Memorisation metrics: whether generated images are copies of training images, in every group.

Each metric compares distances to the training images with those of images that cannot be copies: held-out real
images of patients that the generator was not trained on. Every image is compared with the full reference sets,
since an image of one group may be a copy of a training image of another; a group's metric averages over the
images of the group.

Near copies are searched for in two views: distances in an encoder's features, and the correlation of aligned
thumbnails (``registration``), which is robust to blur, recompression, noise, mirroring and small crops. Both views
share one level, chosen so that 1 % of the held-out images count as near copies in either.

Limits: a copy that differs in both views is missed, and images of two different patients that look the same count
as a near copy. So a near copy is a reason to look at the pair, not a proof, and the absence of near copies is no
proof of privacy; ``copy_power`` measures which changes of an image the thumbnails detect. Intervals are over
generated images, conditional on the reference sets.
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
from equigen.quality.metric_inputs import MeasurementPlan, MetricResult
from equigen.quality.metrics.influence import Array
from equigen.quality.metrics.mifid import measure_mifid
from equigen.quality.metrics.neighbours import blocks, check_features, nearest_angle, nearest_neighbours
from equigen.quality.metrics.registration import nearest_thumbnails
from equigen.quality.rows import join_notes

QUANTILE = 0.01
LARGEST_RATIO = 10.0
FLOOR = "the floor is what the held-out real images score, whom the generator never saw"
INTERVAL = "interval over generated images, with the training and held-out sets as given"
FEATURES = "distances are in features: near is a reason to look at the pair, not proof, and far is no proof of privacy"
VIEWS = "near in either view is a reason to look at the pair, not proof, and far is no proof of privacy"


@dataclass(frozen=True)
class NearestTraining:
    """The nearest training image of each generated image: in features, or in thumbnails where only these are near.

    ``training`` [M]: row of the training image; ``distance`` [M] between the features of the pair; ``ratio`` [M] of
    it to the distance to the nearest held-out image; ``near_copy`` [M]; ``threshold`` at or below which a distance
    is a near copy. ``view`` [M]: the view in which the pair is a near copy, "features", "thumbnails", "both" or "".
    ``thumbnail_distance`` [M] is the distance to the nearest training thumbnail and ``thumbnail_threshold`` its
    threshold, None without thumbnails. ``held_out``: scores of the held-out images.
    """

    training: Rows
    distance: Array
    ratio: Array
    near_copy: NDArray[np.bool_]
    threshold: float
    view: NDArray[np.str_]
    held_out: MemorisationScores
    thumbnail_distance: Array | None = None
    thumbnail_threshold: float | None = None


@dataclass(frozen=True)
class MemorisationScores:
    """Scores of each image of one set, all [N].

    ``training``: row of the nearest training image; ``distance`` to it; ``ratio``; ``authentic`` (1 or 0);
    ``angle``: cosine distance to the nearest training image, NaN for features of zero; ``spacing``: distance to the
    nearest held-out image; ``thumbnail``: distance to the nearest training thumbnail and ``matched`` its row, None
    without thumbnails.
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
class TrainingSearch:
    """Nearest training images of all generated and held-out images, for any number of tables of cells.

    ``thresholds``: threshold of each view. ``shared_patients``: number of held-out patients who are training
    patients too, which should be 0. ``pair_distance`` [M]: distance between the features of each generated image
    and of its nearest training thumbnail; None without thumbnails.
    """

    generated: MemorisationScores
    held_out: MemorisationScores
    thresholds: list[float]
    shared_patients: int
    pair_distance: Array | None = None

    @property
    def threshold(self) -> float:
        """Distance in features at or below which an image is a near copy."""
        return self.thresholds[0]

    @property
    def closest(self) -> NearestTraining:
        """The nearest training image of each generated image."""
        scores = self.generated
        near = [view <= limit for view, limit in zip(scores.views, self.thresholds, strict=True)]
        if scores.thumbnail is None or scores.matched is None or self.pair_distance is None:
            view = np.where(near[0], "features", "")
            return NearestTraining(
                scores.training, scores.distance, scores.ratio, near[0], self.threshold, view, self.held_out
            )
        view = np.select([near[0] & near[1], near[1], near[0]], ["both", "thumbnails", "features"], "")
        alone = near[1] & ~near[0]  # where both views show a near copy, the pair is that of the features
        training = np.where(alone, scores.matched, scores.training)
        distance = np.where(alone, self.pair_distance, scores.distance)
        ratio = distance_ratio(distance, scores.spacing)
        return NearestTraining(
            training,
            distance,
            ratio,
            near[0] | near[1],
            self.threshold,
            view,
            self.held_out,
            scores.thumbnail,
            self.thresholds[1],
        )


def shared_thresholds(held_out: list[Array], rate: float = QUANTILE) -> list[float]:
    """Return one threshold per view such that a share ``rate`` of the held-out images is near in any view.

    The level of a held-out image in a view is the share of the others that are nearer to the training images. Each
    threshold is the quantile of the view's distances at one common level, the ``rate`` quantile of the images'
    smallest levels. With one view it is the ``rate`` quantile of its distances.

    Args:
        held_out: [N] distances of the held-out images to their nearest training image, for each view.
        rate: share of held-out images that count as near copies.

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
    """Return the distance to the nearest training image over that to the nearest held-out real image.

    An exact copy of a training image has 0, even when it is a copy of a held-out image too. The ratio is clipped
    at 10: beyond it the image is nearly a held-out image, and one such image must not dominate a mean.

    Args:
        training: [M] distances, at least 0.
        held_out: [M] distances, at least 0; infinity where there is no image to compare with.

    Returns:
        [M] between 0 and 10; NaN where either distance is infinite.

    >>> distance_ratio(np.array([1.0, 0.0, 2.0]), np.array([2.0, 0.0, 0.0])).tolist()
    [0.5, 0.0, 10.0]

    """
    near, far = np.asarray(training, dtype=np.float64), np.asarray(held_out, dtype=np.float64)
    ratio = np.divide(near, far, out=np.where(near > 0, LARGEST_RATIO, 0.0), where=(far > 0) & np.isfinite(near))
    return np.where(np.isfinite(near) & np.isfinite(far), np.minimum(ratio, LARGEST_RATIO), np.nan)


def closest_pairs(closest: NearestTraining, count: int = 24) -> Rows:
    """Return the rows of the ``count`` generated images most like copies: near copies first, by ratio, then distance.

    Ties keep the order of the rows; images without a ratio (no held-out image to compare with) come last.
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
    held_out: MemorisationScores | None = None,
    thumbnails: tuple[NDArray[Any], NDArray[Any], NDArray[Any]] | None = None,
) -> TrainingSearch:
    """Search the training images for neighbours of every generated and held-out image.

    It is the expensive part of the memorisation metrics, so its result may be used for several tables of cells.

    Args:
        real_values: [N, D] features of held-out real images, all of them, not only those of one group.
        generated_values: [M, D] features.
        train_values: [T, D] features of the images that the generator was trained on.
        real_patients: [N] names of patients. A held-out image is compared with no image of its own patient.
        train_patients: [T] names.
        generated_patients: [M] names where a generated image stems from a known patient (a reconstruction): it
            is not compared with held-out images of that patient; None treats each image as its own patient.
        held_out: scores of the held-out images from a search with the same held-out and training images.
        thumbnails: rows of the real, generated and training images as ``registration.nearest_thumbnails`` takes
            them; None searches for near copies in the features alone.

    Raises:
        InputError: held-out or training images of fewer than two patients, different D, NaN or infinity.

    """
    features = tuple(
        check_features(values, f"{name} features")
        for values, name in ((real_values, "Real"), (generated_values, "Generated"), (train_values, "Training"))
    )
    real, generated, train = features
    names = [
        np.asarray(patients).astype(str)
        for patients in (real_patients, train_patients, generated_patients)
        if patients is not None
    ]
    codes = np.unique(np.concatenate(names), return_inverse=True)[1].astype(np.int64)
    real_codes, train_codes, *rest = np.split(codes, np.cumsum([len(patients) for patients in names])[:-1])
    generated_codes = rest[0] if rest else len(codes) + np.arange(len(generated))  # without patients unique codes
    _check_inputs(features, (real_codes, generated_codes, train_codes))
    no_patient = np.full(len(generated), -1)  # a generated image is compared with every training image
    scores = _scores((generated, real, train), (generated_codes, real_codes), (no_patient, train_codes))
    reference = held_out or _scores((real, real, train), (real_codes, real_codes), (real_codes, train_codes))
    pair_distance = None
    if thumbnails is not None:
        small_real, small_generated, small_train = thumbnails
        scores = replace(scores, **_thumbnail_matches(small_generated, small_train, no_patient, train_codes))
        if reference.thumbnail is None:
            reference = replace(reference, **_thumbnail_matches(small_real, small_train, real_codes, train_codes))
        pair_distance = _row_distances(generated, train, scores.matched)
    shared_patients = len(np.intersect1d(real_codes, train_codes))
    return TrainingSearch(scores, reference, shared_thresholds(reference.views), shared_patients, pair_distance)


def measure_memorisation(
    real_values: NDArray[Any],
    generated_values: NDArray[Any],
    train_values: NDArray[Any],
    real_patients: NDArray[Any],
    train_patients: NDArray[Any],
    plan: MeasurementPlan,
    *,
    generated_patients: NDArray[Any] | None = None,
    search: TrainingSearch | None = None,
) -> tuple[list[MetricResult], NearestTraining]:
    """Measure memorisation in every eligible cell; the floor of each metric is its value on held-out real images.

    * ``nn_ratio``: mean of distance to the nearest training image over distance to the nearest held-out image
      (``distance_ratio``); near its floor is healthy, near 0 suspicious. The floor accounts for the unequal sizes
      of the two reference sets.
    * ``authenticity``: share of images farther from their nearest training image than that is from its own
      nearest training image of another patient (Alaa et al., ICML 2022).
    * ``near_copies``: share of images nearer to a training image than all but 1 % of the held-out images, in features
      or in aligned thumbnails (``shared_thresholds``; in features alone where the search had no thumbnails).
    * ``mifid``: at matched n, see ``memorisation_informed_distance``; FD against the held-out images, with copies
      searched for among all training images.

    Arguments are those of ``search_training``, and the plan with cells, draws and n. ``search`` is the result of
    that function for the same images; None searches.

    Returns:
        The four metrics, and each generated image's nearest training image.

    Raises:
        InputError: as ``search_training``.

    """
    if search is None:
        plan.bar.note("nearest training images")
        search = search_training(
            real_values,
            generated_values,
            train_values,
            real_patients,
            train_patients,
            generated_patients=generated_patients,
        )
        plan.bar.note("")
    generated, held_out = search.generated, search.held_out
    notes = _notes(search)
    copies = [near_copies(scores, search.thresholds).astype(np.float64) for scores in (generated, held_out)]
    return [
        measure_mean("nn_ratio", "higher", generated.ratio, held_out.ratio, plan, notes["nn_ratio"]),
        measure_mean("authenticity", "share", generated.authentic, held_out.authentic, plan, notes["authenticity"]),
        measure_mean("near_copies", "lower", copies[0], copies[1], plan, notes["near_copies"]),
        measure_mifid(real_values, generated_values, (generated.angle, held_out.angle), plan, notes["mifid"]),
    ], search.closest


def near_copies(scores: MemorisationScores, thresholds: list[float]) -> NDArray[np.bool_]:
    """Return the mask [N] of images at or below the threshold of any view."""
    near = [view <= limit for view, limit in zip(scores.views, thresholds, strict=True)]
    return np.asarray(np.logical_or.reduce(near))


def _thumbnail_matches(query: NDArray[Any], train: NDArray[Any], codes: Rows, train_codes: Rows) -> dict[str, Any]:
    """Return the fields of ``MemorisationScores`` that the thumbnails give."""
    distance, rows = nearest_thumbnails(query, train, query_groups=codes, reference_groups=train_codes)
    return {"thumbnail": distance, "matched": rows}


def _row_distances(values: NDArray[Any], train: NDArray[Any], rows: Rows | None) -> Array:
    """Return the distance [M] between the features of each image and of one training row; infinity for row -1."""
    result = np.full(len(values), np.inf)
    for block in blocks(len(values), 1024):
        queries = np.arange(block.start, block.stop)
        references = np.asarray(rows)[block]
        queries, references = queries[references >= 0], references[references >= 0]
        gaps = values[queries].astype(np.float64) - train[references].astype(np.float64)
        result[queries] = np.linalg.norm(gaps, axis=1)
    return result


def _check_inputs(features: tuple[NDArray[Any], ...], patients: tuple[Rows, Rows, Rows]) -> None:
    """Raise InputError for different encoders, patients that do not fit the rows, or sets of one patient."""
    real, generated, train = features
    problems = []
    if len({rows.shape[1] for rows in features}) > 1:
        counts = f"{real.shape[1]}, {generated.shape[1]} and {train.shape[1]} columns"
        problems.append(Problem(counts, "use one encoder for real, generated and training images"))
    for rows, codes, name in zip(features, patients, ("held-out", "generated", "training"), strict=True):
        if len(rows) != len(codes):
            problems.append(Problem(f"{len(rows)} {name} rows, {len(codes)} patients", "give one patient per row"))
        elif name != "generated" and len(np.unique(codes)) < 2:
            count = f"{name} images are of {len(np.unique(codes))} patients"
            problems.append(Problem(count, "give images of at least two patients"))
    if problems:
        raise InputError("Memorisation cannot be measured.", problems)


def _scores(
    features: tuple[NDArray[Any], NDArray[Any], NDArray[Any]],
    real_codes: tuple[Rows, Rows],
    train_codes: tuple[Rows, Rows],
) -> MemorisationScores:
    """Return the scores of a set of images; ``features`` are those of the images, the held-out and the training images.

    Images of equal codes are not compared: ``real_codes`` holds those of the images and of the held-out images,
    ``train_codes`` those of the images and of the training images.
    """
    query, held_out, train = features
    groups = {"query_groups": train_codes[0], "reference_groups": train_codes[1]}
    real_groups = {"query_groups": real_codes[0], "reference_groups": real_codes[1]}
    distances, rows = nearest_neighbours(query, train, 1, **groups)
    distance, training = distances[:, 0], rows[:, 0]
    spacing = nearest_neighbours(query, held_out, 1, **real_groups)[0][:, 0]
    # only training images that are a nearest neighbour need their own neighbour: all T x T would be expensive
    unique, inverse = np.unique(training, return_inverse=True)
    train_spacing = nearest_neighbours(
        train[unique], train, 1, query_groups=train_codes[1][unique], reference_groups=train_codes[1]
    )[0][inverse, 0]
    angle = nearest_angle(query, train, **groups)
    authentic = (distance > train_spacing).astype(np.float64)
    return MemorisationScores(training, distance, distance_ratio(distance, spacing), authentic, angle, spacing)


def _notes(search: TrainingSearch) -> dict[str, str]:
    """Return the note of each metric's rows."""
    leak = "no held-out patient is a training patient"
    if search.shared_patients:
        leak = (
            f"{search.shared_patients} held-out patients are training patients too, so the held-out images are not "
            "held out; floors leave out a patient's own training images"
        )
    count = len(search.held_out.distance)
    small = f"a 1 % quantile of {count} held-out images is hardly more than their smallest distance"
    copied = "held-out images have exact copies in training, so only exact copies count"
    limit = f"near is a distance of {search.threshold:.4g} or less, the 1 % quantile of held-out images"
    if len(search.thresholds) > 1:
        limit = (
            f"near is a distance of {search.threshold:.4g} or less in features, or of {search.thresholds[1]:.4g} "
            "or less (1 - correlation) in aligned thumbnails: 1 % of held-out images are near in either"
        )
    parts = {
        "nn_ratio": ["1 where reference sets are alike, so read it beside the floor"],
        "authenticity": [],
        "near_copies": [limit, small if count < 1 / QUANTILE else "", copied if max(search.thresholds) == 0 else ""],
        "mifid": [],
    }
    last = {"near_copies": VIEWS} if len(search.thresholds) > 1 else {}
    parts = {
        name: [*texts, INTERVAL if name != "mifid" else "", FLOOR, leak, last.get(name, FEATURES)]
        for name, texts in parts.items()
    }
    return {name: join_notes(*texts) for name, texts in parts.items()}

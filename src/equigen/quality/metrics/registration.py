"""Nearest training image by aligned pixels: the copy-detection view, pure functions of thumbnails.

An encoder's features change when an image is blurred, compressed or cropped; the correlation of small thumbnails,
maximised over mirror images and small crops of the training image, hardly does. The search has two stages:

1. every query, as it is and mirrored, against the full training thumbnails and nine crops of 90 % of them,
   at 12 x 12 pixels: the ``SHORTLIST`` best training images of each query;
2. each of these against crops of 85 to 100 % at steps of 2.5 % of the width, at 20 x 20 pixels.

The distance is 1 - r, where r is the largest Pearson correlation of grey, red - green and yellow - blue pixels, each
channel less its mean. Brightness and contrast leave it unchanged. A thumbnail of one colour has no correlation; its
distance is 1, so exact copies of featureless images are left to the encoder's view.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

from equigen.quality.metrics.neighbours import blocks

Array = NDArray[np.float64]
Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
SIDE = 24  # width of a thumbnail in pixels
COARSE, FINE = 12, 20  # widths in pixels of the two stages
COARSE_WINDOWS = (1.0, 0.9), 0.05  # shares of the width, and the largest step between offsets
FINE_SHARES, STEP = (1.0, 0.95, 0.9, 0.85), 0.025
SHORTLIST = 8
QUERIES, REFERENCES, PAIRS = 512, 2048, 16  # rows in a block
COMMON = 8  # leading components of all training images, which are projected out before correlating
COLOUR = 0.25  # weight of the colour channels, whose detail JPEG discards
FLAT = 1e-3  # grey levels: a thumbnail or crop with a smaller standard deviation has no direction


@dataclass(frozen=True)
class Window:
    """A square crop: ``share`` of the image width, and the offset of its upper left corner as shares of the width."""

    share: float
    y: float
    x: float


FULL = Window(1.0, 0.0, 0.0)


def windows(shares: Sequence[float], step: float) -> list[Window]:
    """Return crops of each share whose offsets cover the image evenly, at most ``step`` of its width apart.

    >>> len(windows(*COARSE_WINDOWS))
    10

    """
    crops = []
    for share in shares:
        count = int(np.ceil((1 - share) / step - 1e-9)) + 1
        offsets = np.linspace(0, 1 - share, count)
        crops += [Window(share, float(y), float(x)) for y in offsets for x in offsets]
    return crops


def box_matrix(low: float, high: float, count: int, size: int) -> Floats:
    """Return weights [count, size] that average the pixels from ``low`` to ``high`` into ``count`` equal boxes."""
    edges, pixels = np.linspace(low, high, count + 1), np.arange(size)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights = np.clip(overlap, 0, None)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32)


def thumbnails(images: NDArray[np.uint8]) -> Floats:
    """Return grey, red - green and yellow - blue, averaged over boxes: uint8 [N, H, H, 3] -> [N, 3, SIDE, SIDE]."""
    matrix = box_matrix(0, images.shape[1], SIDE, images.shape[1])
    planes = images.transpose(0, 3, 1, 2).astype(np.float32)
    small = matrix @ planes @ matrix.T
    red, green, blue = small[:, 0], small[:, 1], small[:, 2]
    return np.stack([(red + green + blue) / 3, COLOUR * (red - green), COLOUR * ((red + green) / 2 - blue)], axis=1)


@dataclass(frozen=True)
class CommonComponents:
    """Orthonormal components [3 s², k] of both stages that the training thumbnails share."""

    coarse: Floats
    fine: Floats


def common_components(reference: NDArray[Any], count: int | None = None) -> CommonComponents:
    """Return the ``count`` leading uncentred principal components of at most 2 000 reference thumbnails.

    Images of one modality share their coarse layout (a disc on black, a chest), which makes the correlation of any
    two high. Projecting it out leaves the differences between images, and the invariance to brightness and contrast.
    """
    count = COMMON if count is None else count
    rows = np.unique(np.linspace(0, len(reference) - 1, min(2000, len(reference))).astype(np.int64))
    sample = reference.reshape(len(reference), 3, SIDE, SIDE)[rows].astype(np.float32)
    bases = []
    for size in (COARSE, FINE):
        values = _centred(_crop(sample, FULL, size)).astype(np.float64)
        width = values.shape[1]
        least = min(count, width, max(len(values) // 10, 0))
        _, vectors = eigh(values.T @ values, subset_by_index=[width - max(least, 1), width - 1])
        bases.append(vectors[:, ::-1][:, :least].astype(np.float32))
    return CommonComponents(*bases)


def nearest_thumbnails(
    query: NDArray[Any],
    reference: NDArray[Any],
    *,
    query_groups: NDArray[Any] | None = None,
    reference_groups: NDArray[Any] | None = None,
    common: CommonComponents | None = None,
) -> tuple[Array, Rows]:
    """Return the distance of each query thumbnail to its nearest reference over mirror images and crops, and its row.

    Args:
        query: [M, 3, SIDE, SIDE] thumbnails, or as rows [M, 3 SIDE²]; float16 or float32.
        reference: [N, 3, SIDE, SIDE] thumbnails, or as rows.
        query_groups: [M] codes; references of the same code are skipped.
        reference_groups: [N] codes on the same scale.
        common: components to project out; None takes those of the references.

    Returns:
        Distances [M] from 0 to 2 and rows [M]; infinity and -1 where every reference is skipped.

    """
    query, reference = (images.reshape(len(images), 3, SIDE, SIDE) for images in (query, reference))
    common = common or common_components(reference)
    distances, indices = np.full(len(query), np.inf), np.full(len(query), -1, dtype=np.int64)
    for rows in blocks(len(query), QUERIES):
        views = query[rows].astype(np.float32)
        groups = None if query_groups is None or reference_groups is None else (query_groups[rows], reference_groups)
        candidates, mirrored = _shortlist(views, reference, groups, common.coarse)
        view_distances = _aligned_distances(views, reference, candidates, mirrored, common.fine)
        best = view_distances.argmin(axis=1)
        distances[rows] = view_distances[np.arange(len(view_distances)), best]
        indices[rows] = np.where(np.isfinite(distances[rows]), candidates[np.arange(len(view_distances)), best], -1)
    return distances, indices


def _shortlist(
    query: Floats, reference: NDArray[Any], groups: tuple[NDArray[Any], NDArray[Any]] | None, basis: Floats
) -> tuple[Rows, NDArray[np.bool_]]:
    """Return rows [m, k] of the references most similar at the coarse stage (-1: none), and whether mirrored."""
    k = min(SHORTLIST, len(reference))
    views = [_unit_vectors(_crop(view, FULL, COARSE), basis) for view in (query, query[..., ::-1])]
    best = np.full((len(query), 0), -np.inf, dtype=np.float32)
    rows, mirrored = np.zeros((len(query), 0), dtype=np.int64), np.zeros((len(query), 0), dtype=bool)
    for columns in blocks(len(reference), REFERENCES):
        block = reference[columns].astype(np.float32)
        similarity = np.full((2, len(query), columns.stop - columns.start), -np.inf, dtype=np.float32)
        for window in windows(*COARSE_WINDOWS):
            directions = _unit_vectors(_crop(block, window, COARSE), basis).T
            for values, view in zip(similarity, views, strict=True):
                np.maximum(values, view @ directions, out=values)
        flipped = similarity[1] > similarity[0]
        top = similarity.max(axis=0)
        if groups is not None:
            top[groups[0][:, None] == groups[1][columns]] = -np.inf
        best = np.concatenate([best, top], axis=1)
        numbers = np.broadcast_to(np.arange(columns.start, columns.stop), top.shape)
        rows, mirrored = np.concatenate([rows, numbers], axis=1), np.concatenate([mirrored, flipped], axis=1)
        order = np.argsort(-best, axis=1, kind="stable")[:, :k]  # ties by row
        best, rows, mirrored = (np.take_along_axis(table, order, axis=1) for table in (best, rows, mirrored))
    return np.where(np.isfinite(best), rows, -1), mirrored


def _aligned_distances(
    query: Floats, reference: NDArray[Any], candidates: Rows, mirrored: NDArray[np.bool_], basis: Floats
) -> Array:
    """Return distances [m, k] of each query to its candidates at the fine stage; infinity where there is none."""
    views = np.stack([_unit_vectors(_crop(view, FULL, FINE), basis) for view in (query, query[..., ::-1])])
    result = np.full(candidates.shape, np.inf)
    pairs = np.argwhere(candidates >= 0)
    for block in blocks(len(pairs), PAIRS):
        query_rows, positions = pairs[block].T
        directions = views[mirrored[query_rows, positions].astype(np.int64), query_rows]
        images = reference[candidates[query_rows, positions]].astype(np.float32)
        result[query_rows, positions] = 1 - _best_correlation(directions, images, basis)
    return np.asarray(np.maximum(result, 0.0))


def _best_correlation(directions: Floats, reference: Floats, basis: Floats) -> Array:
    """Return the largest correlation of each direction [p, D] with crops of its reference [p, 3, SIDE, SIDE] -> [p]."""
    best = np.full(len(reference), -1.0)
    for share in FINE_SHARES:
        offsets = sorted({window.y for window in windows((share,), STEP)})
        stacked = np.concatenate([box_matrix(low * SIDE, (low + share) * SIDE, FINE, SIDE) for low in offsets])
        crops = (stacked @ reference @ stacked.T).reshape(len(reference), 3, len(offsets), FINE, len(offsets), FINE)
        crops = crops.transpose(0, 2, 4, 1, 3, 5).reshape(len(reference), len(offsets) ** 2, 3, FINE**2)
        crops -= crops.mean(axis=3, keepdims=True)
        centred = crops.reshape(*crops.shape[:2], -1)
        inner = np.matmul(centred, directions[:, :, None])[..., 0]
        squares = np.einsum("pwd,pwd->pw", centred, centred) - np.square(centred @ basis).sum(axis=2)
        length = np.sqrt(np.maximum(squares, 0))
        least = FLAT * FINE
        r = np.divide(inner, length, out=np.full(inner.shape, -1.0, np.float32), where=length > least)
        best = np.maximum(best, r.max(axis=1))
    return best


def _crop(views: Floats, window: Window, size: int) -> Floats:
    """Return one crop of each image, resized by box averages: [N, 3, SIDE, SIDE] -> [N, 3, size, size]."""
    width = views.shape[-1]
    rows, columns = (box_matrix(low * width, (low + window.share) * width, size, width) for low in (window.y, window.x))
    return np.asarray(rows @ views @ columns.T)


def _centred(views: Floats) -> Floats:
    """Return each channel less its mean: [N, 3, s, s] -> [N, 3 s²]."""
    return np.asarray((views - views.mean(axis=(2, 3), keepdims=True)).reshape(len(views), -1))


def _unit_vectors(views: Floats, basis: Floats) -> Floats:
    """Return centred images without the common components at unit length, zeros for flat ones: -> [N, 3 s²]."""
    centred = _centred(views)
    rest = centred - (centred @ basis) @ basis.T
    length = np.linalg.norm(rest, axis=1, keepdims=True)
    least = FLAT * views.shape[-1]
    return np.where(length > least, rest / np.maximum(length, least), 0).astype(np.float32)

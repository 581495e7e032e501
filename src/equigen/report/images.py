"""Real and generated images side by side, as PNG inside the page."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from equigen.errors import InputError, Problem
from equigen.report.layout import ImageTable, Pair, PairStrip, Strip

MIN_PIXELS = 96  # smaller images of a pair are enlarged by whole pixels, to be looked at
MAX_PIXELS = 128  # pixels of one shown image; larger ones are shrunk for the page
_SPACE = 2


@dataclass(frozen=True)
class Grid:
    """Images per group: a row per entry of ``rows``, real and every generator on the same rows.

    ``real`` and each array of ``generated`` (generator name -> images) are uint8 [R, C, H, W, 3]; ``real``
    is None on a page that shows no real images.
    """

    title: str
    rows: list[str]
    real: NDArray[np.uint8] | None
    generated: dict[str, NDArray[np.uint8]] = field(default_factory=dict)
    caption: str = ""

    def __post_init__(self) -> None:
        """Refuse arrays that are not uint8 [R, C, H, W, 3] with one row per label.

        Raises:
            InputError: naming each source that does not fit.

        """
        wrong = [(name, array) for name, array in self.sources().items() if not self._fits(array)]
        if wrong:
            mend = f"give uint8 [{len(self.rows)}, C, H, W, 3]"
            problems = [
                Problem(f"'{name}' is {array.dtype} {list(array.shape)}", mend) for name, array in wrong
            ]
            raise InputError(f"The image grid '{self.title}' cannot be shown.", problems)

    def sources(self) -> dict[str, NDArray[np.uint8]]:
        """Column name -> images, real first where there are any."""
        return {**({} if self.real is None else {"real": self.real}), **self.generated}

    def _fits(self, array: NDArray[np.uint8]) -> bool:
        return (
            array.dtype == np.uint8
            and array.ndim == 5
            and array.shape[-1] == 3
            and len(array) == len(self.rows)
        )


@dataclass(frozen=True)
class ClosePairs:
    """The closest generated and training images of one run, closest first.

    ``generated`` and ``training`` are uint8 [K, H, W, 3] on the same rows; ``captions`` [K] say distance, ratio
    and flag; ``threshold`` is the distance up to which an image counts as a near copy, None where there is none.
    """

    run: str
    generated: NDArray[np.uint8]
    training: NDArray[np.uint8]
    captions: list[str]
    threshold: float | None = None

    def __post_init__(self) -> None:
        """Refuse arrays that are not uint8 [K, H, W, 3] with one caption a pair.

        Raises:
            InputError: naming each side that does not fit.

        """
        sides = {"generated": self.generated, "training": self.training}
        mend = f"give uint8 [{len(self.captions)}, H, W, 3], a pair for each caption"
        problems = [
            Problem(f"'{name}' is {array.dtype} {list(array.shape)}", mend)
            for name, array in sides.items()
            if array.dtype != np.uint8 or array.ndim != 4 or array.shape[-1] != 3 or len(array) != len(self.captions)
        ]
        if problems:
            raise InputError(f"The closest pairs of '{self.run}' cannot be shown.", problems)


def pair_strip(pairs: ClosePairs) -> PairStrip:
    """The pairs as one PNG each: generated left, training right; large images shrunk, small ones enlarged."""
    note = "" if pairs.threshold is None or not np.isfinite(pairs.threshold) else (
        f"A distance of {pairs.threshold:.4g} or less counts as a near copy."
    )
    shown = [
        _pair(generated, training, caption, f"{pairs.run}, pair {place}")
        for place, (generated, training, caption) in enumerate(
            zip(pairs.generated, pairs.training, pairs.captions, strict=True), start=1
        )
    ]
    return PairStrip(pairs.run, note if shown else "No pair was given.", shown)


def _pair(generated: NDArray[np.uint8], training: NDArray[np.uint8], caption: str, name: str) -> Pair:
    tiles = [_shrink_image(generated), _shrink_image(training)]
    factor = -(-MIN_PIXELS // max(tiles[0].shape[:2]))
    png, width = _join_images([tile.repeat(factor, 0).repeat(factor, 1) for tile in tiles])
    return Pair(png, f"{name}: generated image, left, and its closest training image, right; {caption}", width, caption)


def _join_images(tiles: list[NDArray[np.uint8]]) -> tuple[str, int]:
    """Images beside each other as a PNG in base64, and its width; they may differ in size."""
    height, width = max(tile.shape[0] for tile in tiles), sum(tile.shape[1] + _SPACE for tile in tiles) - _SPACE
    canvas, left = np.full((height, width, 3), 255, np.uint8), 0
    for tile in tiles:
        canvas[: tile.shape[0], left : left + tile.shape[1]] = tile
        left += tile.shape[1] + _SPACE
    buffer = BytesIO()
    Image.fromarray(canvas).save(buffer, format="PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode("ascii"), width


def image_table(grid: Grid) -> ImageTable:
    """The grid as strips of images, one per row and source; images above 128 pixels are shrunk (Lanczos)."""
    sources = grid.sources()
    rows = [
        (label, [_strip(images[index], label, source) for source, images in sources.items()])
        for index, label in enumerate(grid.rows)
    ]
    shrunk = max(max(images.shape[2:4]) for images in sources.values()) > MAX_PIXELS
    note = f" Shown at {MAX_PIXELS} pixels or less; the files are larger." if shrunk else ""
    return ImageTable(grid.title, grid.caption + note, list(sources), rows)


def pair_table(
    images: NDArray[np.uint8], levels: list[str], names: list[str], captions: list[list[str]], caption: str
) -> ImageTable:
    """Counterfactual pairs: a row each, its images (uint8 [K, L, H, W, 3]) level by level with a caption below."""
    rows = [
        (name, [_tile(image, f"{name}, {level}. {words}", words)
                for image, level, words in zip(pair, levels, own, strict=True)])
        for name, pair, own in zip(names, images, captions, strict=True)
    ]  # fmt: skip
    return ImageTable("", caption, levels, rows, head="pair")


def _tile(image: NDArray[np.uint8], alt: str, caption: str) -> Strip:
    """One image, shrunk or enlarged like those of close pairs."""
    tile = _shrink_image(image)
    factor = -(-MIN_PIXELS // max(tile.shape[:2]))
    png, width = _join_images([tile.repeat(factor, 0).repeat(factor, 1)])
    return Strip(png, alt, width, caption)


def _strip(images: NDArray[np.uint8], label: str, source: str) -> Strip:
    kind = "real images" if source == "real" else f"images generated by {source}"
    alt = f"{len(images)} {kind}, {label}"
    if not len(images):
        return Strip("", f"no {kind}, {label}", 0)
    png, width = _join_images([_shrink_image(image) for image in images])
    return Strip(png, alt, width)


def _shrink_image(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    factor = MAX_PIXELS / max(height, width)
    if factor >= 1:
        return image
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))

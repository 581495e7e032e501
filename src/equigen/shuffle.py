"""Seeded shuffle that is computed, not stored: position -> row in constant memory."""

from __future__ import annotations

from functools import lru_cache
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from equigen.errors import InputError, Problem
from equigen.seeds import numpy_generator

ROUNDS = 16  # enough that orders of a few rows are close to uniform too
_GAMMA, _FIRST, _SECOND = (np.uint64(word) for word in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
_30, _27, _31, _1 = (np.uint64(bits) for bits in (30, 27, 31, 1))


def shuffled_rows(positions: NDArray[np.int64], count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the rows at some positions of an epoch's random order of ``count`` rows, in O(1) memory.

    A generalised Feistel network over a x b >= ``count`` places, with cycle walking (Black and Rogaway, "Ciphers with
    arbitrary finite domains", CT-RSA 2002): with the place x = l + a r, odd rounds set l <- (l + F_j(r)) mod a and even
    ones r <- (r + F_j(l)) mod b. Each round is a bijection, hence so are all of them; a place at or beyond ``count`` is
    put in again until it falls below, which a = ceil(sqrt(count)) makes rare. F_j is the finaliser of SplitMix64
    (Steele, Lea and Flood, OOPSLA 2014) over its argument and the round's key, which comes from (seed, "shuffle",
    epoch).

    ``positions``: [B] in [0, count); ``count``: up to 2^62. Returns [B] int64 in [0, count). Raises InputError for a
    position outside.

    >>> order = shuffled_rows(np.arange(5), 5, seed=0, epoch=0)
    >>> sorted(order.tolist())
    [0, 1, 2, 3, 4]
    """
    points = np.asarray(positions, dtype=np.int64)
    if points.size and not (points.min() >= 0 and points.max() < count <= 2**62):
        problem = Problem(f"positions {points.min()} to {points.max()} of {count} rows", "give 0 <= position < count")
        raise InputError("These positions are outside the order.", [problem])
    keys = _round_keys(seed, epoch)
    rows = _permute(points.astype(np.uint64), count, keys)
    while (outside := rows >= count).any():
        rows[outside] = _permute(rows[outside], count, keys)
    return rows.astype(np.int64)


@lru_cache(maxsize=16)
def _round_keys(seed: int, epoch: int) -> NDArray[np.uint64]:
    """Return a key for each round, [ROUNDS]."""
    return numpy_generator(seed, "shuffle", epoch).integers(0, 2**64, ROUNDS, dtype=np.uint64)


def _permute(points: NDArray[np.uint64], count: int, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Apply the Feistel network once: a bijection of [0, a b)."""
    width = isqrt(max(count - 1, 0)) + 1
    a, b = np.uint64(width), np.uint64(-(-count // width))
    high, low = np.divmod(points, a)
    for step in range(0, ROUNDS, 2):
        low = (low + _mix(high, keys[step])) % a
        high = (high + _mix(low, keys[step + 1])) % b
    return np.asarray(low + a * high)


def _mix(values: NDArray[np.uint64], key: np.uint64) -> NDArray[np.uint64]:
    """Return the upper 63 bits of SplitMix64's finaliser of v * golden gamma + key, so that sums do not wrap."""
    mixed = values * _GAMMA + key
    mixed = (mixed ^ (mixed >> _30)) * _FIRST
    mixed = (mixed ^ (mixed >> _27)) * _SECOND
    return np.asarray((mixed ^ (mixed >> _31)) >> _1)

"""Intervals for the numbers shown to users: Wilson's for rates, the bootstrap for ratios and differences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Z95 = 1.959964
# Resampled indices held at a time: bounds memory at 32 MiB whatever the sample size.
_CHUNK = 1 << 22


@dataclass(frozen=True)
class Interval:
    """A measured value with its 95 % interval and the number of observations behind it."""

    value: float
    low: float
    high: float
    n: int


def wilson(successes: int, n: int, z: float = Z95) -> Interval:
    """Wilson's score interval for a rate of ``successes`` in ``n`` trials (Wilson, 1927).

    Holds its coverage near 0 and 1 and for small n, where the normal interval fails. With n = 0 nothing is
    known: the interval is [0, 1] around 0.5.

    Raises ValueError unless 0 <= successes <= n.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"successes {successes} must lie between 0 and n = {n}")
    if n == 0:
        return Interval(0.5, 0.0, 1.0, 0)
    rate = successes / n
    scale = 1 + z * z / n
    centre = (rate + z * z / (2 * n)) / scale
    half = z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n)) / scale
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return Interval(rate, low, high, n)


def bootstrap_ratio(
    numerators: Sequence[float], denominators: Sequence[float], *, seed: int, resamples: int = 2000
) -> Interval:
    """sum(numerators) / sum(denominators) with a percentile bootstrap interval over the units.

    Unit i brings both its numerator and its denominator (a document's bits and its bytes), so the interval
    knows that units differ in size. Deterministic for a seed.

    Raises ValueError for unequal lengths, no units, or denominators that sum to nothing.
    """
    import numpy as np  # not at import: the command line must answer before numpy could load

    top = np.asarray(numerators, dtype=np.float64)
    bottom = np.asarray(denominators, dtype=np.float64)
    if top.shape != bottom.shape or top.ndim != 1 or not len(top):
        raise ValueError(f"need equally many numerators and denominators, not {top.shape} and {bottom.shape}")
    if not bottom.sum() > 0:
        raise ValueError(f"denominators sum to {bottom.sum()}, which must be positive")
    ratios = _resampled_ratios(top, bottom, seed, resamples)
    low, high = np.percentile(ratios, [2.5, 97.5])
    return Interval(float(top.sum() / bottom.sum()), float(low), float(high), len(top))


def paired_bootstrap(
    a: Sequence[float], b: Sequence[float], *, seed: int, clusters: Sequence[Any] | None = None
) -> Interval:
    """mean(b) - mean(a) over paired observations, with a percentile bootstrap interval.

    Args:
        a, b: scores of two models on the same items, in the same order.
        clusters: a label for each item; items that share one (questions on one story) are resampled together.

    Raises ValueError for unequal lengths or no items.
    """
    import numpy as np

    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1 or not len(first):
        raise ValueError(f"need equally many paired scores, not {first.shape} and {second.shape}")
    if clusters is not None and len(clusters) != len(first):
        raise ValueError(f"{len(clusters)} cluster labels for {len(first)} items")
    labels = range(len(first)) if clusters is None else clusters
    numbers: dict[Any, int] = {}
    index = np.array([numbers.setdefault(label, len(numbers)) for label in labels])
    differences: NDArray[np.float64] = np.bincount(index, weights=second - first).astype(np.float64)
    counts = np.bincount(index).astype(np.float64)
    low, high = np.percentile(_resampled_ratios(differences, counts, seed, 2000), [2.5, 97.5])
    return Interval(float((second - first).mean()), float(low), float(high), len(first))


def _resampled_ratios(
    top: NDArray[np.float64], bottom: NDArray[np.float64], seed: int, resamples: int
) -> NDArray[np.float64]:
    """Ratio of sums in each of ``resamples`` draws of all units with replacement; [resamples]."""
    import numpy as np

    generator = np.random.default_rng(seed)
    rows = max(1, _CHUNK // len(top))
    ratios = []
    for begin in range(0, resamples, rows):
        drawn = generator.integers(len(top), size=(min(rows, resamples - begin), len(top)))
        denominator = bottom[drawn].sum(axis=1)
        # A draw of nothing but empty units has no ratio; it is left out below.
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios.append(top[drawn].sum(axis=1) / denominator)
    every: NDArray[np.float64] = np.concatenate(ratios)
    return every[np.isfinite(every)]

"""Loss laws: what a ladder of models says about the loss of a larger one, and how sure that is.

    L(C) = E + A · (C / C₀)^-α

E is the loss that no compute takes away, A what is above it at the compute C₀ (the geometric mean of the rungs'), α the
exponent. With so many tokens a parameter, N parameters and D tokens both grow with the square root of compute, and the
two terms of L(N, D) = E + A/N^a + B/D^b (Hoffmann et al. 2022, arXiv 2203.15556, eq. 2) become one as far as a and b
are equal; Besiroglu et al. 2024 (arXiv 2404.10102) find 0.35 and 0.37.

**The fit** is least squares of relative errors, which to first order are those of the logarithm. For a given α the law
is linear in E and A, so one search over α finds the best of all laws: nothing has to converge. E is never below 0.

**The interval** is a profile: a loss is in it if, taken as a further rung, it makes the best fit no worse than chance
would in 95 of 100 ladders (for a linear law that is Student's prediction interval; Bates and Watts 1988, section 6.1).
So it covers what is not known of E, A and α, their limits included, and the chance of the new run itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEVEL = 0.95
UNKNOWNS = 3
"""E, A and α: as many rungs fit any law, one more tells how well."""
EXPONENTS = (0.01, 1.5)
"""Where α is looked for. Published laws in compute have 0.05 (Kaplan et al. 2020) to 0.2 (Hoffmann et al. 2022)."""
_GRID = 2001
_RESOLVED = 200
"""Points of the grid that the interval of α shall hold; with fewer the grid is laid anew over them."""
_ZOOMS = 8
HUBER = 1e-3
"""δ of Hoffmann et al. 2022, appendix D.2."""
_HUBER_GRID = 201
_REWEIGHTINGS = 200


@dataclass(frozen=True)
class Law:
    """L(C) = floor + scale · (C / reference)^-exponent."""

    floor: float
    scale: float
    exponent: float
    reference: float

    def __call__(self, compute: float) -> float:
        """The loss at ``compute`` FLOPs."""
        return float(self.floor + self.scale * (compute / self.reference) ** -self.exponent)


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval; ``low`` and ``high`` are None where nothing measures how far rungs scatter."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class _Profile:
    """For each α of a grid [K] the least-squares solution, unconstrained, and that with E = 0.

    M is the 2 × 2 matrix of the normal equations; ``inverse_*`` are the entries of its inverse.
    """

    exponents: Floats
    floor: Floats
    scale: Floats
    inverse_ee: Floats
    inverse_ea: Floats
    inverse_aa: Floats
    squares: Floats
    scale_alone: Floats
    inverse_alone: Floats
    squares_alone: Floats

    @property
    def constrained(self) -> Floats:
        """Squares of the best law with E ≥ 0, [K]."""
        return np.where(self.floor >= 0, self.squares, self.squares_alone)


@dataclass(frozen=True)
class LawFit:
    """The best law, and how well it is known.

    Attributes:
        sigma: the scatter of one run about the law, as a share of the loss: that of seeds, or that of the rungs about
            the law where it is greater. None with three rungs, which some law always fits.
        degrees: of freedom that ``sigma`` rests on: rungs beyond three, and runs of a rung beyond its first.
        exponent, floor: with their intervals. A floor whose interval begins at 0 is not known to be there at all.
    """

    law: Law
    sigma: float | None
    degrees: int
    exponent: Estimate
    floor: Estimate
    _profile: _Profile
    _allowed: float | None

    def predict(self, compute: float) -> Estimate:
        """The loss of one further run with ``compute`` FLOPs."""
        value = self.law(compute)
        if self._allowed is None:
            return Estimate(value, None, None)
        low, high = _accepted(self._profile, compute / self.law.reference, value, self._allowed)
        return Estimate(value, min(low, value), max(high, value))


def fit_law(compute: Sequence[float], losses: Sequence[Sequence[float]]) -> LawFit:
    """Fit the law to rungs.

    Args:
        compute: training FLOPs of a run of each rung, [rungs].
        losses: the losses of each rung's runs, one for each seed. A rung counts once, with their mean.

    Raises:
        ValueError: fewer than three rungs, two of equal compute, or a number that isn't finite and above 0.
    """
    _check(compute, losses)
    reference = float(np.exp(np.mean(np.log(compute))))
    x = np.asarray(compute, np.float64) / reference
    y = np.array([np.mean(runs) for runs in losses], np.float64)
    within = sum(float(np.sum((np.asarray(runs) / mean - 1) ** 2)) for runs, mean in zip(losses, y, strict=True))
    seeds, spare = sum(len(runs) - 1 for runs in losses), len(y) - UNKNOWNS
    low, high = EXPONENTS
    for _ in range(_ZOOMS):
        profile = _profile(x, y, np.geomspace(low, high, _GRID))
        squares = profile.constrained
        best = int(np.argmin(squares))
        least = max(0.0, float(squares[best]))
        sigma = _scatter(least, spare, within, seeds)
        degrees = seeds + spare
        allowed = least + (sigma * student(degrees)) ** 2 if sigma is not None else least
        inside = np.flatnonzero(squares <= allowed)
        first, last = (int(inside[0]), int(inside[-1])) if len(inside) else (best, best)
        if last - first >= _RESOLVED:
            break
        low, high = profile.exponents[max(0, first - 1)], profile.exponents[min(_GRID - 1, last + 1)]
        if high / low < 1 + 1e-9:
            break
    free = profile.floor[best] >= 0
    law = Law(
        floor=float(profile.floor[best]) if free else 0.0,
        scale=float(profile.scale[best] if free else profile.scale_alone[best]),
        exponent=float(profile.exponents[best]),
        reference=reference,
    )
    if sigma is None:
        none = (Estimate(law.exponent, None, None), Estimate(law.floor, None, None))
        return LawFit(law, None, 0, *none, profile, None)
    exponent = Estimate(law.exponent, float(profile.exponents[first]), float(profile.exponents[last]))
    return LawFit(law, sigma, degrees, exponent, _floor(profile, law.floor, allowed), profile, allowed)


def _check(compute: Sequence[float], losses: Sequence[Sequence[float]]) -> None:
    if len(compute) != len(losses) or len(compute) < UNKNOWNS:
        raise ValueError(f"a law of {UNKNOWNS} unknowns needs as many rungs, not {len(compute)} and {len(losses)}")
    numbers = [*compute, *(loss for runs in losses for loss in runs)]
    if not all(map(len, losses)) or not all(math.isfinite(number) and number > 0 for number in numbers):
        raise ValueError("compute and losses must be finite numbers above 0, and each rung needs one")
    if len(set(compute)) != len(compute):
        raise ValueError(f"two rungs of equal compute: {sorted(compute)}")


def _scatter(squares: float, spare: int, within: float, seeds: int) -> float | None:
    """The standard deviation of a run about the law, from all degrees of freedom there are; None where no rung is to
    spare: seeds alone tell how far runs of one rung differ, and not how far rungs lie from any law.

    Rungs may lie farther from the law than seeds of one rung from each other, as a shape or a learning rate suits one
    better than the next. Then theirs is the scatter that a further rung will have.
    """
    if not spare:
        return None
    return math.sqrt(max((squares + within) / (spare + seeds), squares / spare))


def _profile(x: Floats, y: Floats, exponents: Floats) -> _Profile:
    """Weighted least squares of y = E + A · x^-α with weights 1 / y², for every α at once."""
    u = 1 / y  # [n], the column of E
    v = x[None] ** -exponents[:, None] / y  # [K, n], the column of A
    uu, uv, vv, su, sv = (u * u).sum(), v @ u, (v * v).sum(1), u.sum(), v.sum(1)
    determinant = uu * vv - uv * uv
    floor = (vv * su - uv * sv) / determinant
    scale = (uu * sv - uv * su) / determinant
    residuals = 1 - floor[:, None] * u - scale[:, None] * v
    alone = sv / vv
    rest = 1 - alone[:, None] * v
    flat = scale < 0  # losses that rise: the best law that doesn't is level
    floor, scale = np.where(flat, su / uu, floor), np.where(flat, 0.0, scale)
    residuals = np.where(flat[:, None], 1 - floor[:, None] * u, residuals)
    return _Profile(
        exponents, floor, scale, vv / determinant, -uv / determinant, uu / determinant,
        (residuals**2).sum(1), alone, 1 / vv, (rest**2).sum(1),
    )  # fmt: skip


def _accepted(profile: _Profile, x: float, scale: float, allowed: float) -> tuple[float, float]:
    """The least and the greatest loss at ``x`` that, as a further rung, keeps the squares within ``allowed``.

    Errors of the new rung are relative to ``scale``. For each α the squares grow by (y - ŷ)² / (1 + leverage), whether
    E is free or 0; where E is free only losses count that leave it at 0 or above.
    """
    row_a = x**-profile.exponents / scale
    row_e = 1 / scale
    toward_e = profile.inverse_ee * row_e + profile.inverse_ea * row_a
    toward_a = profile.inverse_ea * row_e + profile.inverse_aa * row_a
    spread = 1 + row_e * toward_e + row_a * toward_a
    room = np.sqrt(np.maximum(0.0, allowed - profile.squares) * spread)
    centre = profile.floor * row_e + profile.scale * row_a
    with np.errstate(divide="ignore", invalid="ignore"):
        bound = centre - profile.floor * spread / toward_e  # here E would be 0
    low = np.where(toward_e > 0, np.maximum(centre - room, bound), centre - room)
    high = np.where(toward_e < 0, np.minimum(centre + room, bound), centre + room)
    possible = (profile.squares <= allowed) & (low <= high)
    lows, highs = [low[possible]], [high[possible]]

    alone = profile.squares_alone <= allowed
    middle = profile.scale_alone * row_a
    room = np.sqrt(np.maximum(0.0, allowed - profile.squares_alone) * (1 + row_a**2 * profile.inverse_alone))
    lows.append((middle - room)[alone])
    highs.append((middle + room)[alone])
    every_low, every_high = np.concatenate(lows), np.concatenate(highs)
    if not len(every_low):
        return scale, scale
    return max(0.0, scale * float(every_low.min())), scale * float(every_high.max())


def _floor(profile: _Profile, value: float, allowed: float) -> Estimate:
    """The floor with every value of at least 0 that keeps the squares within ``allowed``."""
    room = np.sqrt(np.maximum(0.0, allowed - profile.squares) * profile.inverse_ee)
    possible = (profile.squares <= allowed) & (profile.floor + room >= 0)
    low = max(0.0, float((profile.floor - room)[possible].min(initial=value)))
    return Estimate(value, low, float((profile.floor + room)[possible].max(initial=value)))


@lru_cache(maxsize=64)
def student(degrees: int, level: float = LEVEL) -> float:
    """The t below whose absolute value a share ``level`` of Student's distribution lies.

    By bisection of its distribution function for whole degrees of freedom (Abramowitz and Stegun 1964, 26.7.3 and
    26.7.4). Raises ValueError for less than one degree.
    """
    if degrees < 1:
        raise ValueError(f"Student's t with {degrees} degrees of freedom")

    def within(t: float) -> float:
        angle = math.atan(t / math.sqrt(degrees))
        odd = degrees % 2
        term, total = (math.cos(angle), 0.0) if odd else (1.0, 0.0)
        for number in range(2 if odd else 1, degrees, 2):
            total += term
            term *= math.cos(angle) ** 2 * number / (number + 1)
        if odd:
            return (angle + math.sin(angle) * total) * 2 / math.pi
        return math.sin(angle) * total

    low, high = 0.0, 1.0
    while within(high) < level:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if within(middle) < level else (low, middle)
    return (low + high) / 2


def fit_huber(compute: Sequence[float], losses: Sequence[float], delta: float = HUBER) -> Law:
    """The law with the least sum of Huber's losses, as in Hoffmann et al. 2022, appendix D.2, of relative errors.

    With δ of 0.1 % it is close to the least sum of absolute errors, which one bad rung hardly moves: a second opinion
    on the least-squares law. For each α the rest is linear, and found by least squares with weights min(1, δ / |r|) of
    the residuals r before (Holland and Welsch 1977).

    Args:
        compute, losses: of every run, [runs].
    """
    reference = float(np.exp(np.mean(np.log(compute))))
    x, y = np.asarray(compute, np.float64) / reference, np.asarray(losses, np.float64)
    exponents = np.geomspace(*EXPONENTS, _HUBER_GRID)
    for _ in range(3):
        floor, scale, costs = _reweighted(x, y, exponents, delta)
        best = int(np.argmin(costs))
        found = Law(float(floor[best]), float(scale[best]), float(exponents[best]), reference)
        low, high = exponents[max(0, best - 1)], exponents[min(_HUBER_GRID - 1, best + 1)]
        exponents = np.geomspace(low, high, _HUBER_GRID)
    return found


def _reweighted(x: Floats, y: Floats, exponents: Floats, delta: float) -> tuple[Floats, Floats, Floats]:
    """(E, A, sum of Huber's losses) of the best law of each α, [K]."""
    u, v = 1 / y, x[None] ** -exponents[:, None] / y  # [n], [K, n]
    weights = np.ones_like(v)
    for _ in range(_REWEIGHTINGS):
        uu, uv, vv = (weights * u * u).sum(1), (weights * u * v).sum(1), (weights * v * v).sum(1)
        su, sv = (weights * u).sum(1), (weights * v).sum(1)
        determinant = np.maximum(uu * vv - uv * uv, np.finfo(np.float64).tiny)
        floor = (vv * su - uv * sv) / determinant
        scale = np.where(floor < 0, sv / vv, (uu * sv - uv * su) / determinant)
        floor = np.maximum(floor, 0.0)
        residuals = np.abs(1 - floor[:, None] * u - scale[:, None] * v)
        weights = delta / np.maximum(residuals, delta)
    costs = np.where(residuals <= delta, residuals**2 / 2, delta * (residuals - delta / 2)).sum(1)
    return floor, scale, costs

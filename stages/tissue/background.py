"""The glass, or the dark, behind what a slide shows: a smooth surface through the pixels that show nothing else."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stages.tissue.strips import by_strips, places

Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]
Image = NDArray[np.uint8] | Floats


def _basis(u: NDArray[np.float64], v: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Quadratic polynomials in coordinates on [-1, 1]."""
    return [np.ones_like(u), u, v, u * u, u * v, v * v]


def _axis(length: int) -> NDArray[np.float64]:
    return (2 * np.arange(length) + 1) / length - 1


Place = tuple[NDArray[np.int64], NDArray[np.int64]]


def _points(members: Mask, most: int = 20_000) -> tuple[Place, NDArray[np.float64]]:
    """Rows and columns (N,) of some members, and the polynomial terms (N, T) there that the members support.

    Few members cannot tell a gradient from tissue: through them goes a plane, T = 3, or a constant, T = 1.
    """
    count = int(np.count_nonzero(members))
    share = count / members.size if members.size >= 400 else 0.0
    terms = 6 if share > 0.2 else 3 if share > 0.03 else 1

    rows, columns = places(max(1, count // most), members)
    basis = _basis(_axis(members.shape[1])[columns], _axis(members.shape[0])[rows])
    return (rows, columns), np.stack(basis[:terms], axis=1)


def _solve(basis: NDArray[np.float64], y: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    weighted = basis * weights[:, None]
    # the ridge only keeps members on one line from being singular
    normal = weighted.T @ basis + 1e-9 * np.eye(basis.shape[1])
    return np.asarray(np.linalg.solve(normal, weighted.T @ y), np.float64)


def brightest(values: Image, seeds: Mask) -> Mask:
    """The seeds that lie on the brightest smooth surface through them.

    An expectile fit (weight 0.95 above, 0.05 below) finds the upper envelope even where faint tissue outnumbers the
    glass; then fits to what lies within three noise deviations settle on the surface itself.
    """
    place, basis = _points(seeds)
    y = values[place].astype(np.float64)
    weights, spread = np.ones(len(y)), 1.0
    coefficients = _solve(basis, y, weights)
    step = 0
    while step < 30:
        residual, before = y - basis @ coefficients, weights
        if step < 20:
            weights = np.where(residual > 0, 0.95, 0.05)
        else:
            above = residual[residual > 0]
            spread = max(1.0, 1.4826 * float(np.median(above)) if len(above) else 0.0)
            weights = (np.abs(residual) < 3 * spread).astype(np.float64)
        if weights.sum() < basis.shape[1]:
            break
        if np.array_equal(weights, before):  # and so would the other steps of this kind find them
            step = 20 if step < 20 else 30
            continue
        coefficients = _solve(basis, y, weights)
        step += 1

    def settled(rows: slice) -> Mask:
        away = values[rows] - _evaluate(coefficients, seeds.shape, rows)
        return np.asarray(seeds[rows] & (np.abs(away, out=away) < 3 * spread))

    members = by_strips(settled, seeds.shape)
    return members if members.any() else seeds


@dataclass(frozen=True, slots=True)
class Surface:
    """A polynomial of degree two over an image, of any number of pixels.

    Attributes:
        coefficients: of 1, u, v, u², uv, v², with u along x and v along y from -1 to 1; trailing ones may be missing.
        least, most: the values that it keeps to.
    """

    coefficients: NDArray[np.float64]
    least: float
    most: float

    def at(self, shape: tuple[int, int], rows: slice = slice(None), columns: slice = slice(None)) -> Floats:
        """Its values at the middles of so many pixels (H, W), or of those in some ``rows`` and ``columns``."""
        if len(self.coefficients) == 1:
            cut = len(range(shape[0])[rows]), len(range(shape[1])[columns])
            values = np.full(cut, self.coefficients[0], np.float32)
        else:
            values = _evaluate(self.coefficients, shape, rows, columns)
        return np.clip(values, self.least, self.most, out=values)


def through(values: Image, members: Mask) -> Surface:
    """The smooth surface through an image's members, never beyond the values that they take."""
    place, basis = _points(members)
    y = values[place].astype(np.float64)
    return Surface(_solve(basis, y, np.ones(len(y))), *(float(p) for p in np.percentile(y, [1, 99])))


def _evaluate(
    coefficients: NDArray[np.float64], shape: tuple[int, int], rows: slice, columns: slice = slice(None)
) -> Floats:
    u, v = _axis(shape[1])[None, columns], _axis(shape[0])[rows, None]
    of = np.zeros(6)
    of[: len(coefficients)] = coefficients
    along = (of[0] + of[1] * u + of[3] * u * u).astype(np.float32)
    down = (of[2] * v + of[5] * v * v).astype(np.float32)
    values: Floats = along + down
    if of[4]:
        values += (of[4] * v).astype(np.float32) * u.astype(np.float32)
    return values

"""Where everything on a made-up slide lies: pieces of tissue on a bright field, and the suspects inside them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

CLASSES = ("normal", "tumour")
Kind = Literal["spots", "hidden"]
"""How lesions hide: among three large blobs that a thumbnail shows, or among many small spots that it does not."""
MPP = 0.5
"""Micrometres per pixel of level 0."""
COARSE = 32
"""Level-0 pixels between neighbouring samples of a coarse field; sample ``i`` lies at ``(i - 1) * COARSE``."""

Field = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Blob:
    """A star-shaped region: ``rho(theta) = radius * (1 + sum_k amplitude_k cos(k theta + phase_k))``, pixels."""

    x: float
    y: float
    radius: float
    amplitudes: tuple[float, ...]
    phases: tuple[float, ...]

    def rim(self, theta: NDArray[np.floating]) -> NDArray[np.floating]:
        """Distance from the centre to the outline in direction ``theta`` (radians)."""
        rho = np.ones_like(theta)
        for k, (amplitude, phase) in enumerate(zip(self.amplitudes, self.phases, strict=True), 2):
            rho += amplitude * np.cos(k * theta + phase)
        return rho * self.radius

    def depth(self, x: NDArray[np.floating], y: NDArray[np.floating]) -> NDArray[np.floating]:
        """Pixels from a point to the outline along its ray; positive inside."""
        dx, dy = x - self.x, y - self.y
        return np.asarray(self.rim(np.arctan2(dy, dx)) - np.hypot(dx, dy))

    @property
    def reach(self) -> float:
        """No point of the blob is farther than this from its centre."""
        return self.radius * (1 + sum(map(abs, self.amplitudes)))

    @property
    def area(self) -> float:
        """Level-0 pixels inside; exact, since ``1/2 * integral of rho^2`` of a cosine series is a sum of squares."""
        return math.pi * self.radius**2 * (1 + sum(a * a for a in self.amplitudes) / 2)

    def outline(self, points: int = 96) -> NDArray[np.float64]:
        """The outline as a closed polygon (points + 1, 2) of level-0 pixel-edge coordinates."""
        theta = np.linspace(0, 2 * np.pi, points + 1)
        rho = self.rim(theta)
        return np.stack([self.x + rho * np.cos(theta), self.y + rho * np.sin(theta)], axis=1)


@dataclass(frozen=True, slots=True)
class Scene:
    """Where everything on one slide lies; `painting.render` turns it into pixels.

    Attributes:
        name, label: file stem, and one of `CLASSES`.
        seed: entropy of everything random in the pixels.
        width, height: level-0 pixels.
        depth: distance into the tissue in level-0 pixels, negative outside; a coarse field (rows, cols), see `COARSE`.
        suspects: regions that look alike until one looks closely: lesions and decoys.
        kind: how lesions hide.
    """

    name: str
    label: str
    seed: tuple[int, ...]
    width: int
    height: int
    depth: Field
    suspects: tuple[Blob, ...]
    kind: Kind = "spots"

    @property
    def lesions(self) -> tuple[Blob, ...]:
        """What makes the slide positive: the first of the large blobs, or the first half of the hidden spots."""
        if self.label != CLASSES[1]:
            return ()
        return self.suspects[: 1 if self.kind == "spots" else len(self.suspects) // 2]

    @property
    def tissue_area(self) -> float:
        """Level-0 pixels of tissue."""
        return _tissue_area(self.depth)


def make_scene(seed: int, index: int, *, label: str, size: int = 4096, kind: Kind = "spots") -> Scene:
    """Lay out slide ``index`` of cohort ``seed``; the label decides nothing but whether suspects are lesions."""
    place = {"spots": _place_blobs, "hidden": _place_hidden}[kind]
    entropy = (seed, index)
    rng = np.random.default_rng(entropy)
    width, height = (int(size + 2 * rng.integers(0, size // 32) + 1) for _ in range(2))
    for _ in range(1000):
        depth = _tissue_depth(rng, width, height)
        suspects = place(rng, depth, width, height)
        if suspects:
            return Scene(f"slide-{index:03d}", label, entropy, width, height, depth, suspects, kind)
    raise RuntimeError(f"no layout found for slide {index} of seed {seed}; use a larger size than {size}")


def _random_blob(rng: np.random.Generator, x: float, y: float, radius: float, roughness: float) -> Blob:
    order = np.arange(2, 6)
    amplitudes = rng.normal(0, roughness, order.size) * 2 / order
    return Blob(x, y, radius, tuple(map(float, amplitudes)), tuple(map(float, rng.uniform(0, 2 * np.pi, order.size))))


def _tissue_area(depth: Field) -> float:
    return float(np.count_nonzero(depth > 0)) * COARSE**2


def _coarse_grid(width: int, height: int) -> tuple[Field, Field]:
    """Level-0 x (1, cols) and y (rows, 1) of the coarse samples, with the margin that cubic interpolation needs."""
    x, y = (np.arange(-1, -(-n // COARSE) + 2, dtype=np.float32) * COARSE for n in (width, height))
    return x[None, :], y[:, None]


def _tissue_depth(rng: np.random.Generator, width: int, height: int) -> Field:
    """Coarse distance field of one to three pieces that cover 25-45 % of the slide."""
    x, y = _coarse_grid(width, height)
    target = rng.uniform(0.27, 0.43)
    count = int(rng.integers(1, 4))
    centres = rng.uniform(0.3, 0.7, (count, 2)) * (width, height)
    radii = rng.uniform(0.2, 0.4, count) * min(width, height)
    pieces = [_random_blob(rng, cx, cy, radius, 0.15) for (cx, cy), radius in zip(centres, radii, strict=True)]
    depth = np.max([piece.depth(x, y) for piece in pieces], axis=0)
    margin = np.minimum(np.minimum(x, width - x), np.minimum(y, height - y)) - 2 * COARSE
    return np.asarray(np.minimum(depth - np.quantile(depth, 1 - target), margin), np.float32)


def _place_blobs(rng: np.random.Generator, depth: Field, width: int, height: int) -> tuple[Blob, ...]:
    """Three blobs of 1.8-2.6 % of the tissue each; empty where they found no room."""
    areas = rng.uniform(0.018, 0.026, 3) * _tissue_area(depth)
    blobs = _place(rng, depth, width, height, areas, gap=4 * COARSE)
    return blobs if len(blobs) == 3 else ()


def _place_hidden(rng: np.random.Generator, depth: Field, width: int, height: int) -> tuple[Blob, ...]:
    """Sixteen spots 70-100 um across and 100 um apart, or as many pairs of them as found room."""
    areas = np.pi / 4 * (rng.uniform(70, 100, 16) / MPP) ** 2
    spots = _place(rng, depth, width, height, areas, gap=100 / MPP)
    return spots[: len(spots) // 2 * 2]


def _place(
    rng: np.random.Generator, depth: Field, width: int, height: int, areas: NDArray[np.floating], *, gap: float
) -> tuple[Blob, ...]:
    """Blobs of these areas inside the tissue, ``gap`` level-0 pixels apart; fewer where one found no room."""
    x, y = _coarse_grid(width, height)
    inside = ndimage.distance_transform_edt(depth > 0) * COARSE
    placed: list[Blob] = []
    for area in areas:
        blob = _random_blob(rng, 0, 0, 1.0, 0.12)
        blob = _moved(blob, 0, 0, math.sqrt(area / blob.area))
        room = inside > blob.reach + COARSE
        for other in placed:
            room &= np.hypot(x - other.x, y - other.y) > blob.reach + other.reach + gap
        spots = np.flatnonzero(room)
        if spots.size == 0:
            break
        row, col = divmod(int(rng.choice(spots)), depth.shape[1])
        placed.append(_moved(blob, float(x[0, col]), float(y[row, 0]), blob.radius))
    return tuple(placed)


def _moved(blob: Blob, x: float, y: float, radius: float) -> Blob:
    return Blob(x, y, radius, blob.amplitudes, blob.phases)

"""What a mosaic slide shows: where tissue and lesion lie, which tile stands where, how it is stained and scanned.

Nothing but the lesion depends on the label: shape, stain, scanner and every tile outside the lesion are drawn alike.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.color import hed_from_rgb, rgb_from_hed

from benchmarks.mosaics.stains import Stain
from benchmarks.mosaics.tiles import TilesError, TileStock

Grid = NDArray[np.int64]

FIELD_CELLS = 8
"""Along a tile: cells of the field whose sign is the outline of tissue."""
TISSUE_SHARES = (0.5, 0.7)
"""Of a slide."""
SMALLEST_BLOB = 6
"""Tiles; smaller pieces of tissue and smaller holes are left out."""
TWO_LESIONS = 0.25
"""Chance that a lesion lies in two places."""
FEWEST_FOR_TWO = 16
"""Tiles of a lesion that may lie in two places."""
_EDGE_ROUGHNESS = 0.25
_LESION_ROUGHNESS = 0.6


@dataclass(frozen=True, slots=True)
class Site:
    """A laboratory and its scanner: what its slides vary around."""

    strengths: NDArray[np.float64]
    vectors: NDArray[np.float64]
    glass: NDArray[np.float64]
    quality: int
    blur_px: float


@dataclass(frozen=True, slots=True)
class Appearance:
    """How one slide is stained and scanned.

    Attributes:
        stain: from the common stain to the slide's.
        glass: mean (3,) RGB of a pixel without tissue.
        blur_px: standard deviation.
        quality: of the JPEGs.
    """

    stain: Stain
    glass: NDArray[np.float64]
    blur_px: float
    quality: int


@dataclass(frozen=True, slots=True)
class Scene:
    """One slide's plan over its grid of tiles (rows, columns).

    Attributes:
        field: (8 rows, 8 columns) float32, positive on tissue; its zero is the outline.
        lesion: bool, where tiles are positive.
        image: number in the stock, -1 on glass.
        corner: (rows, columns, 2): top left pixel (y, x) in the image.
        way: of the eight positions of a tile.
    """

    field: NDArray[np.float32]
    lesion: NDArray[np.bool_]
    image: Grid
    corner: Grid
    way: Grid

    @property
    def tissue(self) -> NDArray[np.float64]:
        """Share of each tile that is tissue."""
        rows, columns = self.image.shape
        cells = (self.field > 0).reshape(rows, FIELD_CELLS, columns, FIELD_CELLS)
        return np.asarray(cells.mean((1, 3)))


def draw_sites(count: int, rng: np.random.Generator) -> list[Site]:
    return [
        Site(
            strengths=rng.normal(0, (0.15, 0.15, 0.05)),
            vectors=rng.normal(0, 0.04, (3, 3)),
            glass=rng.uniform(236, 246) + rng.normal(0, 1.2, 3),
            quality=int(rng.integers(66, 80)),
            blur_px=float(rng.uniform(0.2, 0.6)),
        )
        for _ in range(count)
    ]


def draw_appearance(site: Site, rng: np.random.Generator) -> Appearance:
    """A slide's stain and scan around its site's."""
    strengths = np.exp(site.strengths + rng.normal(0, (0.1, 0.1, 0.05)))
    rows = rgb_from_hed + site.vectors * np.abs(rgb_from_hed).max() + rng.normal(0, 0.015, (3, 3))
    gain = float(np.exp(rng.normal(0, 0.015)))
    matrix = hed_from_rgb @ np.diag(strengths) @ rows
    return Appearance(
        stain=Stain(matrix.astype(np.float32), np.full(3, -np.log(gain), np.float32)),
        glass=np.minimum(site.glass * gain, 252),
        blur_px=float(np.clip(site.blur_px + rng.normal(0, 0.15), 0, 1)),
        quality=int(np.clip(site.quality + rng.integers(-3, 4), 60, 95)),
    )


def draw_scene(stock: TileStock, pool: str, *, side: int, lesion: float, rng: np.random.Generator) -> Scene:
    """A plan of ``side x side`` tiles from one pool; ``lesion`` is its share of the tissue, 0 in a negative slide.

    Raises:
        TilesError: the lesion does not fit.
    """
    field = draw_tissue(side, rng)
    cells = field.reshape(side, FIELD_CELLS, side, FIELD_CELLS)
    some, whole = cells.max((1, 3)) > 0, cells.min((1, 3)) > 0
    count = round(lesion * float((field > 0).sum()) / FIELD_CELLS**2)
    grown = grow_lesion(whole, max(1, count), rng) if lesion else np.zeros((side, side), np.bool_)
    image = np.full((side, side), -1, np.int64)
    corner = np.zeros((side, side, 2), np.int64)
    for label in (0, 1):
        members = stock.members(pool, label)
        for y, x in np.argwhere(some & (grown == bool(label))):
            image[y, x] = rng.choice(members)
            corner[y, x] = rng.choice(stock.corners[image[y, x]])
    return Scene(field, grown, image, corner, rng.integers(8, size=(side, side)))


def draw_tissue(side: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """A field over ``8 side x 8 side`` cells that is positive on one or several blobs, never at the slide's edge."""
    n = side * FIELD_CELLS
    y, x = np.meshgrid(*2 * (np.linspace(-1, 1, n),), indexing="ij")
    centre = rng.uniform(-0.08, 0.08, 2)
    smooth = _noise(n, n / 9, rng) + _EDGE_ROUGHNESS * _noise(n, n / 40, rng)
    field = 1.4 * smooth - 2 * np.hypot(y - centre[0], x - centre[1]) ** 4 - 4 * np.maximum(np.abs(y), np.abs(x)) ** 12
    field -= np.quantile(field, 1 - rng.uniform(*TISSUE_SHARES))
    edge = max(2, FIELD_CELLS // 2)
    rim = np.ones((n, n), np.bool_)
    rim[edge:-edge, edge:-edge] = False
    field[rim] = -np.abs(field[rim])
    for sign in (1, -1):
        parts, count = ndimage.label(sign * field > 0)
        sizes = ndimage.sum_labels(np.ones_like(field), parts, np.arange(count + 1))
        small = (sizes < SMALLEST_BLOB * FIELD_CELLS**2) & (sizes < sizes[1:].max())
        small[0] = False
        field[small[parts]] *= -1
    return np.asarray(field, np.float32)


def grow_lesion(whole: NDArray[np.bool_], count: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """So many tiles (rows, columns) within ``whole``, contiguous and irregular, sometimes in two places.

    Raises:
        TilesError: there are fewer.
    """
    if count > whole.sum():
        raise TilesError(
            f"a lesion of {count} tiles does not fit into {whole.sum()} tiles that are tissue alone: "
            "ask for a smaller --lesion or a larger --side"
        )
    two = count >= FEWEST_FOR_TWO and rng.random() < TWO_LESIONS
    targets = [round(count * rng.uniform(0.5, 0.8)), count] if two else [count]
    roughness = rng.normal(0, 1, whole.shape)
    lesion = np.zeros(whole.shape, np.bool_)
    for target in targets:
        while lesion.sum() < target:  # more than once where a piece of tissue is full
            free = whole & ~ndimage.binary_dilation(lesion, iterations=2)
            places = np.argwhere(free if free.any() else whole & ~lesion)
            _grow(lesion, whole, target, rng.choice(places), roughness)
    return lesion


def _grow(
    lesion: NDArray[np.bool_], whole: NDArray[np.bool_], target: int, seed: Grid, roughness: NDArray[np.float64]
) -> None:
    """Add the tile that is next to the lesion and nearest the seed, up to roughness, until ``target`` or no room."""
    queue = [(0.0, int(seed[0]), int(seed[1]))]
    met = {queue[0][1:]}
    missing = target - int(lesion.sum())
    while queue and missing:
        _, y, x = heapq.heappop(queue)
        missing -= not lesion[y, x]
        lesion[y, x] = True
        for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            inside = 0 <= v < whole.shape[0] and 0 <= u < whole.shape[1]
            if inside and whole[v, u] and (v, u) not in met:
                met.add((v, u))
                distance = float(np.hypot(v - seed[0], u - seed[1]))
                heapq.heappush(queue, (distance + _LESION_ROUGHNESS * float(roughness[v, u]) * distance**0.5, v, u))


def _noise(n: int, sigma: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Smooth noise of unit spread (n, n)."""
    coarse = max(1, int(sigma / 3))  # drawn where it is smooth already: a wide filter is slow
    m = n // coarse + 2
    found = ndimage.gaussian_filter(rng.normal(size=(m, m)), sigma / coarse)
    found = ndimage.zoom(found, n / m, order=1)[:n, :n]
    return np.asarray((found - found.mean()) / found.std())

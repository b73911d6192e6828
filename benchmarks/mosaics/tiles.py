"""Labelled images as a stock of stain-matched tiles: where tiles may be cut, which pool an image is in, its stain.

Neither colour nor contrast may tell the classes. So each source is brought to the same mean and covariance of optical
density, over what its tiles show, by the affine map of least displacement between two normal distributions (Pitié &
Kokaram, "The linear Monge-Kantorovitch linear colour mapping for example-based colour transfer", CVMP 2007), and then
to the same contrast in what is coarser than a nucleus and in what is finer. What forms tell stays.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.linalg import sqrtm
from scipy.ndimage import gaussian_filter

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]
Moments = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Mean (3,) and covariance (3, 3) of optical densities."""

DENSITIES = np.log(256 / (np.arange(256) + 1)).astype(np.float32)
"""Optical density of each grey level."""
GLASS_DENSITY = 0.08
"""Mean optical density below which a pixel shows glass."""
TISSUE_SHARE = 0.5
"""Of a tile, at the least."""
COARSE_PX = 8.0
"""Standard deviation of the Gaussian that parts coarse from fine structure: 4 µm at 0.5 µm/px, about a nucleus."""
STEP_PX = 12
"""Between neighbouring places where a tile may be cut."""
POOLS = ("train", "test")
_KEPT_IMAGES = 256
_LEAST_VARIANCE = 1e-6
_COLUMNS = ("tile", "label")


class TilesError(ValueError):
    """Labelled tiles that no cohort can be made of."""


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """A picture whose every tile has its label.

    Attributes:
        path: an image file, or an array (height, width, 3) uint8 as ``.npy``.
        label: 1 for the class that lesions are made of, 0 for other tissue.
        source: what it was cut from (a slide, a patient); pools share none.
    """

    path: Path
    label: int
    source: str


@dataclass(frozen=True, slots=True)
class Stain:
    """An affine map of optical densities, row vectors: ``d @ matrix + shift``."""

    matrix: Floats
    shift: Floats

    def of(self, densities: Floats) -> Floats:
        """Densities (..., 3) with that stain."""
        found = densities.reshape(-1, 3) @ self.matrix + self.shift
        return np.asarray(found.reshape(densities.shape), np.float32)

    def __call__(self, pixels: Pixels) -> Pixels:
        """Pixels (..., 3) with that stain."""
        return as_pixels(self.of(DENSITIES[pixels]))


@dataclass(frozen=True, slots=True)
class Match:
    """What brings a source to the common stain and contrast.

    Attributes:
        stain: to the common mean and covariance.
        mean: (3,), the common one, around which contrast is changed.
        fine, coarse: factors of contrast.
    """

    stain: Stain
    mean: Floats
    fine: float
    coarse: float

    def __call__(self, pixels: Pixels) -> Pixels:
        """Pixels (H, W, 3) of a whole image as the common stain and contrast show it."""
        fine, coarse = parted(self.stain.of(DENSITIES[pixels]))
        return as_pixels(self.mean + self.coarse * (coarse - self.mean) + self.fine * fine)


@dataclass(frozen=True, eq=False)
class TileStock:
    """Tiles that may be cut, by pool and label.

    Attributes:
        images: that hold at least one tile with enough tissue.
        corners: of each image, (n, 2): top left pixels (y, x) of the tiles that may be cut.
        matches: of each image: what brings its source to the common stain and contrast.
        pools: of each image, of `POOLS`.
        tile_px: side of a tile.
        dropped: names of images without such a tile.
    """

    images: tuple[LabelledImage, ...]
    corners: tuple[NDArray[np.int64], ...]
    matches: tuple[Match, ...]
    pools: tuple[str, ...]
    tile_px: int
    dropped: tuple[str, ...]

    def members(self, pool: str, label: int) -> NDArray[np.int64]:
        """Numbers of a pool's images of one class."""
        found = [i for i, image in enumerate(self.images) if self.pools[i] == pool and image.label == label]
        return np.asarray(found, np.int64)

    def matched(self, image: int) -> Pixels:
        """A whole image (H, W, 3) with the common stain and contrast."""
        return _matched(self, image)

    def tile(self, image: int, rng: np.random.Generator) -> Pixels:
        """A random tile of an image (tile_px, tile_px, 3), with the common stain and contrast."""
        y, x = rng.choice(self.corners[image])
        return self.matched(image)[y : y + self.tile_px, x : x + self.tile_px]


def crchistophenotypes(data: Path) -> list[LabelledImage]:
    """The colon-cancer images (Sirinukunwattana et al. 2016), each a source; positive with an epithelial nucleus.

    Raises:
        TilesError: they are not there.
    """
    root = data / "crchistophenotypes"
    if not (root / "labels.csv").is_file():
        raise TilesError(
            f"no colon-cancer set at {root}: set SACCADE_DATA to the folder that holds it, or give --tiles"
        )
    with (root / "labels.csv").open(newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: int(row["image"].removeprefix("img")))
    folder = root / "CRCHistoPhenotypes_2016_04_28"
    return [
        LabelledImage(folder / row["image"] / f"{row['image']}.bmp", int(row["label_epithelial"]), row["image"])
        for row in rows
    ]


def labelled_tiles(folder: Path, table: Path) -> list[LabelledImage]:
    """Images named by a table's columns ``tile`` (a path in the folder), ``label`` (0 or 1) and, where several images
    are of one slide or patient, ``source``.

    Raises:
        TilesError: a column, a label or an image is not as said.
    """
    with table.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    lacking = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
    if lacking:
        raise TilesError(f"{table} has no column {lacking[0]!r}: it needs {', '.join(_COLUMNS)} and may have source")
    found = []
    for number, row in enumerate(rows, 2):
        path = folder / row["tile"]
        if row["label"] not in ("0", "1"):
            raise TilesError(f"{table}, line {number}: label {row['label']!r} is neither 0 nor 1")
        if not path.is_file():
            raise TilesError(f"{table}, line {number}: no file {path}")
        found.append(LabelledImage(path, int(row["label"]), row.get("source") or row["tile"]))
    return found


@lru_cache(_KEPT_IMAGES)
def read_image(path: Path) -> Pixels:
    """Pixels (height, width, 3) of an image file or an array."""
    if path.suffix != ".npy":
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB")).copy()
    array: Pixels = np.load(path)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise TilesError(f"{path} holds {array.dtype} of shape {array.shape}, not uint8 (height, width, 3)")
    return array


def make_stock(images: Sequence[LabelledImage], *, tile_px: int, seed: int) -> TileStock:
    """Where to cut tiles, how to stain them alike, and two pools that share no source.

    Raises:
        TilesError: a pool would lack a class.
    """
    kept, corners, dropped = [], [], []
    for image in images:
        found = tile_corners(DENSITIES[read_image(image.path)], tile_px)
        if len(found):
            kept.append(image)
            corners.append(found)
        else:
            dropped.append(image.path.name)
    pools = deal_sources(kept, seed=seed)
    matches = match_sources(kept, corners, tile_px)
    return TileStock(
        tuple(kept),
        tuple(corners),
        tuple(matches[image.source] for image in kept),
        tuple(pools[image.source] for image in kept),
        tile_px,
        tuple(dropped),
    )


def match_sources(
    images: Sequence[LabelledImage], corners: Sequence[NDArray[np.int64]], tile_px: int
) -> dict[str, Match]:
    """Of each source, what brings its tiles to the mean source.

    The map of densities is ``C^-1/2 (C^1/2 R C^1/2)^1/2 C^-1/2`` for covariances C and R; contrast is the root of the
    trace of the covariance, and the common one a geometric mean.
    """
    found: dict[str, list[Moments]] = defaultdict(list)
    for image, places in zip(images, corners, strict=True):
        found[image.source].append(moments(DENSITIES[read_image(image.path)], places, tile_px))
    own = {source: pooled(parts) for source, parts in found.items()}
    mean, target = (np.mean([part[i] for part in own.values()], 0) for i in (0, 1))
    stains = {source: _transport(part, (mean, target)) for source, part in own.items()}
    contrasts: dict[str, list[NDArray[np.float64]]] = defaultdict(list)
    for image, places in zip(images, corners, strict=True):
        parts = parted(stains[image.source].of(DENSITIES[read_image(image.path)]))
        contrasts[image.source].append(np.array([np.trace(moments(part, places, tile_px)[1]) for part in parts]))
    logs = {source: np.log(np.mean(found, 0)) / 2 for source, found in contrasts.items()}
    common = np.mean(list(logs.values()), 0)
    return {
        source: Match(stains[source], mean.astype(np.float32), *(float(v) for v in np.exp(common - log)))
        for source, log in logs.items()
    }


def tile_corners(densities: Floats, tile_px: int) -> NDArray[np.int64]:
    """Top left pixels (n, 2) of the tiles that are at least `TISSUE_SHARE` tissue, of densities (height, width, 3)."""
    height, width = densities.shape[:2]
    if min(height, width) < tile_px:
        return np.empty((0, 2), np.int64)
    tissue = np.zeros((height + 1, width + 1))
    tissue[1:, 1:] = (densities.mean(-1) > GLASS_DENSITY).cumsum(0).cumsum(1)
    ys, xs = (np.arange(0, side - tile_px + 1, STEP_PX) for side in (height, width))
    y, x = (grid.ravel() for grid in np.meshgrid(ys, xs, indexing="ij"))
    inside = tissue[y + tile_px, x + tile_px] - tissue[y, x + tile_px] - tissue[y + tile_px, x] + tissue[y, x]
    return np.stack([y, x], -1)[inside >= TISSUE_SHARE * tile_px**2]


def deal_sources(images: Sequence[LabelledImage], *, seed: int) -> dict[str, str]:
    """The pool of each source: those with the same classes are dealt evenly, in random order."""
    classes: dict[str, set[int]] = defaultdict(set)
    for image in images:
        classes[image.source].add(image.label)
    rng = np.random.default_rng(seed)
    pools: dict[str, str] = {}
    dealt = 0
    for pattern in ({0}, {1}, {0, 1}):
        alike = sorted(source for source, found in classes.items() if found == pattern)
        for i in rng.permutation(len(alike)):
            pools[alike[i]] = POOLS[dealt % 2]
            dealt += 1
    for pool in POOLS:
        held = {image.label for image in images if pools[image.source] == pool}
        if held != {0, 1}:
            raise TilesError(
                f"the {pool} pool would have no tile with label {min({0, 1} - held)}: each class needs tissue from "
                "at least two sources"
            )
    return pools


def parted(densities: Floats) -> tuple[Floats, Floats]:
    """Fine and coarse structure (H, W, 3), which add up to the densities."""
    coarse = gaussian_filter(densities, (COARSE_PX, COARSE_PX, 0))
    return densities - coarse, coarse


def as_pixels(densities: Floats) -> Pixels:
    return np.asarray(np.rint(256 * np.exp(-densities) - 1).clip(0, 255), np.uint8)


def moments(densities: Floats, corners: NDArray[np.int64], tile_px: int) -> Moments:
    """Mean (3,) and covariance (3, 3) of a random tile's pixels."""
    height, width = densities.shape[:2]
    steps = np.zeros((height + 1, width + 1))  # a pixel counts once for each tile that shows it
    y, x = corners.T
    for sign, down, right in ((1, 0, 0), (-1, tile_px, 0), (-1, 0, tile_px), (1, tile_px, tile_px)):
        np.add.at(steps, (y + down, x + right), sign)
    weights = steps.cumsum(0).cumsum(1)[:height, :width].reshape(-1)
    flat = densities.reshape(-1, 3).astype(np.float64)
    mean = weights @ flat / weights.sum()
    centred = flat - mean
    return mean, (centred * weights[:, None]).T @ centred / weights.sum()


def pooled(parts: Sequence[Moments]) -> Moments:
    """Of one source's images, each with the same weight."""
    means, covariances = (np.stack(part) for part in zip(*parts, strict=True))
    spread = means - means.mean(0)
    return means.mean(0), covariances.mean(0) + spread.T @ spread / len(means)


def _transport(own: Moments, common: Moments) -> Stain:
    root = np.real(sqrtm(own[1] + _LEAST_VARIANCE * np.eye(3)))
    back = np.linalg.inv(root)
    matrix = back @ np.real(sqrtm(root @ common[1] @ root)) @ back
    return Stain(matrix.astype(np.float32), (common[0] - own[0] @ matrix).astype(np.float32))


@lru_cache(_KEPT_IMAGES)
def _matched(stock: TileStock, image: int) -> Pixels:
    return stock.matches[image](read_image(stock.images[image].path))

"""Labelled images as a stock of tiles: where tiles may be cut, which pool an image is in, what matches its source.

Pools share no source. Tiles of every source are brought to one stain and contrast (`stains`), so that neither tells the
classes.
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

from benchmarks.mosaics.stains import DENSITIES, Floats, Match, Moments, Pixels, moments, parted, pooled, transport

GLASS_DENSITY = 0.08
"""Mean optical density below which a pixel shows glass."""
TISSUE_SHARE = 0.5
"""Of a tile, at the least."""
STEP_PX = 12
"""Between neighbouring places where a tile may be cut."""
POOLS = ("train", "test")
_KEPT_IMAGES = 256
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

    def tile(self, image: int, corner: NDArray[np.int64]) -> Pixels:
        """The tile (tile_px, tile_px, 3) of a matched image with its top left pixel (y, x)."""
        y, x = corner
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
    """Pixels (height, width, 3) of an image file or an array.

    Raises:
        TilesError: it is none.
    """
    if path.suffix != ".npy":
        try:
            with Image.open(path) as image:
                return np.asarray(image.convert("RGB")).copy()
        except OSError as exc:
            raise TilesError(f"{path} cannot be read as a picture: {exc}") from exc
    array: Pixels = np.load(path)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise TilesError(f"{path} holds {array.dtype} of shape {array.shape}, not uint8 (height, width, 3)")
    return array


def make_stock(images: Sequence[LabelledImage], *, tile_px: int, seed: int, stain_only: bool = False) -> TileStock:
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
    matches = match_sources(kept, corners, tile_px, stain_only=stain_only)
    return TileStock(
        tuple(kept),
        tuple(corners),
        tuple(matches[image.source] for image in kept),
        tuple(pools[image.source] for image in kept),
        tile_px,
        tuple(dropped),
    )


def match_sources(
    images: Sequence[LabelledImage], corners: Sequence[NDArray[np.int64]], tile_px: int, *, stain_only: bool
) -> dict[str, Match]:
    """Of each source, what brings its tiles to the mean source.

    Contrast is the root of the trace of the covariance of densities, and the common one a geometric mean.
    """
    found: dict[str, list[Moments]] = defaultdict(list)
    for image, places in zip(images, corners, strict=True):
        found[image.source].append(moments(DENSITIES[read_image(image.path)], places, tile_px))
    own = {source: pooled(parts) for source, parts in found.items()}
    mean, target = (np.mean([part[i] for part in own.values()], 0) for i in (0, 1))
    stains = {source: transport(part, (mean, target)) for source, part in own.items()}
    if stain_only:
        return {source: Match(stain, mean.astype(np.float32), 1.0, 1.0) for source, stain in stains.items()}
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
    corners = np.stack([y, x], -1)
    return np.asarray(corners[inside >= TISSUE_SHARE * tile_px**2])


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


@lru_cache(_KEPT_IMAGES)
def _matched(stock: TileStock, image: int) -> Pixels:
    return stock.matches[image](read_image(stock.images[image].path))

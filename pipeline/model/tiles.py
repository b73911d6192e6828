"""The tiles of a bag as the cells of a slide that a model reads: where they lie, what they cost, their features."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.model.spec import ModelSpec
from stages.bags.bag_slide import NO_PIXELS, BagSlide
from stages.geometry import Raster
from stages.slide.facts import SlideError
from stages.slide.render import ReadCount
from stages.tissue.thumbnail import Thumbnail

ALIKE, OTHER = 0.02, 0.25
"""By how much a bag's tiles may differ in µm/px from the model's without a word, as scanners do; and at all."""
PICTURE_PX, PICTURE_PIXELS = 8, 2**24
"""Pixels along a tile's side in the picture of where tiles lie, at most; of that picture in all, about."""
_WORD = re.compile(r"[\w-]+")
TILE, GLASS = (214, 200, 212), (255, 255, 255)


@dataclass(frozen=True, slots=True)
class TileReader:
    """Stands for a `PatchReader` of the tiles of a bag, in the cells that they have.

    Attributes:
        slide: the bag.
        patch_px, patch_mpp: side of a tile in its own pixels, and their µm.
    """

    slide: BagSlide
    patch_px: int
    patch_mpp: float

    @property
    def place(self) -> tuple[float, ...]:
        """See `PatchReader.place`; nothing is kept by it, for nothing is encoded."""
        grid = self.slide.cells
        return (grid.x, grid.y, grid.scale_x, grid.scale_y, grid.width, grid.height)

    def boxes_level0(self, cells: ArrayLike) -> NDArray[np.float64]:
        """(x, y, width, height) of each cell's tile in level-0 pixels, (N, 4)."""
        corners = self.slide.corners[self._tiles(cells)]
        return np.concatenate([corners, np.broadcast_to(self.slide.side, corners.shape)], axis=1)

    def features(self, cells: ArrayLike) -> NDArray[np.float32]:
        """Features (N, D) of each cell's tile; raises what `BagSlide.features` does."""
        return self.slide.features(self._tiles(cells))

    def rasters(self, cells: ArrayLike) -> list[Raster]:
        """See `PatchReader.rasters`: of pixels that are not there."""
        raise SlideError(NO_PIXELS)

    def lazily(self, cells: ArrayLike) -> NDArray[np.uint8]:
        """See `PatchReader.lazily`: there are none."""
        raise SlideError(NO_PIXELS)

    def count(self, cells: ArrayLike) -> ReadCount:
        """What these features are to be read: their bytes."""
        return ReadCount(self.slide.feature_bytes(len(np.asarray(cells))))

    def _tiles(self, cells: ArrayLike) -> NDArray[np.int64]:
        order = np.argsort(self.slide.cell_of)
        found: NDArray[np.int64] = order[np.searchsorted(self.slide.cell_of, np.asarray(cells, np.int64), sorter=order)]
        return found


def tissue_of(slide: BagSlide) -> NDArray[np.bool_]:
    """Which cells have a tile, (rows, columns)."""
    tissue = np.zeros(slide.cells.shape, bool)
    tissue.ravel()[slide.cell_of] = True
    return tissue


def picture_of(slide: BagSlide) -> Thumbnail:
    """In a thumbnail's place: where the cells with tiles lie, in one colour."""
    grid = slide.cells
    px = max(1, min(PICTURE_PX, int((PICTURE_PIXELS / (grid.width * grid.height)) ** 0.5)))
    there = np.kron(tissue_of(slide), np.ones((px, px), bool))
    rgb = np.where(there[..., None], np.array(TILE, np.uint8), np.array(GLASS, np.uint8))
    raster, mpp = grid.divided(px), slide.facts.require_mpp()
    return Thumbnail(rgb, raster, float(np.sqrt(raster.scale_x * mpp.x * raster.scale_y * mpp.y)))


def doubts_of(slide: BagSlide, spec: ModelSpec, dim: int) -> tuple[str, ...]:
    """What is to be said of predicting a bag by a model, a line each.

    Args:
        slide: the bag.
        spec: the model's.
        dim: length of the features that it takes.

    Raises:
        SlideError: its features, or its tiles, are not what the model takes.
    """
    if not spec.exhaustive:
        raise SlideError(
            "it is a bag, which has features and no pixels, and the model reads pixels: give the slide, or a model of "
            "model.kind exhaustive"
        )
    made = spec.features_by
    if slide.encoder is not None and made is not None and not same_encoder(slide.encoder, made):
        raise SlideError(
            f"the bag's features were made by {slide.encoder!r}, the model takes those of {made!r}: give bags of that"
        )
    if slide.dim != dim:
        raise SlideError(
            f"the bag has features of length {slide.dim}, the model takes {dim}: they are of another encoder; give "
            f"bags of {made or 'the one that it learnt from'}"
        )
    apart = slide.patch_mpp / spec.patch_mpp - 1
    if slide.patch_px != spec.patch_px or abs(apart) > OTHER:
        raise SlideError(
            f"the bag has tiles of {slide.patch_px} px at {slide.patch_mpp:.4g} µm/px, the model takes "
            f"{spec.patch_px} px at {spec.patch_mpp:.4g} µm/px: make it anew like those, or give "
            "the true resolution where its is wrong"
        )
    found = []
    if abs(apart) > ALIKE:
        found.append(f"its tiles are at {slide.patch_mpp:.4g} µm/px, the model's at {spec.patch_mpp:.4g} µm/px")
    if spec.bags is None and slide.encoder is None:
        found.append(f"the bag does not say what made its features: they are taken for those of {spec.encoder}")
    return tuple(found)


def same_encoder(one: str, other: str) -> bool:
    """Whether two names may be one encoder's, however programs spell it: ``uni_v1`` is UNI. What timm calls a model, or
    a file's name, says nothing of what others call it."""
    if (_WORD.fullmatch(one) is None) == (_WORD.fullmatch(other) is None):
        return _plain(one) == _plain(other)
    return True


def _plain(encoder: str) -> str:
    return re.sub(r"[^a-z0-9]", "", re.sub(r"[_-]?v1$", "", encoder.casefold()))

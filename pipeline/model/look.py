"""The first look at a slide: open it, find its tissue on the thumbnail, lay the cells. No patch is read."""

from __future__ import annotations

import hashlib
import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.model.slide_model import SlideModel
from pipeline.model.spec import refuse_coarser
from pipeline.model.tiles import TILE, TileReader, doubts_of, picture_of, tissue_of
from pipeline.model.values import View
from stages.agreement import missing_tiles
from stages.appearance import Appearance, Likeness, appearance
from stages.attention import cell_shares, tissue_cells
from stages.bags.bag_slide import BagSlide
from stages.encoder.feature_store import FeatureKey
from stages.geometry import Raster
from stages.heap import give_back
from stages.patches import PatchReader
from stages.place import Place
from stages.prior import Prior, PriorMap
from stages.pyramid.chunk_cache import CachedSlide, ChunkCache
from stages.pyramid.open import open_pyramid
from stages.slide.facts import SlideError
from stages.slide.protocol import Slide
from stages.slide.render import ReadCount, count_reads
from stages.tissue.mask import find_tissue
from stages.tissue.quality import tissue_warnings
from stages.tissue.thumbnail import Thumbnail, read_thumbnail

_UNCHECKED = "the model learnt from bags: whether {} makes the same features of pixels here was not compared"
SURVEY_BLOCK = 1024
"""Coarse patches that are read together: they are small, many to a tile, and a tile is decoded once for a block."""


@dataclass(frozen=True, slots=True)
class Look:
    """A slide as its thumbnail shows it.

    Attributes:
        slide: opened, its resolution known and fine enough.
        thumbnail: RGB at the attention's resolution.
        mask_bits: its tissue, eight pixels a byte, one row after the other: see `mask`.
        cells: the attention map's raster.
        filled: how much of each cell is tissue, 0 to 1, (rows, columns).
        tissue: which cells may be drawn, (rows, columns).
        reader: reads the cells' patches.
        insider: with two levels, reads the second look at the regions.
        surveyor: where a frozen encoder makes the attention, reads all tissue at its coarse scale.
        prior: each cell's share of a map that was given, (rows, columns), 0 off the tissue; None: none was.
        cost: what reading the thumbnail cost.
        warnings: what is doubtful about the slide and its tissue, a line each.
    """

    slide: Slide
    thumbnail: Thumbnail
    mask_bits: NDArray[np.uint8]
    cells: Raster
    filled: NDArray[np.float64]
    tissue: NDArray[np.bool_]
    reader: PatchReader | TileReader
    insider: PatchReader | None
    surveyor: PatchReader | None
    prior: NDArray[np.float64] | None
    cost: ReadCount
    warnings: tuple[str, ...]

    @property
    def mask(self) -> NDArray[np.bool_]:
        """The tissue (H, W) on the thumbnail, unpacked each time that it is asked for."""
        shape = self.thumbnail.raster.shape
        return np.unpackbits(self.mask_bits, count=shape[0] * shape[1]).view(np.bool_).reshape(shape)

    @property
    def view(self) -> View:
        """The model's part of this look."""
        regions = self.insider.lazily if self.insider else None
        coarse = self.surveyor.lazily if self.surveyor else None
        coarse_key = self._key(self.surveyor) if self.surveyor else None
        return View(
            self.thumbnail.rgb,
            self.tissue,
            self.reader.lazily,
            regions,
            coarse,
            self._key(self.reader),
            coarse_key,
            self.prior,
            self.reader.features,
        )

    @property
    def appearance(self) -> Appearance | None:
        """How its tissue looks, at the attention's resolution; None of a bag, which shows none."""
        return None if isinstance(self.slide, BagSlide) else appearance(self.thumbnail.rgb, self.mask)

    @property
    def share(self) -> NDArray[np.float64]:
        """Each cell's share of the slide's tissue, (rows, columns), summing to 1."""
        return np.asarray(self.filled / self.filled.sum())

    def tissue_in(self, boxes_level0: NDArray[np.float64]) -> NDArray[np.float64]:
        """How much of each of these boxes (N, 4), x, y, width and height in level-0 pixels, is tissue: (N,), 0 to 1.

        At the slide's edges a patch is moved inwards, so that its share is not that of its cell (`filled`).
        """
        if isinstance(self.slide, BagSlide):
            return np.ones(len(boxes_level0))
        mask, corners = self.mask, np.asarray(boxes_level0, np.float64).reshape(-1, 4)
        first = self.thumbnail.raster.from_level0(corners[:, :2])
        last = self.thumbnail.raster.from_level0(corners[:, :2] + corners[:, 2:])
        return np.array([_covered(mask, *ends) for ends in zip(first, last, strict=True)], np.float64)

    @property
    def nbytes(self) -> int:
        """Memory that its arrays take."""
        return sum(a.nbytes for a in (self.thumbnail.rgb, self.mask_bits, self.filled, self.tissue))

    def at_rest(self) -> Look:
        """The same look at a slide that has no file open, and opens what it needs when it is read again."""
        slide = pickle.loads(pickle.dumps(self.slide))  # slides pickle by their path
        insider = None if self.insider is None else replace(self.insider, slide=slide)
        surveyor = None if self.surveyor is None else replace(self.surveyor, slide=slide)
        reader = replace(self.reader, slide=slide)
        return replace(self, slide=slide, reader=reader, insider=insider, surveyor=surveyor)

    def count(self, cells: NDArray[np.int64], opened: NDArray[np.int64]) -> ReadCount:
        """What the thumbnail, all that is seen at a coarse scale, these cells' patches and the second look at these
        regions cost to read; features that were kept from another time spare it."""
        inside = self.insider.count(opened) if self.insider else ReadCount()
        coarse = self.surveyor.count(np.flatnonzero(self.tissue)) if self.surveyor else ReadCount()
        return self.cost + coarse + inside + self.reader.count(cells)

    def likeness(self, model: SlideModel) -> Likeness:
        """How unlike the slides that a model was trained on it looks; no score where the model does not know them, or
        it does not show how it looks."""
        known, own = model.appearance, self.appearance
        return Likeness(None) if known is None or own is None else known.compare(own)

    def _key(self, reader: PatchReader | TileReader) -> Callable[[str, int], FeatureKey]:
        def key(encoder: str, dim: int) -> FeatureKey:
            return FeatureKey(self.slide.facts.content, encoder, dim, reader.patch_mpp, reader.patch_px, reader.place)

        return key

    def generator(self, seed: int, device: torch.device, *, after: int = 0) -> torch.Generator:
        """The slide's own draws: they depend on its content, not on the slides around it or on their order.

        Args:
            seed: of all slides.
            device: where to draw.
            after: how often it was drawn from before, whose draws these do not depend on.
        """
        later = f":{after}" if after else ""
        digest = hashlib.sha256(f"{seed}:{self.slide.facts.fingerprint}{later}".encode()).digest()
        return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def look(
    path: Place,
    model: SlideModel,
    *,
    mpp: float | None = None,
    cache: ChunkCache | None = None,
    prior: Prior | None = None,
    verify: bool = False,
) -> Look:
    """Open a slide or a cached pyramid and `look_at` it; raises what that does.

    Args:
        path: the file or the pyramid's folder.
        model: what it is looked at for.
        mpp: µm per level-0 pixel that replaces the file's own.
        cache: where pixels of slow levels are kept for the next time.
        prior: see `look_at`.
        verify: read every byte of it, so that what is kept of it goes by them.
    """
    slide = open_pyramid(path, mpp=mpp)
    if verify:
        slide.facts = slide.facts.with_digest()
    if cache is not None and not isinstance(slide, BagSlide):
        slide = CachedSlide(slide, cache)
    return look_at(slide, model, prior=prior)


def look_at(slide: Slide, model: SlideModel, *, prior: Prior | None = None) -> Look:
    """Prepare an opened slide for a model's scales.

    Args:
        slide: the slide.
        model: what it is looked at for.
        prior: what says where to draw, beside the model's attention.

    Raises:
        MapError: the prior's map cannot be read or made, is not this slide's, or is 0 on all of its tissue.
        SlideError: it cannot be read, its resolution is unknown, or it is coarser than the model's patches.
        NoTissueError: there is nothing on it.
    """
    spec = model.spec
    if isinstance(slide, BagSlide):
        return _look_at_tiles(slide, model, prior)
    refuse_coarser(slide.facts, spec)
    thumbnail = read_thumbnail(slide, spec.attention_mpp)
    found = find_tissue(thumbnail)
    mask = found.mask
    units = model.attention.raster(thumbnail.raster)
    cells, insider = units, None
    if model.inner is not None and spec.inner_mpp is not None:
        side = spec.region_cells * spec.inner_cell_px
        insider = PatchReader(slide, units, side + 2 * model.inner.around, spec.inner_mpp, inside=False)
        cells = model.inner.raster(units.divided(side))
    surveyor = None
    if spec.coarse_mpp is not None:
        surveyor = PatchReader(slide, cells, spec.coarse_px, spec.coarse_mpp, block=SURVEY_BLOCK)
    filled = _grown(cell_shares(torch.from_numpy(mask), spec.cell_px).numpy(), cells.shape)
    tissue = _grown(tissue_cells(torch.from_numpy(mask), cell_px=spec.cell_px).numpy(), cells.shape)
    given = None
    if prior is not None:
        given = prior.on(slide, cells=cells, tissue=tissue, attention_mpp=spec.attention_mpp)
    warnings = (
        *slide.facts.doubts,
        *missing_tiles(slide, thumbnail),
        *tissue_warnings(found, thumbnail.mpp),
        *(given.notes if given else ()),
        *([_UNCHECKED.format(spec.encoder)] if spec.bags is not None else []),
    )
    bits = np.packbits(mask)
    del found, mask
    give_back(thumbnail.rgb)
    return Look(
        slide=slide,
        thumbnail=thumbnail,
        mask_bits=bits,
        cells=cells,
        filled=filled,
        tissue=tissue,
        reader=PatchReader(slide, cells, spec.patch_px, spec.patch_mpp, snap=spec.snap),
        insider=insider,
        surveyor=surveyor,
        prior=None if given is None else given.shares,
        cost=_cost(slide, thumbnail, given),
        warnings=warnings,
    )


def _look_at_tiles(slide: BagSlide, model: SlideModel, prior: Prior | None) -> Look:
    """The same of a bag: its cells are its tiles, all of them tissue."""
    spec = model.spec
    doubts = doubts_of(slide, spec, model.feature_dim)
    if prior is not None:
        raise SlideError("a map that says where to look is of pixels, and a bag has none: leave --prior out")
    picture, tissue = picture_of(slide), tissue_of(slide)
    return Look(
        slide=slide,
        thumbnail=picture,
        mask_bits=np.packbits(picture.rgb[..., 1] == TILE[1]),
        cells=slide.cells,
        filled=tissue.astype(np.float64),
        tissue=tissue,
        reader=TileReader(slide, spec.patch_px, slide.patch_mpp),
        insider=None,
        surveyor=None,
        prior=None,
        cost=ReadCount(),
        warnings=(*slide.facts.doubts, *doubts),
    )


def _cost(slide: Slide, thumbnail: Thumbnail, given: PriorMap | None) -> ReadCount:
    """What the thumbnail cost to read, and what a network was shown, of which the thumbnail's own counts once."""
    if given is None or given.mpp == thumbnail.mpp:
        return count_reads(slide, [thumbnail.raster, *(given.read if given else ())])
    return count_reads(slide, [thumbnail.raster]) + count_reads(slide, given.read)


def _grown(values: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
    """A map of cells with zeros added below and on the right, up to whole regions."""
    return np.pad(values, [(0, want - have) for want, have in zip(shape, values.shape, strict=True)])


def _covered(mask: NDArray[np.bool_], first: NDArray[np.float64], last: NDArray[np.float64]) -> float:
    """The share of a box of a mask, from its (x, y) first to last edge, that is set; pixels cut by an edge in part."""
    weights, parts = [], []
    for low, high, size in zip(first, last, mask.shape[::-1], strict=True):
        inside = np.arange(max(0, int(low)), min(size, math.ceil(high)))
        weights.append(np.clip(np.minimum(inside + 1, high) - np.maximum(inside, low), 0.0, None))
        parts.append(slice(inside[0], inside[-1] + 1) if len(inside) else slice(0))
    across, down = weights
    area = float(across.sum() * down.sum())
    return float(down @ mask[parts[1], parts[0]] @ across) / area if area > 0 else 0.0

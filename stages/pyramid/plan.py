"""What a pyramid of a slide will hold: which levels, in what chunks, and which of them.

`native` takes a slide's own JPEG tiles as they are. `portable` holds pixels losslessly, so it adds levels where the
slide has none within a factor of 4, and keeps of the finest ones only what may be looked at: the tissue and its
surroundings. Thumbnails at `THUMBNAIL_MPP` and coarser never need what it leaves out.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

import stages.pyramid.layout
from stages.geometry import LEVEL_TOLERANCE, Raster, physical_raster
from stages.place import Place
from stages.pyramid.layout import LevelLayout, array_metadata, jpeg_layout, level_layouts
from stages.pyramid.record import FORMAT, Kept, Profile, pyramid_facts
from stages.pyramid.shards import ShardTiles
from stages.slide.facts import SlideError, SlideFacts
from stages.slide.jpeg import JpegTiles
from stages.slide.protocol import Slide
from stages.slide.tiff import TiffTiles
from stages.tissue.mask import tissue_mask
from stages.tissue.thumbnail import read_thumbnail

STEP = 4
"""How many times coarser a level is that a pyramid adds; no two neighbours of it are further apart."""
THUMBNAIL_MPP = 4.0
"""µm/px: levels that a thumbnail of this scale may be made from are kept whole."""
MARGIN_UM = 256.0
"""What is kept around the tissue: patches that reach past it, and cells that another scale's mask would count as it."""
MASK_MPP = 8.0
MASK_PIXELS = 1_000_000
"""Tissue is looked for at about this scale and pixel count (some 50 MB while it is), and at half of it."""

Wish = Literal["auto", "native", "portable"]
Keep = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Plan:
    """A pyramid to be made.

    Attributes:
        facts, layouts: of the pyramid and its levels.
        own: the slide's level that each level is copied from; None where it is the average of the level before it.
        keep: which chunks (rows, columns) of each level are kept; None for all.
        profile, kept: see `stages.pyramid.record.Record`.
    """

    facts: SlideFacts
    layouts: tuple[LevelLayout, ...]
    own: tuple[int | None, ...]
    keep: tuple[Keep | None, ...]
    profile: Profile
    kept: Kept

    def at(self, folder: Place) -> Plan:
        """The same pyramid in another folder."""
        layouts = tuple(replace(layout, folder=folder / layout.folder.name) for layout in self.layouts)
        return replace(self, facts=replace(self.facts, path=folder), layouts=layouts)

    def most_bytes(self, source: Slide) -> int:
        """What it can take on disk at most: JPEG tiles their own bytes, pixels as many as they have colours.

        By what it holds, not by the slide's file, of which many tiles may be the same part.
        """
        total = 0
        for layout, own, keep in zip(self.layouts, self.own, self.keep, strict=True):
            if layout.jpeg is not None and own is not None:
                total += int(source.tile_bytes(own).sum())
                continue
            rows, columns = (-(-side // chunk) for side, chunk in zip(layout.size, layout.chunk, strict=True))
            chunks = rows * columns if keep is None else int(np.count_nonzero(keep))
            total += 3 * chunks * math.prod(layout.chunk)
        return total

    def digest(self) -> str:
        """Of all that its bytes follow from."""
        parts = [array_metadata(layout, self.facts.background) for layout in self.layouts]
        digest = hashlib.sha256(repr((FORMAT, self.facts.content, self.own, parts)).encode())
        for keep in self.keep:
            digest.update(b"all" if keep is None else np.packbits(keep).tobytes())
        return digest.hexdigest()[:24]


def choose_profile(slide: Slide, wish: Wish) -> Profile:
    """The profile that is meant: `auto` is native where every level consists of JPEG tiles.

    Raises:
        SlideError: native is asked for, and no level does.
    """
    found = [own_jpeg(slide, level) is not None for level in range(len(slide.facts.levels))]
    if wish == "native" and not any(found):
        raise SlideError("it has no JPEG tiles that could be copied as they are: use --profile portable")
    return "native" if wish == "native" or (wish == "auto" and all(found)) else "portable"


def own_jpeg(slide: Slide, level: int) -> tuple[TiffTiles | ShardTiles, JpegTiles] | None:
    """A level's own tiles and how they are to be read, where they are JPEG and of one size, as chunks are."""
    tiles = slide.tiles(level)
    if isinstance(tiles, TiffTiles) and tiles.jpeg is not None and tiles.crops_edges():
        return None
    return (tiles, tiles.jpeg) if isinstance(tiles, TiffTiles | ShardTiles) and tiles.jpeg is not None else None


def native_plan(slide: Slide) -> Plan:
    """A pyramid of the slide's levels, of its own tiles wherever they are JPEG; in no folder yet."""
    folder = Path()
    layouts = level_layouts(folder, slide.facts)
    for i, layout in enumerate(layouts):
        found = own_jpeg(slide, i)
        if found is not None:
            tiles, jpeg = found
            layouts[i] = jpeg_layout(layout.folder, tiles.size, tiles.tile, jpeg)
    facts = pyramid_facts(slide.facts, folder, layouts)
    return Plan(facts, tuple(layouts), tuple(range(len(layouts))), (None,) * len(layouts), "native", "all")


def portable_plan(slide: Slide, *, seen: Slide, everything: bool) -> Plan:
    """A pyramid of pixels: the slide's levels, and those that it lacks; in no folder yet.

    Args:
        slide: what to copy.
        seen: the same with the µm/px by which tissue is found; where they are unknown, everything is kept.
        everything: keep all chunks, not only those around tissue.
    """
    folder = Path()
    levels, tiles = list(slide.facts.levels), list(slide.facts.tile_sizes)
    own: list[int | None] = list(range(len(levels)))
    at = 0
    while at < len(levels):
        if _lacks_next(levels, at):
            levels.insert(at + 1, _averaged(levels[at]))
            width, height = tiles[at]
            tiles.insert(at + 1, (min(width, levels[at + 1].width), min(height, levels[at + 1].height)))
            own.insert(at + 1, None)
        at += 1
    facts = replace(slide.facts, levels=tuple(levels), tile_sizes=tuple(tiles))
    layouts = level_layouts(folder, facts)
    for i in range(1, len(layouts)):
        if own[i] is None:  # the same chunks and shards, so that each of its shards is made of whole ones
            layouts[i] = replace(layouts[i], chunk=layouts[i - 1].chunk, shard=layouts[i - 1].shard)
    facts = pyramid_facts(facts, folder, layouts)
    keep = _kept_chunks(seen, levels, layouts) if not everything else [None] * len(levels)
    kept: Kept = "all" if all(chunks is None for chunks in keep) else "tissue"
    return Plan(facts, tuple(layouts), tuple(own), tuple(keep), "portable", kept)


def _lacks_next(levels: Sequence[Raster], at: int) -> bool:
    """Whether the level after this one is too far from it, or missing although this one is no thumbnail yet."""
    level = levels[at]
    if at + 1 == len(levels):
        return max(level.shape) > stages.pyramid.layout.SHARD_SIDE
    following = levels[at + 1]
    step = max(following.scale_x / level.scale_x, following.scale_y / level.scale_y)
    return step > STEP * (1 + LEVEL_TOLERANCE)


def _averaged(level: Raster) -> Raster:
    width, height = -(-level.width // STEP), -(-level.height // STEP)
    return Raster(level.x, level.y, level.scale_x * STEP, level.scale_y * STEP, width, height)


def _kept_chunks(slide: Slide, levels: Sequence[Raster], layouts: Sequence[LevelLayout]) -> list[Keep | None]:
    """The chunks of each level that are near tissue; None for a level that is kept whole."""
    mpp = slide.facts.mpp
    fine = [mpp is not None and max(mpp.x * r.scale_x, mpp.y * r.scale_y) * STEP < THUMBNAIL_MPP for r in levels]
    areas = _tissue_areas(slide) if any(fine) else []
    keep: list[Keep | None] = [None] * len(levels)
    for i, layout in enumerate(layouts):
        if fine[i] and areas:
            chunks = np.logical_or.reduce([_chunks_of(raster, mask, levels[i], layout) for raster, mask in areas])
            keep[i] = None if chunks.all() else chunks
    return keep


def _tissue_areas(slide: Slide) -> list[tuple[Raster, Keep]]:
    """Where tissue is and what lies around it, as it is seen at two scales; none where none is seen."""
    scale = MASK_MPP
    while _thumbnail_pixels(slide, scale) > MASK_PIXELS:
        scale *= 2
    areas = []
    for mpp in (scale, 2 * scale):
        thumbnail = read_thumbnail(slide, mpp)
        margin = int(np.ceil(MARGIN_UM / mpp))
        mask = tissue_mask(thumbnail.rgb, mpp)
        areas.append((thumbnail.raster, ndimage.maximum_filter(mask, 2 * margin + 1, mode="constant")))
    return areas if any(mask.any() for _, mask in areas) else []


def _thumbnail_pixels(slide: Slide, mpp: float) -> int:
    raster = physical_raster(slide.facts.bounds, slide.facts.require_mpp(), mpp)
    return raster.width * raster.height


def _chunks_of(raster: Raster, mask: Keep, level: Raster, layout: LevelLayout) -> Keep:
    """Which of a level's chunks touch a pixel of a mask."""
    sums = np.pad(mask.cumsum(0, dtype=np.int64).cumsum(1), ((1, 0), (1, 0)))
    rows, columns = (
        np.minimum(np.arange(-(-size // chunk) + 1) * chunk, size)
        for size, chunk in zip(layout.size, layout.chunk, strict=True)
    )
    x = raster.from_level0(level.to_level0(np.stack([columns, np.zeros_like(columns)], -1)))[:, 0]
    y = raster.from_level0(level.to_level0(np.stack([np.zeros_like(rows), rows], -1)))[:, 1]

    def spans(edges: NDArray[np.float64], side: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        first, last = np.floor(edges[:-1]).astype(np.int64), np.ceil(edges[1:]).astype(np.int64)
        return np.clip(first, 0, side), np.clip(last, 0, side)

    (top, bottom), (left, right) = spans(y, mask.shape[0]), spans(x, mask.shape[1])
    inside = (
        sums[np.ix_(bottom, right)] - sums[np.ix_(top, right)] - sums[np.ix_(bottom, left)] + sums[np.ix_(top, left)]
    )
    touched: Keep = inside > 0
    return touched

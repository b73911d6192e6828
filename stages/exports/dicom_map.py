"""A map of a slide's cells as a DICOM parametric map: 32-bit floats, a pyramid of sizes that the slide has."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from stages.exports.dicom_identity import Identity, our_code, plain, stamp, unit_code
from stages.exports.dicom_source import TILE, SourceLevel
from stages.geometry import Raster
from stages.overlay.attention_map import on_raster

if TYPE_CHECKING:
    from highdicom.pm import ParametricMap

MOST_PIXELS = 2**22
"""Of a level: 17 MB as floats, which DICOM does not compress."""
FINEST = 16
"""Pixels along a cell, at most, where the slide has a coarser level: more would show the same."""


@dataclass(frozen=True, slots=True)
class SlideMap:
    """A map of cells.

    Attributes:
        name: short, of at most 16 characters.
        title: what it shows, at most 64.
        unit: of its values; "" for ratios.
        values: (rows, cols), 0 where there is nothing to say.
    """

    name: str
    title: str
    unit: str
    values: NDArray[np.floating]


def parametric_map(
    told: SlideMap, raster: Raster, levels: Sequence[SourceLevel], identity: Identity, *, number: int
) -> list[ParametricMap]:
    """A map as a pyramid: an instance for each level of the slide that is neither too large nor needlessly fine (see
    `MOST_PIXELS`, `FINEST`), finest first, or the coarsest.

    Each has its level's size, spacing, origin and frame of reference, because viewers lay a map only over a level of
    its own size. Where all levels are too large, the instance is level 0 divided by the least power of two that does.
    A pixel has the value of the cell at its centre, or, where it is larger than a cell, the mean over it. Values are
    real-world values: slope 1, intercept 0.

    Args:
        told: the map.
        raster: of its cells.
        levels: of the slide.
        identity: of the results.
        number: of the series.
    """
    from highdicom import VOILUTTransformation
    from highdicom.pm import ParametricMap, RealWorldValueMapping

    title = plain(told.title)
    low, high = float(told.values.min(initial=0)), float(told.values.max(initial=0))
    top = max(abs(low), abs(high)) or 1.0
    bottom = -top if low < 0 else 0.0
    mapping = RealWorldValueMapping(
        lut_label=plain(told.name)[:16],
        lut_explanation=title,
        unit=unit_code(told.unit),
        value_range=(bottom, top),
        slope=1,
        intercept=0,
        quantity_definition=our_code(told.name, told.title),
    )
    window = VOILUTTransformation((bottom + top) / 2, top - bottom, voi_lut_function="LINEAR_EXACT")
    instances = []
    for at, level in enumerate(chosen_levels(levels, raster)):
        values = on_raster(told.values, raster, level.raster).astype(np.float32)
        instance = ParametricMap(
            [level.header],
            values[np.newaxis],
            series_instance_uid=identity.uid(told.name, "series"),
            series_number=number,
            sop_instance_uid=identity.uid(told.name, str(at)),
            instance_number=at + 1,
            contains_recognizable_visual_features=False,
            real_world_value_mappings=[mapping],
            voi_lut_transformations=[window],
            content_label="MAP",
            content_description=title,
            tile_pixel_array=True,
            tile_size=(TILE, TILE),
            pyramid_uid=identity.uid(told.name, "pyramid"),
            pyramid_label=title,
            series_description=title,
            dimension_organization_type="TILED_SPARSE",
            **identity.equipment,
        )
        stamp(instance, identity)
        instances.append(instance)
    return instances


def chosen_levels(levels: Sequence[SourceLevel], raster: Raster) -> list[SourceLevel]:
    """The levels, finest first, that a map of these cells has, see `parametric_map`."""
    small = [level for level in levels if level.raster.width * level.raster.height <= MOST_PIXELS]
    if small:
        return [level for level in small if level.raster.scale_x * FINEST >= raster.scale_x] or small[-1:]
    first = levels[0]
    by = 2
    while (first.raster.width // by) * (first.raster.height // by) > MOST_PIXELS:
        by *= 2
    raster = Raster(0.0, 0.0, float(by), float(by), -(-first.raster.width // by), -(-first.raster.height // by))
    return [SourceLevel(_reduced(first.header, raster, by), raster)]


def _reduced(header: Dataset, raster: Raster, by: int) -> Dataset:
    smaller = deepcopy(header)
    smaller.TotalPixelMatrixColumns, smaller.TotalPixelMatrixRows = raster.width, raster.height
    smaller.Rows = smaller.Columns = TILE
    smaller.NumberOfFrames = -(-raster.width // TILE) * -(-raster.height // TILE)
    measures = smaller.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    measures.PixelSpacing = [side * by for side in measures.PixelSpacing]
    return smaller

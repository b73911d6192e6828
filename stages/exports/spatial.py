"""What a run found of a slide as SpatialData: thumbnail, cells, regions and patches, with a table of each.

Every element lies in two coordinate systems: ``global``, level-0 pixels, and ``micrometers``. As SpatialData counts, a
pixel's centre is at a half, so that both are coordinates of edges, as OpenSlide's are.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stages.geometry import Mpp, Raster
from stages.overlay.geojson import REGION_MULTIPLE
from stages.overlay.outlines import regions

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

PIXELS, MICROMETRES = "global", "micrometers"
"""Names of the coordinate systems: SpatialData's own, and the unit's."""


def write_spatialdata(
    folder: Path,
    maps: Mapping[str, NDArray[np.floating]],
    raster: Raster,
    boxes_level0: NDArray[np.floating],
    *,
    mpp: Mpp,
    multiple: NDArray[np.floating],
    told: NDArray[np.uint8] | None,
    patch_cells: ArrayLike,
    measurements: Mapping[str, ArrayLike],
    features: NDArray[np.floating],
    thumbnail: tuple[NDArray[np.uint8], Raster] | None,
    facts: Mapping[str, Any],
) -> None:
    """Make an empty folder a SpatialData store.

    Images: ``thumbnail`` and ``maps`` (c, y, x). Labels: ``cells``, the tissue's numbered from 1 on, row by row.
    Shapes: ``patches``, squares in the order of drawing, and ``regions`` of high attention. Tables: ``cells_table``,
    whose observations are the cells and variables the maps; ``patches_table``, with a column for each measurement and
    the features as variables. Columns, and what is in the prediction, have names as SpatialData allows them;
    ``uns["saccade"]["columns"]`` says whose.

    Args:
        folder: the empty one.
        maps: (rows, cols) by name.
        raster: of the cells.
        boxes_level0: (N, 4) x, y, width, height of the patches.
        mpp: µm per level-0 pixel.
        multiple: (rows, cols), attention in multiples of uniform attention, 0 off the tissue.
        told: (rows, cols), what evidence is told from, see `write_evidence_zarr`; None: not known.
        patch_cells: (N,), row-major index of each patch's cell.
        measurements: of the patches by name, (N,) each.
        features: (N, D).
        thumbnail: (H, W, 3) RGB and its raster; None: there is none.
        facts: of the slide and its prediction, for the tables' ``uns["saccade"]``.
    """
    from spatialdata import SpatialData
    from spatialdata.models import Image2DModel, Labels2DModel, ShapesModel

    rows, columns = np.nonzero(multiple > 0)
    numbers = np.zeros(raster.shape, np.uint32)
    numbers[rows, columns] = np.arange(1, len(rows) + 1)
    on_cells, on_level0 = _places(raster, mpp), _places(Raster(0, 0, 1, 1, 1, 1), mpp)
    values = np.stack([np.asarray(one, np.float32) for one in maps.values()])
    images = {"maps": Image2DModel.parse(values, dims=("c", "y", "x"), c_coords=list(maps), transformations=on_cells)}
    if thumbnail is not None:
        rgb, place = thumbnail
        images["thumbnail"] = Image2DModel.parse(
            np.moveaxis(rgb, -1, 0), dims=("c", "y", "x"), c_coords=["r", "g", "b"], transformations=_places(place, mpp)
        )
    shapes = {}
    if len(boxes_level0):
        shapes["patches"] = ShapesModel.parse(_squares(boxes_level0), transformations=on_level0)
    if (multiple >= REGION_MULTIPLE).any():
        shapes["regions"] = ShapesModel.parse(_regions(multiple, raster), transformations=on_level0)
    tables = {"cells_table": _cells(values[:, rows, columns].T, list(maps), rows, columns, told, facts)}
    if len(boxes_level0):
        tables["patches_table"] = _patches(
            features, measurements, numbers.flat[np.asarray(patch_cells, np.int64)], facts
        )
    store: SpatialData = SpatialData(
        images=images,
        labels={"cells": Labels2DModel.parse(numbers, dims=("y", "x"), transformations=on_cells)},
        shapes=shapes,
        tables=tables,
    )
    folder.rmdir()  # SpatialData makes it itself, and takes an empty one for somebody's
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what its own libraries will do one day
        store.write(folder)


def _places(raster: Raster, mpp: Mpp) -> dict[str, Any]:
    """Where a raster's pixels, or for level 0 its points, lie in both coordinate systems."""
    from spatialdata.transformations import Affine

    def place(across: float, down: float) -> Affine:
        matrix = [
            [raster.scale_x * across, 0, raster.x * across],
            [0, raster.scale_y * down, raster.y * down],
            [0, 0, 1],
        ]
        return Affine(matrix, input_axes=("x", "y"), output_axes=("x", "y"))

    return {PIXELS: place(1, 1), MICROMETRES: place(mpp.x, mpp.y)}


def _squares(boxes_level0: NDArray[np.floating]) -> Any:
    from geopandas import GeoDataFrame
    from shapely import box

    x, y, width, height = np.asarray(boxes_level0, np.float64).reshape(-1, 4).T
    return GeoDataFrame(geometry=box(x, y, x + width, y + height), index=np.arange(1, len(x) + 1))


def _regions(multiple: NDArray[np.floating], raster: Raster) -> Any:
    from geopandas import GeoDataFrame
    from shapely import Polygon

    found = list(regions(multiple >= REGION_MULTIPLE))
    outlines = [[raster.to_level0(ring) for ring in region.rings] for region in found]
    highest = [float(multiple[region.cells].max()) for region in found]
    return GeoDataFrame(
        {"highest_attention_times_uniform": highest, "cells": [len(region.cells[0]) for region in found]},
        geometry=[Polygon(outer, holes) for outer, *holes in outlines],
        index=np.arange(1, len(found) + 1),
    )


def _cells(
    values: NDArray[np.float32],
    names: Sequence[str],
    rows: NDArray[np.intp],
    columns: NDArray[np.intp],
    told: NDArray[np.uint8] | None,
    facts: Mapping[str, Any],
) -> AnnData:
    observed: dict[str, Any] = {"row": rows, "column": columns}
    if told is not None:
        observed["told_from"] = told[rows, columns].astype(np.int64)
    return _table("cells", values, names, observed, facts)


def _patches(
    features: NDArray[np.floating], measurements: Mapping[str, ArrayLike], cells: ArrayLike, facts: Mapping[str, Any]
) -> AnnData:
    columns = _columns(list(measurements))
    observed = dict(zip(columns, (np.asarray(values, np.float64) for values in measurements.values()), strict=True))
    facts = {**facts, "columns": dict(zip(columns, measurements, strict=True))}
    observed["cell"] = np.asarray(cells, np.int64)
    names = [f"feature {i}" for i in range(features.shape[1])]
    return _table("patches", np.asarray(features, np.float32), names, observed, facts)


def _columns(names: Sequence[str]) -> list[str]:
    """Names of columns as SpatialData allows them, no two of them alike whatever their case."""
    columns: list[str] = []
    for name in names:
        plain = "".join(c if c.isalnum() or c in ".-" else " " for c in name)
        column = "_".join(plain.split()) or "unnamed"
        taken = {one.lower() for one in columns}
        ends = ("", *(f".{number}" for number in range(2, len(names) + 1)))
        columns.append(next(column + end for end in ends if (column + end).lower() not in taken))
    return columns


def _table(
    region: str,
    values: NDArray[np.float32],
    names: Sequence[str],
    observed: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> AnnData:
    """A table whose rows are the objects 1, 2 ... of an element."""
    import pandas as pd
    from anndata import AnnData
    from spatialdata.models import TableModel

    count = len(values)
    prediction = dict(facts.get("prediction", {}))
    keys = _columns(list(prediction))
    told = {"prediction": dict(zip(keys, prediction.values(), strict=True))}
    told["columns"] = dict(zip(keys, prediction, strict=True)) | facts.get("columns", {})
    frame = pd.DataFrame(dict(observed), index=[str(i) for i in range(1, count + 1)])
    frame["region"] = pd.Categorical([region] * count, categories=[region])
    frame["object"] = np.arange(1, count + 1)
    table = AnnData(values, obs=frame, var=pd.DataFrame(index=list(names)), uns={"saccade": {**facts, **told}})
    return TableModel.parse(table, region=region, region_key="region", instance_key="object")

"""What a run found of a slide as objects for QuPath: every cell, regions of high attention, the patches."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stages.geometry import Raster
from stages.overlay.attention_map import Floats, times_uniform
from stages.overlay.geojson import feature, geojson

MOST_CELLS = 100_000
"""That are written one by one, some 40 MB; where there are more, squares of them are."""
CELL = ("Cell", (128, 128, 128))


def write_qupath(
    path: Path,
    attention: NDArray[np.floating],
    raster: Raster,
    patch_boxes_level0: ArrayLike,
    *,
    attention_at: ArrayLike,
    weights: ArrayLike,
    patch_cells: ArrayLike,
    origin: tuple[int, int],
    evidence: Mapping[str, NDArray[np.floating]],
    contributions: Mapping[str, tuple[ArrayLike, ArrayLike]],
    cells: int | None = None,
    unit: str = "log-odds",
) -> None:
    """Write a GeoJSON FeatureCollection, an object a line: a detection for each cell of the tissue, then what
    `stages.overlay.geojson.geojson` has; all of it is locked.

    A cell's measurements are its attention in multiples of even attention, ``evidence for <name>, <unit>`` and, where
    it was read, its ``weight``. Where there are more than `MOST_CELLS`, squares of k x k cells stand for them, with the
    least k that suffices: of their cells on the tissue attention is the mean, evidence and weight are the sum; the
    member ``saccade`` says k as ``cells_across``.

    Args:
        path: the file.
        attention: (rows, cols), summing to one over the tissue; 0 off it.
        raster: its cells' place on the level-0 frame.
        patch_boxes_level0, attention_at, weights, origin, contributions, cells, unit: see `geojson`.
        patch_cells: (N,), row-major index of each patch's cell.
        evidence: by class, or number, what each cell adds to it, (rows, cols).

    Raises:
        ValueError: a number is not finite; GeoJSON cannot hold it.
    """
    told = geojson(
        attention,
        raster,
        patch_boxes_level0,
        attention_at=attention_at,
        weights=weights,
        origin=origin,
        contributions=contributions,
        cells=cells,
        unit=unit,
    )
    weight = np.zeros(attention.size)
    np.add.at(weight, np.asarray(patch_cells, np.int64).ravel(), np.asarray(weights, np.float64).ravel())
    sums = {f"evidence for {name}, {unit}": values for name, values in evidence.items()}
    sums["weight"] = weight.reshape(attention.shape)
    across = _cells_across(attention > 0)
    frame = {**told["saccade"], "cells_across": across}
    objects = chain(_cells(times_uniform(attention, cells), sums, raster, origin, across), told["features"])
    with path.open("w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(f'{{"type":"FeatureCollection","saccade":{_compact(frame)},"features":[')
        for n, one in enumerate(objects):
            file.write(("\n" if n == 0 else ",\n") + _compact(one))
        file.write("\n]}\n")


def _cells_across(tissue: NDArray[np.bool_]) -> int:
    """k of the squares of cells that are written."""
    across = 1
    while np.count_nonzero(_summed(tissue, across)) > MOST_CELLS:
        across += 1
    return across


def _summed(values: NDArray[Any], across: int) -> NDArray[Any]:
    """Sums over squares of (rows, cols), the last of which may lack some."""
    if across == 1:
        return values
    padded = np.pad(values, [(0, -size % across) for size in values.shape])
    rows, columns = (size // across for size in padded.shape)
    summed: NDArray[Any] = padded.reshape(rows, across, columns, across).sum((1, 3))
    return summed


def _cells(
    multiple: Floats, sums: Mapping[str, NDArray[np.floating]], raster: Raster, origin: tuple[int, int], across: int
) -> Iterator[dict[str, Any]]:
    many = _summed((multiple > 0).astype(np.int64), across)
    at = np.stack(np.nonzero(many), axis=-1)
    columns = {
        "attention, times uniform": _summed(multiple, across)[many > 0] / many[many > 0],
        **{name: _summed(np.where(multiple > 0, values, 0.0), across)[many > 0] for name, values in sums.items()},
    }
    first = at[:, ::-1] * across  # (column, row) of the upper left corner
    last = np.minimum(first + across, (raster.width, raster.height))
    corners = np.concatenate([raster.to_level0(first) - origin, raster.to_level0(last) - origin], axis=1)
    for (left, top, right, bottom), *values in zip(corners, *columns.values(), strict=True):
        ring = np.array([(left, top), (right, top), (right, bottom), (left, bottom), (left, top)])
        measured = {name: float(v) for name, v in zip(columns, values, strict=True) if name != "weight" or v > 0}
        if not all(map(math.isfinite, measured.values())):
            raise ValueError("evidence must be finite: the model's output is not a number somewhere")
        yield feature([ring], "detection", None, CELL, measured)


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)

"""Places of a slide that another program gave numbers to, as a share for each cell: CLAM's tiles with attention scores,
QuPath's objects with a measurement."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.disk import read_regular
from stages.geometry import Raster
from stages.given_map import MapError

SUFFIXES = ("_blockmap.h5", ".h5", ".geojson")
FINE = 4
"""To a cell's side: the steps in which places are drawn."""
TOLD = 8
"""Names that a message lists."""


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Places with a number each.

    Attributes:
        rings: outlines (n, 2) x, y in level-0 pixels of the whole slide.
        values: (N,), none negative.
    """

    rings: Sequence[NDArray[np.float64]]
    values: NDArray[np.float64]


def split_measurement(place: Path) -> tuple[Path, str]:
    """The file or folder of ``PLACE#MEASUREMENT``, and the measurement; "" where none is named."""
    before, _, name = str(place).rpartition("#")
    if not before or place.exists() or not (Path(before).is_dir() or before.endswith(".geojson")):
        return place, ""
    return Path(before), name


def read_places(path: Path, *, measurement: str, origin: tuple[int, int]) -> Places:
    """Read places in the form of their file: ``.h5``, ``coords`` with ``attention_scores`` as CLAM's heat maps have
    them; ``.geojson``, objects of QuPath.

    Scores some of which are negative are logits, whose softmax is the attention, as CLAM keeps them. Tiles are as large
    as their attributes say, else as the step between them.

    Args:
        path: the file.
        measurement: of QuPath's objects; "": their only one.
        origin: level-0 point that QuPath counts from; files of ours say it themselves.

    Raises:
        MapError: it cannot be read, or is not that; or no place has a number.
    """
    try:
        found = _read_objects(path, measurement, origin) if path.suffix == ".geojson" else _read_tiles(path)
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as exc:
        if isinstance(exc, MapError):
            raise
        form = "QuPath's GeoJSON" if path.suffix == ".geojson" else "HDF5 with coords and attention_scores"
        raise MapError(f"cannot read {path} as {form} ({' '.join(str(exc).split())}): write it anew") from exc
    bad = ~np.isfinite(found.values) | (found.values < 0)
    if bad.any():
        raise MapError(
            f"{path} has {int(bad.sum())} values that are negative or not finite, the first "
            f"{found.values[bad][0]:g}: shares of attention are numbers from 0 up"
        )
    return found


def places_on_cells(places: Places, *, level0: tuple[int, int], cells: Raster) -> NDArray[np.float64]:
    """How much of places lies in each cell, (rows, columns): a number times the area that its place has there, to 1/16
    of a cell; where places overlap the last one counts.

    Args:
        places: of the slide.
        level0: width and height of the slide in level-0 pixels.
        cells: their raster, in level-0 pixels.

    Raises:
        MapError: some lie outside the slide.
    """
    from skimage.draw import polygon

    ends = np.array([[*ring.min(0), *ring.max(0)] for ring in places.rings])
    size = np.median(ends[:, 2:] - ends[:, :2], axis=0)
    if (ends[:, :2].min(0) < -size - 1).any() or (ends[:, 2:].max(0) > level0 + size + 1).any():
        (left, top), (right, bottom) = ends[:, :2].min(0), ends[:, 2:].max(0)
        raise MapError(
            f"its places reach from ({left:.0f}, {top:.0f}) to ({right:.0f}, {bottom:.0f}), the slide is of "
            f"{level0[0]} x {level0[1]} level-0 px: they are another slide's, or of another level; give this one's"
        )
    fine = cells.divided(FINE)
    canvas = np.zeros(fine.shape)
    for ring, value in zip(places.rings, places.values, strict=True):
        at = fine.from_level0(ring) - 0.5  # whose pixels' centres are whole numbers
        rows, columns = polygon(at[:, 1], at[:, 0], shape=canvas.shape)
        if not len(rows):  # smaller than a step
            column, row = np.rint(at.mean(0)).astype(int).clip(0, (fine.width - 1, fine.height - 1))
            rows, columns = np.array([row]), np.array([column])
        canvas[rows, columns] = value
    shares: NDArray[np.float64] = canvas.reshape(cells.height, FINE, cells.width, FINE).sum((1, 3)) / FINE**2
    return shares


def _read_tiles(path: Path) -> Places:
    import h5py

    with h5py.File(path, "r") as file:
        if "attention_scores" not in file or "coords" not in file:
            have = ", ".join(file) or "nothing"
            raise MapError(
                f"{path} has {have}, expected coords and attention_scores: give CLAM's <slide>_blockmap.h5, or "
                "a file of that form"
            )
        coords, said = np.asarray(file["coords"][()], np.float64), dict(file["coords"].attrs)
        scores = np.asarray(file["attention_scores"][()], np.float64)
    if coords.ndim != 2 or coords.shape[1] != 2 or scores.size != len(coords) or not len(coords):
        raise MapError(
            f"{path} has coords {coords.shape} and attention_scores {scores.shape}, expected (N, 2) and a score each: "
            "write it anew, of one class"
        )
    scores = scores.ravel()
    if (scores < 0).any() and np.isfinite(scores).all():
        scores = np.exp(scores - scores.max())
    side = _side(path, coords, said)
    corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1)]) * side
    return Places(list(coords[:, None] + corners), scores)


def _side(path: Path, coords: NDArray[np.float64], said: dict[str, Any]) -> NDArray[np.float64]:
    """(x, y) of a tile in level-0 pixels."""
    if "patch_size_level0" in said:
        told = np.ravel(said["patch_size_level0"]).astype(float)
    elif "patch_size" in said and "downsample" in said:
        told = float(np.ravel(said["patch_size"])[0]) * np.ravel(said["downsample"]).astype(float)
    else:
        told = np.array([step for axis in (0, 1) if (step := _step(coords, axis))])
    if not len(told) or not (told > 0).all():
        raise MapError(f"{path}: nothing says how large a tile is, and no two are neighbours: write patch_size_level0")
    return np.array([told[0], told[-1]])


def _step(coords: NDArray[np.float64], axis: int) -> float:
    """From a tile to the next along an axis, as it is most often; 0 where none has one."""
    order = np.lexsort((coords[:, axis], coords[:, 1 - axis]))
    steps = np.diff(coords[order, axis])[np.diff(coords[order, 1 - axis]) == 0]
    found, counts = np.unique(steps[steps > 0], return_counts=True)
    return float(found[counts.argmax()]) if len(found) else 0.0


def _read_objects(path: Path, measurement: str, origin: tuple[int, int]) -> Places:
    told = json.loads(read_regular(path))
    start = told.get("saccade", {}).get("origin_level0", origin) if isinstance(told, dict) else origin
    objects = [(one["geometry"], _measurements(one)) for one in (told["features"] if isinstance(told, dict) else told)]
    names = list(dict.fromkeys(name for _, measured in objects for name in measured))
    if not measurement:
        if len(names) != 1:
            listed = ", ".join(map(repr, names[:TOLD])) + ", ..." * (len(names) > TOLD) or "none"
            raise MapError(f"objects of {path} have the measurements {listed}: say which one by #NAME after the folder")
        [measurement] = names
    rings: list[NDArray[np.float64]] = []
    values = []
    for geometry, measured in objects:
        if measurement in measured:
            for ring in _outer_rings(geometry):
                rings.append(np.asarray(ring, np.float64)[:, :2] + np.asarray(start, np.float64))
                values.append(float(measured[measurement]))
    if not rings:
        listed = ", ".join(map(repr, names[:TOLD])) or "none"
        raise MapError(f"no object of {path} has the measurement {measurement!r}; they have {listed}")
    return Places(rings, np.array(values))


def _measurements(one: dict[str, Any]) -> dict[str, Any]:
    """By name, as QuPath writes them since 0.4 and before."""
    told = one.get("properties", {}).get("measurements") or {}
    return told if isinstance(told, dict) else {entry["name"]: entry["value"] for entry in told}


def _outer_rings(geometry: dict[str, Any]) -> Iterator[Any]:
    if geometry["type"] == "Polygon":
        yield geometry["coordinates"][0]
    elif geometry["type"] == "MultiPolygon":
        yield from (polygon[0] for polygon in geometry["coordinates"])

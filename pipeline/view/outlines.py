"""Outlines that somebody drew on a slide, from a GeoJSON file as QuPath writes it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import UsageError
from stages.disk import read_regular

MOST = 100_000
"""Corners that are shown of a slide."""

Ring = list[tuple[float, float]]


def read_outlines(path: Path, origin: tuple[float, float]) -> list[Ring]:
    """Rings of (x, y) level-0 corners of all polygons in a file; none where there is no file.

    Args:
        path: the file, in level-0 pixels counted from ``origin``, as QuPath counts from the corner of the bounds; one
            of ours says itself what it counts from (``saccade.origin_level0``).
        origin: level-0 point.

    Raises:
        UsageError: it is no GeoJSON, or holds more than `MOST` corners.
    """
    try:
        told = json.loads(read_regular(path))
    except FileNotFoundError:
        return []
    except (OSError, ValueError, RecursionError) as exc:
        raise UsageError(f"{path} is no GeoJSON ({exc}): export the outlines again") from exc
    try:
        start = told.get("saccade", {}).get("origin_level0", origin) if isinstance(told, dict) else origin
        rings = [np.asarray(ring, np.float64)[:, :2] + np.asarray(start, np.float64) for ring in _rings(told)]
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, RecursionError) as exc:
        raise UsageError(f"{path} is no GeoJSON of polygons ({exc}): export the outlines again") from exc
    if sum(map(len, rings)) > MOST:
        raise UsageError(f"{path} has more than {MOST:,} corners: simplify the outlines")
    return [[(float(x), float(y)) for x, y in ring] for ring in rings if np.isfinite(ring).all()]


def _rings(told: Any) -> Iterator[Any]:
    if isinstance(told, list):
        for one in told:
            yield from _rings(one)
        return
    kind = told["type"]
    if kind == "FeatureCollection":
        yield from _rings(told["features"])
    elif kind == "Feature":
        yield from _rings(told["geometry"])
    elif kind == "Polygon":
        yield from told["coordinates"]
    elif kind == "MultiPolygon":
        for polygon in told["coordinates"]:
            yield from polygon

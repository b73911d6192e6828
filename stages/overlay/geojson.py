"""Attention and sampled patches as objects for QuPath, placed through `Raster` in level-0 pixels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stages.geometry import Raster
from stages.overlay.attention_map import Floats, times_uniform
from stages.overlay.outlines import regions

DIGITS = 6
"""Of a measurement, so that files stay small."""
REGION_MULTIPLE = 2.0
"""Cells with at least this many times the uniform attention make up the regions."""


def geojson(
    attention: NDArray[np.floating],
    attention_raster: Raster,
    patch_boxes_level0: ArrayLike,
    *,
    attention_at: ArrayLike,
    weights: ArrayLike,
    origin: tuple[int, int],
    contributions: Mapping[str, tuple[ArrayLike, ArrayLike]] | None = None,
    region_multiple: float = REGION_MULTIPLE,
    cells: int | None = None,
    unit: str = "log-odds",
) -> dict[str, Any]:
    """Sampled patches (detections) and regions of high attention (annotations) as QuPath reads them.

    Coordinates are level-0 pixels minus ``origin``, because QuPath crops a slide to its bounds; the member ``saccade``
    says so, which other programs leave alone.

    Args:
        attention: (rows, cols), summing to one over the tissue.
        attention_raster: its cells' place on the level-0 frame.
        patch_boxes_level0: (N, 4) x, y, width, height in level-0 pixels, in the order of drawing.
        attention_at, weights: (N,) each patch's attention and its weight in the estimator.
        origin: the level-0 point that QuPath counts from, see `SlideFacts`.
        contributions: by class, or number, what each patch adds to it (N,), and half of the interval of that (N,);
            None: not known.
        region_multiple: regions are the joined cells with at least this many times the uniform attention.
        cells: see `times_uniform`.
        unit: of contributions.

    Raises:
        ValueError: a number is not finite; GeoJSON cannot hold it.
    """
    boxes = np.asarray(patch_boxes_level0, np.float64).reshape(-1, 4)
    drawn, weight = np.asarray(attention_at, np.float64).ravel(), np.asarray(weights, np.float64).ravel()
    multiple = times_uniform(attention, cells)
    if not all(np.isfinite(v).all() for v in (boxes, drawn, weight, multiple)):
        raise ValueError("attention, weights and boxes must be finite: the model's output is not a number somewhere")
    said = {name: [np.asarray(v, np.float64).ravel() for v in both] for name, both in (contributions or {}).items()}
    uniform = cells or np.count_nonzero(multiple)
    corner_level0 = np.array(origin, np.float64)
    features = []
    found = list(regions(multiple >= region_multiple))
    for n, region in enumerate(found, 1):
        rings = [attention_raster.to_level0(ring) - corner_level0 for ring in region.rings]
        inside = multiple[region.cells]
        features.append(
            feature(
                rings,
                "annotation",
                f"Attention region {n} of {len(found)}",
                (f"Attention at least {region_multiple:g} times uniform", (253, 191, 17)),
                {
                    "attention": float(inside.sum() / uniform),
                    "mean attention, times uniform": float(inside.mean()),
                    "highest attention, times uniform": float(inside.max()),
                    "cells": float(len(inside)),
                },
            )
        )
    for n, ((x, y, w, h), a, v) in enumerate(zip(boxes, drawn, weight, strict=True), 1):
        ring = np.array([(x, y), (x + w, y), (x + w, y + h), (x, y + h), (x, y)]) - corner_level0
        measurements = {
            "attention": float(a),
            "attention, times uniform": float(a * uniform),
            "weight": float(v),
            "order": float(n),
        }
        for name, (values, half_widths) in said.items():
            value, half = float(values[n - 1]), float(half_widths[n - 1])
            measurements[f"contribution to {name}, {unit}"] = value
            if np.isfinite(half):  # what nothing is known of has no measurement
                measurements |= {
                    f"contribution to {name}, low": value - half,
                    f"contribution to {name}, high": value + half,
                }
        features.append(feature([ring], "detection", f"Patch {n}", ("Sampled patch", (33, 145, 140)), measurements))
    frame = {"frame": "level-0 pixels minus origin_level0", "origin_level0": [int(v) for v in origin]}
    return {"type": "FeatureCollection", "features": features, "saccade": frame}


def feature(
    rings: list[Floats],
    object_type: str,
    name: str | None,
    classification: tuple[str, tuple[int, int, int]],
    measurements: dict[str, float],
) -> dict[str, Any]:
    """An object for QuPath, which nobody moves by mistake.

    Args:
        rings: its outline and holes, closed, in QuPath's pixels.
        object_type: "annotation" or "detection".
        name: of it; None: it has none.
        classification: name and colour of its class.
        measurements: by name.
    """
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [_short(ring) for ring in rings]},
        "properties": {
            "objectType": object_type,
            **({} if name is None else {"name": name}),
            "classification": {"name": classification[0], "color": list(classification[1])},
            "isLocked": True,
            "measurements": {name: float(f"{value:.{DIGITS}g}") for name, value in measurements.items()},
        },
    }


def _short(ring: Floats) -> list[list[float]]:
    """Points with no more digits than a hundredth of a pixel, and whole numbers as such."""
    return [[int(v) if v.is_integer() else v for v in point] for point in np.round(ring, 2).tolist()]

"""Maps of a slide as an OME-Zarr image, with its regions and the patches that were read as label images of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stages.geometry import Mpp, Raster
from stages.overlay.geojson import REGION_MULTIPLE
from stages.overlay.outlines import regions
from stages.pyramid.layout import multiscale

if TYPE_CHECKING:
    import zarr

VERSION = "0.5"
REGION, PATCH = (253, 191, 17), (33, 145, 140)
"""Colours, those that QuPath gets."""


@dataclass(frozen=True, slots=True)
class Labels:
    """Numbered objects on cells.

    Attributes:
        name: of the label image.
        numbers: (rows, cols) uint32; 0 where there is no object.
        colour: of all.
        properties: by name, of objects 1, 2 ...
    """

    name: str
    numbers: NDArray[np.uint32]
    colour: tuple[int, int, int]
    properties: Mapping[str, Sequence[float]]


def write_label_image(
    folder: Path,
    maps: Mapping[str, NDArray[np.floating]],
    raster: Raster,
    *,
    mpp: Mpp,
    name: str,
    multiple: NDArray[np.floating],
    patch_cells: ArrayLike,
    measurements: Mapping[str, ArrayLike],
) -> None:
    """Fill a folder with an OME-Zarr 0.5 image of one level: the maps, array "0" (c, y, x) float32; its labels
    ``regions``, joined cells of high attention, and ``patches``, cells whose patches were read, (y, x) uint32.

    All lie in the frame of `stages.pyramid.layout.multiscale`: so do the slide's pyramids and the run's own maps. A
    label image has the numbers of its objects from 1 on, and what is known of each as ``properties``; a cell that
    several patches were read of has the first one's.

    Args:
        folder: an empty one.
        maps: (rows, cols) by name, one a channel.
        raster: of the cells.
        mpp: µm per level-0 pixel.
        name: of the image.
        multiple: (rows, cols), attention in multiples of uniform attention.
        patch_cells: (N,), row-major index of each patch's cell.
        measurements: of the patches by name, (N,) each; what is not finite is left out.
    """
    import zarr

    windows = [_window(name, values) for name, values in maps.items()]
    place: dict[str, Any] = {key: getattr(raster, key) for key in ("x", "y", "scale_x", "scale_y")}
    group = zarr.open_group(folder, mode="w", zarr_format=3)
    group.attrs["ome"] = {
        "version": VERSION,
        "multiscales": [multiscale(name, [raster], mpp, channels=True)],
        "omero": {"channels": windows},
    }
    group.attrs["saccade"] = {"frame": "level0", **place}
    _write_array(group, np.stack([np.asarray(one, np.float32) for one in maps.values()]), ("c", "y", "x"))
    labels = [_regions(multiple), _patches(multiple.shape, patch_cells, measurements)]
    group.create_group("labels").attrs["ome"] = {"version": VERSION, "labels": [one.name for one in labels]}
    for one in labels:
        inside = group.create_group(f"labels/{one.name}")
        inside.attrs["ome"] = {
            "version": VERSION,
            "multiscales": [multiscale(one.name, [raster], mpp, channels=False)],
            "image-label": _image_label(one),
        }
        _write_array(inside, one.numbers, ("y", "x"))


def _regions(multiple: NDArray[np.floating]) -> Labels:
    found = list(regions(multiple >= REGION_MULTIPLE))
    numbers = np.zeros(multiple.shape, np.uint32)
    for number, region in enumerate(found, 1):
        numbers[region.cells] = number
    inside = [multiple[region.cells] for region in found]
    return Labels(
        "regions",
        numbers,
        REGION,
        {
            "mean attention, times uniform": [float(one.mean()) for one in inside],
            "highest attention, times uniform": [float(one.max()) for one in inside],
            "cells": [len(one) for one in inside],
        },
    )


def _patches(shape: tuple[int, ...], cells: ArrayLike, measurements: Mapping[str, ArrayLike]) -> Labels:
    index = np.asarray(cells, np.int64).ravel()
    numbers = np.zeros(shape, np.uint32)
    numbers.flat[index[::-1]] = np.arange(len(index), 0, -1)  # of several patches of a cell the first is written last
    properties = {name: [float(v) for v in np.asarray(values).ravel()] for name, values in measurements.items()}
    return Labels("patches", numbers, PATCH, properties)


def _image_label(labels: Labels) -> dict[str, Any]:
    present = [int(number) for number in np.unique(labels.numbers) if number]
    properties = []
    for number in present:
        told = {name: values[number - 1] for name, values in labels.properties.items()}
        properties.append({"label-value": number, **{name: v for name, v in told.items() if np.isfinite(v)}})
    return {
        "colors": [{"label-value": number, "rgba": [*labels.colour, 255]} for number in present],
        "properties": properties,
        "source": {"image": "../../"},
    }


def _window(name: str, values: NDArray[np.floating]) -> dict[str, Any]:
    """How a channel is shown: attention from 0 on, what has a sign around 0."""
    low, high = float(np.min(values, initial=0)), float(np.max(values, initial=0))
    top = max(abs(low), abs(high)) or 1.0
    window = {"min": -top if low < 0 else 0.0, "max": top, "start": -top if low < 0 else 0.0, "end": top}
    return {"label": name, "color": "FFFFFF", "active": True, "window": window}


def _write_array(group: zarr.Group, values: NDArray[Any], names: tuple[str, ...]) -> None:
    from zarr.codecs import BloscCodec

    codec = BloscCodec(cname="zstd", clevel=5, shuffle="shuffle")
    group.create_array("0", data=values, chunks=values.shape, compressors=codec, dimension_names=names)

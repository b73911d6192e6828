"""A slide's attention map on disk: an OME-Zarr image that lies where it belongs on the slide."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UsageError
from stages.disk import ForeignFolderError, holds_only, new_folder

if TYPE_CHECKING:
    from stages.geometry import Mpp, Raster


def write_attention_zarr(path: Path, attention: NDArray[np.floating], raster: Raster, *, mpp: Mpp) -> None:
    """Write an attention map (rows, columns) as an OME-Zarr 0.5 image of one level: array "0", float32, axes y, x.

    Its scale and translation place it in µm in the frame of the slide's level 0, whose origin is the centre of the
    first pixel: there a pyramid of the slide lies, too. The attribute ``saccade`` places cell (column u, row v) by its
    edges: ``x_level0 = x + scale_x * u``, ``y_level0 = y + scale_y * v``, in level-0 pixels.

    Args:
        path: the image's folder.
        attention: the map.
        raster: of its cells.
        mpp: µm per level-0 pixel.

    Raises:
        ValueError: the map's shape is not the raster's.
        UsageError: something is at ``path`` that we did not write.
    """
    import zarr
    from zarr.storage import LocalStore  # zarr takes text for an address and cuts it at "#" and "?"

    from stages.pyramid.layout import multiscale

    if attention.shape != raster.shape:
        raise ValueError(f"attention of shape {attention.shape} on a raster of shape {raster.shape}")
    place: dict[str, Any] = {key: getattr(raster, key) for key in ("x", "y", "scale_x", "scale_y")}
    image = multiscale("attention", [raster], mpp, channels=False)
    attributes = {"ome": {"version": "0.5", "multiscales": [image]}, "saccade": {"frame": "level0", **place}}
    try:
        with new_folder(path, ours=_is_ours) as temporary:
            group = zarr.create_group(LocalStore(temporary), attributes=attributes, zarr_format=3)
            array = group.create_array(
                "0",
                shape=attention.shape,
                chunks=tuple(min(side, 1024) for side in attention.shape),
                dtype="float32",
                dimension_names=("y", "x"),
            )
            array[:] = attention.astype(np.float32)
    except ForeignFolderError as exc:
        raise UsageError(f"{exc}; move it or choose another --out") from exc


def read_attention_zarr(path: Path) -> tuple[NDArray[np.float32], Raster]:
    """The attention map (rows, columns) that `write_attention_zarr` wrote, and its raster.

    Maps of before it was an image are read, too: arrays with the same attribute.

    Raises:
        UsageError: there is none.
    """
    import zarr
    from zarr.storage import LocalStore

    from stages.geometry import Raster

    place = _place(path)
    if place is None:
        raise UsageError(f"no attention map at {path}; expected one that `saccade run` wrote: run the slide again")
    folder = path / "0" if (path / "0").is_dir() else path
    attention = np.asarray(zarr.open_array(LocalStore(folder, read_only=True), mode="r")[:], np.float32)
    rows, columns = attention.shape
    return attention, Raster(place["x"], place["y"], place["scale_x"], place["scale_y"], columns, rows)


def _is_ours(path: Path) -> bool:
    """Whether a folder is an attention map and nothing that a user put into it."""
    return _place(path) is not None and holds_only(path, ("zarr.json", "c"))


def _place(path: Path) -> dict[str, float] | None:
    try:
        place = json.loads((path / "zarr.json").read_bytes())["attributes"]["saccade"]
        return {key: float(place[key]) for key in ("x", "y", "scale_x", "scale_y")}
    except (OSError, ValueError, KeyError, TypeError):
        return None

"""A slide's attention map on disk: a zarr array that says where it lies on the slide."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UsageError
from stages.disk import ForeignFolderError, holds_only, new_folder

if TYPE_CHECKING:
    from stages.geometry import Raster


def write_attention_zarr(path: Path, attention: NDArray[np.floating], raster: Raster) -> None:
    """Write an attention map (rows, columns) as a zarr v3 array of float32.

    Its attribute ``saccade`` places cell (column u, row v) on the slide's level-0 frame by its edges:
    ``x_level0 = x + scale_x * u``, ``y_level0 = y + scale_y * v``, in level-0 pixels.

    Raises:
        ValueError: the map's shape is not the raster's.
        UsageError: something is at ``path`` that we did not write.
    """
    import zarr
    from zarr.storage import LocalStore  # zarr takes text for an address and cuts it at "#" and "?"

    if attention.shape != raster.shape:
        raise ValueError(f"attention of shape {attention.shape} on a raster of shape {raster.shape}")
    place: dict[str, Any] = {key: getattr(raster, key) for key in ("x", "y", "scale_x", "scale_y")}
    try:
        with new_folder(path, ours=_is_ours) as temporary:
            array = zarr.create_array(
                store=LocalStore(temporary),
                shape=attention.shape,
                chunks=tuple(min(side, 1024) for side in attention.shape),
                dtype="float32",
                dimension_names=("y", "x"),
                attributes={"saccade": {"frame": "level0", **place}},
                zarr_format=3,
            )
            array[:] = attention.astype(np.float32)
    except ForeignFolderError as exc:
        raise UsageError(f"{exc}; move it or choose another --out") from exc


def read_attention_zarr(path: Path) -> tuple[NDArray[np.float32], Raster]:
    """The attention map (rows, columns) that `write_attention_zarr` wrote, and its raster.

    Raises:
        UsageError: there is none.
    """
    import zarr
    from zarr.storage import LocalStore

    from stages.geometry import Raster

    place = _place(path)
    if place is None:
        raise UsageError(f"no attention map at {path}; expected one that `saccade run` wrote: run the slide again")
    attention = np.asarray(zarr.open_array(LocalStore(path, read_only=True), mode="r")[:], np.float32)
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

"""A slide's maps on disk, of attention and of evidence: OME-Zarr images that lie where they belong on the slide."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
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
    if attention.shape != raster.shape:
        raise ValueError(f"attention of shape {attention.shape} on a raster of shape {raster.shape}")
    _write_image(path, "attention", {"0": attention.astype(np.float32)}, raster, mpp, {})


def write_evidence_zarr(
    path: Path,
    evidence: NDArray[np.floating],
    told: NDArray[np.uint8],
    raster: Raster,
    *,
    classes: Sequence[str],
    mpp: Mpp,
) -> None:
    """Write a map of signed evidence (C, rows, columns), what each cell adds to each class's log-odds, as an OME-Zarr
    0.5 image as `write_attention_zarr` does: array "0", float32, axes c, y, x.

    A second array, "told" (rows, columns) uint8, says what a cell's value is told from: 1 its own patch, 2 what the
    model knows of it at its coarse scale, 3 patches that look like it on the thumbnail, 0 that it is no tissue. The
    attribute ``saccade`` has the ``classes``, too.

    Args:
        path: the image's folder.
        evidence, told: the maps.
        raster: of their cells.
        classes: names of the C classes.
        mpp: µm per level-0 pixel.

    Raises:
        ValueError: the maps' shapes are not the raster's.
        UsageError: something is at ``path`` that we did not write.
    """
    if evidence.shape[1:] != raster.shape or told.shape != raster.shape:
        raise ValueError(f"maps of shapes {evidence.shape} and {told.shape} on a raster of shape {raster.shape}")
    arrays: dict[str, NDArray[Any]] = {"0": evidence.astype(np.float32), "told": told.astype(np.uint8)}
    _write_image(path, "evidence", arrays, raster, mpp, {"classes": list(classes)})


def _write_image(
    path: Path, name: str, arrays: Mapping[str, NDArray[Any]], raster: Raster, mpp: Mpp, said: Mapping[str, Any]
) -> None:
    from stages.pyramid.layout import multiscale

    place: dict[str, Any] = {key: getattr(raster, key) for key in ("x", "y", "scale_x", "scale_y")}
    image = multiscale(name, [raster], mpp, channels=arrays["0"].ndim == 3)
    attributes = {"ome": {"version": "0.5", "multiscales": [image]}, "saccade": {"frame": "level0", **place, **said}}
    try:
        with new_folder(path, ours=_is_ours) as temporary:
            group = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
            (temporary / "zarr.json").write_text(json.dumps(group), encoding="utf-8")
            for key, values in arrays.items():
                _write_array(temporary / key, values)
    except ForeignFolderError as exc:
        raise UsageError(f"{exc}; move it or choose another --out") from exc


def _write_array(folder: Path, values: NDArray[Any]) -> None:
    """Write a zarr v3 array of one chunk; through zarr-python, whose threads wait for each other, it takes three times
    as long, which was a fifth of all that writing a small slide's results takes. Blosc of imagecodecs, which pictures
    need anyway: importing all of numcodecs takes longer than it does."""
    import imagecodecs

    kind, chunk = values.dtype, folder.joinpath("c", *["0"] * values.ndim)
    chunk.parent.mkdir(parents=True)
    (folder / "zarr.json").write_text(json.dumps(_metadata(values.shape, kind)), encoding="utf-8")
    # an array, for of mere bytes Blosc would not know the values' size
    little: Any = np.ascontiguousarray(values, kind.newbyteorder("<"))
    chunk.write_bytes(imagecodecs.blosc_encode(little, level=5, compressor="zstd", shuffle="shuffle"))


def _metadata(shape: tuple[int, ...], kind: np.dtype[Any]) -> dict[str, Any]:
    """What zarr.json says of such an array."""
    blosc = {"cname": "zstd", "clevel": 5, "shuffle": "shuffle", "typesize": kind.itemsize, "blocksize": 0}
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": shape,
        "data_type": kind.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": shape}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": [
            {"name": "bytes", "configuration": {"endian": "little"}},
            {"name": "blosc", "configuration": blosc},
        ],
        "attributes": {},
        "dimension_names": ("c", "y", "x")[-len(shape) :],
        "storage_transformers": [],
    }


def read_evidence_zarr(path: Path) -> tuple[NDArray[np.float32], NDArray[np.uint8], Raster]:
    """The maps that `write_evidence_zarr` wrote, and their raster.

    Raises:
        UsageError: there are none.
    """
    evidence, raster = _read_map(path, "evidence")
    return evidence, np.asarray(_read_array(path / "told"), np.uint8), raster


def read_attention_zarr(path: Path) -> tuple[NDArray[np.float32], Raster]:
    """The attention map (rows, columns) that `write_attention_zarr` wrote, and its raster.

    Maps of before it was an image are read, too: arrays with the same attribute.

    Raises:
        UsageError: there is none.
    """
    return _read_map(path, "attention")


def _read_map(path: Path, name: str) -> tuple[NDArray[np.float32], Raster]:
    from stages.geometry import Raster

    place = _place(path)
    if place is None:
        raise UsageError(f"no {name} map at {path}; expected one that `saccade run` wrote: run the slide again")
    folder = path / "0" if (path / "0").is_dir() else path
    values = np.asarray(_read_array(folder), np.float32)
    rows, columns = values.shape[-2:]
    return values, Raster(place["x"], place["y"], place["scale_x"], place["scale_y"], columns, rows)


def _read_array(folder: Path) -> NDArray[Any]:
    """A zarr array as `_write_array` writes it; others through zarr, which takes longer to import than a picture.

    Raises:
        OSError, ValueError: it is gone, or damaged.
    """
    metadata = json.loads((folder / "zarr.json").read_bytes())
    shape, kind = tuple(metadata["shape"]), np.dtype(metadata["data_type"])
    if metadata == json.loads(json.dumps(_metadata(shape, kind))):
        import imagecodecs

        chunk = folder.joinpath("c", *["0"] * len(shape)).read_bytes()
        found, held = (int.from_bytes(chunk[at : at + 4], "little") for at in (4, 12))  # as Blosc's header says
        try:
            if found != math.prod(shape) * kind.itemsize or held != len(chunk):
                raise ValueError(f"{held} bytes of {found}")
            return np.frombuffer(imagecodecs.blosc_decode(chunk), kind.newbyteorder("<")).reshape(shape)
        except (imagecodecs.BloscError, ValueError) as exc:
            raise ValueError(f"{folder} is damaged: run the slide again") from exc
    import zarr
    from zarr.storage import LocalStore

    return np.asarray(zarr.open_array(LocalStore(folder, read_only=True), mode="r")[:])


def _is_ours(path: Path) -> bool:
    """Whether a folder is an attention map and nothing that a user put into it."""
    return _place(path) is not None and holds_only(path, ("zarr.json", "c", "told"))


def _place(path: Path) -> dict[str, float] | None:
    try:
        place = json.loads((path / "zarr.json").read_bytes())["attributes"]["saccade"]
        return {key: float(place[key]) for key in ("x", "y", "scale_x", "scale_y")}
    except (OSError, ValueError, KeyError, TypeError):
        return None

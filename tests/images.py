"""OME-Zarr images as other programs write them, by zarr-python; `FOREIGN` names the layouts that are about."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numcodecs import Blosc, Zlib, Zstd
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec
from zarr.storage import LocalStore

FOREIGN: dict[str, dict[str, Any]] = {
    "ome-zarr 0.4": {"version": "0.4", "paths": "s{}", "chunk": 2000, "compressors": Zstd(0)},
    "ome-zarr 0.5": {"version": "0.5", "paths": "s{}", "chunk": 2000, "compressors": ZstdCodec(level=0)},
    "ngff-zarr 0.4": {"version": "0.4", "paths": "scale{}/image", "compressors": Zstd(0)},
    "ngff-zarr 0.6": {"version": "0.6", "paths": "scale{}/image"},
    "bioformats2raw": {
        "version": "0.4",
        "axes": "tczyx",
        "planar": True,
        "inside": "0",
        "translated": False,
        "compressors": Blosc("lz4", 5, Blosc.SHUFFLE),
        "unit": "µm",
    },
    "bioformats2raw 0.2": {"version": "0.2", "axes": "tczyx", "planar": True, "inside": "0", "unit": None},
    "0.3": {"version": "0.3", "separator": ".", "compressors": Zlib(1)},
    "interleaved": {"version": "0.4", "axes": "yxc", "order": "F", "compressors": None},
    "transposed": {"version": "0.5", "axes": "xyc", "unit": "millimeter"},
    "shards": {"version": "0.5", "axes": "czyx", "shard": 480, "compressors": BloscCodec(), "unit": "nanometer"},
    "tiny chunks": {"version": "0.5", "chunk": 33, "separator": ".", "compressors": GzipCodec()},
}
"""Arguments of `write_image`; each states 0.5 µm/px, but for 0.2 and 0.3, which have no scales."""

_PER_UM = {"nanometer": 1000, "millimeter": 0.001}


def shrunk(image: NDArray[Any], factor: int) -> NDArray[Any]:
    """Means of ``factor x factor`` pixels (height, width, channels); what is left at the far edges is dropped."""
    height, width = image.shape[0] // factor, image.shape[1] // factor
    cut = image[: height * factor, : width * factor]
    means = cut.reshape(height, factor, width, factor, -1).mean((1, 3)).round()
    return means.astype(image.dtype)


def write_image(
    folder: Path,
    image: NDArray[Any],
    *,
    version: str = "0.5",
    axes: str = "cyx",
    factors: Sequence[int] = (1, 2, 4),
    paths: str = "{}",
    inside: str = "",
    chunk: int = 240,
    shard: int | None = None,
    planar: bool = False,
    separator: str = "/",
    compressors: Any = "auto",
    order: str = "C",
    unit: str | None = "micrometer",
    mpp: float = 0.5,
    translated: bool = True,
    lengths: dict[str, int] | None = None,
    omero: Sequence[tuple[str, str]] = (),
    **more: Any,
) -> Path:
    """Write an image (height, width, channels) with its means as levels, and return its folder.

    Args:
        folder: where.
        image: of whatever type.
        version, axes: of the format, and of the arrays.
        factors: how many times coarser each level is, in the order in which they are listed.
        paths, inside: of the levels, and of the image in the folder.
        chunk, shard: sides in pixels.
        planar: a chunk for each channel.
        separator, compressors, order: of the arrays.
        unit: as the metadata has it; scales are in it.
        mpp: µm/px of the finest level.
        translated: whether the levels' first pixels are placed by their centres, or not at all.
        lengths: of axes beside y, x and c.
        omero: (label, colour) of each channel.
        more: attributes of the group.
    """
    v3 = version >= "0.5"
    group = zarr.create_group(LocalStore(folder / inside), zarr_format=3 if v3 else 2)
    for i, factor in enumerate(factors):
        level = image if factor == 1 else shrunk(image, factor)
        counts = {"t": 1, "z": 1, "c": level.shape[2], "y": level.shape[0], "x": level.shape[1], **(lengths or {})}
        shape = [counts[axis] for axis in axes]
        sides = [chunk if axis in "yx" else 1 if planar else counts[axis] for axis in axes]
        kept = [axis for axis in axes if axis in "yxc"]
        stored = np.transpose(level if "c" in axes else level[..., 0], ["yxc".index(axis) for axis in kept])
        for at, axis in enumerate(axes):
            if axis not in "yxc":
                stored = np.repeat(np.expand_dims(stored, at), counts[axis], at)
        encoding = {"name": "default" if v3 else "v2", "separator": separator}
        array = group.create_array(
            paths.format(i),
            shape=shape,
            chunks=sides if shard else [min(side, full) for side, full in zip(sides, shape, strict=True)],
            shards=[shard if axis in "yx" else side for axis, side in zip(axes, sides, strict=True)] if shard else None,
            dtype=image.dtype,
            compressors=compressors,
            order=None if v3 else order,
            chunk_key_encoding=encoding,
            dimension_names=list(axes) if v3 else None,
        )
        array[:] = stored
    group.attrs.update(_attributes(version, axes, factors, paths, unit, mpp, translated, omero) | more)
    if inside:
        zarr.open_group(LocalStore(folder), mode="a", zarr_format=2, attributes={"bioformats2raw.layout": 3})
    return folder


def _attributes(
    version: str,
    axes: str,
    factors: Sequence[int],
    paths: str,
    unit: str | None,
    mpp: float,
    translated: bool,
    omero: Sequence[tuple[str, str]],
) -> dict[str, Any]:
    side = mpp * _PER_UM.get(str(unit), 1)
    kinds = {"c": "channel", "t": "time"}
    datasets: list[dict[str, Any]] = []
    for i, factor in enumerate(factors):
        steps: list[dict[str, Any]] = [
            {"type": "scale", "scale": [factor * side if axis in "yx" else 1.0 for axis in axes]}
        ]
        if translated:
            move = (factor - 1) / 2 * side
            steps.append({"type": "translation", "translation": [move if axis in "yx" else 0.0 for axis in axes]})
        path = paths.format(i)
        if version == "0.6":
            steps = [{"type": "sequence", "input": {"path": path}, "output": {"name": "own"}, "transformations": steps}]
        datasets.append({"path": path, **({"coordinateTransformations": steps} if version >= "0.4" else {})})
    named: list[dict[str, Any]] = [{"name": axis, "type": kinds.get(axis, "space")} for axis in axes]
    for axis in named:
        if unit and axis["type"] == "space":
            axis["unit"] = unit
    image: dict[str, Any] = {"name": "image", "datasets": datasets}
    if version == "0.6":
        image["coordinateSystems"] = [{"name": "other", "axes": []}, {"name": "own", "axes": named}]
    elif version >= "0.4":
        image["axes"] = named
    elif version == "0.3":
        image["axes"] = list(axes)
    described: dict[str, Any] = {"multiscales": [image]}
    if omero:
        described["omero"] = {"channels": [{"label": label, "color": colour} for label, colour in omero]}
    if version >= "0.5":
        return {"ome": {"version": version, **described}}
    image["version"] = version
    return described


def change_attributes(folder: Path, old: str, new: str) -> Path:
    """Replace some text of a group's metadata, which is valid JSON before and after."""
    path = next(path for name in ("zarr.json", ".zattrs") if (path := folder / name).exists())
    text = json.dumps(json.loads(path.read_text()))
    assert old in text
    path.write_text(json.dumps(json.loads(text.replace(old, new))))
    return folder

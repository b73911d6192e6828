"""The patches that were read of a slide, and what each of them says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.output.bags import read_boxes_level0
from pipeline.output.documents import read_json
from stages.geometry import Box, Mpp


@dataclass(frozen=True, slots=True)
class Samples:
    """Patches that were read.

    Attributes:
        boxes: (N, 4) x, y, width, height, level-0 pixels.
        cells: (N,), row-major indices on the attention map.
        attention: (N,) of each patch's cell.
        weights: (N,), such that ``weight attention`` is a patch's share in the estimate.
        names: what contributions speak for; none where an earlier version told of none.
        contributions, half_widths: (N, C), of each patch to each of these, with half of its 95 % interval.
        unit: of contributions.
        size: (width, height) of the slide, level-0 pixels.
        bounds: what was scanned of it.
        mpp: µm per level-0 pixel.
    """

    boxes: NDArray[np.float64]
    cells: NDArray[np.int64]
    attention: NDArray[np.float64]
    weights: NDArray[np.float64]
    names: Sequence[str]
    contributions: NDArray[np.float64]
    half_widths: NDArray[np.float64]
    unit: str
    size: tuple[int, int]
    bounds: Box
    mpp: Mpp


def read_samples(path: Path) -> Samples:
    """What `pipeline.output.bags.write_samples_h5` wrote, in this version or an earlier one.

    Raises:
        OSError, KeyError, ValueError, TypeError: it is missing or damaged.
    """
    import h5py

    boxes = read_boxes_level0(path)
    with h5py.File(path) as file:
        said = file["coords"].attrs
        told = file.get("contribution")
        names = [str(name) for name in told.attrs["classes"]] if told is not None else []
        none = np.zeros((len(boxes), 0))
        size = (int(said["level0_width"]), int(said["level0_height"]))
        return Samples(
            boxes=boxes,
            cells=np.asarray(file["cell"][:], np.int64),
            attention=np.asarray(file["attention"][:], np.float64),
            weights=np.asarray(file["weight"][:], np.float64),
            names=names,
            contributions=none if told is None else np.asarray(told[:], np.float64),
            half_widths=none if told is None else np.asarray(file["contribution_half_width"][:], np.float64),
            unit="log-odds" if told is None else str(told.attrs.get("unit", "log-odds")),
            size=size,
            bounds=Box(*(int(value) for value in said.get("bounds_level0", (0, 0, *size)))),
            mpp=Mpp(*(float(value) for value in said["mpp_level0"])),
        )


def read_features(path: Path) -> NDArray[np.float32]:
    """Features (N, D) of the same patches.

    Raises:
        OSError, KeyError, ValueError, TypeError: they are missing or damaged.
    """
    import h5py

    with h5py.File(path) as file:
        return np.asarray(file["features"][:], np.float32)


def origin_of(folder: Path, commit: Mapping[str, Any], bounds: Box) -> tuple[int, int]:
    """The level-0 point that QuPath counts from: versions before it was in the commit mark told it in overlay.geojson,
    or told the bounds alone.

    Args:
        folder: of a slide's results.
        commit: what its prediction.json says.
        bounds: of the slide.
    """
    told = commit.get("origin_level0")
    if told is None:
        frame = (read_json(folder / "overlay.geojson") or {}).get("saccade")
        told = frame.get("origin_level0") if isinstance(frame, dict) else None
    x, y = told or (bounds.x, bounds.y)
    return int(x), int(y)

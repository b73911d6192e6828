"""Bags: the patches that were read of a slide, in the form that CLAM, TRIDENT and torchmil open."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stages.disk import new_file
from stages.exports.h5 import write_h5

if TYPE_CHECKING:
    from stages.prediction.attribution import Attribution
    from stages.slide.facts import SlideFacts


def write_samples_h5(
    path: Path,
    *,
    slide_id: str,
    facts: SlideFacts,
    patch_px: int,
    patch_mpp: float,
    boxes_level0: ArrayLike,
    cells: ArrayLike,
    features: ArrayLike,
    attention: ArrayLike,
    weights: ArrayLike,
    attribution: Attribution,
    names: Sequence[str],
    unit: str,
    encoder: str | None = None,
) -> None:
    """Write the patches that were read as a bag that CLAM, TRIDENT and torchmil open, with our weights beside.

    Datasets: ``coords`` (N, 2) int64, level-0 top-left corners; ``features`` (N, D) float32; ``attention`` (N,), of
    each patch's cell; ``weight`` (N,), such that ``sum_m weight_m attention_m features_m`` is the slide's embedding;
    ``cell`` (N,), row-major index into attention.zarr; ``contribution`` (N, C), what each patch adds to the log-odds of
    each class, and ``contribution_half_width`` (N, C), of its 95 % interval. Attributes of ``contribution`` are the
    ``classes``, the ``unit``, and what adds up with its rows to the prediction's ``log_odds`` (``statistic`` where the
    unit is another): ``constant`` and ``unread`` (C,), of the cells that were not read. Attributes of ``coords`` are
    CLAM's and TRIDENT's, and ``mpp_level0`` (x, y) and ``target_mpp`` in µm/px; ``frame`` says that coordinates are
    OpenSlide's level-0 pixels,
    whatever the slide's bounds (``bounds_level0``: x, y, width, height). Magnifications are ``10 / mpp``, unrounded, so
    that a reader who divides them gets the true scale. Where the slide's pixels are not square, ``patch_size_level0``
    and ``level0_magnification`` are pairs (x, y): a reader that knows squares only fails instead of cutting wrong
    ones. ``patch_level`` is the level whose scale is nearest to the patches'.

    Args:
        path: the file.
        slide_id: the slide's name.
        facts: what the slide is; its resolution must be known.
        patch_px: side of a patch in its own pixels.
        patch_mpp: µm per pixel of a patch.
        boxes_level0: (x, y, width, height) of each patch in level-0 pixels, (N, 4).
        cells, features, attention, weights: as above.
        attribution: of the prediction to the patches.
        names: what the C statistics speak for: of classes, theirs.
        unit: what contributions are in.
        encoder: what made the features, an attribute of them; None: nobody knows a name for it.

    Raises:
        ValueError: the lengths differ.
    """
    boxes = np.asarray(boxes_level0, np.float64).reshape(-1, 4)
    columns: dict[str, NDArray[Any]] = {
        "coords": np.rint(boxes[:, :2]).astype(np.int64),
        "features": np.asarray(features, np.float32),
        "attention": np.asarray(attention, np.float32),
        "weight": np.asarray(weights, np.float64),
        "cell": np.asarray(cells, np.int64),
        "contribution": attribution.patches,
        "contribution_half_width": attribution.patch_half_widths,
    }
    mpp = facts.require_mpp()
    across, down = patch_mpp / mpp.x, patch_mpp / mpp.y
    square = math.isclose(across, down, rel_tol=1e-3)  # scanners' own differences stay below that
    area = math.log(across * down)
    level = min(
        range(len(facts.levels)), key=lambda i: abs(math.log(facts.levels[i].scale_x * facts.levels[i].scale_y) - area)
    )
    full, chosen = facts.levels[0], facts.levels[level]
    attributes = {
        "name": slide_id,
        "patch_size": patch_px,
        "patch_size_level0": round(patch_px * across) if square else (round(patch_px * across), round(patch_px * down)),
        "patch_level": level,
        "downsample": (chosen.scale_x, chosen.scale_y),
        "level_dim": (chosen.width, chosen.height),
        "downsampled_level_dim": (chosen.width, chosen.height),
        "level0_width": full.width,
        "level0_height": full.height,
        "level0_magnification": 10 / mpp.x if square else (10 / mpp.x, 10 / mpp.y),
        "target_magnification": 10 / patch_mpp,
        "mpp_level0": (mpp.x, mpp.y),
        "target_mpp": patch_mpp,
        "frame": "level0",
        "bounds_level0": (facts.bounds.x, facts.bounds.y, facts.bounds.width, facts.bounds.height),
        "overlap": 0,
        "save_path": str(path.parent).encode("utf-8", "backslashreplace").decode(),
        "savetodir": str(path.parent).encode("utf-8", "backslashreplace").decode(),
    }
    total = "log_odds" if unit == "log-odds" else "statistic"
    parts = {total: attribution.statistics, "constant": attribution.constant, "unread": attribution.unread}
    said: dict[str, dict[str, Any]] = {
        "coords": attributes,
        "features": {"encoder": encoder},
        "contribution": {"classes": list(names), "unit": unit, **parts},
    }
    with new_file(path) as temporary:
        write_h5(temporary, columns, said)


def read_boxes_level0(path: Path) -> NDArray[np.float64]:
    """(x, y, width, height) in level-0 pixels, (N, 4), of the patches of a bag that `write_samples_h5` wrote."""
    import h5py

    with h5py.File(path) as file:
        corners, said = file["coords"][:], file["coords"].attrs
        sides = said["patch_size"] * said["target_mpp"] / np.asarray(said["mpp_level0"], np.float64)
        return np.concatenate([corners, np.broadcast_to(sides, corners.shape)], axis=1)


def read_patches(path: Path) -> tuple[NDArray[np.float32], NDArray[np.int64], dict[str, Any], str | None]:
    """Of a bag that `write_samples_h5` wrote: features (N, D), cells (N,), attributes of ``coords``, and what made the
    features; None where nobody knows.

    Raises:
        OSError, KeyError: it is missing or damaged.
    """
    import h5py

    with h5py.File(path) as file:
        features, encoder = file["features"], file["features"].attrs.get("encoder")
        cells = np.asarray(file["cell"][:], np.int64)
        return (
            np.asarray(features[:], np.float32),
            cells,
            dict(file["coords"].attrs),
            None if encoder is None else str(encoder),
        )

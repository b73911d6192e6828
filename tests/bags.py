"""Bags as CLAM, TRIDENT and our own runs write them, with a signal that a head can find."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from numpy.typing import NDArray

Kind = Literal["clam", "trident", "ours"]
DIM, PX, SIDE = 12, 128, 256
"""Length of features; sides of a tile in its own pixels and in level-0 pixels, which are 0.5 µm."""


def corners_of(count: int, *, columns: int = 6, step: int = SIDE, at: int = 1024) -> NDArray[np.int64]:
    """Corners (N, 2) of tiles on a grid."""
    index = np.arange(count)
    return np.stack([index % columns, index // columns], 1) * step + at


def features_of(count: int, *, positive: float, seed: int, dim: int = DIM) -> NDArray[np.float32]:
    """Noise; two directions tell ``positive``."""
    rng = np.random.default_rng(seed)
    found = rng.normal(size=(count, dim)).astype(np.float32)
    found[:, :2] += 2 * positive
    return found


def write_bag(
    path: Path,
    corners: NDArray[Any],
    features: NDArray[Any],
    kind: Kind = "trident",
    *,
    told: dict[str, Any] | None = None,
    encoder: str | None = None,
) -> Path:
    """Write a bag; of CLAM's also its file in ``patches``, beside the bag's folder.

    Args:
        path: the file.
        corners, features: of its tiles.
        kind: whose form it has.
        told: attributes of the coordinates in place of the usual ones.
        encoder: in whose folder TRIDENT wrote it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    usual: dict[str, Any] = {"patch_size": PX, "patch_size_level0": SIDE, "target_magnification": 10, "overlap": 0}
    if kind == "ours":
        usual = {"patch_size": PX, "patch_size_level0": SIDE, "target_mpp": 1.0, "mpp_level0": (0.5, 0.5)}
    if kind == "clam":
        patches = path.parent.parent / "patches"
        patches.mkdir(exist_ok=True)
        with h5py.File(patches / path.name, "w") as file:
            file["coords"] = corners
            told = {"patch_size": PX, "patch_level": 1, "downsample": (2.0, 2.0)} if told is None else told
            file["coords"].attrs.update(told)
    with h5py.File(path, "w") as file:
        file["coords"] = corners
        file["features"] = features[None] if kind == "trident" else features
        if kind != "clam":
            file["coords"].attrs.update(usual if told is None else told)
        if encoder is not None:
            file["features"].attrs["savetodir"] = f"/data/job/20x_256px/features_{encoder}"
    return path


def write_cohort(
    folder: Path,
    *,
    slides: int = 16,
    kind: Kind = "trident",
    label: Callable[[int, float], dict[str, Any]] | None = None,
) -> Path:
    """Bags of patients of two kinds in ``folder/bags``, the last third held out, and their table.

    Args:
        folder: the folder.
        slides: how many.
        kind: whose form they have.
        label: of a patient's number and kind, what the table says; None: a class.
    """
    rows = []
    for i in range(slides):
        count, positive = 20 + 3 * (i % 4), float(i % 2)
        bag = features_of(count, positive=positive, seed=i)
        write_bag(folder / "bags" / f"s{i}.h5", corners_of(count), bag, kind)
        told = {"label": ("normal", "tumour")[i % 2]} if label is None else label(i, positive)
        split = "train" if 3 * i < 2 * slides else "test"
        rows.append({"slide": f"s{i}.svs", "patient": f"p{i}", **told, "split": split, "mpp": 0.5})
    with (folder / "cohort.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    return folder / "cohort.csv"

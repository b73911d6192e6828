"""The patches of a slide with their features, in the folders of CLAM, TRIDENT and torchmil.

Each file has the patches' weights beside the features, ``weight``: patches that were drawn stand for others by them,
and whoever leaves them aside has the features of a few places, not of the slide.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.exports.h5 import write_h5


@dataclass(frozen=True, slots=True, eq=False)
class Patches:
    """The patches that were read of a slide.

    Attributes:
        slide_id: the slide's name.
        coords: (N, 2) int64, top-left corners x, y in level-0 pixels of the whole slide.
        features: (N, D) float32.
        attention: (N,), of each patch's cell.
        weight: (N,), such that ``weight attention`` is a patch's share in the estimate.
        said: of ``coords``, see `pipeline.output.bags.write_samples_h5`: sizes, scales and frame.
        encoder: what made the features; None: nobody knows.
    """

    slide_id: str
    coords: NDArray[np.int64]
    features: NDArray[np.float32]
    attention: NDArray[np.float64]
    weight: NDArray[np.float64]
    said: Mapping[str, Any]
    encoder: str | None


def write_clam(h5: Path, pt: Path, patches: Patches) -> None:
    """Write CLAM's ``h5_files/<slide>.h5``, ``features`` and ``coords``, and ``pt_files/<slide>.pt``, the features as a
    tensor: what ``Generic_MIL_Dataset`` loads."""
    import torch

    _write_bag(h5, patches, {**patches.said, "save_path": "patches"})
    data = io.BytesIO()  # of a full disk torch says only that a position is unexpected
    torch.save(torch.from_numpy(patches.features), data)
    pt.write_bytes(data.getbuffer())


def write_trident(coords: Path, features: Path, patches: Patches, *, folder: str) -> None:
    """Write TRIDENT's ``patches/<slide>_patches.h5``, of which it makes features of other encoders, and
    ``features_<encoder>/<slide>.h5``.

    Args:
        coords, features: the files.
        patches: what they hold.
        folder: that the features' file will lie in, which tells TRIDENT's readers the encoder.
    """
    write_h5(coords, {"coords": patches.coords}, {"coords": {**patches.said, "savetodir": "patches"}})
    _write_bag(features, patches, {**patches.said, "savetodir": "patches"}, savetodir=folder, name=patches.slide_id)


def write_torchmil(features: Path, coords: Path, patches: Patches) -> None:
    """Write torchmil's ``features/<slide>.h5`` and ``coords/<slide>.h5``: what ``ProcessedMILDataset`` loads."""
    _write_bag(features, patches, patches.said)
    write_h5(coords, {"coords": patches.coords}, {"coords": patches.said})


def write_torchmil_label(path: Path, label: float) -> None:
    """Write torchmil's ``labels/<slide>.h5``: the number of the class, or the value."""
    kind = np.int64 if isinstance(label, int) else np.float32
    write_h5(path, {"labels": np.array([label], kind)}, {})


def _write_bag(path: Path, patches: Patches, said: Mapping[str, Any], **of_features: str) -> None:
    columns: dict[str, NDArray[Any]] = {
        "coords": patches.coords,
        "features": patches.features,
        "attention": patches.attention.astype(np.float32),
        "weight": patches.weight,
    }
    write_h5(path, columns, {"coords": said, "features": {"encoder": patches.encoder, **of_features}})

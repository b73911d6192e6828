"""Bags of CLAM, TRIDENT, torchmil and of our own runs: ``coords`` and ``features``, and what their attributes mean.

TRIDENT writes both into one file, with the tiles' size as attributes of ``coords``. CLAM's features come without: their
tiles' size is an attribute of ``coords`` in the file of the same name in its folder ``patches``. torchmil's coordinates
are in the file of the same name in the folder ``coords``, beside that of the features, and both may be ``.npy``. Which
encoder made the features TRIDENT tells by the folder that it wrote them to, ``features_<encoder>``, we by an attribute
of ``features``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.disk import open_regular, refusal
from stages.geometry import Mpp
from stages.slide.facts import SlideError

BAG_SUFFIXES = (".h5", ".hdf5")
READ_SUFFIXES = (*BAG_SUFFIXES, ".npy")
"""Of bags by their names; of others than `BAG_SUFFIXES` not every file is a bag."""
_FEATURES_IN = "features_"


class BagError(SlideError):
    """A bag that cannot be used, and what to do."""


@dataclass(frozen=True, slots=True, eq=False)
class Bag:
    """The tiles of a slide.

    Attributes:
        path: the file.
        coords: top-left corners (N, 2) x, y in level-0 pixels, in OpenSlide's frame.
        features: (N, D).
        patch_px: side of a tile in its own pixels.
        side_level0: sides (x, y) of a tile in level-0 pixels; None: only ``mpp`` tells them.
        mpp: µm per pixel of a tile as the bag has it; None: only ``side_level0`` tells it.
        mpp_level0: µm per level-0 pixel as the bag has it; None: it does not say.
        encoder: what made the features, as the bag calls it; None: it does not say.
        size_level0: (width, height) of the slide in level-0 pixels as the bag has it; (0, 0): it does not say.
        coords_in: file of the coordinates; None: the same.
    """

    path: Path
    coords: NDArray[np.float64]
    features: NDArray[np.float32]
    patch_px: int
    side_level0: tuple[float, float] | None
    mpp: float | None
    mpp_level0: Mpp | None = None
    encoder: str | None = None
    size_level0: tuple[int, int] = (0, 0)
    coords_in: Path | None = None

    def __len__(self) -> int:
        return len(self.coords)

    def mpp_on(self, slide: Mpp) -> float:
        """µm per pixel of a tile on a slide of so many µm per level-0 pixel: by the tile's extent where it is told,
        which is what was read, whatever magnification the bag calls it by."""
        if self.side_level0 is not None:
            across, down = self.side_level0
            return math.sqrt(across * slide.x * down * slide.y) / self.patch_px
        assert self.mpp is not None
        return self.mpp

    def centres_level0(self, slide: Mpp) -> NDArray[np.float64]:
        """Centres (N, 2) of the tiles in level-0 pixels."""
        if self.side_level0 is not None:
            return self.coords + np.array(self.side_level0) / 2
        assert self.mpp is not None
        return self.coords + self.patch_px * self.mpp / np.array([slide.x, slide.y]) / 2


def read_bag(
    path: Path, *, patches: Path | None = None, patch_px: int | None = None, patch_mpp: float | None = None
) -> Bag:
    """Read a bag of CLAM, TRIDENT, torchmil or ours.

    Args:
        path: the file of the features.
        patches: file whose ``coords`` have the tiles' size, where the features' do not: CLAM's ``patches/<slide>.h5``;
            None: `find_patches` looks for it.
        patch_px, patch_mpp: pixels along a tile's side and their µm, where no file says.

    Raises:
        BagError: it cannot be read, has no coordinates or features, or of other lengths, or of no finite numbers, or
            of a part of the tiles; or nothing says how large a tile is.
    """
    if path.suffix == ".pt":
        raise BagError(f"{path} has features only: give the bags with coordinates, CLAM's h5_files")
    found, coords_in = _datasets(path), None
    if "coords" not in found and (beside := path.parent.parent / "coords" / path.name).is_file() and beside != path:
        found["coords"], coords_in = _datasets(beside)["coords"], beside
    for name in ("coords", "features"):
        if name not in found:
            have = ", ".join(found) or "nothing"
            lacks = " (coordinates only: what features are to be made of)" if have == "coords" else ""
            raise BagError(
                f"{path} has no dataset {name!r}, found {have}{lacks}: give bags that have both, as CLAM's h5_files or "
                "TRIDENT's features"
            )
    (coords, told), (features, made) = found["coords"], found["features"]
    if features.ndim == 3 and len(features) == 1:
        features = features[0]
    if coords.ndim == 3 and len(coords) == 1:
        coords = coords[0]
    if features.ndim == 1 and coords.ndim == 2 and len(features) != len(coords):
        raise BagError(
            f"{path} has one vector of {len(features)} for the whole slide, no features of its {len(coords)} tiles: "
            "give the bags of patch features"
        )
    if coords.ndim != 2 or coords.shape[1] != 2 or features.ndim != 2 or features.dtype.kind not in "fiu":
        raise BagError(
            f"{path}: expected coords (N, 2) and features (N, D), found {coords.shape} and {features.shape}: write the "
            "bag anew"
        )
    if len(coords) != len(features) or not len(coords):
        raise BagError(
            f"{path} has {len(coords)} coordinates and {len(features)} features, one of each a tile are needed: its "
            "writing was broken off, or it is of two runs; write the bag anew"
        )
    if coords.dtype.kind not in "fiu" or not np.isfinite(coords).all():
        raise BagError(f"{path} has coordinates that are no finite numbers: write the bag anew")
    if "weight" in found and not np.allclose(found["weight"][0], 1):
        raise BagError(
            f"{path} has the {len(coords)} patches that a run drew, which stand for the others by their weights: give "
            "bags of all tiles, as runs of a model of model.kind exhaustive write them"
        )
    lost = int((~np.isfinite(features.astype(np.float32))).any(1).sum())
    if lost:
        raise BagError(f"{path}: {lost} of {len(features)} tiles have NaN or infinite features: encode the slide anew")
    if not _has_size(told) and (there := patches or find_patches(path)) is not None:
        told = {**told, **_size_elsewhere(there, coords)}
    px, side, mpp = _size(path, told, patch_px, patch_mpp)
    return Bag(
        path,
        coords.astype(np.float64),
        features.astype(np.float32),
        px,
        side,
        mpp,
        mpp_level0=_mpp_level0(path, told),
        encoder=_encoder(made),
        size_level0=(_whole(told.get("level0_width")), _whole(told.get("level0_height"))),
        coords_in=coords_in,
    )


def find_bag(folder: Path, names: Sequence[str]) -> Path:
    """The bag of a slide in a folder: the first of its names, each tried with the suffixes of bags, that is there; else
    what the last would be."""
    paths = [folder / f"{name}{suffix}" for name in dict.fromkeys(names) for suffix in READ_SUFFIXES]
    return next((path for path in paths if path.exists()), paths[-len(READ_SUFFIXES)])


def find_patches(path: Path) -> Path | None:
    """CLAM's file of the same name in the folder ``patches`` beside the bag's own folder, or beside the folder of that;
    None where there is none."""
    name = f"{path.stem}.h5" if path.suffix == ".npy" else path.name
    near = (above / "patches" / name for above in (path.parent.parent, path.parent.parent.parent))
    return next((file for file in near if file.is_file() and file != path), None)


def read_features(path: Path) -> NDArray[Any]:
    """All features of a bag, (N, D) or (1, N, D), as they are stored.

    Raises:
        OSError, RuntimeError, ValueError, KeyError: it is damaged by now.
    """
    if path.suffix == ".npy":
        stored: NDArray[Any] = np.load(path, allow_pickle=False)
        return stored
    import h5py

    with h5py.File(path, "r") as file:
        return np.asarray(file["features"][()])


def _datasets(path: Path) -> dict[str, tuple[NDArray[Any], dict[str, Any]]]:
    try:
        open_regular(path).close()  # whose errors say why
    except FileNotFoundError as exc:
        raise BagError(f"there is no bag {path}: write it, or correct the folder of the bags") from exc
    except OSError as exc:
        raise BagError(f"cannot read the bag {path}: {refusal(exc, path, writing=False)}") from exc
    if path.suffix == ".npy":
        try:
            return {"coords" if path.parent.name == "coords" else "features": (np.load(path, allow_pickle=False), {})}
        except (OSError, ValueError, EOFError) as exc:
            raise BagError(f"{path} cannot be read as an array ({exc}): it is damaged; write the bag anew") from exc
    import h5py

    try:
        with h5py.File(path, "r") as file:
            names = [name for name in ("coords", "features", "weight") if isinstance(file.get(name), h5py.Dataset)]
            return {name: (file[name][()], dict(file[name].attrs)) for name in names}
    except (OSError, RuntimeError, ValueError, KeyError) as exc:
        reason = " ".join(str(exc).split())
        raise BagError(f"{path} cannot be read as HDF5 ({reason}): it is damaged or no bag; write it anew") from exc


def _has_size(told: Mapping[str, Any]) -> bool:
    return "patch_size" in told


def _size_elsewhere(patches: Path, coords: NDArray[Any]) -> dict[str, Any]:
    """The attributes of CLAM's coordinates, which must be the same as the features'."""
    found = _datasets(patches)
    if "coords" not in found:
        raise BagError(f"{patches} has no dataset 'coords': give CLAM's folder patches")
    theirs, told = found["coords"]
    same = theirs.shape == coords.shape and bool((np.sort(theirs, 0) == np.sort(coords, 0)).all())
    if not same:
        raise BagError(
            f"{patches} has {len(theirs)} tiles, other ones than the bag's {len(coords)}: they are of two runs; give "
            "the patches that the features were made of"
        )
    return told


def _size(
    path: Path, told: Mapping[str, Any], px: int | None, mpp: float | None
) -> tuple[int, tuple[float, float] | None, float | None]:
    """A tile's side in its pixels, in level-0 pixels and in µm per pixel, as far as they are told."""
    try:
        if "patch_size" in told:
            own = round(float(np.ravel(told["patch_size"])[0]))
            if "patch_size_level0" in told:
                side = _pair(told["patch_size_level0"])
            elif "downsample" in told:
                x, y = _pair(told["downsample"])
                side = own * x, own * y
            else:
                side = None
            scale = float(told["target_mpp"]) if "target_mpp" in told else None
            if scale is None and "target_magnification" in told:
                scale = 10 / float(told["target_magnification"])
            if side is None and scale is None:
                scale = mpp
            if own > 0 and ((side is not None and min(side) > 0) or (scale or 0) > 0):
                return own, side, scale
    except (TypeError, ValueError, IndexError) as exc:
        raise BagError(f"{path}: attributes of coords cannot be understood ({exc}): write the bag anew") from exc
    if px is not None and mpp is not None:
        return px, None, mpp
    raise BagError(
        f"{path}: nothing says how large a tile is (patch_size with patch_size_level0, downsample or target_mpp): put "
        "CLAM's folder patches beside the bags' folder; `saccade distil` takes also bags.patches, or bags.patch_px "
        "with bags.patch_mpp"
    )


def _encoder(told: Mapping[str, Any]) -> str | None:
    """What made features: by an attribute, or by the folder that TRIDENT wrote them to."""
    if "encoder" in told:
        return _text(told["encoder"]) or None
    folder = PurePosixPath(_text(told.get("savetodir", "")).replace("\\", "/")).name
    return folder.removeprefix(_FEATURES_IN) if folder.startswith(_FEATURES_IN) else None


def _mpp_level0(path: Path, told: Mapping[str, Any]) -> Mpp | None:
    if "mpp_level0" not in told:
        return None
    try:
        found = Mpp(*_pair(told["mpp_level0"]))
        if min(found.x, found.y) > 0 and math.isfinite(found.x + found.y):
            return found
    except (TypeError, ValueError, IndexError):
        pass
    raise BagError(f"{path}: mpp_level0 of its coords is {told['mpp_level0']!r}, no resolution: write the bag anew")


def _whole(value: Any) -> int:
    try:
        return max(0, int(value))
    except (TypeError, ValueError, OverflowError):
        return 0


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _pair(value: Any) -> tuple[float, float]:
    values = [float(one) for one in np.ravel(value)]
    return (values[0], values[-1])

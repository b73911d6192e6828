"""Bags: what CLAM's and TRIDENT's attributes mean, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from stages.bags.bag import BagError, find_bag, read_bag
from stages.geometry import Mpp

COORDS = np.array([[0, 0], [256, 0], [0, 256]])
TRIDENT = {"patch_size": 128, "patch_size_level0": 256, "target_magnification": 10}


def write(path: Path, told: dict[str, Any], *, coords: Any = COORDS, features: Any = None) -> Path:
    with h5py.File(path, "w") as file:
        if coords is not None:
            file["coords"] = coords
            file["coords"].attrs.update(told)
        file["features"] = np.ones((3, 5), np.float32) if features is None else features
    return path


@pytest.mark.parametrize(
    ("told", "mpp"),
    [
        (TRIDENT, 1.0),
        ({"patch_size": 128, "downsample": (4.0, 4.0), "patch_level": 1}, 2.0),  # CLAM's patches
        ({"patch_size": 128, "target_magnification": 5.0}, 2.0),
        ({"patch_size": 128, "patch_size_level0": 254, "target_magnification": 10}, 0.5 * 254 / 128),  # what was read
    ],
)
def test_a_tiles_scale_is_told_by_its_attributes(told: dict[str, Any], mpp: float, tmp_path: Path) -> None:
    bag = read_bag(write(tmp_path / "s.h5", told))
    assert bag.mpp_on(Mpp(0.5, 0.5)) == pytest.approx(mpp)
    assert bag.centres_level0(Mpp(0.5, 0.5))[0].tolist() == pytest.approx([mpp * 128] * 2)


def test_clams_features_get_it_from_its_patches_or_the_user(tmp_path: Path) -> None:
    bare = write(tmp_path / "s.h5", {})
    patches = write(tmp_path / "p.h5", {"patch_size": 128, "downsample": (2.0, 2.0)}, coords=COORDS[::-1])
    assert read_bag(bare, patches=patches).side_level0 == (256, 256)
    assert read_bag(bare, patch_px=128, patch_mpp=1.0).mpp_on(Mpp(0.25, 0.25)) == 1
    with pytest.raises(BagError, match=r"nothing says how large a tile is .* bags.patches"):
        read_bag(bare)
    with pytest.raises(BagError, match="has 3 tiles, other ones than the bag's 3"):
        read_bag(bare, patches=write(tmp_path / "q.h5", {"patch_size": 128}, coords=COORDS + 1))


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ({"coords": None}, "no dataset 'coords', found features"),
        ({"features": np.ones((2, 5))}, "has 3 coordinates and 2 features"),
        ({"features": np.full((3, 5), np.nan)}, "3 of 3 tiles have NaN or infinite features"),
        ({"features": np.ones(3)}, r"expected coords \(N, 2\) and features \(N, D\)"),
    ],
)
def test_a_broken_bag_is_refused_in_a_line(bad: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(BagError, match=told) as caught:
        read_bag(write(tmp_path / "s.h5", TRIDENT, **bad))
    assert "\n" not in str(caught.value)


def test_what_is_no_hdf5_or_not_there_is_said_to_be_so(tmp_path: Path) -> None:
    (tmp_path / "s.h5").write_text("no")
    with pytest.raises(BagError, match="cannot be read as HDF5"):
        read_bag(tmp_path / "s.h5")
    with pytest.raises(BagError, match="there is no bag"):
        read_bag(tmp_path / "t.h5")


def test_a_bag_is_found_by_any_of_its_slides_names(tmp_path: Path) -> None:
    (tmp_path / "file.h5").touch()
    assert find_bag(tmp_path, ["name", "file"]) == tmp_path / "file.h5"
    (tmp_path / "name.hdf5").touch()
    assert find_bag(tmp_path, ["name", "file"]) == tmp_path / "name.hdf5"
    assert find_bag(tmp_path, ["other"]) == tmp_path / "other.h5"


@pytest.mark.parametrize("patches", ["patches", "results/patches"])
def test_clams_patches_are_found_beside_the_bags(patches: str, tmp_path: Path) -> None:
    (tmp_path / patches).mkdir(parents=True)
    bags = (tmp_path / patches).parent / "features" / "h5_files"
    bags.mkdir(parents=True)
    told = {"patch_size": 128, "downsample": (2.0, 2.0)}
    write(tmp_path / patches / "s.h5", told)
    assert read_bag(write(bags / "s.h5", {})).side_level0 == (256, 256)


@pytest.mark.parametrize(
    ("told", "encoder"),
    [
        ({"savetodir": "/a/20x_256px/features_uni_v1"}, "uni_v1"),
        ({"savetodir": "C:\\a\\features_virchow2"}, "virchow2"),
        ({"savetodir": "/a/other"}, None),
        ({"encoder": "lite0", "savetodir": "/a/features_x"}, "lite0"),
        ({}, None),
    ],
)
def test_which_encoder_made_the_features(told: dict[str, str], encoder: str | None, tmp_path: Path) -> None:
    path = write(tmp_path / "s.h5", TRIDENT)
    with h5py.File(path, "r+") as file:
        file["features"].attrs.update(told)
    assert read_bag(path).encoder == encoder

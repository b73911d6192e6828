"""A bag in a slide's place: the same from whichever program it is; what cannot be one is refused in a line."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from bags import DIM, PX, SIDE, Kind, corners_of, features_of, write_bag

from stages.bags.bag_slide import BagSlide, FeatureMemory, open_bag
from stages.geometry import Box
from stages.pyramid.open import open_pyramid
from stages.slide.facts import SlideError

N = 20
FEATURES = features_of(N, positive=1, seed=0)


def bag(folder: Path, kind: Kind = "trident", **more: Any) -> Path:
    return write_bag(folder / "h5_files" / "s.h5", corners_of(N), FEATURES, kind, **more)


@pytest.mark.parametrize("kind", ["clam", "trident", "ours"])
def test_bags_of_any_program_are_the_same_slide(kind: Kind, tmp_path: Path) -> None:
    slide = open_pyramid(bag(tmp_path, kind), mpp=0.5 if kind == "clam" else None)
    assert isinstance(slide, BagSlide)
    assert (slide.facts.require_mpp().x, slide.patch_px, slide.patch_mpp, slide.dim) == (0.5, PX, 1.0, DIM)
    assert (slide.facts.vendor, slide.facts.levels[0].width, slide.off_grid) == ("bag", 1024 + 6 * SIDE, 0)
    chosen = np.array([7, 0, 19])
    assert np.array_equal(slide.features(chosen), FEATURES[chosen])
    assert np.array_equal(pickle.loads(pickle.dumps(slide)).features(chosen), FEATURES[chosen])
    with pytest.raises(SlideError, match="a bag has features and no pixels"):
        slide.read_level(0, Box(0, 0, 8, 8))


def test_a_resolution_that_is_given_is_the_slides(tmp_path: Path) -> None:
    """The tiles are as many level-0 pixels as they were; the bag's own word is told of where it differs much."""
    slide = open_bag(bag(tmp_path), mpp=0.25)
    assert (slide.patch_mpp, slide.facts.mpp_source) == (0.5, "override")
    unknown = open_bag(bag(tmp_path, "clam"))
    assert unknown.facts.mpp is None
    with pytest.raises(SlideError, match="nothing in the bag says how many µm a pixel is"):
        unknown.patch_mpp  # noqa: B018
    only_um = bag(tmp_path, told={"patch_size": PX, "target_mpp": 1.0})
    assert open_bag(only_um, mpp=0.5).side == (SIDE, SIDE)
    with pytest.raises(SlideError, match="how many level-0 pixels a tile is"):
        open_bag(only_um)


def test_what_is_there_twice_counts_once_and_what_contradicts_itself_is_refused(tmp_path: Path) -> None:
    twice = np.r_[np.arange(N), [3, 3]]
    path = write_bag(tmp_path / "b" / "s.h5", corners_of(N)[twice], FEATURES[twice])
    slide = open_bag(path)
    assert len(slide.corners) == N
    assert slide.facts.doubts == ("2 of its 22 tiles are there twice: each counts once",)
    other = FEATURES[twice].copy()
    other[-1] += 1
    with pytest.raises(SlideError, match="2 of its 22 tiles are at places of others and have other features"):
        open_bag(write_bag(path, corners_of(N)[twice], other))


def test_a_file_that_is_replaced_is_not_read_on(tmp_path: Path) -> None:
    path = bag(tmp_path)
    slide = open_bag(path)
    with h5py.File(path, "r+") as file:
        file["features"][...] = 0
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(SlideError, match="changed or replaced"):
        slide.features(np.arange(3))


def test_what_is_read_again_and_again_is_kept_while_there_is_room(tmp_path: Path) -> None:
    reads: list[str] = []

    def read(name: str) -> Any:
        return lambda: reads.append(name) or FEATURES

    memory = FeatureMemory(2 * FEATURES.nbytes)
    for _ in range(3):
        for name in "abc":
            assert memory.of(name, read(name)) is FEATURES
    assert reads == ["a", "b", "c", "c", "c"]
    slide = open_bag(bag(tmp_path))
    slide.memory = memory
    assert np.array_equal(slide.features(np.array([4, 2])), FEATURES[[4, 2]])
    assert pickle.loads(pickle.dumps(slide)).memory is None


def test_the_size_of_clams_tiles_is_part_of_what_a_bag_is(tmp_path: Path) -> None:
    """It stands in another file, whose change changes where tiles lie."""
    first = open_bag(bag(tmp_path, "clam"), mpp=0.5).facts.fingerprint
    again = bag(tmp_path, "clam", told={"patch_size": PX, "downsample": (4.0, 4.0)})
    assert open_bag(again, mpp=0.5).facts.fingerprint != first


BROKEN: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("no coordinates", {"coords": None}, {}, "has no dataset 'coords', found features"),
    ("coordinates only", {"features": None}, {}, r"coordinates only: .*TRIDENT's features"),
    ("empty", {"coords": np.zeros((0, 2)), "features": np.zeros((0, DIM))}, {}, "has 0 coordinates and 0 features"),
    ("lengths", {"features": FEATURES[:9]}, {}, "has 20 coordinates and 9 features"),
    ("NaN", {"features": np.where(np.arange(N)[:, None] < 2, np.nan, FEATURES)}, {}, "2 of 20 tiles have NaN"),
    ("inf", {"features": np.where(np.arange(N)[:, None] < 1, np.inf, FEATURES)}, {}, "1 of 20 tiles have NaN"),
    ("coordinates NaN", {"coords": np.full((N, 2), np.nan)}, {}, "coordinates that are no finite numbers"),
    ("a slide's vector", {"features": FEATURES[0]}, {}, "one vector of 12 for the whole slide"),
    ("no size", {}, {"overlap": 0}, "nothing says how large a tile is"),
    ("size of nothing", {}, {"patch_size": 0, "patch_size_level0": 0}, "nothing says how large a tile is"),
    ("size in words", {}, {"patch_size": "large"}, "attributes of coords cannot be understood"),
    ("a draw", {"weight": np.linspace(0.5, 3, N)}, {}, "has the 20 patches that a run drew"),
    ("other units", {"coords": corners_of(N) * 10_000}, {}, "outside of any slide"),
    ("below zero", {"coords": corners_of(N) - 9000}, {}, "outside of any slide"),
]


@pytest.mark.parametrize(("name", "data", "told", "said"), BROKEN, ids=[one[0] for one in BROKEN])
def test_bad_input_is_refused_in_one_line(
    name: str, data: dict[str, Any], told: dict[str, Any], said: str, tmp_path: Path
) -> None:
    path = bag(tmp_path, told=told or None)
    with h5py.File(path, "r+") as file:
        attributes = dict(file["coords"].attrs)
        for dataset, values in data.items():
            if dataset in file:
                del file[dataset]
            if values is not None:
                file[dataset] = values
        if "coords" in file:
            file["coords"].attrs.update(attributes)
    with pytest.raises(SlideError, match=said) as caught:
        open_pyramid(path)
    assert "\n" not in str(caught.value)


def test_clams_lists_of_features_are_refused_for_want_of_coordinates(tmp_path: Path) -> None:
    (tmp_path / "s.pt").write_bytes(b"PK")
    with pytest.raises(SlideError, match="has features only: give the bags with coordinates, CLAM's h5_files"):
        open_pyramid(tmp_path / "s.pt")


@pytest.mark.parametrize("suffix", [".npy", ".h5"])
def test_torchmil_s_folders_are_the_same_slide(suffix: str, tmp_path: Path) -> None:
    """Features and coordinates in a folder each; the tiles' size by CLAM's folder patches, as of CLAM's own bags."""
    clam = open_pyramid(bag(tmp_path, "clam"), mpp=0.5)
    for name, values in (("features", FEATURES), ("coords", corners_of(N))):
        path = tmp_path / name / f"s{suffix}"
        path.parent.mkdir()
        if suffix == ".npy":
            np.save(path, values)
        else:
            with h5py.File(path, "w") as file:
                file[name] = values
    path = tmp_path / "features" / f"s{suffix}"
    slide = open_pyramid(path, mpp=0.5)
    assert isinstance(slide, BagSlide)
    assert isinstance(clam, BagSlide)
    assert (slide.side, slide.patch_px, slide.cells) == (clam.side, clam.patch_px, clam.cells)
    np.testing.assert_array_equal(slide.corners, clam.corners)
    np.testing.assert_array_equal(slide.features(np.array([7, 0])), FEATURES[[7, 0]])
    before = slide.facts.fingerprint
    moved = corners_of(N) + SIDE
    if suffix == ".npy":
        np.save(tmp_path / "coords" / "s.npy", moved)
    else:
        with h5py.File(tmp_path / "coords" / "s.h5", "w") as file:
            file["coords"] = moved
    write_bag(tmp_path / "h5_files" / "s.h5", moved, FEATURES, "clam")
    assert open_pyramid(path, mpp=0.5).facts.fingerprint != before  # other places are another slide


def test_torchmil_s_features_alone_are_refused(tmp_path: Path) -> None:
    (tmp_path / "features").mkdir()
    np.save(tmp_path / "features" / "s.npy", FEATURES)
    with pytest.raises(SlideError, match="has no dataset 'coords', found features"):
        open_pyramid(tmp_path / "features" / "s.npy", mpp=0.5)
    (tmp_path / "coords").mkdir()
    np.save(tmp_path / "coords" / "s.npy", corners_of(N))
    with pytest.raises(SlideError, match="nothing says how large a tile is"):
        open_pyramid(tmp_path / "features" / "s.npy", mpp=0.5)
    (tmp_path / "features" / "s.npy").write_bytes(b"torn")
    with pytest.raises(SlideError, match="cannot be read as an array"):
        open_pyramid(tmp_path / "features" / "s.npy", mpp=0.5)

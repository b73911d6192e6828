"""Bags are what CLAM, TRIDENT and torchmil expect."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from makers import names, tissue_pixels, write_slide

from pipeline.output.bags import write_samples_h5
from stages.geometry import Mpp, level_raster
from stages.prediction.attribution import Attribution
from stages.slide.files import open_slide


def evidence(n: int) -> dict[str, Any]:
    """Of n patches and two classes, all different."""
    patches = np.stack([np.arange(n) - 3.0, 3.0 - np.arange(n)], 1)
    unread, constant = np.array([0.5, -0.5]), np.array([-1.0, 1.0])
    log_odds = patches.sum(0) + unread + constant
    parts = (log_odds, np.ones(2), constant, patches, np.abs(patches) / 2, unread, np.zeros((9, 2)), np.zeros(9, "u1"))
    return {"attribution": Attribution(*parts), "names": ("none", "tümour"), "unit": "log-odds"}


@dataclass(frozen=True)
class Bag:
    path: Path
    boxes: np.ndarray
    features: np.ndarray


@pytest.fixture
def bag(folder: Path, slides_folder: Path) -> Bag:
    facts = open_slide(slides_folder / "even.tif", mpp=0.25).facts
    rng = np.random.default_rng(0)
    corners = rng.integers(-20, 1500, (37, 2))
    boxes = np.concatenate([corners, np.full((37, 2), 128 * 2.0)], 1).astype(float)
    features = rng.normal(size=(37, 16)).astype(np.float32)
    path = folder / "samples.h5"
    write_samples_h5(
        path,
        slide_id="even",
        facts=facts,
        patch_px=128,
        patch_mpp=0.5,
        boxes_level0=boxes,
        cells=np.arange(37),
        features=features,
        attention=rng.random(37),
        weights=rng.random(37),
        **evidence(37),
    )
    return Bag(path, boxes, features)


def test_a_bag_reads_as_clam_and_torchmil_read_it(bag):
    with h5py.File(bag.path, "r") as file:
        assert np.array_equal(file["features"][:], bag.features)
        assert np.array_equal(file["coords"][:], bag.boxes[:, :2])
        said = file["contribution"]
        assert list(said.attrs["classes"]) == ["none", "tümour"]
        total = said[:].sum(0) + said.attrs["constant"] + said.attrs["unread"]
        assert np.allclose(total, said.attrs["log_odds"], atol=1e-9)
        assert np.array_equal(file["contribution_half_width"][:], np.abs(said[:]) / 2)
        assert (file["coords"].dtype, file["features"].dtype) == (np.int64, np.float32)
        assert file["coords"].chunks == (37, 2)
        assert file["features"].chunks == (37, 16)
        assert {name: file[name].shape for name in ("attention", "weight", "cell")} == dict.fromkeys(
            ("attention", "weight", "cell"), (37,)
        )
        attributes = dict(file["coords"].attrs)
    assert attributes["name"] == "even"
    assert attributes["save_path"] == str(bag.path.parent)
    assert (attributes["level0_width"], attributes["level0_height"]) == (2048, 1536)


def test_a_bags_patches_cover_what_was_read_for_clam_and_for_trident(bag):
    with h5py.File(bag.path, "r") as file:
        at = dict(file["coords"].attrs)
    # TRIDENT: level-0 side from the two magnifications
    assert round(at["patch_size"] * at["level0_magnification"] / at["target_magnification"]) == 256
    assert at["patch_size_level0"] == 256
    # CLAM: patch_size pixels at patch_level, 2x coarser than level 0 here
    assert at["patch_level"] == 1
    assert at["patch_size"] * at["downsample"][0] == 256
    assert tuple(at["level_dim"]) == (1024, 768)
    assert (at["target_mpp"], tuple(at["mpp_level0"])) == (0.5, (0.25, 0.25))


def test_bags_of_nothing_and_of_much_and_of_unequal_lengths(tmp_path, slides_folder):
    facts = open_slide(slides_folder / "even.tif", mpp=0.5).facts

    def write(n: int, cells: int) -> None:
        write_samples_h5(
            tmp_path / "s.h5",
            slide_id="s",
            facts=facts,
            patch_px=64,
            patch_mpp=0.5,
            boxes_level0=np.zeros((n, 4)),
            cells=np.zeros(cells),
            features=np.zeros((n, 3)),
            attention=np.zeros(n),
            weights=np.zeros(n),
            **evidence(n),
        )

    for n in (0, 3000):
        write(n, n)
        with h5py.File(tmp_path / "s.h5", "r") as file:
            assert file["features"].shape == (n, 3)
            assert file["features"].chunks == (max(1, min(n, 1024)), 3)
    with pytest.raises(ValueError, match="one row for each patch in every dataset"):
        write(5, 4)
    with h5py.File(tmp_path / "s.h5", "r") as file:
        assert len(file["coords"]) == 3000
    assert names(tmp_path) == {"s.h5"}


def test_the_level_for_clam_is_the_nearest_in_scale(tmp_path, slides_folder):
    facts = open_slide(slides_folder / "odd.tif", mpp=0.5).facts  # levels of 0.5 and 2 µm/px
    assert facts.mpp == Mpp(0.5, 0.5)
    assert facts.levels[1] == level_raster((1803, 2401), (450, 600))
    levels = {}
    for patch_mpp in (0.5, 0.9, 1.2, 2.0, 8.0):
        write_samples_h5(
            tmp_path / "s.h5",
            slide_id="s",
            facts=facts,
            patch_px=64,
            patch_mpp=patch_mpp,
            boxes_level0=np.zeros((1, 4)),
            cells=[0],
            features=np.zeros((1, 3)),
            attention=[1],
            weights=[1],
            **evidence(1),
        )
        with h5py.File(tmp_path / "s.h5", "r") as file:
            levels[patch_mpp] = int(file["coords"].attrs["patch_level"])
    assert levels == {0.5: 0, 0.9: 0, 1.2: 1, 2.0: 1, 8.0: 1}


def test_a_bag_of_oblong_pixels_says_both_sides(tmp_path):
    """A reader that knows only squares must fail, not cut others than were read; frame and bounds are in the file."""
    oblong = {"resolution": (4e4, 2e4), "resolutionunit": "CENTIMETER"}
    facts = open_slide(write_slide(tmp_path / "a.tif", tissue_pixels(700, 600), mpp=None, levels=1, **oblong)).facts
    write_samples_h5(
        tmp_path / "s.h5",
        slide_id="s",
        facts=facts,
        patch_px=64,
        patch_mpp=0.5,
        boxes_level0=[[10, 20, 128, 64]],
        cells=[0],
        features=np.zeros((1, 3)),
        attention=[1],
        weights=[1],
        **evidence(1),
    )
    with h5py.File(tmp_path / "s.h5", "r") as file:
        at = dict(file["coords"].attrs)
    assert tuple(at["patch_size_level0"]) == (128, 64)
    assert tuple(at["level0_magnification"]) == (40, 20)
    assert (at["frame"], tuple(at["bounds_level0"])) == ("level0", (0, 0, 700, 600))

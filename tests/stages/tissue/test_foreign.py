"""Ink on glass is left out whatever its colour, and the same colour within tissue stays."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from makers import ROOT
from skimage.segmentation import watershed

from benchmarks.tissue_pictures import PENS, STAINS, Picture, hand_marked, pen, ring, slide, sparse, stained
from stages.tissue.foreign import basins
from stages.tissue.mask import tissue_mask

SPARSE = {stain: slide(stain) for stain in ("melanin", "DAB")}


def check(picture: Picture) -> None:
    mask = tissue_mask(picture.rgb, 8)
    assert picture.kept(mask) > 0.97
    assert picture.counted(mask, picture.glass) < 0.02
    assert picture.counted(mask, picture.fill) < 0.02
    assert picture.counted(mask, picture.drawn, rim=0) < 0.05


@pytest.mark.parametrize("stain", STAINS)
def test_stains_of_any_colour_are_tissue(stain: str) -> None:
    check(slide(stain, share=0.25))


@pytest.mark.parametrize("colour", PENS)
def test_pen_of_any_colour_around_tissue_is_none(colour: str) -> None:
    check(pen(slide("Masson blue" if colour in ("red", "pink") else "H&E"), PENS[colour], ring()))


@pytest.mark.parametrize("stain", SPARSE)
@pytest.mark.parametrize(("layout", "fill"), [("tiles", 255), ("touching", 230), ("rotated", 0), ("strips", 128)])
def test_stains_in_sparse_scans(stain: str, layout: str, fill: int) -> None:
    check(sparse(SPARSE[stain], 0.5, layout, (fill, fill, fill)))


def test_cores_of_a_microarray_keep_their_own_colours() -> None:
    y, x = np.mgrid[:640, :640]
    cores = [np.hypot(x - 64 - 128 * (i % 5), y - 64 - 128 * (i // 5)) < 37 for i in range(25)]
    colours = [(215, 215, 230), (70, 40, 25), (45, 42, 48)]
    rgb = stained([(core, colours[i % 7 % 3], 0.3) for i, core in enumerate(cores)])
    tissue = np.any(cores, axis=0)
    mask = tissue_mask(rgb, 8)
    assert mask[tissue].mean() > 0.97


def test_pen_that_runs_onto_tissue_is_left_out_there_too() -> None:
    picture = pen(slide("H&E"), PENS["green"], [[(0.02, 0.1), (0.3, 0.4)]])
    mask = tissue_mask(picture.rgb, 8)
    line = np.zeros(mask.shape, bool)
    line[200:240, 150:180] = True
    assert not mask[line & (picture.rgb[..., 0] < 60)].any()
    assert picture.kept(mask) > 0.93


@pytest.mark.parametrize(("what", "colour"), [("edge of the cover slip", 150), ("rim of a bubble", 118)])
def test_grey_lines_are_left_out(what: str, colour: int) -> None:
    picture = slide("H&E")
    y, x = np.mgrid[: len(picture.rgb), : len(picture.rgb)]
    line = np.abs(x - 620) < 4 if "edge" in what else np.abs(np.hypot(x - 570, y - 70) - 50) < 5
    rgb = picture.rgb.copy()
    rgb[line] = colour
    mask = tissue_mask(rgb, 8)
    assert not mask[line].any()
    assert picture.kept(mask) > 0.97


def test_real_pen_is_left_out_and_the_tissue_under_study_kept(shared_data: Path) -> None:
    """Hand-drawn masks of HistoQC's examples; 32 to 66 % of the pen counted as tissue once."""
    for name, rgb, marked in hand_marked(shared_data / "pen"):
        mask = tissue_mask(rgb, 8)
        assert mask[marked].mean() < 0.05, name
        values = rgb.astype(int)
        dense = (values.max(2) < 215) & (values[..., 0] > values[..., 1] + 25) & (values[..., 2] > values[..., 1] + 15)
        if dense.mean() > 0.1:
            assert mask[dense].mean() > 0.9, name


def test_one_peak_is_flooded_as_by_scikit_image() -> None:
    depth = np.random.default_rng(0).normal(size=(30, 40))
    lowest = np.zeros(depth.shape, np.int32)
    lowest[np.unravel_index(depth.argmin(), depth.shape)] = 1
    assert np.array_equal(basins(depth, lowest, 1), watershed(depth, lowest))
    lowest[0, :3] = 2
    assert np.array_equal(basins(depth, lowest, 2), watershed(depth, lowest))


ONE_STAIN = """
import sys
import numpy as np
from scipy import ndimage
from stages.tissue.mask import tissue_mask
chance = np.random.default_rng(0)
body = ndimage.gaussian_filter(chance.normal(size=(300, 400)), 30) > 0
much = body * chance.uniform(0.2, 0.9, body.shape)
mask = tissue_mask((243 * np.exp(-much[..., None] * [0.4, 1.0, 0.6])).astype(np.uint8), 8)
print((mask == body).mean() > 0.95, "skimage.segmentation" in sys.modules)
"""


def test_where_there_is_one_stain_no_more_is_loaded_than_it_takes() -> None:
    done = subprocess.run([sys.executable, "-c", ONE_STAIN], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == ["True", "False"]

"""What was never scanned, told from glass that is as even."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from makers import ROOT
from scipy import ndimage
from skimage.measure import approximate_polygon, find_contours

from benchmarks.tissue_pictures import FILLS, LAYOUTS, compressed, slide, sparse
from stages.tissue.fill import find_fill, simplified, straight_share
from stages.tissue.mask import tissue_mask

STAINED = slide("H&E")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("fill", FILLS)
def test_fill_is_found_to_the_pixel(fill: str, layout: str) -> None:
    picture = sparse(STAINED, 0.3, layout, FILLS[fill])
    assert (find_fill(picture.rgb) == picture.fill).mean() > 0.999


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_saturated_glass_is_no_fill(noise: float) -> None:
    """It is of one exact colour as well, but ends where tissue begins."""
    assert not find_fill(slide("H&E", glass=(255, 255, 255), noise=noise).rgb).any()


def test_an_area_of_one_strong_colour_is_no_fill() -> None:
    rgb = np.full((200, 200, 3), 240, np.uint8)
    rgb[::2, ::3] = 239
    rgb[50:100, 50:150] = (190, 110, 160)
    assert not find_fill(rgb).any()


@pytest.mark.parametrize("fill", ["white", "black"])
def test_compression_at_the_edge_of_a_turned_scan_is_forgiven(fill: str) -> None:
    picture = compressed(sparse(STAINED, 0.3, "rotated", FILLS[fill]), quality=80)
    mask = tissue_mask(picture.rgb, 8)
    assert find_fill(picture.rgb)[picture.fill].mean() > 0.9
    assert picture.kept(mask) > 0.97
    assert picture.counted(mask, picture.glass) < 0.02


def test_a_box_is_straight_and_tissue_is_not() -> None:
    box = np.zeros((100, 100), bool)
    box[20:70, 30:80] = True
    assert straight_share(box) == 1
    assert straight_share(STAINED.tissue) < 0.3
    assert straight_share(np.ones((5, 5), bool)) == 0


def test_an_area_too_narrow_for_an_oblique_line_has_none() -> None:
    assert straight_share(np.array([[True, False, True, False]] * 4)) == 0


@pytest.mark.parametrize("tolerance", [0.2, 0.875, 3.0])
def test_lines_are_simplified_as_by_scikit_image(tolerance: float) -> None:
    """To the bit, on outlines that are ragged, straight and oblique, closed and cut off by the edge."""
    seen = 0
    for seed in range(40):
        chance = np.random.default_rng(seed)
        area = ndimage.gaussian_filter(chance.normal(size=chance.integers(2, 150, 2)), chance.uniform(0, 9)) > 0
        if seed % 2:
            rows, columns = np.indices(area.shape)
            area |= rows * np.cos(seed) + columns * np.sin(seed) > 20
        for line in find_contours(ndimage.gaussian_filter(area.astype(np.float32), seed % 3), 0.5):
            assert np.array_equal(simplified(line, tolerance), approximate_polygon(line, tolerance))
            seen += 1
    assert seen > 300


ROTATED = """
import sys
from benchmarks.tissue_pictures import FILLS, slide, sparse
from stages.tissue.fill import find_fill
picture = sparse(slide("H&E"), 0.3, "rotated", FILLS["white"])
before = set(sys.modules)
print((find_fill(picture.rgb) == picture.fill).mean() > 0.999)
print("skimage.measure._find_contours" in sys.modules, {"scipy.stats", "scipy.signal"} & (set(sys.modules) - before))
"""


def test_oblique_outlines_are_told_without_all_of_scipy() -> None:
    done = subprocess.run([sys.executable, "-c", ROTATED], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split("\n") == ["True", "True set()", ""]

"""A mask that no slide can have is told."""

from __future__ import annotations

import numpy as np
import skimage.data

from benchmarks.tissue_pictures import slide, sparse
from stages.geometry import Raster
from stages.tissue.mask import Tissue, find_tissue
from stages.tissue.quality import tissue_warnings
from stages.tissue.thumbnail import Thumbnail


def seen(rgb: np.ndarray, mpp: float = 8.0) -> tuple[str, ...]:
    height, width = rgb.shape[:2]
    return tissue_warnings(find_tissue(Thumbnail(rgb, Raster(0, 0, mpp, mpp, width, height), mpp)), mpp)


def test_tissue_on_glass_is_taken_without_a_word() -> None:
    assert seen(slide("H&E").rgb) == ()
    assert seen(sparse(slide("DAB"), 0.5, "touching", (255, 255, 255)).rgb) == ()


def test_what_fills_the_scan_is_told() -> None:
    (line,) = seen(skimage.data.immunohistochemistry(), 1.0)
    assert line == "100% of the slide counts as tissue, as if there were no glass: look at the overlay"


def test_a_straight_outline_is_told() -> None:
    rgb = slide("H&E").rgb.copy()
    tissue = rgb[250:350, 250:350].copy()
    rgb[:] = (243, 242, 244)
    rgb[250:350, 250:350] = tissue
    rgb[::3, ::3] -= 1
    (line,) = seen(rgb)
    assert "straight" in line


def test_next_to_nothing_and_next_to_glass_are_told() -> None:
    mask = np.zeros((100, 100), bool)
    rng = np.random.default_rng(0)
    mask[30:50, 30:50] = rng.random((20, 20)) > 0.3
    lines = tissue_warnings(Tissue(mask, np.zeros_like(mask), faint=0.8, left=0.5), 8.0)
    assert [line.split(" count")[0] for line in lines] == [
        "only 0.019 mm²",
        "matter that is hardly darker than glass, 50% as much, was left out beside it: look at the overlay",
        "80% of what",
    ]

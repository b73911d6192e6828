"""The gallery shows the patches that it says, where it says, at full resolution."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from makers import tissue_pixels, write_slide

from stages.overlay.gallery import SIDE, choose, corner, render_gallery
from stages.slide.files import open_slide


def test_the_strongest_come_first_in_a_row_for_and_a_row_against() -> None:
    shown = choose([0.5, -3.0, 0.0, 2.0, -0.1], [0.1] * 5, 2)
    assert [(one.number, one.row, one.column) for one in shown] == [(3, 0, 0), (0, 0, 1), (1, 1, 0), (4, 1, 1)]
    assert choose([-1.0, -2.0], [0, 0])[0].row == 1
    assert choose([], []) == []


def test_patches_are_level_0s_own_pixels_where_the_gallery_says(tmp_path: Path) -> None:
    pixels = tissue_pixels(900, 700)
    slide = open_slide(write_slide(tmp_path / "a.tif", pixels, mpp=0.5, compression="deflate"))
    boxes = np.array([[10.0, 20, SIDE, SIDE], [300, 100, SIDE, SIDE], [600, 400, SIDE, SIDE]])
    shown = choose([1.0, -2.0, 0.5], [0.1, np.inf, 0.0])
    picture = np.asarray(render_gallery(slide, boxes, shown, name="tumour", mpp=slide.facts.require_mpp()))
    for one in shown:
        x, y = corner(one.row, one.column)
        left, upper = boxes[one.number, :2].astype(int)
        assert np.array_equal(picture[y : y + SIDE, x : x + SIDE], pixels[upper : upper + SIDE, left : left + SIDE]), (
            one
        )


def test_a_patch_smaller_than_its_place_is_enlarged_and_one_that_is_larger_reduced(tmp_path: Path) -> None:
    slide = open_slide(write_slide(tmp_path / "a.tif", tissue_pixels(900, 700), mpp=0.5))
    boxes = np.array([[400.0, 300, 64, 64], [200, 100, 512, 512]])
    shown = choose([1.0, -2.0], [0.1, 0.1])
    picture = render_gallery(slide, boxes, shown, name="tumour", mpp=slide.facts.require_mpp())
    for one in shown:
        x, y = corner(one.row, one.column)
        assert np.asarray(picture.crop((x, y, x + SIDE, y + SIDE))).std() > 5


def test_a_slide_without_evidence_has_an_empty_gallery(tmp_path: Path) -> None:
    slide = open_slide(write_slide(tmp_path / "a.tif", tissue_pixels(300, 300), mpp=0.5))
    assert render_gallery(slide, np.zeros((0, 4)), [], name="tumour", mpp=slide.facts.require_mpp()).width > 0

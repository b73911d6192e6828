"""The gallery shows the patches that it says, where it says, at full resolution."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from makers import tissue_pixels, write_slide

from stages.overlay.gallery import SIDE, caption, choose, corner, explained, render_gallery
from stages.slide.files import open_slide
from stages.slide.protocol import Slide


def said(slide: Slide, patches: int) -> dict[str, Any]:
    mpp = slide.facts.require_mpp()
    return {"name": "tumour", "title": "組織 1", "tissue": np.ones(patches), "mpp": mpp, "seen_mpp": 0.5}


def test_the_strongest_come_first_in_a_row_for_and_a_row_against() -> None:
    shown = choose([0.5, -3.0, 0.0, 2.0, -0.2], [0.1] * 5, 2)
    assert [(one.number, one.row, one.column) for one in shown] == [(3, 0, 0), (0, 0, 1), (1, 1, 0), (4, 1, 1)]
    assert choose([-1.0, -2.0], [0, 0])[0].row == 1
    assert choose([], []) == []


def test_patches_whose_interval_holds_0_are_not_shown() -> None:
    assert [one.number for one in choose([2.0, 0.2, -0.1, -1.0, 5.0], [0.3, 0.2, 0.15, 0.0, np.inf])] == [0, 3]


def test_a_patch_that_is_mostly_glass_has_it_said() -> None:
    assert caption(-0.428, 0.19, 0.18) == "\N{MINUS SIGN}0.43 ± 0.19  (18% tissue)"
    assert caption(2.83, 0.0, 0.9) == "+2.83 ± 0.00"


def test_patches_are_level_0s_own_pixels_where_the_gallery_says(tmp_path: Path) -> None:
    pixels = tissue_pixels(900, 700)
    slide = open_slide(write_slide(tmp_path / "a.tif", pixels, mpp=0.5, compression="deflate"))
    boxes = np.array([[10.0, 20, SIDE, SIDE], [300, 100, SIDE, SIDE], [600, 400, SIDE, SIDE]])
    shown = choose([1.0, -2.0, 0.5], [0.1, 0.5, 0.0])
    picture = np.asarray(render_gallery(slide, boxes, shown, **said(slide, len(boxes))))
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
    picture = render_gallery(slide, boxes, shown, **said(slide, len(boxes)))
    for one in shown:
        x, y = corner(one.row, one.column)
        assert np.asarray(picture.crop((x, y, x + SIDE, y + SIDE))).std() > 5


def test_a_slide_without_evidence_has_an_empty_gallery(tmp_path: Path) -> None:
    slide = open_slide(write_slide(tmp_path / "a.tif", tissue_pixels(300, 300), mpp=0.5))
    assert render_gallery(slide, np.zeros((0, 4)), [], **said(slide, 0)).width > 0


def test_only_log_odds_are_explained_as_probabilities() -> None:
    assert "0 is a probability of 0.5" in explained("tumour", "0.25 µm/px", 0.5, "log-odds")
    told = explained("risk_score", "0.25 µm/px", 0.5, "log hazard")
    assert "adds to risk_score, in log hazard" in told
    assert "probability" not in told

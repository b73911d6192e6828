"""The gallery shows the patches that it says, where it says, at full resolution."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from makers import tissue_pixels, write_slide
from PIL import Image

from stages.geometry import Raster
from stages.overlay.gallery import HEAD, Shown, caption, choose, close_up, corner, explained, render_gallery
from stages.overlay.insets import SIDE
from stages.overlay.picture import overlay_page
from stages.slide.files import open_slide
from stages.slide.protocol import Slide
from stages.tissue.thumbnail import read_thumbnail


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


def test_a_warning_stands_in_red_below_the_title_and_moves_no_patch(tmp_path: Path) -> None:
    slide = open_slide(write_slide(tmp_path / "a.tif", tissue_pixels(900, 700), mpp=0.5))
    boxes, shown = np.array([[400.0, 300, 64, 64]]), choose([1.0], [0.1])
    how = said(slide, 1) | {"title": "a long name " * 50}
    plain, warned = (
        np.asarray(render_gallery(slide, boxes, shown, **how, warned=lines)).astype(int)
        for lines in ((), ["it looks unlike " * 90])
    )
    upper = corner(0, 0)[1]
    rows, columns = np.nonzero(warned[: upper - HEAD, :, 0] - warned[: upper - HEAD, :, 1] > 100)
    assert len(rows)
    assert columns.max() < warned.shape[1] - 4, "it is shortened"
    assert not (plain[: upper - HEAD, :, 0] - plain[: upper - HEAD, :, 1] > 100).any()
    assert np.array_equal(plain[upper - HEAD :], warned[upper - HEAD :])


def test_a_slide_without_evidence_has_an_empty_gallery(tmp_path: Path) -> None:
    slide = open_slide(write_slide(tmp_path / "a.tif", tissue_pixels(300, 300), mpp=0.5))
    assert render_gallery(slide, np.zeros((0, 4)), [], **said(slide, 0)).width > 0


def test_only_log_odds_are_explained_as_probabilities() -> None:
    assert "0 is a probability of 0.5" in explained("tumour", "0.25 µm/px", 0.5, "log-odds")
    told = explained("risk_score", "0.25 µm/px", 0.5, "log hazard")
    assert "adds to risk_score, in log hazard" in told
    assert "probability" not in told


def in_commit(shown: list[Shown], boxes: np.ndarray) -> list[dict[str, Any]]:
    """What a slide's commit mark says of its gallery."""
    return [
        {
            "box_level0": boxes[one.number].tolist(),
            "width_um": 64.0,
            "tissue": 1.0,
            "contribution": one.contribution,
            "half_width": one.half_width,
            "row": one.row,
            "column": one.column,
        }
        for one in shown
    ]


def test_close_ups_are_the_gallerys_own_pixels_and_marked_where_they_lie(tmp_path: Path) -> None:
    pixels = tissue_pixels(1400, 700)
    slide = open_slide(write_slide(tmp_path / "a.tif", pixels, mpp=0.5, compression="deflate"))
    boxes = np.array([[10.0, 20, SIDE, SIDE], [1100, 100, SIDE, SIDE], [600, 400, SIDE, SIDE]])
    shown = choose([1.0, -2.0, 0.5], [0.1, 0.5, 0.0])
    gallery = render_gallery(slide, boxes, shown, **said(slide, len(boxes)))
    insets = close_up(gallery, in_commit(shown, boxes))
    assert [one.mark for one in insets] == ["1", "2", "3"]
    for one in insets:
        left, upper = (int(v) for v in one.box_level0[:2])
        assert np.array_equal(one.image, pixels[upper : upper + SIDE, left : left + SIDE])
    thumbnail = read_thumbnail(slide, 2.0)
    how: dict[str, Any] = {"title": "t", "mpp_level0": slide.facts.require_mpp()}
    cells = Raster(0, 0, 700, 700, 2, 1)
    bare = overlay_page(thumbnail, np.full((1, 2), 0.5), cells, boxes, **how)
    page = overlay_page(thumbnail, np.full((1, 2), 0.5), cells, boxes, insets=insets, **how)
    assert page.place == bare.place
    without, marked = (np.asarray(one.image.crop(one.place)).astype(int) for one in (bare, page))
    to_level0 = 1400 / without.shape[1]
    changed = (np.argwhere(np.abs(marked - without).sum(2) > 100)[:, ::-1] + 0.5) * to_level0
    corners = boxes[:, :2] + [SIDE, 0]
    apart = np.abs(changed[:, None] - corners).max(2)
    assert (apart.min(1) < 24 * to_level0).all()  # a mark stands at its patch's upper right corner
    assert set(apart.argmin(1)) == {0, 1, 2}


def test_close_ups_show_what_speaks_against_too() -> None:
    gallery = Image.new("RGB", (1700, 700))

    def marks(pros: int, cons: int) -> list[str]:
        values = [9.0 - i for i in range(pros)] + [-0.1 - i / 100 for i in range(cons)]
        shown = choose(values, np.zeros(len(values)))
        return [one.mark for one in close_up(gallery, in_commit(shown, np.zeros((len(values), 4))))]

    assert marks(6, 6) == ["1", "2", "3", "4", "7", "8"]
    assert marks(6, 0) == list("123456")
    assert marks(6, 1) == ["1", "2", "3", "4", "5", "7"]
    assert marks(1, 6) == list("123456")
    assert marks(0, 6) == list("123456")
    assert marks(0, 0) == []

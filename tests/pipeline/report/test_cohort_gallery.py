"""The cohort's gallery shows its strongest patches, from the slides' own."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.report.cohort_gallery import BELOW, LINE, MARGIN, SLIDE_MOST, CohortGallery, cohort_gallery, strongest
from pipeline.report.embedded import smaller
from pipeline.report.page import STYLE
from pipeline.report.summary import gallery_section
from stages.overlay.gallery import corner
from stages.overlay.insets import SIDE
from stages.overlay.text import RED


def shown(*contributions: float, name: str = "tumour") -> list[dict[str, object]]:
    return [
        {
            "class": name,
            "contribution": value,
            "half_width": 0.1,
            "tissue": 1.0,
            "width_um": 128.0,
            "row": int(value < 0),
            "column": i,
        }
        for i, value in enumerate(contributions)
    ]


def test_strongest_first_and_few_of_one_slide() -> None:
    found = strongest({"a": shown(3, 2.5, 2.4, 2.3), "b": shown(2.7, -1), "c": shown(-2)})
    first = [(slide, one["contribution"]) for slide, one in found["tumour", 1]]
    assert first == [("a", 3), ("b", 2.7), ("a", 2.5)]
    assert len([slide for slide, _ in first if slide == "a"]) == SLIDE_MOST
    assert [slide for slide, _ in found["tumour", -1]] == ["c", "b"]


def test_patches_are_cut_from_where_the_slides_gallery_has_them(tmp_path: Path) -> None:
    galleries = {"a": shown(1.0, -2.0), "b": shown(3.0)}
    for number, slide in enumerate(galleries):
        page = np.full((900, 900, 3), 255, np.uint8)
        for one in galleries[slide]:
            x, y = corner(int(one["row"]), int(one["column"]))
            page[y : y + SIDE, x : x + SIDE] = 40 + 60 * number + 30 * int(one["row"])
        (tmp_path / "slides" / slide).mkdir(parents=True)
        Image.fromarray(page).save(tmp_path / "slides" / slide / "gallery.jpg", quality=95)
    picture = cohort_gallery(tmp_path, galleries, seen_mpp=0.5, unit="log-odds")
    assert picture is not None
    pixels, step = np.asarray(picture.image).astype(int), SIDE + MARGIN
    middles = [pixels[MARGIN + LINE + SIDE // 2, MARGIN + i * step + SIDE // 2, 0] for i in range(2)]
    assert np.allclose(middles, [100, 40], atol=3)  # b's 3.0, then a's 1.0
    assert picture.cuts == (MARGIN + LINE + step + BELOW,), "above the second heading"
    below = MARGIN + (LINE + step + BELOW) + LINE + SIDE // 2
    assert abs(pixels[below, MARGIN + SIDE // 2, 0] - 70) <= 3


def test_what_is_doubtful_is_red(tmp_path: Path) -> None:
    """Of the model a line on top, of slides their names, and the legend says so."""
    galleries = {"a": shown(1.0, -2.0), "b": shown(3.0)}

    def picture(**how: Any) -> CohortGallery:
        found = cohort_gallery(tmp_path, galleries, seen_mpp=0.5, unit="log-odds", **how)
        assert found is not None
        return found

    def red(found: CohortGallery, left: int, upper: int, wide: int = SIDE) -> bool:
        return bool((np.asarray(found.image)[upper : upper + LINE, left : left + wide] == RED).all(-1).any())

    plain, doubtful = picture(), picture(doubtful=["a", "c"])
    name, step = MARGIN + LINE + SIDE + LINE, SIDE + MARGIN
    assert not red(plain, 0, 0, plain.image.width)
    assert red(doubtful, MARGIN + step, name), "a's 1.0 is second"
    assert not red(doubtful, MARGIN, name), "b has none"
    warned = picture(warned=["the model may not have learned"])
    assert red(warned, 0, MARGIN)
    assert warned.cuts == tuple(cut + LINE for cut in plain.cuts)


def test_parts_for_paper_are_the_picture(tmp_path: Path) -> None:
    """A page is not cut within a row of patches: each row with its heading is a picture of its own in the report."""
    rgb = np.broadcast_to(np.linspace(0, 255, 90)[:, None, None], (90, 120, 3)).astype(np.uint8)
    Image.fromarray(rgb).save(tmp_path / "whole.png")
    parts = [
        Image.open(io.BytesIO(base64.b64decode(one.partition(",")[2])))
        for one in smaller(tmp_path / "whole.png", cuts=[30, 70])
    ]
    assert [part.size for part in parts] == [(120, 30), (120, 40), (120, 20)]
    together = np.concatenate([np.asarray(part) for part in parts]).astype(int)
    assert np.abs(together - rgb).mean() < 2
    assert gallery_section("gallery.jpg", smaller(tmp_path / "whole.png", [30, 70])).count("<img ") == 3
    assert "a.gallery img { break-inside: avoid; }" in STYLE.partition("@media print")[2]
    assert smaller(tmp_path / "none.png") == []
    assert 'src="gallery.jpg"' in gallery_section("gallery.jpg")


def test_a_cohort_without_evidence_has_none(tmp_path: Path) -> None:
    assert cohort_gallery(tmp_path, {"a": [], "b": []}, seen_mpp=0.5, unit="log-odds") is None

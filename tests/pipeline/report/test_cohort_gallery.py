"""The cohort's gallery shows its strongest patches, from the slides' own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.report.cohort_gallery import BELOW, LINE, MARGIN, SLIDE_MOST, cohort_gallery, strongest
from stages.overlay.gallery import corner
from stages.overlay.insets import SIDE


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
    pixels, step = np.asarray(picture).astype(int), SIDE + MARGIN
    middles = [pixels[MARGIN + LINE + SIDE // 2, MARGIN + i * step + SIDE // 2, 0] for i in range(2)]
    assert np.allclose(middles, [100, 40], atol=3)  # b's 3.0, then a's 1.0
    below = MARGIN + (LINE + step + BELOW) + LINE + SIDE // 2
    assert abs(pixels[below, MARGIN + SIDE // 2, 0] - 70) <= 3


def test_a_cohort_without_evidence_has_none(tmp_path: Path) -> None:
    assert cohort_gallery(tmp_path, {"a": [], "b": []}, seen_mpp=0.5, unit="log-odds") is None

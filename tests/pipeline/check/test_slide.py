"""What a check finds wrong with one slide, and under which name."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from bags import corners_of, features_of, write_bag
from makers import spoil, tissue_pixels, write_slide

from pipeline.check.slide import CheckSettings, check_slide
from pipeline.check.values import SlideCheck
from pipeline.cohort.cohort import CohortSlide
from stages.pyramid.cache import cache_pyramid
from stages.pyramid.open import open_pyramid


def checked(path: Path, **settings: object) -> SlideCheck:
    found: SlideCheck = check_slide(CohortSlide("s", path, "s"), CheckSettings(**settings))["check"]
    return found


def errors(found: SlideCheck) -> list[str]:
    return [finding.kind for finding in found.findings if finding.error]


def test_a_good_slide_is_measured_and_has_no_error(slides_folder: Path) -> None:
    found = checked(slides_folder / "even.tif")
    assert errors(found) == []
    assert (found.size, found.levels, found.mpp) == ((2048, 1536), 3, (0.5, 0.5))
    assert found.tissue_mm2 is not None
    # 0.6 x 0.6 of 1.024 x 0.768 mm is tissue, whose edges blur at 8 µm/px
    assert found.tissue_mm2 == pytest.approx(0.283, rel=0.1)


def test_a_slide_on_which_no_cell_is_seen_is_doubted_where_no_model_says_what_it_needs(tmp_path: Path) -> None:
    """Most likely a picture that a scanner made of the whole slide; 4 µm/px is a scan all the same."""
    for mpp, doubted in ((28.97, True), (4.0, False)):
        found = checked(write_slide(tmp_path / f"{mpp}.tif", tissue_pixels(600, 500), mpp=mpp))
        told = [one.words for one in found.findings if one.kind == "resolution"]
        assert [one.startswith(f"its finest level has {mpp} µm/px") for one in told] == [True] * doubted
        assert errors(found) == []


def damaged(path: Path) -> Path:
    write_slide(path, tissue_pixels(1100, 900))
    spoil(path, 1, 5)  # level 1 has 3 x 2 tiles: the last one
    return path


def nothing(path: Path) -> Path:
    path.symlink_to("nowhere.tif")
    return path


MADE = {
    "resolution": lambda path: write_slide(path, tissue_pixels(600, 500), mpp=None, levels=1),
    "tissue": lambda path: write_slide(path, np.full((500, 600, 3), 244, np.uint8), levels=1),
    "tiles": damaged,
    "file": nothing,
}


@pytest.mark.parametrize("kind", MADE)
def test_what_is_wrong_is_one_error_of_its_kind(kind: str, tmp_path: Path) -> None:
    assert errors(checked(MADE[kind](tmp_path / "s.tif"))) == [kind]


def test_damage_is_told_with_its_level(tmp_path: Path) -> None:
    [finding] = [f for f in checked(damaged(tmp_path / "s.tif")).findings if f.error]
    assert "1 of 6 tiles that were tried of level 1 (550 x 450 px)" in finding.words


def test_a_damaged_pyramid_is_found(slides_folder: Path, tmp_path: Path) -> None:
    pyramid = tmp_path / "s.ome.zarr"
    cache_pyramid(open_pyramid(slides_folder / "even.tif"), pyramid)
    assert errors(checked(pyramid)) == []
    shutil.rmtree(pyramid / "0" / "c")
    assert errors(checked(pyramid)) == ["file"]


def test_a_contradicted_resolution_is_an_error_only_where_it_is_asked_for(tmp_path: Path) -> None:
    told = "Aperio|AppMag = 40|MPP = 2.0"
    path = write_slide(tmp_path / "s.tif", tissue_pixels(600, 500), mpp=2.0, levels=1, description=told)
    lenient, strict = checked(path), checked(path, strict=True)
    assert ("resolution" in errors(lenient), "resolution" in errors(strict)) == (False, True)
    assert lenient.findings[0].kind == "resolution"
    assert "resolution" not in [f.kind for f in checked(path, mpp=0.25, strict=True).findings if f.error]


def test_a_table_problem_is_told_without_opening(tmp_path: Path) -> None:
    slide = CohortSlide("s", tmp_path / "gone.tif", "s", problem="row 2: no slide")
    found = check_slide(slide, CheckSettings())["check"]
    assert [(f.kind, f.words) for f in found.findings] == [("file", "row 2: no slide")]


def test_a_bag_is_checked_without_pixels(tmp_path: Path) -> None:
    good = checked(write_bag(tmp_path / "b" / "s.h5", corners_of(20), features_of(20, positive=1, seed=0)))
    assert (good.status, good.vendor, good.findings) == ("ok", "bag", ())
    assert good.tissue_mm2 == pytest.approx(20 * 0.128**2)
    broken = checked(write_bag(tmp_path / "b" / "t.h5", corners_of(20), np.full((20, 4), np.nan)))
    assert len(errors(broken)) == 1
    unknown = checked(write_bag(tmp_path / "b" / "u.h5", corners_of(20), features_of(20, positive=1, seed=0), "clam"))
    assert errors(unknown) == ["resolution"]

"""Kept looks: the same ones however few are kept, in bounded memory and with a bounded number of open files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from makers import tissue_pixels, write_slide
from models import TINY

import stages.slide.companions
from pipeline.cohort.cohort import Cohort
from pipeline.cohort.target import find_target
from pipeline.model.sampler import AttentionSampler
from pipeline.train import looks
from pipeline.train.looks import Looks
from stages.pyramid.cache import cache_pyramid
from stages.pyramid.open import open_pyramid


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """Twenty slides and pyramids."""
    folder = tmp_path_factory.mktemp("slides")
    for i in range(20):
        path = write_slide(folder / f"s{i:02}.tif", tissue_pixels(640, 600 + 8 * i, margin=0.1), levels=2, factor=4)
        if i % 4 == 0:
            cache_pyramid(open_pyramid(path), folder / f"p{i:02}.ome.zarr")
            path.unlink()
    return find_target(folder)


def read(cohort: Cohort, kept: Looks) -> list[np.ndarray]:
    """Three times over all slides, backwards, as an epoch reads them: some patches of each."""
    found = []
    for _ in range(3):
        for slide in reversed(cohort.slides):
            view = kept(slide).view
            found += [view.rgb, np.asarray(view.patches(np.flatnonzero(view.tissue)[:5]))]
    return found


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts open files as Linux shows them")
@pytest.mark.parametrize("budget", ["files", "bytes"])
def test_what_is_kept_is_bounded_and_what_is_read_the_same(
    cohort: Cohort, monkeypatch: pytest.MonkeyPatch, budget: str
) -> None:
    model = AttentionSampler(TINY)
    everything = read(cohort, Looks(model, None, print))
    if budget == "files":
        monkeypatch.setattr(looks, "OPEN_FILES", 12)
    else:
        monkeypatch.setattr(looks, "LOOKS_BYTES", 5 * Looks(model, None, print)(cohort.slides[0]).nbytes)
    few, before = Looks(model, None, print), open_files()
    for one, other in zip(everything, read(cohort, few), strict=True):
        np.testing.assert_array_equal(one, other)
    assert open_files() - before <= 12 + 4  # and those of the one that was read last
    assert len(few._kept) == (20 if budget == "files" else pytest.approx(5, abs=1))


def test_a_slide_that_is_kept_is_looked_at_once(cohort: Cohort, monkeypatch: pytest.MonkeyPatch) -> None:
    """However few may be open: what is costly is kept."""
    looked, look = [], looks.look
    monkeypatch.setattr(looks, "OPEN_FILES", 1)
    monkeypatch.setattr(looks, "look", lambda path, *args, **kwargs: looked.append(path) or look(path, *args, **kwargs))
    read(cohort, Looks(AttentionSampler(TINY), None, print))
    assert sorted(looked) == sorted(slide.path for slide in cohort.slides)


@pytest.mark.parametrize("seen", [True, False], ids=["by its fingerprint", "where no sample looks"])
def test_a_slide_that_is_replaced_meanwhile_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: bool
) -> None:
    monkeypatch.setattr(stages.slide.companions, "_SAMPLE", 64)
    path = write_slide(tmp_path / "s.tif", tissue_pixels(640, 600), levels=2, factor=4)
    (slide,) = find_target(path).slides
    kept = Looks(AttentionSampler(TINY), None, print)
    kept(slide)
    kept._drop(slide.slide_id)
    if seen:
        write_slide(path, tissue_pixels(600, 640), levels=2, factor=4)
    else:
        content = bytearray(path.read_bytes())
        content[len(content) // 2 + 100] ^= 1
        path.write_bytes(content)
    with pytest.raises(looks.SlideError, match="was replaced while training went on"):
        kept(slide)

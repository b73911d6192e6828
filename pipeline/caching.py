"""Tile and cache a cohort: every slide as a pyramid that all other commands read in its place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pipeline import artefacts
from pipeline.cohort import Cohort
from stages.pyramids import cache_pyramid, open_pyramid


def cache_cohort(
    cohort: Cohort,
    out: Path,
    *,
    progress: Callable[[int, int, str | None], None] | None = None,
) -> int:
    """Write every slide's pyramid to ``out/<slide_id>.ome.zarr``; those that are there and whole are kept.

    A pyramid records the resolution that the file states; an override is given again where it is read.

    Args:
        cohort: the slides.
        out: the folder for the pyramids.
        progress: called with (slides done, slides in all, what became of the last).

    Returns:
        How many slides failed; the others are not affected.
    """
    artefacts.prepare_output(out)
    failed = 0
    for number, slide in enumerate(cohort.slides, 1):
        try:
            if slide.problem:
                raise ValueError(slide.problem)
            target = cache_pyramid(open_pyramid(slide.path), out / f"{slide.slide_id}.ome.zarr")
            line = f"{slide.slide_id}: {target}"
        except Exception as exc:
            failed += 1
            line = f"{slide.slide_id}: failed: {exc}"
        if progress:
            progress(number, len(cohort.slides), line)
    return failed

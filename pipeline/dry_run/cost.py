"""About what a slide of a run takes: by those that are done, else by a look at one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.check.need import estimate, geometry_of, need_of
from pipeline.check.values import SlideCheck
from pipeline.cohort.cohort import CohortSlide
from pipeline.model.slide_model import SlideModel
from pipeline.output.slide_folder import read_commit
from pipeline.run.keys import RunSettings
from stages.amounts import counted
from stages.place import NotLocalError, local
from stages.pyramid.open import open_pyramid
from stages.slide.facts import SlideError

MOST_DONE = 200
"""Slides that are done by which others are judged."""
MOST_TRIED = 3
"""Slides at most on which is measured what one takes."""

Each = tuple[tuple[float, float, float], str]
"""Bytes read, bytes written and seconds of a slide, and by what that is judged."""


def by_those_done(out: Path, run: str) -> Each | None:
    """By the slides that are done in a folder with the same model and settings; None where there are none."""
    found = list(_measured(out / "slides", run))
    if not found:
        return None
    read, written, seconds = (sum(column) / len(found) for column in zip(*found, strict=True))
    how = f"as {counted(len(found), 'slide')} took that {'are' if len(found) > 1 else 'is'} done here"
    return (read, written, seconds), how


def _measured(folder: Path, run: str) -> Iterator[tuple[float, float, float]]:
    count = 0
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        commit = read_commit(path)
        if commit is None or commit.get("run") != run or count == MOST_DONE:
            continue
        row = commit.get("row")
        if not isinstance(row, dict) or not all(isinstance(row.get(n), int | float) for n in ("bytes_read", "seconds")):
            continue
        count += 1
        written = sum(os.lstat(os.path.join(at, name)).st_size for at, _, names in os.walk(path) for name in names)
        yield float(row["bytes_read"]), float(written), float(row["seconds"])


def by_one(slides: Sequence[CohortSlide], settings: RunSettings, model: SlideModel) -> Each | str:
    """By a look at one slide and some of its patches; in words why not, where it cannot be."""
    if settings.tolerance is not None or settings.decide is not None:
        return "how much is read shows while it is read, and no slide is done here by which to judge"
    if settings.prior is not None and settings.prior.is_network:
        return "what the prior's network takes is not known, and no slide is done here by which to judge"
    geometry = geometry_of(model)
    geometry = replace(geometry, samples=settings.samples or geometry.samples)
    for slide in _typical(slides):
        mpp = slide.mpp if slide.mpp is not None else settings.mpp
        try:
            opened = open_pyramid(slide.path, mpp=mpp)
            _, need = need_of(opened, geometry)
            used = opened.facts.require_mpp()
            check = SlideCheck(slide, mpp=(used.x, used.y), mpp_source="file" if mpp is None else "override", need=need)
            found = estimate([check], model, workers=1)
        except (SlideError, ValueError, OSError):
            continue
        if found is not None:
            how = f"reading, encoding and pictures, by a look at {slide.slide_id} and some patches"
            return (found.bytes, found.disk_bytes, found.seconds), how
    return "none of those slides that were tried could be looked at"


def _typical(slides: Sequence[CohortSlide]) -> list[CohortSlide]:
    """`MOST_TRIED` slides of middling size, the middle one first."""

    def file_bytes(slide: CohortSlide) -> int:
        try:
            return os.stat(local(slide.path, "its size is asked of a disk")).st_size
        except (OSError, NotLocalError):
            return 0

    ordered = sorted(slides, key=file_bytes)
    first = max(0, (len(ordered) - MOST_TRIED) // 2)
    middle = ordered[first : first + MOST_TRIED]
    return [*middle[len(middle) // 2 :], *middle[: len(middle) // 2]]

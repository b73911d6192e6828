"""A slide, and the cohort that a target stands for."""

from __future__ import annotations

import os
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.commands.arguments import AnyPath
from pipeline.errors import of_file
from stages.place import place

if TYPE_CHECKING:
    from pipeline.cohort.cohort import Cohort
    from stages.slide.protocol import Slide


def open_slide(path: AnyPath, *, mpp: float | None = None) -> Slide:
    """Open a slide: a whole-slide file, or a pyramid that `cache` made of one. A notebook shows its thumbnail.

    Of its pixels only what tells its levels apart is read; the slide pickles by its path.

    Args:
        path: whatever OpenSlide opens (SVS, NDPI, MRXS, SCN, BIF, VMS, DICOM, generic TIFF ...), or an `.ome.zarr`
            folder of ours.
        mpp: µm per level-0 pixel, where the file does not say or is wrong.

    Raises:
        SlideError: missing, not a slide, damaged, or an OME-Zarr of another program.

    Examples:
        >>> import saccade
        >>> slide = saccade.open_slide("slides/even.tif")
        >>> slide
        <OpenSlideSlide 'even.tif': generic-tiff, 2048 x 1536 px, 0.5 x 0.5 µm/px, 3 levels>
        >>> slide.facts.mpp.x, [level.width for level in slide.facts.levels]
        (0.5, [2048, 1024, 512])
    """
    from stages.pyramid.open import open_pyramid
    from stages.slide.facts import SlideError

    try:
        return open_pyramid(path, mpp=mpp)
    except SlideError as exc:
        raise SlideError(of_file(os.fspath(path), exc)) from exc


def read_cohort(target: AnyPath, *, label: str = "label", root: AnyPath | None = None) -> Cohort:
    """The slides that a target stands for: a slide, a folder (searched all the way down) or a cohort table (CSV).

    Args:
        target: its path. A table has the columns `slide` and, where there are any, `patient`, `label`, `mpp`, `split`,
            `fold`, `site`.
        label: the table's column of labels.
        root: folder that a table's relative paths start from; default: the table's own.

    Raises:
        UsageError: nothing there, no slides inside, a broken table, two slides with one name.

    Examples:
        >>> import saccade
        >>> cohort = saccade.read_cohort("cohort.csv")
        >>> cohort.classes, [(slide.slide_id, slide.label) for slide in cohort.slides[:2]]
        (('a', 'b'), [('s0', 'a'), ('s1', 'b')])
    """
    from pipeline.cohort.target import find_target

    return find_target(place(target), label=label, root=None if root is None else Path(root))


def given_cohort(target: Cohort | AnyPath, *, label: str = "label") -> Cohort:
    """The slides of a command: those of a path, or what `read_cohort` gave."""
    return read_cohort(target, label=label) if isinstance(target, str | PathLike) else target

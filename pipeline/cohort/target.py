"""What a TARGET means: one slide, a folder searched for slides, or a cohort table (CSV)."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.cohort.cohort import Cohort, CohortSlide
from pipeline.cohort.files import (
    PYRAMID_SUFFIX,
    SLIDE_SUFFIXES,
    as_file_systems_see,
    find_slides,
    find_slides_at,
    folder_name,
    slide_stem,
)
from pipeline.cohort.table import examine_table, refuse
from pipeline.errors import UsageError
from stages.bags.bag import BAG_SUFFIXES
from stages.place import Place, Url

TABLE_SUFFIXES = (".csv", ".tsv", ".txt")
_SPREADSHEETS = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods", ".numbers", ".parquet", ".csv.gz", ".csv.zip")
_log = logging.getLogger(__name__)


def find_target(target: Place, *, label: str = "label", root: Path | None = None) -> Cohort:
    """The slides that a TARGET stands for: a slide, a folder (searched all the way down) or a cohort table.

    Args:
        target: as the user typed it.
        label, root: as in `read_table`; a table without the label column is fine.

    Raises:
        UsageError: nothing there, no permission, no slides inside, a broken table, two of its slides with one name.
    """
    cohort, faults = examine_target(target, label=label, root=root)
    refuse(faults)
    return cohort


def examine_target(
    target: Place,
    *,
    label: str = "label",
    root: Path | None = None,
    columns: Mapping[str, str] | None = None,
    bags: Path | None = None,
    told: Callable[[str], None] | None = None,
) -> tuple[Cohort, tuple[str, ...]]:
    """As `find_target`, and all that it refuses beside what can be read all the same, instead of the first of it.

    Args:
        target, label, root: as there.
        columns, bags: of a table, as in `read_table`.
        told: of folders that could not be searched; default: the log is.

    Raises:
        UsageError: nothing there, no permission, no slides inside, a table that nothing can be read from.
    """
    if isinstance(target, Url):
        return _examine_url(target, told or _log.warning), ()
    _refuse_unreadable(target)
    if target.is_dir() and target.suffix.lower() != PYRAMID_SUFFIX:
        found = [_unlabelled(path) for path in find_slides(target, told=told or _log.warning)]
        if not found:
            found = [_unlabelled(path) for path in find_slides(target, suffixes=BAG_SUFFIXES)]
        slides = _named_apart(found, target.absolute())
        if not slides:
            raise UsageError(
                f"no slides in {target}: searched it and its folders for {' '.join(SLIDE_SUFFIXES)} files, OME-Zarr "
                f"pyramids and bags ({' '.join(BAG_SUFFIXES)}), but not hidden files or outputs of earlier runs; name "
                "a slide, its folder or a cohort table"
            )
        return Cohort(target, slides), ()
    if not os.path.exists(target):
        raise UsageError(f"no such file or folder: {target}; give a slide, a folder of slides or a cohort table (CSV)")
    if target.name.lower().endswith((*TABLE_SUFFIXES, *_SPREADSHEETS)):
        return examine_table(target, label=label, root=root, columns=columns, bags=bags)
    return Cohort(target, (_unlabelled(target.absolute()),)), ()


def _examine_url(url: Url, told: Callable[[str], None]) -> Cohort:
    if url.name.lower().endswith((*TABLE_SUFFIXES, *_SPREADSHEETS)):
        raise UsageError(f"{url}: tables are read from disks: copy it; its slides may be URLs")
    slides = _named_apart([_unlabelled(found) for found in find_slides_at(url, told=told)], url)
    if not slides:
        raise UsageError(
            f"no slides at {url}: searched all below it for OME-Zarr images ({PYRAMID_SUFFIX}), but not hidden ones"
        )
    return Cohort(url, slides)


def _refuse_unreadable(target: Path) -> None:
    try:
        os.stat(target)
    except PermissionError as exc:
        raise UsageError(
            f"no permission to reach {target}: have the owner of the folders above it allow it (chmod a+x)"
        ) from exc
    except OSError:  # told of by whoever looks for it
        pass


def _unlabelled(path: Place) -> CohortSlide:
    slide_id = folder_name(slide_stem(path))
    problem = None
    if isinstance(path, Url):
        return CohortSlide(slide_id=slide_id, path=path, patient=slide_id)
    try:
        os.stat(path)
    except FileNotFoundError:
        problem = f"a link to a missing file, {os.path.realpath(path)}; restore it"
    except OSError as exc:
        if exc.errno == errno.ELOOP:
            problem = "a link that leads back to itself; remove or correct it"
    return CohortSlide(slide_id=slide_id, path=path, patient=slide_id, problem=problem)


def _named_apart(slides: Sequence[CohortSlide], root: Place) -> tuple[CohortSlide, ...]:
    """Slides of one name that each lie alone in a folder take its name; DICOM is exported so, a folder a slide. Others
    are called by all the folders that they are in, and it is said."""
    names = Counter(as_file_systems_see(slide.slide_id) for slide in slides)
    inside = Counter(slide.path.parent for slide in slides)

    def named(slide: CohortSlide) -> CohortSlide:
        if names[as_file_systems_see(slide.slide_id)] == 1 or inside[slide.path.parent] > 1:
            return slide
        name = folder_name(slide.path.parent.name)
        return replace(slide, slide_id=name, patient=name if slide.patient == slide.slide_id else slide.patient)

    apart = [named(slide) for slide in slides]
    count = Counter(as_file_systems_see(slide.slide_id) for slide in apart)
    taken = {name for name, times in count.items() if times == 1}
    renamed = [slide for slide in apart if count[as_file_systems_see(slide.slide_id)] > 1]
    forms = {slide.path: [as_file_systems_see(n) for n in _by_folders(slide, root)] for slide in renamed}
    others = [Counter(form) for form in zip(*forms.values(), strict=True)]

    def unlike(slide: CohortSlide) -> CohortSlide:
        if slide.path not in forms:
            return slide
        seen = zip(_by_folders(slide, root), forms[slide.path], others, strict=True)
        name = next((n for n, form, count in seen if count[form] == 1 and form not in taken), None)
        if name is None:  # names that differ by what file systems overlook
            name = folder_name(f"{slide.slide_id}~{hashlib.sha256(os.fsencode(str(slide.path))).hexdigest()[:8]}")
        return replace(slide, slide_id=name, patient=name if slide.patient == slide.slide_id else slide.patient)

    found = [unlike(slide) for slide in apart]
    if renamed:
        _log.warning(
            "%d slides share their name with another and are called by their folders, as %r: a cohort table with a "
            "'slide_id' column beside 'slide' names them otherwise",
            len(renamed),
            next(slide.slide_id for slide in found if slide.path in forms),
        )
    return tuple(found)


def _by_folders(slide: CohortSlide, root: Place) -> tuple[str, str]:
    """What a slide may be called by the folders that it is in: without its format, and with it."""
    inside = Path(str(slide.path)).relative_to(str(root))
    return folder_name("_".join((*inside.parent.parts, slide_stem(inside)))), folder_name("_".join(inside.parts))

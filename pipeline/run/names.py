"""What slides are called in a folder of results: by the names that they have there already, whatever lies beside them
by now."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from pipeline.cohort.cohort import Cohort, CohortSlide
from pipeline.cohort.files import as_file_systems_see, folder_name
from pipeline.output.slide_folder import read_commit


def named_as_before(cohort: Cohort, out: Path) -> Cohort:
    """A cohort whose slides keep the names that they have in a folder of results, where nobody named them outright.

    What a slide of a folder is called depends on what else lies there: it must not be predicted again, or be in a table
    twice, since another came. A new slide whose name is taken so gets one of its own. Only where a slide has no folder
    by its name is looked for another: a rerun over finished slides reads nothing for it.

    Args:
        cohort: the slides, by the names that they would have now.
        out: the folder, which may not be there yet.
    """
    if "name" in cohort.columns:
        return cohort
    try:
        folders = set(os.listdir(out / "slides"))
    except OSError:
        return cohort
    if not folders or all(slide.slide_id in folders for slide in cohort.slides):
        return cohort
    earlier = _names(out / "slides", folders)
    own = {str(slide.path): slide.slide_id for slide in cohort.slides}
    kept = {path: own[path] if own[path] in names else names[0] for path, names in earlier.items() if path in own}
    taken = {as_file_systems_see(name) for name in kept.values()}

    def named(slide: CohortSlide) -> CohortSlide:
        name = kept.get(str(slide.path), slide.slide_id)
        if str(slide.path) not in kept and as_file_systems_see(name) in taken:
            name = folder_name(f"{name}~{hashlib.sha256(os.fsencode(str(slide.path))).hexdigest()[:8]}")
        return replace(slide, slide_id=name, patient=name if slide.patient == slide.slide_id else slide.patient)

    return replace(cohort, slides=tuple(map(named, cohort.slides)))


def _names(slides: Path, folders: Iterable[str]) -> dict[str, list[str]]:
    """Names of the folders that hold a slide's results, by its path."""
    found: dict[str, list[str]] = {}
    for folder in sorted(folders):
        with suppress(OSError):
            record = read_commit(slides / folder)
            if record is not None:
                found.setdefault(str(record.get("path")), []).append(folder)
    return found

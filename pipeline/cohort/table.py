"""What a TARGET means: one slide, a folder searched for slides, or a cohort table (CSV)."""

from __future__ import annotations

import difflib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.cohort.files import PYRAMID_SUFFIX, SLIDE_SUFFIXES, find_slides, folder_name, slide_stem
from pipeline.cohort.rows import fold_of, mpp_of, read_rows, split_of
from pipeline.errors import UsageError

TABLE_SUFFIXES = (".csv", ".tsv", ".txt")
WORKBOOK_SUFFIXES = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods", ".numbers")

_COLUMNS = {
    # slide_id comes last: beside another of these it names the slide, alone it finds it
    "slide": ("slide", "wsi", "filename", "image_path", "slide_id"),
    "patient": ("patient", "case_id"),
    "mpp": ("mpp", "spacing_at_level_0"),
    "split": ("split",),
    "fold": ("fold",),
    "site": ("site",),
}


@dataclass(frozen=True, slots=True)
class CohortSlide:
    """One slide and what the cohort table says of it.

    Attributes:
        slide_id: unique in its cohort and safe as a folder name on any system.
        path: absolute; the file, or the `.zarr` folder of a pyramid.
        patient: who it is from; the slide itself where nobody says.
        label: class name, or None.
        mpp: µm per level-0 pixel that replaces the file's own, or None.
        split: "train", "val", "test" or None.
        fold: cross-validation fold that tests on it, or None.
        site: where it was made, or None.
        problem: why this slide cannot be used and what to do, or None; a batch records it as the slide's failure.
    """

    slide_id: str
    path: Path
    patient: str
    label: str | None = None
    mpp: float | None = None
    split: str | None = None
    fold: int | None = None
    site: str | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Cohort:
    """Slides in a fixed order, and where the list came from."""

    source: Path
    slides: tuple[CohortSlide, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels that occur, sorted, as numbers where all of them are; of two classes the last is the positive."""
        labels = {slide.label for slide in self.slides if slide.label is not None}
        if all(re.fullmatch(r"-?[0-9]+", label) for label in labels):
            return tuple(sorted(labels, key=lambda label: (int(label), label)))
        return tuple(sorted(labels))


def find_target(target: Path, *, label: str = "label", root: Path | None = None) -> Cohort:
    """The slides that a TARGET stands for: a slide, a folder (searched all the way down) or a cohort table.

    Args:
        target: as the user typed it.
        label, root: as in `read_table`; a table without the label column is fine.

    Raises:
        UsageError: nothing there, no permission, no slides inside, a broken table, two slides with one name.
    """
    _refuse_unreadable(target)
    if target.is_dir() and target.suffix.lower() != PYRAMID_SUFFIX:
        slides = _named_apart([_unlabelled(path) for path in find_slides(target)])
        if not slides:
            raise UsageError(
                f"no slides in {target}: searched it and its folders for {' '.join(SLIDE_SUFFIXES)} files and OME-Zarr "
                "pyramids, but not hidden files or outputs of earlier runs; name a slide, its folder or a cohort table"
            )
        _refuse_same_name([(slide, str(slide.path)) for slide in slides])
        return Cohort(target, slides)
    if not os.path.exists(target):
        raise UsageError(f"no such file or folder: {target}; give a slide, a folder of slides or a cohort table (CSV)")
    if target.suffix.lower() in TABLE_SUFFIXES:
        return read_table(target, label=label, root=root)
    if target.suffix.lower() in WORKBOOK_SUFFIXES:
        raise UsageError(f"{target}: a workbook, not a table as text; save its sheet as 'CSV UTF-8' and give that")
    return Cohort(target, (_unlabelled(target.absolute()),))


def read_training_table(table: Path, *, label: str = "label", root: Path | None = None) -> Cohort:
    """A cohort table fit for training: every slide exists and has a label, and no patient is on both sides of a split.

    Raises:
        UsageError: as `read_table`, and where a slide has a problem or no label, there is only one class, or the split
            column is half filled or parts a patient's slides.
    """
    cohort = read_table(table, label=label, root=root, label_required=True)
    problems = [slide.problem for slide in cohort.slides if slide.problem]
    if problems:
        raise UsageError(f"{table}: {problems[0]}" + (f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""))
    unlabelled = [slide.slide_id for slide in cohort.slides if slide.label is None]
    if unlabelled:
        raise UsageError(
            f"{table}: {len(unlabelled)} of {len(cohort.slides)} slides have no {label!r}, the first is "
            f"{unlabelled[0]!r}; fill in the labels or remove those rows"
        )
    if len(cohort.classes) < 2:
        raise UsageError(
            f"{table}: column {label!r} must hold two classes or more, found only {cohort.classes[0]!r}; "
            "add slides of another class or set cohort.label to another column"
        )
    _refuse_leaks(cohort)
    return cohort


def read_table(table: Path, *, label: str = "label", root: Path | None = None, label_required: bool = False) -> Cohort:
    """Read a cohort table: `,`, `;` or tab separated UTF-8 with a header, one slide a row.

    Columns, in upper or lower case: slide (or wsi, filename, image_path, slide_id), patient (case_id), label, mpp
    (spacing_at_level_0), split, fold, site; others are left alone. `slide_id` beside another slide column gives the
    slide its name. A slide may be named without its suffix where only one file fits. A missing file or a bad mpp is
    that slide's `problem`, not the table's.

    Args:
        table: the file.
        label: the column that holds the labels.
        root: folder that relative paths start from; default: the table's own.
        label_required: whether a missing label column is an error.

    Raises:
        UsageError: unreadable, no slide column, no such label column, a slide twice, two slides with one name.
    """
    header, rows, decimal = read_rows(table)
    position = {name.casefold(): i for i, name in reversed(list(enumerate(header)))}
    column = {key: next((position[n] for n in names if n in position), None) for key, names in _COLUMNS.items()}
    column["label"] = position.get(label.casefold())
    if column["slide"] is None:
        raise UsageError(
            f"{table}: expected a column {' or '.join(_COLUMNS['slide'])}, found {', '.join(header)}; "
            "rename the one that holds the slides"
        )
    if label_required and column["label"] is None:
        nearest = max(header, key=lambda name: difflib.SequenceMatcher(None, label.lower(), name.lower()).ratio())
        raise UsageError(
            f"{table}: no label column {label!r}, found {', '.join(header)}; set cohort.label (nearest: {nearest!r})"
        )
    name_column = position.get("slide_id")
    if name_column == column["slide"]:
        name_column = None
    find = _finder((root or table.parent).absolute())
    slides: list[tuple[CohortSlide, str]] = []
    for number, row in rows:
        cell = {key: "" if at is None else row[at] for key, at in column.items()}
        where = f"row {number}"
        if not cell["slide"]:
            raise UsageError(f"{table}, {where}: no slide; fill in {header[column['slide']]!r} or delete the row")
        path, missing = find(cell["slide"], where)
        mpp, bad_mpp = mpp_of(cell["mpp"].replace(decimal, "."), where)
        slide_id = folder_name(("" if name_column is None else row[name_column]) or slide_stem(path))
        slide = CohortSlide(
            slide_id=slide_id,
            path=path,
            patient=cell["patient"] or slide_id,
            label=None if cell["label"].lower() in ("", "nan") else cell["label"],
            mpp=mpp,
            split=split_of(cell["split"], f"{table}, {where}"),
            fold=fold_of(cell["fold"], f"{table}, {where}"),
            site=cell["site"] or None,
            problem=missing or bad_mpp,
        )
        slides.append((slide, where))
    if not slides:
        raise UsageError(f"{table}: no slides below the header; add one row for each slide")
    _refuse_same_file(slides, table)
    _refuse_same_name(slides)
    return Cohort(table, tuple(slide for slide, _ in slides))


def _refuse_unreadable(target: Path) -> None:
    try:
        os.stat(target)
    except PermissionError as exc:
        raise UsageError(
            f"no permission to reach {target}: have the owner of the folders above it allow it (chmod a+x)"
        ) from exc
    except OSError:  # told of by whoever looks for it
        pass


def _unlabelled(path: Path) -> CohortSlide:
    slide_id = folder_name(slide_stem(path))
    problem = None if os.path.exists(path) else f"a link to a missing file, {os.path.realpath(path)}; restore it"
    return CohortSlide(slide_id=slide_id, path=path, patient=slide_id, problem=problem)


def _named_apart(slides: Sequence[CohortSlide]) -> tuple[CohortSlide, ...]:
    """Slides of one name that each lie alone in a folder take its name; DICOM is exported so, a folder a slide."""
    names = Counter(_as_file_systems_see(slide.slide_id) for slide in slides)
    inside = Counter(slide.path.parent for slide in slides)

    def named(slide: CohortSlide) -> CohortSlide:
        if names[_as_file_systems_see(slide.slide_id)] == 1 or inside[slide.path.parent] > 1:
            return slide
        name = folder_name(slide.path.parent.name)
        return replace(slide, slide_id=name, patient=name if slide.patient == slide.slide_id else slide.patient)

    return tuple(named(slide) for slide in slides)


def _as_file_systems_see(name: str) -> str:
    return unicodedata.normalize("NFC", name.casefold())  # some of them fold case


def _finder(root: Path) -> Callable[[str, str], tuple[Path, str | None]]:
    """A function from a slide's name in a row to its path and, where it cannot be found, why and what to do."""
    by_stem: dict[Path, dict[str, list[Path]]] = {}  # of every folder that had to be searched

    def find(name: str, where: str) -> tuple[Path, str | None]:
        path = Path(os.path.abspath(root / Path(name).expanduser()))
        if os.path.isdir(path) and path.suffix.lower() != PYRAMID_SUFFIX:
            inside = find_slides(path)
            if len(inside) == 1:
                return inside[0], None
            return path, f"{where}: {path} is a folder with {len(inside)} slides; name one slide"
        if os.path.exists(path):
            return path, None
        missing = f"{where}: no slide {path}; correct the path or the folder that paths start from ({root})"
        if path.suffix.lower() in (*SLIDE_SUFFIXES, PYRAMID_SUFFIX) or not os.path.isdir(path.parent):
            return path, missing
        if path.parent not in by_stem:
            by_stem[path.parent] = {}
            for slide in find_slides(path.parent):
                by_stem[path.parent].setdefault(slide_stem(slide), []).append(slide)
        fits = by_stem[path.parent].get(path.name, [])
        if len(fits) > 1:
            names = ", ".join(str(fit.relative_to(path.parent)) for fit in fits[:3])
            return path, f"{where}: {name!r} fits {len(fits)} slides ({names}); name one with its folder and suffix"
        return (fits[0], None) if fits else (path, missing)

    return find


def _refuse_leaks(cohort: Cohort) -> None:
    if all(slide.split is None for slide in cohort.slides):
        return
    seen: dict[str, CohortSlide] = {}
    for slide in cohort.slides:
        if slide.split is None:
            raise UsageError(f"{cohort.source}: {slide.slide_id!r} has no split while others do; fill it in")
        first = seen.setdefault(slide.patient, slide)
        if first.split != slide.split:
            raise UsageError(
                f"{cohort.source}: patient {slide.patient!r} is in both {first.split} ({first.slide_id!r}) and "
                f"{slide.split} ({slide.slide_id!r}); put all slides of a patient into one"
            )


def _refuse_same_file(slides: Sequence[tuple[CohortSlide, str]], table: Path) -> None:
    seen: dict[str, str] = {}
    for slide, where in slides:
        real = os.path.realpath(slide.path)
        if real in seen:
            raise UsageError(f"{table}: {slide.path} is listed twice, in {seen[real]} and {where}; remove one of them")
        seen[real] = where


def _refuse_same_name(slides: Sequence[tuple[CohortSlide, str]]) -> None:
    seen: dict[str, str] = {}
    for slide, where in slides:
        key = _as_file_systems_see(slide.slide_id)
        if key in seen:
            raise UsageError(
                f"two slides are called {slide.slide_id!r}, {seen[key]} and {where}, but results are kept by name; "
                "rename one, or use a cohort table with a 'slide_id' column beside 'slide'"
            )
        seen[key] = where

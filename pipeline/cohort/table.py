"""Cohort tables: CSV with a slide a row, read as people write them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pipeline.cohort.cohort import Cohort, CohortSlide
from pipeline.cohort.columns import choose_columns, label_column, refuse_lookalikes, round_columns
from pipeline.cohort.files import as_file_systems_see, finder, folder_name, slide_stem
from pipeline.cohort.given_splits import part_of
from pipeline.cohort.rows import fold_of, mpp_of, read_rows, split_of
from pipeline.cohort.spelling import are_amounts, is_missing, near_equal, tcga_patient
from pipeline.errors import UsageError
from stages.bags.bag import find_bag
from stages.place import Place, true_name

Value = TypeVar("Value")


def read_table(
    table: Path,
    *,
    label: str | None = "label",
    root: Path | None = None,
    columns: Mapping[str, str] | None = None,
    training: bool = False,
    bags: Path | None = None,
) -> Cohort:
    """Read a cohort table: `,`, `;`, `|` or tab separated UTF-8 with a header, one slide a row.

    Columns go by the names that people use, whatever their case, spaces, `_` and `-`: slide (or wsi, filename,
    image_path, slide_id ...), patient (case_id, submitter_id ...), label, mpp, split, fold, site (center, hospital
    ...); docs/files.md has all. `slide_id` beside another slide column gives the slide its name. A slide may be named
    without its suffix where only one file fits. A missing file or a bad mpp is that slide's `problem`, not the table's.

    Args:
        table: the file.
        label: the column that holds the labels; None: none does.
        root: folder that relative paths start from; default: the table's own.
        columns: names of the columns for any of "slide", "patient" and "site"; default: by their usual names.
        training: whether a missing label column or patient is an error, and `label` may have another usual name.
        bags: folder of the bags that stand for the slides, which need not be there: see `find_bag`; None: none do.

    Raises:
        UsageError: unreadable, no slide column, no such label column, a slide twice, two slides with one name; several
            columns that may be meant, or one that looks like patients and is called otherwise; labels, patients or
            sites that differ by what nobody sees.
    """
    cohort, faults = examine_table(table, label=label, root=root, columns=columns, training=training, bags=bags)
    refuse(faults)
    return cohort


def examine_table(
    table: Path,
    *,
    label: str | None,
    root: Path | None,
    columns: Mapping[str, str] | None = None,
    training: bool = False,
    bags: Path | None = None,
) -> tuple[Cohort, tuple[str, ...]]:
    """What can be read of a table, and all that `read_table` refuses about it."""
    header, rows, decimal = read_rows(table)
    faults: list[str] = []
    taken = choose_columns(header, rows, columns or {}, table)
    rounds = {header[i]: i for i in round_columns(header, table)} if training else {}
    label_at = None if label is None else label_column(header, rows, label, table, required=training)
    if label_at is not None:
        taken["label"] = label_at
        _attempt(faults, refuse_lookalikes, header, rows, taken, table)
    find = finder((root or table.parent).absolute())
    others = [i for i, name in enumerate(header) if name and (i == label_at or i not in taken.values())]
    slides: list[tuple[CohortSlide, str]] = []
    for number, row in rows:
        cell = {role: row[at] for role, at in taken.items()}
        told = {role: _value(text, decimal) for role, text in cell.items()}
        where = f"row {number}"
        if not cell["slide"]:
            faults.append(f"{table}, {where}: no slide; fill in {header[taken['slide']]!r} or delete the row")
            continue
        if bags is None:
            path, missing = find(cell["slide"], where)
        else:
            path, missing = _bag(bags, cell["slide"], told.get("name"), where)
        mpp, bad_mpp = mpp_of(cell.get("mpp", "").replace(decimal, "."), where)
        slide_id = folder_name(told.get("name") or slide_stem(path))
        if training and "patient" in taken and told["patient"] is None:
            faults.append(
                f"{table}, {where}: slide {slide_id!r} has no {header[taken['patient']]!r} "
                f"(found {cell['patient']!r}), and a patient's slides must stay together; fill it in or remove the row"
            )
        patient = told.get("patient")
        barcode = tcga_patient(patient or slide_id)
        slide = CohortSlide(
            slide_id=slide_id,
            path=path,
            patient=barcode or patient or slide_id,
            label=told.get("label"),
            mpp=mpp,
            split=_attempt(faults, split_of, cell.get("split", ""), f"{table}, {where}"),
            fold=_attempt(faults, fold_of, cell.get("fold", ""), f"{table}, {where}"),
            rounds=tuple(_attempt(faults, part_of, row[at], name, f"{table}, {where}") for name, at in rounds.items()),
            site=told["site"] if "site" in taken else barcode and barcode[5:7],
            problem=missing or bad_mpp,
            others=tuple((header[i], _value(row[i], decimal)) for i in others),
        )
        slides.append((slide, where))
    if not slides:
        raise UsageError(faults[0] if faults else f"{table}: no slides below the header; add one row for each slide")
    faults += [*_same_files(slides, table), *_same_names(slides)]
    cohort = Cohort(table, tuple(slide for slide, _ in slides), {role: header[at] for role, at in taken.items()})
    if "label" in taken:
        faults += _near_equal(cohort)
    return cohort, tuple(faults)


def refuse(faults: Iterable[str]) -> None:
    for fault in faults:
        raise UsageError(fault)


def _bag(folder: Path, slide: str, name: str | None, where: str) -> tuple[Place, str | None]:
    """The bag of a slide, by its name or its file's, and why it cannot be used where it is not there."""
    stem = slide_stem(Path(slide.replace("\\", "/")))
    path = find_bag(folder.absolute(), [folder_name(name or stem), stem])
    if path.exists():
        return path, None
    only = (
        " (of CLAM's pt_files, which have no coordinates: give its h5_files)"
        if path.with_suffix(".pt").exists()
        else ""
    )
    return path, f"{where}: no bag {path}{only}; correct cohort.bags, or name the slide as its bag is named"


def _value(text: str, decimal: str) -> str | None:
    """A cell's text, None where it says that there is none; a number with a point."""
    if is_missing(text):
        return None
    return text.replace(decimal, ".") if re.fullmatch(r"[+-]?[0-9]*,[0-9]+", text) else text


def _attempt(faults: list[str], act: Callable[..., Value], *args: Any) -> Value | None:
    """What it gives; None where it refuses, which is a fault."""
    try:
        return act(*args)
    except UsageError as exc:
        faults.append(str(exc))
        return None


def _near_equal(cohort: Cohort) -> Iterator[str]:
    for role in ("label", *({"patient", "site"} & cohort.columns.keys())):
        texts = {text for text in (getattr(slide, role) for slide in cohort.slides) if text is not None}
        if role == "label" and are_amounts(texts):
            continue  # 0.5 and 0.50 are one, and nothing hangs on it
        for one, other in near_equal(texts):
            yield (
                f"{cohort.source}: {role} {one!a} and {role} {other!a} differ only by what is overlooked "
                "(case, spaces, invisible or look-alike characters, zeros); write both alike, or rename one"
            )


def _same_files(slides: Sequence[tuple[CohortSlide, str]], table: Path) -> Iterator[str]:
    seen: dict[str, str] = {}
    for slide, where in slides:
        real = true_name(slide.path)
        if real in seen:
            yield f"{table}: {slide.path} is listed twice, in {seen[real]} and {where}; remove one of them"
        seen[real] = where


def _same_names(slides: Sequence[tuple[CohortSlide, str]]) -> Iterator[str]:
    seen: dict[str, str] = {}
    for slide, where in slides:
        key = as_file_systems_see(slide.slide_id)
        if key in seen:
            yield (
                f"two slides are called {slide.slide_id!r}, {seen[key]} and {where}, but results are kept by name; "
                "rename one, or use a cohort table with a 'slide_id' column beside 'slide'"
            )
        seen[key] = where

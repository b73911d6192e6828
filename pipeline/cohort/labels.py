"""The task of a cohort: what its table's labels are, each read and found to be one, and what folds hold evenly."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.cohort.cohort import Cohort, CohortSlide
from pipeline.cohort.spelling import are_amounts, column_key, is_number, near_equal
from pipeline.errors import UsageError
from pipeline.task.build import TASKS
from pipeline.task.task import Cells, Task
from stages.prediction.kinds import Kind

PARTS = 5
"""Parts of equal size that values are dealt out to folds by, where there are patients enough."""
NAMED = 3
"""Slides that a message names beside the first."""
REST = "the rest"
"""What has fewer patients than there are folds, together."""


def task_for(
    cohort: Cohort,
    kind: Kind | None = None,
    *,
    labels: Sequence[str] = (),
    grades: Sequence[str] = (),
    times: Sequence[float] = (),
) -> Task:
    """The task that a cohort's labels are for.

    Args:
        cohort: every slide of which has a label.
        kind: what the user says it is; None: texts, and numbers of two values, are classes, and fractions a value.
        labels: columns that hold the label, where it is not the one.
        grades: an ordinal label's, from the least; empty: whole numbers in their order.
        times: ends of the intervals of discrete survival.

    Raises:
        UsageError: labels that are no such, or numbers of which nobody says what they are.
    """
    given = {slide.label for slide in cohort.slides if slide.label is not None}
    if kind is None:
        kind = _kind_of(cohort, given)
    column = (cohort.columns.get("label", "label"),)
    if kind == "classification":
        return TASKS[kind](cohort.classes, column)
    if kind == "ordinal":
        names = tuple(grades) or _grades_of(cohort, given)
        if len(names) < 3:
            raise UsageError(
                f"{cohort.source}: an order needs three grades or more, found {', '.join(names)}: correct "
                "cohort.grades, or set cohort.task to classification"
            )
        task = TASKS[kind](names, column)
    elif kind == "multilabel":
        task = TASKS[kind](tuple(labels), tuple(labels))
    else:
        single = kind == "regression"
        task = TASKS[kind](("value",) if single else ("risk_score",), column if single else tuple(labels), tuple(times))
    _refuse_unread(cohort, task)
    refuse_one_sided(task, [slide.cells(task.labels) for slide in cohort.slides], str(cohort.source))
    return task


def refuse_one_sided(task: Task, labels: Sequence[Cells], where: str) -> None:
    """Refuse labels of which nothing can be learnt; see `Task.unlearnable`.

    Raises:
        UsageError: why.
    """
    why = task.unlearnable([task.target(cells) for cells in labels])
    if why is not None:
        raise UsageError(f"{where}: {why}")


def _refuse_unread(cohort: Cohort, task: Task) -> None:
    """Refuse labels that the task cannot read.

    Raises:
        UsageError: what is wrong with the first slide's, and of which others something is.
    """
    wrong: dict[str, str] = {}
    for slide in cohort.slides:
        cells = slide.cells(task.labels)
        try:
            task.target(cells)
            if all(cell is None for cell in cells):
                wrong[slide.slide_id] = f"has nothing under {', '.join(task.labels)}; fill it in"
        except ValueError as exc:
            wrong[slide.slide_id] = f"{exc}; correct it"
    if wrong:
        (first, why), *others = wrong.items()
        at = f"slide {first!r}{' ' if why.startswith('has') else ': '}{why}"
        named = ", ".join(repr(name) for name, _ in others[:NAMED]) + ", ..." * (len(others) > NAMED)
        also = f"; {len(others)} more like it ({named})"
        raise UsageError(f"{cohort.source}: {at} or remove the row{also if others else ''}")


def cells_of(slide: CohortSlide, task: Task) -> Cells:
    """A slide's label as its table has it, under the model's own columns; classes, which their names tell, also under
    `label` where it has no such column."""
    there = {column_key(name) for name, _ in slide.others}
    if task.kind == "classification" and there.isdisjoint(map(column_key, task.labels)):
        return slide.cells(())
    return slide.cells(task.labels)


def known_label(slide: CohortSlide, task: Task) -> Cells | None:
    """A slide's label; None where the table has none, or none that the task can read."""
    cells = cells_of(slide, task)
    if all(cell is None for cell in cells):
        return None
    try:
        task.target(cells)
    except ValueError:
        return None
    return cells


def refuse_unknown_labels(cohort: Cohort, task: Task, model: Path, *, without: str = "to predict only") -> None:
    """Refuse labels that a model does not know.

    Args:
        cohort: some of whose slides may have labels.
        task: the model's.
        model: its path.
        without: what a table without labels would still do.

    Raises:
        UsageError: which, and what the model was trained for.
    """
    if task.kind == "classification":
        given = {cells_of(slide, task)[0] for slide in cohort.slides}
        unknown = sorted({label for label in given if label is not None} - set(task.names))
        if unknown:
            alike = [pair for pair in near_equal([*task.names, unknown[0]]) if unknown[0] in pair]
            meant = "write it as the model does, if {!r} and {!r} are one; else ".format(*alike[0]) if alike else ""
            raise UsageError(
                f"the cohort has the label {unknown[0]!r}, but {model} was trained for {', '.join(task.names)}: "
                f"{meant}use the model of this task, or a table without a label column {without}"
            )
        return
    for slide in cohort.slides:
        cells = cells_of(slide, task)
        if any(cell is not None for cell in cells):
            try:
                task.target(cells)
            except ValueError as exc:
                raise UsageError(
                    f"{cohort.source}: slide {slide.slide_id!r}: {exc}, as {model} was trained for: correct it, or use "
                    f"a table without a label column {without}"
                ) from exc


def dealt(cohort: Cohort, task: Task, folds: int | None, *, by_site: bool = False) -> Cohort:
    """The cohort, with what folds are to hold evenly: classes; parts of equal size of a value; or events and none, each
    in parts by time, but where folds are whole sites, ``by_site``, of which there are too few for that.

    What has fewer patients than there are folds is not told apart; without any they are two.
    """
    if task.kind == "classification":
        return cohort
    read = [slide.cells(task.labels) for slide in cohort.slides]
    groups = [task.stratum(cells) for cells in read]
    if not (by_site and task.of_patient):
        groups = _parted(cohort, groups, [task.rank(cells) for cells in read], folds or 2)
    least = folds or 2
    having = _patients_by(cohort, groups)
    told = [group if len(having[group]) >= least else REST for group in groups]
    if 0 < len(_patients_by(cohort, told)[REST]) < least:
        told = ["all"] * len(told)
    slides = (replace(slide, dealt_by=group) for slide, group in zip(cohort.slides, told, strict=True))
    return replace(cohort, slides=tuple(slides))


def _parted(cohort: Cohort, groups: Sequence[str], sizes: Sequence[float | None], folds: int) -> list[str]:
    """Groups of slides, each parted by what its slides differ by in size, into as many parts, `PARTS` at most, as have
    two patients for each fold; equal ones are in one part."""
    told = list(groups)
    for group, patients in _patients_by(cohort, groups).items():
        places = [i for i, one in enumerate(groups) if one == group and sizes[i] is not None]
        parts = max(1, min(PARTS, len(patients) // (2 * folds)))
        ordered = sorted(float(sizes[i] or 0.0) for i in places)
        for i in places:
            part = bisect_left(ordered, float(sizes[i] or 0.0)) * parts // len(ordered) + 1
            told[i] = f"{group} part {part} of {parts}".strip()
    return told


def _patients_by(cohort: Cohort, groups: Sequence[str]) -> defaultdict[str, set[str]]:
    having: defaultdict[str, set[str]] = defaultdict(set)
    for slide, group in zip(cohort.slides, groups, strict=True):
        having[group].add(slide.patient)
    return having


def _kind_of(cohort: Cohort, given: set[str]) -> Kind:
    if are_amounts(given):
        return "regression"
    if len(given) <= 2 or not all(map(is_number, given)):
        return "classification"
    column = cohort.columns.get("label", "label")
    raise UsageError(
        f"{cohort.source}: {column!r} holds {len(given)} different whole numbers: say what they are, with "
        "cohort.task: classification (names of classes), ordinal (grades) or regression (amounts)"
    )


def _grades_of(cohort: Cohort, given: set[str]) -> tuple[str, ...]:
    if all(re.fullmatch(r"[+-]?[0-9]+", one) for one in given):
        return tuple(sorted(given, key=int))
    raise UsageError(
        f"{cohort.source}: the order of the grades {', '.join(sorted(given))} is not known: give cohort.grades, from "
        "the least to the greatest"
    )

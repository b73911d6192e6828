"""Patients in place of slides: a row of each, with all of its slides, where a model is of patients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from pipeline.cohort.cohort import CohortSlide
from pipeline.cohort.files import folder_name
from pipeline.cohort.labels import cells_of, known_label
from pipeline.errors import UsageError
from pipeline.task.task import WORDS, Task

INSTEAD = "use cohort.unit: slide"
"""Of patients whose slides do not agree."""


def by_patient(
    slides: Sequence[CohortSlide], task: Task, source: object, *, by_site: bool = False, instead: str = INSTEAD
) -> tuple[CohortSlide, ...]:
    """A row for each patient, in the order of their first slides: its label, split, fold and site, and its slides, in
    the order of their names, as ``members``; a site that is not that of all of them is None.

    Args:
        slides: of the cohort; those without a label are of no other label.
        task: what labels are.
        source: of the slides, for messages.
        by_site: whether folds are by site, so that a patient is at one.
        instead: what may be done but to correct what differs.

    Raises:
        UsageError: a patient's slides have different labels, or are in different parts.
    """
    members: dict[str, list[CohortSlide]] = {}
    for slide in slides:
        members.setdefault(slide.patient, []).append(slide)
    for patient, own in members.items():
        _refuse_two_sided(own, task, f"{source}: patient {patient!r}", by_site, instead)
    return tuple(_row(patient, own, task) for patient, own in members.items())


def refuse_two_labels(slides: Sequence[CohortSlide], task: Task, source: object) -> None:
    """Refuse slides that are predicted each by itself, and have different labels where a label is the patient's.

    Raises:
        UsageError: whose.
    """
    if not task.of_patient:
        return
    first: dict[str, CohortSlide] = {}
    for slide in _labelled(slides, task):
        labels = [task.label_in_words(cells_of(one, task)) for one in (first.setdefault(slide.patient, slide), slide)]
        if labels[0] != labels[1]:
            raise UsageError(
                f"{source}: patient {slide.patient!r} has two labels, {labels[0]!r} "
                f"({first[slide.patient].slide_id!r}) and {labels[1]!r} ({slide.slide_id!r}), but "
                f"{WORDS[task.kind]} is the patient's: give all slides of one the same"
            )


def two_labelled(slides: Iterable[CohortSlide], task: Task) -> frozenset[str]:
    """Patients whose slides have different labels, where a label is the patient's; unread labels are none."""
    if not task.of_patient:
        return frozenset()
    labels: dict[str, set[str]] = {}
    for slide in slides:
        if (cells := known_label(slide, task)) is not None:
            labels.setdefault(slide.patient, set()).add(task.label_in_words(cells))
    return frozenset(patient for patient, own in labels.items() if len(own) > 1)


def _refuse_two_sided(own: Sequence[CohortSlide], task: Task, where: str, by_site: bool, instead: str) -> None:
    parts: dict[str, Callable[[CohortSlide], object]] = {
        "has two labels": lambda slide: task.label_in_words(cells_of(slide, task)),
        "is in two parts of the split": lambda slide: slide.rounds or (slide.split, slide.fold),
        **({"is at two sites, which folds by site would part": lambda slide: slide.site} if by_site else {}),
    }
    for what, told in parts.items():
        some = _labelled(own, task) if what == "has two labels" else own
        for slide in some[1:]:
            if told(slide) != told(some[0]):
                raise UsageError(
                    f"{where} {what}, {told(some[0])!r} ({some[0].slide_id!r}) and {told(slide)!r} "
                    f"({slide.slide_id!r}), but is predicted as one: correct it, or {instead}"
                )


def _labelled(own: Sequence[CohortSlide], task: Task) -> list[CohortSlide]:
    return [slide for slide in own if any(cell is not None for cell in cells_of(slide, task))]


def _row(patient: str, own: Sequence[CohortSlide], task: Task) -> CohortSlide:
    sites, members = {slide.site for slide in own}, tuple(sorted(own, key=lambda slide: slide.slide_id))
    return replace(
        (_labelled(own, task) or own)[0],
        path=members[0].path,
        slide_id=folder_name(patient),
        site=sites.pop() if len(sites) == 1 else None,
        mpp=None,
        problem=None,
        members=members,
    )


def slides_of(rows: Iterable[CohortSlide]) -> tuple[CohortSlide, ...]:
    """The slides of rows that may be of patients."""
    return tuple(slide for row in rows for slide in row.each)

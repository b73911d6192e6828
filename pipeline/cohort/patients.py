"""Patients in place of slides: a row of each, with all of its slides, where a model is of patients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from pipeline.cohort.files import folder_name
from pipeline.cohort.table import CohortSlide
from pipeline.errors import UsageError
from pipeline.task.task import Task


def by_patient(
    slides: Sequence[CohortSlide], task: Task, source: object, *, by_site: bool = False
) -> tuple[CohortSlide, ...]:
    """A row for each patient, in the order of their first slides: its label, split, fold and site, and its slides, in
    the order of their names, as ``members``; a site that is not that of all of them is None.

    Args:
        slides: of the cohort; those without a label are of no other label.
        task: what labels are.
        source: of the slides, for messages.
        by_site: whether folds are by site, so that a patient is at one.

    Raises:
        UsageError: a patient's slides have different labels, or are in different parts.
    """
    members: dict[str, list[CohortSlide]] = {}
    for slide in slides:
        members.setdefault(slide.patient, []).append(slide)
    return tuple(_row(patient, own, task, source, by_site) for patient, own in members.items())


def _row(patient: str, own: Sequence[CohortSlide], task: Task, source: object, by_site: bool) -> CohortSlide:
    labelled = [slide for slide in own if any(cell is not None for cell in slide.cells(task.labels))]
    where = f"{source}: patient {patient!r}"
    _refuse_differing(labelled, lambda slide: task.label_in_words(slide.cells(task.labels)), f"{where} has two labels")
    parts: Callable[[CohortSlide], object] = lambda slide: slide.rounds or (slide.split, slide.fold)  # noqa: E731
    _refuse_differing(own, parts, f"{where} is in two parts of the split")
    if by_site:
        _refuse_differing(own, lambda slide: slide.site, f"{where} is at two sites, which folds by site would part")
    sites = {slide.site for slide in own}
    return replace(
        (labelled or own)[0],
        slide_id=folder_name(patient),
        site=sites.pop() if len(sites) == 1 else None,
        mpp=None,
        problem=None,
        members=tuple(sorted(own, key=lambda slide: slide.slide_id)),
    )


def _refuse_differing(own: Sequence[CohortSlide], told: Callable[[CohortSlide], object], what: str) -> None:
    for slide in own[1:]:
        if told(slide) != told(own[0]):
            raise UsageError(
                f"{what}, {told(own[0])!r} ({own[0].slide_id!r}) and {told(slide)!r} ({slide.slide_id!r}), but "
                "cohort.unit is patient, who is predicted as one: correct it, or use cohort.unit: slide"
            )


def slides_of(rows: Iterable[CohortSlide]) -> tuple[CohortSlide, ...]:
    """The slides of rows that may be of patients."""
    return tuple(slide for row in rows for slide in row.each)

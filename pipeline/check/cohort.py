"""What is wrong with slides together: one slide twice, patients on both sides of a split, labels that contradict."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from pipeline.check.values import Finding, Kind, SlideCheck
from pipeline.cohort.cohort import Cohort, CohortSlide
from pipeline.cohort.training_table import leaks, lost_classes, unlabelled
from stages.place import true_name

NAMED = 3
"""Slides that a message names."""

_APART: dict[str, tuple[Kind, str]] = {
    "split": ("split", "remove one, or put them into one part"),
    "fold": ("split", "remove one, or put them into one fold"),
    "label": ("label", "correct or remove one"),
}
"""What one slide under two names has one of, and the remedy."""
_OF_A_PATIENT: dict[str, tuple[Kind, str]] = {
    "label": ("label", "right where a patient's slides differ, else correct it"),
    "site": ("site", "correct it, or set training.folds_by to patient, since no site may be parted between folds"),
    "fold": ("split", "put all slides of a patient into one"),
}
"""What a patient has one of, usually."""


def check_together(cohort: Cohort, slides: Sequence[SlideCheck], *, learnt: bool = True) -> Iterator[Finding]:
    """All that only shows where slides are looked at together.

    Args:
        cohort: the slides, and what the table says of them.
        slides: each as it was found.
        learnt: whether to say what keeps labels, taken for classes, from being learnt.
    """
    yield from _twins(slides)
    strip = f"{cohort.source}: "
    for words in leaks(cohort):
        yield Finding("split", words.removeprefix(strip))
    if learnt and "label" in cohort.columns:
        untrained = [*unlabelled(cohort), *lost_classes(cohort)]
        for words in untrained:
            yield Finding("label", f"`saccade train` would refuse this: {words.removeprefix(strip)}", error=False)
    yield from _patients(cohort)


def _twins(slides: Sequence[SlideCheck]) -> Iterator[Finding]:
    """Slides of one content: an error where a part, a label or a patient tells them apart."""
    by_content = defaultdict(list)
    for found in slides:
        if found.fingerprint is not None:
            by_content[found.fingerprint].append(found.slide)
    for same in by_content.values():
        if len({true_name(slide.path) for slide in same}) < 2:
            continue  # listed twice, which the table's own reading tells
        names = _list([f"{slide.slide_id!r} ({slide.path})" for slide in same])
        both = f"{names} are one slide by content"
        apart = False
        for role, (kind, remedy) in _APART.items():
            values = _values(same, role)
            if len(values) > 1:
                apart = True
                yield Finding(kind, f"{both}, but their {role} is {' and '.join(map(repr, values))}; {remedy}")
        patients = _values(same, "patient")
        if not apart:
            whose = f", of the patients {' and '.join(map(repr, patients))}" if _told(same) else ""
            yield Finding("content", f"{both}{whose}: it counts twice; remove one", error=False)


def _patients(cohort: Cohort) -> Iterator[Finding]:
    by_patient = defaultdict(list)
    for slide in cohort.slides:
        by_patient[slide.patient].append(slide)
    for patient, own in by_patient.items():
        for role, (kind, remedy) in _OF_A_PATIENT.items():
            values = _values(own, role)
            if len(values) > 1:
                where = _list([f"{value!r} of {_first(own, role, value)!r}" for value in values])
                many = f"patient {patient!r} has more than one {role}: {where}"
                yield Finding(kind, f"{many}; {remedy}", error=role == "fold")


def of_reading(faults: Sequence[str], unsearched: Sequence[str], cohort: Cohort) -> Iterator[Finding]:
    """What was wrong in reading the table or searching the folder."""
    for words in unsearched:
        yield Finding("folder", words, error=False)
    for words in faults:
        yield Finding("table", words.removeprefix(f"{cohort.source}: ").removeprefix(f"{cohort.source}, "))


def _values(slides: Sequence[CohortSlide], role: str) -> list[object]:
    told = [getattr(slide, role) for slide in slides]
    return list(dict.fromkeys(value for value in told if value is not None))


def _told(slides: Sequence[CohortSlide]) -> bool:
    """Whether somebody said of whom they are, and of different people."""
    return len({s.patient for s in slides}) > 1 and any(s.patient != s.slide_id for s in slides)


def _first(slides: Sequence[CohortSlide], role: str, value: object) -> str:
    return next(slide.slide_id for slide in slides if getattr(slide, role) == value)


def _list(words: Sequence[str]) -> str:
    shown = ", ".join(words[:NAMED])
    return shown if len(words) <= NAMED else f"{shown} and {len(words) - NAMED} more"

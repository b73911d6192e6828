"""Which slides are held out together: by patient, by label, written to a file and used again."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.cohort.table import CohortSlide
from pipeline.errors import UsageError
from pipeline.output.table import write_table

DEFAULT_FOLDS = 5


def split_cohort(slides: Sequence[CohortSlide], *, folds: int | None, seed: int, path: Path) -> dict[str, int]:
    """The cross-validation fold that tests each slide, by slide id, from the file ``path`` or newly made and written.

    With ``folds`` None the table's fold column decides, else there are `DEFAULT_FOLDS`; a given ``folds`` overrides the
    column. New folds keep a patient's slides together and deal the patients of each label evenly; they depend on the
    slides and the seed, not on their order. A file keeps its folds when only the seed has changed, and may list more
    slides than there are now; where it fits in no other way, it is an error and stays as it is.

    Raises:
        UsageError: a class has too few patients, the fold column is not filled in or parts a patient's slides, or the
            file does not fit.
    """
    by_table = folds is None and any(slide.fold is not None for slide in slides)
    count = DEFAULT_FOLDS if folds is None else folds
    if not path.exists():
        fold_of = _by_column(slides) if by_table else _deal(slides, count, seed)
        told = [{"slide_id": slide.slide_id, "patient": slide.patient, "label": slide.label} for slide in slides]
        write_table(path, [{"fold": fold_of[str(row["slide_id"])], **row} for row in told])
        return fold_of
    stored = _read(path)
    remedy = "move it away to split anew, or choose another --out"
    unlisted = next((slide.slide_id for slide in slides if slide.slide_id not in stored), None)
    if unlisted is not None:
        raise UsageError(f"{path} does not list slide {unlisted!r}; {remedy}")
    fold_of = {slide.slide_id: stored[slide.slide_id] for slide in slides}
    if by_table and fold_of != _by_column(slides):
        raise UsageError(f"{path} differs from the table's fold column; {remedy}")
    if not by_table and len(set(stored.values())) != count:
        raise UsageError(f"{path} has {len(set(stored.values()))} folds where {count} are asked for; {remedy}")
    _refuse_parted_patients(slides, fold_of, f"{path}; {remedy}")
    return fold_of


def _by_column(slides: Sequence[CohortSlide]) -> dict[str, int]:
    fold_of: dict[str, int] = {}
    for slide in slides:
        if slide.fold is None:
            raise UsageError(f"slide {slide.slide_id!r} has no fold while others do; fill in the table's fold column")
        fold_of[slide.slide_id] = slide.fold
    if len(set(fold_of.values())) < 2:
        raise UsageError("the table's fold column has a single fold; use two or more, or set training.folds")
    _refuse_parted_patients(slides, fold_of, "the table's fold column; put them into one fold")
    return fold_of


def _deal(slides: Sequence[CohortSlide], folds: int, seed: int) -> dict[str, int]:
    """Every class's patients in random order, dealt like cards; a patient of several classes counts for the rarest."""
    labels: defaultdict[str, set[str]] = defaultdict(set)
    for slide in slides:
        labels[slide.patient].add(slide.label or "")
    patients_with: defaultdict[str, int] = defaultdict(int)
    for found in labels.values():
        for label in found:
            patients_with[label] += 1
    strata: defaultdict[str, list[str]] = defaultdict(list)
    for patient, found in sorted(labels.items()):
        strata[min(found, key=lambda label: (patients_with[label], label))].append(patient)
    smallest = min(patients_with, key=lambda label: (len(strata[label]), label))
    most = len(strata[smallest])
    if folds > most:
        remedy = f"set training.folds to {most} or add patients" if most > 1 else "add patients of that class"
        raise UsageError(
            f"class {smallest!r} has {most} patient{'s' * (most != 1)} of its own, too few for {folds} folds; {remedy}"
        )
    rng = np.random.default_rng(seed)
    shuffled = [patient for label in sorted(strata) for patient in rng.permutation(strata[label]).tolist()]
    # one count over all classes, so that what is left over does not pile up in the first fold
    fold_of = {patient: i % folds for i, patient in enumerate(shuffled)}
    return {slide.slide_id: fold_of[slide.patient] for slide in slides}


def _refuse_parted_patients(slides: Sequence[CohortSlide], fold_of: dict[str, int], where: str) -> None:
    seen: dict[str, int] = {}
    for slide in slides:
        fold = fold_of[slide.slide_id]
        if seen.setdefault(slide.patient, fold) != fold:
            raise UsageError(f"patient {slide.patient!r} is in folds {seen[slide.patient]} and {fold} of {where}")


def _read(path: Path) -> dict[str, int]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return {row["slide_id"]: int(row["fold"]) for row in csv.DictReader(file)}
    except (OSError, UnicodeError, csv.Error, KeyError, ValueError, TypeError) as exc:
        raise UsageError(f"{path} is not a table of slide_id and fold; move it away to split anew") from exc

"""Cohort tables fit for training: what they must have beyond what any table must."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from pipeline.cohort.cohort import Cohort, CohortSlide
from pipeline.cohort.files import folder_name, slide_stem
from pipeline.cohort.given_splits import read_splits
from pipeline.cohort.spelling import are_amounts, have_commas
from pipeline.cohort.table import read_table, refuse
from pipeline.errors import UsageError


def read_training_table(
    table: Path,
    *,
    label: str | None = "label",
    root: Path | None = None,
    columns: Mapping[str, str] | None = None,
    positive: str | None = None,
    folds: int | None = None,
    classes: bool | None = None,
    splits: Path | None = None,
    bags: Path | None = None,
) -> Cohort:
    """A cohort table fit for training: every slide has a label and a patient, who is on one side of a split.

    Args:
        table, label, root, columns: as in `read_table`; without a ``label`` other columns hold it.
        positive: which of two classes is the positive; default: the last in their order.
        folds: of a cross-validation that replaces the table's split or fold column, or None.
        classes: whether labels are classes, each of which every part of the table needs; None: unless they are amounts.
        splits: what replaces it by splits that were made elsewhere: see `read_splits`; or None.
        bags: as in `read_table`.

    Raises:
        UsageError: as `read_table`, and where a slide has no label or no patient though others do, no slide at all is
            there, there is only one class, the split column is half filled or parts a patient's slides, or a part of
            the table (train, test or a fold) has no slides or lacks a class.
    """
    cohort = read_table(table, label=label, root=root, columns=columns, training=True, bags=bags)
    if all(slide.problem for slide in cohort.slides):  # some may have gone; none there is a wrong folder
        raise UsageError(f"{table}: {cohort.slides[0].problem} (and {len(cohort.slides) - 1} more, all of them)")
    if classes is None:
        refuse(_with_commas(cohort))
        classes = not are_amounts(slide.label for slide in cohort.slides if slide.label is not None)
    if label is not None:
        refuse(unlabelled(cohort, classes=classes))
    if positive is not None and (positive not in cohort.classes or len(cohort.classes) != 2):
        raise UsageError(
            f"{table}: cohort.positive must be one of two classes, found {positive!r} and the classes "
            f"{', '.join(cohort.classes)}; correct it or leave it out"
        )
    if splits is not None:
        cohort = _split_by(cohort, splits)
    refuse(leaks(cohort))
    if folds is None and classes:
        refuse(lost_classes(cohort))
    return replace(cohort, positive=positive)


def _split_by(cohort: Cohort, path: Path) -> Cohort:
    """The cohort, split as is given elsewhere instead of as its table says."""
    given = read_splits(path)
    names = {
        # that of a training of patients lists these
        slide.slide_id: (slide.slide_id, slide_stem(slide.path), slide.path.name, folder_name(slide.patient))
        for slide in cohort.slides
    }
    found = {name: next((given[one] for one in called if one in given), None) for name, called in names.items()}
    lost = [name for name, parts in found.items() if parts is None or set(parts) == {None}]
    if lost:
        there = f"; it lists {next(iter(given))!r}" if len(lost) == len(found) and given else ""
        raise UsageError(
            f"{path} has no part for {len(lost)} of {len(found)} slides of {cohort.source}, the first is {lost[0]!r}"
            f"{there}; add them, or remove them from the table"
        )

    def split(slide: CohortSlide) -> CohortSlide:
        parts = found[slide.slide_id] or ()
        slide = replace(slide, split=None, fold=None, rounds=parts if len(parts) > 1 else ())
        if len(parts) > 1:
            return slide
        return replace(slide, fold=parts[0]) if isinstance(parts[0], int) else replace(slide, split=parts[0])

    return replace(cohort, slides=tuple(split(slide) for slide in cohort.slides))


def _with_commas(cohort: Cohort) -> Iterator[str]:
    """Labels that look like numbers with decimal commas, of a table whose columns commas part."""
    labels = [slide.label for slide in cohort.slides if slide.label is not None]
    if have_commas(labels):
        one = next(label for label in labels if "," in label)
        yield (
            f"{cohort.source}: column {cohort.columns['label']!r} looks like numbers with decimal commas, as {one!r}: "
            "write them with points, or part the columns by ; (then commas are decimal); or set cohort.task to "
            "classification if they are names of classes"
        )


def unlabelled(cohort: Cohort, *, classes: bool = True) -> Iterator[str]:
    """What keeps labels from being learnt: slides without one, fewer than two ``classes``."""
    name = cohort.columns["label"]
    without = [slide.slide_id for slide in cohort.slides if slide.label is None]
    if without:
        yield (
            f"{cohort.source}: {len(without)} of {len(cohort.slides)} slides have no {name!r}, the first is "
            f"{without[0]!r}; fill in the labels (NA, none, unknown, - and so on are missing) or remove the rows"
        )
    if classes and len(cohort.classes) < 2:
        yield (
            f"{cohort.source}: column {name!r} must hold two classes or more, found only "
            f"{', '.join(map(repr, cohort.classes)) or 'empty cells'}; "
            "add slides of another class or set cohort.label to another column"
        )


def leaks(cohort: Cohort) -> Iterator[str]:
    """Where the split column is half filled, or parts a patient's slides."""
    if all(slide.split is None for slide in cohort.slides):
        return
    seen: dict[str, CohortSlide] = {}
    told: set[str] = set()
    for slide in cohort.slides:
        if slide.split is None:
            yield f"{cohort.source}: {slide.slide_id!r} has no split while others do; fill it in"
            continue
        first = seen.setdefault(slide.patient, slide)
        if first.split != slide.split and slide.patient not in told:
            told.add(slide.patient)
            yield (
                f"{cohort.source}: patient {slide.patient!r} is in both {first.split} ({first.slide_id!r}) and "
                f"{slide.split} ({slide.slide_id!r}); put all slides of a patient into one"
            )


def lost_classes(cohort: Cohort) -> Iterator[str]:
    """Every part that is learnt from or judged needs every class: train, test where there is one, and each fold."""
    by_split = any(slide.split is not None for slide in cohort.slides)
    part_of = [str(slide.split) if by_split else f"fold {slide.fold}" for slide in cohort.slides]
    found = set(part_of)
    for part in ["train", *({"test"} & found)] if by_split else sorted(found - {"fold None"}):
        labels = [slide.label for slide, its in zip(cohort.slides, part_of, strict=True) if its == part]
        lost = [name for name in cohort.classes if name not in labels]
        if lost:
            what = f"no slide labelled {lost[0]!r} among its {len(labels)}" if labels else "no slides"
            yield (
                f"{cohort.source}: {part} has {what}; correct the {'split' if by_split else 'fold'} column, or set "
                "training.folds to cross-validate without it"
            )

"""Whom each model of a cross-validation is fitted to, chosen by and judged on: what is reported has chosen nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.cohort.cohort import CohortSlide
from pipeline.cohort.labels import refuse_one_sided
from pipeline.cohort.splits import By, refuse_parted, sites_held_out, split_cohort, strata_of
from pipeline.errors import UsageError
from pipeline.task.task import Task

Slides = tuple[CohortSlide, ...]


@dataclass(frozen=True, slots=True)
class Fold:
    """One model of a cross-validation.

    Attributes:
        repeat: which of several cross-validations it belongs to.
        number: which of that one's folds.
        train: what it is fitted to.
        val: what chooses its epoch and thresholds; of other patients; may be empty.
        test: what it is judged on; of other patients than either.
    """

    repeat: int
    number: int
    train: Slides
    val: Slides
    test: Slides

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"fold-{self.number}" + (f"-repeat-{self.repeat}" if self.repeat else "")


def is_split(slides: Sequence[CohortSlide], folds: int | None) -> bool:
    """Whether slides are split once and for all, and no folds are asked for instead."""
    return folds is None and any(slide.split is not None for slide in slides)


def deal_folds(
    slides: Sequence[CohortSlide],
    *,
    folds: int | None,
    seed: int,
    path: Path | None,
    by: By = "patient",
    repeats: int = 1,
    inner_val: float = 0.0,
    inner_by: By | None = None,
) -> list[Fold]:
    """The folds of a cross-validation, or of several.

    Args:
        slides, folds, seed, path, by, repeats: see `split_cohort`; several given splits are a fold each.
        inner_val, inner_by: see `hold_out`; each fold's, of what it is fitted to; None: as ``by``.

    Raises:
        UsageError: see there; a fold has no slide of some class to fit to, or none to judge on.
    """
    if folds is None and any(isinstance(part, str) for slide in slides for part in slide.rounds):
        return _given(slides, by, repeats, inner_val, inner_by or by)
    found = []
    told = split_cohort(slides, folds=folds, seed=seed, path=path, by=by, repeats=repeats)
    for repeat, fold_of in enumerate(told):
        for number in sorted(set(fold_of.values())):
            test = tuple(slide for slide in slides if fold_of[slide.slide_id] == number)
            others = tuple(slide for slide in slides if fold_of[slide.slide_id] != number)
            _refuse_lost(others, slides, f"fold {number}")
            seeds, where = (seed, repeat, number), f"the training of fold {number}"
            train, val = hold_out(others, inner_val, seed=seeds, by=inner_by or by, of=where)
            found.append(Fold(repeat, number, train, val, test))
    return found


def hold_out(
    slides: Sequence[CohortSlide], share: float, *, seed: Sequence[int], by: By = "patient", of: str = "the training"
) -> tuple[Slides, Slides]:
    """Slides to fit to, and those of a share of the patients of each class, one at least, which choose the epoch.

    By "site" they are all of whole sites, as near to that share as those allow, without chance (`sites_held_out`).

    Args:
        slides: of the training.
        share: 0: none are held out.
        seed: of who is, by "patient".
        by: what is never parted.
        of: what these slides are, for messages.

    Raises:
        UsageError: a class, or all that there is, has a single patient, or by "site" no sites can be spared.
    """
    if not share:
        return tuple(slides), ()
    if by == "site":
        held = sites_held_out(slides, share, of=of)
        return tuple(s for s in slides if s.site not in held), tuple(s for s in slides if s.site in held)
    rng, chosen = np.random.default_rng(list(seed)), set()
    strata = strata_of(slides)
    for label, patients in strata.items():
        if len(patients) < 2:
            if len(strata) > 1 and label not in _classes(slides):
                continue  # a part of what is no class may stay whole in what is fitted to
            raise UsageError(
                f"training.inner_val holds out patients of each class, but {of} has {len(patients)} of class {label!r} "
                "of its own to train on; leave it out, or add patients of that class"
            )
        many = min(max(1, round(share * len(patients))), len(patients) - 1)
        chosen |= set(rng.permutation(patients)[:many].tolist())
    return (
        tuple(slide for slide in slides if slide.patient not in chosen),
        tuple(slide for slide in slides if slide.patient in chosen),
    )


def held_out_of_all(
    slides: Sequence[CohortSlide], folds: Sequence[Fold], *, inner_val: float, seed: int, inner_by: By = "patient"
) -> tuple[Slides, Slides]:
    """What the model is fitted to that is kept, and what chooses its epoch, as that of each fold is chosen: the same
    share of all patients, whether the folds' val is held out of them or given.

    Raises:
        UsageError: see `hold_out`.
    """
    people = [({s.patient for s in fold.train}, {s.patient for s in fold.val}) for fold in folds]
    given = float(np.mean([len(val) / len(train | val) for train, val in people])) if people else 0.0
    return hold_out(slides, inner_val or min(given, 0.5), seed=(seed,), by=inner_by)


def check_folds(
    slides: Sequence[CohortSlide],
    *,
    folds: int | None,
    by: By = "patient",
    repeats: int = 1,
    inner_val: float = 0.0,
    inner_by: By | None = None,
    seed: int = 0,
    task: Task | None = None,
) -> list[str]:
    """Refuse, before a slide is read, what `deal_folds` would, and parts of which the ``task`` can learn nothing
    (`refuse_one_sided`); by "site" a split column that parts a site, too.

    Returns:
        What is doubtful about the folds, a line each.

    Raises:
        UsageError: as `deal_folds`; repeats or an inner part are asked for of slides whose split leaves no room for it.
    """
    if not is_split(slides, folds):
        inner: dict[str, Any] = {"inner_val": inner_val, "inner_by": inner_by or by}
        dealt = deal_folds(slides, folds=folds, seed=seed, path=None, by=by, repeats=repeats, **inner)
        last = held_out_of_all(slides, dealt, seed=seed, **inner)[0]
        for name, train in [*((f"the training of {fold.name}", fold.train) for fold in dealt), ("the training", last)]:
            _refuse_one_sided(task, train, name)
        return [*_doubts(dealt, task), *_unsplit(slides)]
    if by == "site":
        refuse_parted(slides, {slide.slide_id: str(slide.split) for slide in slides}, "the table's split column", by)
    if repeats > 1:
        raise UsageError(
            "training.repeats repeats a cross-validation, but the slides are split; leave it out, or set training.folds"
        )
    if inner_val and any(slide.split == "val" for slide in slides):
        raise UsageError("training.inner_val: there are slides of split val already; leave it out")
    train = tuple(slide for slide in slides if slide.split == "train")
    fitted, _ = hold_out(train, inner_val, seed=(seed,), by=inner_by or by, of="split train")
    _refuse_one_sided(task, fitted, "split train")
    people = {name: {slide.patient for slide in fitted if slide.label == name} for name in sorted(_classes(fitted))}
    parts = {name: [slide for slide in slides if slide.split == name] for name in ("val", "test")}
    lacking = [(name, _unjudged(task, part)) for name, part in parts.items() if part]
    return [f"split {name} has {why}: how good the model is cannot be told on it" for name, why in lacking if why] + [
        f"split train has a single patient of class {name!r}: what tells that class may be what tells the patient"
        for name, having in people.items()
        if len(having) == 1
    ]


def _unsplit(slides: Sequence[CohortSlide]) -> list[str]:
    held = [slide for slide in slides if slide.split in ("val", "test")]
    if not held:
        return []
    return [
        "training.folds takes the place of the table's split: the slides of val and test are in the folds, and in the "
        f"training of the model that is kept ({held[0].slide_id!r} for one); leave training.folds out to keep them out"
    ]


def _refuse_one_sided(task: Task | None, train: Slides, where: str) -> None:
    if task is not None:
        refuse_one_sided(task, [slide.cells(task.labels) for slide in train], where)


def _given(slides: Sequence[CohortSlide], by: By, repeats: int, inner_val: float, inner_by: By) -> list[Fold]:
    """A fold of each given split; where they judge on the same slides, each is a repeat."""
    if repeats > 1:
        raise UsageError("training.repeats repeats a cross-validation, but its splits are given; leave it out")
    rounds = range(max(len(slide.rounds) for slide in slides))
    parts = [{s.slide_id: s.rounds[i] for s in slides} for i in rounds]
    tests = [[name for name, part in one.items() if part == "test"] for one in parts]
    apart = len({name for test in tests for name in test}) == sum(map(len, tests))
    found = []
    for i, part_of in enumerate(parts):
        there = [slide for slide in slides if part_of[slide.slide_id] is not None]
        train, val, test = (tuple(s for s in there if part_of[s.slide_id] == part) for part in ("train", "val", "test"))
        where = f"split {i}"
        refuse_parted(there, {s.slide_id: str(part_of[s.slide_id]) for s in there}, f"given {where}", by)
        _refuse_lost(train, slides, where)
        if not test:
            raise UsageError(f"{where} has no slides of test: nothing would be judged; add some or remove it")
        if inner_val and val:
            raise UsageError(f"training.inner_val: {where} has slides of val already; leave it out")
        if inner_val:
            train, val = hold_out(train, inner_val, seed=(i,), by=inner_by, of=where)
        found.append(Fold(0, i, train, val, test) if apart else Fold(i, 0, train, val, test))
    return found


def _classes(slides: Sequence[CohortSlide]) -> set[str]:
    """Those that slides are dealt by; none where the label is no class (`pipeline.cohort.labels.dealt`)."""
    return {str(slide.label) for slide in slides if slide.dealt_by is None}


def _refuse_lost(train: Slides, slides: Sequence[CohortSlide], where: str) -> None:
    lost = sorted(_classes(slides) - _classes(train))
    if lost:
        raise UsageError(
            f"{where} has no slide labelled {lost[0]!r} to train on: all of that class are held out there; part them "
            "otherwise, or add patients of that class"
        )


def _unjudged(task: Task | None, slides: Sequence[CohortSlide]) -> str | None:
    return None if task is None else task.unjudged([task.target(slide.cells(task.labels)) for slide in slides])


def _doubts(folds: Sequence[Fold], task: Task | None) -> list[str]:
    """Folds whose own figures tell little: they count with the others only."""
    lines = []
    for fold in folds:
        patients, sites = {s.patient for s in fold.test}, {s.site for s in fold.test}
        lost = sorted(_classes((*fold.train, *fold.val)) - _classes(fold.test))
        at = f" (site {next(iter(sites))!r})" if len(sites) == 1 and len(folds) > 1 and None not in sites else ""
        why = [f"no slide labelled {name!r}" for name in lost] + ["a single patient"] * (len(patients) == 1)
        lacking = _unjudged(task, fold.test)
        why += [lacking] if lacking else []
        if why:
            lines.append(f"{fold.name}{at} is judged on {' and '.join(why)}: it counts with the other folds only")
    return lines

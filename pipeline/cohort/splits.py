"""Which slides are held out together: by patient, by label, written to a file and used again."""

from __future__ import annotations

import csv
import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.cohort.cohort import CohortSlide
from pipeline.errors import UsageError
from pipeline.output.table import write_table
from stages.amounts import counted

DEFAULT_FOLDS = 5

By = Literal["patient", "site"]


def refuse_twins(parts: Mapping[str, Sequence[CohortSlide]], fingerprints: Mapping[str, str]) -> list[str]:
    """Refuse a slide that is in two parts, or has two labels, under two names; a warning for each other pair.

    Args:
        parts: slides of each part.
        fingerprints: of the slides' content, by slide id; those of slides that cannot be read are missing.

    Raises:
        UsageError: which two.
    """
    seen: dict[str, tuple[CohortSlide, str]] = {}
    warnings = []
    for part, slides in parts.items():
        for slide in slides:
            content = fingerprints.get(slide.slide_id)
            if content is None:
                continue
            first, where = seen.setdefault(content, (slide, part))
            if first is slide:
                continue
            both = f"{first.slide_id!r} ({first.path}) and {slide.slide_id!r} ({slide.path}) are one slide by content"
            if where != part:
                raise UsageError(f"{both}, but in both {where} and {part}; remove one, or put them into one part")
            if first.label != slide.label:
                raise UsageError(f"{both}, but labelled {first.label!r} and {slide.label!r}; correct or remove one")
            warnings.append(f"{both}: it counts twice; remove one")
    return warnings


def split_cohort(
    slides: Sequence[CohortSlide],
    *,
    folds: int | None,
    seed: int,
    path: Path | None,
    by: By = "patient",
    repeats: int = 1,
) -> list[dict[str, int]]:
    """The cross-validation fold that tests each slide, by slide id, for each of several repeats.

    They are those of the file ``path``, or newly made and written there; with None nothing is read or written.

    With ``folds`` None the table's fold columns decide, else there are `DEFAULT_FOLDS`; a given ``folds`` overrides the
    columns. New folds keep a patient's slides together and deal the patients of each label evenly; they depend on the
    slides and the seed, not on their order. By "site" they keep all patients of a site together, so that no model is
    judged at a site that it has learnt from, as even in classes as whole sites allow (`_deal_sites`). Each repeat has
    folds of its own; the first has those of a single one.

    A file keeps its folds when only the seed has changed, and may list more slides than there are now; where it fits in
    no other way, it is an error and stays as it is.

    Raises:
        UsageError: a class has too few patients or sites, the fold column is not filled in or parts the slides of a
            patient or site, a slide has no site or a patient two, or the file does not fit.
    """
    by_table = folds is None and any(slide.fold is not None or slide.rounds for slide in slides)
    count = DEFAULT_FOLDS if folds is None else folds
    if by_table:
        told = _by_columns(slides, by)
        if repeats not in (1, len(told)):
            raise UsageError(
                f"training.repeats is {repeats}, but the folds are given for {counted(len(told), 'repeat')}; leave it "
                "out, or set training.folds to have them dealt"
            )
    elif path is None or not path.exists():
        told = [_deal(slides, count, seed, by, repeat) for repeat in range(repeats)]
    if path is None:
        return told
    if not path.exists():
        names = [f"fold_{repeat}" for repeat in range(len(told))] if len(told) > 1 else ["fold"]
        rows = [
            {name: fold_of[slide.slide_id] for name, fold_of in zip(names, told, strict=True)}
            | {"slide_id": slide.slide_id, "patient": slide.patient, "label": slide.label}
            for slide in slides
        ]
        write_table(path, rows)
        return told
    stored = _read(path)
    remedy = "move it away to split anew, or choose another --out"
    unlisted = next((slide.slide_id for slide in slides if slide.slide_id not in stored[0]), None)
    if unlisted is not None:
        raise UsageError(f"{path} does not list slide {unlisted!r}; {remedy}")
    kept = [{slide.slide_id: fold_of[slide.slide_id] for slide in slides} for fold_of in stored]
    if by_table and kept != told:
        raise UsageError(f"{path} differs from the table's fold column; {remedy}")
    if not by_table and len(kept) != repeats:
        raise UsageError(f"{path} has {counted(len(kept), 'repeat')} where {repeats} are asked for; {remedy}")
    for fold_of in stored if not by_table else ():
        if len(set(fold_of.values())) != count:
            raise UsageError(f"{path} has {len(set(fold_of.values()))} folds where {count} are asked for; {remedy}")
    for fold_of in kept:
        refuse_parted(slides, fold_of, f"{path}; {remedy}", by)
    return kept


def _by_columns(slides: Sequence[CohortSlide], by: By) -> list[dict[str, int]]:
    """The folds of each column that the table has for them."""
    rounds = max(len(slide.rounds) for slide in slides)
    found = []
    for number in range(max(1, rounds)):
        fold_of: dict[str, int] = {}
        for slide in slides:
            fold = slide.rounds[number] if slide.rounds else slide.fold
            if not isinstance(fold, int):
                raise UsageError(
                    f"slide {slide.slide_id!r} has no fold while others do; fill in the table's fold column"
                )
            fold_of[slide.slide_id] = fold
        if len(set(fold_of.values())) < 2:
            raise UsageError("the table's fold column has a single fold; use two or more, or set training.folds")
        refuse_parted(slides, fold_of, "the table's fold column; put them into one fold", by)
        found.append(fold_of)
    return found


def strata_of(slides: Sequence[CohortSlide]) -> dict[str, list[str]]:
    """The patients of each class, sorted; one with slides of several classes is of the rarest."""
    labels: defaultdict[str, set[str]] = defaultdict(set)
    for slide in slides:
        labels[slide.patient].add(slide.stratum)
    patients_with = Counter(label for found in labels.values() for label in found)
    strata: dict[str, list[str]] = {label: [] for label in sorted(patients_with)}
    for patient, found in sorted(labels.items()):
        strata[min(found, key=lambda label: (patients_with[label], label))].append(patient)
    return strata


def _deal(slides: Sequence[CohortSlide], folds: int, seed: int, by: By, repeat: int) -> dict[str, int]:
    """Every class's patients in random order, dealt like cards; a patient of several classes counts for the rarest."""
    if by == "site":
        if repeat:
            raise UsageError(
                "training.folds_by is site, and whole sites are dealt without chance: every repeat would be the same; "
                "leave training.repeats out, or set training.folds_by to patient"
            )
        return _deal_sites(slides, folds)
    strata = strata_of(slides)
    smallest = min(strata, key=lambda label: (len(strata[label]), label))
    most = len(strata[smallest])
    if folds > most:
        remedy = f"set training.folds to {most} or add patients" if most > 1 else "add patients of that class"
        raise UsageError(
            f"class {smallest!r} has {most} patient{'s' * (most != 1)} of its own, too few for {folds} folds; {remedy}"
        )
    rng = np.random.default_rng([seed, repeat] if repeat else seed)
    shuffled = [patient for label in sorted(strata) for patient in rng.permutation(strata[label]).tolist()]
    # one count over all classes, so that what is left over does not pile up in the first fold
    fold_of = {patient: i % folds for i, patient in enumerate(shuffled)}
    return {slide.slide_id: fold_of[slide.patient] for slide in slides}


def _deal_sites(slides: Sequence[CohortSlide], folds: int) -> dict[str, int]:
    """Whole sites to folds, such that each has nearly its share of every class's patients (`_spread`); as many folds as
    there are sites leave one out at a time, whatever classes it has. The aim is Howard et al.'s (2021).
    """
    _refuse_unsited(slides)
    sites, classes, counts = _people_at(slides)
    sites_with = dict(zip(classes, (counts > 0).sum(0).tolist(), strict=True))
    alone = next((name for name, having in sites_with.items() if having < 2), None)
    if alone is not None:
        raise UsageError(
            f"class {alone!r} is at 1 site, too few for {folds} folds by site: a model that has not seen it knows no "
            "such slide; set training.folds_by to patient or add sites"
        )
    if folds == len(sites):
        return {slide.slide_id: sites.index(str(slide.site)) for slide in slides}
    for name, having in sites_with.items():
        if having < folds:
            every = f", to {len(sites)} to leave out one site at a time," if folds < len(sites) else ""
            raise UsageError(
                f"class {name!r} is at {having} sites, too few for {folds} folds by site, each of which needs it; set "
                f"training.folds to {having}{every} or add sites"
            )
    fold_of = dict(zip(sites, _spread(counts, [1 / folds] * folds), strict=True))
    dealt = {slide.slide_id: fold_of[str(slide.site)] for slide in slides}
    for fold, name in itertools.product(range(folds), classes):
        if not any(dealt[slide.slide_id] == fold and slide.stratum == name for slide in slides):
            raise UsageError(
                f"{folds} folds of whole sites cannot each have a slide labelled {name!r}; set training.folds to "
                f"{folds - 1}, to {len(sites)} to leave out one site at a time, or training.folds_by to patient"
            )
    return dealt


def sites_held_out(slides: Sequence[CohortSlide], share: float, *, of: str) -> set[str]:
    """Whole sites that have nearly a share of every class's patients, one of each class at least, and leave one.

    Args:
        slides: of the training.
        share: between 0 and 1.
        of: what these slides are, for messages.

    Raises:
        UsageError: no such sites; a slide has no site, or a patient two.
    """
    _refuse_unsited(slides, "training.inner_val_by")
    sites, classes, counts = _people_at(slides)
    part_of = np.array(_spread(counts, [1 - share, share]))
    for name, here in zip(classes, counts.T, strict=True):
        if not here[part_of == 0].any() or not here[part_of == 1].any():
            raise UsageError(
                f"training.inner_val holds out whole sites, but no choice of the {counted(len(sites), 'site')} of {of} "
                f"was found that leaves class {name!r}, which is at {(here > 0).sum()}, on both sides; set "
                "training.inner_val_by to patient, leave training.inner_val out, or add sites"
            )
    return {site for site, part in zip(sites, part_of.tolist(), strict=True) if part}


def _people_at(slides: Sequence[CohortSlide]) -> tuple[list[str], list[str], NDArray[np.int64]]:
    """Sites, classes, and how many patients (sites, classes) each site has of each; one of several classes counts in
    each."""
    sites = sorted({str(slide.site) for slide in slides})
    classes = sorted({slide.stratum for slide in slides})
    number = Counter(who[:2] for who in {(str(slide.site), slide.stratum, slide.patient) for slide in slides})
    return sites, classes, np.array([[number[site, name] for name in classes] for site in sites])


def _spread(counts: NDArray[np.int64], weights: Sequence[float]) -> list[int]:
    """Sites to parts, by the number of each, such that each part has nearly its weight of every class's patients.

    Minimises ``sum over parts and classes of ((patients - share) / share)^2``, where a part without a class counts more
    than all else: the largest sites first, each where it costs least, then single moves and swaps of two while any
    helps.

    Args:
        counts: patients (sites, classes).
        weights: of the parts; they add up to 1.
    """
    share, parts = np.outer(weights, counts.sum(0)), range(len(weights))

    def cost(part_of: NDArray[np.int64]) -> float:
        held = np.stack([counts[part_of == part].sum(0) for part in parts])
        return float((((held - share) / share) ** 2).sum() + counts.size * share.size**2 * 1e3 * (held == 0).sum())

    best = np.full(len(counts), -1)
    for site in np.argsort(-counts.sum(1), kind="stable").tolist():
        best = min((_changed(best, {site: part}) for part in parts), key=cost)
    while True:
        tried = [_changed(best, {site: part}) for site in range(len(best)) for part in parts if part != best[site]]
        pairs = [(a, b) for a, b in itertools.combinations(range(len(best)), 2) if best[a] != best[b]]
        tried += [_changed(best, {a: best[b], b: best[a]}) for a, b in pairs]
        found = min(tried, key=cost, default=best)
        if cost(found) >= cost(best) - 1e-4:
            return [int(part) for part in best]
        best = found


def _changed(fold_of: NDArray[np.int64], new: Mapping[int, int]) -> NDArray[np.int64]:
    changed = fold_of.copy()
    changed[list(new)] = list(new.values())
    return changed


def _refuse_unsited(slides: Sequence[CohortSlide], setting: str = "training.folds_by") -> None:
    """Parts by site need a site of every slide, and one of every patient."""
    seen: dict[str, CohortSlide] = {}
    for slide in slides:
        if slide.site is None:
            raise UsageError(
                f"{setting} is site, but slide {slide.slide_id!r} has none; fill in the table's site column "
                f"(or name it with cohort.site_column), or set {setting} to patient"
            )
        first = seen.setdefault(slide.patient, slide)
        if first.site != slide.site:
            raise UsageError(
                f"patient {slide.patient!r} is at two sites, {first.site!r} ({first.slide_id!r}) and {slide.site!r} "
                f"({slide.slide_id!r}), which parts by site would part; correct it, or set {setting} to patient"
            )


def refuse_parted(slides: Sequence[CohortSlide], part_of: Mapping[str, int | str], where: str, by: By) -> None:
    """Refuse parts by slide id that part the slides of a patient or, by "site", of a site.

    Raises:
        UsageError: so they do.
    """
    if by == "site":
        _refuse_unsited(slides)
    for noun in ("patient", "site")[: 1 + (by == "site")]:
        seen: dict[str, int | str] = {}
        for slide in slides:
            name, part = getattr(slide, noun), part_of[slide.slide_id]
            if seen.setdefault(name, part) != part:
                raise UsageError(f"{noun} {name!r} is in folds {seen[name]} and {part} of {where}")


def _read(path: Path) -> list[dict[str, int]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
        names = [name for name in rows[0] if re.fullmatch(r"fold_\d+", name)] or ["fold"]
        return [{row["slide_id"]: int(row[name]) for row in rows} for name in names]
    except (OSError, UnicodeError, csv.Error, LookupError, ValueError, TypeError) as exc:
        raise UsageError(f"{path} is not a table of slide_id and fold; move it away to split anew") from exc

"""What a TARGET means: one slide, a folder searched for slides, or a cohort table (CSV)."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from pipeline.cohort.columns import choose_columns, label_column, refuse_lookalikes, round_columns
from pipeline.cohort.files import (
    PYRAMID_SUFFIX,
    SLIDE_SUFFIXES,
    find_slides,
    find_slides_at,
    finder,
    folder_name,
    slide_stem,
)
from pipeline.cohort.given_splits import Part, part_of, read_splits
from pipeline.cohort.rows import fold_of, mpp_of, read_rows, split_of
from pipeline.cohort.spelling import are_amounts, column_key, have_commas, is_missing, near_equal, tcga_patient
from pipeline.errors import UsageError
from stages.amounts import counted
from stages.bags.bag import BAG_SUFFIXES, find_bag
from stages.place import Place, Url, true_name

Value = TypeVar("Value")

TABLE_SUFFIXES = (".csv", ".tsv", ".txt")
_log = logging.getLogger(__name__)
_SPREADSHEETS = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods", ".numbers", ".parquet", ".csv.gz", ".csv.zip")


@dataclass(frozen=True, slots=True)
class CohortSlide:
    """One slide and what the cohort table says of it.

    Attributes:
        slide_id: unique in its cohort and safe as a folder name on any system.
        path: absolute; the file, or the `.zarr` folder of a pyramid, or the URL of one.
        patient: who it is from; where nobody says, the patient of a TCGA barcode, else the slide itself.
        label: class name, or None.
        mpp: µm per level-0 pixel that replaces the file's own, or None.
        split: "train", "val", "test" or None.
        fold: cross-validation fold that tests on it, or None.
        site: where it was made; where nobody says, the tissue source site of a TCGA barcode, else None.
        problem: why this slide cannot be used and what to do, or None; a batch records it as the slide's failure.
        others: what the table's other columns and the label's say of it, by their names; None where there is no value.
        dealt_by: what folds are to hold evenly, where it is not the label.
        rounds: where slides are split several times, what it is in each: its fold; or train, val, test or None.
        members: of a patient (`pipeline.cohort.patients`), its slides; empty of a slide.
    """

    slide_id: str
    path: Place
    patient: str
    label: str | None = None
    mpp: float | None = None
    split: str | None = None
    fold: int | None = None
    site: str | None = None
    problem: str | None = None
    others: tuple[tuple[str, str | None], ...] = ()
    dealt_by: str | None = None

    @property
    def stratum(self) -> str:
        """What folds are to hold evenly."""
        return str(self.label) if self.dealt_by is None else self.dealt_by

    def cells(self, columns: Sequence[str]) -> tuple[str | None, ...]:
        """What these columns of the table say of it; of none, its label. None where there is no such column, either."""
        if not columns:
            return (self.label,)
        told = {column_key(name): text for name, text in self.others}
        return tuple(told.get(column_key(name)) for name in columns)

    rounds: tuple[Part, ...] = ()
    members: tuple[CohortSlide, ...] = ()

    @property
    def each(self) -> tuple[CohortSlide, ...]:
        """A patient's slides; of a slide itself."""
        return self.members or (self,)


@dataclass(frozen=True, slots=True)
class Cohort:
    """Slides in a fixed order, and where the list came from.

    Attributes:
        source: the table, folder or slide, or the URL of one of the latter two.
        slides: one or more.
        columns: the table's column that was taken for each of "slide", "patient", "label" ...
        positive: the class that stands last among the classes, or None for their usual order.
    """

    source: Place
    slides: tuple[CohortSlide, ...]
    columns: Mapping[str, str] = field(default_factory=dict)
    positive: str | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels that occur, sorted, as numbers where all of them are; of two classes the last is the positive."""
        labels = {slide.label for slide in self.slides if slide.label is not None}
        by_number = all(re.fullmatch(r"-?[0-9]+", label) for label in labels)
        order = sorted(labels, key=lambda label: (int(label) if by_number else 0, label))
        return tuple(sorted(order, key=lambda label: label == self.positive))

    def of_split(self, split: str) -> tuple[CohortSlide, ...]:
        """The slides of this split, by any of the words that a table may have for it.

        Raises:
            UsageError: there are none, or it is no such word.
        """
        split = str(split_of(split, "--split"))
        found = tuple(slide for slide in self.slides if slide.split == split)
        if not found:
            parts = sorted({slide.split for slide in self.slides if slide.split is not None})
            told = f"only {', '.join(parts)}" if parts else "no split column"
            remedy = "give one that it has" if parts else "add one, or leave --split out"
            raise UsageError(f"{self.source} has no slides of split {split}, found {told}; {remedy}")
        return found

    @property
    def reading(self) -> str:
        """What was taken from where, for a person."""
        told = "".join(f", {role} from {name!r}" for role, name in self.columns.items())
        patients = len({slide.patient for slide in self.slides})
        if "patient" not in self.columns and patients == len(self.slides):
            told += "; no patient column, so every slide counts as another patient's"
        sites = Counter(patient for patient, _ in sorted({(s.patient, s.site) for s in self.slides if s.site}))
        if max(sites.values(), default=0) > 1:
            told += f"; patient {sites.most_common(1)[0][0]!r} is at more than one site"
        slides = sum(len(row.each) for row in self.slides)
        return f"{self.source}: {counted(slides, 'slide')} of {counted(patients, 'patient')}{told}"


def find_target(target: Place, *, label: str = "label", root: Path | None = None) -> Cohort:
    """The slides that a TARGET stands for: a slide, a folder (searched all the way down) or a cohort table.

    Args:
        target: as the user typed it.
        label, root: as in `read_table`; a table without the label column is fine.

    Raises:
        UsageError: nothing there, no permission, no slides inside, a broken table, two of its slides with one name.
    """
    cohort, faults = examine_target(target, label=label, root=root)
    _refuse(faults)
    return cohort


def examine_target(
    target: Place,
    *,
    label: str = "label",
    root: Path | None = None,
    columns: Mapping[str, str] | None = None,
    bags: Path | None = None,
    told: Callable[[str], None] | None = None,
) -> tuple[Cohort, tuple[str, ...]]:
    """As `find_target`, and all that it refuses beside what can be read all the same, instead of the first of it.

    Args:
        target, label, root: as there.
        columns, bags: of a table, as in `read_table`.
        told: of folders that could not be searched; default: the log is.

    Raises:
        UsageError: nothing there, no permission, no slides inside, a table that nothing can be read from.
    """
    if isinstance(target, Url):
        return _examine_url(target, told or _log.warning), ()
    _refuse_unreadable(target)
    if target.is_dir() and target.suffix.lower() != PYRAMID_SUFFIX:
        found = [_unlabelled(path) for path in find_slides(target, told=told or _log.warning)]
        if not found:
            found = [_unlabelled(path) for path in find_slides(target, suffixes=BAG_SUFFIXES)]
        slides = _named_apart(found, target.absolute())
        if not slides:
            raise UsageError(
                f"no slides in {target}: searched it and its folders for {' '.join(SLIDE_SUFFIXES)} files, OME-Zarr "
                f"pyramids and bags ({' '.join(BAG_SUFFIXES)}), but not hidden files or outputs of earlier runs; name "
                "a slide, its folder or a cohort table"
            )
        return Cohort(target, slides), ()
    if not os.path.exists(target):
        raise UsageError(f"no such file or folder: {target}; give a slide, a folder of slides or a cohort table (CSV)")
    if target.name.lower().endswith((*TABLE_SUFFIXES, *_SPREADSHEETS)):
        return _examine_table(target, label=label, root=root, columns=columns, bags=bags)
    return Cohort(target, (_unlabelled(target.absolute()),)), ()


def _examine_url(url: Url, told: Callable[[str], None]) -> Cohort:
    if url.name.lower().endswith((*TABLE_SUFFIXES, *_SPREADSHEETS)):
        raise UsageError(f"{url}: tables are read from disks: copy it; its slides may be URLs")
    slides = _named_apart([_unlabelled(found) for found in find_slides_at(url, told=told)], url)
    if not slides:
        raise UsageError(
            f"no slides at {url}: searched all below it for OME-Zarr images ({PYRAMID_SUFFIX}), but not hidden ones"
        )
    return Cohort(url, slides)


def _refuse(faults: Iterable[str]) -> None:
    for fault in faults:
        raise UsageError(fault)


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
        _refuse(_with_commas(cohort))
        classes = not are_amounts(slide.label for slide in cohort.slides if slide.label is not None)
    if label is not None:
        _refuse(unlabelled(cohort, classes=classes))
    if positive is not None and (positive not in cohort.classes or len(cohort.classes) != 2):
        raise UsageError(
            f"{table}: cohort.positive must be one of two classes, found {positive!r} and the classes "
            f"{', '.join(cohort.classes)}; correct it or leave it out"
        )
    if splits is not None:
        cohort = _split_by(cohort, splits)
    _refuse(leaks(cohort))
    if folds is None and classes:
        _refuse(lost_classes(cohort))
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
    cohort, faults = _examine_table(table, label=label, root=root, columns=columns, training=training, bags=bags)
    _refuse(faults)
    return cohort


def _examine_table(
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


def _refuse_unreadable(target: Path) -> None:
    try:
        os.stat(target)
    except PermissionError as exc:
        raise UsageError(
            f"no permission to reach {target}: have the owner of the folders above it allow it (chmod a+x)"
        ) from exc
    except OSError:  # told of by whoever looks for it
        pass


def _unlabelled(path: Place) -> CohortSlide:
    slide_id = folder_name(slide_stem(path))
    problem = None
    if isinstance(path, Url):
        return CohortSlide(slide_id=slide_id, path=path, patient=slide_id)
    try:
        os.stat(path)
    except FileNotFoundError:
        problem = f"a link to a missing file, {os.path.realpath(path)}; restore it"
    except OSError as exc:
        if exc.errno == errno.ELOOP:
            problem = "a link that leads back to itself; remove or correct it"
    return CohortSlide(slide_id=slide_id, path=path, patient=slide_id, problem=problem)


def _named_apart(slides: Sequence[CohortSlide], root: Place) -> tuple[CohortSlide, ...]:
    """Slides of one name that each lie alone in a folder take its name; DICOM is exported so, a folder a slide. Others
    are called by all the folders that they are in, and it is said."""
    names = Counter(as_file_systems_see(slide.slide_id) for slide in slides)
    inside = Counter(slide.path.parent for slide in slides)

    def named(slide: CohortSlide) -> CohortSlide:
        if names[as_file_systems_see(slide.slide_id)] == 1 or inside[slide.path.parent] > 1:
            return slide
        name = folder_name(slide.path.parent.name)
        return replace(slide, slide_id=name, patient=name if slide.patient == slide.slide_id else slide.patient)

    apart = [named(slide) for slide in slides]
    count = Counter(as_file_systems_see(slide.slide_id) for slide in apart)
    taken = {name for name, times in count.items() if times == 1}
    renamed = [slide for slide in apart if count[as_file_systems_see(slide.slide_id)] > 1]
    forms = {slide.path: [as_file_systems_see(n) for n in _by_folders(slide, root)] for slide in renamed}
    others = [Counter(form) for form in zip(*forms.values(), strict=True)]

    def unlike(slide: CohortSlide) -> CohortSlide:
        if slide.path not in forms:
            return slide
        seen = zip(_by_folders(slide, root), forms[slide.path], others, strict=True)
        name = next((n for n, form, count in seen if count[form] == 1 and form not in taken), None)
        if name is None:  # names that differ by what file systems overlook
            name = folder_name(f"{slide.slide_id}~{hashlib.sha256(os.fsencode(str(slide.path))).hexdigest()[:8]}")
        return replace(slide, slide_id=name, patient=name if slide.patient == slide.slide_id else slide.patient)

    found = [unlike(slide) for slide in apart]
    if renamed:
        _log.warning(
            "%d slides share their name with another and are called by their folders, as %r: a cohort table with a "
            "'slide_id' column beside 'slide' names them otherwise",
            len(renamed),
            next(slide.slide_id for slide in found if slide.path in forms),
        )
    return tuple(found)


def _by_folders(slide: CohortSlide, root: Place) -> tuple[str, str]:
    """What a slide may be called by the folders that it is in: without its format, and with it."""
    inside = Path(str(slide.path)).relative_to(str(root))
    return folder_name("_".join((*inside.parent.parts, slide_stem(inside)))), folder_name("_".join(inside.parts))


def as_file_systems_see(name: str) -> str:
    """A name as any file system tells it from others."""
    return unicodedata.normalize("NFC", name.casefold())  # some of them fold case


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

"""Slides, what is said of each, and where the list came from."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.cohort.given_splits import Part
from pipeline.cohort.rows import split_of
from pipeline.cohort.spelling import column_key
from pipeline.errors import UsageError
from stages.amounts import counted
from stages.place import Place


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
    rounds: tuple[Part, ...] = ()
    members: tuple[CohortSlide, ...] = ()

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

"""Another run beside the one that is shown: which slides both predicted, and what of them is not to be compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipeline.errors import UsageError
from pipeline.output.slide_folder import read_commit
from pipeline.view.run_folder import RunFolder, SlideRow
from stages.amounts import counted

NAMED = 3
"""Names in a note, at most."""


@dataclass(frozen=True, slots=True)
class Against:
    """What is beside a run.

    Attributes:
        run: the other one.
        slides: of both, by the first run's number: the other's.
        why: of the others, by the first run's number: why there is nothing beside them.
        notes: what is to be said of all of it.
    """

    run: RunFolder
    slides: Mapping[int, SlideRow]
    why: Mapping[int, str]
    notes: Sequence[str]

    def apart(self, slide: SlideRow, name: str) -> float | None:
        """The other run's value less this one's; None where one of them is missing."""
        other = self.slides.get(slide.number)
        if other is None or name not in slide.values or name not in other.values:
            return None
        return other.values[name][0] - slide.values[name][0]

    def otherwise(self, slide: SlideRow) -> bool:
        """Whether the other run predicts something else."""
        other = self.slides.get(slide.number)
        if other is None or not self.run.task.chances:
            return False
        said = [str(one.row.get("predicted") or "") for one in (slide, other)]
        return "" not in said and said[0] != said[1]


def compare(run: RunFolder, other: RunFolder) -> Against:
    """Put a run beside another: slides of one name whose content is the same, as far as results say so.

    Raises:
        UsageError: they predict different kinds of things, or no slide is in both.
    """
    if run.task.kind != other.task.kind:
        raise UsageError(
            f"--against: {run.folder} predicts {run.task.kind}, {other.folder} {other.task.kind}: give one of the same"
        )
    if run.folder.resolve() == other.folder.resolve():
        raise UsageError(f"--against: {other.folder} is the same run: give another one")
    theirs = {slide.name: slide for slide in other.slides}
    slides: dict[int, SlideRow] = {}
    why: dict[int, str] = {}
    replaced: list[str] = []
    for slide in run.slides:
        found = theirs.get(slide.name)
        if found is None:
            why[slide.number] = "it is not in the other run"
        elif _differ(slide, found):
            why[slide.number] = "the other run predicted another slide of this name (its fingerprint differs)"
            replaced.append(slide.name)
        else:
            slides[slide.number] = found
    if not slides:
        raise UsageError(f"--against: no slide of {run.folder} is in {other.folder}: give a run of the same slides")
    return Against(other, slides, why, tuple(_notes(run, other, replaced)))


def _differ(slide: SlideRow, other: SlideRow) -> bool:
    """Whether two results are known to be of different slides."""
    marks = [read_commit(one.folder) if one.folder is not None else None for one in (slide, other)]
    said = [mark.get("fingerprint") if mark is not None else None for mark in marks]
    return None not in said and said[0] != said[1]


def _notes(run: RunFolder, other: RunFolder, replaced: Sequence[str]) -> Iterator[str]:
    mine, theirs = ({slide.name for slide in one.slides} for one in (run, other))
    for names, where in ((mine - theirs, "this run"), (theirs - mine, "the other run")):
        if names:
            yield f"{counted(len(names), 'slide')} only in {where}: {_some(sorted(names))}."
    if replaced:
        yield f"Another slide by the same name, not compared: {_some(replaced)}."
    if set(run.task.values) != set(other.task.values):
        yield (
            f"They predict different things: {', '.join(run.task.values)} here, {', '.join(other.task.values)} in the "
            "other run; what both tell is compared."
        )
    if run.run.get("unit") != other.run.get("unit"):
        yield "One of them is of a model of patients, whose predictions are of all slides of one."
    yield from (f"Of the other run: {note}" for note in other.notes)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (", …" if len(names) > NAMED else "")

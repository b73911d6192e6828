"""What a run's folder says of its slides, whichever version wrote it; or why nothing can be shown of it."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError
from pipeline.model.quality import UNKNOWN, Quality
from pipeline.output.documents import read_json
from pipeline.output.folder import TRAINING
from pipeline.output.run_record import title_of
from pipeline.output.slide_folder import COMMIT, read_commit
from pipeline.output.table import as_meant
from pipeline.report.figures import number
from pipeline.task.build import TASKS
from pipeline.task.task import Task
from stages.amounts import counted
from stages.disk import read_regular

AGAIN = "run the same `saccade run` again, which keeps what is finished"


@dataclass(frozen=True, slots=True)
class SlideRow:
    """A slide as the table has it.

    Attributes:
        number: of the slide, which addresses go by.
        name: its ``slide_id``.
        folder: of its results; None where it has none.
        row: what predictions.csv says, by column.
        values: each value that is told, with the ends of its interval; None where it is missing.
        label: what it is by the table of the run, in words; None where nobody says.
        wrong: whether something else is predicted; None where that is no question of yes or no.
        patient: whose it is; None where nobody says.
        off: how far the prediction is from the label: 1 less the probability of it, or the distance of numbers.
    """

    number: int
    name: str
    folder: Path | None
    row: Mapping[str, Any]
    values: Mapping[str, tuple[float, float | None, float | None]]
    label: str | None = None
    wrong: bool | None = None
    off: float | None = None
    patient: str | None = None

    @property
    def warned(self) -> str:
        """What makes its prediction doubtful; empty where nothing is said to."""
        said = self.row.get("warnings") or ""
        return "; ".join(map(str, said)) if isinstance(said, list) else str(said)


@dataclass(frozen=True, slots=True)
class RunFolder:
    """A run.

    Attributes:
        folder: of it.
        run: what run.json says.
        task: what is predicted.
        slides: its slides, in the table's order.
        notes: what is to be said of all of it.
    """

    folder: Path
    run: Mapping[str, Any]
    task: Task
    slides: Sequence[SlideRow]
    notes: Sequence[str] = field(default=())

    @property
    def title(self) -> str:
        """What was predicted by which model."""
        return title_of(self.run) or f"Run {self.folder.name}"

    @property
    def how_good(self) -> str:
        """How good the model was found to be, in a sentence; empty where the run does not say, or not in our words."""
        if "quality" not in self.run:
            return ""
        with suppress(TypeError):
            return UNKNOWN if self.run["quality"] is None else Quality.from_json(self.run["quality"]).in_words()
        return ""


def open_run(folder: Path) -> RunFolder:
    """The run in a folder.

    Raises:
        UsageError: there is none, or nothing of it can be shown yet.
    """
    _refuse_no_run(folder)
    run = read_json(folder / "run.json")
    if run is None:
        started = (folder / "slides").is_dir()
        what = "is damaged" if (folder / "run.json").exists() else "is not there yet" if started else "is missing"
        raise UsageError(f"run.json of {folder} {what}, so that nothing tells what was predicted: {AGAIN}")
    kind = str(run.get("task", "classification"))
    if kind not in TASKS:
        raise UsageError(
            f"{folder} predicts {kind!r}, which this version does not know: view it with the newer Saccade"
        )
    table = _table(folder)
    task = _task(kind, run, table)
    patients = run.get("unit") == "patient"
    rows = list(_rows_of_patients(folder, table) if patients else table)
    if not rows:
        raise UsageError(f"{folder} has no slide yet: wait until its run has predicted one, or {AGAIN}")
    labels, unit = inner(run, "labels"), "patient" if patients else "slide_id"
    if patients:  # they go by their folders there, whose names are other ones where a file cannot be called so
        labels |= {str(one["patient"]): one for one in labels.values() if isinstance(one, dict) and "patient" in one}
    told = [labels.get(str(row.get(unit) or row["slide_id"])) for row in rows]
    slides = tuple(_slide(i, folder, row, task, told[i]) for i, row in enumerate(rows))
    return RunFolder(folder, run, task, slides, tuple(_notes(run, slides)))


def inner(record: Mapping[str, Any], name: str) -> dict[str, Any]:
    """An object in a JSON document; empty where there is none."""
    found = record.get(name)
    return found if isinstance(found, dict) else {}


def _refuse_no_run(folder: Path) -> None:
    wanted = "name the folder that `saccade run --out` wrote"
    try:
        found = set(os.listdir(folder))
    except FileNotFoundError:
        raise UsageError(f"there is no folder {folder}: {wanted}") from None
    except NotADirectoryError:
        raise UsageError(f"{folder} is a file, expected a folder: {wanted}") from None
    except OSError as exc:
        raise UsageError(
            f"cannot read {folder} ({exc.strerror}): {wanted}, and see to it that you may read it"
        ) from exc
    if not found:
        raise UsageError(f"{folder} is empty: {wanted}")
    if not found & {"run.json", "predictions.csv", "patients.csv"}:
        if found & {"training.json", *TRAINING}:
            raise UsageError(f"{folder} holds a training, not a run: predict slides with it, by `saccade run --model`")
        if COMMIT in found:
            raise UsageError(f"{folder} is one slide of a run: name the run, {folder.parent.parent}")
        if "slides" not in found:
            raise UsageError(f"{folder} holds no run: {wanted}")


def _table(folder: Path) -> list[dict[str, str]]:
    for name in ("predictions.csv", "patients.csv"):
        try:
            data = read_regular(folder / name)
        except FileNotFoundError:
            continue
        except OSError as exc:
            raise UsageError(f"cannot read {folder / name}: {exc.strerror or exc}") from exc
        rows = list(csv.DictReader(io.StringIO(data.decode("utf-8", "replace"), newline="")))
        first = "slide_id" if name == "predictions.csv" else "patient"
        if rows and (first not in rows[0] or "status" not in rows[0]):
            raise UsageError(
                f"{folder / name} has no columns {first} and status, so that it is no table of a run: {AGAIN}"
            )
        if rows and None in rows[-1].values():  # the number that it ends with may be another one
            raise UsageError(f"{folder / name} ends within a row: copy it again, whole, or {AGAIN}")
        return [{k: as_meant(v or "") for k, v in row.items() if k is not None} for row in rows]
    return []


def _rows_of_patients(folder: Path, table: Sequence[Mapping[str, str]]) -> Iterator[dict[str, Any]]:
    """Rows of the slides of a model of patients; a patient that failed has one, without pictures."""
    shown = set()
    try:
        names = sorted(os.listdir(folder / "slides"))
    except OSError:
        names = []
    for name in names:
        commit = read_commit(folder / "slides" / name)
        if commit is not None and isinstance(commit.get("row"), dict):
            shown.add(str(commit.get("patient")))
            yield {**commit["row"], "slide_id": name, "path": commit.get("path"), "patient": commit.get("patient")}
    yield from ({**row, "slide_id": row.get("patient", "")} for row in table if row.get("patient") not in shown)


def _task(kind: str, run: Mapping[str, Any], table: Sequence[Mapping[str, str]]) -> Task:
    names = run.get("classes")
    if not isinstance(names, list) or not names:  # of an earlier version
        ends = re.compile(r"prob_(.*)_low$")
        names = [found[1] for column in (table[0] if table else ()) if (found := ends.match(column))]
    return TASKS[kind](tuple(map(str, names)), (), tuple(run.get("times") or ()))


def _slide(at: int, folder: Path, row: Mapping[str, Any], task: Task, told: Any) -> SlideRow:
    name = str(row["slide_id"])
    inside = name not in ("", ".", "..") and not set(name) & {"/", "\\", "\0"}
    own = folder / "slides" / name
    has = inside and row.get("status") == "ok" and own.is_dir()
    values = {}
    for value, column in zip(task.values, task.columns, strict=True):
        found = number(row.get(column))
        if found is not None:
            values[value] = (found, number(row.get(f"{column}_low")), number(row.get(f"{column}_high")))
    told = told if isinstance(told, dict) else {}
    patient = row.get("patient") or told.get("patient")
    slide = SlideRow(at, name, own if has else None, row, values, patient=None if patient is None else str(patient))
    if told.get("label") is None:
        return slide
    label, agrees = str(told["label"]), told.get("agrees")
    off = None
    if task.kind == "classification" and label in values:
        off = 1 - values[label][0]
    elif task.kind == "regression" and values and number(label) is not None:
        off = abs(next(iter(values.values()))[0] - float(label))
    return replace(slide, label=label, wrong=None if agrees is None else not agrees, off=off)


def _notes(run: Mapping[str, Any], slides: Sequence[SlideRow]) -> Iterator[str]:
    if run.get("warning"):
        yield f"{str(run['warning'])[:1].upper()}{str(run['warning'])[1:]}."
    if "ended" in run and not run["ended"]:
        yield f"This run goes on, or was cut short: it may lack slides. To finish it, {AGAIN}; then view it anew."
    lost = [one for one in slides if one.row.get("status") == "ok" and one.folder is None]
    if lost:
        yield f"The results of {counted(len(lost), 'slide')} are not in the folder any more: {AGAIN}."

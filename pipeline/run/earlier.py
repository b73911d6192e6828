"""What earlier runs did in a folder, of other slides: it stays in the table."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.model.header import Knows
from pipeline.model.spec import task_of
from pipeline.output.failures import gone
from pipeline.output.slide_folder import read_commit
from pipeline.run.counting import TRAINED, VALIDATED, seen_by
from pipeline.run.whole import PATIENTS, told_of, told_of_patient, told_whole, whole
from pipeline.task.task import Task
from stages.place import Url, place
from stages.slide.revision import Revision, untouched

LOOK_SECONDS = 5.0
"""For a look at the files of all those slides: a disk that does not answer holds up no run of others."""
STALE = "predicted by an earlier run, and its"
"""How a warning begins that a row's slide, or what was made of it, may no longer be as it was."""
_DAMAGED = "results are no longer whole: run it again"


def earlier_rows(
    out: Path,
    wanted: Mapping[str, str],
    done: Collection[str],
    digest: str,
    model: Knows,
    notes: Sequence[Mapping[str, Any]],
) -> tuple[list[dict[str, Any]], int]:
    """Rows of slides that earlier runs with the same model and settings did in the folder, and how many there are of
    others.

    What failed when it was last tried has failed, whatever was made of it before. Another slide of the name of one of
    this run's has a row of its own; one whose file is gone is that one, where it was moved from, and a file of this
    run's by another name is in the table already. Where a slide's files, or its results', are no longer as they were,
    its row warns.

    Args:
        out: the folder.
        wanted: paths of this run's slides, by name.
        done: names of those of them whose folder holds their result.
        digest: of model and settings.
        model: whose results they are.
        notes: of what failed.
    """
    rows, others, recorded, damaged = [], 0, [], []
    folder = out / "slides"
    noted, given = {(note["slide_id"], note["path"]) for note in notes}, set(wanted.values())
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        commit = None if path.name in done else read_commit(path)
        if commit is None or commit.get("path") in given or (path.name, commit.get("path")) in noted:
            continue
        if commit.get("run") != digest or not told_whole(commit, task_of(model.spec)):
            others += 1
        else:
            known = {"seen": seen_by(model, commit["fingerprint"]), **told_of(commit)}
            rows.append({"slide_id": path.name, "path": commit["path"], **commit["row"], **known})
            recorded.append(Revision.recorded(commit.get("revision")))
            damaged.append(not whole(path, commit, task_of(model.spec)))
    for row, why, bad in zip(rows, changes([row["path"] for row in rows], recorded), damaged, strict=True):
        del row["slide_bytes"]
        why = f"file {why}" if why is not None else _DAMAGED if bad else None
        row["warnings"] = [*row["warnings"], *([] if why is None else [f"{STALE} {why}"])]
    for note in notes:
        if note["path"] in given or (note["slide_id"] in wanted and gone(note["path"])):
            continue
        if note.get("run") == digest:
            rows.append({name: note[name] for name in ("slide_id", "path", "error")} | {"status": "failed"})
        else:
            others += 1
    return sorted(rows, key=lambda row: str(row["slide_id"])), others


def changes(paths: Sequence[str], recorded: Sequence[Revision | None]) -> list[str | None]:
    """What became of slides' files since, each; None where nothing did, or none can tell."""
    found: list[str | None] = []

    def look() -> None:
        for path, revision in zip(paths, recorded, strict=True):
            found.append(_change(path, revision))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(LOOK_SECONDS)
    looked = found.copy()
    return [*looked, *["was not looked at: its disk answers too slowly"] * (len(paths) - len(looked))]


def _change(path: str, recorded: Revision | None) -> str | None:
    where = place(path)
    if isinstance(where, Url) or recorded is None:
        return None
    if gone(path):
        return "is no longer there, or its disk is not"
    return None if untouched(where, recorded) else "may have changed since: run it again"


def earlier_patients(
    out: Path,
    wanted: Collection[str],
    digest: str,
    task: Task,
    known: Callable[[str], str | None],
    notes: Sequence[Mapping[str, Any]],
) -> tuple[list[dict[str, Any]], int]:
    """Rows of patients that earlier runs with the same model and settings did in the folder, and how many there are of
    others: what `earlier_rows` is of slides.

    Args:
        out: the folder.
        wanted: names of this run's patients.
        digest: of model and settings.
        task: of the model.
        known: how the model has seen a slide, by its fingerprint.
        notes: of what failed.
    """
    rows, others, folder = [], 0, out / PATIENTS
    noted = {note["slide_id"] for note in notes}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        commit = None if path.name in wanted or path.name in noted else read_commit(path)
        if commit is None:
            continue
        if commit.get("run") != digest or not told_whole(commit, task):
            others += 1
            continue
        ways = [known(one[0]) for one in commit["made_of"]["slides"].values()]
        seen = next((way for way in (TRAINED, VALIDATED) if way in ways), None)
        about = {"slide_id": path.name, "path": commit["path"], "patient": commit["patient"], "seen": seen}
        names = "; ".join(sorted({*commit["slides"], *commit["left_out"]}))
        rows.append({**about, "slides": names, **commit["row"], **told_of_patient(commit)})
        del rows[-1]["slide_bytes"]
        rows[-1]["warnings"] = [*rows[-1]["warnings"], *_changed(out, commit)]
    for note in notes:
        if note["slide_id"] in wanted or "patient" not in note:
            continue
        if note.get("run") == digest:
            about = {name: note[name] for name in ("slide_id", "path", "patient", "slides", "error")}
            rows.append(about | {"status": "failed"})
        else:
            others += 1
    return sorted(rows, key=lambda row: str(row["slide_id"])), others


def _changed(out: Path, commit: Mapping[str, Any]) -> list[str]:
    """What became of the slides' files since, where it is known, and of their folders."""
    marks = {name: read_commit(out / "slides" / name) or {} for name in commit["slides"]}
    there = {name: mark for name, mark in marks.items() if mark.get("key") == commit["key"]}
    others = [f"{STALE} results of slide {name} are gone, or others': run it again" for name in marks.keys() - there]
    revisions = [Revision.recorded(mark.get("revision")) for mark in there.values()]
    found = zip(there, changes([mark["path"] for mark in there.values()], revisions), strict=True)
    return sorted(others) + [f"{STALE} slide {name} {why}" for name, why in found if why is not None]

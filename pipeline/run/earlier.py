"""What earlier runs did in a folder, of other slides: it stays in the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.model.slide_model import SlideModel
from pipeline.model.values import task_of
from pipeline.output.slide_folder import read_commit
from pipeline.run.counting import seen_by
from pipeline.run.slide import told_of, whole


def earlier_rows(
    out: Path, wanted: set[str], digest: str, model: SlideModel, failed: Sequence[Mapping[str, Any]]
) -> tuple[list[dict[str, Any]], int]:
    """Rows of slides that earlier runs with the same model and settings did in the folder, and how many there are of
    others. What failed when it was last tried has failed, whatever was made of it before."""
    rows, others = [], 0
    folder = out / "slides"
    ended = {note["slide_id"]: note for note in failed if note["slide_id"] not in wanted}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name in wanted:
            continue
        commit = read_commit(path)
        if commit is None or ended.get(path.name, {}).get("path") == commit.get("path"):
            continue
        ended.pop(path.name, None)  # of another slide of this name, which was refused
        if commit.get("run") != digest or not whole(path, commit, task_of(model.spec)):
            others += 1
        else:
            seen = seen_by(model, commit["fingerprint"])
            rows.append(
                {"slide_id": path.name, "path": commit["path"], **commit["row"], "seen": seen, **told_of(commit)}
            )
    for row in rows:
        del row["slide_bytes"]
    for note in ended.values():
        if note.get("run") == digest:
            rows.append({name: note[name] for name in ("slide_id", "path", "error")} | {"status": "failed"})
        else:
            others += 1
    return sorted(rows, key=lambda row: str(row["slide_id"])), others

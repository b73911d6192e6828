"""Whether a result that is there is whole, and what is told of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.cohort.cohort import CohortSlide
from pipeline.output.slide_folder import altered
from pipeline.run.artefacts import data_of
from pipeline.run.pictures import PICTURES, drawn_by
from pipeline.task.task import Task

PATIENTS = "patients"
"""Folder of the patients' commit marks."""
_RECORDED = {"slide_bytes": int, "words": dict, "evidence": dict, "pictures": dict, "path": str, "fingerprint": str}


def drawn(folder: Path, commit: Mapping[str, Any]) -> bool:
    """Whether the pictures of a result are there, as they would be drawn now."""
    return bool(commit["pictures"].get("drawn_by") == drawn_by()) and not altered(folder, commit, PICTURES)


def whole(folder: Path, commit: Mapping[str, Any], task: Task) -> bool:
    """Whether all is there, as it was written, that a finished slide has beside its pictures, and its record says what
    one says."""
    return told_whole(commit, task) and not altered(folder, commit, data_of(commit))


def told_whole(commit: Mapping[str, Any], task: Task) -> bool:
    """Whether a record says what that of a finished slide says."""
    row = commit.get("row")
    numbers = [f"{name}{end}" for name in task.columns for end in ("", "_low", "_high")]
    numbers += ["patches_read", "cells", "fraction_read", "bytes_read", "seconds"]
    return (
        isinstance(row, dict)
        and row.get("status") == "ok"
        and task.is_told(row.get("predicted"))
        and all(isinstance(row.get(name), int | float) for name in numbers)
        and isinstance(row.get("warnings"), list)
        and all(isinstance(commit.get(name), kind) for name, kind in _RECORDED.items())
    )


def told_of(commit: Mapping[str, Any]) -> dict[str, Any]:
    """What the report says of a slide beside its row."""
    return {
        "slide_bytes": commit["slide_bytes"],
        "words": commit["words"],
        "gallery": commit["evidence"]["gallery"],
    }


def told_of_patient(commit: Mapping[str, Any]) -> dict[str, Any]:
    """What the report says of a patient beside its row."""
    return {**told_of(commit), "pictured": list(commit["slides"]), "left_out": len(commit["left_out"])}


def named(row: CohortSlide) -> dict[str, Any]:
    """Whose row it is, of which slides."""
    return {"patient": row.patient, "slides": "; ".join(slide.slide_id for slide in row.each)}

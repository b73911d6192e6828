"""Which slides of a run are done already, by their commit marks and the state of their files: no slide is opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.cohort.cohort import CohortSlide
from pipeline.model.header import Knows
from pipeline.model.spec import task_of
from pipeline.output.slide_folder import read_commit, readers, slide_key
from pipeline.run.keys import RunSettings, known_of, made_of_all, of_run, of_slide, seen_of
from pipeline.run.whole import PATIENTS, drawn, told_of, told_of_patient, told_whole, whole
from pipeline.task.task import Task
from stages.place import Url
from stages.slide.revision import Revision, touched


def finished(slide: CohortSlide, out: Path, settings: RunSettings, model: Knows, digest: str) -> dict[str, Any] | None:
    """The row of a slide that an earlier run predicted, as `process_slide` gives it; None where that has to look.

    It is None of slides that were moved or whose files were touched since, in whatever way; of all where ``settings``
    ask to verify every byte or have a prior, which may have changed; where what reads slides has another version by
    now; and where pictures are drawn otherwise.
    """
    commit = untouched_result(slide, out, settings, task_of(model.spec))
    if commit is None:
        return None
    earlier = commit["made_of"]
    mpp, warnings = slide.mpp if slide.mpp is not None else settings.mpp, earlier.get("warnings") or ()
    key = slide_key(commit["fingerprint"], made_of_all(settings, model, digest, mpp=mpp, prior=None, warnings=warnings))
    if commit["key"] != key:
        return None
    known = known_of(settings, model, commit["fingerprint"])
    return {
        "slide_id": slide.slide_id,
        "path": str(slide.path),
        **commit["row"],
        **told_of(commit),
        "reused": True,
        **known,
    }


def untouched_result(slide: CohortSlide, out: Path, settings: RunSettings, task: Task) -> dict[str, Any] | None:
    """The commit record of a slide whose result is whole and whose files are as they were, whatever it was made of;
    None where whoever works on it has to look, see `finished`."""
    if slide.problem or settings.verify or settings.prior is not None:
        return None
    folder = out / "slides" / slide.slide_id
    try:
        commit = read_commit(folder)
        if commit is None or not whole(folder, commit, task):
            return None
    except OSError:  # whoever works on the slide finds out, and tells
        return None
    recorded, earlier = Revision.recorded(commit.get("revision")), commit.get("made_of")
    if recorded is None or not isinstance(earlier, dict) or commit.get("read_by") != readers():
        return None
    if isinstance(slide.path, Url):  # a store tells of no state that would vouch for every chunk
        return None
    if (settings.strict and commit.get("doubt")) or not drawn(folder, commit) or commit["path"] != str(slide.path):
        return None
    return commit if touched(slide.path, recorded.names) == recorded.touched else None


def finished_patient(
    row: CohortSlide, out: Path, settings: RunSettings, model: Knows, digest: str
) -> dict[str, Any] | None:
    """The row of a patient that an earlier run predicted, as `process_patient` gives it, without opening a slide; None
    where that has to look: see `finished`. It has where a slide was left out."""
    task = task_of(model.spec)
    try:
        commit = read_commit(out / PATIENTS / row.slide_id)
    except OSError:  # whoever works on the patient finds out, and tells
        return None
    if commit is None or not told_whole(commit, task) or commit.get("left_out"):
        return None
    told, prints = {}, []
    for slide in row.each:
        own = untouched_result(slide, out, settings, task)
        if own is None or own["key"] != commit["key"]:
            return None
        mpp = slide.mpp if slide.mpp is not None else settings.mpp
        recorded = own["made_of"].get("slides", {}).get(slide.slide_id, [None, {}])[1]
        warnings = recorded.get("warnings") or ()
        made = made_of_all(settings, model, digest, mpp=mpp, prior=None, warnings=warnings)
        told[slide.slide_id] = [own["fingerprint"], of_slide(made, settings, model, digest)]
        prints.append(own["fingerprint"])
    if slide_key("", {**of_run(settings, model, digest), "slides": told}) != commit["key"]:
        return None
    result = {**commit["row"], **told_of_patient(commit), "reused": True, **seen_of(settings, model, prints)}
    return {"slide_id": row.slide_id, "path": str(row.path), **result}

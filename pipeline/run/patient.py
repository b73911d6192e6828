"""One patient of a run with a model of patients: predict it from all of its slides, write their folders, or say why
not.

A patient's commit mark is ``patients/<name>/prediction.json``. It is written last, and vouches for the folders of its
slides, whose own marks have its key.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.cohort.cohort import CohortSlide
from pipeline.errors import is_exhaustion, reason_of
from pipeline.model.header import Knows, told_of_encoder
from pipeline.model.spec import task_of
from pipeline.output.failures import Failures
from pipeline.output.run_record import NOTICE
from pipeline.output.slide_folder import begin_slide, lease_of, read_commit, slide_key, write_commit
from pipeline.run.artefacts import evidence_of, told_name
from pipeline.run.keys import RunSettings, made_of_all, of_run, of_slide, run_digest, seen_of
from pipeline.run.pictures import scale_of
from pipeline.run.process import alive
from pipeline.run.slide import (
    allowed,
    asked,
    attempted,
    kept,
    known_model,
    need_for,
    opened_for,
    worker_model,
    write_result,
)
from pipeline.run.stale import differing
from pipeline.run.whole import PATIENTS, drawn, told_of_patient, told_whole, whole
from pipeline.run.workers import WAITING
from pipeline.stopwatch import stage
from pipeline.task.task import Task
from pipeline.words import tell
from stages.budget import Need, together
from stages.passing import again
from stages.slide.facts import SlideError
from stages.slide.protocol import Slide
from stages.slide.revision import Revision

if TYPE_CHECKING:  # which compute
    from pipeline.model.slide_model import SlideModel
    from pipeline.predict_patient import PatientPrediction
    from stages.prior import Prior


@dataclass(slots=True)
class PatientStanding:
    """How a patient stands before a run does anything for it.

    Attributes:
        slides: those that can be opened, by name.
        priors: of each, where the run has one.
        lost: why the others cannot.
        key: of its result as it would be now.
        made_of: what that follows from.
        commit: of its result where that is valid.
        stale: why one that is there is not; "" where there is none.
        need: what predicting from all of the slides takes.
    """

    slides: dict[str, Slide] = field(default_factory=dict)
    priors: dict[str, Prior] | None = None
    lost: dict[str, str] = field(default_factory=dict)
    key: str = ""
    made_of: dict[str, Any] = field(default_factory=dict)
    commit: dict[str, Any] | None = None
    stale: str = ""
    need: Need = field(default_factory=lambda: Need(tile=(0, 0)))


def process_patient(
    row: CohortSlide, out: Path, settings: RunSettings, digest: str, begin: bool = True, wait: bool = True
) -> dict[str, Any]:
    """As `pipeline.run.slide.process_slide`, of a patient: its row of patients.csv. The one place where a patient's
    exceptions end; a slide that cannot be read is left out, and named in the row's warnings."""
    started = time.perf_counter()
    (out / PATIENTS).mkdir(exist_ok=True)

    def act() -> dict[str, Any]:
        return _predict(row, out, settings, digest, started, begin)

    held = lease_of(out / PATIENTS, row.slide_id)
    return attempted(row, out, held, act, begin=begin, wait=wait)


def patient_standing(row: CohortSlide, out: Path, settings: RunSettings, model: Knows, digest: str) -> PatientStanding:
    """Decide whether a run has anything to do for a patient: what `process_patient` and a dry run go by.

    Raises:
        SlideError: none of its slides can be opened.
        ValueError: a folder of one holds another slide.
    """
    found = PatientStanding(priors=None if settings.prior is None else {})
    told, needs = {}, []
    for slide in row.each:
        try:
            if slide.problem:
                raise SlideError(slide.problem)
            mpp = slide.mpp if slide.mpp is not None else settings.mpp
            opened = again(partial(opened_for, slide, settings))
            need = need_for(opened, model)
            need.refuse_over(allowed(settings))
            prior = None if settings.prior is None else settings.prior.of(slide.slide_id)
            made = made_of_all(settings, model, digest, mpp=mpp, prior=prior, warnings=opened.facts.warnings)
        except Exception as exc:
            if is_exhaustion(exc):
                raise
            found.lost[slide.slide_id] = reason_of(exc)
            continue
        _refuse_another(out / "slides" / slide.slide_id, slide, opened)
        found.slides[slide.slide_id] = opened
        needs.append(need)
        if found.priors is not None and prior is not None:
            found.priors[slide.slide_id] = prior
        told[slide.slide_id] = [opened.facts.fingerprint, of_slide(made, settings, model, digest)]
    if not found.slides:
        raise SlideError(_none_left(found.lost))
    found.need = together(needs)
    found.made_of = {**of_run(settings, model, digest), "slides": told}
    found.key = slide_key("", found.made_of)
    commit = read_commit(out / PATIENTS / row.slide_id)
    if commit is None:
        return found
    if commit["key"] != found.key:
        return replace(found, stale=_differing(commit, found.made_of))
    why = _stale(row, found, commit, out, task_of(model.spec))
    return replace(found, stale=why) if why else replace(found, commit=commit)


def _refuse_another(folder: Path, slide: CohortSlide, opened: Slide) -> None:
    commit = read_commit(folder) or {}
    path, content = commit.get("path"), commit.get("fingerprint")
    if commit and content != opened.facts.fingerprint and path != str(slide.path):
        raise ValueError(
            f"{folder} already holds another slide of this name ({path}): use another --out or rename the slide"
        )


def _differing(commit: Mapping[str, Any], made_of: Mapping[str, Any]) -> str:
    """In what a result differs from the one that would be made now, in words."""
    before = commit.get("made_of")
    if not isinstance(before, dict) or before.get("slides") != made_of["slides"]:
        return "its slides, or what they hold, are others"
    return differing({**commit, "fingerprint": ""}, "", made_of)


def _stale(row: CohortSlide, found: PatientStanding, commit: Mapping[str, Any], out: Path, task: Task) -> str:
    """What of a result with the right key is not as it was; "" where all is."""
    if not told_whole(commit, task):
        return "something of it is gone or damaged"
    for slide in row.each:
        if slide.slide_id not in found.slides or slide.slide_id in commit.get("left_out", {}):
            continue
        folder, facts = out / "slides" / slide.slide_id, found.slides[slide.slide_id].facts
        own = read_commit(folder)
        if own is None or own["key"] != found.key or not whole(folder, own, task):
            return f"something of slide {slide.slide_id} is gone or damaged"
        recorded = Revision.recorded(own.get("revision"))
        if not facts.unchanged(recorded):
            return f"the file of slide {slide.slide_id} was written since, and no digest tells that it is the same"
    return ""


def _predict(
    row: CohortSlide, out: Path, settings: RunSettings, digest: str, started: float, begin: bool
) -> dict[str, Any]:
    model = known_model(settings.model, digest, settings.encoder_weights)
    with stage("open"):
        found = patient_standing(row, out, settings, model, digest)
    failures = Failures(out, "run")
    seen = seen_of(settings, model, [slide.facts.fingerprint for slide in found.slides.values()])
    if found.commit is not None and _brought_up(row, found, out):
        failures.forget(row.slide_id, row.path)
        return {**found.commit["row"], **told_of_patient(found.commit), "reused": True, **seen}
    if not begin:
        return {"status": WAITING, "error": f"not tried: {found.stale}" if found.stale else ""}
    found.need.refuse_over(allowed(settings))
    alive(f"{row.slide_id}: at work")
    computes = worker_model(settings.model, digest, settings.device, settings.encoder_weights, settings.features)
    predicted = _predicted(found, settings, computes)
    failures.forget(row.slide_id, row.path)
    run = run_digest(settings, model, digest)
    beside = {"run": run, "encoder": told_of_encoder(model)}
    return {**_write(row, out, found, beside, predicted, started), **seen}


def _predicted(found: PatientStanding, settings: RunSettings, model: SlideModel) -> PatientPrediction:
    """From all slides that can be read: those that cannot are lost."""
    from pipeline.model.joint import spared
    from pipeline.predict_patient import predict_patient

    how = {**asked(settings, model), "priors": found.priors}
    while left := {name: slide for name, slide in found.slides.items() if name not in found.lost}:
        try:
            return again(partial(predict_patient, left, model, lose=found.lost.__setitem__, **how))
        except SlideError as exc:
            if len(left) == 1:
                found.lost[next(iter(left))] = reason_of(exc)
            elif not spared(exc, reason_of(exc)) and any(name not in found.lost for name in left):
                raise
    raise SlideError(_none_left(found.lost))


def _none_left(lost: Mapping[str, str]) -> str:
    return f"none of its slides can be read: {'; '.join(f'{name}: {why}' for name, why in lost.items())}"


def _write(
    row: CohortSlide,
    out: Path,
    stands: PatientStanding,
    beside: Mapping[str, Any],
    found: PatientPrediction,
    started: float,
) -> dict[str, Any]:
    folder, together = out / PATIENTS / row.slide_id, found.together
    begin_slide(folder)
    members = {slide.slide_id: slide for slide in row.each}
    lost = [f"left out: {name}: {why}" for name, why in sorted(stands.lost.items())]
    told: dict[str, Any] = {"key": stands.key, "made_of": stands.made_of, **beside, "patient": row.patient}
    galleries, slide_bytes, shares = {}, 0, {}
    seconds = (time.perf_counter() - started) / len(found.slides)
    scale = scale_of(found.slides.values(), told_name(together))
    for name, part in found.slides.items():
        own = {"status": "ok", "error": "", **part.columns(), "seconds": seconds, "key": stands.key}
        own |= {"warnings": list(part.warnings), "patient": row.patient}
        shares[name] = float(part.attention.sum())
        slides = {**told, "row": own, "share_of_attention": shares[name]}
        commit = write_result(members[name], out, part, slides, name=f"{name} of patient {row.patient}", scale=scale)
        galleries[name] = commit["evidence"]["gallery"]
        slide_bytes += commit["slide_bytes"]
    result = {
        "status": "ok",
        "error": "",
        **together.columns(),
        "seconds": time.perf_counter() - started,
        "key": stands.key,
        "warnings": [*lost, *together.warnings],
    }
    record = {
        **told,
        "fingerprint": stands.key,
        "path": str(row.path),
        "notice": NOTICE,
        "row": result,
        "slides": {name: {"share_of_attention": share} for name, share in shares.items()},
        "left_out": stands.lost,
        "quality": together.quality and together.quality.to_json(),
        "words": tell(together),
        "evidence": evidence_of(together) | {"gallery": galleries},
        "pictures": {},
        "attention_not_read": together.attention_not_read,
        "slide_bytes": slide_bytes,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_commit(folder, record)
    return {**result, **told_of_patient(record), "reused": False}


def _brought_up(row: CohortSlide, found: PatientStanding, out: Path) -> bool:
    """Bring the slides of a valid result up to date, see `pipeline.run.slide.kept`; False where one is damaged."""
    lost = (found.commit or {}).get("left_out", {})
    slides = [slide for slide in row.each if slide.slide_id in found.slides and slide.slide_id not in lost]
    return all(
        kept(folder, own, slide, found.slides[slide.slide_id].facts)
        for slide in slides
        for folder in [out / "slides" / slide.slide_id]
        if (own := read_commit(folder)) is not None
    )


def pictures_stand(found: PatientStanding, out: Path) -> bool:
    """Whether the pictures of all slides of a valid result are as they would be drawn now."""
    folders = [out / "slides" / name for name in (found.commit or {}).get("slides", {})]
    return all((own := read_commit(folder)) is not None and drawn(folder, own) for folder in folders)

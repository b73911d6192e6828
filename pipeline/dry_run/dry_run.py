"""What `saccade run` or `saccade cache` would do, and about what it would cost; nothing is written."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.cache import CacheSettings, budgeted, check_store, open_for
from pipeline.cohort.cohort import Cohort, CohortSlide
from pipeline.dry_run.outcome import DONE, EARLIER, FAILS, LEFT, STALE, TO_DO, TODO, DryRun
from pipeline.errors import UsageError, reason_of
from pipeline.output.failures import Failures
from pipeline.output.folder import RUN, refuse_foreign, refuse_store, refuse_unwritable
from pipeline.run.interrupt import finishing
from pipeline.run.workers import each
from stages import object_store
from stages.amounts import counted
from stages.passing import UnreadableError, again
from stages.place import Place, Url
from stages.pyramid.cache import pyramid_task
from stages.pyramid.export import export_task
from stages.pyramid.task import cost_of
from stages.pyramid.upload import MARK

if TYPE_CHECKING:  # caching needs no model, and no torch
    from pipeline.run.keys import RunSettings

Progress = Callable[[int, int, str | None], None]


def dry_run_cohort(
    cohort: Cohort,
    out: Path,
    settings: RunSettings,
    *,
    workers: int | None = 0,
    limit: float | None = None,
    scheduler: str | None = None,
    retry_failed: bool = False,
    progress: Progress | None = None,
) -> DryRun:
    """What `pipeline.run.run.run_cohort` would do with these arguments; the slides are looked at on this machine.

    What it takes is judged by slides that are done in the folder with the same model and settings, else by a look at
    one slide and some of its patches.

    Args:
        cohort, out, settings, workers, limit, scheduler, retry_failed: as there.
        progress: called with (slides looked at, slides in all, None).

    Raises:
        UsageError: a run would not be started.
    """
    from pipeline.dry_run.cost import by_one, by_those_done
    from pipeline.model.header import model_digest
    from pipeline.run.keys import run_digest
    from pipeline.run.names import named_as_before
    from pipeline.run.run import manned, prepared, rows_for

    settings, model = prepared(cohort, settings)
    settings, count = manned(settings, len(cohort.slides), workers=workers, scheduler=scheduler)
    refuse_store(out)
    refuse_foreign(out, names=RUN)
    refuse_unwritable(out, names=RUN)
    cohort = rows_for(model.spec, named_as_before(cohort, out))
    digest = model_digest(settings.model)
    jobs = [(slide, out.resolve(), settings, digest) for slide in cohort.slides]
    rows = _rows(cohort, _stand_of_run, jobs, count, limit, retry_failed, progress)
    to_do = [slide for row in cohort.slides if rows[row.slide_id]["status"] in TO_DO for slide in row.each]
    told, unit = [rows[slide.slide_id] for slide in cohort.slides], model.spec.unit
    if not to_do:
        return DryRun(told, 0, 0, 0.0, unit=unit)
    from pipeline.model.checkpoint import load_model

    where = "cpu" if count or scheduler is not None else settings.device
    loaded = load_model(settings.model, device=where, encoder_weights=settings.encoder_weights)  # else a run is refused
    found = by_those_done(out, run_digest(settings, model, digest)) or by_one(to_do, settings, loaded)
    if isinstance(found, str):
        return DryRun(told, how=found, unit=unit)
    (read, disk, seconds), how = found
    at_once = max(1, min(count, len(to_do)))
    how += f", {f'by {at_once} processes' if at_once > 1 else 'by one process'}"
    how += "; the scheduler's workers share that" if scheduler is not None else ""
    number = len(to_do)
    return DryRun(told, round(number * read), round(number * disk), number * seconds / at_once, how, unit)


def dry_cache_cohort(
    cohort: Cohort,
    out: Place,
    settings: CacheSettings | None = None,
    *,
    workers: int | None = 0,
    limit: float | None = None,
    retry_failed: bool = False,
    progress: Progress | None = None,
) -> DryRun:
    """What `pipeline.cache.cache_cohort` would do with these arguments, by each slide's plan and some of its chunks.

    Whether a store of objects may be written to shows only by writing, so that only the command tells.

    Raises:
        UsageError: it would not be started.
    """
    settings = settings or CacheSettings()
    settings.refuse_contradictions()
    if isinstance(out, Url):
        check_store(out, settings, retry_failed=retry_failed)
        try:
            object_store.exists((out / MARK).text)
        except UnreadableError as exc:
            raise UsageError(f"cannot look at {exc}; or choose another --out") from exc
    else:
        refuse_unwritable(out, names=())
        refuse_foreign(out, names=())
    settings, workers = budgeted(settings, out, workers, len(cohort.slides))
    where = out if isinstance(out, Url) else out.resolve()
    jobs = [(slide, where, settings) for slide in cohort.slides]
    costs: dict[str, Any] = {}
    rows = _rows(cohort, _stand_of_cache, jobs, workers, limit, retry_failed, progress, costs)
    told = [rows[slide.slide_id] for slide in cohort.slides]
    wanted = [costs[row["slide_id"]] for row in told if row["status"] in TO_DO]
    cores = os.cpu_count() or 1
    how = f"by the plan of each and some chunks that were read and encoded, on {counted(cores, 'core')}"
    seconds = sum(one[2] for one in wanted) / cores
    return DryRun(told, sum(one[0] for one in wanted), sum(one[1] for one in wanted), seconds, how)


def _rows(
    cohort: Cohort,
    task: Callable[..., dict[str, Any]],
    jobs: Sequence[tuple[Any, ...]],
    workers: int,
    limit: float | None,
    retry_failed: bool,
    progress: Progress | None,
    costs: dict[str, Any] | None = None,
) -> dict[str, dict[str, str]]:
    """How each slide stands, by its name."""
    rows: dict[str, dict[str, str]] = {}
    with finishing() as stop:
        for slide, row in each(task, jobs, workers=workers, scheduler=None, limit=limit, stop=stop):
            status, why = (FAILS, row["error"]) if row["status"] == "failed" else (row["status"], row["why"])
            if retry_failed and status in (STALE, TODO):
                status, why = LEFT, f"{status}, and not among those that failed earlier"
            rows[slide.slide_id] = {
                "slide_id": slide.slide_id,
                "path": str(slide.path),
                "status": status,
                "why": why,
            }
            if costs is not None:
                costs[slide.slide_id] = row.get("cost")
            if progress is not None:
                progress(len(rows), len(cohort.slides), None)
        if stop.is_set():
            raise stop.interrupt()
    return rows


def _stand_of_run(slide: CohortSlide, out: Path, settings: RunSettings, digest: str) -> dict[str, Any]:
    """How a slide stands: the one place where its exceptions end."""
    from pipeline.model.header import read_known
    from pipeline.run.finished import finished
    from pipeline.run.patient import patient_standing, pictures_stand
    from pipeline.run.slide import need_for, standing
    from pipeline.run.whole import drawn

    try:
        if slide.problem:
            raise ValueError(slide.problem)
        model = read_known(settings.model, encoder_weights=settings.encoder_weights)
        failed = Failures(out, "run").of(slide.slide_id, slide.path)
        if slide.members:
            patient = again(lambda: patient_standing(slide, out, settings, model, digest))
            if patient.commit is None:
                patient.need.refuse_over(settings.memory)
                return _not_done(failed, patient.stale)
            return {"status": DONE, "why": "" if pictures_stand(patient, out) else "its pictures are drawn anew"}
        if failed is None and finished(slide, out, settings, model, digest) is not None:
            return {"status": DONE, "why": ""}
        found = again(lambda: standing(slide, out, settings, model, digest))
        if found.commit is not None:
            folder = out / "slides" / slide.slide_id
            return {"status": DONE, "why": "" if drawn(folder, found.commit) else "its pictures are drawn anew"}
        need_for(found.slide, model).refuse_over(settings.memory)
        return _not_done(failed, found.stale)
    except Exception as exc:
        return {"status": "failed", "error": reason_of(exc)}


def _stand_of_cache(slide: CohortSlide, out: Place, settings: CacheSettings) -> dict[str, Any]:
    """How a slide's pyramid stands: the one place where its exceptions end."""
    try:
        opened, target = open_for(slide, settings), settings.place(out, slide)
        if settings.ngff == "0.4":
            task = export_task(opened, everything=settings.everything)
        else:
            task = pyramid_task(opened, target, profile=settings.profile, everything=settings.everything)
        missing = task.missing(target)
        if missing is None:
            return {"status": DONE, "why": ""}
        cost = again(lambda: cost_of(task, target, room=settings.room))
        failed = None if isinstance(out, Url) else Failures(out, "cache").of(slide.slide_id, slide.path)
        return {**_not_done(failed, missing), "cost": (cost.read_bytes, cost.disk_bytes, cost.seconds)}
    except Exception as exc:
        return {"status": "failed", "error": reason_of(exc)}


def _not_done(failed: str | None, stale: str) -> dict[str, str]:
    """Of a slide that is to be done: what failed before is what a person wants to hear of first."""
    if failed is not None:
        return {"status": EARLIER, "why": failed}
    return {"status": STALE, "why": stale} if stale else {"status": TODO, "why": ""}

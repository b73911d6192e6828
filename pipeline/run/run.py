"""Run a model over a cohort: one task a slide, failures recorded, a rerun does only what is missing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.asked import check_budget, check_prior, decision_of, refuse_patients
from pipeline.cohort.cohort import Cohort, CohortSlide
from pipeline.cohort.labels import refuse_unknown_labels
from pipeline.cohort.patients import by_patient, slides_of
from pipeline.device import check_device, kind_of
from pipeline.errors import UsageError
from pipeline.garbage import uncollected
from pipeline.model.header import Known, checkpoint_files, find_model, model_digest, read_known
from pipeline.model.spec import ModelSpec, task_of
from pipeline.output.failures import NOTHING_FAILED, Failures
from pipeline.output.folder import RUN, only_its_kind, prepare_output
from pipeline.output.log import logging_to
from pipeline.output.table import prediction_columns
from pipeline.run.books import Books, RunSummary, in_words
from pipeline.run.finished import finished, finished_patient
from pipeline.run.interrupt import finishing
from pipeline.run.keys import RunSettings, referral_of, run_digest
from pipeline.run.names import named_as_before
from pipeline.run.outage import stop_at_outage
from pipeline.run.patient import process_patient
from pipeline.run.process import telling
from pipeline.run.ready import lacks
from pipeline.run.slide import lacks_model, opens_any, process_slide
from pipeline.run.workers import BUSY, WAITING, each, suited
from pipeline.task.task import Task
from stages.budget import share_of_machine
from stages.slide.resolution import check_mpp

INSTEAD = "give a table without that column, or predict by a model of slides"
"""Of patients whose slides do not agree."""
Progress = Callable[[int, int, str | None], None]


def run_cohort(
    cohort: Cohort,
    out: Path,
    settings: RunSettings,
    *,
    workers: int | None = 0,
    limit: float | None = None,
    scheduler: str | None = None,
    wait: float | None = None,
    retry_failed: bool = False,
    fail_fast: bool = False,
    progress: Progress | None = None,
    within: Callable[[str], None] | None = None,
    command: Sequence[str] = (),
) -> RunSummary:
    """Predict every slide of a cohort into ``out`` and write its table and report, from the first slide on.

    Several runs with the same model and settings may work into one folder at a time: each slide is done by one of them.
    A slide that failed has no result, so that every run tries it again, whatever its reason was: whether a reason is
    gone shows only then. Those come last.

    Args:
        cohort, out, settings: the slides, where their results go, and how they are predicted.
        workers, limit, scheduler: see `pipeline.run.workers.each`; None is as many as suit the machine and
            what is to be done.
        retry_failed: do only slides that failed when they were last tried into ``out``.
        fail_fast: begin no more slides once one has failed.
        progress: called with (slides finished, slides in all, a line about the last one).
        within: called with a line about a slide that is being worked on.
        command: for the record and the log.

    Raises:
        UsageError: nothing was started, because the model, the output folder or the scheduler cannot be used, or a run
            with other settings works into the folder.
    """
    settings, model = prepared(cohort, settings)
    cohort = rows_for(model.spec, named_as_before(cohort, out))
    digest = model_digest(settings.model)
    run = run_digest(settings, model, digest)
    notes = Failures(out, "run").read()
    failed = {slide.slide_id for slide in cohort.slides if notes.of(slide.slide_id, slide.path) is not None}
    # what failed before may hang again
    slides = sorted(cohort.slides, key=lambda slide: slide.slide_id in failed)
    with uncollected():
        stands = finished_patient if model.spec.unit == "patient" else finished
        rows = {s.slide_id: stands(s, out, settings, model, digest) for s in slides if s.slide_id not in failed}
    known = [(s, row) for s in slides if (row := rows.get(s.slide_id)) is not None]
    slides = [s for s in slides if rows.get(s.slide_id) is None]
    settings, workers = manned(settings, len(slides), workers=workers, scheduler=scheduler)
    prepare_output(out, names=RUN)
    with (
        logging_to(out / "run.log", command) as log,
        only_its_kind(out, "run", run[:16]),
        finishing(log) as stop,
        telling(within) as said,
    ):
        books = Books(out, cohort, model, settings, run, command)
        total, done, begun = len(cohort.slides), 0, False

        def tell(line: str | None) -> None:
            if line is not None:
                log(f"[{done}/{total}] {line}")
            if progress:
                progress(done, total, line)

        def begin() -> None:
            nonlocal begun
            if not begun:
                begun = True
                books.write()

        if retry_failed and not failed:
            tell(NOTHING_FAILED)
        if retry_failed and (line := notes.others((slide.slide_id, slide.path) for slide in cohort.slides)) is not None:
            tell(line)
        task = task_of(model.spec)
        jobs = [(s, out.resolve(), settings, digest, not retry_failed or s.slide_id in failed) for s in slides]
        how: dict[str, Any] = {"workers": workers, "scheduler": scheduler, "limit": limit, "said": said}
        if workers or opens_any(slides_of(slides), settings):
            how["trial"] = lacks_model, (settings, digest)
        if scheduler is not None:
            how |= {"wait": wait, "device": settings.device, "trial": (lacks, _needed(cohort, out, settings, digest))}
            how["warn"] = tell
        try:
            with uncollected():
                for slide, row in known:
                    books.add(slide, row, write=False)
                    done += 1
                    tell(_line(slide, row, task))
            act = process_patient if model.spec.unit == "patient" else process_slide
            for slide, row in _rows(act, jobs, stop, begun=begin, **how):
                begin()
                stop_at_outage(row)
                books.add(slide, row)
                done += 1
                tell(_line(slide, row, task))
                if fail_fast and row["status"] == "failed":
                    stop.at(slide.slide_id, row["error"])
        finally:
            if begun or not jobs:  # else it was refused, or stopped, before any slide was attempted
                summary = books.close()
        if stop.failure is not None:
            tell(stop.fast(summary.waiting))
        elif stop.is_set():
            raise stop.interrupt()
        log.last = summary.line
    return summary


def prepared(cohort: Cohort, settings: RunSettings) -> tuple[RunSettings, Known]:
    """The settings as all workers can use them, and what is known of the model; nothing computes yet.

    Raises:
        UsageError: the model or the settings cannot be used.
    """
    _check_mpp(settings.mpp)
    # workers may have another working directory
    settings = replace(
        settings,
        model=find_model(settings.model).resolve(),
        encoder_weights=settings.encoder_weights and settings.encoder_weights.absolute(),
        features=settings.features and settings.features.absolute(),
    )
    check_device(settings.device)
    model = read_known(settings.model, encoder_weights=settings.encoder_weights)
    return _checked(cohort, model, settings), model


def manned(
    settings: RunSettings, slides: int, *, workers: int | None, scheduler: str | None
) -> tuple[RunSettings, int]:
    """How many workers there will be for so many slides that are to be done, and with it what each may take.

    Raises:
        UsageError: this machine, which is to work, has no such device.
    """
    if not slides:
        return settings, 0
    # a device that is not here may be where the scheduler's workers are
    kind = "cpu" if scheduler is not None else kind_of(settings.device)
    workers = suited(slides, device=kind, memory=settings.memory) if workers is None else workers
    if settings.memory is None and scheduler is None:  # each of a scheduler's workers knows its own
        settings = replace(settings, memory=share_of_machine(workers))
    return settings, workers


def _line(slide: CohortSlide, row: Mapping[str, Any], task: Task) -> str | None:
    """What is said of a slide that has ended; None where nothing is."""
    if row["status"] == WAITING:
        return None
    return f"{slide.slide_id}: {in_words(row, task)}{' (done earlier)' if row.get('reused') else ''}"


def rows_for(spec: ModelSpec, cohort: Cohort) -> Cohort:
    """The cohort, with a row for what the model predicts: of one of patients, for each patient.

    Raises:
        UsageError: see `by_patient`.
    """
    if spec.unit == "slide":
        return cohort
    return replace(cohort, slides=by_patient(cohort.slides, task_of(spec), cohort.source, instead=INSTEAD))


def _rows(
    act: Callable[..., dict[str, Any]], jobs: Sequence[tuple[Any, ...]], stop: threading.Event, **how: Any
) -> Iterator[tuple[CohortSlide, dict[str, Any]]]:
    """What became of each slide; what another run is working on comes last, when it may be done."""
    for wait in (False, True) if jobs else ():
        busy = set()
        for slide, row in each(act, [(*job, wait) for job in jobs], stop=stop, **how):
            if row["status"] == BUSY:
                busy.add(slide.slide_id)
            else:
                yield slide, row
        jobs = [job for job in jobs if job[0].slide_id in busy]
        if not jobs or stop.is_set():
            return


def _checked(cohort: Cohort, model: Known, settings: RunSettings) -> RunSettings:
    """The settings, which fit the model: what does not is told before anything is started."""
    spec = model.spec
    refuse_unknown_labels(cohort, task_of(spec), settings.model)
    rows_for(spec, cohort)  # what differs within a patient is told before anything is started
    if settings.refer is not None:
        refuse_patients(spec, "--refer")
    check_budget(spec, samples=settings.samples, scheme=settings.scheme)
    decision_of(spec, settings.decide, settings.risk, settings.positive, samples=settings.samples)
    if settings.prior is not None:
        check_prior(spec, settings.prior)
        if settings.prior.place.is_file() and not settings.prior.is_network:
            raise UsageError(f"--prior: {settings.prior.place} is one slide's map; give the folder that it is in")
        settings = replace(settings, prior=replace(settings.prior, place=settings.prior.place.resolve()))
    referral_of(settings, model)
    prediction_columns(task_of(spec))  # names that collide
    return settings


def _needed(cohort: Cohort, out: Path, settings: RunSettings, digest: str) -> tuple[Any, ...]:
    """What `lacks` is asked of workers elsewhere; of the slides, the first that is here."""
    others = (settings.encoder_weights, None if settings.prior is None else settings.prior.place)
    first = next((at for slide in slides_of(cohort.slides) if isinstance(at := slide.path, Path) and at.exists()), None)
    files = [path for path in (*others, first, *checkpoint_files(settings.model)) if path is not None]
    return out.resolve(), settings.model, digest, files, settings.device


def _check_mpp(mpp: float | None) -> None:
    problem = None if mpp is None else check_mpp(mpp, mpp)
    if problem:
        raise UsageError(f"--mpp: {problem}")

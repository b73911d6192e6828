"""Run a model over a cohort: one task a slide, failures recorded, a rerun does only what is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.cohort.table import Cohort
from pipeline.device import check_device, find_device
from pipeline.errors import UsageError
from pipeline.model.checkpoint import find_model, load_model, model_digest
from pipeline.model.slide_model import SlideModel
from pipeline.output.folder import RUN, prepare_output
from pipeline.output.table import prediction_columns
from pipeline.predict import check_budget, check_prior, decision_of
from pipeline.run.books import Books, RunSummary, in_words
from pipeline.run.interrupt import finishing
from pipeline.run.ready import lacks
from pipeline.run.slide import BUSY, RunSettings, process_slide, referral_of, run_digest
from pipeline.run.workers import each, suited
from stages.budget import share_of_machine
from stages.disk import PREFIX
from stages.lease import holders, lease
from stages.slide.resolution import check_mpp

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
    progress: Progress | None = None,
    command: Sequence[str] = (),
) -> RunSummary:
    """Predict every slide of a cohort into ``out`` and write its table and report, from the first slide on.

    Several runs with the same model and settings may work into one folder at a time: each slide is done by one of them.

    Raises:
        UsageError: nothing was started, because the model, the output folder or the scheduler cannot be used, or a run
            with other settings works into the folder.
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
    # a device that is not here may be where the scheduler's workers are; ours load the model themselves
    if scheduler is None:
        find_device(settings.device)
    if workers is None:
        kind = find_device(settings.device).type if scheduler is None else "cpu"
        workers = suited(len(cohort.slides), device=kind, memory=settings.memory)
    if settings.memory is None and scheduler is None:  # each of a scheduler's workers knows its own
        settings = replace(settings, memory=share_of_machine(workers))
    device = "cpu" if workers or scheduler else settings.device
    model = load_model(settings.model, device=device, encoder_weights=settings.encoder_weights)
    settings = _checked(cohort, model, settings)
    prepare_output(out, names=RUN)
    digest = model_digest(settings.model)
    run = run_digest(settings, model, digest)
    with _only_its_kind(out, run), finishing() as stop:
        books = Books(out, cohort, model, settings, run, command)
        jobs: Sequence[tuple[Any, ...]] = [(slide, out.resolve(), settings, digest) for slide in cohort.slides]
        done, busy = 0, []
        how: dict[str, Any] = {"workers": workers, "scheduler": scheduler, "limit": limit, "stop": stop}
        if scheduler is not None:
            how |= {"wait": wait, "device": settings.device, "trial": (lacks, _needed(cohort, out, settings, digest))}
            how["warn"] = lambda line: progress(done, len(cohort.slides), line) if progress else None
        try:
            books.write()
            # what another run is working on comes last, when it may be done
            for again in (False, True):
                for slide, row in each(process_slide, [(*job, again) for job in jobs], **how):
                    if row["status"] == BUSY:
                        busy.append(slide)
                        continue
                    books.add(slide, row)
                    done += 1
                    if progress:
                        words = f"{in_words(row)}{' (done earlier)' if row.get('reused') else ''}"
                        progress(done, len(cohort.slides), f"{slide.slide_id}: {words}")
                jobs = [(slide, out.resolve(), settings, digest) for slide in busy]
        finally:
            summary = books.write()
    if stop.is_set():
        raise KeyboardInterrupt
    return summary


def _checked(cohort: Cohort, model: SlideModel, settings: RunSettings) -> RunSettings:
    """The settings, which fit the model: what does not is told before anything is started."""
    spec = model.spec
    check_labels(cohort, spec.classes, settings.model)
    check_budget(spec, samples=settings.samples, scheme=settings.scheme)
    decision_of(spec, settings.decide, settings.risk, settings.positive, samples=settings.samples)
    if settings.prior is not None:
        check_prior(spec, settings.prior)
        if settings.prior.place.is_file() and not settings.prior.is_network:
            raise UsageError(f"--prior: {settings.prior.place} is one slide's map; give the folder that it is in")
        settings = replace(settings, prior=replace(settings.prior, place=settings.prior.place.resolve()))
    referral_of(settings, model)
    prediction_columns(spec.classes)  # names that collide
    return settings


def _needed(cohort: Cohort, out: Path, settings: RunSettings, digest: str) -> tuple[Any, ...]:
    """What `lacks` is asked of workers elsewhere; of the slides, the first that is here."""
    others = (settings.encoder_weights, None if settings.prior is None else settings.prior.place)
    first = next((slide.path for slide in cohort.slides if slide.path.exists()), None)
    files = [path for path in (*others, first) if path is not None]
    return out.resolve(), settings.model, digest, files, settings.device


@contextmanager
def _only_its_kind(out: Path, run: str) -> Iterator[None]:
    """Keep out runs with another model or other settings, for as long as this one works.

    Raises:
        UsageError: one is at work already.
    """
    prefix, own = f"{PREFIX}run-", run[:16]
    with lease(out / f"{prefix}{own}", shared=True):
        # each looks after it has its own, so that of two at once one sees the other at least
        others = [name for name in holders(out, prefix) if name != f"{prefix}{own}"]
        if others:
            raise UsageError(
                f"another run works into {out}, with another model or other settings: wait for its end, or choose "
                "another --out"
            )
        yield


def check_labels(cohort: Cohort, classes: Sequence[str], model: Path) -> None:
    """Refuse labels that a model does not know.

    Raises:
        UsageError: which, and what the model was trained for.
    """
    unknown = sorted({s.label for s in cohort.slides if s.label is not None} - set(classes))
    if unknown:
        raise UsageError(
            f"the cohort has the label {unknown[0]!r}, but {model} was trained for {', '.join(classes)}: "
            "use the model of this task, or a table without a label column to predict only"
        )


def _check_mpp(mpp: float | None) -> None:
    problem = None if mpp is None else check_mpp(mpp, mpp)
    if problem:
        raise UsageError(f"--mpp: {problem}")

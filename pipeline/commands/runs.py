"""The prediction of a cohort, and what it would do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.commands.arguments import (
    MOST_WORKERS,
    AnyPath,
    check_reading,
    check_refer,
    given_prior,
    memory_bytes,
)
from pipeline.commands.slides import given_cohort
from pipeline.errors import UsageError, computing
from pipeline.garbage import uncollected

if TYPE_CHECKING:
    from pipeline.cohort.cohort import Cohort
    from pipeline.dry_run.outcome import DryRun
    from pipeline.run.books import RunSummary
    from pipeline.run.keys import RunSettings
    from pipeline.run.run import Progress


@computing()
def run(
    target: Cohort | AnyPath,
    model: AnyPath,
    *,
    out: AnyPath,
    samples: int | None = None,
    tolerance: float | None = None,
    decide: float | None = None,
    risk: float | None = None,
    positive: str | None = None,
    scheme: str | None = None,
    mpp: float | None = None,
    strict: bool = False,
    seed: int = 0,
    prior: AnyPath | None = None,
    prior_mpp: float | None = None,
    prior_channel: int | None = None,
    refer: float | None = None,
    by_class: bool = False,
    device: str = "auto",
    workers: int | None = None,
    limit: float | None = None,
    memory: int | str | None = None,
    scheduler: str | None = None,
    retry_failed: bool = False,
    fail_fast: bool = False,
    wait: float | None = None,
    encoder_weights: AnyPath | None = None,
    features: AnyPath | None = None,
    verify: bool = False,
    split: str | None = None,
    count_seen: bool = False,
    ensemble: bool = False,
    progress: Progress | None = None,
    within: Callable[[str], None] | None = None,
    command: Sequence[str] = ("saccade.run",),
) -> RunSummary:
    """Predict every slide of a cohort, with intervals, overlays and a report; a rerun does only what is missing.

    A slide that cannot be predicted fails by itself: its row says why, and the others go on. It has no result, so that
    a rerun tries it again, whatever the reason was. What happened is also in ``run.log``.

    Args:
        target: a slide, a folder (searched for slides) or a cohort table, by its path; or what `read_cohort` gave.
        model: the checkpoint's path, or its folder's.
        out: the folder for predictions.csv, report.html and what belongs to each slide; made where it is missing.
        samples: see `predict`.
        tolerance: see `predict`.
        decide: see `predict`.
        risk: see `predict`.
        positive: see `predict`.
        scheme: see `predict`.
        mpp: µm per level-0 pixel of every slide for which the cohort table gives none.
        strict: refuse slides whose objective or TIFF tags contradict their resolution, instead of a warning.
        seed: see `predict`.
        prior: folder of maps of where to look: `<slide>.npy`, `.png` or `.tif`, one channel over the whole slide, `.h5`
            of CLAM's attention scores, or `.geojson` of QuPath's objects, with `FOLDER#MEASUREMENT`; or an `.onnx`
            segmentation network that makes them of the thumbnail. Half of each draw goes by them; the estimate stays
            unbiased whatever they show.
        prior_mpp: µm/px of the thumbnail that such a network is given; default: what `NETWORK.onnx.json` says, else the
            model's own for its attention.
        prior_channel: its channel that shows where to look, from 0; default: its only one.
        refer: see `predict`; what is stated, and how often it held, is ``refer`` of the summary.
        by_class: see `predict`.
        device: see `load_model`.
        workers: worker processes; 0 works in this one; default: as many as suit the machine, none for a single slide.
        limit: seconds that one slide may take on a worker before it is ended and fails; default: 20 times what is
            typical of the others, 10 minutes at least.
        memory: bytes, or a size such as "4GB", that each process may take: a slide that needs more is refused; default:
            its share of 80 % of the machine's, or of its dask worker's limit.
        scheduler: address of a dask scheduler, or its scheduler file; its workers are used instead.
        wait: seconds to wait for its file, for a first worker, and for another where none is left; default: 30.
        retry_failed: do only slides that failed when they were last tried into ``out``, by their names and paths;
            others stay as they are.
        fail_fast: begin no more slides once one has failed; those that are being worked on are finished.
        encoder_weights: see `load_model`.
        features: folder that keeps what a frozen encoder makes of patches; default: $SACCADE_CACHE, else the user's
            cache folder.
        verify: read every byte of every slide: an earlier result stands only where its digest is the recorded one.
        split: only slides of this split of the table, such as "test"; default: all, of which metrics count those of
            test or of no split.
        count_seen: count slides in the metrics, too, that the model was trained or validated on.
        ensemble: predict by the models of a cross-validation together (``training.ensemble``); a slide that some of
            them were made with, by the others.
        progress: called with (slides finished, slides in all, a line about the last one).
        within: called with a line about a slide that is being worked on, by any thread.
        command: what run.json and run.log record as the command.

    Raises:
        UsageError: nothing was started, because the target, the model, the folder or the scheduler cannot be used.

    Examples:
        >>> import saccade
        >>> summary = saccade.run("slides", "model.safetensors", out="results", samples=24)
        >>> summary
        RunSummary(total=3, ok=3, failed=0, reused=0)
        >>> [(row["slide_id"], row["status"]) for row in summary.rows]
        [('even', 'ok'), ('odd', 'ok'), ('plain', 'ok')]
        >>> saccade.run("slides", "model.safetensors", out="results", samples=24).reused
        3
    """
    with uncollected():  # most of a rerun over finished slides are imports
        cohort, settings = _to_run(
            target,
            model,
            workers,
            samples=samples,
            tolerance=tolerance,
            decide=decide,
            risk=risk,
            positive=positive,
            scheme=scheme,
            mpp=mpp,
            strict=strict,
            seed=seed,
            prior=prior,
            prior_mpp=prior_mpp,
            prior_channel=prior_channel,
            refer=refer,
            by_class=by_class,
            device=device,
            encoder_weights=encoder_weights,
            features=features,
            verify=verify,
            memory=memory,
            split=split,
            count_seen=count_seen,
            ensemble=ensemble,
        )
        from pipeline.run.run import run_cohort

    return run_cohort(
        cohort,
        Path(out),
        settings,
        workers=workers,
        limit=limit,
        scheduler=scheduler,
        retry_failed=retry_failed,
        fail_fast=fail_fast,
        wait=wait,
        progress=progress,
        within=within,
        command=command,
    )


@computing()
def dry_run(
    target: Cohort | AnyPath,
    model: AnyPath,
    *,
    out: AnyPath,
    workers: int | None = None,
    limit: float | None = None,
    scheduler: str | None = None,
    retry_failed: bool = False,
    progress: Progress | None = None,
    **settings: Any,
) -> DryRun:
    """What `run` would do with these arguments, and about what that takes; nothing is written.

    Raises:
        UsageError: `run` would not start.
    """
    cohort, chosen = _to_run(target, model, workers, **settings)
    from pipeline.dry_run.dry_run import dry_run_cohort

    how: dict[str, Any] = {"workers": workers, "limit": limit, "scheduler": scheduler, "retry_failed": retry_failed}
    return dry_run_cohort(cohort, Path(out), chosen, **how, progress=progress)


def _to_run(
    target: Cohort | AnyPath,
    model: AnyPath,
    workers: int | None,
    *,
    prior: AnyPath | None = None,
    prior_mpp: float | None = None,
    prior_channel: int | None = None,
    encoder_weights: AnyPath | None = None,
    features: AnyPath | None = None,
    memory: int | str | None = None,
    ensemble: bool = False,
    **settings: Any,
) -> tuple[Cohort, RunSettings]:
    """The slides and how they are predicted, from what users give."""
    check_reading(*(settings.get(name) for name in ("samples", "tolerance", "decide", "risk", "positive")))
    check_refer(settings.get("refer"), settings.get("by_class", False))
    if workers is not None and not 0 <= workers <= MOST_WORKERS:
        raise UsageError(f"workers must be from 0 to {MOST_WORKERS}, found {workers}")
    cohort = given_cohort(target)
    if settings.get("split") is not None:
        cohort = replace(cohort, slides=cohort.of_split(settings["split"]))
        settings["split"] = cohort.slides[0].split
    from pipeline.model.header import find_ensemble
    from pipeline.run.keys import RunSettings

    return cohort, RunSettings(
        model=find_ensemble(Path(model)) if ensemble else Path(model),
        encoder_weights=None if encoder_weights is None else Path(encoder_weights),
        features=None if features is None else Path(features),
        prior=given_prior(prior, prior_mpp, prior_channel),
        memory=memory_bytes(memory),
        **settings,
    )

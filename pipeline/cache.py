"""Tile and cache a cohort: every slide as a pyramid that all other commands read in its place."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from pipeline.cohort.cohort import Cohort, CohortSlide
from pipeline.errors import UsageError, reason_of
from pipeline.output.failures import NOTHING_FAILED, Failures
from pipeline.output.folder import only_its_kind, prepare_output
from pipeline.output.log import logging_to
from pipeline.run.interrupt import Stop, finishing
from pipeline.run.process import alive, telling
from pipeline.run.workers import BUSY, each, suited
from stages import object_store
from stages.amounts import counted, size
from stages.budget import BusyError, Peaks, Room, need_of, own_peak, room_on, share_of_machine
from stages.html import table
from stages.object_store import UNLISTED
from stages.passing import UnreadableError, again
from stages.place import Place, Url, local, refusal_of
from stages.pyramid.cache import cache_pyramid, verify_pyramid
from stages.pyramid.export import SUFFIX, export_ngff04
from stages.pyramid.open import open_pyramid
from stages.pyramid.plan import Wish
from stages.pyramid.record import REMEDY, has_record, read_record, refuse_another
from stages.pyramid.transaction import FullDiskError
from stages.pyramid.upload import MARK
from stages.slide.facts import SlideError
from stages.slide.protocol import Slide

Ngff = Literal["0.4", "0.5"]
Tell = Callable[[int, str], None]
Ended = Callable[[CohortSlide, str | None], None]
Work = Callable[[CohortSlide, Place, "CacheSettings", bool], str]


class CacheProgress(Protocol):
    """Hears of slides that are finished, and of the one that is being copied."""

    def __call__(self, done: int, total: int, line: str | None) -> None:
        """``done`` of ``total`` slides are finished; ``line`` tells of the last one."""
        ...

    def within(self, line: str) -> None:
        """How far the slide is that is being copied."""
        ...


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """What is made of each slide.

    Attributes:
        profile: of a pyramid, see `stages.pyramid.cache.cache_pyramid`.
        everything: keep all chunks of what is portable, not only those around tissue.
        ngff: version of the format; 0.5 are our pyramids, 0.4 is an export for other programs.
        strict: refuse slides whose resolution something else in the file contradicts.
        memory: bytes that a process may take: a slide that needs more is refused; None: its share of the machine's.
        disk: bytes of the disk that may be taken; None: all but a reserve.
        room: the same, as it was when the work began.
    """

    profile: Wish = "auto"
    everything: bool = False
    ngff: Ngff = "0.5"
    strict: bool = False
    memory: int | None = None
    disk: int | None = None
    room: Room | None = None

    def refuse_contradictions(self) -> None:
        """Raise a `UsageError` where they are none that go together."""
        if self.ngff == "0.4" and self.profile == "native":
            raise UsageError("--ngff 0.4 is for programs that do not know our JPEG chunks: leave --profile native out")

    @property
    def made(self) -> str:
        """What tells pyramids apart that are made of one slide, in a few characters."""
        return hashlib.sha256(f"{self.profile} {self.everything} {self.ngff}".encode()).hexdigest()[:16]

    def place(self, out: Place, slide: CohortSlide) -> Place:
        """Where a slide's pyramid goes."""
        return out / f"{slide.slide_id}{'.ome.zarr' if self.ngff == '0.5' else SUFFIX}"


@dataclass(frozen=True, slots=True)
class CacheSummary:
    """What became of a cohort's pyramids; a notebook shows what went wrong.

    Attributes:
        total: how many slides there were.
        errors: why slides failed, by their names; after a full disk, or the first failure where it is to end the work,
            also of those that were not tried.
        memory: the most that its processes held: see `stages.budget.Peaks`.
    """

    total: int
    errors: dict[str, str]
    memory: dict[str, int] = field(default_factory=dict, repr=False)

    @property
    def failed(self) -> int:
        """How many slides failed or were not tried."""
        return len(self.errors)

    def _repr_html_(self) -> str:
        caption = f"{self.total - self.failed} of {counted(self.total, 'pyramid')} there and whole"
        return table(self.errors.items(), header=("slide", "error") if self.errors else (), caption=caption)


def cache_cohort(
    cohort: Cohort,
    out: Place,
    settings: CacheSettings | None = None,
    *,
    workers: int | None = 0,
    limit: float | None = None,
    retry_failed: bool = False,
    fail_fast: bool = False,
    progress: CacheProgress | None = None,
    command: Sequence[str] = (),
) -> CacheSummary:
    """Write every slide's pyramid to ``out/<slide_id>.ome.zarr``; those that are there and whole are kept.

    A slide that failed has no pyramid, so that it is tried again every time, whatever its reason was; those come last.

    A pyramid records the resolution that the file states; an override is given again where it is read.

    Args:
        cohort: the slides.
        out: the folder for the pyramids, or its URL.
        settings: what is made; the defaults where None.
        workers: processes; 0 works in this one, None is as many as suit the machine.
        limit: see `pipeline.run.workers.each`.
        retry_failed: do only slides that failed when they were last tried into ``out``.
        fail_fast: begin no more slides once one has failed.
        progress: told of all that happens.
        command: for the log.

    Returns:
        Which slides failed; the others are not affected, but for a full disk, which ends the work.

    Raises:
        UsageError: the settings contradict each other, or ``out`` cannot be written.
    """
    settings = settings or CacheSettings()
    settings.refuse_contradictions()
    if isinstance(out, Url):
        check_store(out, settings, retry_failed=retry_failed)
        _refuse_unwritable(out)
        settings, workers = budgeted(settings, out, workers, len(cohort.slides))
        return _each(
            cohort.slides,
            _cache,
            (out, settings),
            *_unnoted(progress, len(cohort.slides)),
            workers=workers,
            limit=limit,
            fail_fast=fail_fast,
        )
    prepare_output(out, names=())  # a pyramid says itself whether it is ours
    failures = Failures(out, "cache")
    notes = failures.read()
    failed = {s.slide_id for s in cohort.slides if notes.of(s.slide_id, s.path) is not None}
    slides = sorted(cohort.slides, key=lambda slide: slide.slide_id in failed)
    if retry_failed:
        slides = [slide for slide in slides if slide.slide_id in failed]

    with only_its_kind(out, "cache", settings.made), logging_to(out / "cache.log", command) as log:

        def tell(done: int, line: str) -> None:
            log(f"[{done}/{len(slides)}] {line}")
            if progress:
                progress(done, len(slides), line)

        def ended(slide: CohortSlide, error: str | None) -> None:
            if error is None:
                failures.forget(slide.slide_id, slide.path)
            else:
                failures.note(slide.slide_id, slide.path, error)

        if not slides:
            tell(0, NOTHING_FAILED)
        if retry_failed and (line := notes.others((s.slide_id, s.path) for s in cohort.slides)) is not None:
            tell(0, line)
        settings, workers = budgeted(settings, out, workers, len(slides))
        given, within = (out.resolve(), settings), None if progress is None else progress.within
        how: dict[str, Any] = {"workers": workers, "limit": limit, "fail_fast": fail_fast}
        try:
            summary = _each(slides, _cache, given, tell, within, ended, **how)
        finally:
            if settings.room is not None and settings.room.book is not None:
                settings.room.book.unlink(missing_ok=True)
        log.last = f"{summary.total - summary.failed} of {counted(summary.total, 'pyramid')} are there and whole"
    return summary


def budgeted(settings: CacheSettings, out: Place, workers: int | None, slides: int) -> tuple[CacheSettings, int]:
    """The settings with what processes and pyramids may take from now on, and how many processes there will be."""
    if workers is None:
        workers = suited(slides, device="cpu", memory=settings.memory)
    memory = share_of_machine(workers) if settings.memory is None else settings.memory
    room = None if isinstance(out, Url) else room_on(out, settings.disk)
    return replace(settings, memory=memory, room=room), workers


def _unnoted(progress: CacheProgress | None, total: int) -> tuple[Tell, Callable[[str], None] | None, Ended]:
    """How `_each` tells of slides where nothing is kept of what became of them."""

    def tell(done: int, line: str) -> None:
        if progress:
            progress(done, total, line)

    return tell, None if progress is None else progress.within, lambda slide, error: None


def check_store(out: Url, settings: CacheSettings, *, retry_failed: bool) -> None:
    """Raise a `UsageError` where this is no work for a store of objects, or no URL of one."""
    if retry_failed:
        raise UsageError(
            f"--retry-failed goes by notes of what failed, which only folders keep, not {out}: leave it out"
        )
    if settings.disk is not None:
        raise UsageError(f"--disk is of a disk, and --out is {out}: leave it out")
    if settings.ngff == "0.4":
        raise UsageError(f"--ngff 0.4 exports to disks, and --out is {out}: name a folder, and copy the exports there")
    if out.kind in UNLISTED:
        raise UsageError(f"{out}: a web server takes no files: name the URL of its store, or a folder")
    if (why := refusal_of(out)) is not None:
        raise UsageError(f"{out}: {why}")


def _refuse_unwritable(out: Url) -> None:
    """Find out by writing whether pyramids can be put at a URL."""
    probe = f"{out}/{MARK}-{os.urandom(8).hex()}"
    try:
        object_store.put(probe, b"")
        object_store.remove(probe)
    except UnreadableError as exc:
        raise UsageError(f"cannot write to {exc}; or choose another --out") from exc


def open_for(slide: CohortSlide, settings: CacheSettings) -> Slide:
    """A slide as it is to be cached.

    Raises:
        SlideError, ValueError: it cannot be.
    """
    if slide.problem:
        raise ValueError(slide.problem)
    opened = open_pyramid(slide.path, mpp=slide.mpp)
    if settings.strict:
        opened.facts.refuse_doubt()
    need_of(opened.facts).refuse_over(settings.memory)
    return opened


def _cache(slide: CohortSlide, out: Place, settings: CacheSettings, wait: bool) -> str:
    opened, target = open_for(slide, settings), settings.place(out, slide)
    clock = _Clock(slide.slide_id)
    how: dict[str, Any] = {"everything": settings.everything, "progress": clock, "room": settings.room, "wait": wait}
    if settings.ngff == "0.4":
        export_ngff04(opened, local(target, "exports are written to disks"), **how)
    else:
        cache_pyramid(opened, target, profile=settings.profile, **how)
    return f"{target}{clock.summary()}" + "".join(f"; warning: {doubt}" for doubt in opened.facts.doubts)


def verify_cohort(
    cohort: Cohort,
    out: Place,
    settings: CacheSettings | None = None,
    *,
    workers: int | None = 0,
    limit: float | None = None,
    progress: CacheProgress | None = None,
) -> CacheSummary:
    """Read every chunk of every slide's pyramid in ``out``, and nothing else; writes nothing.

    Returns:
        Which slides have no pyramid there, a damaged one, or one of what the slide's file was before.

    Raises:
        UsageError: exports are asked for.
    """
    settings = settings or CacheSettings()
    if settings.ngff == "0.4":
        raise UsageError(
            "--verify reads pyramids that we read ourselves; --ngff 0.4 is an export: leave one of them out"
        )

    whole = out if isinstance(out, Url) else out.resolve()
    settings, workers = budgeted(settings, whole, workers, len(cohort.slides))
    told = _unnoted(progress, len(cohort.slides))
    return _each(cohort.slides, _verify, (whole, settings), *told, workers=workers, limit=limit)


def _verify(slide: CohortSlide, out: Place, settings: CacheSettings, wait: bool) -> str:
    if slide.problem:
        raise ValueError(slide.problem)
    target = settings.place(out, slide)
    if not (has_record(target) if isinstance(target, Url) else target.is_dir()):
        raise SlideError(f"there is no pyramid {target}: make it with `saccade cache`")
    clock = _Clock(slide.slide_id)
    damage = verify_pyramid(target, progress=lambda done, total: clock(done, total, 0))
    if damage:
        more = f" and {len(damage) - 1} more" if len(damage) > 1 else ""
        raise SlideError(f"{target} is damaged: {damage[0]}{more}; {REMEDY}")
    record, original = read_record(target), open_pyramid(slide.path).facts
    pyramid = record.facts
    recorded = pyramid.revision and pyramid.revision.digest
    if recorded:
        original = original.with_digest()
    if pyramid.fingerprint != original.fingerprint or (recorded and not original.unchanged(pyramid.revision)):
        refuse_another(target, record.origin, slide.path)
        raise SlideError(f"{target} was made of other content than {slide.path} has: run `saccade cache` again")
    words = "every byte of its slide, too" if recorded else "its slide by samples only: an earlier version made it"
    return f"{target}: every chunk is as it was written, {words}, {size(pyramid.file_bytes)}"


def _each(
    slides: Sequence[CohortSlide],
    work: Work,
    given: tuple[Place, CacheSettings],
    tell: Tell,
    within: Callable[[str], None] | None,
    ended: Ended,
    *,
    workers: int,
    limit: float | None,
    fail_fast: bool = False,
) -> CacheSummary:
    """Do every slide, up to one that finds the disk full, or fails where none may."""
    errors, total, done, peaks = {}, len(slides), set(), Peaks()
    jobs = [(slide, work, *given) for slide in slides]
    full = False
    with finishing() as stop, telling(within) as said:
        how: dict[str, Any] = {"workers": workers, "scheduler": None, "limit": limit, "stop": stop, "said": said}
        for slide, row in _rows(jobs, **how):
            done.add(slide.slide_id)
            peaks.add(row.get("peak"))
            failed = row["status"] != "ok"
            line = f"{slide.slide_id}: {'failed: ' if failed else ''}{row['error'] if failed else row['line']}"
            if failed:
                errors[slide.slide_id] = row["error"]
            ended(slide, row["error"] if failed else None)
            if row.get("full") and not full:
                full = True
                if len(done) < total:
                    line += f"; {counted(total - len(done), 'other slide')} not tried"
            if row.get("full") or (failed and fail_fast):
                stop.at(slide.slide_id, row["error"])
            tell(len(done), line)
        left = [slide.slide_id for slide in slides if slide.slide_id not in done]
        if stop.failure is not None and fail_fast:
            tell(len(done), stop.fast(len(left)))
    if stop.failure is not None:
        why = "the disk is full" if full else f"{stop.failure[0]} failed (--fail-fast)"
        errors |= dict.fromkeys(left, f"not tried: {why}")
    elif stop.is_set():
        raise stop.interrupt()
    peaks.add(own_peak())
    return CacheSummary(total, errors, peaks.to_json())


def _rows(jobs: Sequence[tuple[Any, ...]], *, stop: Stop, **how: Any) -> Iterator[tuple[CohortSlide, dict[str, Any]]]:
    """What became of each slide; what others are at comes last, when they may be through."""
    wait = False
    while jobs and not stop.is_set():
        busy = set()
        for slide, row in each(_row, [(*job, wait) for job in jobs], stop=stop, **how):
            if row["status"] == BUSY:
                busy.add(slide.slide_id)
            else:
                yield slide, row
        jobs, wait = [job for job in jobs if job[0].slide_id in busy], True


def _row(slide: CohortSlide, work: Work, out: Place, settings: CacheSettings, wait: bool) -> dict[str, Any]:
    """What became of a slide: the one place where its exceptions end."""
    try:
        return {"status": "ok", "line": again(lambda: work(slide, out, settings, wait)), "peak": own_peak()}
    except BusyError:
        return {"status": BUSY}
    except Exception as exc:
        full = isinstance(exc, FullDiskError)
        return {"status": "failed", "error": reason_of(exc), "full": full, "peak": own_peak()}


class _Clock:
    """Tells how fast one slide is copied."""

    def __init__(self, slide_id: str) -> None:
        self._slide_id = slide_id
        self._started = time.monotonic()
        self._written = 0

    def __call__(self, done: int, total: int, written: int) -> None:
        """See `stages.pyramid.format.Progress`."""
        self._written = written
        passed = time.monotonic() - self._started
        if 0 < done < total:
            left = round(passed * (total - done) / done)
            rate = f"{size(written / passed)}/s, " if written else ""
            alive(f"{self._slide_id}: {done / total:.0%}, {rate}{left // 60}:{left % 60:02d} left")

    def summary(self) -> str:
        """How much was written, and how fast."""
        if not self._written:
            return ""
        seconds = time.monotonic() - self._started
        return f", {size(self._written)} in {seconds:.1f} s ({size(self._written / seconds)}/s)"

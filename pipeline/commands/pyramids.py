"""The copying of slides into pyramids, and what it would do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipeline.commands.arguments import AnyPath, disk_bytes, memory_bytes
from pipeline.commands.slides import given_cohort
from pipeline.errors import UsageError
from stages.place import place

if TYPE_CHECKING:
    from pipeline.cache import CacheProgress, CacheSummary, Ngff
    from pipeline.cohort.cohort import Cohort
    from pipeline.dry_run.outcome import DryRun
    from pipeline.run.run import Progress
    from stages.pyramid.plan import Wish


def cache(
    target: Cohort | AnyPath,
    *,
    out: AnyPath,
    profile: Wish = "auto",
    everything: bool = False,
    ngff: Ngff = "0.5",
    verify: bool = False,
    strict: bool = False,
    workers: int | None = None,
    limit: float | None = None,
    memory: int | str | None = None,
    disk: int | str | None = None,
    retry_failed: bool = False,
    fail_fast: bool = False,
    progress: CacheProgress | None = None,
    command: Sequence[str] = ("saccade.cache",),
) -> CacheSummary:
    """Copy slides into chunked OME-Zarr pyramids, which everything here reads in their place.

    A pyramid is whole or not there. A slide that cannot be copied fails by itself, and the others go on; it is tried
    again whenever this is called again. What happened is also in ``cache.log``.

    Args:
        target: a slide, a folder (searched for slides) or a cohort table, by its path; or what `read_cohort` gave.
        out: the folder for the pyramids, one `<slide_id>.ome.zarr` each; made where it is missing.
        profile: "native" copies JPEG tiles as they are, "portable" keeps pixels losslessly, for any program; "auto" is
            native where a slide has nothing but JPEG tiles, and leaves a pyramid portable that is so already.
        everything: keep all of a portable pyramid; else its finest levels hold tissue only.
        ngff: "0.4" exports for QuPath and others; we read "0.5".
        verify: write nothing; read every chunk that is in the folder, and every byte of the slides.
        strict: see `run`.
        workers: see `run`.
        limit: see `run`; of a slide that tells how far it is, since it last did.
        memory: see `run`.
        disk: bytes, or a size such as "500GB", that the pyramids may take: one that may need more than is left of it is
            not begun; default: all that is free, but 5 % or 1 GB.
        retry_failed: see `run`.
        fail_fast: see `run`.
        progress: told of all that happens, see `pipeline.cache.CacheProgress`.
        command: what cache.log records as the command.

    Raises:
        UsageError: the target or the folder cannot be used, or the arguments contradict each other.

    Examples:
        >>> import saccade
        >>> saccade.cache("slides", out="pyramids")
        CacheSummary(total=3, errors={})
        >>> saccade.open_slide("pyramids/even.ome.zarr")
        <ZarrSlide 'even.ome.zarr': generic-tiff, 2048 x 1536 px, 0.5 x 0.5 µm/px, 3 levels>
        >>> saccade.cache("slides", out="pyramids", verify=True).failed
        0
    """
    cohort = given_cohort(target)
    from pipeline.cache import CacheSettings, cache_cohort, verify_cohort

    settings = CacheSettings(profile, everything, ngff, strict, memory_bytes(memory), disk_bytes(disk))
    if verify:
        if retry_failed or fail_fast:
            raise UsageError("verifying looks at every pyramid and makes none: leave retry_failed and fail_fast out")
        return verify_cohort(cohort, place(out), settings, workers=workers, limit=limit, progress=progress)
    return cache_cohort(
        cohort,
        place(out),
        settings,
        workers=workers,
        limit=limit,
        retry_failed=retry_failed,
        fail_fast=fail_fast,
        progress=progress,
        command=command,
    )


def dry_cache(
    target: Cohort | AnyPath,
    *,
    out: AnyPath,
    profile: Wish = "auto",
    everything: bool = False,
    ngff: Ngff = "0.5",
    strict: bool = False,
    workers: int | None = None,
    limit: float | None = None,
    memory: int | str | None = None,
    disk: int | str | None = None,
    retry_failed: bool = False,
    progress: Progress | None = None,
) -> DryRun:
    """What `cache` would do with these arguments, and about what that takes; nothing is written.

    Raises:
        UsageError: `cache` would not start.
    """
    cohort = given_cohort(target)
    from pipeline.cache import CacheSettings
    from pipeline.dry_run.dry_run import dry_cache_cohort

    how: dict[str, Any] = {"workers": workers, "limit": limit, "retry_failed": retry_failed, "progress": progress}
    settings = CacheSettings(profile, everything, ngff, strict, memory_bytes(memory), disk_bytes(disk))
    return dry_cache_cohort(cohort, place(out), settings, **how)

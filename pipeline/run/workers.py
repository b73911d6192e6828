"""One task a slide: in this process, on worker processes, or on any dask scheduler by address."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from pipeline.cohort.table import CohortSlide
from pipeline.errors import UsageError


def each(
    task: Callable[..., dict[str, Any]],
    jobs: Sequence[tuple[Any, ...]],
    *,
    workers: int,
    scheduler: str | None,
) -> Iterator[tuple[CohortSlide, dict[str, Any]]]:
    """Run ``task(*job)`` for every job and yield (job's slide, its row) as each finishes.

    In this process one by one, or on dask workers. There, no more jobs are handed out than there are threads to work on
    them, so that a worker which dies (a format library's crash, the kernel's out-of-memory killer) takes only its own
    slide with it.
    """
    if workers == 0 and scheduler is None:
        yield from ((job[0], task(*job)) for job in jobs)
        return
    with _client(workers, scheduler) as client:
        from distributed import as_completed

        waiting = iter(jobs)
        slides: dict[str, CohortSlide] = {}
        running = as_completed()

        def hand_out() -> None:
            job = next(waiting, None)
            if job is not None:
                future = client.submit(task, *job, pure=False)
                slides[future.key] = job[0]
                running.add(future)

        for _ in range(max(1, sum(client.nthreads().values()))):
            hand_out()
        for future in running:
            slide = slides.pop(future.key)
            exc = future.exception()
            row = future.result() if exc is None else _died(slide, exc)
            future.release()
            yield slide, row
            hand_out()


@contextmanager
def _client(workers: int, scheduler: str | None) -> Iterator[Any]:
    import dask
    from distributed import Client, LocalCluster

    if scheduler is not None:
        try:
            client = Client(scheduler, timeout="10s")
        except (OSError, ValueError) as exc:
            raise UsageError(f"no dask scheduler answers at {scheduler}: {exc}") from exc
        with client:
            yield client
        return
    # one death is enough to blame the slide: each worker has only one at a time
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address=None,
            memory_limit=None,
            silence_logs="ERROR",
        ) as cluster,
        Client(cluster) as client,
    ):
        client.run(_share_cores, workers)
        yield client


def _share_cores(workers: int) -> None:
    """Leave each of the workers its part of the cores; only torch would take them all."""
    if find_spec("torch"):
        import torch

        torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))


def _died(slide: CohortSlide, exc: BaseException) -> dict[str, Any]:
    """The row of a slide whose task ended without one."""
    reason = "out of memory, or a crash in the file's decoder"
    error = f"its worker died or failed ({type(exc).__name__}): {reason}; try it alone with --workers 1"
    return {"slide_id": slide.slide_id, "path": str(slide.path), "status": "failed", "error": error}

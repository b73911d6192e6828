"""One process and its jobs: what a pool and dask workers have in common."""

from __future__ import annotations

import time

import pytest

from pipeline.run import child as tested
from pipeline.run.child import Child
from pipeline.run.process import memory_share, packed


def test_one_that_is_killed_before_its_job_does_not_do_it() -> None:
    child = Child()
    child.kill()
    try:
        assert child.do(packed(time.sleep, (1000,)), limit=1000.0).died
    finally:
        child.close()


def test_one_that_is_never_ready_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is told of the machine, not of the job."""
    monkeypatch.setattr(tested, "START_SECONDS", 0.001)
    outcome = Child().do(packed(print, ()), limit=1000.0)
    assert outcome.why == "no process to work on it was ready within 0.001 s: try again later"


@pytest.mark.parametrize("memory", [None, 10**9])
def test_jobs_know_what_their_process_may_take(memory: int | None) -> None:
    child = Child(memory=memory)
    try:
        assert child.do(packed(memory_share, ()), limit=1000.0).answer == memory
    finally:
        child.close()

"""Jobs on workers that others started: what crashes, hangs or is lost costs no other job; real dask, real deaths."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from dasks import LIMIT, scheduler_in, worker
from distributed import Client
from jobs import lacks, pause_above, work

from pipeline.cohort.cohort import CohortSlide
from pipeline.errors import UsageError
from pipeline.run import address as tested
from pipeline.run import handshake
from pipeline.run.workers import each
from stages.budget import LEAST_SHARE, share_of_machine


def slides(*names: str) -> list[tuple[CohortSlide]]:
    return [(CohortSlide(slide_id=name, path=Path(name), patient=name),) for name in names]


def rows(scheduler: str, *names: str, **how: Any) -> dict[str, dict[str, Any]]:
    found = each(work, slides(*names), workers=0, scheduler=scheduler, **how)
    return {os.path.basename(slide.slide_id): row for slide, row in found}


def in_flight(address: str, pool: ThreadPoolExecutor, *names: str, by: str | None = None) -> Any:
    """A run whose first job is at work."""
    found = pool.submit(rows, by or address, *names)
    with Client(address, set_as_default=False) as client:
        while not any(client.processing().values()):
            time.sleep(0.05)
    return found


def test_every_job_is_done_beside_the_worker_and_each_is_told_its_own_end(farm: str) -> None:
    found = rows(farm, "a", "crash", "raise", "hang", "b", limit=1.0)
    assert [found[name]["status"] for name in "ab"] == ["ok"] * 2
    assert found["a"]["worker"] == found["b"]["worker"] != os.getpid()
    assert found["a"]["may"] == min(LIMIT, share_of_machine(1) or LIMIT)
    crash = "its process died (SIGSEGV: a crash in the file's decoder), twice: copy or export its file anew"
    assert found["crash"]["error"].startswith(crash)
    assert found["raise"]["error"] == "unexpected RuntimeError: of its own"
    assert (
        found["hang"]["error"]
        == "it took longer than 1 s, the limit for one slide, and was ended: give it longer with --limit"
    )


def test_time_that_a_job_waits_for_another_run_is_none_of_its_limit(farm: str, tmp_path: Path) -> None:
    """Two runs share a worker of one thread."""
    with ThreadPoolExecutor(2) as pool:
        first = in_flight(farm, pool, f"{tmp_path}/wait")
        second = pool.submit(rows, farm, "a", limit=1.0)
        time.sleep(1.5)
        (tmp_path / "go").touch()
        assert first.result(60)["wait"]["status"] == "ok"
        assert second.result(60)["a"]["status"] == "ok"


def test_once_stopped_what_is_in_flight_is_finished_and_no_more_is_begun(farm: str) -> None:
    stop, found = threading.Event(), []
    for slide, row in each(work, slides(*"abcdef"), workers=0, scheduler=farm, stop=stop):
        found.append((slide.slide_id, row["status"]))
        stop.set()
    assert ("a", "ok") in found
    assert len(found) <= 2


def test_a_worker_that_cannot_do_the_work_is_named_before_it_gets_a_slide(farm: str) -> None:
    with pytest.raises(UsageError, match=r"^the worker tcp://127\.0\.0\.1:\d+ lacks everything$"):
        rows(farm, "a", trial=(lacks, ("lacks everything",)))
    raises = (work, (slides("raise")[0][0],))
    with pytest.raises(UsageError, match=r"has not shown that it can do the work: unexpected RuntimeError: of its own"):
        rows(farm, "a", trial=raises)
    assert rows(farm, "a", trial=(lacks, ("",)))["a"]["status"] == "ok"


def test_workers_that_are_busy_or_paused_are_waited_for_and_that_is_told(farm: str) -> None:
    lines: list[str] = []
    with Client(farm, set_as_default=False) as client, ThreadPoolExecutor(1) as pool:
        busy = client.submit(time.sleep, 1.5)
        assert rows(farm, "a", trial=(lacks, ("",)), wait=0.3, warn=lines.append)["a"]["status"] == "ok"
        assert [line.startswith("no worker has shown within 0.3 s that it can do the work") for line in lines] == [True]
        busy.release()
        client.run(pause_above, 1e-6)
        time.sleep(0.5)
        found = pool.submit(rows, farm, "a", wait=0.3)
        time.sleep(1.0)
        assert not found.done()
        client.run(pause_above, 0.8)
        assert found.result(30)["a"]["status"] == "ok"


def test_a_worker_that_does_not_answer_counts_as_none(farm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake, "ANSWER_SECONDS", 0.5)
    with Client(farm, set_as_default=False) as client:
        (pid,) = client.run(os.getpid).values()
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(UsageError, match=r"^the workers at \S+ do not answer within 0.3 s: restart them$"):
            rows(farm, "a", wait=0.3)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert rows(farm, "a")["a"]["status"] == "ok"


def test_slides_that_need_a_gpu_go_one_at_a_time_to_workers_that_have_one_to_give(farm: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has a GPU to give: start those that have one with `dask worker .*GPU=1`"):
        rows(farm, "a", device="cuda", wait=0.5)
    with worker(farm, tmp_path, "--resources", "GPU=1", "--nthreads", "4", "--memory-limit", "4GB"):
        on_gpu = rows(farm, *"abcd", device="cuda")
        anywhere = rows(farm, *"abcdefgh", device="auto")
    assert len({row["worker"] for row in on_gpu.values()}) == 1
    assert len({row["pid"] for row in on_gpu.values()}) == 1
    assert {row["may"] for row in on_gpu.values()} == {LEAST_SHARE}  # of four, however much they have together
    assert len({row["worker"] for row in anywhere.values()}) == 2
    assert len({row["pid"] for row in anywhere.values()}) == 2


def test_a_slide_whose_worker_is_lost_is_done_by_one_that_comes_late(farm: str, tmp_path: Path) -> None:
    with scheduler_in(tmp_path) as address, worker(address, tmp_path, nanny=True):
        found = rows(address, f"{tmp_path}/end worker once", *"ab")
    assert (tmp_path / "ended").exists()
    assert {name: row["status"] for name, row in found.items()} == dict.fromkeys(("end worker once", "a", "b"), "ok")
    assert len({row["worker"] for row in found.values()}) == 1


@pytest.mark.slow
def test_a_job_that_waits_goes_to_a_worker_that_has_nothing_to_do(tmp_path: Path) -> None:
    """The one it waits for is busy with something that is no slide."""
    with (
        scheduler_in(tmp_path) as address,
        worker(address, tmp_path),
        Client(address, set_as_default=False) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        (busy,) = client.nthreads()
        other = client.submit(time.sleep, 60, workers=[busy])
        while not client.processing()[busy]:
            time.sleep(0.05)
        found = pool.submit(rows, address, "a")
        while len(client.processing()[busy]) < 2:
            time.sleep(0.05)
        with worker(address, tmp_path):
            assert found.result(40)["a"]["status"] == "ok"
        assert other.status == "pending"


@pytest.mark.slow
def test_slides_fail_when_no_worker_is_left(tmp_path: Path) -> None:
    with scheduler_in(tmp_path) as address, worker(address, tmp_path):
        found = rows(address, f"{tmp_path}/end worker once", "a", wait=2.0)
    assert {row["status"] for row in found.values()} == {"failed"}
    assert all("no worker is left" in row["error"] for row in found.values())


@pytest.mark.slow
def test_a_scheduler_that_restarts_costs_no_slide(tmp_path: Path) -> None:
    (tmp_path / "cwd").mkdir()
    names = (f"{tmp_path}/wait", "a", "b")
    with ThreadPoolExecutor(1) as pool:
        with scheduler_in(tmp_path) as address, worker(address, tmp_path / "cwd"):
            found = in_flight(address, pool, *names)
        with scheduler_in(tmp_path, int(address.rpartition(":")[2])) as again, worker(again, tmp_path / "cwd"):
            (tmp_path / "go").touch()
            assert [row["status"] for row in found.result(100).values()] == ["ok"] * 3


@pytest.mark.slow
def test_a_scheduler_that_restarts_elsewhere_is_found_by_its_file(tmp_path: Path) -> None:
    (tmp_path / "cwd").mkdir()
    file = str(tmp_path / "scheduler.json")
    with ThreadPoolExecutor(1) as pool:
        with scheduler_in(tmp_path) as address, worker(address, tmp_path / "cwd"):
            found = in_flight(address, pool, f"{tmp_path}/wait", "a", by=file)
        with scheduler_in(tmp_path) as again, worker(again, tmp_path / "cwd"):
            assert again != address
            (tmp_path / "go").touch()
            assert [row["status"] for row in found.result(100).values()] == ["ok"] * 2


@pytest.mark.slow
def test_a_scheduler_that_stays_away_fails_what_is_not_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tested, "BACK_SECONDS", 1.0)
    (tmp_path / "cwd").mkdir()
    with ThreadPoolExecutor(1) as pool:
        with scheduler_in(tmp_path) as address, worker(address, tmp_path / "cwd"):
            found = in_flight(address, pool, f"{tmp_path}/wait", "a", "b")
        errors = [row["error"] for row in found.result(100).values()]
    assert len(errors) == 3
    assert all(error.startswith(f"the scheduler {address} is gone") for error in errors)

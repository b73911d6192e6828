"""Workers that others started: asked before they get work, and refused in one line; real schedulers and processes."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from distributed import Client
from makers import ROOT

from pipeline.cohort.table import CohortSlide
from pipeline.errors import UsageError
from pipeline.run import scheduler as tested
from pipeline.run.scheduler import refuse_strangers
from pipeline.run.workers import each

SLIDES = [CohortSlide(slide_id=name, path=Path(name), patient=name) for name in "abc"]
JOBS = [(slide,) for slide in SLIDES]


def answer(slide: CohortSlide) -> dict[str, Any]:
    return {"slide_id": slide.slide_id, "status": "ok", "pid": os.getpid()}


def die_after_the_first(slide: CohortSlide) -> dict[str, Any]:
    if slide.slide_id != "a":
        os.kill(os.getpid(), signal.SIGKILL)
    return answer(slide)


class AnswerOnceThereIs:
    """A task that waits for a file."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __call__(self, slide: CohortSlide) -> dict[str, Any]:
        while not self._file.exists():
            time.sleep(0.05)
        return answer(slide)


@contextmanager
def dask(*command: str, cwd: Path) -> Iterator[None]:
    """A dask command in a folder that is first on its path, as `python -m` and notebooks have it."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    with (cwd / "log").open("ab") as log:
        process = subprocess.Popen([sys.executable, "-m", "dask", *command], cwd=cwd, env=environment, stderr=log)
    try:
        yield
    finally:
        process.terminate()  # a nanny ends its worker
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def scheduler_in(cwd: Path, port: int = 0) -> Iterator[str]:
    """A scheduler's address."""
    file = cwd / "scheduler.json"
    file.unlink(missing_ok=True)
    options = ("--host", "127.0.0.1", "--port", str(port), "--dashboard-address", "127.0.0.1:0", "--no-dashboard")
    with dask("scheduler", *options, "--scheduler-file", str(file), cwd=cwd):
        for _ in range(600):
            if file.exists() and file.read_text().endswith("}"):
                yield str(json.loads(file.read_text())["address"])
                return
            time.sleep(0.1)
        raise TimeoutError((cwd / "log").read_text())


@contextmanager
def worker(scheduler: str, cwd: Path, nanny: str = "--no-nanny") -> Iterator[None]:
    """A worker that joins a scheduler; gone from it afterwards."""
    options = ("--host", "127.0.0.1", "--nthreads", "1", nanny, "--no-dashboard")
    with Client(scheduler) as client:
        others = set(client.nthreads())
        with dask("worker", scheduler, *options, cwd=cwd):
            yield
        while set(client.nthreads()) - others:
            time.sleep(0.05)


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with scheduler_in(tmp_path_factory.mktemp("scheduler")) as address:
        yield address


def shadow(folder: Path, name: str) -> Path:
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").touch()
    return folder


def refusal(scheduler: str) -> str:
    with pytest.raises(UsageError) as caught:
        list(each(answer, JOBS, workers=0, scheduler=scheduler))
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_workers_elsewhere_do_the_jobs(scheduler: str, tmp_path: Path) -> None:
    (tmp_path / "pipeline").mkdir()  # without __init__.py it hides nothing
    with worker(scheduler, tmp_path):
        rows = dict(each(answer, JOBS, workers=0, scheduler=scheduler))
    assert [rows[slide]["status"] for slide in SLIDES] == ["ok"] * 3
    assert os.getpid() not in {row["pid"] for row in rows.values()}


@pytest.mark.parametrize("name", ["pipeline", "stages"])
def test_a_worker_in_a_folder_with_a_package_of_our_name_is_named(scheduler: str, tmp_path: Path, name: str) -> None:
    elsewhere = shadow(tmp_path / "else where", name)
    with worker(scheduler, elsewhere):
        text = refusal(scheduler)
    assert re.match(r"the worker tcp://127\.0\.0\.1:\d+ would import ", text)
    assert str(elsewhere / name / "__init__.py") in text
    assert text.endswith("rename that, or start it in another folder")


def test_a_scheduler_in_such_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "cwd").mkdir()
    with scheduler_in(shadow(tmp_path, "pipeline")) as address, worker(address, tmp_path / "cwd"):
        assert refusal(address).startswith(f"the scheduler {address} would import {tmp_path / 'pipeline'}")


def test_a_worker_of_another_version_is_named(scheduler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tested, "saccade_version", lambda: "99.0")
    with worker(scheduler, tmp_path):
        text = refusal(scheduler)
    assert re.match(r"the worker tcp://\S+ has saccade \S+ and this is 99\.0: install the same", text)


def test_a_worker_without_saccade_is_told_what_to_install() -> None:
    with pytest.raises(UsageError, match=r"^it cannot import saccade: install saccade-wsi \S+ there"):
        refuse_strangers("it", {"saccade": None, "pipeline": None, "stages": None})
    half = {"saccade": "/there/saccade/__init__.py", "pipeline": "/there/pipeline/__init__.py", "stages": None}
    with pytest.raises(UsageError, match=r"^it has no /there/stages: install saccade-wsi again"):
        refuse_strangers("it", half)


def test_a_scheduler_without_workers_is_not_waited_for_in_silence(
    scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tested, "WAIT_SECONDS", 0.5)
    assert refusal(scheduler) == (
        f"no worker has joined the scheduler {scheduler} within 0.5 s: start one with `dask worker {scheduler}`"
    )


def test_a_worker_that_joins_later_is_asked_too(scheduler: str, tmp_path: Path) -> None:
    (tmp_path / "cwd").mkdir()
    rows = each(AnswerOnceThereIs(tmp_path / "go"), JOBS, workers=0, scheduler=scheduler)
    with worker(scheduler, tmp_path / "cwd"):
        with Client(scheduler) as client:
            client.wait_for_workers(1, timeout=60)
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(next, rows)
            time.sleep(2)
            with worker(scheduler, shadow(tmp_path / "elsewhere", "pipeline")):
                with pytest.raises(UsageError, match="would import"):
                    first.result(timeout=60)
                (tmp_path / "go").touch()


def test_slides_fail_when_no_worker_is_left(scheduler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with worker(scheduler, tmp_path):
        rows = each(die_after_the_first, JOBS, workers=0, scheduler=scheduler)
        found = dict([next(rows)])
        monkeypatch.setattr(tested, "WAIT_SECONDS", 1.0)
        found |= dict(rows)
    assert [found[slide]["status"] for slide in SLIDES] == ["ok", "failed", "failed"]
    assert all("no worker is left" in found[slide]["error"] for slide in SLIDES[1:])


def listen(slide: CohortSlide) -> dict[str, Any]:
    """Where this process and the one that started it listen."""
    listening = [
        (connection.laddr.ip, connection.laddr.port)
        for process in (psutil.Process(), psutil.Process(os.getppid()))
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    return {"slide_id": slide.slide_id, "status": "ok", "listening": listening}


def test_our_own_workers_listen_nowhere() -> None:
    """Nor does what starts them begin to."""
    ours = [c.laddr for c in psutil.Process().net_connections("inet") if c.status == psutil.CONN_LISTEN]
    rows = dict(each(listen, JOBS[:1], workers=1, scheduler=None))
    assert set(rows[SLIDES[0]]["listening"]) == set(ours)


def test_an_encrypted_scheduler_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no dask scheduler answers at tls://"):
        list(each(print, [("job",)], workers=0, scheduler="tls://127.0.0.1:1"))


class DieOnce:
    """A task whose worker dies the first time that it comes to the slide b."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __call__(self, slide: CohortSlide) -> dict[str, Any]:
        if slide.slide_id == "b" and not self._file.exists():
            self._file.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return answer(slide)


def never_end_with_b(slide: CohortSlide) -> dict[str, Any]:
    while slide.slide_id == "b":
        time.sleep(0.1)
    return answer(slide)


def test_a_slide_whose_worker_died_is_tried_on_another(scheduler: str, tmp_path: Path) -> None:
    """Which may have come while the others were at work."""
    with worker(scheduler, tmp_path, "--nanny"):
        rows = dict(each(DieOnce(tmp_path / "died"), JOBS, workers=0, scheduler=scheduler))
    assert (tmp_path / "died").exists()
    assert [rows[slide]["status"] for slide in SLIDES] == ["ok"] * 3


@pytest.mark.slow
def test_a_slide_that_never_ends_takes_its_worker_and_no_other_slide(scheduler: str, tmp_path: Path) -> None:
    with worker(scheduler, tmp_path, "--nanny"):
        rows = dict(each(never_end_with_b, JOBS, workers=0, scheduler=scheduler, limit=15.0))
    assert [rows[slide]["status"] for slide in SLIDES] == ["ok", "failed", "ok"]
    assert rows[SLIDES[1]]["error"] == "it took longer than 15 s, the limit for one slide, and was ended"


@pytest.mark.slow
def test_a_scheduler_that_restarts_costs_no_slide(tmp_path: Path) -> None:
    (tmp_path / "cwd").mkdir()
    with ThreadPoolExecutor(1) as pool:
        with scheduler_in(tmp_path) as address, worker(address, tmp_path / "cwd"):
            task = AnswerOnceThereIs(tmp_path / "go")
            found = pool.submit(lambda: dict(each(task, JOBS, workers=0, scheduler=address)))
            with Client(address) as client:
                while not any(client.processing().values()):
                    time.sleep(0.05)
        port = int(address.rpartition(":")[2])
        with scheduler_in(tmp_path, port) as again, worker(again, tmp_path / "cwd"):
            (tmp_path / "go").touch()
            rows = found.result(timeout=100)
    assert [rows[slide]["status"] for slide in SLIDES] == ["ok"] * 3


@pytest.mark.slow
def test_a_scheduler_that_stays_away_fails_what_is_not_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tested, "BACK_SECONDS", 1.0)
    (tmp_path / "cwd").mkdir()
    with ThreadPoolExecutor(1) as pool:
        with scheduler_in(tmp_path) as address, worker(address, tmp_path / "cwd"):
            task = AnswerOnceThereIs(tmp_path / "go")
            found = pool.submit(lambda: dict(each(task, JOBS, workers=0, scheduler=address)))
            with Client(address) as client:
                while not any(client.processing().values()):
                    time.sleep(0.05)
            (tmp_path / "go").touch()
        rows = found.result(timeout=100)
    failed = [row["error"] for row in rows.values() if row["status"] == "failed"]
    assert failed
    assert all(error.startswith(f"the scheduler {address} is gone") for error in failed)


@pytest.mark.parametrize("banner", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9.6\r\n", b""])
def test_a_port_that_is_no_dask_is_one_line(banner: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tested, "CONNECT_SECONDS", 2.0)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer_all() -> None:
            while True:
                try:
                    connection = server.accept()[0]
                except OSError:
                    return
                with connection:
                    connection.sendall(banner)
                    connection.recv(4096)

        threading.Thread(target=answer_all, daemon=True).start()
        text = refusal(f"tcp://127.0.0.1:{server.getsockname()[1]}")
    assert "no dask scheduler" in text
    assert "EiB" not in text

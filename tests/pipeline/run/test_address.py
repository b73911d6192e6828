"""Where a scheduler is, and what is said where none answers; real ports."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from dasks import scheduler_in

from pipeline.errors import UsageError
from pipeline.run import address as tested
from pipeline.run.workers import each


def refusal(scheduler: str, **how: float) -> str:
    with pytest.raises(UsageError) as caught:
        list(each(print, [("job",)], workers=0, scheduler=scheduler, **how))
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_a_scheduler_without_workers_is_not_waited_for_in_silence(tmp_path: Path) -> None:
    """It is found by its file."""
    with scheduler_in(tmp_path) as address:
        assert refusal(str(tmp_path / "scheduler.json"), wait=0.5) == (
            f"no worker has joined the scheduler {address} within 0.5 s: start one with `dask worker {address}`"
        )


def test_a_file_that_nobody_writes_is_not_waited_for_in_silence(tmp_path: Path) -> None:
    assert "has written" in (text := refusal(str(tmp_path / "sched.json"), wait=0.3))
    assert text.endswith(f"`dask scheduler --scheduler-file {tmp_path / 'sched.json'}`")


@pytest.mark.parametrize("text", ["", "{}", "[1]", "\x00"])
def test_another_file_is_no_scheduler_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "sched.json").write_text(text)
    assert "is no scheduler file" in refusal(str(tmp_path / "sched.json"))


@pytest.mark.parametrize("name", ["sched.json", "sched"])
@pytest.mark.parametrize(("make", "what"), [(os.mkfifo, "a named pipe, not a file"), (os.mkdir, "a folder")])
def test_what_is_no_file_is_not_waited_for_in_silence(
    tmp_path: Path, name: str, make: Callable[[Path], None], what: str
) -> None:
    make(tmp_path / name)
    assert refusal(str(tmp_path / name)) == f"--scheduler {tmp_path / name}: it is {what}: give a file"


def test_a_file_of_a_scheduler_that_is_gone_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tested, "CONNECT_SECONDS", 0.5)
    (tmp_path / "sched.json").write_text(json.dumps({"address": "tcp://127.0.0.1:1"}))
    text = refusal(str(tmp_path / "sched.json"))
    assert text.startswith(f"no dask scheduler answers at tcp://127.0.0.1:1, which {tmp_path / 'sched.json'} names")


@pytest.mark.parametrize("text", ["", "localhost", "tcp://", "tcp://host", ":8786", "tcp://:8786", "host:port"])
def test_what_is_no_address_is_one_line(text: str) -> None:
    assert f"{text!r} is no address of a scheduler" in refusal(text)


def test_an_encrypted_scheduler_is_one_line() -> None:
    assert refusal("tls://127.0.0.1:1").startswith("no dask scheduler answers at tls://")


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

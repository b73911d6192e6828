"""Jobs in processes: crashes, hangs and errors are each their own job's, and what prints disturbs nothing."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import psutil
import pytest
from makers import ROOT

from pipeline.run.pool import FIRST_SECONDS, SURE_SECONDS, Ended, Limit, each_in_processes


def work(name: str, folder: str = "") -> str:
    """What a name asks for; ``folder`` remembers what was tried before."""
    if name == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if name == "crash once" and not os.path.exists(f"{folder}/{name}"):
        Path(folder, name).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if name.startswith("slow"):
        time.sleep(0.3)
    if name == "hang":
        time.sleep(1000)
    if name == "stuck":  # where no signal but one helps
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.mkfifo(f"{folder}/fifo")
        open(f"{folder}/fifo").close()
    if name == "raise":
        raise RuntimeError("of its\nown")
    if name == "exit":
        sys.exit(7)
    if name == "print":
        print("noise " * 10_000)
        os.write(1, b"more noise\n")
    return f"{name} done"


def outcomes(names: list[str], folder: Path, **how: float) -> dict[str, Ended]:
    jobs = [(name, str(folder)) for name in names]
    return {ended.job[0]: ended for ended in each_in_processes(work, jobs, count=2, **how)}


def test_every_job_ends_and_each_is_told_its_own_end(tmp_path: Path) -> None:
    names = ["a", "crash", "b", "raise", "print", "exit", "crash once", "c"]
    found = outcomes(names, tmp_path)
    assert {name for name, ended in found.items() if ended.why is None} == {"a", "b", "c", "print", "crash once"}
    assert all(found[name].answer == f"{name} done" for name in ("a", "b", "c", "print", "crash once"))
    crash = "its process died (SIGSEGV: a crash in the file's decoder), twice: copy or export its file anew"
    assert found["crash"].why.startswith(crash)
    assert found["raise"].why == "unexpected RuntimeError: of its own"
    assert found["exit"].why == "unexpected SystemExit: 7"


@pytest.mark.parametrize("name", ["hang", "stuck"])
def test_what_never_ends_is_ended_and_the_others_go_on(tmp_path: Path, name: str) -> None:
    found = outcomes([name, "a", "b", "c"], tmp_path, limit=3.0)
    assert (
        found[name].why
        == "it took longer than 3 s, the limit for one slide, and was ended: give it longer with --limit"
    )
    assert all(found[other].why is None for other in "abc")
    assert not [child for child in psutil.Process().children() if "pipeline.run.process" in " ".join(child.cmdline())]


def test_the_limit_is_not_of_the_start_of_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else no slide would ever be done on a machine that is so busy that a process takes longer to start."""
    (tmp_path / "slow_to_import.py").write_text(
        "import os, time\ntime.sleep(1.5 * ('SLOW' in os.environ))\ndef work(name): return name\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    task = importlib.import_module("slow_to_import").work
    monkeypatch.setenv("SLOW", "1")
    (ended,) = each_in_processes(task, [("a",)], count=1, limit=1.0)
    assert (ended.answer, ended.why) == ("a", None)


def test_the_limit_follows_what_is_typical() -> None:
    limit = Limit(None)
    assert limit.seconds == FIRST_SECONDS
    for seconds in (1.0, 2.0, 3.0):
        limit.told(seconds)
    assert limit.seconds == SURE_SECONDS
    for _ in range(4):
        limit.told(100.0)
    assert limit.seconds == 2000.0
    assert Limit(5.0).seconds == 5.0


def test_once_stopped_what_is_in_flight_is_finished_and_no_more_is_begun(tmp_path: Path) -> None:
    stop = threading.Event()
    found = []
    for ended in each_in_processes(work, [(f"slow {i}", "") for i in range(50)], count=1, stop=stop):
        found.append(ended)
        stop.set()
    assert 1 <= len(found) <= 3
    assert all(ended.why is None for ended in found)


def test_processes_end_with_their_parent(tmp_path: Path) -> None:
    """Killed outright while a job hangs: nothing of it is left."""
    script = textwrap.dedent("""
        import sys
        from test_pool import work
        from pipeline.run.pool import each_in_processes
        for _ in each_in_processes(work, [("a", ""), ("hang", "")], count=1):
            print("going", flush=True)
    """)
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), str(Path(__file__).parent)])
    parent = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"going\n"
    (child,) = psutil.Process(parent.pid).children()
    parent.kill()
    parent.wait()
    parent.stdout.close()
    child.wait(timeout=30)


def test_a_script_without_a_guard_and_a_folder_of_our_name_hinder_nothing(tmp_path: Path) -> None:
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "__init__.py").write_text("raise SystemExit('the wrong one')")
    script = tmp_path / "script.py"
    script.write_text(
        f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(Path(__file__).parent)!r}, {str(ROOT / 'tests')!r}]\n"
        "from test_pool import work\nfrom pipeline.run.pool import each_in_processes\n"
        "print([ended.answer for ended in each_in_processes(work, [('a', '')], count=1)])\n"
    )
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.stdout == "['a done']\n", done.stderr


def listening(_: str) -> set[tuple[str, int]]:
    """Where this process and the one that started it listen."""
    both = (psutil.Process(), psutil.Process(os.getppid()))
    return {tuple(c.laddr) for one in both for c in one.net_connections("inet") if c.status == psutil.CONN_LISTEN}


def test_worker_processes_listen_nowhere() -> None:
    """Nor does what starts them begin to."""
    ours = listening("")
    (ended,) = each_in_processes(listening, [("",)], count=1)
    assert ended.answer <= ours

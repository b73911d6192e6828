"""The recipes in configs/clusters: each starts real workers, where the batch system is a stand-in that runs jobs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from distributed.cli.dask_scheduler import main as scheduler_command
from distributed.cli.dask_worker import main as worker_command
from jobs import work
from makers import ROOT

from pipeline.cohort.table import CohortSlide
from pipeline.errors import UsageError
from pipeline.run.workers import each

RECIPES = ROOT / "configs" / "clusters"

# a job's script is copied, as who submits it removes it; each is a process group of its own, whose number is the job's;
# srun starts two tasks
STAND_INS = {
    "sbatch": 'cp "$1" job.$$; setsid bash job.$$ >>jobs.log 2>&1 & echo "Submitted batch job $!"',
    "qsub": 'cp "$1" job.$$; setsid bash job.$$ >>jobs.log 2>&1 & echo "$!.server"',
    "scancel": 'echo "scancel $1" >>cancelled; kill -- "-$1"',
    "qdel": 'echo "qdel $1" >>cancelled; kill -- "-${1%.server}"',
    "srun": 'shift; trap "kill \\$(jobs -p)" TERM; "$@" & "$@" & wait; wait',
    "dask": f'exec {sys.executable} -m dask "$@"',
    "saccade": f'exec {sys.executable} -m saccade "$@"',
}


@pytest.fixture
def site(tmp_path: Path) -> dict[str, Any]:
    """How a command is started in a folder where a batch system's commands are found."""
    for name, line in STAND_INS.items():
        command = tmp_path / "bin" / name
        command.parent.mkdir(exist_ok=True)
        command.write_text(f"#!/bin/bash\n{line}\n")
        command.chmod(0o755)
    paths = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return {"cwd": tmp_path, "env": {**os.environ, "PATH": path, "PYTHONPATH": paths}}


def documents() -> Iterator[dict[str, Any]]:
    yield from yaml.safe_load_all((RECIPES / "kubernetes.yaml").read_text())


@pytest.mark.slow
@pytest.mark.parametrize(("system", "cancel"), [("slurm", "scancel"), ("pbs", "qdel")])
def test_jobs_of_a_queue_become_workers_and_end_with_the_recipe(
    system: str, cancel: str, site: dict[str, Any], tmp_path: Path
) -> None:
    """A worker that is lost is started anew."""
    pytest.importorskip("dask_jobqueue")
    command = [sys.executable, RECIPES / "jobqueue.py", system, "--memory", "1GiB", "--interface", "lo", "--gpu"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **site) as cluster:
        assert cluster.stdout is not None
        assert cluster.stdout.readline().startswith("saccade run ... --scheduler scheduler.json ")
        names = (f"{tmp_path}/end worker once", "a")
        jobs = [(CohortSlide(slide_id=name, path=Path(name), patient=name),) for name in names]
        file = str(tmp_path / "scheduler.json")
        try:
            rows = [row for _, row in each(work, jobs, workers=0, scheduler=file, wait=90.0, device="cuda")]
        finally:
            cluster.send_signal(signal.SIGINT)
        assert cluster.wait(30) == 0
    assert [row["status"] for row in rows] == ["ok"] * 2
    assert (tmp_path / "ended").exists()
    assert (tmp_path / "cancelled").read_text().startswith(cancel)
    assert not Path(file).exists()


@pytest.mark.slow
def test_a_run_is_one_job_of_slurm(site: dict[str, Any], slides_folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    site["env"]["SLURM_JOB_ID"] = "7"
    command = ["bash", RECIPES / "slurm.sh", slides_folder, "--model", checkpoint, "--out", "out"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, **site)
    assert done.returncode == 0, done.stderr
    count = len(list(slides_folder.iterdir()))
    assert f"{count} of {count} slides predicted" in done.stdout + done.stderr
    assert not (tmp_path / ".scheduler-7.json").exists()


def test_what_kubernetes_starts_are_commands_of_dask_and_saccade() -> None:
    commands = []
    for document in documents():
        spec = document["spec"]
        kinds = [spec["template"]] if document["kind"] == "Job" else [spec.get("scheduler"), spec["worker"]]
        containers = [c for kind in kinds if kind for c in kind["spec"]["containers"]]
        commands += [container.get("command", []) + container["args"] for container in containers]
    starts = [command[:2] for command in commands]
    assert starts == [["dask", "scheduler"], *[["dask", "worker"]] * 2, ["saccade", "run"]]
    scheduler_command.make_context("dask scheduler", commands[0][2:])
    for command in commands[1:3]:
        worker_command.make_context("dask worker", ["tcp://given.by.the.operator:8786", *command[2:]])
    done = subprocess.run([sys.executable, "-m", "saccade", *commands[3][1:]], capture_output=True, text=True)
    assert "No such option" not in done.stderr


def test_what_kubernetes_starts_is_found_by_its_names() -> None:
    cluster, group, job = documents()
    name = cluster["metadata"]["name"]
    assert group["spec"]["cluster"] == name
    service = cluster["spec"]["scheduler"]["service"]
    assert service["selector"] == {"dask.org/cluster-name": name, "dask.org/component": "scheduler"}
    ports = {port["name"] for port in cluster["spec"]["scheduler"]["spec"]["containers"][0]["ports"]}
    assert {port["targetPort"] for port in service["ports"]} == ports
    assert f"tcp://{name}-scheduler:8786" in job["spec"]["template"]["spec"]["containers"][0]["args"]


@pytest.mark.slow
def test_a_scheduler_is_reached_with_the_certificates_that_dask_is_configured_for(tmp_path: Path) -> None:
    """As docs/clusters.md has it; without them, it is one line."""
    text = (ROOT / "docs" / "clusters.md").read_text(encoding="utf-8")
    make = text.partition("```sh\nopenssl")[2].partition("```")[0]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "HOME": str(tmp_path)}
    script = "set -e\nopenssl" + make
    if shutil.which("openssl") is None:
        pytest.skip("no openssl")
    subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, check=True, capture_output=True)
    code = f"""
import sys
from pathlib import Path
from dasks import scheduler_in, worker
from pipeline.cohort.table import CohortSlide
from pipeline.run.workers import each
from jobs import work
folder = Path({str(tmp_path)!r})
with scheduler_in(folder, 0, "--protocol", "tls") as address, worker(address, folder):
    print(address, flush=True)
    for _, row in each(work, [(CohortSlide(slide_id="a", path=Path("a"), patient="a"),)], workers=0, scheduler=address):
        print(row["status"], flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as run:
        assert run.stdout is not None
        assert run.stdin is not None
        address = run.stdout.readline().strip()
        assert address.startswith("tls://")
        assert run.stdout.readline() == "ok\n"
        for wrong in (address, address.replace("tls://", "tcp://")):
            with pytest.raises(UsageError, match=r"^[^\n]*no dask scheduler[^\n]*$"):
                list(each(work, [("a",)], workers=0, scheduler=wrong))
        run.stdin.close()

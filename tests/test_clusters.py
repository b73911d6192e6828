"""The recipes in configs/clusters: each starts real workers, where the batch system is a stand-in that runs jobs."""

from __future__ import annotations

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from distributed.cli.dask_scheduler import main as scheduler_command
from distributed.cli.dask_worker import main as worker_command
from jobs import work
from makers import ROOT, tissue_pixels, write_slide
from typer.main import get_command

from pipeline.cli.assembly import app
from pipeline.cohort.cohort import CohortSlide
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


@pytest.fixture
def broken_and_whole(slides_folder: Path, tmp_path: Path) -> Path:
    """A table of three slides that can be read, and of one that cannot: its folder."""
    (tmp_path / "broken.tif").write_bytes(b"II*\0 no pages")
    slides = [tmp_path / "broken.tif", *sorted(slides_folder.iterdir())]
    (tmp_path / "cohort.csv").write_text("\n".join(("slide", *map(str, slides))))
    return tmp_path


def mend(folder: Path) -> None:
    write_slide(folder / "broken.tif", tissue_pixels(900, 800))


def statuses(out: Path) -> dict[str, str]:
    with (out / "predictions.csv").open(newline="") as file:
        return {row["slide_id"]: row["status"] for row in csv.DictReader(file)}


@pytest.mark.slow
def test_tasks_of_an_array_share_the_slides(site: dict[str, Any], broken_and_whole: Path, checkpoint: Path) -> None:
    """Each slide is done by one of them, whichever ends last has the whole table, and a failure is none's alone."""
    command = ["bash", RECIPES / "slurm-array.sh", "cohort.csv", "--model", checkpoint, "--out", "out"]
    site["env"] |= {"SLURM_CPUS_PER_TASK": "1", "SLURM_MEM_PER_CPU": "4096"}

    def array() -> list[int]:
        tasks = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **site) for _ in "12"]
        return [task.wait(300) for task in tasks]

    assert array() == [1, 1]
    assert statuses(site["cwd"] / "out") == {"broken": "failed", "even": "ok", "odd": "ok", "plain": "ok"}
    log = (site["cwd"] / "out" / "run.log").read_text()
    for name in ("even", "odd", "plain"):
        done = [line for line in log.splitlines() if f"] {name}: " in line]
        assert sum("done earlier" not in line for line in done) == 1, done
    mend(broken_and_whole)
    assert array() == [0, 0]
    assert set(statuses(site["cwd"] / "out").values()) == {"ok"}


@pytest.mark.slow
def test_a_workflow_of_snakemake_ends_with_the_run_s_code_and_goes_on(
    site: dict[str, Any], broken_and_whole: Path, checkpoint: Path
) -> None:
    snakemake = shutil.which("snakemake")
    if snakemake is None:
        pytest.skip("no snakemake")
    told = ("slides=cohort.csv", f"model={checkpoint}", "out=out", "parts=2")

    def flow(*what: str) -> subprocess.CompletedProcess[str]:
        # in an environment of its own it must not find this one's packages: the stand-in for `saccade` has its Python
        command = [snakemake, "-s", RECIPES / "Snakefile", "--cores", "2", *what]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, **site)

    failed = flow("--config", *told)
    assert failed.returncode == 1
    assert "2 of 4 steps" in failed.stderr  # both parts went on
    assert statuses(site["cwd"] / "out")["broken"] == "failed"
    mend(broken_and_whole)
    done = flow("--config", *told)
    assert done.returncode == 0, done.stderr
    assert "4 of 4 slides predicted (3 already done), 0 failed" in done.stdout + done.stderr
    assert "Nothing to be done" in flow("--config", *told).stderr
    cached = flow("saccade_cache", "--config", "slides=cohort.csv", "out=pyramids")
    assert cached.returncode == 0, cached.stderr
    assert len(list((site["cwd"] / "pyramids").glob("*.ome.zarr"))) == 4


@pytest.mark.parametrize("recipe", ["Snakefile", "saccade.nf"])
def test_workflows_go_on_after_a_slide_that_failed_and_end_with_its_code(recipe: str) -> None:
    """Of the commands that they start, each has options that Saccade has, and all but the last code of 1 goes on."""
    commands = re.findall(r"^ *\"?(saccade (run|cache) [^\n]*?)\"?$", (RECIPES / recipe).read_text(), re.MULTILINE)
    onwards = [command.partition(" || ")[2].replace("\\", "") for command, _ in commands]
    assert [(name, code) for (_, name), code in zip(commands, onwards, strict=True)] == [
        ("run", "[ $? -eq 1 ]"),
        ("run", ""),
        ("cache", ""),
    ]
    known = get_command(app).commands  # type: ignore[attr-defined]
    for command, name in commands:
        options = set(re.findall(r" (--[a-z-]+)", command))
        assert options <= {option for param in known[name].params for option in param.opts}
    for code, expected in ((0, 0), (1, 0), (2, 1), (3, 1), (143, 1)):
        line = f"(exit {code}) || [ $? -eq 1 ]"
        assert subprocess.run(["bash", "-euo", "pipefail", "-c", line]).returncode == expected


@pytest.mark.parametrize(
    ("name", "torch"), [("environment.yml", "pytorch-cpu"), ("environment-cuda.yml", "pytorch-gpu")]
)
def test_a_conda_environment_has_the_ranges_of_the_package(name: str, torch: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = next(one.removeprefix("torch") for one in project["dependencies"] if re.match(r"torch\W", one))
    least = project["requires-python"]
    newest = max(int(one.rpartition(".")[2]) for one in project["classifiers"] if ":: Python :: 3." in one)
    environment = yaml.safe_load((RECIPES / name).read_text())
    assert environment["channels"][0] == "conda-forge"
    assert environment["dependencies"] == [f"python{least},<3.{newest + 1}", "pip>=24", f"{torch}{pinned}"]


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
from pipeline.cli.assembly import app
from pipeline.cohort.cohort import CohortSlide
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

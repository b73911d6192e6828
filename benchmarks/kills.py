"""Whether what is killed ends as if it had not been: commands killed at seeded moments and run again to their end.

    python benchmarks/kills.py [--tries 100] [--seed 0] [--what run cache train] [--minutes M]     15 s a try

A small cohort; of each command's tries every other one has its temporary folder on a file system of its own (tmpfs:
mounted where this process may, else /dev/shm). A try is the real command, killed with SIGKILL either some time after it
began, evenly over as long as the undisturbed command took, or right before or after one of its renames, which a hook
counts; one time in two with its workers; killed again in the rerun one time in four; and then run to its end. It is
"identical" where all files of the output are those of a command that nothing befell, byte for byte but for times and
how many slides were done before, there are no others, and the temporary folder is empty. What differs is printed. Ends
with one JSON line: of each command and layout, how many tries were identical, and of how many.

With --forks the commands are copies of this process that has imported everything, and work without workers: four times
as many tries in the same time, each of them past its imports.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import h5py

from benchmarks.places import ROOT

sys.path.insert(0, str(ROOT / "tests"))
from makers import striped_cohort

COMMANDS = ("run", "cache", "train")
TIMES = re.compile(
    r"seconds|time|date|started|ended|written|finished|command|host|created|peak|memory|reused", re.IGNORECASE
)
"""Names of values that are other in each run."""

HOOKED = """
import os, signal, sys

def killing(rename, when=int(sys.argv.pop(1)), count=[0]):
    def hooked(*args, **options):
        count[0] += 1
        if count[0] == abs(when) and when < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        rename(*args, **options)
        if count[0] == abs(when):
            os.kill(os.getpid(), signal.SIGKILL)
    return hooked

counts = [0]
os.replace, os.rename = killing(os.replace, count=counts), killing(os.rename, count=counts)
from pipeline.cli import main
try:
    main()
finally:
    print("renames", counts[0], file=sys.stderr)
"""
"""The command, killed before (negative) or after one of its renames; says how many there were."""


class Forked:
    """A command in a copy of this process, as `subprocess.Popen` has others."""

    def __init__(self, arguments: list[str], env: dict[str, str], said: Path) -> None:
        for module in (
            *("cli.entry", "commands.runs", "commands.training", "commands.pyramids"),
            *("train.train", "train.fit", "run.run", "report.report", "cache"),
        ):
            importlib.import_module(f"pipeline.{module}")  # once, before there are copies
        self.pid = os.fork()
        if not self.pid:
            os.setsid()
            handle = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(handle, 1)
            os.dup2(handle, 2)
            os.environ.update(env)
            tempfile.tempdir = None
            sys.argv = ["saccade", *arguments]
            try:
                exec(HOOKED, {})
            except SystemExit as ended:
                sys.stderr.flush()
                os._exit(int(ended.code or 0))
            os._exit(9)

    def wait(self, timeout: float | None = None) -> int:
        end = time.monotonic() + (1e9 if timeout is None else timeout)
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired("saccade", 0)
            time.sleep(0.002)


class Workshop:
    """A cohort, a model of it, and the folders that commands work in."""

    def __init__(self, folder: Path, other: Path, *, forks: bool) -> None:
        self.forks, self.folder, self.out = forks, folder, folder / "out"
        self.temporary = {"one": folder / "tmp", "two": other / "tmp"}
        for path in self.temporary.values():
            path.mkdir()
        striped_cohort(folder / "cohort", train=6, test=2)
        (folder / "cohort" / "config.yaml").write_text(
            "cohort: {table: cohort.csv}\nattention: {kind: learned}\nencoder: {name: small, dim: 16}\n"
            "view: {attention_mpp: 8, patch_px: 32}\nsampling: {samples: 8}\n"
            "training: {epochs: 3, batch_size: 4, device: cpu, calibration_slides: 2}\n"
        )
        self.start("train", "one").wait()
        self.out.rename(folder / "model")

    def start(self, what: str, layout: str, *, rename: int = 0) -> subprocess.Popen[bytes] | Forked:
        cohort = self.folder / "cohort"
        given: dict[str, list[Any]] = {
            "train": [cohort / "config.yaml"],
            "cache": [cohort / "cohort.csv"],
            "run": [cohort / "cohort.csv", "--model", self.folder / "model"],
        }
        command = [sys.executable, "-c", HOOKED, rename, what, *given[what], "--out", self.out]
        env = os.environ | {
            "TMPDIR": str(self.temporary[layout]),
            "SACCADE_CACHE": str(self.folder / "kept"),
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
        }
        told = [str(part) for part in command]
        if self.forks:
            workers = [] if what == "train" else ["--workers", "0"]
            return Forked([*told[3:], *workers], env, self.folder / "said")
        with (self.folder / "said").open("w") as said:
            return subprocess.Popen(told, stdout=said, stderr=said, env=env, start_new_session=True)

    def to_the_end(self, what: str, layout: str) -> tuple[int, float]:
        """Renames and seconds of a command that nothing befalls; 0 renames where it failed."""
        started = time.perf_counter()
        process = self.start(what, layout)
        code, said = process.wait(), (self.folder / "said").read_text()
        if code:
            print(f"  exit code {code}: {said.strip()[-2000:]}")
            return 0, 0.0
        return int(re.findall(r"renames (\d+)", said)[-1]), time.perf_counter() - started

    def killed(self, what: str, layout: str, *, seconds: float | None, rename: int, group: bool) -> None:
        process = self.start(what, layout, rename=rename)
        try:
            process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            if group:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                os.kill(process.pid, signal.SIGKILL)
            process.wait()

    def take(self) -> dict[str, Any]:
        """What lies in the output, which is taken away."""
        found = {
            str(path.relative_to(self.out)): content(path)
            for path in sorted(self.out.rglob("*"))
            if path.is_file() or not any(path.iterdir())
        }
        shutil.rmtree(self.out)
        return found

    def litter(self) -> dict[str, Any]:
        """What lies in the temporary folders, which is taken away."""
        found = [path for place in self.temporary.values() for path in place.iterdir()]
        found = [path for path in found if not path.name.startswith("torchinductor_")]  # torch's cache, one a user
        for path in found:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return {f"temporary: {path.name}": "left" for path in found}


def content(path: Path) -> Any:
    """A file's, but for times."""
    if path.is_dir():
        return "an empty folder"
    if path.suffix == ".log":
        return "a log"  # tells of the kills
    if path.suffix == ".h5":
        with h5py.File(path) as bag:
            return {name: bag[name][:].tobytes() for name in bag}
    data = path.read_bytes()
    if path.suffix == ".json":
        return timeless(json.loads(data))
    if path.suffix == ".csv":
        return timeless(list(csv.DictReader(io.StringIO(data.decode()))))
    if path.suffix == ".html":
        return re.sub(rb"[\d.]+( reused)?", b"", data)  # its numbers are in run.json, too
    return data


def timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: timeless(one) for name, one in value.items() if not TIMES.search(str(name))}
    return [timeless(one) for one in value] if isinstance(value, list) else value


def unlike(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """What differs, by its names."""
    names = sorted(found.keys() | wanted.keys())
    kinds = [(name, "missing" if name not in found else "more" if name not in wanted else "other") for name in names]
    return [f"{kind}: {name}" for name, kind in kinds if kind != "other" or found[name] != wanted[name]]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--tries", type=int, default=100)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--what", nargs="+", choices=COMMANDS, default=COMMANDS)
    arguments.add_argument("--minutes", type=float, default=1e9, help="start no further try after so long")
    arguments.add_argument("--forks", action="store_true", help="see above")
    told = arguments.parse_args()
    end = time.monotonic() + 60 * told.minutes
    folder, other = Path(tempfile.mkdtemp(prefix="kills-")), Path(tempfile.mkdtemp(prefix="kills-tmpfs-"))
    mounted = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", other], capture_output=True).returncode == 0
    if not mounted:
        other.rmdir()
        other = Path(tempfile.mkdtemp(prefix="kills-", dir="/dev/shm"))
    try:
        print(json.dumps(measure(Workshop(folder, other, forks=told.forks), told.what, told.tries, told.seed, end)))
    finally:
        if mounted:
            subprocess.run(["umount", other], check=True)
        shutil.rmtree(other)
        shutil.rmtree(folder)


def measure(shop: Workshop, what: list[str], tries: int, seed: int, end: float) -> dict[str, Any]:
    wanted, lasts = {}, {}
    for name in what:
        lasts[name] = shop.to_the_end(name, "one")
        wanted[name] = shop.take() | shop.litter()
        shop.to_the_end(name, "one")
        print(f"{name}: {lasts[name][0]} renames, {lasts[name][1]:.1f} s, {len(wanted[name])} files", flush=True)
        varying = unlike(shop.take() | shop.litter(), wanted[name])
        if varying:
            raise SystemExit(f"{name}: also without a kill it differs: {varying}")
    identical: Counter[str] = Counter()
    of: Counter[str] = Counter()
    for number in range(tries):
        if time.monotonic() > end:
            break
        rng = random.Random(f"{seed} {number}")
        name, layout = what[number % len(what)], ("one", "two")[number // len(what) % 2]
        renames, seconds = lasts[name]
        kills = []
        for _ in range(2 if rng.random() < 0.25 else 1):
            at = rng.choice((-1, 1)) * rng.randint(1, renames) if renames and rng.random() < 0.5 else 0
            kills.append(
                {"seconds": None if at else rng.uniform(0, seconds), "rename": at, "group": rng.random() < 0.5}
            )
            shop.killed(name, layout, **kills[-1])  # type: ignore[arg-type]
        shop.to_the_end(name, layout)
        wrong = unlike((shop.take() if shop.out.exists() else {}) | shop.litter(), wanted[name])
        key = f"{name}, {layout} file system{'s' * (layout == 'two')}"
        of[key] += 1
        identical[key] += not wrong
        if wrong:
            print(f"try {number}, {key}, killed at {kills}: {wrong[:8]}", flush=True)
    rows = {key: f"{identical[key]} of {of[key]}" for key in sorted(of)}
    return {"seed": seed, "identical": identical.total(), "tries": of.total(), **rows}


if __name__ == "__main__":
    main()

"""A rerun over finished slides: the whole command, this checkout against an earlier one, in turns.

    python benchmarks/rerun.py [--slides 10000] [--rounds 3] [--against CHECKOUT] [--profile]      a minute, with 10 000

CHECKOUT is a folder with another version of this repository (`git worktree add CHECKOUT 6ee006e`); both run on this
Python. Slides are hard links to one small slide, and one of them is really run, by the checkout that is measured. Its
folder of results is then each slide's: files as hard links, folders as symbolic ones, and a commit mark of its own,
which differs from that of a real run of that slide in nothing, for a slide's name is no part of it but in its path.
What is measured is `saccade run` over all of them, wall and processor seconds of it and its workers; that every slide
counts as done earlier, and is in the table, is checked. What a rerun costs where each slide has a file of its own, on a
disk that has to seek for it, is not shown. Ends with one JSON line.

With --profile: what this checkout's main process spends its time on, once.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from statistics import median

from benchmarks.places import ROOT

MADE = ROOT / "tests" / "cases" / "made-by-6ee006e.zip"
"""Holds a slide, and a model that every version reads."""
COMMIT = "prediction.json"
COMMAND = "import sys; from pipeline.cli import main; main()"


def call(checkout: Path, *arguments: object, profile: bool = False, code: int = 0) -> tuple[str, float, float]:
    """What the command says, which ends with an exit code; wall and processor seconds."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "COLUMNS": "100"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # where it is set, every command would compile all of its code
    python = [sys.executable, "-W", "ignore", *(["-m", "cProfile", "-s", "cumulative"] if profile else [])]
    with tempfile.NamedTemporaryFile("w", suffix=".py") as script:
        script.write(COMMAND)
        script.flush()
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        command = [*python, script.name, *map(str, arguments)]
        done = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, check=False)
        wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != code:
        raise SystemExit(done.stderr[-2000:])
    return done.stdout, wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def finish(checkout: Path, folder: Path, model: Path, count: int) -> list[object]:
    """Make so many slides, finished; the arguments of the command that made them."""
    slides, out = folder / "slides", folder / "out"
    arguments = ["--model", model, "--out", out]
    names = sorted(path.stem for path in slides.iterdir())
    call(checkout, "run", slides / f"{names[0]}.tif", *arguments)
    first = out / "slides" / names[0]
    mark = json.loads((first / COMMIT).read_text())
    for name in names[1:count]:
        other = first.with_name(name)
        other.mkdir()
        for entry in first.iterdir():
            if entry.is_dir():
                (other / entry.name).symlink_to(entry)
            elif entry.name != COMMIT:
                os.link(entry, other / entry.name)
        (other / COMMIT).write_text(json.dumps({**mark, "path": str(slides / f"{name}.tif")}, indent=2))
    return ["run", slides, *arguments]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slides", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    checkouts = {"here": ROOT, **({"there": options.against} if options.against else {})}
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in checkouts}
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        with zipfile.ZipFile(MADE) as archive:
            archive.extractall(place / "made")
        model = place / "made" / "one-level.safetensors"
        commands = {}
        for name, checkout in checkouts.items():
            slides = place / name / "slides"
            slides.mkdir(parents=True)
            (slides / "s00000.tif").write_bytes((place / "made" / "slides" / "a.tif").read_bytes())
            for i in range(1, options.slides):  # before anything is run: a link more changes a file's state
                os.link(slides / "s00000.tif", slides / f"s{i:05d}.tif")
            commands[name] = finish(checkout, place / name, model, options.slides)
        if options.profile:
            said = call(ROOT, *commands["here"], profile=True)[0]
            print(said[said.index("function calls") :][:9000])
        for _ in range(options.rounds):
            for name, checkout in checkouts.items():
                said, *seconds = call(checkout, *commands[name])
                if f"({options.slides} already done)" not in said:
                    raise SystemExit(f"{name}: not all slides count as done: {said[-500:]}")
                with (place / name / "out" / "predictions.csv").open(newline="") as file:
                    assert sum(row["status"] == "ok" for row in csv.DictReader(file)) == options.slides
                measured[name].append((seconds[0], seconds[1]))
                print(f"{name}: {seconds[0]:.1f} s, {seconds[1]:.1f} s of processors", file=sys.stderr)
    told: dict[str, object] = {"slides": options.slides}
    for name, seconds in measured.items():
        wall, processors = zip(*seconds, strict=True)
        told |= {f"{name}_wall_s": round(median(wall), 1), f"{name}_cpu_s": round(median(processors), 1)}
    if options.against and options.rounds:
        pairs = zip(measured["here"], measured["there"], strict=True)
        told["wall_ratio"] = round(median(here[0] / there[0] for here, there in pairs), 3)
    print(json.dumps(told))


if __name__ == "__main__":
    main()

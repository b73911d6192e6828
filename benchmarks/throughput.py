"""Slides a minute of `saccade run` over the demo's slides, as it is by default: this checkout against an earlier one.

    python benchmarks/throughput.py [--slides 64] [--rounds 3] [--against CHECKOUT] [--workers N ...]      five minutes

CHECKOUT is a folder with another version of this repository (`git worktree add CHECKOUT 6ee006e`), which works in its
own default way: at 6ee006e, one slide after the other in one process. Both run the same small trained model, which
every version reads, with the demo's number of patches, over the same files, into a new folder, in turns, as whole
commands with their start. What is given is slides over wall seconds, processor seconds of the command and its workers,
and per pair of a round the ratio of the first; with --workers also each of these counts, against the other checkout's
default. Run it on a quiet machine. Ends with one JSON line.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import zipfile
from pathlib import Path
from statistics import median

from benchmarks.places import ROOT
from benchmarks.rerun import MADE, call
from pipeline.demo.cohort import make_cohort

SAMPLES = 24


def main() -> None:
    """Do what the command line asks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slides", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--against", type=Path, metavar="CHECKOUT")
    parser.add_argument("--workers", nargs="*", default=[], help="of this checkout, besides its default")
    parser.add_argument("--model", type=Path, help="of this checkout alone; else one that every version reads")
    options = parser.parse_args()
    measured: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        make_cohort(place / "cohort", slides=options.slides)
        with zipfile.ZipFile(MADE) as archive:
            archive.extract("one-level.safetensors", place)
        model = options.model or place / "one-level.safetensors"
        ways: dict[str, tuple[Path, list[str]]] = {"here": (ROOT, [])}
        ways |= {f"here, {count} workers": (ROOT, ["--workers", count]) for count in options.workers}
        if options.against:
            ways["there"] = (options.against, [])
        for turn in range(options.rounds):
            for name, (checkout, extra) in ways.items():
                out = place / f"out-{name}-{turn}"
                command = ["run", place / "cohort" / "slides", "--model", model, "--samples", SAMPLES, "--out", out]
                _, wall, processors = call(checkout, *command, *extra)
                done = len(list(out.glob("slides/*/prediction.json")))
                if done != options.slides:
                    raise SystemExit(f"{name}: {done} of {options.slides} slides")
                measured.setdefault(name, []).append((wall, processors))
                print(
                    f"{name}: {60 * done / wall:.0f} slides a minute, {processors:.1f} s of processors", file=sys.stderr
                )
    told: dict[str, object] = {"slides": options.slides}
    for name, seconds in measured.items():
        one: dict[str, float] = {
            "slides_a_minute": round(60 * options.slides / median(wall for wall, _ in seconds), 1),
            "cpu_s": round(median(processors for _, processors in seconds), 1),
        }
        if options.against and name != "there":
            pairs = zip(seconds, measured["there"], strict=True)
            one["ratio"] = round(median(there[0] / here[0] for here, there in pairs), 2)
        told[name] = one
    print(json.dumps(told))


if __name__ == "__main__":
    main()

"""What a run makes of damaged slides: whether each has its row, a true reason or true pixels.

    python benchmarks/faults.py [--count 450] [--seed 0] [--keep FOLDER]      two minutes of a processor

Small valid slides of every format at hand (see harm.py), each copied and damaged once, formats and kinds of damage in
turns and places by the seed; then one `saccade run` over all of them, on two workers and with a time limit, by a model
that reads every patch. What is counted:
- crashes (its process died), hangs (it met the limit), and slides without a row;
- unforeseen: errors that name a type of exception, or tell of a traceback, as we do where we did not think of it;
- without remedy: reasons that say nothing of what to do;
- grossly wrong: slides that are `ok` without a warning that the intact one has not (of how tissue looks aside), where a
  patch that was read, of a tile's size, or as much of the thumbnail is off the intact slide's at the same place by more
  than 20 grey levels in the mean; "wrong" by more than 10.
Ends with one JSON line. With --keep the slides and what was written stay, and `faults.csv` says what came of each.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from benchmarks.harm import TILE, copy_slide, damage, kinds_of, make_slides
from benchmarks.places import ROOT
from pipeline.model.checkpoint import save_model
from pipeline.model.sampler import AttentionSampler
from pipeline.model.spec import ModelSpec
from stages.geometry import Raster
from stages.pyramid.open import open_pyramid
from stages.slide.facts import SlideError
from stages.slide.protocol import Slide
from stages.slide.render import render_many
from stages.tissue.thumbnail import read_thumbnail

LIMIT = 300
"""Seconds for one slide."""
GROSS, SLIGHT = 20.0, 10.0
"""Grey levels of mean absolute difference over a tile: what makes another picture of it, where compressing it hard
takes some 4; and what is counted beside that."""
MPP, THUMBNAIL_MPP = 0.5, 4.0
FOUND = ("true", "slightly wrong", "wrong, told", "wrong", "grossly wrong")
"""What may come of a slide that is `ok`."""
REMEDY = re.compile(
    r"\b(copy|write|convert|export|give|name|restore|scan|make|download|unpack|fetch|save|use|start|check|delete|gather|"
    r"install|lower|raise|try)\b"
)
"""Words that say what to do."""
UNFORESEEN = re.compile(r"unexpected|Traceback|internal error|Error\(|Exception\(")


def make_model(path: Path) -> Path:
    """One that reads patches as large as tiles, by an attention that is all alike."""
    spec = ModelSpec(
        classes=("normal", "tumour"),
        attention_mpp=THUMBNAIL_MPP,
        patch_mpp=MPP,
        patch_px=TILE,
        attention="learned",
        encoder="small",
        dim=8,
        scheme="systematic",
        samples=24,
    )
    save_model(AttentionSampler(spec), path)
    return path


def make_damaged(folder: Path, count: int, seed: int) -> list[dict[str, str]]:
    """Damaged slides in a folder: of each its name, format, kind of damage and what was done, where it lies."""
    folder.mkdir()
    slides, rows, turns = make_slides(folder / "intact"), [], Counter[str]()
    for number in range(count):
        form = list(slides)[number % len(slides)]
        kinds = kinds_of(slides[form])
        rng, name = np.random.default_rng((seed, number)), f"{number:03} {form}"
        path = copy_slide(slides[form], folder / name)
        done = ""
        while not done:
            kind = kinds[turns[form] % len(kinds)]
            turns[form] += 1
            done = damage(path, kind, rng)
        rows.append({"slide_id": name, "slide": str(path), "format": form, "kind": kind, "done": done})
    with (folder / "slides.csv").open("w") as file:
        writer = csv.DictWriter(file, ["slide_id", "slide"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows([*rows, *({"slide_id": form, "slide": str(path)} for form, path in slides.items())])
    return rows


def run(folder: Path, out: Path) -> tuple[int, str, float]:
    """Exit code of a run over the slides, what it said, and the seconds of a processor that it took."""
    model = make_model(folder / "model.safetensors")
    command = [sys.executable, "-m", "pipeline.cli", "run", folder / "slides.csv", "--model", model, "--out", out]
    command += ["--workers", "2", "--limit", str(LIMIT)]
    env = os.environ | {"OMP_NUM_THREADS": "1", "SACCADE_CACHE": str(folder / "kept"), "PYTHONPATH": str(ROOT)}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=env, cwd=folder)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done.returncode, done.stdout + done.stderr, spent


def most_off(slide: Path, intact: Path, bag: Path) -> float:
    """Of the patches that were read, and as large squares of the thumbnail: the greatest mean absolute difference."""
    theirs, ours = open_pyramid(slide), open_pyramid(intact)
    with h5py.File(bag) as file:
        corners, shape = file["coords"][:], file["coords"].attrs
        mpp = np.broadcast_to(shape["mpp_level0"], 2)
    patches = [_patches(one, corners * (mpp / MPP)) for one in (theirs, ours)]
    off = np.abs(patches[0] - patches[1]).mean((1, 2, 3)).max() if patches[0].shape == patches[1].shape else 255.0
    looks = [read_thumbnail(one, THUMBNAIL_MPP).rgb.astype(float) for one in (theirs, ours)]
    if looks[0].shape != looks[1].shape:
        return 255.0
    side = round(TILE * MPP / THUMBNAIL_MPP)
    rows, columns = (n // side for n in looks[0].shape[:2])
    change = np.abs(looks[0] - looks[1])[: rows * side, : columns * side].reshape(rows, side, columns, side, 3)
    return float(max(off, change.mean((1, 3, 4)).max()))


def _patches(slide: Slide, corners: Any) -> Any:
    """Patches at corners in pixels of `MPP`."""
    true = slide.facts.require_mpp()
    scale = (MPP / true.x, MPP / true.y)
    rasters = [Raster(round(x * scale[0]), round(y * scale[1]), *scale, TILE, TILE) for x, y in corners]
    return np.stack([render_many(slide, [raster])[0] for raster in rasters]).astype(float)


def judge(row: dict[str, str], damaged: dict[str, str], intact: dict[str, Any], out: Path) -> tuple[str, float]:
    """What came of a damaged slide, and how far its pixels are off where it is `ok`."""
    error = row["error"]
    if row["status"] == "failed":
        if "its process died" in error:
            return "crash", 0.0
        if "the limit for one slide" in error:
            return "hang", 0.0
        if UNFORESEEN.search(error) or not error:
            return "unforeseen", 0.0
        return ("failed" if REMEDY.search(error) else "without remedy"), 0.0
    told = set((row.get("warnings") or "").split("; ")) - set((intact.get("warnings") or "").split("; "))
    told = {line for line in told if line and "look at the overlay" not in line}
    bag = out / "slides" / damaged["slide_id"] / "samples.h5"
    try:
        off = most_off(Path(damaged["slide"]), Path(intact["path"]), bag)
    except SlideError as exc:  # the intact one has no pixels where the other has
        print(f"  {damaged['slide_id']}: {exc}")
        off = 255.0
    if off <= SLIGHT:
        return ("true", off) if off == 0 else ("slightly wrong", off)
    if told:
        return "wrong, told", off
    return ("grossly wrong" if off > GROSS else "wrong"), off


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=450)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="a new folder for slides and results")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        print(json.dumps(measure(folder, args.count, args.seed)))


def measure(folder: Path, count: int, seed: int) -> dict[str, Any]:
    rows = make_damaged(folder / "slides", count, seed)
    out, started = folder / "out", time.monotonic()
    code, said, spent = run(folder / "slides", out)
    seconds = time.monotonic() - started
    with (out / "predictions.csv").open(newline="") as file:
        found = {row["slide_id"]: row for row in csv.DictReader(file)}
    came: dict[str, Counter[str]] = {}
    total = Counter[str]()
    results = []
    for row in rows:
        verdict, off = "no row", 0.0
        there = found.get(row["slide_id"])
        if there is not None:
            verdict, off = judge(there, row, found[row["format"]], out)
        total[verdict] += 1
        for name in (row["format"], row["kind"]):
            came.setdefault(name, Counter())[verdict] += 1
        why = "" if there is None else there["error"] or there.get("warnings") or ""
        results.append({**row, "verdict": verdict, "off": f"{off:.1f}", "why": why})
        if verdict in ("crash", "hang", "no row", "unforeseen", "without remedy", "wrong", "grossly wrong"):
            print(f"{verdict}: {row['slide_id']}, {row['kind']} ({row['done']}), off {off:.1f}: {why}", flush=True)
    with (folder / "faults.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(results[0]))
        writer.writeheader()
        writer.writerows(results)
    for name, counts in came.items():
        print(f"{name}: {', '.join(f'{n} {verdict}' for verdict, n in sorted(counts.items()))}")
    failed_intact = [form for form in {row["format"] for row in rows} if found[form]["status"] != "ok"]
    return {
        "seed": seed,
        "files": len(rows),
        "ok": sum(total[verdict] for verdict in FOUND),
        "exit_code": code,
        "tracebacks": said.count("Traceback"),
        "intact_failed": sorted(failed_intact),
        "seconds": round(seconds),
        "cpu_seconds": round(spent),
        **{verdict: total[verdict] for verdict in ("crash", "hang", "no row", "unforeseen", "without remedy")},
        **{verdict: total[verdict] for verdict in FOUND},
    }


if __name__ == "__main__":
    main()

"""What `saccade run`, `cache` and `train` hold at their peak: flat in slides and in pixels, and within a budget.

    python benchmarks/memory.py [--sizes 0.1 1.5 6] [--slides 10 200] [--tile 8192] [--tree PATH]      ten minutes
    python benchmarks/memory.py --sizes 0.1 6 --slides 10 2000                                          an hour

Each figure is the peak of a fresh process (its own, by `VmHWM`: of files that are mapped what is in memory), on one
thread:
- pixels: `run` of mosaics of a scanner's own tiles (mosaic.py), all tissue;
- slides: `run` of so many copies of one small mosaic, whose contents differ, in one process and on one worker;
- a slide of huge tiles: beside the largest mosaic, what it takes and what was foretold;
- kept slides: `train` end to end on so many copies of a slide, all of which it keeps open between epochs;
- a slide whose tiles are all one part of its file: `cache` with a budget of disk, and what it wrote.
Ratios are of the largest to the smallest of one run. `--tree` measures another checkout in turns with this one. Ends
with one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import skimage.data
import tifffile
import torch

from benchmarks.costs import THREADS
from benchmarks.mosaic import make_mosaic
from benchmarks.places import ROOT
from pipeline.model.checkpoint import save_model
from pipeline.model.sampler import AttentionSampler
from pipeline.model.spec import ModelSpec
from stages.budget import need_of
from stages.slide.files import open_slide

SPEC = ModelSpec(
    classes=("normal", "tumour"),
    attention_mpp=8.0,
    patch_mpp=1.0,
    patch_px=128,
    attention="learned",
    encoder="small",
    dim=64,
    scheme="systematic",
    samples=100,
)
"""The default view with the encoder that is built in."""
CHILD = """
import json, sys
sys.argv[0] = "saccade"
from pipeline.cli import main
try:
    main()
except SystemExit as ended:
    code = ended.code
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps({"mb": int(status["VmHWM"].split()[0]) / 1024, "code": code}))
"""


def save_random(path: Path) -> Path:
    """A model that nothing taught: what it takes is the same."""
    torch.manual_seed(0)
    model = AttentionSampler(SPEC)
    for parameter in model.attention.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    save_model(model, path)
    return path


def write_repeated(path: Path, *, tile: int, across: int, resolution: float = 0.5) -> Path:
    """A TIFF of ``across x across`` tiles of real tissue, each the same: one compressed tile, and as many pointers."""
    piece = skimage.data.immunohistochemistry()
    repeats = -(-tile // piece.shape[0])
    pixels = np.tile(piece, (repeats, repeats, 1))[:tile, :tile]
    data = imagecodecs.jpeg8_encode(np.ascontiguousarray(pixels), level=50, subsampling="420")
    per_cm = 10_000 / resolution
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        tiff.write(
            iter([data] * across**2),
            shape=(tile * across, tile * across, 3),
            dtype=np.uint8,
            tile=(tile, tile),
            photometric="ycbcr",
            compression="jpeg",
            subsampling=(2, 2),
            resolution=(per_cm, per_cm),
            resolutionunit="CENTIMETER",
            metadata=None,
            software=False,
        )
    return path


def share_tiles(path: Path) -> Path:
    """The same slide, whose tiles are all the first one's bytes, and nothing of it behind them."""
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0].aspage()
        tags = page.tags["TileOffsets"], page.dataoffsets
        end = page.dataoffsets[0] + page.databytecounts[0]
        order = tiff.byteorder
        if min(tags[0].offset, tags[0].valueoffset) > end:
            raise RuntimeError("the directory lies behind the tiles")
    first = np.full(len(tags[1]), tags[1][0], f"{order}u8").tobytes()
    with path.open("r+b") as file:
        file.seek(tags[0].valueoffset)
        file.write(first)
        file.truncate(end)
    return path


def peak(command: Sequence[object], *, tree: Path = ROOT) -> tuple[float, int]:
    """MB that a command held at its peak, and its exit code."""
    environment = os.environ | THREADS | {"PYTHONPATH": str(tree)}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *map(str, command)], env=environment, capture_output=True, text=True, cwd=tree
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    told = json.loads(done.stdout.splitlines()[-1])
    return told["mb"], told["code"]


def of_run(slides: Path, folder: Path, *more: object, tree: Path = ROOT) -> float:
    """MB at the peak of a run that succeeds."""
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    mb, code = peak(["run", slides, "--out", out, "--model", folder / "model.safetensors", *more], tree=tree)
    if code:
        raise RuntimeError(f"{slides}: exit code {code}")
    return round(mb, 1)


def copies(slide: Path, folder: Path, count: int) -> Path:
    """So many slides of other content: the same one, with other bytes behind it."""
    folder.mkdir()
    for number in range(count):
        copied = folder / f"{number}{slide.suffix}"
        shutil.copy(slide, copied)
        with copied.open("ab") as file:
            file.write(number.to_bytes(4, "big"))
    return folder


def of_training(slide: Path, folder: Path, count: int) -> float:
    """MB at the peak of a training of two epochs on copies of a slide."""
    copies(slide, folder / "kept", count)
    rows = [f"kept/{n}{slide.suffix},p{n},{'ab'[n % 2]},{'train' if n < count - 2 else 'test'}" for n in range(count)]
    (folder / "kept.csv").write_text("\n".join(("slide,patient,label,split", *rows, "")))
    (folder / "kept.yaml").write_text("cohort:\n  table: kept.csv\n")
    told = ["attention.kind=learned", "encoder.name=small", "view.patch_mpp=1", "training.epochs=2"]
    told += ["training.warm_up=1", "training.calibration_slides=0", "training.read_ahead=1", "augmentation.turn=true"]
    out = folder / "trained"
    mb, code = peak(["train", folder / "kept.yaml", "--out", out, *(part for one in told for part in ("--set", one))])
    if code:
        raise RuntimeError(f"training on {count} copies of {slide}: exit code {code}")
    for made in (out, folder / "kept"):
        shutil.rmtree(made)
    return round(mb, 1)


def peak_of_workers(out: Path) -> float:
    """MB of the largest process, as run.json tells."""
    return round(json.loads((out / "run.json").read_text())["memory"]["largest_process_bytes"] / 2**20, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=float, nargs="*", default=(0.1, 1.5, 6.0), help="gigapixels")
    parser.add_argument("--slides", type=int, nargs="*", default=(10, 200), help="how many, of --small each")
    parser.add_argument("--small", type=float, default=0.01, help="gigapixels of each of many slides")
    parser.add_argument("--tile", type=int, default=8192, help="pixels along a huge tile; 0: none")
    parser.add_argument(
        "--shared", type=int, default=64, help="tiles across the slide whose tiles are all one; 0: none"
    )
    parser.add_argument("--kept", type=int, nargs="*", default=(20, 200), help="slides of a training, of --small each")
    parser.add_argument("--kept-slide", type=Path, help="what is copied for it, in place of a mosaic")
    parser.add_argument("--tree", type=Path, help="another checkout, measured for --sizes and --tile as well")
    args = parser.parse_args()
    trees = {"here": ROOT, **({} if args.tree is None else {"there": args.tree.resolve()})}
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_random(folder / "model.safetensors")

        def note(*keys: str, value: Any) -> None:
            at = found
            for key in keys[:-1]:
                at = at.setdefault(key, {})
            at[keys[-1]] = value
            print(" ".join(keys), value, flush=True)

        for size in args.sizes:
            path = make_mosaic(folder / "mosaic.svs", size)
            for tree, root in trees.items():
                note("gigapixels", tree, f"{size:g}", value=of_run(path, folder, tree=root))
            path.unlink()
        if args.slides:
            small = make_mosaic(folder / "small.svs", args.small)
            for count in args.slides:
                many = copies(small, folder / "many", count)
                note("slides", f"{count}", value=of_run(many, folder, "--workers", 0))
                of_run(many, folder, "--workers", 1)
                note("slides on a worker", f"{count}", value=peak_of_workers(folder / "out"))
                shutil.rmtree(many)
        if args.kept:
            kept = args.kept_slide or make_mosaic(folder / "kept.svs", args.small)
            for count in args.kept:
                note("kept slides", f"{count}", value=of_training(kept, folder, count))
        if args.tile:
            path = write_repeated(folder / "huge.tif", tile=args.tile, across=1)
            told = need_of(open_slide(path).facts, thumbnail_mpp=SPEC.attention_mpp, mpps=[SPEC.patch_mpp])
            note("huge tiles", "foretold", value=round(told.nbytes / 2**20, 1))
            for tree, root in trees.items():
                note("huge tiles", tree, value=of_run(path, folder, tree=root))
        if args.shared:
            path = share_tiles(write_repeated(folder / "shared.tif", tile=512, across=args.shared))
            out = folder / "pyramids"
            _, code = peak(["cache", path, "--out", out, "--disk", "100MB"])
            wrote = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
            note("shared tiles", "file MB", value=round(path.stat().st_size / 1e6, 1))
            note("shared tiles", "exit code", value=code)
            note("shared tiles", "written MB", value=round(wrote / 1e6, 1))
    for key in ("gigapixels", "slides", "slides on a worker", "kept slides"):
        for kind, values in found.get(key, {}).items() if key == "gigapixels" else [("", found.get(key, {}))]:
            if values:
                found.setdefault("ratios", {})[f"{key} {kind}".strip()] = round(
                    max(values.values()) / min(values.values()), 2
                )
    print(json.dumps(found))


if __name__ == "__main__":
    main()

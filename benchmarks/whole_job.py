"""The whole job, row by row: what `saccade run` takes, against an earlier version, OpenSlide and LazySlide.

    python -m benchmarks.whole_job --against CHECKOUT [--only run,workers,...] [--rounds 3] [--peer PYTHON]    an hour

CHECKOUT is a folder with another version of this repository (`git worktree add CHECKOUT 6ee006e`); both run on this
Python. Slides are mosaics of a scanner's own tiles (`benchmarks.mosaic`), all tissue, in the page cache; the model has
the encoder that is built in, and nothing taught it. What is compared is measured in turns, whole commands with their
start, and medians are given. The rows:

- run: processor seconds of a run of 1.6 gigapixels with 100 patches, and the ratio to CHECKOUT's;
- openslide: the same beside a loop of OpenSlide's `read_region` over the tissue's patches, without an encoder, of which
  `--tiles` spread over the slide are read and scaled up to all;
- lazyslide: the same with ResNet-18 beside LazySlide, which encodes every tile of the tissue that it finds (PYTHON is
  one that has it and timm), as they are, of 128 px, as they are encoded here; `of_all_cells`: its encoding scaled up
  to the tissue that is found here. `enlarged`: with tiles enlarged to the 224 px that the network was made for, as
  LazySlide does by itself, of which every eighth is encoded and scaled up to all;
- memory: MB at the peak at 0.1, 1.5 and 6 gigapixels (`benchmarks.memory`);
- growth: processor seconds at 0.1 and 6 gigapixels of a whole command with its start, without what goes over each pixel
  of the thumbnail: the stages look (read it, find its tissue), attend (the network) and thumbnail (how each cell looks,
  and its JPEG). All that is of cells, patches and files counts. Beside it the same without the look alone;
- throughput: slides a minute of 64 demo slides, as runs are by default (`benchmarks.throughput`);
- workers: processor seconds that two workers take beyond none, on 16 demo slides;
- rerun: processor seconds of a run that finds 1 000 slides done (`benchmarks.rerun`);
- refusal: processor seconds until a file of 1.6 gigapixels that was cut short has failed;
- stages: processor seconds of each stage of the first row, as run.json tells;
- vit: the same with a ViT-S/16 as the encoder, of patches of 224 px (needs timm);
- pyramid: bytes of the portable pyramid, over those of the slide.

Prints a table, and ends with one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any
from zipfile import ZipFile

import safetensors
import safetensors.torch

from benchmarks.memory import SPEC, save_random
from benchmarks.mosaic import SLIDE, make_mosaic
from benchmarks.places import ROOT, data_folder
from benchmarks.rerun import MADE, call
from pipeline.demo.cohort import make_cohort

LARGE, PATCHES = 1.6, 100
EVERY = 8
"""Of how many enlarged tiles LazySlide encodes one."""
OF_PIXELS = ("look", "attend", "thumbnail")
"""Stages that go over the thumbnail's pixels."""
ENCODERS: dict[str, dict[str, Any]] = {
    "resnet18": {"encoder": "timm:resnet18", "dim": 512},
    "vit_small_patch16_224": {
        "encoder": "timm:vit_small_patch16_224",
        "dim": 384,
        "patch_px": 224,
        "patch_mpp": 0.5,
        "attention_mpp": 8.0,
    },
}
"""What a model has in the built-in encoder's place."""
LOOP = """
import sys
import openslide
path, side, step, across = sys.argv[1], *map(int, sys.argv[2:])
with openslide.OpenSlide(path) as slide:
    width, height = slide.dimensions
    cells = [(x, y) for y in range(0, height - side + 1, side) for x in range(0, width - side + 1, side)]
    for x, y in cells[::step]:
        slide.read_region((x, y), 0, (side, side)).convert("RGB").resize((across, across))
print(len(cells), len(cells[::step]))
"""
LAZYSLIDE = """
import sys, time
import torch
if not hasattr(torch.ops.torchvision, "nms"):  # a torchvision that was built for another torch describes it at import
    operators = torch.library.Library("torchvision", "DEF")
    operators.define("nms(Tensor boxes, Tensor scores, float threshold) -> Tensor")
    operators.define("qnms(Tensor boxes, Tensor scores, float threshold) -> Tensor")
import lazyslide, wsidata
from lazyslide.models.base import TimmModel
from torchvision.transforms.v2 import Compose, Normalize, ToDtype, ToImage
wsi = wsidata.open_wsi(sys.argv[1], store=sys.argv[2])
lazyslide.pp.find_tissues(wsi)
lazyslide.pp.tile_tissues(wsi, int(sys.argv[3]), mpp=float(sys.argv[4]))
model, every = TimmModel("resnet18", pretrained=False), int(sys.argv[5])
count = len(wsi.shapes["tiles"])
as_it_is = Compose([ToImage(), ToDtype(torch.float32, scale=True), Normalize([0.5] * 3, [0.5] * 3)])
into = as_it_is if every == 1 else model.get_transform()
wsi.shapes["tiles"] = wsi.shapes["tiles"].iloc[::every].reset_index(drop=True)
before = time.process_time()
lazyslide.tl.feature_extraction(wsi, model.model, model_name="resnet18", transform=into, device="cpu")
print(count, (time.process_time() - before) * count / len(wsi.shapes["tiles"]), time.process_time() - before)
"""


@dataclass
class Job:
    """What all rows share.

    Attributes:
        folder: scratch.
        against: the other checkout; None: there is none.
        rounds: of what is measured in turns.
        tiles: that OpenSlide's loop reads.
        peer: a Python that may have LazySlide.
    """

    folder: Path
    against: Path | None
    rounds: int
    tiles: int
    peer: str

    def mosaic(self, gigapixels: float) -> Path:
        """A slide of so many gigapixels."""
        path = self.folder / f"{gigapixels:g}.svs"
        return path if path.exists() else make_mosaic(path, gigapixels)

    def model(self) -> Path:
        """A checkpoint that every version reads: its specification says no more than one of 6ee006e."""
        path = self.folder / "model.safetensors"
        if not path.exists():
            save_random(self.folder / "new.safetensors")
            with ZipFile(MADE) as archive:
                archive.extract("one-level.safetensors", self.folder)
            old, new = (_texts(self.folder / f"{name}.safetensors") for name in ("one-level", "new"))
            spec = {name: value for name, value in json.loads(new["spec"]).items() if name in json.loads(old["spec"])}
            weights = safetensors.torch.load_file(self.folder / "new.safetensors")
            safetensors.torch.save_file(weights, path, metadata={**new, "spec": json.dumps(spec)})
        return path

    def demo(self, slides: int) -> Path:
        """So many slides of the demo."""
        folder = self.folder / f"demo-{slides}"
        if not folder.exists():
            make_cohort(folder, slides=slides)
        return folder / "slides"

    def encoder(self, name: str) -> Path | None:
        """A checkpoint with one of `ENCODERS`; None where timm is not installed."""
        path = self.folder / f"{name}.safetensors"
        if path.exists():
            return path
        ours = "import sys; from benchmarks.whole_job import save_encoder; save_encoder(*sys.argv[1:])"
        command = [sys.executable, "-c", ours, str(path), name]
        if find_spec("timm") is None:
            return None
        subprocess.run(command, cwd=ROOT, env=_here(), check=True)
        return path

    def run(
        self,
        target: Path,
        *more: object,
        checkout: Path = ROOT,
        name: str = "out",
        code: int = 0,
        model: Path | None = None,
    ) -> float:
        """Processor seconds of a run of this target into a new folder, by a checkout."""
        out = self.folder / name
        subprocess.run(["rm", "-rf", str(out)], check=True)
        return call(checkout, "run", target, "--model", model or self.model(), "--out", out, *more, code=code)[2]

    def in_turns(self, ways: dict[str, Callable[[], float]], first: int = 1) -> dict[str, list[float]]:
        """What each gives in each round, after a first that counts for nothing, or none."""
        found: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(self.rounds + first):
            for name, way in ways.items():
                seconds = way()
                if turn >= first:
                    found[name].append(seconds)
        return found

    def beside(self, ways: dict[str, Callable[[], float]], first: int = 1) -> dict[str, Any]:
        """Medians of processor seconds in turns, and of the ratios of the others to the first."""
        found = self.in_turns(ways, first)
        told: dict[str, Any] = {f"{name}_cpu_s": round(median(seconds), 2) for name, seconds in found.items()}
        own, *others = found
        for name in others:
            pairs = zip(found[own], found[name], strict=True)
            told[f"{name}_over_{own}"] = round(median(other / one for one, other in pairs), 2)
        return told


def _texts(checkpoint: Path) -> dict[str, str]:
    with safetensors.safe_open(checkpoint, framework="np") as file:
        return dict(file.metadata())


def _measured(command: list[object]) -> tuple[str, float]:
    """What a command says, and its processor seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return done.stdout, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _told(module: str, *arguments: object) -> dict[str, Any]:
    """The JSON line of another benchmark."""
    command = [sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT, env=_here())
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def _here() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def against(job: Job) -> tuple[object, ...]:
    """Options of other benchmarks for the other checkout."""
    return () if job.against is None else ("--against", job.against)


def run(job: Job) -> dict[str, Any]:
    slide = job.mosaic(LARGE)
    ways = {"here": lambda: job.run(slide, "--samples", PATCHES)}
    if job.against is not None:
        there = job.against
        ways["there"] = lambda: job.run(slide, "--samples", PATCHES, checkout=there, name="there")
    return job.beside(ways)


def openslide(job: Job) -> dict[str, Any]:
    slide = job.mosaic(LARGE)
    side = round(SPEC.patch_px * SPEC.patch_mpp / 0.5)  # of level 0, at the mosaic's resolution
    step = max(1, round(LARGE * 1e9 / side**2 / job.tiles))

    def loop() -> float:
        said, seconds = _measured([sys.executable, "-c", LOOP, slide, side, step, SPEC.patch_px])
        every, read = map(int, said.split())
        return seconds * every / read

    return job.beside({"here": lambda: job.run(slide, "--samples", PATCHES), "openslide": loop})


def lazyslide(job: Job) -> dict[str, Any]:
    has = "from importlib.util import find_spec; print(all(map(find_spec, ('lazyslide', 'wsidata', 'timm'))))"
    if _measured([job.peer, "-c", has])[0].strip() != "True":
        return {"lazyslide": "not installed"}
    slide, model = job.mosaic(LARGE), job.encoder("resnet18")
    if model is None:
        return {"timm": "not installed"}

    found: list[tuple[int, float]] = []

    def whole(every: int = 1) -> float:
        store = job.folder / "lazyslide.zarr"
        subprocess.run(["rm", "-rf", str(store)], check=True)
        said, seconds = _measured([job.peer, "-c", LAZYSLIDE, slide, store, SPEC.patch_px, SPEC.patch_mpp, every])
        tiles, encoding, spent = map(float, said.split()[-3:])
        found.append((int(tiles), encoding))
        return seconds - spent + encoding

    ways = {"here": lambda: job.run(slide, "--samples", PATCHES, model=model), "lazyslide": whole}
    told = job.beside(ways, first=0)
    (prediction,) = (job.folder / "out" / "slides").glob("*/prediction.json")
    cells = json.loads(prediction.read_text())["row"]["cells"]
    told |= {"tiles": found[-1][0], "cells": cells}
    seen = {"lazyslide": (told["lazyslide_cpu_s"], *found[-1]), "enlarged": (whole(EVERY), *found[-1])}
    for name, (seconds, tiles, encoding) in seen.items():
        of_all_cells = seconds + encoding * (cells / tiles - 1)
        told[f"{name}_cpu_s"] = round(seconds, 2)
        told[f"{name}_over_here"] = round(seconds / told["here_cpu_s"], 2)
        told[f"{name}_of_all_cells_over_here"] = round(of_all_cells / told["here_cpu_s"], 2)
    return told


def save_encoder(path: str, name: str) -> None:
    """A model whose encoder is one of `ENCODERS`, untrained."""
    from pipeline.model.checkpoint import save_model
    from pipeline.model.sampler import AttentionSampler

    save_model(AttentionSampler(replace(SPEC, **ENCODERS[name])), Path(path))


def vit(job: Job) -> dict[str, Any]:
    slide, model = job.mosaic(LARGE), job.encoder("vit_small_patch16_224")
    return {"timm": "not installed"} if model is None else _median_stages(job, slide, model)


def memory(job: Job) -> dict[str, Any]:
    found = _told("memory", "--sizes", 0.1, 1.5, 6, "--slides", "--kept", "--tile", 0, "--shared", 0)
    return {f"{size}_gigapixels_mb": mb for size, mb in found["gigapixels"]["here"].items()}


def growth(job: Job) -> dict[str, Any]:
    sizes = ("0.1", "6")
    kept: dict[str, list[dict[str, float]]] = {size: [] for size in sizes}

    def whole(size: str) -> float:
        seconds = job.run(job.mosaic(float(size)), "--samples", PATCHES)
        kept[size].append(_stages(job))
        return seconds

    found = job.in_turns({size: lambda size=size: whole(size) for size in sizes})  # type: ignore[misc]
    told: dict[str, Any] = {}
    for without, stages in (("", OF_PIXELS), ("_without_look_alone", OF_PIXELS[:1])):
        beyond = {
            size: median(
                seconds - sum(one[name] for name in stages)
                for seconds, one in zip(found[size], kept[size][1:], strict=True)  # the first round counts for nothing
            )
            for size in sizes
        }
        told |= {f"{size}_gigapixels_cpu_s{without}": round(seconds, 2) for size, seconds in beyond.items()}
        told[f"ratio{without}"] = round(beyond["6"] / beyond["0.1"], 2)
    return told


def _stages(job: Job) -> dict[str, float]:
    told = json.loads((job.folder / "out" / "run.json").read_text())["stages"]
    (one,) = told.values()
    return {name: taken["cpu_seconds"] for name, taken in one.items()}


def throughput(job: Job) -> dict[str, Any]:
    told = _told("throughput", "--slides", 64, "--rounds", job.rounds, *against(job))
    return {f"{name}_{key}": one for name in ("here", "there") for key, one in told.get(name, {}).items()}


def workers(job: Job) -> dict[str, Any]:
    slides = job.demo(16)
    ways = {str(count): lambda count=count: job.run(slides, "--workers", count) for count in (0, 2)}  # type: ignore[misc]
    found = job.in_turns(ways)
    extra = [two - none for none, two in zip(found["0"], found["2"], strict=True)]
    return {"none_cpu_s": round(median(found["0"]), 2), "two_cpu_s": round(median(found["2"]), 2)} | {
        "extra_cpu_s": round(median(extra), 2)
    }


def rerun(job: Job) -> dict[str, Any]:
    return _told("rerun", "--slides", 1000, "--rounds", job.rounds, *against(job))


def refusal(job: Job) -> dict[str, Any]:
    whole, cut = job.mosaic(LARGE), job.folder / "cut" / "cut.svs"
    cut.parent.mkdir(exist_ok=True)
    with whole.open("rb") as source, cut.open("wb") as target:
        while block := source.read(2**24):
            target.write(block)
        target.truncate(whole.stat().st_size * 2 // 3)
    return job.beside({"refusal": lambda: job.run(cut, code=1)})


def stages(job: Job) -> dict[str, Any]:
    slide = job.mosaic(LARGE)
    return _median_stages(job, slide, job.model())


def _median_stages(job: Job, slide: Path, model: Path) -> dict[str, Any]:
    found: list[dict[str, float]] = []
    for _ in range(job.rounds):
        job.run(slide, "--samples", PATCHES, model=model)
        found.append(_stages(job))
    return {f"{name}_cpu_s": round(median(one[name] for one in found), 2) for name in found[0]}


def pyramid(job: Job) -> dict[str, Any]:
    told = {}
    for name, slide in (("slide", data_folder() / SLIDE), ("mosaic", job.mosaic(0.1))):
        out = job.folder / f"pyramid-{name}"
        call(ROOT, "cache", slide, "--out", out, "--profile", "portable")
        written = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
        told[f"{name}_ratio"] = round(written / slide.stat().st_size, 2)
    return told


ROWS: dict[str, Callable[[Job], dict[str, Any]]] = {
    row.__name__: row
    for row in (run, openslide, lazyslide, memory, growth, throughput, workers, rerun, refusal, stages, vit, pyramid)
}


def main() -> None:
    """Measure the rows that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, metavar="CHECKOUT")
    parser.add_argument("--only", default=",".join(ROWS), help="rows, parted by commas")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tiles", type=int, default=2000, help="that OpenSlide's loop reads")
    parser.add_argument("--peer", default=sys.executable, metavar="PYTHON", help="which may have LazySlide")
    options = parser.parse_args()
    chosen = options.only.split(",")
    unknown = [name for name in chosen if name not in ROWS]
    if unknown:
        raise SystemExit(f"no row is called {', '.join(unknown)}: there are {', '.join(ROWS)}")
    there = None if options.against is None else options.against.resolve()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        job = Job(Path(folder), there, options.rounds, options.tiles, options.peer)
        for name in chosen:
            found[name] = ROWS[name](job)
            print(f"{name:10}  " + ", ".join(f"{key} {value}" for key, value in found[name].items()), flush=True)
    print(json.dumps({"benchmark": "whole job", "rounds": options.rounds, **found}))


if __name__ == "__main__":
    main()

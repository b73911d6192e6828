"""What writing a slide's results costs, in CPU and in bytes, beside reading and encoding it.

    python benchmarks/artefacts.py [--model MODEL] [--samples 20] [--rounds 3] [--against CHECKOUT]     two minutes

On mosaics (see mosaic.py) of 3 200, 9 000 and 40 000 px along a side, some copies of the small ones in a run: the CPU
of `run_cohort` in one process of one thread; of that, what opening, predicting and the gallery's patches took
("reading"); and the rest: maps, tables, pictures, keys, table and report. Then the bytes of each file of a slide. With
--against the same is measured with another checkout's code (of commit 6ee006e or later) in a process of its own, in
turns, and the ratio of the rest is given. Without a model each makes one of the same specification, untrained. Ends
with one JSON line of medians.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

SIZES = {"3 200 px": (0.01, 8), "9 000 px": (0.08, 4), "40 000 px": (1.6, 1)}
"""Gigapixels, and how many such slides a run has."""


class Worker:
    """A process that runs a checkout's code."""

    def __init__(self, checkout: Path, folder: Path, model: Path | None, samples: int) -> None:
        folder.mkdir()
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--serve", str(folder), str(model or ""), str(samples)],
            env={**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"},
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, slides: Path) -> dict[str, Any]:
        """Run over a folder of slides."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(slides, file=self._process.stdin, flush=True)
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def end(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def serve(folder: Path, model: Path | None, samples: int) -> None:
    """Run over each folder that is named on stdin, with whatever version of the code is imported."""
    import torch

    torch.set_num_threads(1)
    spent = {"reading": 0.0}

    def timed(work: Callable[..., Any]) -> Callable[..., Any]:
        def working(*args: Any, **options: Any) -> Any:
            began = time.process_time()
            try:
                return work(*args, **options)
            finally:
                spent["reading"] += time.process_time() - began

        return working

    try:
        run: Any
        import pipeline.predict as predict
        import pipeline.run.slide as run
        import stages.overlay.gallery as gallery
        from pipeline.cohort.target import find_target
        from pipeline.model.checkpoint import save_model
        from pipeline.model.sampler import AttentionSampler
        from pipeline.model.spec import ModelSpec
        from pipeline.run.run import run_cohort

        where = run if hasattr(run, "predict_slide") else predict  # later versions import it when they predict
        where.predict_slide = timed(where.predict_slide)
        gallery.render_many = timed(gallery.render_many)
    except ImportError:  # as it was at 6ee006e
        import pipeline.batch as run
        from pipeline.batch import run_cohort
        from pipeline.checkpoints import save_model
        from pipeline.values import ModelSpec

        from pipeline.cohort import find_target
        from pipeline.model import AttentionSampler

        run.look_at, AttentionSampler.sample = timed(run.look_at), timed(AttentionSampler.sample)
    run.open_pyramid = timed(run.open_pyramid)
    if model is None:
        model = folder / "model.safetensors"
        torch.manual_seed(0)
        view = {"attention_mpp": 8.0, "patch_mpp": 1.0, "patch_px": 128, "attention": "learned"}
        spec = ModelSpec(
            classes=("normal", "tumour"), encoder="small", dim=64, scheme="systematic", samples=samples, **view
        )
        save_model(AttentionSampler(spec).eval(), model)
    settings = run.RunSettings(model=model, samples=samples)
    answers, sys.stdout = sys.stdout, sys.stderr
    for number, line in enumerate(sys.stdin):
        out, spent["reading"] = folder / str(number), 0.0
        began = time.process_time()
        summary = run_cohort(find_target(Path(line.strip())), out, settings)
        took = time.process_time() - began
        if summary.ok != summary.total:
            raise RuntimeError(f"failed: {summary.rows}")
        slide = min(path for path in (out / "slides").iterdir() if path.is_dir())
        size = {path.name: sum(file.stat().st_size for file in _files(path)) for path in slide.iterdir()}
        each = {"reading": spent["reading"] / summary.total, "rest": (took - spent["reading"]) / summary.total}
        print(json.dumps({**each, "bytes": dict(sorted(size.items()))}), file=answers, flush=True)


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]


def main() -> None:
    """Do what the command line asks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--against", type=Path, metavar="CHECKOUT")
    told = parser.parse_args()
    from benchmarks.mosaic import make_mosaic
    from benchmarks.places import ROOT

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name, (gigapixels, copies) in SIZES.items():
            (folder / name).mkdir()
            first = make_mosaic(folder / name / "slide-0.svs", gigapixels)
            for i in range(1, copies):
                os.link(first, first.with_name(f"slide-{i}.svs"))
        checkouts = {"ours": ROOT} | ({"against": told.against.resolve()} if told.against else {})
        workers = {
            who: Worker(path, folder / who, told.model and told.model.resolve(), told.samples)
            for who, path in checkouts.items()
        }
        found: dict[str, dict[str, Any]] = {}
        for name in SIZES:
            # the first time imports and warms up
            rounds = [
                {who: worker.run(folder / name) for who, worker in workers.items()} for _ in range(told.rounds + 1)
            ]
            found[name] = {who: _medians([one[who] for one in rounds[1:]]) for who in workers}
            for who, one in found[name].items():
                print(f"{name}, {who}: reading {one['reading']:.3f}, rest {one['rest']:.3f} CPU s a slide")
                print(f"    {sum(one['bytes'].values()):,} bytes: {one['bytes']}")
            if told.against:
                found[name]["ratio"] = found[name]["ours"]["rest"] / found[name]["against"]["rest"]
                print(f"    the rest is {found[name]['ratio']:.2f} of the other's")
        for worker in workers.values():
            worker.end()
    print(json.dumps(found))


def _medians(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    return {**rounds[-1], **{key: median(one[key] for one in rounds) for key in ("reading", "rest")}}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(Path(sys.argv[2]), Path(sys.argv[3]) if sys.argv[3] else None, int(sys.argv[4]))
    else:
        main()

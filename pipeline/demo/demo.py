"""The demo: a cohort of real stained tissue, a model trained on it, unseen slides predicted, everything to look at."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.draw import polygon2mask

from pipeline.cohort.cohort import Cohort, CohortSlide
from pipeline.cohort.training_table import read_training_table
from pipeline.config import load_config, override_config
from pipeline.demo.cohort import make_cohort
from pipeline.model.checkpoint import load_model
from pipeline.model.look import Look, look
from pipeline.model.slide_model import SlideModel
from pipeline.output.attention_map import read_attention_zarr
from pipeline.output.documents import write_json
from pipeline.output.folder import prepare_output
from pipeline.run.keys import RunSettings
from pipeline.run.run import run_cohort
from pipeline.shipped import shipped_config
from pipeline.train.train import train_cohort
from stages.attention import cell_means

Say = Callable[[str], None]


def run_demo(out: Path, *, seed: int, say: Say) -> dict[str, Any]:
    """Make the cohort, train, predict the unseen slides, and say where to look; everything goes below ``out``.

    Returns:
        The figures, as written to ``out/demo.json``: AUROC on the test slides, mean fraction of the tissue read, bytes
        read and the slides' bytes, attention inside lesions over their share of the tissue, seconds of each step.
    """
    prepare_output(out)
    clock = time.perf_counter()
    seconds: dict[str, float] = {}

    def lap(step: str) -> None:
        nonlocal clock
        now = time.perf_counter()
        seconds[step], clock = now - clock, now

    say("1/3 making slides from real stained tissue")
    table = make_cohort(out / "cohort", seed=seed, progress=_every(16, say))
    lap("slides")

    say("2/3 training on slide labels")
    config = override_config(
        load_config(shipped_config("demo.yaml")),
        [
            f"cohort.table={json.dumps(str(table.resolve()))}",
            f"training.seed={seed}",
            f"reading.features={json.dumps(str((out / 'features').resolve()))}",
        ],
    )
    train_cohort(config, out / "training", say=say)
    lap("training")

    say("3/3 predicting slides that training never saw")
    slides = read_training_table(table).slides
    unseen = Cohort(table, tuple(slide for slide in slides if slide.split == "test"))
    checkpoint = out / "training" / "model.safetensors"
    summary = run_cohort(
        unseen,
        out / "run",
        RunSettings(model=checkpoint, seed=seed, features=out / "features"),
        progress=_each(say),
    )
    lap("prediction")

    model = load_model(checkpoint)
    enrichment = [
        lesion_enrichment(slide, model, out / "run" / "slides" / slide.slide_id, lesion)
        for slide in unseen.slides
        if (lesion := out / "cohort" / "lesions" / f"{slide.slide_id}.geojson").exists()
    ]
    figures = {
        "auroc": summary.metrics["auroc"],
        "fraction_read": float(np.mean([row["fraction_read"] for row in summary.rows])),
        "bytes_read": sum(row["bytes_read"] for row in summary.rows),
        "slide_bytes": sum(Path(str(slide.path)).stat().st_size for slide in unseen.slides),
        "attention_in_lesion": float(np.mean(enrichment)),
        "seconds": seconds,
    }
    write_json(out / "demo.json", figures)
    auroc = figures["auroc"]
    say(
        f"unseen slides: AUROC {auroc['value']:.3f} [{auroc['low']:.3f}, {auroc['high']:.3f}], reading "
        f"{figures['fraction_read']:.1%} of the tissue "
        f"({figures['bytes_read'] / figures['slide_bytes']:.1%} of the bytes); "
        f"attention inside lesions is {figures['attention_in_lesion']:.1f}x their share of the tissue"
    )
    say(f"total {sum(seconds.values()):.0f} s: " + ", ".join(f"{step} {s:.0f} s" for step, s in seconds.items()))
    say(f"look at:       {out / 'run' / 'report.html'}")
    say(f"use the model: saccade run SLIDES --model {checkpoint} --out RESULTS")
    return figures


def lesion_enrichment(slide: CohortSlide, model: SlideModel, result: Path, lesion: Path) -> float:
    """Attention inside the lesion over the lesion's share of the tissue; 1 is what chance would give.

    A cell that straddles the outline counts by the part of its tissue that is inside.
    """
    seen = look(slide.path, model, mpp=slide.mpp)
    attention, _ = read_attention_zarr(result / "attention.zarr")
    inside = _inside(seen, lesion) & seen.mask
    tissue, lesion_tissue = (
        cell_means(torch.from_numpy(m).double(), model.spec.cell_px).numpy() for m in (seen.mask, inside)
    )
    by_cell = np.divide(lesion_tissue, tissue, out=np.zeros_like(tissue), where=tissue > 0)
    return float((attention * by_cell).sum() / (inside.sum() / seen.mask.sum()))


def _inside(seen: Look, lesion: Path) -> NDArray[np.bool_]:
    """Thumbnail pixels (H, W) whose centres lie inside the outlines of a GeoJSON file."""
    mask = np.zeros(seen.mask.shape, bool)
    for feature in json.loads(lesion.read_text())["features"]:
        outline = seen.thumbnail.raster.from_level0(feature["geometry"]["coordinates"][0])
        # polygon2mask tests pixel indices (row, column); a pixel's centre is half a pixel further
        mask |= polygon2mask(mask.shape, outline[:, ::-1] - 0.5)
    return mask


def _every(step: int, say: Say) -> Callable[[int, int], None]:
    """Says of every so many slides how many are done, and how long the others will take."""
    left = _time_left()
    return lambda n, total: say(f"slide {n}/{total}{left(n, total)}") if n % step == 0 or n == total else None


def _each(say: Say) -> Callable[[int, int, str | None], None]:
    """The same of each slide that is predicted, with what was found."""
    left = _time_left()
    return lambda n, total, line: say(f"[{n}/{total}] {line}{left(n, total)}")


def _time_left() -> Callable[[int, int], str]:
    """Tells how long the rest will take, from now on, by how long it took until then."""
    started = time.monotonic()
    return lambda n, total: f", {(time.monotonic() - started) / n * (total - n):.0f} s left" if 0 < n < total else ""

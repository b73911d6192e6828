"""A fit that several processes share, as each of them does it; light, as each of them imports it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask
import numpy as np
import torch
from models import FROZEN, TINY, frozen_model, frozen_view, sampler_model
from torch import Tensor

from pipeline.model.slide_model import SlideModel
from pipeline.model.values import View
from pipeline.train.curve import Curve
from pipeline.train.fit import fit
from pipeline.train.processes import sharing
from pipeline.train.share import Share
from pipeline.train.slides import TrainingSlides
from stages.slide.facts import SlideError

ROWS, COLUMNS = 10, 9
OPTIONS: dict[str, Any] = {
    "samples": 8,
    "epochs": 3,
    "batch_size": 4,
    "learning_rate": 1e-2,
    "attention_rate": 1.0,
    "warm_up": 1,
    "weight_decay": 1e-3,
    "entropy_weight": 0.01,
    "gradient_clip": 1.0,
    "seed": 0,
    "device": "cpu",
}
LOST_CELL = 44
"""Of slide 5, drawn in the second epoch."""
SLIDES = 9
"""So that the last batch of an epoch is one slide, and the other process has none of it."""
KINDS: dict[str, dict[str, Any]] = {
    "learned": {},
    "a second look": {"attention_mpp": 16.0, "inner_mpp": 4.0, "region_cells": 3, "region_samples": 3},
    "survival": {"task": "survival", "classes": ("risk_score",), "labels": ("time", "event")},
    "grades": {"task": "ordinal", "control": True},
    "frozen": {},
}


def slide(seed: int, cell_px: int, read: Callable[[], None] = lambda: None) -> View:
    """Slides of two sizes, one of them with a map of its own."""
    rng = np.random.default_rng(seed)
    rows = ROWS + 3 * (seed % 3 == 0) - ROWS % 3
    shades = rng.integers(40, 256, (rows * COLUMNS, 1, 1, 3))
    pixels = (shades * rng.uniform(0.7, 1, (rows * COLUMNS, 32, 32, 1))).astype(np.uint8)
    rgb = shades.reshape(rows, COLUMNS, 3).repeat(cell_px, 0).repeat(cell_px, 1).astype(np.uint8)
    regions = rng.integers(0, 256, (rows * COLUMNS // 9, 38, 38, 3), np.uint8)
    prior = rng.random((rows, COLUMNS)) if seed == 1 and cell_px == 4 else None

    def patches(cells: np.ndarray) -> np.ndarray:
        read()
        return pixels[cells]

    tissue = np.ones((rows, COLUMNS), bool)
    return View(
        rgb, tissue, patches, lambda found: regions[found], prior=None if prior is None else prior / prior.sum()
    )


def new_model(kind: str) -> SlideModel:
    """A model of a kind, by `KINDS`."""
    if kind == "frozen":
        return frozen_model(replace(FROZEN, classes=("a", "b", "c")))
    return sampler_model(replace(TINY, **KINDS[kind]), spread=3)


def targets_of(kind: str, count: int = SLIDES) -> Tensor:
    """Theirs."""
    if kind == "survival":
        return torch.tensor([[1.0 + i % 5, float(i % 3 > 0)] for i in range(count)])
    return torch.tensor([i % 3 for i in range(count)])


def take_part(
    kind: str, path: Path, how: dict[str, Any], share: Share, **more: Any
) -> tuple[SlideModel, Curve, list[str]]:
    """The fit of one process: its model, its curve and why slides were left out."""
    rank, views = share.rank, []
    for i in range(SLIDES):
        view = frozen_view(seed=i) if kind == "frozen" else slide(i, 2 if kind == "a second look" else 4)
        views.append(replace(view, patches=_doing(how.get("doing"), i, rank, view.patches)))
    torch.set_default_dtype(torch.float64 if how.get("double") else torch.float32)
    model = new_model(kind)
    held_out = TrainingSlides(3, lambda i: views[2 * i], lambda i, why: None)
    options = OPTIONS | {name: value for name, value in how.items() if name not in ("doing", "double")}
    lost: list[str] = []
    curve = fit(
        model,
        views.__getitem__,
        targets_of(kind),
        checkpoint=path,
        validation=(held_out, targets_of(kind, 3)),
        share=share,
        leave_out=lambda i, why: lost.append(why),
        **options | {"say": lambda line: None} | more,
    )
    return model, curve, lost


def _doing(what: str | None, i: int, rank: int, read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A reader of slide ``i``'s patches that something becomes of: of whoever draws some cells of slide 5; or from the
    third time on in the second process."""
    times = [0]

    def taken(cells: np.ndarray) -> Any:
        times[0] += 1
        if what == "damaged" and i == 5 and LOST_CELL in cells:
            raise SlideError("s5.svs: a tile is damaged")
        if rank == 1 and times[0] > 2:
            if what == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if what == "full":
                raise OSError(24, "Too many open files", "s.svs")
            if what == "hangs":
                time.sleep(1000)
        return read(cells)

    return lambda cells: dask.delayed(taken)(cells)


def shared(kind: str, path: Path, how: dict[str, Any], size: int, **more: Any) -> tuple[Tensor, Curve, list[str]]:
    """What so many processes learn together: the weights, the curve, and why slides were left out."""
    with sharing(size, take_part, kind, path, how) as share:
        model, curve, lost = take_part(kind, path, how, share, **more)
    return torch.nn.utils.parameters_to_vector(model.parameters()).detach(), curve, lost

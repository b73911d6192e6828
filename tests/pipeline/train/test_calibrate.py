"""The interval's rule, fitted to how far draws really fall: it holds what it says on slides that it never saw."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models import TINY

from pipeline.model.checkpoint import load_model, save_model
from pipeline.model.sampler import AttentionSampler
from pipeline.model.values import View
from pipeline.train.calibrate import allotted, calibrate, drawn_errors, part_of
from stages.prediction.intervals import fit_calibration
from stages.sampling.schemes import SCHEMES
from stages.slide.facts import SlideError

SPEC = replace(TINY, classes=("a", "b"), samples=16)


@pytest.fixture(scope="module")
def model() -> AttentionSampler:
    """Random weights whose attention prefers dark cells."""
    torch.manual_seed(1)
    model = AttentionSampler(SPEC).eval()
    torch.nn.init.normal_(model.attention.logit.weight, std=20)
    torch.nn.init.normal_(model.head.weight, std=1)
    return model


def slide(seed: int) -> View:
    """A slide as an array whose patches are of two kinds, the rare kind seldom where attention is high."""
    rng = np.random.default_rng(seed)
    rgb = rng.integers(0, 256, (60, 60, 3), np.uint8)
    rare = rng.random(225) < rng.uniform(0.02, 0.2)
    noise = rng.integers(0, 256, (225, 32, 32, 3)) // 4
    patches = (noise + np.where(rare, 160, 20)[:, None, None, None]).astype(np.uint8)
    return View(rgb, np.ones((15, 15), bool), lambda cells: patches[cells])


@pytest.fixture(scope="module")
def calibrated(model: AttentionSampler) -> AttentionSampler:
    said: list[str] = []
    model.calibration = calibrate(model, [lambda i=i: slide(i) for i in range(12)], seed=0, say=said.append)  # type: ignore[misc]
    assert said[-1] == "calibrating intervals: read 12/12 slides whole"
    return model


@pytest.mark.parametrize("n", [8, 16, 64])
def test_intervals_hold_what_they_say_on_unseen_slides(calibrated: AttentionSampler, n: int) -> None:
    """Nominal 95 % over 30 unseen slides; tolerance from the spread between slides, of which 12 were calibrated on."""
    assert calibrated.calibration is not None
    generator = torch.Generator().manual_seed(7)
    held = []
    for seed in range(100, 130):
        evidence, errors = drawn_errors(calibrated, slide(seed), [n], draws=100, generator=generator)[n]
        half = calibrated.calibration.half_width(evidence, n)
        held.append(float((errors.abs() <= half)[:, 1].double().mean()))
    error = float(np.std(held, ddof=1)) * math.sqrt(1 / 30 + 1 / 12)
    assert abs(np.mean(held) - 0.95) < 3 * error, held


def test_a_checkpoint_keeps_its_calibration(calibrated: AttentionSampler, tmp_path: Path) -> None:
    save_model(calibrated, tmp_path / "model.safetensors")
    assert load_model(tmp_path / "model.safetensors").calibration == calibrated.calibration


def test_slides_too_small_to_draw_from_tell_nothing(model: AttentionSampler) -> None:
    """Where every budget reads the whole slide, there is no error to learn from."""
    tissue = np.zeros((15, 15), bool)
    tissue[0, :3] = True
    small = View(slide(0).rgb, tissue, slide(0).patches)
    told: list[str] = []
    assert calibrate(model, [lambda: small], seed=0, say=told.append) is None
    assert told == [
        "calibrating intervals: read 1/1 slides whole",
        "calibrating intervals: the largest slide has 3 patches with tissue, 32 µm wide, and drawing takes one of more "
        "than 8, so they are not calibrated: each draw tells for itself",
    ]


@pytest.mark.parametrize("scheme", ["iid", "gumbel"])
def test_budgets_end_where_the_scheme_tells_no_interval(
    model: AttentionSampler, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    """Eight times the model's own draws are more than these schemes judge."""
    monkeypatch.setitem(SCHEMES, scheme, replace(SCHEMES[scheme], most_judged=64))
    drawing = AttentionSampler(replace(SPEC, scheme=scheme)).eval()
    drawing.load_state_dict(model.state_dict())
    found = calibrate(drawing, [lambda i=i: slide(i) for i in range(2)], seed=0, say=lambda line: None)  # type: ignore[misc]
    assert found is not None
    assert found.budgets == (8, 16, 32, 64)


def test_draws_that_leave_nothing_to_chance_calibrate_nothing(model: AttentionSampler) -> None:
    """As where all attention lies on one cell, which a model that learnt too fast comes to."""
    certain = AttentionSampler(SPEC).eval()
    certain.load_state_dict(model.state_dict())
    torch.nn.init.constant_(certain.attention.logit.weight, 1e6)
    told: list[str] = []
    assert calibrate(certain, [lambda: slide(0)], seed=0, say=told.append) is None
    assert "draws left nothing to chance, so they are not calibrated" in told[-1]


def test_a_slide_that_cannot_be_read_whole_changes_nothing_for_the_others(model: AttentionSampler) -> None:
    def broken(cells: np.ndarray) -> np.ndarray:
        raise SlideError("s1.svs: a tile is damaged")

    lost: list[tuple[int, str]] = []
    bad = View(slide(1).rgb, slide(1).tissue, broken)
    views = [lambda: slide(0), lambda: bad, lambda: slide(2)]
    found = calibrate(model, views, seed=0, say=print, leave_out=lambda i, why: lost.append((i, why)))
    assert found == calibrate(model, [views[0], views[2]], seed=0, say=print)
    assert lost == [(1, "when read to calibrate intervals: s1.svs: a tile is damaged")]


def test_a_slide_that_cannot_be_read_whole_is_left_out_and_said(model: AttentionSampler) -> None:
    def broken(cells: np.ndarray) -> np.ndarray:
        raise SlideError("s1.svs: a tile is damaged")

    said: list[str] = []
    views = [lambda: slide(0), lambda: View(slide(1).rgb, slide(1).tissue, broken)]
    assert calibrate(model, views, seed=0, say=said.append) is not None
    assert "calibrating intervals: left out: s1.svs: a tile is damaged" in said
    assert said[-1] == "calibrating intervals: read 1/2 slides whole"
    assert calibrate(model, views[1:], seed=0, say=said.append) is None
    assert said[-2] == "calibrating intervals: read 0/1 slides whole"
    assert said[-1].startswith("calibrating intervals: no slide could be read whole, so they are not calibrated")


def test_a_budgets_factor_makes_95_in_100_of_the_fitted_draws_hold(model: AttentionSampler) -> None:
    generator = torch.Generator().manual_seed(5)
    slides = [drawn_errors(model, slide(seed), [16], draws=100, generator=generator)[16] for seed in range(3)]
    rule = fit_calibration({16: slides})
    assert rule is not None
    held = torch.cat([errors.abs()[:, 1] <= rule.half_width(evidence, 16)[:, 1] for evidence, errors in slides])
    assert int(held.sum()) == 285


@pytest.mark.parametrize(
    ("sizes", "patches", "given"),
    [
        ([3000, 100, 3000], 5100, [2500, 100, 2500]),
        ([3000, 100, 3000], 1500, [1400, 100]),  # of three slides too little each
        ([3000, 3000], 500, [500]),
        ([10, 0, 20], 100, [10, 0, 20]),
        ([], 100, []),
    ],
)
def test_patches_are_allotted_to_as_many_slides_as_get_enough(sizes: list[int], patches: int, given: list[int]) -> None:
    assert allotted(sizes, patches) == given


@pytest.mark.parametrize(("side", "scheme"), [(1, {}), (4, {"block": 4}), (3, {"inner_mpp": 4.0})])
def test_a_part_of_a_slide_is_whole_squares_of_it_everywhere_and_drawn_without_bias(
    side: int, scheme: dict[str, Any]
) -> None:
    """Draws from it add up to what all of its cells do, on average."""
    if "inner_mpp" in scheme:
        scheme = {**scheme, "region_cells": 3, "region_samples": 2}
    torch.manual_seed(2)
    model = AttentionSampler(replace(SPEC, **scheme)).eval()
    torch.nn.init.normal_(model.attention.logit.weight, std=3)
    whole = slide(0)
    regions = np.random.default_rng(0).integers(0, 256, (25, 38, 38, 3), np.uint8)
    tissue = np.ones((15, 15), bool)
    tissue[:, 13:] = False
    view = replace(whole, tissue=tissue, regions=lambda found: regions[found])
    with torch.no_grad():
        part, attention = part_of(view, model.attend(view), 100, side=side)
    assert 48 <= part.tissue.sum() <= 100
    squares = np.pad(part.tissue, (0, -15 % side)).reshape(-(-15 // side), side, -(-15 // side), side)
    there = np.pad(tissue, (0, -15 % side)).reshape(squares.shape)
    assert ((squares.sum((1, 3)) == 0) | (squares.sum((1, 3)) == there.sum((1, 3)))).all()
    assert part.tissue[:8].any()
    assert part.tissue[8:].any()
    assert float(attention.log_attention.exp().sum()) == pytest.approx(1)
    generator = torch.Generator().manual_seed(0)
    _, errors = drawn_errors(model, view, [16], draws=400, generator=generator, most=100)[16]
    spread = errors.std(0) / 20
    assert (errors.mean(0).abs() < 4 * spread + 0.5 * errors.var(0)).all()  # the log-odds bend

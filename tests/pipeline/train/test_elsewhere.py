"""What a training does beside its steps is done on the device that it was asked for, and comes to the same there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from makers import ROOT
from models import TINY

from pipeline.model.sampler import AttentionSampler
from pipeline.train import fit as fits

backends = pytest.importorskip("torch.utils.backend_registration")

ELSEWHERE = """
from dataclasses import replace

import numpy as np
import torch
from far import Distance
from models import FROZEN, TINY, exhaustive_model, frozen_model, frozen_view, sampler_model

import stages.sampling.draw
from pipeline.model.values import View
from pipeline.train.bagging import draw_bags, settle
from pipeline.train.calibrate import calibrate
from pipeline.train.first_guess import first_guess, first_guess_of_all
from pipeline.train.fit import _standardise
from pipeline.train.slides import TrainingSlides
from pipeline.train.warm_up import warm_up
from pipeline.train.watch import validate

stages.sampling.draw.NO_FLOAT64 = ("far",)
torch.get_device_module("far").get_amp_supported_dtype = lambda: [torch.bfloat16]  # what frozen encoders switch off
LABELS = [0, 1, 0, 1]
PATIENTS = ["a", "b", "c", "d"]

def view_of(seed, side):
    rng = np.random.default_rng(seed)
    rgb = rng.integers(0, 256, (18, 24, 3) if side else (36, 48, 3), np.uint8)
    patches = rng.integers(0, 256, (108, 32, 32, 3), np.uint8)
    regions = rng.integers(0, 256, (12, side, side, 3), np.uint8)
    return View(rgb, rng.random((9, 12)) < 0.8, lambda cells: patches[cells], lambda cells: regions[cells])

def told(model):
    return [value.detach().cpu() for _, value in sorted(model.state_dict().items())]

def sampler(device, two_levels):
    more = {"attention_mpp": 16.0, "inner_mpp": 4.0, "region_cells": 3, "region_samples": 3} if two_levels else {}
    model = sampler_model(replace(TINY, classes=("a", "b"), **more), spread=0.1).to(device)
    side = 24 + 2 * model.inner.around if model.inner else 0
    slides = TrainingSlides(4, [view_of(i, side) for i in range(4)].__getitem__)
    said = []
    warm_up(model, slides, passes=1, seed=0, say=said.append)
    _standardise(model, slides, samples=12, seed=0)
    assert model.device.type == device and len(said) == 1 + two_levels
    return told(model)

def frozen(device):
    model = frozen_model(replace(FROZEN, classes=("a", "b"), samples=6)).to(device)
    views = [frozen_view(seed=i) for i in range(4)]
    slides, bags = TrainingSlides(4, views.__getitem__), draw_bags(PATIENTS, LABELS, 4, seed=0)
    first_guess(model, slides, LABELS, bags, seed=0, say=lambda line: None)
    out = settle(model.train(), slides, LABELS, PATIENTS, bags, samples=6, seed=0)
    losses, _ = validate(model, slides, LABELS, samples=6, seed=0)
    rule = calibrate(model.eval(), [lambda v=v: v for v in views], seed=0, say=lambda line: None, patches=64)
    assert model.device.type == device
    return [*told(model), out.probabilities, losses, torch.tensor(rule.factors)]

def exhaustive(device):
    model = exhaustive_model("evidence").to(device)
    slides = TrainingSlides(4, [frozen_view(seed=i) for i in range(4)].__getitem__)
    bags = draw_bags(PATIENTS, LABELS, 2, seed=0)
    first_guess_of_all(model, slides, LABELS, bags, seed=0, say=lambda line: None)
    out = settle(model, slides, LABELS, PATIENTS, bags, samples=0, seed=0)
    assert model.device.type == device
    return [*told(model), out.probabilities]

for name, act in {
    "one level": lambda device: sampler(device, False),
    "two levels": lambda device: sampler(device, True),
    "frozen": frozen,
    "exhaustive": exhaustive,
}.items():
    with Distance():
        there = act("far")
    for one, other in zip(there, act("cpu"), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    print(name)
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not hasattr(backends, "_setup_privateuseone_for_python_backend"), reason="a device in Python needs torch 2.10"
)
def test_all_around_the_steps_is_done_on_the_device_and_comes_to_the_same() -> None:
    """Warm-up, the features' scale, first guesses, validation, the judging of members, calibration of intervals: on a
    device that has no float64 and takes no tensor of the CPU's."""
    # in a process of its own, for the device stays in it
    code = f"import sys; sys.path[:0] = {[str(ROOT), str(Path(__file__).parents[2])]!r}\n{ELSEWHERE}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split("\n")[:-1] == ["one level", "two levels", "frozen", "exhaustive"], done.stderr[-2000:]


def test_a_fit_begins_and_ends_on_the_device_that_it_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning alone would move the model when the steps begin, and back to the CPU when they end."""
    order: list[str] = []
    model = AttentionSampler(TINY)
    moved = model._apply
    monkeypatch.setattr(model, "_apply", lambda fn, recurse=True: order.append("moved") or moved(fn, recurse))

    class Trainer:
        def __init__(self, **how: object) -> None:
            order.append("trainer")

        def fit(self, module: object, **how: object) -> None:
            order.append("steps")

    monkeypatch.setattr(fits, "find_device", lambda name: torch.device("cpu"))
    monkeypatch.setattr(fits, "warm_attention", lambda *args, **how: order.append("warm-up"))
    monkeypatch.setattr(fits, "_standardise", lambda *args, **how: order.append("scale"))
    monkeypatch.setattr(fits.lightning, "Trainer", Trainer)
    options = dict.fromkeys(("samples", "epochs", "batch_size", "learning_rate", "attention_rate", "warm_up"), 1)
    options |= dict.fromkeys(("weight_decay", "entropy_weight", "gradient_clip", "seed"), 0)
    view = lambda i: None  # noqa: E731
    fits.fit(
        model,
        view,
        torch.tensor([0, 1]),
        checkpoint=tmp_path / "c.ckpt",
        device="cpu",
        say=lambda line: None,
        **options,
    )
    assert order == ["moved", "warm-up", "scale", "trainer", "steps", "moved"]

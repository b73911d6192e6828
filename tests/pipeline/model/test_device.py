"""A model on a device without float64, as Apple's, finds what it finds on the CPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from makers import ROOT

backends = pytest.importorskip("torch.utils.backend_registration")

pytestmark = pytest.mark.skipif(
    not hasattr(backends, "_setup_privateuseone_for_python_backend"), reason="a device in Python needs torch 2.10"
)

ELSEWHERE = """
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from far import Distance
from models import TINY

import stages.sampling.draw
from pipeline.model.sampler import AttentionSampler
from pipeline.model.values import View
from pipeline.train.calibrate import drawn_errors
from stages.augmentation import Augmentation, augment_features

stages.sampling.draw.NO_FLOAT64 = ("far",)
SPECS = [
    TINY,
    replace(TINY, control=True),
    replace(TINY, attention_mpp=16.0, inner_mpp=4.0, region_cells=3, region_samples=3),
]

def found(device, spec):
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (18, 24, 3) if spec.inner_mpp else (36, 48, 3), np.uint8)
    patches = rng.integers(0, 256, (108, 32, 32, 3), np.uint8)
    tissue = rng.random((9, 12)) < 0.8
    torch.manual_seed(1)
    model = AttentionSampler(spec)
    side = 24 + 2 * (model.inner.around if model.inner else 0)
    regions = rng.integers(0, 256, (12, side, side, 3), np.uint8)
    view = View(rgb, tissue, lambda cells: patches[cells], lambda cells: regions[cells])
    for net in (model.attention, model.inner):
        if net is not None:
            torch.nn.init.normal_(net.logit.weight, std=20)
    model.to(device)
    assert model.device.type == device
    generator = torch.Generator("cpu").manual_seed(3)
    out = model([view, view], samples=12, generator=generator, augment=Augmentation())
    loss = torch.nn.functional.cross_entropy(out.logits[:, 0], torch.tensor([0, 2]).to(out.logits.device))
    (loss - 0.1 * out.entropies.mean().to(loss) + out.control_error.to(loss)).backward()
    slopes = [parameter.grad.cpu() for parameter in model.parameters() if parameter.grad is not None]
    model.eval()
    sampled = model.sample(view, generator=generator, tolerance=0.01)
    errors = drawn_errors(model, view, [12], draws=5, generator=generator)[12][1]
    prediction = sampled.prediction
    features = augment_features(torch.ones(9, 4, device=device), torch.ones(4, device=device), generator)
    logits = out.logits.detach().cpu()
    return [features.cpu(), logits, *slopes, prediction.values, prediction.low, prediction.high, errors]

with Distance():
    try:
        torch.ones(2, device="far").double()
    except TypeError as exc:
        print(exc)
for spec in SPECS:
    with Distance():
        there = found("far", spec)
    here = found("cpu", spec)
    assert len(there) == len(here) > 10
    for one, other in zip(there, here, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
print("the same")
"""


def test_it_trains_and_predicts_as_on_the_cpu() -> None:
    """Of one level, with a control variate, of two levels, with augmentation: logits, gradients, a prediction that
    reads on, and the errors that intervals are calibrated by, but for the order in which gradients are summed."""
    # in a process of its own, for the device stays in it
    code = f"import sys; sys.path[:0] = {[str(ROOT), str(Path(__file__).parents[2])]!r}\n{ELSEWHERE}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "there is no float64 on this device\nthe same\n", done.stderr[-2000:]

"""The model that reads a few patches in place of a teacher: of what it is an estimate, and what its parts add up to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from backbones import DIM, tiny
from models import FROZEN, frozen_view, tiny_backbone

from pipeline.model.checkpoint import load_model, save_model
from pipeline.model.distilled_model import DistilledModel
from stages.mil.sizes import TeacherSizes

__all__ = ["tiny"]  # a fixture

SIZES = TeacherSizes(members=2, dim=DIM, hidden=5, gates=4, branches=3, classes=3, gated=True)
SPEC = replace(FROZEN, context=(), fine_components=0, members=1, uniform=0.2, teacher=SIZES)


def distilled(*, seed: int = 0) -> DistilledModel:
    """One whose student and teacher are both random, and have nothing in common."""
    model = DistilledModel(SPEC, backbone=tiny_backbone(dim=DIM)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in model.state_dict().values():
            value.copy_(0.3 * torch.randn(value.shape, generator=generator))
    return model


def test_all_patches_give_the_teachers_own_prediction() -> None:
    model, view = distilled(), frozen_view()
    cells = np.flatnonzero(view.tissue)
    found = model.sample(view, generator=torch.Generator().manual_seed(0), samples=len(cells)).prediction
    wanted = model.teacher.logits(model.encode(view, cells))
    assert found.logits.tolist() == pytest.approx(wanted.tolist(), abs=1e-4)
    assert found.reach == 0


@pytest.mark.parametrize("how", [{"scheme": "iid"}, {"scheme": "systematic"}, {"tolerance": 1e-3}], ids=str)
def test_what_patches_add_and_what_is_foretold_sum_to_the_prediction(how: dict[str, Any]) -> None:
    """However reading ends, and of all that was read."""
    model, view = distilled(), frozen_view()
    found = model.sample(view, generator=torch.Generator().manual_seed(1), samples=12, **how)
    attention = model.attend(view)
    cells, weights = torch.from_numpy(found.cells), torch.from_numpy(found.weights)
    added = attention.added(cells[None], torch.from_numpy(found.features)[None], weights[None])[0, :, 0]
    q = attention.log_attention[cells].exp()
    assert (attention.known[0] + ((weights * q)[:, None] * added).sum(0) - found.prediction.logits).abs().max() < 1e-9
    assert found.foretold is not None
    total = model.teacher.bias.double() + found.foretold.sum(0) + found.adds.sum(0)
    assert (total - found.prediction.logits).abs().max() < 1e-9


def test_how_it_moves_is_the_derivative_by_the_weights() -> None:
    model, view = distilled(), frozen_view()
    attention = model.attend(view)
    cells = torch.from_numpy(np.flatnonzero(view.tissue)[:6])
    features = model.encode(view, cells.numpy())[None]
    weights = torch.linspace(0.5, 3, 6, dtype=torch.float64).requires_grad_()
    q = attention.log_attention[cells].exp()
    added = attention.added(cells[None], features, weights[None])[0, :, 0]
    total = ((weights * q)[:, None] * added).sum(0)
    moved = attention.moved(cells[None], features, weights[None])[0, :, 0].detach()
    for c in range(3):
        (slope,) = torch.autograd.grad(total[c], weights, retain_graph=True)
        assert (slope / q - moved[:, c]).abs().max() < 1e-6 * moved.abs().max()


def test_many_draws_are_about_the_teacher_and_more_patches_are_nearer() -> None:
    """The ratio's bias is of the order of 1 / N: it falls with N, and so does the error."""
    model, view = distilled(), frozen_view(12, 12)
    cells = np.flatnonzero(view.tissue)
    features = torch.zeros(view.tissue.size, DIM)
    features[torch.from_numpy(cells)] = model.encode(view, cells)
    wanted = model.teacher.logits(features[torch.from_numpy(cells)]).double()
    attention, generator = model.attend(view), torch.Generator().manual_seed(0)
    errors = []
    for n in (8, 64):
        (drawn,) = model.draw([view], [attention], samples=n, generator=generator, repeats=200)
        errors.append(drawn.logits(drawn.say(features[drawn.cells]))[:, 0] - wanted)
    few, many = (one.square().mean().sqrt() for one in errors)
    assert many < few / 2
    assert errors[1].mean(0).norm() < errors[1].norm(dim=1).mean() / 3


def test_a_checkpoint_gives_the_model_back(tmp_path: Path, tiny: object) -> None:
    model = distilled()
    save_model(model, tmp_path / "model.safetensors")
    again = load_model(tmp_path / "model.safetensors")
    assert again.spec == SPEC
    one, other = (
        m.sample(frozen_view(), generator=torch.Generator().manual_seed(0), samples=6).prediction.logits.tolist()
        for m in (model, again)
    )
    assert one == other

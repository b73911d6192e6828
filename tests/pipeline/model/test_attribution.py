"""What the patches of a model's prediction say, of every kind of model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from models import FROZEN, TINY, frozen_model, frozen_view, randomly, tiny_backbone

from pipeline.model.exhaustive_model import ExhaustiveModel
from pipeline.model.sampler import AttentionSampler
from pipeline.model.slide_model import SlideModel
from pipeline.model.values import Sampled, View
from stages.prediction.stopping import Decide


def exhaustive(head: str) -> SlideModel:
    spec = replace(FROZEN, coarse_mpp=None, samples=0, head=head, uniform=0.0, fine_components=0, members=2)
    return randomly(ExhaustiveModel(spec, backbone=tiny_backbone()))


def learned(**more: object) -> SlideModel:
    torch.manual_seed(0)
    return AttentionSampler(replace(TINY, **more)).eval()


MODELS = {
    "frozen": lambda: frozen_model(),
    "learned": lambda: learned(),
    "control variate": lambda: learned(control=True),
    "blocks": lambda: learned(block=2, samples=16),
    **{head: (lambda head=head: exhaustive(head)) for head in ("gated", "mean", "evidence", "transmil")},
}


def sampled(model: SlideModel, view: View, **how: object) -> Sampled:
    generator = torch.Generator(model.drawing_device).manual_seed(0)
    return model.sample(view, generator=generator, **how)


HOW = {
    "one draw": {},
    "look after look": {"tolerance": 1e-6, "samples": 18},
    "until decided": {"decide": Decide(0.5, 0.01, 1)},
}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("kind", MODELS)
def test_parts_add_up_to_the_logits(kind: str, how: str) -> None:
    """What is known without reading, and what each patch adds."""
    model, view = MODELS[kind]().eval(), frozen_view()
    if model.spec.exhaustive and "samples" in HOW[how]:
        pytest.skip("it reads every cell")
    found = sampled(model, view, **HOW[how])
    with torch.no_grad():
        known = model.attend(view)
    total = known.known[0].double() + found.adds.sum(0)
    assert torch.allclose(total, found.prediction.logits.double(), atol=1e-9, rtol=0)
    assert found.adds.shape == (len(found.cells), 3)
    if found.foretold is not None and kind != "transmil":  # beside a constant, which does not depend on the slide
        other = replace(frozen_view(), patches=lambda cells: 255 - frozen_view().patches(cells))
        with torch.no_grad():
            far = model.attend(other)
        constants = [one.known[0].double() - one.shares().sum((0, 1)) for one in (known, far)]
        assert torch.allclose(*constants, atol=1e-5)


@pytest.mark.parametrize("kind", ["frozen", "learned", "control variate"])
def test_a_cell_by_itself_says_what_it_says_in_reading_everything(kind: str) -> None:
    model, view = MODELS[kind]().eval(), frozen_view()
    few, whole = sampled(model, view), sampled(model, view, samples=int(view.tissue.sum()))
    place = np.searchsorted(whole.cells, few.cells)
    assert torch.allclose(few.own, whole.own[place], atol=1e-6)
    assert torch.allclose(whole.own, whole.adds, atol=1e-9)  # all weights are 1
    assert not whole.spread.any()
    assert few.spread.sum() == pytest.approx(1)


def test_a_patch_of_a_lesion_that_is_drawn_for_sure_leaves_nothing_open() -> None:
    """Its weight is 1: all that it says is said."""
    found = sampled(MODELS["learned"]().eval(), frozen_view())
    sure = np.abs(found.weights - 1) < 1e-9
    assert not found.spread[torch.from_numpy(sure)].any()

"""Scores are of predictions as a run makes them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from models import FROZEN, TINY, frozen_model, frozen_view, tiny_backbone

from pipeline.model.exhaustive_model import ExhaustiveModel
from pipeline.refer.scores import budgets_of, slide_scores
from stages.mil.build import HEADS
from stages.prediction.conformal import WHOLE, scores_of


@pytest.mark.parametrize("samples", [24, 400])
def test_one_draw_scores_what_a_prediction_of_that_draw_says(samples: int) -> None:
    """To the bit's neighbour: of a part of the slide, and of one that is read whole."""
    model, view = frozen_model(), frozen_view(12, 14)
    found = slide_scores(model, view, (samples,), generator=torch.Generator().manual_seed(5), draws=1)
    predicted = model.sample(view, generator=torch.Generator().manual_seed(5), samples=samples).prediction
    np.testing.assert_allclose(found[samples][0], scores_of(predicted.values.numpy()), rtol=1e-6, atol=1e-12)


def test_each_budget_is_drawn_anew_and_again() -> None:
    model, view = frozen_model(), frozen_view(12, 14)
    found = slide_scores(model, view, (8, 24, 400), generator=torch.Generator().manual_seed(0), draws=6, patches=100)
    assert [found[n].shape for n in (8, 24, 400)] == [(6, 3), (4, 3), (1, 3)]
    assert all(len(np.unique(found[n][:, 0])) == len(found[n]) for n in (8, 24))


def test_budgets_reach_from_the_fewest_that_tell_an_interval_to_what_users_ask_for() -> None:
    assert budgets_of(TINY) == (2, 4, 8, 12, 16, 32, 64, 128, 256)
    assert budgets_of(TINY, samples=1000)[-2:] == (512, 1000)
    assert budgets_of(FROZEN)[0] == 2


def test_a_model_that_reads_every_cell_has_one_score_of_its_own_prediction() -> None:
    spec = replace(FROZEN, coarse_mpp=None, samples=0, head=HEADS[0], members=2)
    torch.manual_seed(0)
    model, view = ExhaustiveModel(spec, backbone=tiny_backbone()).eval(), frozen_view()
    found = slide_scores(model, view, budgets_of(spec), generator=torch.Generator())
    predicted = model.sample(view, generator=torch.Generator()).prediction.values
    assert {n: one.tolist() for n, one in found.items()} == {WHOLE: [scores_of(predicted.numpy()).tolist()]}

"""Ways to read a slide that is known whole."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from models import FROZEN, TINY, frozen_model, frozen_view
from torch import Tensor

from pipeline.bench.ways import Way, read_by, ways_of
from pipeline.bench.whole import ReadWhole, read_whole
from pipeline.model.sampler import AttentionSampler
from pipeline.model.slide_model import SlideModel
from pipeline.model.values import View
from stages.prediction.stopping import Decide

TWO = ("a", "b")


def end_to_end() -> AttentionSampler:
    torch.manual_seed(3)
    model = AttentionSampler(replace(TINY, classes=TWO)).eval()
    for parameter in model.attention.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


MODELS = {
    "frozen": lambda: frozen_model(replace(FROZEN, classes=TWO)),
    "blocks": lambda: frozen_model(replace(FROZEN, classes=TWO, block=2)),
    "end to end": end_to_end,
}


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def probabilities(way: Way, known: ReadWhole, view: View, draws: int) -> np.ndarray[Any, Any]:
    opened: dict[int, Tensor] = {}
    read = read_by(way, known, view, draws=draws, generator=seeded(), opened=opened)
    return np.array([one.values for one in read])


@pytest.mark.parametrize("name", MODELS)
def test_what_is_drawn_from_a_slide_that_is_known_is_what_the_model_reads_of_it(name: str) -> None:
    model, view = MODELS[name](), frozen_view(8, 9, tissue=0.9)
    known = read_whole(model, view)
    for how in ({"samples": 8}, {"tolerance": 0.05}, {"decide": Decide(0.5, 0.01, 1)}):
        own, again = (one.sample(view, generator=seeded(), **how) for one in (model, known))  # type: ignore[arg-type]
        np.testing.assert_array_equal(own.cells, again.cells)
        torch.testing.assert_close(own.prediction.values, again.prediction.values, rtol=0, atol=1e-5)
        assert own.side == again.side


@pytest.mark.parametrize("name", MODELS)
def test_uniform_and_attention_are_of_the_same_exhaustive_prediction_and_top_k_is_not(name: str) -> None:
    """Their logits' mean over draws is within four standard errors of it."""
    model, view = MODELS[name](), frozen_view(8, 9, tissue=0.9)
    known = read_whole(model, view)
    assert known.spec.scheme == "systematic"
    (exact,) = probabilities(Way("everything"), known, view, 1)

    def log_odds(p: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        found: np.ndarray[Any, Any] = np.log(p[..., 1] / p[..., 0])
        return found

    for way in ("attention", "uniform"):
        found = log_odds(probabilities(Way(way, 16), known, view, 2000))
        assert len(found) == 2000
        assert found.std() > 0
        assert abs(found.mean() - log_odds(exact)) < 4 * found.std() / np.sqrt(2000)
    top = probabilities(Way("top-k", 16), known, view, 2000)
    assert len(top) == 1
    assert abs(log_odds(top[0]) - log_odds(exact)) > 1e-3


def test_a_slide_of_few_cells_is_read_whole_by_every_way_once() -> None:
    model, view = MODELS["frozen"](), frozen_view(3, 4)
    known = read_whole(model, view)
    (exact,) = probabilities(Way("everything"), known, view, 5)
    for way in ("attention", "uniform", "top-k"):
        (found,) = probabilities(Way(way, 64), known, view, 5)
        np.testing.assert_allclose(found, exact, atol=1e-9)


def test_what_cannot_be_compared_is_said() -> None:
    ways, unlike = ways_of(replace(TINY, inner_mpp=2.0, region_cells=2), [8], [0.1])
    assert {way.name for way in ways} == {"everything", "attention"}
    assert unlike is not None
    assert "two levels" in unlike
    ways, unlike = ways_of(TINY, [8], [0.1])
    assert "decide" not in {way.name for way in ways}
    assert unlike is not None
    assert "decide" in unlike
    ways, unlike = ways_of(replace(FROZEN, classes=TWO), [8], [0.1])
    names = {"everything", "no patch", "attention", "uniform", "top-k", "tolerance", "decide"}
    assert {way.name for way in ways} == names
    assert unlike is None


def test_features_that_are_not_finite_are_no_prediction() -> None:
    model: SlideModel = MODELS["frozen"]()
    view = frozen_view(8, 9)
    known = read_whole(model, view)
    attention = replace(known.map, known=known.map.known * float("nan"))
    broken = ReadWhole(model, attention, torch.zeros(view.tissue.size, 1, 2, dtype=torch.float64))
    with pytest.raises(ValueError, match="not finite"):
        probabilities(Way("attention", 8), broken, view, 3)

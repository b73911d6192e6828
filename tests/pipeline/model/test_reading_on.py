"""Reading on: every read counts, no cell is read twice, and a stop at any look is fair."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from models import TINY, drawing_model, drawn_view, frozen_model, frozen_view
from scipy.stats import binom

from pipeline.model.reading_on import look_totals
from pipeline.model.slide_model import SlideModel
from pipeline.model.spec import ModelSpec
from pipeline.model.values import View
from stages.prediction.stopping import Decide

ROWS, COLUMNS = 9, 12


TWO_LEVELS = replace(TINY, attention_mpp=16.0, inner_mpp=4.0, region_cells=3, region_samples=3)
PRIOR = np.where(np.arange(ROWS * COLUMNS) % 5 == 0, 1.0, 0.0).reshape(ROWS, COLUMNS)
MODELS: dict[str, tuple[SlideModel, View, dict[str, Any]]] = {
    **{
        scheme: (drawing_model(TINY), drawn_view(ROWS, COLUMNS), {"scheme": scheme})
        for scheme in ("systematic", "gumbel", "iid")
    },
    "control": (drawing_model(replace(TINY, control=True)), drawn_view(ROWS, COLUMNS), {}),
    "prior": (drawing_model(TINY), replace(drawn_view(ROWS, COLUMNS), prior=PRIOR / PRIOR.sum()), {}),
    "blocks": (drawing_model(replace(TINY, block=2)), drawn_view(ROWS, COLUMNS), {}),
    "evidence": (frozen_model(), frozen_view(ROWS, COLUMNS), {}),
    "two levels": (drawing_model(TWO_LEVELS), drawn_view(ROWS, COLUMNS, px=2), {}),
}


@contextmanager
def read_once(model: SlideModel, view: View) -> Iterator[None]:
    """What the model makes of the slide is kept: only draws are new."""
    every = np.flatnonzero(view.tissue)
    features = torch.zeros(ROWS * COLUMNS, model.feature_dim)
    features[every] = model.encode(view, every).float()
    attention = model.attend(view)
    model.__dict__.update(encode=lambda view, cells: features[cells], attend=lambda view: attention)
    try:
        yield
    finally:
        del model.__dict__["encode"], model.__dict__["attend"]


def log_q(model: SlideModel, view: View, shown: torch.Tensor) -> tuple[torch.Tensor, Any]:
    """Log of what is drawn from, and what the model makes of the slide."""
    found = model._by_prior(view, model.attend(view))
    return (found.log_attention if model.inner is None else shown), found


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_weights_add_up_to_the_logits_and_no_cell_is_read_twice(name: str) -> None:
    """``logits = known + sum weight q say`` over the different cells, to 1e-9, after three looks."""
    model, view, how = MODELS[name]
    asked: list[int] = []
    encode = model.encode

    def counting(view: View, cells: np.ndarray) -> torch.Tensor:
        asked.extend(cells.tolist())
        return encode(view, cells)

    model.__dict__["encode"] = counting
    try:
        generator = torch.Generator().manual_seed(0)
        found = model.sample(view, generator=generator, tolerance=1e-9, samples=48, **how)
    finally:
        del model.__dict__["encode"]
    assert len(asked) == len(set(asked)) == len(found.cells)
    assert 24 < len(found.cells) <= 48
    log_a, its_map = log_q(model, view, found.log_attention)
    cells = torch.from_numpy(found.cells)
    said = its_map.say(cells, torch.from_numpy(found.features)).double().mean(1)
    parts = torch.from_numpy(found.weights)[:, None] * log_a[cells].double().exp()[:, None] * said
    told = its_map.known.double().mean(0) + parts.sum(0)
    torch.testing.assert_close(told, found.prediction.logits, rtol=0, atol=1e-9)
    assert (found.weights > 0).all()  # an earlier look's reads count


@pytest.mark.parametrize("name", ["systematic", "blocks", "evidence", "two levels"])
@torch.no_grad()
def test_three_looks_are_unbiased_and_less_open_than_their_last(name: str) -> None:
    """Mean of the looks' estimates within four standard errors of reading everything; stopping is not optional here."""
    model, view, how = MODELS[name]
    every = np.flatnonzero(view.tissue)
    with read_once(model, view):
        generator = torch.Generator().manual_seed(3)
        truth = model.sample(view, generator=generator, samples=len(every)).prediction.logits
        found = [
            model.sample(view, generator=generator, tolerance=1e-9, samples=48, **how).prediction.logits
            for _ in range(60)
        ]
    error = torch.stack(found) - truth
    assert (error.mean(0).abs() < 4 * error.std(0) / math.sqrt(len(found))).all()


RISK = 0.1


@torch.no_grad()
def test_decisions_are_wrong_no_more_often_than_stated_though_reading_stops() -> None:
    """Thresholds just beside the truth, so that a look without its share of the risk would err too often."""
    model, view, _ = MODELS["systematic"]
    every = np.flatnonzero(view.tissue)
    with read_once(model, view):
        generator = torch.Generator().manual_seed(5)
        truth = float(model.sample(view, generator=generator, samples=len(every)).prediction.values[1])
        runs, wrong, early = 120, 0, 0
        for run in range(runs):
            away = 0.1 if run % 2 else -0.1
            at = 1 / (1 + (1 / truth - 1) * math.exp(-away))
            found = model.sample(view, generator=generator, decide=Decide(at, RISK, 1))
            assert found.side in ("above", "below")  # all the tissue may be read
            wrong += found.side != ("below" if away > 0 else "above")
            early += len(found.cells) < len(every)
    assert early > runs / 4  # otherwise nothing was optional
    assert wrong <= binom.ppf(0.999, runs, RISK)


DECIDED: dict[str, tuple[ModelSpec, int]] = {
    "labels": (replace(TINY, classes=("x", "y"), task="multilabel"), 1),
    "a grade": (replace(TINY, task="ordinal"), 1),
    "a value": (replace(TINY, classes=("value",), task="regression"), 0),
    "a risk": (replace(TINY, classes=("risk_score",), task="survival"), 0),
    "survival": (replace(TINY, classes=("risk_score",), task="discrete_survival", times=(1.0, 2.0)), 2),
}


@torch.no_grad()
@pytest.mark.parametrize("name", DECIDED)
def test_so_it_is_of_every_task(name: str) -> None:
    """Of labels one, of grades to reach one, of numbers the value, and the chance to be without an event."""
    spec, place = DECIDED[name]
    model, view = drawing_model(spec), drawn_view(ROWS, COLUMNS)
    every = np.flatnonzero(view.tissue)
    with read_once(model, view):
        generator = torch.Generator().manual_seed(6)
        found = model.sample(view, generator=generator, samples=len(every)).prediction
        values, wrong, early = found.values, 0, 0
        truth = float(values[place + 1 :].sum() if spec.task == "ordinal" else values[place])
        runs = 60
        for run in range(runs):
            sign = 1 if run % 2 else -1
            at = (
                truth + sign * 0.1
                if name in ("a value", "a risk")
                else 1 / (1 + (1 / truth - 1) * math.exp(-0.1 * sign))
            )
            drawn = model.sample(view, generator=generator, decide=Decide(at, RISK, place))
            assert drawn.side in ("above", "below")
            wrong += drawn.side != ("below" if sign > 0 else "above")
            early += len(drawn.cells) < len(every)
    assert early > 0
    assert wrong <= binom.ppf(0.999, runs, RISK)


def test_a_decision_ends_with_the_budget_undecided_and_with_the_tissue_decided() -> None:
    """A threshold at the prediction itself is not settled before all is read; then it counts as above."""
    model, view, _ = MODELS["systematic"]
    tissue = int(view.tissue.sum())
    at = model.sample(view, generator=torch.Generator(), samples=tissue).prediction.values
    decide = Decide(float(at[1]) - 1e-12, 0.01, 1)
    found = model.sample(view, generator=torch.Generator().manual_seed(0), decide=decide)
    assert (found.side, len(found.cells)) == ("above", tissue)
    found = model.sample(view, generator=torch.Generator().manual_seed(0), decide=decide, samples=40)
    assert found.side == "undecided"
    assert len(found.cells) <= 40
    easy = Decide(1e-6, 0.01, 1)
    assert 8 < len(model.sample(view, generator=torch.Generator().manual_seed(0), decide=easy).cells) <= 16
    model, view, _ = MODELS["evidence"]
    # where all tissue was surveyed half as many may do
    assert len(model.sample(view, generator=torch.Generator().manual_seed(0), decide=Decide(1e-12, 0.4, 1)).cells) <= 8


@pytest.mark.parametrize(
    ("first", "most", "fewest", "tissue", "totals"),
    [
        (8, 100, 2, 100, [8, 16, 32, 64, 100]),
        (8, 65, 2, 100, [8, 16, 32, 64]),  # one patch tells no variance
        (8, 65, 2, 65, [8, 16, 32, 64, 65]),  # but the last of a slide leaves none to tell
        (32, 20, 8, 100, [20]),
        (8, 5, 2, 5, [5]),
    ],
)
def test_looks_double_what_is_read_up_to_the_budget(
    first: int, most: int, fewest: int, tissue: int, totals: list[int]
) -> None:
    assert look_totals(first, most, fewest=fewest, tissue=tissue) == totals

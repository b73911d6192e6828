"""Reading more where somebody asks: unbiased and covered though the place follows what was drawn, exact at the end."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from models import TINY, drawing_model, drawn_view, frozen_model, frozen_view, sampler_model
from numpy.typing import NDArray
from scipy.stats import binom

from pipeline.model.fold_ensemble import FoldEnsemble
from pipeline.model.reading_more import ReadingMore, in_parts
from pipeline.model.slide_model import SlideModel
from pipeline.model.values import Sampled, View

ROWS, COLUMNS = 9, 12
TWO_LEVELS = replace(TINY, attention_mpp=16.0, inner_mpp=4.0, region_cells=3, region_samples=3)


MODELS: dict[str, tuple[SlideModel, View]] = {
    "thumbnail": (sampler_model(), drawn_view(ROWS, COLUMNS)),
    "blocks": (drawing_model(replace(TINY, block=2)), drawn_view(ROWS, COLUMNS)),
    "evidence": (frozen_model(), frozen_view(ROWS, COLUMNS)),
    "ensemble": (FoldEnsemble([drawing_model(TINY, 1), drawing_model(TINY, 2)]), drawn_view(ROWS, COLUMNS)),
    "two levels": (drawing_model(TWO_LEVELS), drawn_view(ROWS, COLUMNS, px=2)),
}


def started(model: SlideModel, view: View, seed: int = 0) -> tuple[Sampled, ReadingMore]:
    """After what a run reads."""
    found = model.sample(view, generator=torch.Generator().manual_seed(seed))
    known = dict(zip(found.cells.tolist(), torch.from_numpy(found.features), strict=True))
    return found, ReadingMore(model, view, model.attend(view), known)


def around(cell: int, reach: int = 1) -> NDArray[np.bool_]:
    """The cells beside one."""
    place = np.zeros((ROWS, COLUMNS), bool)
    row, column = divmod(cell, COLUMNS)
    place[max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1] = True
    return place


def strongest(found: Sampled) -> int:
    """The cell whose patch says most for the first class: what a user looks at."""
    return int(found.cells[int((found.adds[:, 0] - found.adds[:, 1:].mean(1)).argmax())])


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_with_everything_read_it_is_the_model_that_reads_everything(name: str) -> None:
    model, view = MODELS[name]
    exact = model.sample(view, generator=torch.Generator(), samples=view.tissue.size).prediction
    found, reading = started(model, view)
    calls: list[NDArray[np.int64]] = []

    def encode(view: View, cells: NDArray[np.int64]) -> torch.Tensor:
        calls.append(cells)
        return model.encode(view, cells)

    how: dict[str, Any] = {"elsewhere": 12, "generator": torch.Generator().manual_seed(5), "encode": encode}
    first = reading.read(around(strongest(found)), most=50, **how)
    read = set(first.cells.tolist())
    assert {int(i) for i in np.flatnonzero(around(strongest(found)) & view.tissue)} <= read, "all of the place"
    assert (first.prediction.high > first.prediction.low).all(), "the rest is left to chance"
    last = reading.read(np.ones((ROWS, COLUMNS), bool), most=500, **how)
    torch.testing.assert_close(last.prediction.logits, exact.logits, rtol=0, atol=2e-5)
    assert torch.equal(last.prediction.low, last.prediction.high)
    assert sorted(last.cells) == list(np.flatnonzero(view.tissue))
    assert (last.weights == 1).all()
    asked = [int(cell) for one in calls for cell in one]
    assert len(asked) == len(set(asked)), "no patch is read twice"
    assert not set(asked) & set(found.cells.tolist())
    assert not reading.unread(np.ones((ROWS, COLUMNS), bool)).any()


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_what_patches_add_sums_up_to_the_prediction(name: str) -> None:
    model, view = MODELS[name]
    found, reading = started(model, view)
    how: dict[str, Any] = {"elsewhere": 12, "generator": torch.Generator().manual_seed(2)}
    for most in (4, 40):  # drawn from, then read whole
        told = reading.read(around(strongest(found), 2), most=most, **how)
        total = reading.map.known.double().mean(0) + told.adds.sum(0)
        torch.testing.assert_close(total, told.prediction.logits, rtol=0, atol=1e-9)
        assert told.weights.max() >= 1
        assert float(told.spread.sum()) == pytest.approx(1)


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_what_a_cell_says_by_itself_does_not_go_by_how_it_was_drawn(name: str) -> None:
    """What a map of evidence is drawn from: of a cell that was read it is what reading everything tells of it."""
    model, view = MODELS[name]
    whole = model.sample(view, generator=torch.Generator(), samples=view.tissue.size)
    exact = dict(zip(whole.cells.tolist(), whole.own, strict=True))
    found, reading = started(model, view)
    how: dict[str, Any] = {"elsewhere": 12, "generator": torch.Generator().manual_seed(3)}
    for most in (4, 40):
        told = reading.read(around(strongest(found), 2), most=most, **how)
        of_opened = [  # with two levels attention is known there only
            i
            for i, cell in enumerate(told.cells.tolist())
            if model.inner is None or cell // COLUMNS // 3 * (COLUMNS // 3) + cell % COLUMNS // 3 in reading.opened
        ]
        assert len(of_opened) > 3
        for i in of_opened:
            torch.testing.assert_close(told.own[i], exact[int(told.cells[i])], rtol=1e-5, atol=1e-7)
        assert (told.own.abs().sum(1) > 0).all(), "nothing that was read says nothing, drawn last or not"


@pytest.mark.parametrize(
    "name", ["thumbnail", *(pytest.param(name, marks=pytest.mark.slow) for name in MODELS if name != "thumbnail")]
)
@torch.no_grad()
def test_it_is_unbiased_and_covered_though_the_place_follows_the_draw(name: str) -> None:
    """A user who always looks around the patch that says most, twice: mean within four standard errors of reading
    everything, and both intervals hold it in 95 % of slides together, within the counts' own 99.9 % limit."""
    model, view = MODELS[name]
    every = np.flatnonzero(view.tissue)
    features = torch.zeros(ROWS * COLUMNS, model.feature_dim)
    features[every] = model.encode(view, every).float()
    attention = model.attend(view)
    model.__dict__.update(encode=lambda view, cells: features[cells], attend=lambda view: attention)
    try:
        exact = model.sample(view, generator=torch.Generator(), samples=view.tissue.size).prediction
        logits, missed, runs = [], 0, 120
        for run in range(runs):
            found, reading = started(model, view, seed=run)
            generator, held = torch.Generator().manual_seed(10_000 + run), True
            for _ in range(2):
                found = reading.read(around(strongest(found)), most=50, elsewhere=12, generator=generator)
                low, high = found.prediction.low, found.prediction.high
                held &= bool(((low <= exact.values + 1e-9) & (exact.values <= high + 1e-9)).all())
            logits.append(found.prediction.logits)
            missed += not held
    finally:
        del model.__dict__["encode"], model.__dict__["attend"]
    error = torch.stack(logits) - exact.logits
    assert (error.mean(0).abs() < 4 * error.std(0) / math.sqrt(runs)).all()
    assert float(error.std(0).max()) > 1e-4, "something was left to chance"
    assert missed <= binom.ppf(0.999, runs, 0.05)


@torch.no_grad()
def test_what_ends_early_changes_nothing() -> None:
    model, view = MODELS["thumbnail"]
    found, reading = started(model, view)
    known, told = dict(reading.known), []

    def until(done: int, total: int) -> None:
        told.append((done, total))
        if done >= 4:
            raise InterruptedError

    place, how = around(strongest(found), 2), {"most": 50, "elsewhere": 12}
    with pytest.raises(InterruptedError):
        reading.read(place, generator=torch.Generator().manual_seed(3), encode=in_parts(model.encode, 2, until), **how)
    assert reading.known == known
    assert reading.times == 0
    assert [done for done, _ in told] == [0, 2, 4]
    again = reading.read(place, generator=torch.Generator().manual_seed(3), **how)
    assert len(again.cells) - len(known) == told[0][1]
    assert reading.times == 1

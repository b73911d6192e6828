"""Blocks of cells as a model draws them: budgets, what they estimate, how sure they are."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from models import TINY, sampler_model

from pipeline.asked import check_budget
from pipeline.config.sections import Config
from pipeline.errors import UsageError
from pipeline.model.sampler import AttentionSampler
from pipeline.model.values import View

SPEC = replace(TINY, block=2, samples=16)


@pytest.fixture(scope="module")
def model() -> AttentionSampler:
    return sampler_model(SPEC, spread=10)


@pytest.fixture(scope="module")
def view() -> View:
    """A slide of odd sides, a fifth of it no tissue."""
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (44, 36, 3), np.uint8)
    patches = rng.integers(0, 256, (99, 32, 32, 3), np.uint8) // rng.integers(1, 4, (99, 1, 1, 3), np.uint8)
    return View(rgb, rng.random((11, 9)) < 0.8, lambda cells: patches[cells])


@pytest.mark.parametrize("scheme", ["systematic", "iid"])
def test_draws_of_blocks_are_unbiased_and_tell_their_variance(model: AttentionSampler, view: View, scheme: str) -> None:
    """Of 2000 draws, within four standard errors: the mean is the exhaustive one, the stated variance the true one."""
    features = model.encode(view, np.arange(view.tissue.size))
    with torch.no_grad():
        attention = model.attend(view)
    options = {"generator": torch.Generator().manual_seed(2), "scheme": scheme}
    (whole,) = model.draw([view], [attention], samples=99, **options)
    (drawn,) = model.draw([view], [attention], samples=16, repeats=2000, **options)
    found = model.evidence(drawn, features[drawn.cells])
    error = whole.logits(whole.say(features[whole.cells])) - drawn.logits(drawn.say(features[drawn.cells]))
    assert (error.mean(0).abs() < 4 * error.std(0) / math.sqrt(2000)).all()
    # blocks, not cells, are what chance left: four of them have three degrees of freedom at most
    assert found.freedom.max() <= 3
    said, _, contrasts = model._weighed(drawn, features[drawn.cells])
    patches = drawn.say(features[drawn.cells]).mean(2)
    stated = torch.einsum("bhn,bnc->bhc", contrasts, patches.double()).square().sum(1)
    true = (said.double() - said.double().mean(0)).square()
    gap = stated - true
    assert (gap.mean(0).abs() < 4 * gap.std(0) / math.sqrt(2000)).all()


def test_a_prediction_reads_whole_blocks_within_its_budget(model: AttentionSampler, view: View) -> None:
    found = model.sample(view, generator=torch.Generator().manual_seed(0))
    assert len(found.cells) <= SPEC.samples
    rows, columns = np.divmod(found.cells, 9)
    for r, c in {(r // 2, c // 2) for r, c in zip(rows.tolist(), columns.tolist(), strict=True)}:
        inside = view.tissue[2 * r : 2 * r + 2, 2 * c : 2 * c + 2].sum()
        assert ((rows // 2 == r) & (columns // 2 == c)).sum() == inside
    assert (found.prediction.low < found.prediction.values).all()


def test_a_slide_of_no_more_tissue_than_the_budget_is_read_whole(model: AttentionSampler, view: View) -> None:
    tissue = int(view.tissue.sum())
    found = model.sample(view, generator=torch.Generator().manual_seed(0), samples=tissue)
    assert len(found.cells) == tissue
    torch.testing.assert_close(found.prediction.low, found.prediction.high)


def test_reading_on_ends_with_the_whole_tissue(model: AttentionSampler, view: View) -> None:
    found = model.sample(view, generator=torch.Generator().manual_seed(0), tolerance=1e-9)
    assert len(found.cells) == int(view.tissue.sum())


def test_budgets_of_fewer_than_two_blocks_are_refused() -> None:
    with pytest.raises(UsageError, match="--samples 7 is too few for an interval: give at least 8"):
        check_budget(SPEC, samples=7, scheme=None)
    check_budget(SPEC, samples=8, scheme=None)
    cohort = {"cohort": {"table": "t.csv"}}
    for wrong, said in (
        ({"block": 4, "samples": 31}, "samples must be at least 32 with block: 4, found 31"),
        ({"block": 4, "samples": 32, "train_samples": 15}, "train_samples must be at least 16 with block: 4, found 15"),
    ):
        with pytest.raises(ValueError, match=said):
            Config.model_validate({**cohort, "sampling": wrong})

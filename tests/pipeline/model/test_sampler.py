"""The model as a whole: what its draws estimate."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import torch
from models import TINY as SPEC
from models import sampler_model

from pipeline.model.checkpoint import load_model, save_model
from pipeline.model.sampler import FEATURE_SCALE, AttentionSampler
from pipeline.model.values import View
from stages.prediction.intervals import UNFITTED, weigh
from stages.sampling.draw import draw_judged
from stages.sampling.estimate import entropy


@pytest.fixture(scope="module")
def model() -> AttentionSampler:
    return sampler_model(SPEC)


@pytest.fixture(scope="module")
def view() -> View:
    """A slide that is an array: the model reads patches through a callable and asks nothing else of it."""
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (40, 36, 3), np.uint8)
    patches = rng.integers(0, 256, (100, 32, 32, 3), np.uint8) // rng.integers(1, 4, (100, 1, 1, 3), np.uint8)
    tissue = rng.random((10, 9)) < 0.8
    return View(rgb, tissue, lambda cells: patches[cells])


def exhaustive(model: AttentionSampler, view: View) -> torch.Tensor:
    """Logits of the model that reads every patch, written out."""
    with torch.no_grad():
        attention = model.attend(view).log_attention.exp()
        features = model.encoder(torch.from_numpy(view.patches(np.arange(attention.numel()))))
        return model.head(FEATURE_SCALE * (attention[:, None] * features.double()).sum(0).float())


@pytest.mark.parametrize("scheme", ["systematic", "gumbel", "iid"])
def test_logits_are_unbiased_for_those_of_the_model_that_reads_everything(
    model: AttentionSampler, view: View, scheme: str
) -> None:
    truth = exhaustive(model, view)
    # neither flat nor on a few cells: there is something to weigh and something to miss
    assert 10 < float(entropy(model.attend(view).log_attention.detach()[None]).exp()) < 60
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        draws = [model([view], samples=12, generator=generator, scheme=scheme).logits[0, 0] for _ in range(200)]
        sampled = [model.sample(view, generator=generator, scheme=scheme).prediction.logits for _ in range(200)]
    for logits in (torch.stack(draws).double(), torch.stack(sampled)):
        error = logits.std(0) / math.sqrt(len(logits))
        assert ((logits.mean(0) - truth).abs() < 4 * error).all()  # four standard errors


def test_intervals_cover_the_exhaustive_prediction_at_least_as_often_as_they_say(
    model: AttentionSampler, view: View
) -> None:
    truth = exhaustive(model, view).double().softmax(0)
    generator = torch.Generator().manual_seed(3)
    trials = 300
    hits = torch.zeros(3)
    for _ in range(trials):
        found = model.sample(view, generator=generator, samples=24).prediction
        hits += ((found.low <= truth) & (truth <= found.high)).float()
    # at least the stated 95 %, four standard errors allowed
    assert (hits / trials > 0.95 - 4 * math.sqrt(0.95 * 0.05 / trials)).all(), hits / trials


@pytest.mark.parametrize("scheme", ["systematic", "gumbel", "iid", "topk"])
@pytest.mark.parametrize("samples", [5, 60])
def test_slides_of_one_size_draw_together_what_each_draws_alone(
    model: AttentionSampler, view: View, scheme: str, samples: int
) -> None:
    """Also where one of them has fewer cells than are asked for."""
    few = view.tissue & (np.arange(90).reshape(10, 9) < 40)
    views = [view, View(255 - view.rgb, view.tissue, view.patches), View(view.rgb, few, view.patches)]
    maps = [model.attend(one) for one in views]
    options: dict[str, Any] = {"samples": samples, "scheme": scheme, "judged": False}
    generators = [torch.Generator().manual_seed(7) for _ in range(2)]
    together = model.draw(views, maps, generator=generators[0], **options)
    alone = [
        model.draw([one], [attention], generator=generators[1], **options)[0]
        for one, attention in zip(views, maps, strict=True)
    ]
    for one, other in zip(together, alone, strict=True):
        assert torch.equal(one.cells, other.cells)
        assert torch.equal(one.draw.weights, other.draw.weights)


def test_thumbnails_of_one_size_are_looked_at_together_as_alone(model: AttentionSampler, view: View) -> None:
    views = [view, View(255 - view.rgb, view.tissue, view.patches), View(view.rgb, ~view.tissue, view.patches)]
    together, alone = model.attend_all(views), [model.attend(one) for one in views]
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one.log_attention, other.log_attention)


def test_a_budget_for_every_cell_is_exact_and_says_so(model: AttentionSampler, view: View) -> None:
    found = model.sample(view, generator=torch.Generator().manual_seed(0), samples=1000)
    truth = exhaustive(model, view)
    torch.testing.assert_close(found.prediction.logits.float(), truth, rtol=1e-4, atol=1e-4)
    assert torch.equal(found.prediction.low, found.prediction.high)
    assert sorted(found.cells) == list(np.flatnonzero(view.tissue))
    assert found.missed == pytest.approx(0, abs=1e-9)


def test_only_tissue_is_read_and_nothing_twice(model: AttentionSampler, view: View) -> None:
    asked: list[int] = []

    def patches(cells: np.ndarray) -> da.Array:
        asked.extend(cells)
        return da.from_array(view.patches(cells), chunks=4)

    counting = View(view.rgb, view.tissue, patches)
    found = model.sample(counting, generator=torch.Generator().manual_seed(0), scheme="iid", samples=60)
    assert len(asked) == len(set(asked)) == len(found.cells) <= 60
    assert view.tissue.ravel()[asked].all()
    embedding = (found.weights * found.log_attention.exp().numpy()[found.cells]) @ found.features.astype(np.float64)
    logits = model.head(FEATURE_SCALE * torch.from_numpy(embedding).float())
    torch.testing.assert_close(found.prediction.logits.float(), logits, rtol=1e-4, atol=1e-4)


def test_a_checkpoint_gives_back_the_same_model(model: AttentionSampler, view: View, tmp_path: Path) -> None:
    save_model(model, tmp_path / "model.safetensors")
    again = load_model(tmp_path / "model.safetensors")
    assert again.spec == SPEC
    assert not again.training
    assert torch.equal(exhaustive(again, view), exhaustive(model, view))


def test_reading_on_until_sure_reads_nothing_twice_and_stops_when_it_may(model: AttentionSampler, view: View) -> None:
    asked: list[int] = []

    def patches(cells: np.ndarray) -> np.ndarray:
        asked.extend(cells)
        return view.patches(cells)

    counting = View(view.rgb, view.tissue, patches)
    read = []
    for tolerance in (0.5, 0.05, 1e-6):
        asked.clear()
        found = model.sample(counting, generator=torch.Generator().manual_seed(0), tolerance=tolerance)
        assert len(asked) == len(set(asked)) == len(found.cells)
        assert found.prediction.reach <= tolerance
        read.append(len(asked))
    assert read[0] <= SPEC.samples < read[-1] == view.tissue.sum()
    assert read == sorted(read)
    torch.testing.assert_close(found.prediction.logits.float(), exhaustive(model, view), rtol=1e-4, atol=1e-4)


def test_reading_on_ends_with_the_budget(model: AttentionSampler, view: View) -> None:
    found = model.sample(view, generator=torch.Generator().manual_seed(0), tolerance=1e-6, samples=30)
    assert 12 < len(found.cells) <= 30
    assert found.prediction.reach > 1e-6


def test_intervals_hold_under_optional_stopping(model: AttentionSampler, view: View) -> None:
    """Stopping as soon as an interval is narrow picks the lucky ones: they must hold all the same."""
    truth = exhaustive(model, view).double().softmax(0)
    generator = torch.Generator().manual_seed(4)
    trials = 200
    hits, stopped = torch.zeros(3), 0
    for _ in range(trials):
        sampled = model.sample(view, generator=generator, tolerance=0.12)
        found = sampled.prediction
        hits += ((found.low - 1e-9 <= truth) & (truth <= found.high + 1e-9)).float()
        stopped += len(sampled.cells) < view.tissue.sum()
    assert stopped > trials / 4  # otherwise nothing was optional
    assert (hits / trials > 0.95 - 4 * math.sqrt(0.95 * 0.05 / trials)).all(), hits / trials


def test_a_control_variate_changes_what_is_drawn_from_not_what_is_estimated(view: View) -> None:
    """Logits stay unbiased; the loss of what the thumbnail foretells reaches only the control."""
    model = sampler_model(replace(SPEC, control=True))
    truth = exhaustive(model, view)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        draws = torch.stack([model([view], samples=12, generator=generator).logits[0, 0] for _ in range(200)])
    error = draws.double().std(0) / math.sqrt(len(draws))
    assert ((draws.mean(0) - truth).abs() < 4 * error).all()  # four standard errors
    model([view], samples=12, generator=generator).control_error.backward()
    assert model.control is not None
    assert bool(model.control.weight.grad.any())
    assert all(p.grad is None for p in [*model.attention.parameters(), *model.encoder.parameters()])
    found = model.sample(view, generator=generator, samples=1000)
    torch.testing.assert_close(found.prediction.logits.float(), truth, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("top", [0.7, 0.95])
def test_intervals_of_independent_draws_hold_where_one_cell_has_most_of_the_attention(top: float) -> None:
    """Most draws are of that cell: their likeness says nothing of the others."""
    generator = torch.Generator().manual_seed(0)
    a = torch.full((300,), (1 - top) / 299, dtype=torch.float64)
    a[7] = top
    odds = torch.randn(300, generator=generator, dtype=torch.float64)
    drawn = draw_judged(a.log().expand(1000, -1), 8, scheme="iid", generator=generator)
    shares = a[drawn.cells]
    patches = torch.stack([torch.zeros_like(shares), odds[drawn.cells]], 2)
    logits = ((drawn.weights * shares).unsqueeze(2) * patches).sum(1)
    told = weigh(logits, patches, drawn.contrasts * shares.unsqueeze(1), cells=drawn.cells)
    half = UNFITTED.half_width(told, 8)[:, 1]
    held = ((logits[:, 1] - a @ odds).abs() <= half).double().mean()
    assert held > 0.95 - 4 * math.sqrt(0.95 * 0.05 / 1000)

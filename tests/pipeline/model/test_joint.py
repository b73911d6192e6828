"""A patient's slides as one bag: what is drawn over all of them is unbiased for the model that reads all of them."""

from __future__ import annotations

import math
from dataclasses import replace

import dask.array as da
import numpy as np
import pytest
import torch
from enumeration import EXACT, UNBIASED, outcomes_of
from models import FROZEN, TINY, exhaustive_model, frozen_model, frozen_view, one_bag, sampler_model
from numpy.typing import NDArray
from torch import Tensor

from pipeline.model.evidence_model import EvidenceModel
from pipeline.model.fold_ensemble import FoldEnsemble
from pipeline.model.joint import PartError, joint_view, spared
from pipeline.model.reading import UnreadError
from pipeline.model.slide_model import SlideModel
from pipeline.model.values import PlacedDraw, View
from stages.mil.build import HEADS
from stages.sampling.estimate import entropy
from stages.slide.facts import SlideError


def row(tissue: list[bool], seed: int) -> View:
    """A slide of one row."""
    return replace(frozen_view(1, len(tissue), seed=seed), tissue=np.array([tissue]))


def patient(apart: int = 3) -> tuple[list[View], View]:
    """Three slides of different sizes, and all of them."""
    slides = [frozen_view(5, 6, seed=1), frozen_view(3, 9, seed=2), frozen_view(7, 4, seed=3)]
    return slides, joint_view(slides, apart)


def features_of_all(model: EvidenceModel, view: View) -> Tensor:
    """Features (K, D) of all cells; 0 off the tissue."""
    features = torch.zeros(view.tissue.size, model.feature_dim)
    cells = np.flatnonzero(view.tissue)
    features[cells] = model.encode(view, cells)
    return features


@pytest.mark.parametrize("scheme", UNBIASED)
def test_the_mean_over_every_joint_draw_is_the_model_that_reads_all_slides(scheme: str) -> None:
    model = frozen_model(FROZEN).double()
    slides = [row([True, False, True], 1), row([True, True, True], 2)]
    view = joint_view(slides, model.spec.apart)
    truth = one_bag(model, slides)
    map_ = model.ask(view, each=True)
    cells = np.flatnonzero(view.tissue)
    found = outcomes_of(scheme, map_.log_attention.exp()[cells], 2)  # filler is never drawn
    drawn = replace(found.draw, cells=torch.from_numpy(cells)[found.draw.cells])
    log_q = map_.log_attention.expand(len(found.probability), -1)
    places = torch.arange(log_q.shape[1]).expand_as(log_q)
    placed = PlacedDraw(drawn, log_q, places, map_, entropy(log_q))
    logits = placed.logits(placed.say(features_of_all(model, view)[placed.cells]))
    assert float((logits - truth).detach().abs().max()) > 0.1  # chance has a say
    torch.testing.assert_close(
        torch.einsum("o,okc->kc", found.probability, logits), truth, rtol=0, atol=EXACT, check_dtype=False
    )


def test_a_budget_for_every_cell_of_all_slides_is_exact() -> None:
    model = frozen_model(FROZEN).double()
    slides, view = patient()
    found = model.sample(view, generator=torch.Generator().manual_seed(0), samples=1000)
    truth = torch.einsum("k,kc->c", model.heads.share, one_bag(model, slides))
    torch.testing.assert_close(found.prediction.logits, truth, rtol=0, atol=EXACT)
    assert torch.equal(found.prediction.low, found.prediction.high)
    assert len(found.cells) == sum(int(one.tissue.sum()) for one in slides)
    assert float(found.log_attention.exp().sum()) == pytest.approx(1)


def test_intervals_of_joint_draws_cover_the_model_that_reads_all_slides() -> None:
    model = frozen_model(FROZEN)
    slides, view = patient()
    truth = torch.einsum("k,kc->c", model.heads.share, one_bag(model, slides)).double().softmax(0).detach()
    generator, trials = torch.Generator().manual_seed(3), 120
    hits = torch.zeros(3)
    for _ in range(trials):
        found = model.sample(view, generator=generator, samples=24).prediction
        assert bool((found.low < found.high).all())
        hits += ((found.low <= truth) & (truth <= found.high)).float()
    assert (hits / trials > 0.95 - 4 * math.sqrt(0.95 * 0.05 / trials)).all(), hits / trials


def test_a_model_that_learns_end_to_end_has_one_softmax_and_its_draws_are_unbiased() -> None:
    model = sampler_model(replace(TINY, control=True))
    slides, view = patient()
    map_ = model.attend(view)
    with torch.no_grad():
        logits = torch.cat([model.attention(torch.from_numpy(one.rgb).movedim(-1, 0)).flatten() for one in slides])
    there = torch.from_numpy(np.concatenate([one.tissue.ravel() for one in slides]))
    expected = logits.masked_fill(~there, -torch.inf).double().log_softmax(0)[there]
    torch.testing.assert_close(
        map_.log_attention.double().detach()[view.tissue.ravel()], expected, rtol=1e-5, atol=1e-5
    )
    everything = model.sample(view, generator=torch.Generator().manual_seed(0), samples=1000).prediction.logits
    generator = torch.Generator().manual_seed(2)
    draws = torch.stack([model.sample(view, generator=generator).prediction.logits for _ in range(80)])
    error = draws.std(0) / math.sqrt(len(draws))
    assert ((draws.mean(0) - everything).abs() < 4 * error).all()
    # thumbnails of one size are looked at together, whosever they are
    model = sampler_model()
    one, other = joint_view([slides[0], slides[0]], 3), slides[0]
    for found, view in zip(model.attend_all([one, other]), [one, other], strict=True):
        torch.testing.assert_close(found.log_attention, model.attend(view).log_attention)


@pytest.mark.parametrize("head", HEADS)
def test_heads_of_all_cells_see_one_bag_in_which_slides_are_no_neighbours(head: str) -> None:
    """However far apart the slides are laid, it is the same; and in their order nothing of it changes."""
    model = exhaustive_model(head)
    slides = [frozen_view(5, 6, seed=1), frozen_view(4, 7, seed=2)]
    how = {"generator": torch.Generator()}
    found, far, turned = (
        model.sample(view, **how)
        for view in (joint_view(slides, model.spec.apart), joint_view(slides, 40), joint_view(slides[::-1], 3))
    )
    for other in (far, turned):
        torch.testing.assert_close(other.prediction.logits, found.prediction.logits, rtol=1e-4, atol=1e-4)
    assert len(found.cells) == sum(int(one.tissue.sum()) for one in slides)
    alone = model.sample(slides[0], **how)
    assert not torch.allclose(alone.prediction.logits, found.prediction.logits, atol=1e-3)


MODELS = {
    "evidence": lambda: frozen_model(FROZEN),
    "end to end": sampler_model,
    "all cells": lambda: exhaustive_model("gated"),
    "folds": lambda: FoldEnsemble([frozen_model(FROZEN, seed=1), frozen_model(FROZEN, seed=2)]),
    "end-to-end folds": lambda: FoldEnsemble([sampler_model(), sampler_model()]),
}


@pytest.mark.parametrize("kind", MODELS)
def test_a_patient_with_one_slide_is_that_slide_to_the_bit(kind: str) -> None:
    model: SlideModel = MODELS[kind]()
    slide = frozen_view(5, 6)
    one, other = (
        model.sample(view, generator=torch.Generator().manual_seed(0)) for view in (slide, joint_view([slide], 3))
    )
    for name in ("logits", "low", "high"):
        assert torch.equal(getattr(one.prediction, name), getattr(other.prediction, name))
    assert torch.equal(one.log_attention, other.log_attention)
    np.testing.assert_array_equal(one.cells, other.cells)


@pytest.mark.parametrize("kind", MODELS)
def test_every_kind_of_model_predicts_a_patient(kind: str) -> None:
    model: SlideModel = MODELS[kind]()
    _, view = patient()
    found = model.sample(view, generator=torch.Generator().manual_seed(0))
    assert view.tissue.ravel()[found.cells].all()
    assert bool(found.prediction.logits.isfinite().all())
    if model.spec.samples:
        assert len(found.cells) == model.spec.samples


def test_reading_on_until_it_is_sure_and_a_prior_go_by_all_slides() -> None:
    model = frozen_model(FROZEN)
    slides, view = patient()
    found = model.sample(view, generator=torch.Generator().manual_seed(0), tolerance=0.01)
    assert found.prediction.reach <= 0.01
    assert 12 < len(found.cells) <= int(view.tissue.sum())
    # all that a prior says of the third slide is on one cell, and each slide has the share of its tissue
    priors = [one.tissue / one.tissue.sum() for one in slides]
    cell = int(np.flatnonzero(slides[2].tissue)[5])
    priors[2] = np.eye(1, slides[2].tissue.size, cell).reshape(slides[2].tissue.shape)
    given = joint_view([replace(one, prior=prior) for one, prior in zip(slides, priors, strict=True)], 3)
    assert given.prior is not None
    assert given.prior.sum() == pytest.approx(1)
    at = int(given.stack.cells(2, np.array([cell]))[0])
    assert given.prior.flat[at] == pytest.approx(slides[2].tissue.sum() / view.tissue.sum())
    assert at in model.sample(given, generator=torch.Generator().manual_seed(0)).cells
    truth = torch.einsum("k,kc->c", model.heads.share, one_bag(model, slides)).double()
    whole = model.sample(given, generator=torch.Generator(), samples=1000).prediction.logits
    torch.testing.assert_close(whole, truth, rtol=1e-4, atol=1e-4)


def broken(view: View, lost: list[str]) -> View:
    """A slide whose patches cannot be read, and a patient's other slides go on."""

    def read(block: NDArray[np.uint8]) -> NDArray[np.uint8]:
        raise SlideError("its disk is gone")

    def patches(cells: NDArray[np.int64]) -> da.Array:
        return da.zeros((len(cells), 2, 2, 3), np.uint8).map_blocks(read, meta=np.zeros((0, 0, 0, 0), np.uint8))

    return replace(view, patches=patches, lose=lost.append)


@pytest.mark.parametrize("kind", ["evidence", "end to end", "all cells"])
def test_what_cannot_be_read_is_told_of_its_slide(kind: str) -> None:
    model: SlideModel = MODELS[kind]()
    slides, _ = patient()
    lost: list[str] = []
    view = joint_view([slides[0], broken(slides[1], lost), slides[2]], 3)
    with pytest.raises(UnreadError) as raised:
        model.sample(view, generator=torch.Generator(), **({"samples": 60} if model.spec.samples else {}))
    (reason,) = raised.value.reasons.values()
    assert isinstance(reason, PartError)
    assert str(reason) == str(raised.value) == "its disk is gone"
    assert spared(raised.value, "in epoch 3: its disk is gone")
    assert lost == ["in epoch 3: its disk is gone"]
    assert not spared(SlideError("of one slide"), "nobody goes on")

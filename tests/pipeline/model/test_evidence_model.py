"""The model on a frozen encoder: over every draw there is, what it estimates is what reading everything gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import dask
import numpy as np
import pytest
import torch
from enumeration import EXACT, UNBIASED, outcomes_of
from models import FROZEN, frozen_model, frozen_view, one_bag, tiny_backbone
from torch import Tensor

from pipeline.model.evidence_model import EvidenceModel
from pipeline.model.reading import UnreadError
from pipeline.model.values import PlacedDraw, View
from pipeline.train.calibrate import drawn_errors
from stages.encoder.feature_store import FeatureKey, FeatureStore
from stages.prediction.intervals import UNFITTED
from stages.sampling.estimate import entropy
from stages.slide.facts import SlideError


def small(tissue: list[bool]) -> View:
    """A slide of one row."""
    return replace(frozen_view(1, len(tissue)), tissue=np.array([tissue]))


SLIDES = {"all tissue": [True] * 5, "gaps": [True, False, True, True, True]}


def exact(seed: int = 1, **changes: object) -> EvidenceModel:
    """In float64, so that only a bias can be seen."""
    return frozen_model(replace(FROZEN, **changes), seed=seed).double()


def exhaustive(model: EvidenceModel, view: View) -> Tensor:
    """Logits (K, C) of the members that read every patch, cell by cell, as the model's docstring writes them."""
    return one_bag(model, [view])


def every_draw(model: EvidenceModel, view: View, scheme: str, n: int, *, each: bool) -> tuple[Tensor, Tensor]:
    """Probability (O,) and logits (O, M, C) of all draws that there are."""
    map_ = model.ask(view, each=each)
    found = outcomes_of(scheme, map_.log_attention.exp(), n)
    log_q = map_.log_attention.expand(len(found.probability), -1)
    places = torch.arange(log_q.shape[1]).expand_as(log_q)
    drawn = PlacedDraw(found.draw, log_q, places, map_, entropy(log_q))
    features = torch.zeros(view.tissue.size, model.feature_dim)
    cells = np.flatnonzero(view.tissue)
    features[cells] = model.encode(view, cells)
    return found.probability, drawn.logits(drawn.say(features[drawn.cells]))


@pytest.mark.parametrize("scheme", UNBIASED)
@pytest.mark.parametrize(("slide", "control"), [("all tissue", 0.0), ("all tissue", 10.0), ("gaps", 1.0)])
def test_the_mean_over_every_draw_is_the_model_that_reads_everything(scheme: str, slide: str, control: float) -> None:
    """Each member's logits and, through autograd, the gradient to each of its numbers; whatever is foretold."""
    model, view = exact(), small(SLIDES[slide])
    model.control *= control
    model.forget()
    truth = exhaustive(model, view)
    probability, logits = every_draw(model, view, scheme, 2, each=True)
    mean = torch.einsum("o,okc->kc", probability, logits)
    assert float((logits - truth).detach().abs().max()) > 0.1  # chance has a say
    torch.testing.assert_close(mean, truth, rtol=0, atol=EXACT)
    direction = torch.randn(truth.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    parameters = dict(model.named_parameters())
    ours, theirs = (
        torch.autograd.grad((direction * values).sum(), list(parameters.values()), retain_graph=True)
        for values in (mean, truth)
    )
    for name, one, other in zip(parameters, ours, theirs, strict=True):
        assert bool(other.abs().sum() > 0), name
        torch.testing.assert_close(one, other, rtol=0, atol=10 * EXACT, msg=name)


@pytest.mark.parametrize("scheme", UNBIASED)
def test_the_ensemble_is_the_members_mean_by_their_shares_in_every_draw(scheme: str) -> None:
    model, view = exact(), small(SLIDES["gaps"])
    _, each = every_draw(model, view, scheme, 2, each=True)
    _, together = every_draw(model, view, scheme, 2, each=False)
    torch.testing.assert_close(together[:, 0], torch.einsum("k,okc->oc", model.heads.share, each), rtol=0, atol=EXACT)


def test_what_foretells_well_leaves_little_to_chance() -> None:
    """Where the control variate gives the fine features themselves, every draw is exact."""
    model, view = exact(), small(SLIDES["all tissue"])
    fine = model.whitening(model.encode(view, np.arange(5)))
    x = model.regressors(view)
    model.control.copy_(torch.linalg.pinv(x) @ fine)  # 5 cells, 9 regressors: without a rest
    model.forget()
    _, logits = every_draw(model, view, "iid", 2, each=True)
    torch.testing.assert_close(logits, exhaustive(model, view).expand_as(logits), rtol=0, atol=1e-7)


def test_a_budget_for_every_cell_is_exact_and_says_so() -> None:
    model, view = exact(), frozen_view()
    found = model.sample(view, generator=torch.Generator().manual_seed(0), samples=1000)
    truth = torch.einsum("k,kc->c", model.heads.share, exhaustive(model, view))
    torch.testing.assert_close(found.prediction.logits, truth, rtol=0, atol=EXACT)
    assert torch.equal(found.prediction.low, found.prediction.high)
    assert found.cells.tolist() == np.flatnonzero(view.tissue).tolist()
    assert found.missed == pytest.approx(0, abs=1e-9)


def test_every_tissue_cell_may_be_drawn_and_no_other_however_sure_attention_is() -> None:
    """Some of the draw goes evenly over the tissue; what users are shown is the attention without that."""
    model, view = exact(uniform=0.3), frozen_view()
    with torch.no_grad():
        model.heads.log_sharpness.fill_(6.0)
    map_ = model.attend(view)
    tissue = torch.from_numpy(view.tissue.ravel())
    assert map_.shown is not None
    assert float(map_.shown.exp()[tissue].min()) < 1e-6
    assert float(map_.log_attention.exp()[tissue].min()) >= 0.3 / int(tissue.sum()) - EXACT
    for one in (map_.log_attention, map_.shown):
        assert float(one.exp().sum()) == pytest.approx(1)
        assert not one.exp()[~tissue].any()
    sampled = model.sample(view, generator=torch.Generator().manual_seed(0))
    assert torch.equal(sampled.log_attention, map_.shown)


def test_attention_is_the_mean_of_the_members_by_their_shares() -> None:
    """Over classes, too; a member that counts nothing is not drawn for."""
    model, view = exact(uniform=0.0), frozen_view()
    model.heads.share.copy_(torch.tensor([0.5, 0.0, 0.3, 0.2], dtype=torch.float64))
    a = model.heads.log_attention(model.heads.scores(model.survey(view).context)).exp()
    mean = torch.einsum("k,kcn->n", model.heads.share, a) / a.shape[1]
    found = model.attend(view).log_attention.exp()[torch.from_numpy(view.tissue.ravel())]
    torch.testing.assert_close(found, mean, rtol=0, atol=EXACT)


def test_directions_are_dropped_in_training_by_the_generator_and_never_after_it() -> None:
    model, view = exact(), frozen_view()

    def known(seed: int | None) -> Tensor:
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        return model.ask(view, generator=generator, each=True, dropout=0.2).known

    assert torch.equal(known(0), known(None))
    model.train()
    assert torch.equal(known(0), known(0))
    assert not torch.equal(known(0), known(1))
    assert torch.equal(known(None), exact().ask(view, each=True).known)
    assert not model.backbone.body.training


def test_without_patches_a_step_knows_what_the_coarse_scale_tells() -> None:
    """And reads none: this is how training begins."""
    model, view = exact().train(), frozen_view()

    def refuse(cells: object) -> None:
        raise AssertionError("a patch was read")

    blind = replace(view, patches=refuse)
    out = model([blind, blind], samples=0, generator=torch.Generator().manual_seed(0))
    assert out.logits.shape == (2, 4, 3)
    out.logits.sum().backward()
    assert all(bool(parameter.grad.abs().sum() > 0) for parameter in model.parameters())


def test_intervals_hold_what_they_say_at_least_nine_times_in_ten() -> None:
    """Stated 95 % of 1 600 draws, 100 of each of 16 slides of 116 patches of which 12 are read."""
    model, generator = frozen_model(), torch.Generator().manual_seed(3)
    held = []
    for seed in range(16):
        view = frozen_view(12, 12, seed=seed)
        evidence, errors = drawn_errors(model, view, [12], draws=100, generator=generator)[12]
        held.append(float((errors.abs() <= UNFITTED.half_width(evidence, 12)).double().mean()))
    assert 0.9 <= np.mean(held) < 1, held


# -- features that are kept ----------------------------------------------------------------------------------------


def shown(model: EvidenceModel) -> int:
    """Patches that the network was shown, of both scales."""
    return int(model.backbone.body.shown)  # type: ignore[arg-type]


def predicted(model: EvidenceModel, view: View) -> Tensor:
    return model.sample(view, generator=torch.Generator().manual_seed(0), samples=1000).prediction.logits


def test_what_was_encoded_once_is_not_encoded_again(tmp_path: Path) -> None:
    """By another model, of other heads, by one of another process, or of another slide of the same content."""
    view, backbone = frozen_view(named="a"), tiny_backbone()
    first = frozen_model(store=FeatureStore(tmp_path), backbone=backbone)
    logits = predicted(first, view)
    cells = int(view.tissue.sum())
    assert shown(first) == 2 * cells  # each at both scales
    assert torch.equal(predicted(first, view), logits)
    for store in (first.store, FeatureStore(tmp_path)):
        assert torch.equal(predicted(frozen_model(store=store, backbone=backbone), frozen_view(named="a")), logits)
        assert not torch.equal(predicted(frozen_model(seed=2, store=store, backbone=backbone), view), logits)
    assert shown(first) == 2 * cells


@pytest.mark.parametrize("change", ["network", "slide", "µm/px", "pixels", "grid"])
def test_what_makes_another_feature_is_encoded_anew(tmp_path: Path, change: str) -> None:
    view, store = frozen_view(named="a"), FeatureStore(tmp_path)
    predicted(frozen_model(store=store), view)

    def other(encoder: str, dim: int) -> FeatureKey:
        assert view.key is not None
        changed = {"slide": {"content": "b"}, "µm/px": {"mpp": 9.0}, "pixels": {"px": 9}, "grid": {"place": (1,)}}
        return replace(view.key(encoder, dim), **changed.get(change, {}))  # type: ignore[arg-type]

    backbone = tiny_backbone(seed=int(change == "network"))
    again = frozen_model(store=store, backbone=backbone)
    again.encode(replace(view, key=other), np.flatnonzero(view.tissue))
    assert shown(again) == int(view.tissue.sum())


def test_without_a_store_it_finds_the_same(tmp_path: Path) -> None:
    """Features are kept to three digits: logits of some units differ in the third after the point."""
    view = frozen_view(named="a")
    kept, plain = frozen_model(store=FeatureStore(tmp_path)), frozen_model()
    torch.testing.assert_close(predicted(kept, view), predicted(plain, view), rtol=0, atol=0.02)
    assert torch.equal(predicted(plain, replace(view, key=None, coarse_key=None)), predicted(plain, view))
    before = shown(plain)
    plain.encode(view, np.flatnonzero(view.tissue))
    assert shown(plain) == before + int(view.tissue.sum())


def test_a_survey_is_made_anew_after_what_it_is_made_with_has_changed(tmp_path: Path) -> None:
    view, model = frozen_view(named="a"), frozen_model(store=FeatureStore(tmp_path))
    before = model.survey(view)
    assert model.survey(view) is before
    state = {name: value + 1 for name, value in model.state_dict().items()}
    model.load_state_dict(state)
    assert not torch.equal(model.survey(view).context, before.context)


def test_surveys_are_kept_within_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ones used last, and always one."""
    model = frozen_model(store=FeatureStore(tmp_path))
    views = [frozen_view(named=name) for name in "abc"]
    size = model.survey(views[0]).nbytes
    monkeypatch.setattr("pipeline.model.evidence_model.SURVEY_BYTES", 2 * size)
    first, second, _ = (model.survey(view) for view in views)
    assert model.survey(views[1]) is second
    assert model.survey(views[0]) is not first
    monkeypatch.setattr("pipeline.model.evidence_model.SURVEY_BYTES", 0)
    assert model.survey(views[2]) is model.survey(views[2])


def test_of_slides_that_cannot_be_read_it_says_which() -> None:
    """Of several that are asked for together, and at either scale: the others are not blamed."""

    @dask.delayed  # type: ignore[untyped-decorator]
    def fail(cells: object) -> None:
        raise SlideError("damaged")

    views = [frozen_view(seed=seed) for seed in range(4)]
    views[1], views[3] = replace(views[1], coarse=fail), replace(views[3], patches=fail)
    generator = torch.Generator().manual_seed(0)
    for scale, samples, place, some in (("coarse", 0, 1, views), ("fine", 12, 2, [views[0], views[2], views[3]])):
        with pytest.raises(UnreadError) as told:
            frozen_model().train()(some, samples=samples, generator=generator)
        assert list(told.value.reasons) == [place], scale

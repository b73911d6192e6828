"""Members of an ensemble: which patients each is fitted to, and how much it counts by what it says of the others."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from models import FROZEN, frozen_model, frozen_view
from torch import Tensor

from pipeline.model.evidence_model import EvidenceModel
from pipeline.train.bagging import KEENNESS, draw_bags, settle
from pipeline.train.slides import TrainingSlides

PATIENTS = [f"p{i // 2}" for i in range(24)]  # two slides each
LABELS = [int(i // 2 < 3) + (i == 23) * 2 for i in range(24)]  # few of class 1; of class 2 one patient's second slide


@pytest.mark.parametrize("seed", range(5))
def test_every_member_sees_every_class_and_no_patient_is_parted(seed: int) -> None:
    """Also the class of which there is one slide only, of a patient whose first slide is of another."""
    bags = draw_bags(PATIENTS, LABELS, 32, seed=seed)
    assert bags.shape == (24, 32)
    assert torch.equal(bags[0::2], bags[1::2])  # both slides of a patient, as often
    for kind in range(3):
        assert bool((bags[[label == kind for label in LABELS]].sum(0) > 0).all()), kind
    assert bool((bags[:-2] == 0).any(1).all())  # each is left for some to be judged by
    assert bool((bags.sum(0) == 24).all())
    assert torch.equal(bags, draw_bags(PATIENTS, LABELS, 32, seed=seed))
    assert not torch.equal(bags, draw_bags(PATIENTS, LABELS, 32, seed=seed + 1))


def test_a_third_of_the_patients_is_left_out_of_a_bag() -> None:
    bags = draw_bags([f"p{i}" for i in range(200)], [0] * 200, 50, seed=0)
    assert float((bags == 0).float().mean()) == pytest.approx(0.368, abs=0.02)


def test_one_member_sees_every_slide_once() -> None:
    assert torch.equal(draw_bags(PATIENTS, LABELS, 1, seed=0), torch.ones(24, 1))


def opinionated(biases: list[list[float]]) -> EvidenceModel:
    """Members that say the same of every slide, each its own."""
    model = frozen_model(replace(FROZEN, members=len(biases), classes=("a", "b")))
    with torch.no_grad():
        for parameter in (model.heads.weight, model.heads.fine):
            parameter.zero_()
        model.heads.bias.copy_(torch.tensor(biases))
    return model


def settled(model: EvidenceModel, bags: Tensor, labels: list[int]) -> tuple[Tensor, list[int], Tensor, float]:
    views = [frozen_view(seed=i) for i in range(len(labels))]
    slides = TrainingSlides(len(views), lambda i: views[i])
    found = settle(model, slides, torch.tensor(labels), [str(i) for i in range(len(labels))], bags, samples=8, seed=0)
    return model.heads.share.clone(), found.slides, found.values, found.spread


BIASES = [[1.0, 0.0], [0.5, 0.0], [0.0, 1.0], [9.0, 0.0]]
BAGS = torch.tensor([[0, 0, 0, 1], [1, 0, 0, 1], [0, 0, 2, 1], [3, 2, 1, 1]], dtype=torch.float32)


def test_members_count_by_their_loss_on_slides_that_they_did_not_see() -> None:
    """Not by that on the others; one that saw all counts nothing, however sure it is."""
    model = opinionated(BIASES)
    share, slides, probabilities, spread = settled(model, BAGS, [0, 0, 0, 1])
    chance = torch.tensor(BIASES).softmax(1)
    expected = torch.exp(-KEENNESS * (chance[0, 0].log() - chance[:3, 0].log()))
    torch.testing.assert_close(share[:3], expected / expected.sum(), rtol=1e-4, atol=1e-6)
    assert float(share[3]) == 0
    assert share[0] > share[1] > share[2] > 0
    assert slides == [0, 1, 2]  # the last was seen by all
    together = (share[:3, None] * torch.tensor(BIASES)[:3]).sum(0) / share[:3].sum()
    torch.testing.assert_close(probabilities[0], together.softmax(0), rtol=1e-4, atol=1e-5)
    odds = torch.tensor([1.0, 0.5, -1.0, 9.0])  # of class a against b
    assert spread == pytest.approx(float(odds.std()), rel=1e-4)


def test_what_is_settled_is_the_seeds() -> None:
    bags = draw_bags([f"p{i}" for i in range(6)], [0, 1, 2] * 2, 4, seed=0)
    first, second = (settled(frozen_model(), bags, [0, 1, 2] * 2) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[2], second[2])


def test_without_slides_that_were_not_seen_all_count_alike() -> None:
    model = opinionated(BIASES)
    model.heads.share.fill_(0.25)
    share, slides, _, _ = settled(model, torch.ones(4, 4), [0, 0, 0, 1])
    assert share.tolist() == [0.25] * 4
    assert slides == []

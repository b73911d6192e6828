"""Heads over all cells: what every one of them must be, and each one's formula."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from stages.mil.build import HEADS, Pooling, build_pooling
from stages.mil.pooling import GatedPooling, MeanPooling

TISSUE = torch.tensor([[1, 1, 0, 1], [0, 1, 1, 1], [1, 0, 1, 1]], dtype=torch.bool)


def features(seed: int = 0) -> Tensor:
    return torch.randn(int(TISSUE.sum()), 5, generator=torch.Generator().manual_seed(seed))


def pooling(name: str) -> Pooling:
    torch.manual_seed(1)
    made = build_pooling(name, members=3, classes=2, components=5, sides=(1, 3))
    for parameter in made.parameters():
        if not parameter.abs().sum() > 0:
            torch.nn.init.normal_(parameter)
    return made


@pytest.mark.parametrize("name", HEADS)
def test_each_member_attends_to_all_cells_and_judges_by_itself(name: str) -> None:
    made = pooling(name)
    logits, log_attention = made(features(), TISSUE)
    assert logits.shape == (3, 2)
    torch.testing.assert_close(log_attention.exp().sum(1), torch.ones(3))
    only = made(features(), TISSUE, torch.tensor([0.0, 1.0, 1.0])[:, None, None].expand(3, 1, 5))
    assert not torch.allclose(only.logits[0], logits[0])  # what is dropped for a member, the others keep
    torch.testing.assert_close(only.logits[1:], logits[1:])


@pytest.mark.parametrize("name", HEADS)
def test_every_parameter_learns(name: str) -> None:
    made = pooling(name)
    logits, _ = made(features(), TISSUE)
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 1])).backward()
    still = [n for n, p in made.named_parameters() if p.numel() and (p.grad is None or not p.grad.abs().sum() > 0)]
    assert still == []


@pytest.mark.parametrize("name", ["gated", "mean"])
def test_a_bag_has_no_order(name: str) -> None:
    made, order = pooling(name), torch.randperm(int(TISSUE.sum()), generator=torch.Generator().manual_seed(2))
    logits, log_attention = made(features(), TISSUE)
    shuffled = made(features()[order], TISSUE)
    torch.testing.assert_close(shuffled.logits, logits)
    torch.testing.assert_close(shuffled.log_attention, log_attention[:, order])


def test_gated_attention_is_its_formula() -> None:
    """Written out cell by cell, as Ilse et al. have it."""
    made = pooling("gated")
    assert isinstance(made, GatedPooling)
    logits, log_attention = made(features(), TISSUE)
    for k in range(3):
        hidden = [torch.relu(made.embed[k] @ x + made.embed_bias[k, 0]) for x in features()]
        scores = [made.score[k, 0] @ (torch.tanh(made.tanh[k] @ h) * torch.sigmoid(made.gate[k] @ h)) for h in hidden]
        a = torch.stack(scores).softmax(0)
        torch.testing.assert_close(log_attention[k].exp(), a)
        torch.testing.assert_close(logits[k], made.weight[k] @ (a @ torch.stack(hidden)) + made.bias[k])


def test_the_mean_is_that_of_the_cells() -> None:
    made = pooling("mean")
    assert isinstance(made, MeanPooling)
    torch.testing.assert_close(made(features(), TISSUE).logits[1], made.weight[1] @ features().mean(0) + made.bias[1])


def test_cells_of_transmil_hear_of_their_neighbours_on_the_slide() -> None:
    """With attention that tells nothing, where cells lie is all that can change what is said of them."""
    made = pooling("transmil")
    for name, parameter in made.named_parameters():
        if name.endswith("first.out.weight"):
            torch.nn.init.zeros_(parameter)
    apart = torch.zeros(9, 9, dtype=torch.bool)
    apart[::4, ::4] = True  # nine cells, no two within three of each other but for the widest filter's reach
    close = torch.zeros(9, 9, dtype=torch.bool)
    close[:3, :3] = True
    assert int(apart.sum()) == int(close.sum()) == int(TISSUE.sum())
    assert not torch.allclose(made(features(), apart).logits, made(features(), close).logits)


def test_an_unknown_head_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="unknown head 'max'; expected one of evidence, gated, mean, transmil"):
        build_pooling("max", members=1, classes=2, components=2)

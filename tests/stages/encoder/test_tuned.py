"""A pretrained encoder whose last blocks learn: what moves, how fast, and what does not."""

from __future__ import annotations

import pytest
import torch

from stages.encoder.load import load_backbone
from stages.encoder.tuned import TunedEncoder, tuned_encoder


@pytest.fixture
def encoder() -> TunedEncoder:
    torch.manual_seed(0)
    return tuned_encoder(load_backbone("lite0", weights="random"), 8, last=2, save_memory=True).train()


def patches(count: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 48, 48, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_only_the_last_blocks_and_the_map_learn_the_later_the_faster(encoder: TunedEncoder) -> None:
    before = {name: value.clone() for name, value in encoder.named_parameters()}
    groups = encoder.parameter_groups(1e-2, 0.5)
    rates = [group["lr"] for group in groups]
    assert rates[0] == 1e-2
    assert sorted(rates[1:]) == [2.5e-3, 5e-3, 5e-3]  # two blocks, and what comes after them
    features = encoder(patches(3))
    torch.testing.assert_close(features.norm(dim=1), torch.ones(3), rtol=0, atol=1e-4)
    features[:, 0].sum().backward()
    torch.optim.SGD(groups, lr=1.0).step()
    moved = {name for name, value in encoder.named_parameters() if not torch.equal(value, before[name])}
    learning = {name for name, value in encoder.named_parameters() if value.requires_grad}
    assert moved <= learning
    assert len(moved) > len(learning) / 2  # of random weights some saturate
    assert {id(p) for group in groups for p in group["params"]} == {
        id(p) for p in encoder.parameters() if p.requires_grad
    }
    assert 0 < len(learning) < len(before)


def test_one_patch_never_depends_on_the_others(encoder: TunedEncoder) -> None:
    """Also in training: statistics of batch normalisation stay as they came."""
    torch.testing.assert_close(encoder(patches(3))[:1], encoder(patches(3)[:1]), rtol=1e-4, atol=1e-5)


def test_more_blocks_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match="has 16 blocks, of which the last 99 cannot learn"):
        tuned_encoder(load_backbone("lite0", weights="random"), 8, last=99)

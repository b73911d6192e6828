"""Backbones: frozen until they are told to learn, from the last block; what they take and what they give."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace

import pytest
import torch
from encoders import patches
from torch import nn

from stages.encoder.backbone import Backbone
from stages.encoder.card import EncoderCard
from stages.encoder.load import load_backbone


@pytest.fixture
def lite0() -> Backbone:
    """Untrained, which needs no package."""
    torch.manual_seed(0)
    return load_backbone("lite0", weights="random")


def test_it_is_frozen_in_training_too(lite0: Backbone) -> None:
    """No gradient reaches it, and what a patch gives depends on no other patch."""
    batch = patches(3, 64)
    alone = lite0(batch[:1])
    features = lite0.train()(batch)
    assert lite0.frozen
    assert not features.requires_grad
    torch.testing.assert_close(features[:1], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "bad",
    [
        torch.zeros(2, 3, 64, 64, dtype=torch.uint8),
        torch.zeros(2, 64, 64, 3),
        torch.zeros(2, 64, 48, 3, dtype=torch.uint8),
    ],
)
def test_patches_of_another_shape_or_type_are_refused(lite0: Backbone, bad: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"expected patches \(N, P, P, 3\) of uint8"):
        lite0(bad)


def test_no_patches_give_no_features(lite0: Backbone) -> None:
    assert lite0(patches(0, 64)).shape == (0, 1280)


def test_patches_too_small_are_resized(lite0: Backbone) -> None:
    assert lite0.prepare(patches(1, 20)).shape == (1, 3, 32, 32)
    assert "takes patches of 32 px, found 20 px" in lite0.card.misfit(px=20, mpp=1)[0]


def test_a_copy_is_its_own_and_gives_the_same(lite0: Backbone) -> None:
    batch = patches(1, 64)
    for other in (copy.deepcopy(lite0), pickle.loads(pickle.dumps(lite0))):
        torch.testing.assert_close(other(batch), lite0(batch), rtol=0, atol=0)
        nn.init.zeros_(other.body.conv_head.weight)
        assert (other(batch) - lite0(batch)).abs().max() > 0


def test_the_last_blocks_learn_and_what_comes_after_them(lite0: Backbone) -> None:
    """The step changes them and nothing else, and statistics of normalisation stay."""
    before = copy.deepcopy(lite0.body.state_dict())
    assert not lite0.unfreeze(last=2).frozen
    optimiser = torch.optim.SGD(lite0.parameter_groups(rate=0.1, decay=0.5))
    lite0.train()(patches(2, 64)).square().sum().backward()
    optimiser.step()
    moved = {name for name, tensor in lite0.body.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {name.rpartition(".")[0].partition(".conv")[0] for name in moved} == {
        "blocks.5.3",
        "blocks.6.0",
        "conv_head",
    }
    assert [group["lr"] for group in optimiser.param_groups] == [0.05, 0.1, 0.1]


def test_rates_fall_from_the_last_block_to_the_first(lite0: Backbone) -> None:
    """The sixteenth from the last has decay^15, the stem decay^16; every parameter is in one group."""
    groups = lite0.unfreeze().parameter_groups(rate=1.0, decay=0.9)
    assert [group["lr"] for group in groups] == [*(0.9**k for k in range(16, -1, -1)), 1.0]
    assert sum(len(group["params"]) for group in groups) == len(list(lite0.body.parameters()))


@pytest.mark.parametrize("last", [0, 17])
def test_more_blocks_than_it_has_are_refused(lite0: Backbone, last: int) -> None:
    with pytest.raises(ValueError, match=f"lite0 has 16 blocks, of which the last {last} cannot learn"):
        lite0.unfreeze(last=last)


def test_blocks_computed_again_give_the_same_gradient(lite0: Backbone) -> None:
    lite0.unfreeze(last=3)
    gradients = []
    for again in (False, True):
        lite0.zero_grad()
        lite0.checkpoint_gradients(again)(patches(2, 48)).square().sum().backward()
        gradients.append(lite0.body.conv_head.weight.grad.clone())
    torch.testing.assert_close(gradients[0], gradients[1])


def test_half_precision_is_near_and_another_encoder_to_a_cache(lite0: Backbone) -> None:
    batch, identity = patches(2, 64), lite0.card.identity
    exact = lite0(batch)
    near = lite0.in_precision("bfloat16")(batch)
    assert near.dtype == torch.float32
    assert 0 < (near - exact).norm() / exact.norm() < 0.05
    assert lite0.card.identity != identity


def test_a_network_that_gives_no_features_is_told_what_to_say() -> None:
    card = EncoderCard(name="tokens", source="x", dim=4, px=8, mean=(0.5,) * 3, std=(0.5,) * 3)
    backbone = Backbone(nn.Unflatten(1, (3, 1)), card)
    with pytest.raises(ValueError, match=r"tokens gives \(2, 3, 1, 8, 8\), expected \(2, 4\).*readout"):
        backbone(patches(2, 8))
    with pytest.raises(ValueError, match="has no weights that could learn"):
        backbone.unfreeze()
    with pytest.raises(ValueError, match="computes in float32, not bfloat16"):
        backbone.in_precision("bfloat16")
    with pytest.raises(ValueError, match="cannot compute its blocks again"):
        backbone.checkpoint_gradients()


def test_the_centre_is_cut_out_after_resizing() -> None:
    card = EncoderCard(name="crop", source="x", dim=3, px=8, mean=(0.0,) * 3, std=(1 / 255,) * 3, resize=12, crop=8)
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    batch = torch.zeros(1, 12, 12, 3, dtype=torch.uint8)
    batch[:, 2:10, 2:10] = 100
    assert Backbone(pooled, card)(batch).tolist() == [[100.0] * 3]
    assert Backbone(pooled, replace(card, crop=None))(batch).max() < 50

"""Vision transformers by timm's names, whatever their own are, and what their shapes say."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from stages.encoder.layouts import Shapes, canonical, layout_of, shapes_of
from stages.encoder.weights import WeightsError

D = 4
"""Values a token."""


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def timm_state(*, registers: int = 0, positions: int = 10, hidden: int = 8) -> dict[str, Tensor]:
    """One block on pictures of 3 x 3 patches of 2 px."""
    state = {
        "cls_token": noise(1, 1, D),
        "pos_embed": noise(1, positions, D),
        "patch_embed.proj.weight": noise(D, 3, 2, 2),
        "blocks.0.attn.qkv.weight": noise(3 * D, D),
        "blocks.0.attn.qkv.bias": noise(3 * D),
        "blocks.0.mlp.fc1.weight": noise(hidden, D),
        "blocks.0.mlp.fc2.weight": noise(D, 8),
    }
    return state | ({"reg_token": noise(1, registers, D)} if registers else {})


@pytest.mark.parametrize("hidden", [8, 16])
def test_shapes_say_what_a_network_is(hidden: int) -> None:
    """A first layer of twice what the second takes is gated."""
    state, layout = canonical(timm_state(registers=2, hidden=hidden))
    assert layout == "timm"
    assert shapes_of(state) == Shapes(
        width=D,
        depth=1,
        patch=2,
        grid=3,
        registers=2,
        channels=3,
        hidden=hidden,
        gated=hidden == 16,
        scaled=False,
        biased=True,
    )
    assert shapes_of(state).px == 6


@pytest.mark.parametrize(("registers", "before"), [(0, 0), (0, 1), (2, 0), (2, 1), (2, 3)])
def test_tokens_before_the_patches_keep_their_positions(registers: int, before: int) -> None:
    """None of them has one, the class token has, or registers have, too: they are added to the tokens."""
    given = timm_state(registers=registers, positions=9 + before)
    found, _ = canonical(given)
    tokens = torch.cat([given["cls_token"], given.get("reg_token", torch.zeros(1, 0, D))], dim=1)
    tokens[:, :before] += given["pos_embed"][:, :before]
    assert torch.equal(found["pos_embed"], given["pos_embed"][:, before:])
    assert torch.equal(torch.cat([found["cls_token"], found.get("reg_token", torch.zeros(1, 0, D))], dim=1), tokens)


def test_heads_and_strangers_are_left_behind() -> None:
    state = {f"teacher.backbone.{name}": tensor for name, tensor in timm_state().items()}
    beside = {"teacher.backbone.head.weight": noise(2, D), "teacher.dino_head.mlp.weight": noise(2, D)}
    student = {f"student.backbone.{name}": -tensor for name, tensor in timm_state().items()}
    found, _ = canonical({**student, **state, **beside})
    plain, _ = canonical(timm_state())
    assert found.keys() == plain.keys()
    assert all(torch.equal(found[name], plain[name]) for name in plain)


def test_two_networks_in_a_file_are_refused() -> None:
    state = {f"{side}.{name}": tensor for side in ("left", "right") for name, tensor in timm_state().items()}
    with pytest.raises(WeightsError, match=r"2 networks in one file, left\., right\.: keep one"):
        canonical(state)


def test_what_is_no_transformer_is_refused() -> None:
    with pytest.raises(WeightsError, match=r"expected a tensor patch_embed.*, found 1 others, such as conv1.weight"):
        canonical({"conv1.weight": noise(2, 2)})
    with pytest.raises(WeightsError, match="it has no cls_token"):
        canonical({name: tensor for name, tensor in timm_state().items() if name != "cls_token"})
    with pytest.raises(WeightsError, match=r"it has no blocks\.0\.mlp\.fc2"):
        shapes_of({name: tensor for name, tensor in timm_state().items() if "fc2" not in name})


def test_queries_keys_and_values_are_one_tensor() -> None:
    """In this order; one that is missing is told."""
    parts = {
        f"encoder.layer.0.attention.attention.{part}.weight": noise(D, D) + n
        for n, part in enumerate(("query", "key", "value"))
    }
    state = {
        "embeddings.cls_token": noise(1, 1, D),
        "embeddings.position_embeddings": noise(1, 10, D),
        "embeddings.patch_embeddings.projection.weight": noise(D, 3, 2, 2),
        "embeddings.mask_token": noise(1, D),
        **parts,
    }
    found, layout = canonical(state)
    assert layout == "transformers" == layout_of(state)
    assert torch.equal(found["blocks.0.attn.qkv.weight"], torch.cat(list(parts.values())))
    del state["encoder.layer.0.attention.attention.key.weight"]
    with pytest.raises(WeightsError, match=r"query.weight is there, but not .*key.weight"):
        canonical(state)


def test_dinov2s_own_names() -> None:
    """Blocks in chunks, gated MLPs by their own names, a mask token that pictures never see."""
    own = {"blocks.0.": "blocks.0.0.", "mlp.fc1": "mlp.w12", "mlp.fc2": "mlp.w3", "reg_token": "register_tokens"}
    state = timm_state(registers=2, hidden=16)
    named = dict(state)
    for ours, theirs in own.items():
        named = {name.replace(ours, theirs): tensor for name, tensor in named.items()}
    found, layout = canonical({**named, "mask_token": noise(1, D)})
    assert layout == "dinov2"
    assert found.keys() == state.keys()

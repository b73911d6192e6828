"""How released vision transformers name their tensors, and what is said of a network by the shapes of its weights."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isqrt
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from stages.encoder.weights import WeightsError

Layout = Literal["timm", "dinov2", "transformers"]
ANCHORS: dict[str, Layout] = {
    "patch_embed.proj.weight": "timm",
    "embeddings.patch_embeddings.projection.weight": "transformers",
}
"""The tensor that every vision transformer has, as each layout names it."""
DROPPED = ("head", "head_dist", "pooler", "classifier", "mask_token", "embeddings.mask_token", "decoder")
"""What comes with a network's weights and is no part of an encoder."""

_DINOV2 = {"register_tokens": "reg_token", ".mlp.w12.": ".mlp.fc1.", ".mlp.w3.": ".mlp.fc2."}
_TRANSFORMERS = {
    "embeddings.cls_token": "cls_token",
    "embeddings.register_tokens": "reg_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection.": "patch_embed.proj.",
    "encoder.layer.": "blocks.",
    ".layernorm_before.": ".norm1.",
    ".layernorm_after.": ".norm2.",
    ".attention.output.dense.": ".attn.proj.",
    ".layer_scale1.lambda1": ".ls1.gamma",
    ".layer_scale2.lambda1": ".ls2.gamma",
    ".attention.o_proj.": ".attn.proj.",
    ".mlp.down_proj.": ".mlp.fc2.",
    ".intermediate.dense.": ".mlp.fc1.",
    ".output.dense.": ".mlp.fc2.",
    ".mlp.weights_in.": ".mlp.fc1.",
    ".mlp.weights_out.": ".mlp.fc2.",
}
_JOINED = {
    (".attention.attention.query.", ".attention.attention.key.", ".attention.attention.value."): ".attn.qkv.",
    (".attention.q_proj.", ".attention.k_proj.", ".attention.v_proj."): ".attn.qkv.",
    (".mlp.gate_proj.", ".mlp.up_proj."): ".mlp.fc1.",
}
"""What transformers keeps apart, by its names in files and by those of version 5 in memory; timm has it in one."""


@dataclass(frozen=True, slots=True)
class Shapes:
    """What a vision transformer's weights say of it."""

    width: int
    depth: int
    patch: int
    grid: int
    """Patches along a side of the pictures that its position embedding is for."""
    registers: int
    channels: int
    hidden: int
    """Outputs of the first layer of its MLPs."""
    gated: bool
    """Its MLPs are SwiGLU: half of the hidden layer gates the other half."""
    scaled: bool
    """It has layer-scale."""
    biased: bool
    """Queries, keys and values have a bias."""

    @property
    def px(self) -> int:
        """Side in pixels of the pictures that its position embedding is for."""
        return self.grid * self.patch


def layout_of(state: Mapping[str, Tensor]) -> Layout:
    """Whose names a vision transformer's tensors have.

    Raises:
        WeightsError: no vision transformer.
    """
    prefix, anchor = _anchor(state)
    if f"{prefix}mask_token" in state or f"{prefix}register_tokens" in state:
        return "dinov2"
    return ANCHORS[anchor]


def canonical(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Layout]:
    """A vision transformer's tensors by timm's names, float32, without heads, prefixes and what else is beside them.

    The class token's own position, where it has one, is added to it: position embeddings are of patches only.

    Raises:
        WeightsError: no vision transformer.
    """
    (prefix, _), layout = _anchor(state), layout_of(state)
    own = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    own = {name: tensor.float() for name, tensor in own.items() if not _dropped(name)}
    if layout == "transformers":
        own = _joined({_renamed(name, _TRANSFORMERS): tensor for name, tensor in own.items()})
        own = {re.sub(r"^layers\.", "blocks.", re.sub(r"^layernorm\.", "norm.", name)): own[name] for name in own}
    elif layout == "dinov2":
        own = {_renamed(name, _DINOV2): tensor for name, tensor in own.items()}
        # blocks in chunks, as they are trained: blocks.CHUNK.BLOCK
        own = {re.sub(r"^blocks\.\d+\.(\d+)\.", r"blocks.\1.", name): tensor for name, tensor in own.items()}
    return _positions_apart(own), layout


def shapes_of(state: Mapping[str, Tensor]) -> Shapes:
    """What `canonical` tensors say of their network.

    Raises:
        WeightsError: no network has these.
    """
    width, channels, patch, high = state["patch_embed.proj.weight"].shape
    depth = 1 + max((int(name.split(".")[1]) for name in state if name.startswith("blocks.")), default=-1)
    try:
        first, second = (state[f"blocks.0.mlp.fc{n}.weight"] for n in (1, 2))
        grid = isqrt(state["pos_embed"].shape[1])
    except KeyError as exc:
        raise WeightsError(f"no vision transformer that is known: it has no {exc.args[0]}") from exc
    if patch != high or len(first) not in (second.shape[1], 2 * second.shape[1]):
        raise WeightsError(
            f"no vision transformer that is known: patches of {patch} x {high} px, MLP of {len(first)} and "
            f"{second.shape[1]}"
        )
    return Shapes(
        width=width,
        depth=depth,
        patch=patch,
        grid=grid,
        registers=state["reg_token"].shape[1] if "reg_token" in state else 0,
        channels=channels,
        hidden=len(first),
        gated=len(first) != second.shape[1],
        scaled="blocks.0.ls1.gamma" in state,
        biased="blocks.0.attn.qkv.bias" in state,
    )


def resampled(state: dict[str, Tensor], *, grid: int, layout: Layout) -> dict[str, Tensor]:
    """The tensors with the position embedding of another grid of patches, as the layout's own code makes it.

    For a coarser grid timm smooths it, and so do DINOv2 and transformers where there are registers; without them they
    do not, and DINOv2 asks for a tenth of a patch more than there is, against rounding.
    """
    old = state["pos_embed"]
    side = isqrt(old.shape[1])
    if side == grid:
        return state
    picture = old.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    smooth = layout == "timm" or "reg_token" in state
    if layout == "dinov2" and not smooth:
        made = interpolate(picture, scale_factor=(grid + 0.1) / side, mode="bicubic")
    else:
        made = interpolate(picture, size=(grid, grid), mode="bicubic", antialias=smooth)
    return {**state, "pos_embed": made.permute(0, 2, 3, 1).reshape(1, grid * grid, -1)}


def _anchor(state: Mapping[str, Tensor]) -> tuple[str, str]:
    """Prefix of the network's names, and the anchor that was found; of student and teacher the teacher is meant."""
    found = [
        (name.removesuffix(anchor), anchor)
        for name in state
        for anchor in ANCHORS
        if name == anchor or name.endswith(f".{anchor}")
    ]
    for word in ("teacher", "ema"):
        found = [pair for pair in found if word in pair[0]] or found
    if not found:
        raise WeightsError(
            f"no vision transformer that is known: expected a tensor {' or '.join(ANCHORS)}, found "
            f"{len(state)} others, such as {next(iter(state), 'none')}"
        )
    if len(found) > 1:
        raise WeightsError(f"{len(found)} networks in one file, {', '.join(prefix for prefix, _ in found)}: keep one")
    return found[0]


def _dropped(name: str) -> bool:
    return any(name == head or name.startswith(f"{head}.") for head in DROPPED)


def _renamed(name: str, table: Mapping[str, str]) -> str:
    for old, new in table.items():
        name = name.replace(old, new)
    return name


def _joined(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `_JOINED` says, in one tensor each."""
    joined = dict(state)
    for parts, whole in _JOINED.items():
        for name in [name for name in state if parts[0] in name]:
            names = [name.replace(parts[0], part) for part in parts]
            missing = [part for part in names if part not in state]
            if missing:
                raise WeightsError(f"{name} is there, but not {missing[0]}")
            joined[name.replace(parts[0], whole)] = torch.cat([joined.pop(part) for part in names])
    return joined


def _positions_apart(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Positions of patches only: those of the class token and of registers are added to the tokens themselves."""
    positions, cls = state.get("pos_embed"), state.get("cls_token")
    if positions is None or cls is None:
        raise WeightsError(
            f"no vision transformer that is known: it has no {'cls_token' if cls is None else 'pos_embed'}"
        )
    registers = state["reg_token"].shape[1] if "reg_token" in state else 0
    for before in _prefixes(positions.shape[1], registers):
        out = {**state, "pos_embed": positions[:, before:]}
        if before:
            out["cls_token"] = cls + positions[:, :1]
        if before > 1:
            out["reg_token"] = state["reg_token"] + positions[:, 1:before]
        return out
    raise WeightsError(
        f"a position embedding of {positions.shape[1]} tokens with {registers} registers: no square of patches is left"
    )


def _prefixes(tokens: int, registers: int) -> Iterator[int]:
    """How many of the tokens may be of no patch, so that a square of patches is left."""
    for before in dict.fromkeys((0, 1, 1 + registers)):
        if tokens > before and isqrt(tokens - before) ** 2 == tokens - before:
            yield before

"""Vision transformers by the shapes of their weights, of timm's parts, and what of their tokens is the feature."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from stages.encoder.card import Readout
from stages.encoder.layouts import Layout, Shapes, resampled, shapes_of
from stages.encoder.timm_models import import_timm
from stages.encoder.weights import WeightsError, fitted


def usual_epsilon(layout: Layout, shapes: Shapes) -> float:
    """Of layer normalisation, where nothing beside the weights says it: that of the code which they were for."""
    return 1e-12 if layout == "transformers" and not shapes.scaled else 1e-6  # its ViT; its DINOv2 has layer-scale


class TokenReadout(nn.Module):
    """A vision transformer whose feature is made of its tokens: (N, 3, S, S) -> (N, dim).

    ``cls``: the class token. ``mean``: that of the patches' tokens; registers are no patches. ``cls+mean``: one after
    the other. ``cls per channel``: the network sees each colour alone, as a picture of one channel.
    """

    def __init__(self, vit: Any, readout: Readout) -> None:
        super().__init__()
        self.vit: Any = vit
        self.readout = readout

    @property
    def blocks(self) -> nn.Sequential:
        """From the first to the last."""
        blocks: nn.Sequential = self.vit.blocks
        return blocks

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute the blocks again for the gradient, rather than keep what is between them."""
        self.vit.set_grad_checkpointing(enable)

    def forward(self, input: Tensor) -> Tensor:
        """(N, 3, S, S) -> (N, dim)."""
        count, colours = input.shape[:2]
        if self.readout == "cls per channel":
            input = input.reshape(count * colours, 1, *input.shape[2:])
        tokens: Tensor = self.vit.forward_features(input)  # (N, prefix + patches, D)
        if self.readout == "cls per channel":
            return tokens[:, 0].reshape(count, -1)
        parts = {"cls": tokens[:, 0], "mean": tokens[:, self.vit.num_prefix_tokens :].mean(1)}
        return torch.cat([parts[part] for part in self.readout.split("+")], dim=1)


PARTS: dict[Readout, int] = {"cls": 1, "mean": 1, "cls+mean": 2, "cls per channel": 3}
"""How many tokens a feature is made of."""


def build_vit(
    state: Mapping[str, Tensor],
    *,
    heads: int,
    px: int,
    dynamic: bool,
    layout: Layout = "timm",
    epsilon: float | None = None,
) -> tuple[nn.Module, Shapes]:
    """The vision transformer that has these `canonical` weights.

    Args:
        state: its tensors.
        heads: of its attention, which no shape tells.
        px: side in pixels of the pictures that it is for.
        dynamic: it may be given other multiples of its patch.
        layout: whose code its weights were for.
        epsilon: of its layer normalisation; None: as the layout's code has it.

    Raises:
        WeightsError: no such network has these weights.
        ImportError: timm is missing or broken.
    """
    shapes = shapes_of(state)
    if shapes.width % heads:
        raise WeightsError(f"{shapes.width} features cannot be shared out among {heads} heads of attention")
    if px % shapes.patch:
        raise WeightsError(f"pictures of {px} px cannot be cut into the patches of {shapes.patch} px of these weights")
    timm = import_timm("a vision transformer")
    from timm.layers import LayerNorm, SwiGLUPacked
    from timm.models.vision_transformer import VisionTransformer

    gate: dict[str, Any] = {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU} if shapes.gated else {}
    try:
        with torch.device("meta"):  # the weights that come take the place of those that would be made up
            vit: nn.Module = VisionTransformer(
                img_size=px,
                patch_size=shapes.patch,
                in_chans=shapes.channels,
                num_classes=0,
                embed_dim=shapes.width,
                depth=shapes.depth,
                num_heads=heads,
                mlp_ratio=(shapes.hidden + 0.5) / shapes.width,  # it is rounded down
                qkv_bias=shapes.biased,
                init_values=1e-5 if shapes.scaled else None,
                no_embed_class=True,
                reg_tokens=shapes.registers,
                dynamic_img_size=dynamic,
                norm_layer=partial(LayerNorm, eps=epsilon or usual_epsilon(layout, shapes)),
                weight_init="skip",
                **gate,
            )
    except RuntimeError as exc:  # of versions before 1.0.22
        raise ImportError(
            f"timm {timm.__version__} cannot make a network without weights: pip install --upgrade timm"
        ) from exc
    tensors = resampled(dict(state), grid=px // shapes.patch, layout=layout)
    vit.load_state_dict(fitted(tensors, vit), assign=True)
    return vit, shapes

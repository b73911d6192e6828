"""A pretrained network as an encoder of patches: raw features, and a card that says what it is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from stages.encoder.card import EncoderCard, Precision
from stages.encoder.layers import blocks_of, layers_of

BatchNorm = nn.modules.batchnorm._BatchNorm


class Backbone(nn.Module):
    """A pretrained encoder: patches (N, P, P, 3) uint8 -> features (N, dim) float32, as the network gives them.

    Frozen: without gradients, dropout, or statistics that move, until `unfreeze`.

    Args:
        body: (N, 3, S, S) float, normalised -> (N, dim).
        card: what it is; resizing, cropping and normalisation follow it.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, body: nn.Module, card: EncoderCard) -> None:
        super().__init__()
        self.body = body.requires_grad_(False).eval()
        self.card = card
        self.dim = card.dim
        for name, values in (("mean", card.mean), ("std", card.std)):
            self.register_buffer(name, torch.tensor(values).reshape(1, 3, 1, 1) * 255, persistent=False)

    @property
    def frozen(self) -> bool:
        """Whether no weight of it learns: only then are its features worth keeping, and its card's digest true."""
        return not any(parameter.requires_grad for parameter in self.body.parameters())

    def loaded(self) -> Backbone:
        """The encoder itself, ready for pixels; see `NamedEncoder`."""
        return self

    def train(self, mode: bool = True) -> Backbone:
        """As `torch.nn.Module.train`, for what is not frozen; statistics of batch normalisation never move."""
        super().train(mode)
        for module in self.body.modules():
            learns = any(parameter.requires_grad for parameter in module.parameters())
            if isinstance(module, BatchNorm) or not learns:
                module.training = False
        return self

    def forward(self, patches: Tensor) -> Tensor:
        """Patches (N, P, P, 3) uint8 -> features (N, dim) float32.

        Raises:
            ValueError: the patches have another shape or type, or what comes out of the network is no feature.
        """
        square = patches.ndim == 4 and patches.shape[1] == patches.shape[2]
        if not square or patches.shape[-1] != 3 or patches.dtype != torch.uint8:
            raise ValueError(
                f"expected patches (N, P, P, 3) of uint8, found {tuple(patches.shape)} of {patches.dtype}; "
                "pass RGB pixels as they were read"
            )
        if len(patches) == 0:
            return self.mean.new_zeros((0, self.dim))
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            pixels = self.prepare(patches)
            half = self.card.precision == "bfloat16"
            with torch.autocast(pixels.device.type, dtype=torch.bfloat16, enabled=half):
                features: Tensor = self.body(pixels)
        if features.shape != (len(patches), self.dim):
            raise ValueError(
                f"{self.card.name} gives {tuple(features.shape)}, expected {(len(patches), self.dim)}: of a "
                "transformer's tokens say which are the feature, by readout"
            )
        lost = int((~features.isfinite().all(1)).sum()) if self.frozen else 0
        if lost:
            raise ValueError(
                f"{self.card.name} gives features that are no finite numbers for {lost} of {len(patches)} patches"
            )
        return features.float()

    def prepare(self, patches: Tensor) -> Tensor:
        """Patches (N, P, P, 3) uint8 -> what the network is given, (N, 3, S, S): resized, cropped, normalised."""
        pixels = patches.permute(0, 3, 1, 2).to(self.mean.dtype)
        side = self.card.side(patches.shape[1])
        if pixels.shape[-2:] != (side, side):  # as Pillow does it, whose results are 8 bits
            pixels = interpolate(pixels, size=(side, side), mode="bicubic", antialias=True).round().clamp(0, 255)
        if self.card.crop is not None and side > self.card.crop:
            margin = (side - self.card.crop) // 2
            pixels = pixels[..., margin : margin + self.card.crop, margin : margin + self.card.crop]
        return (pixels - self.mean) / self.std

    def enlarged(self, px: int, factor: float) -> Backbone:
        """The same network for patches of ``px`` pixels, which are shown to it ``factor`` times larger where it takes
        patches of any size: a network sees little in what is smaller than what it was trained on.

        The weights are shared; the card says what it does.
        """
        card = self.card.enlarged(px, factor)
        return self if card is self.card else Backbone(self.body, card)

    def in_precision(self, precision: Precision) -> Backbone:
        """The same encoder, computing in this precision from now on; its card says so.

        Raises:
            ValueError: it is a program that computes as it was exported.
        """
        if precision != self.card.precision and not list(self.body.parameters()):
            raise ValueError(f"{self.card.name} computes in {self.card.precision}, not {precision}: it was exported so")
        self.card = replace(self.card, precision=precision)
        return self

    def unfreeze(self, last: int | None = None) -> Backbone:
        """Let the last blocks learn, and what comes after them; None: all of it.

        Raises:
            ValueError: it has no blocks, or fewer.
        """
        if last is None:
            if not list(self.body.parameters()):
                raise ValueError(f"{self.card.name} has no weights that could learn")
            self.body.requires_grad_(True)
            return self.train(self.training)
        count = len(blocks_of(self.body))
        if not 0 < last <= count:
            raise ValueError(f"{self.card.name} has {count} blocks, of which the last {last} cannot learn")
        self.body.requires_grad_(False)
        for layer in layers_of(self.body)[-last - 1 :]:
            for parameter in layer:
                parameter.requires_grad_(True)
        return self.train(self.training)

    def parameter_groups(self, rate: float, decay: float = 1.0) -> list[dict[str, Any]]:
        """What learns, for an optimiser, with rates that fall from the last block to the first: ``rate decay^k``.

        ``k`` counts blocks from the last, whose rate is ``rate``, as is that of what comes after it (ULMFiT: Howard &
        Ruder, 2018).
        """
        layers = layers_of(self.body)
        groups = []
        for index, layer in enumerate(layers):
            learning = [parameter for parameter in layer if parameter.requires_grad]
            if learning:
                groups.append({"params": learning, "lr": rate * decay ** max(len(layers) - 2 - index, 0)})
        return groups

    def checkpoint_gradients(self, enable: bool = True) -> Backbone:
        """Compute blocks again for the gradient, rather than keep what is between them: less memory, more time.

        Raises:
            ValueError: the network cannot.
        """
        switch: Any = getattr(self.body, "set_grad_checkpointing", None)
        if switch is None:
            raise ValueError(f"{self.card.name} cannot compute its blocks again for the gradient")
        switch(enable)
        return self

"""A pretrained network as an encoder of patches: raw features, and a card that says what it is."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from stages.encoder.card import EncoderCard

BatchNorm = nn.modules.batchnorm._BatchNorm


class Backbone(nn.Module):
    """A pretrained encoder: patches (N, P, P, 3) uint8 -> features (N, dim) float32, as the network gives them.

    Frozen: without gradients, dropout, or statistics that move, until `unfreeze`.

    Args:
        body: (N, 3, S, S) float, normalised -> what ``readout`` takes.
        card: what it is; resizing, cropping and normalisation follow it.
        readout: the network's output -> (N, dim).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, body: nn.Module, card: EncoderCard, readout: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.body = body.requires_grad_(False).eval()
        self.card = card
        self.dim = card.dim
        self._readout = readout
        for name, values in (("mean", card.mean), ("std", card.std)):
            self.register_buffer(name, torch.tensor(values).reshape(1, 3, 1, 1) * 255, persistent=False)

    @property
    def frozen(self) -> bool:
        """Whether no weight of it learns: only then are its features worth keeping, and its card's digest true."""
        return not any(parameter.requires_grad for parameter in self.body.parameters())

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
            ValueError: the patches have another shape or type.
        """
        if patches.ndim != 4 or patches.shape[-1] != 3 or patches.dtype != torch.uint8:
            raise ValueError(
                f"expected patches (N, P, P, 3) of uint8, found {tuple(patches.shape)} of {patches.dtype}; "
                "pass RGB pixels as they were read"
            )
        if len(patches) == 0:
            return self.mean.new_zeros((0, self.dim))
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            output = self.body(self.prepare(patches))
            return (output if self._readout is None else self._readout(output)).float()

    def prepare(self, patches: Tensor) -> Tensor:
        """Patches (N, P, P, 3) uint8 -> what the network is given, (N, 3, S, S): resized, cropped, normalised."""
        pixels = patches.permute(0, 3, 1, 2).to(self.mean.dtype)
        side = self.card.side(patches.shape[1])
        if pixels.shape[-2:] != (side, side):  # as Pillow does it, whose results are 8 bits
            pixels = interpolate(pixels, size=(side, side), mode="bicubic", antialias=True).round().clamp(0, 255)
        if self.card.crop is not None:
            margin = (side - self.card.crop) // 2
            pixels = pixels[..., margin : margin + self.card.crop, margin : margin + self.card.crop]
        return (pixels - self.mean) / self.std

    def misfit(self, *, px: int, mpp: float) -> list[str]:
        """What sets patches of ``px`` pixels of ``mpp`` µm/px apart from those that it was trained on, a line each."""
        return self.card.misfit(px=px, mpp=mpp)

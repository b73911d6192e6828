"""Patches -> features: the built-in encoder trained end to end, any timm model, or a local checkpoint of either."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import shorten

import torch
from safetensors.torch import load_file
from torch import Tensor, nn


class PatchEncoder(nn.Module):
    """Any network ``g`` made to give unit features: ``f = h / sqrt(|h|^2 + eps^2)`` with ``h = (g(x) - c) / s``.

    With unit features the attention itself is the minimum-variance proposal. What one patch gives never depends on
    the other patches of the batch: batch normalisation in ``g`` keeps the statistics that it came with.

    Args:
        body: (N, 3, P, P) float, normalised by ``mean`` and ``std`` -> (N, dim).
        dim: length of a feature.
        mean, std: of the colour channels on a scale of 0 to 1.
    """

    mean: Tensor
    std: Tensor
    centre: Tensor
    spread: Tensor

    def __init__(
        self,
        body: nn.Module,
        dim: int,
        *,
        mean: tuple[float, ...] = (0.7, 0.6, 0.7),
        std: tuple[float, ...] = (0.25, 0.25, 0.25),
    ) -> None:
        super().__init__()
        self.body = body
        self.dim = dim
        self.register_buffer("mean", torch.tensor(mean).reshape(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).reshape(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("centre", torch.zeros(dim))
        self.register_buffer("spread", torch.ones(dim))

    def train(self, mode: bool = True) -> PatchEncoder:
        """As `torch.nn.Module.train`, but statistics of batch normalisation stay as they are: draws are not batches."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def forward(self, patches: Tensor) -> Tensor:
        """Patches (N, P, P, 3) uint8 -> unit features (N, dim).

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
        return unit((self._responses(patches) - self.centre) / self.spread)

    def _responses(self, patches: Tensor) -> Tensor:
        responses: Tensor = self.body((patches.permute(0, 3, 1, 2).to(self.mean.dtype) - self.mean) / self.std)
        return responses

    @torch.no_grad()
    def standardise(self, patches: Tensor) -> None:
        """Set ``c`` and ``s`` to mean and standard deviation of ``g`` over patches (N, P, P, 3), once, before training.

        What all patches have in common would otherwise be most of every unit feature, and what tells them apart a
        small angle that training must find first (data-dependent initialisation: Salimans & Kingma, 2016).
        """
        responses = self._responses(patches)
        self.centre.copy_(responses.mean(0))
        self.spread.copy_(responses.std(0).clamp(min=1e-6))


def unit(vectors: Tensor, eps: float = 1e-6) -> Tensor:
    """Scale vectors (..., D) to length 1; the gradient stays finite at 0, where a plain norm has none."""
    return vectors * torch.rsqrt((vectors * vectors).sum(dim=-1, keepdim=True) + eps**2)


def build_encoder(name: str, *, dim: int = 64, pretrained_path: Path | None = None) -> PatchEncoder:
    """Make an encoder.

    Args:
        name: ``small`` (built in), or ``timm:MODEL`` for any model of timm, with random weights.
        dim: length of a feature.
        pretrained_path: checkpoint of weights for the encoder's body, ``.safetensors`` or torch's own format.

    Raises:
        ValueError: unknown name, or a checkpoint that cannot be read or does not fit.
        ImportError: a timm model, and timm is missing or broken.
    """
    if name == "small":
        encoder = PatchEncoder(_small(dim), dim)
    elif name.startswith("timm:"):
        encoder = _from_timm(name.removeprefix("timm:"), dim)
    else:
        raise ValueError(f"unknown encoder {name!r}; expected 'small' or 'timm:MODEL', such as 'timm:resnet18'")
    if pretrained_path is not None:
        _load(encoder.body, pretrained_path)
    return encoder


def _small(dim: int, widths: tuple[int, int] = (16, 32)) -> nn.Module:
    """A filter bank: two convolutions, the mean response over the patch, a linear map.

    No normalisation in between: how strongly a filter responds *is* the texture, and normalising would remove it.
    """
    first = nn.Conv2d(3, widths[0], 7, stride=4, padding=3)
    second = nn.Conv2d(widths[0], widths[1], 3, stride=2, padding=1)
    for layer in (first, second):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    # starts as contrast filters, blind to even colour: stain varies more from slide to slide than structure does
    with torch.no_grad():
        first.weight -= first.weight.mean(dim=(2, 3), keepdim=True)
    pool = nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), pool, nn.Flatten(), nn.Linear(widths[1], dim))


def _from_timm(model: str, dim: int) -> PatchEncoder:
    try:
        import timm
    except (ImportError, RuntimeError) as exc:  # RuntimeError: its torchvision was built for another torch
        raise ImportError(
            f"'timm:{model}' needs timm, which cannot be imported ({exc}); install it with: pip install saccade[timm]"
        ) from exc
    if not timm.is_model(model):
        near = ", ".join(timm.list_models(f"*{model}*")[:5]) or "none with that in its name"
        raise ValueError(f"timm has no model {model!r}; near it: {near}")
    body = timm.create_model(model, pretrained=False, num_classes=dim)
    data = timm.data.resolve_model_data_config(body)
    return PatchEncoder(body, dim, mean=tuple(data["mean"]), std=tuple(data["std"]))


def _load(body: nn.Module, path: Path) -> None:
    """Load weights into a body; never runs code from the file."""
    safe = path.suffix == ".safetensors"
    state: Mapping[str, Tensor]
    try:
        state = load_file(path) if safe else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as exc:  # anything may come out of a file that is no checkpoint, and advice to trust it
        raise ValueError(
            f"{path} cannot be read as weights ({type(exc).__name__}); expected a state dict, saved as .safetensors or "
            "with torch.save(model.state_dict(), ...)"
        ) from exc
    try:
        body.load_state_dict(state)
    except (RuntimeError, TypeError) as exc:
        reason = shorten(str(exc), 300)
        raise ValueError(f"{path} does not fit the encoder: {reason}; check the encoder's name and dim") from exc

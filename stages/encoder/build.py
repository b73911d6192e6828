"""An encoder by its name: the built-in one or any of timm's, with weights of a local checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import shorten

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from stages.encoder.built_in import built_in_encoder
from stages.encoder.patch_encoder import PatchEncoder
from stages.encoder.timm_models import timm_encoder


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
        encoder = built_in_encoder(dim)
    elif name.startswith("timm:"):
        encoder = timm_encoder(name.removeprefix("timm:"), dim)
    else:
        raise ValueError(f"unknown encoder {name!r}; expected 'small' or 'timm:MODEL', such as 'timm:resnet18'")
    if pretrained_path is not None:
        _load(encoder.body, pretrained_path)
    return encoder


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

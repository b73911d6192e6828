"""Weights of networks: read without running code, and told apart by a digest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a state dict in a file, ``.safetensors`` or torch's own; never runs code from it.

    Raises:
        ValueError: missing, or no state dict.
    """
    if not path.is_file():
        raise ValueError(f"{path} is not there; expected a state dict, .safetensors or one of torch.save")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as exc:  # anything may come out of a file that is no checkpoint, and advice to trust it
        raise ValueError(
            f"{path} cannot be read as weights ({type(exc).__name__}); expected a state dict, saved as .safetensors or "
            "with torch.save(model.state_dict(), ...)"
        ) from exc
    if not isinstance(found, Mapping):
        raise ValueError(f"{path} holds a {type(found).__name__}; expected a state dict: names and tensors")
    return {str(name): value for name, value in found.items() if isinstance(value, Tensor)}


def digest_of(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over the tensors in the order of their names: name, type, shape and bytes of each.

    How many batches a normalisation has seen changes nothing that it gives, and is left out.
    """
    sha = hashlib.sha256()
    for name in sorted(name for name in state if not name.endswith("num_batches_tracked")):
        tensor = state[name].detach().cpu().contiguous()
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()

"""Weights of networks: read without running code, and told apart by a digest."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

NESTS = ("teacher", "model_ema", "state_dict", "model", "network", "encoder", "student")
"""Names under which training keeps a network's weights beside other things, what is meant first."""


class WeightsError(ValueError):
    """Weights that cannot be read, or that do not fit; one line that says what was expected and what was found."""


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a state dict in a file, ``.safetensors`` or torch's own; never runs code from it.

    Raises:
        WeightsError: missing, or no state dict.
    """
    if not path.is_file():
        raise WeightsError(f"{path} is not there; expected a state dict, .safetensors or one of torch.save")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as exc:  # anything may come out of a file that is no checkpoint, and advice to trust it
        raise WeightsError(
            f"{path} cannot be read as weights ({type(exc).__name__}); expected a state dict, saved as .safetensors or "
            "with torch.save(model.state_dict(), ...)"
        ) from exc
    while isinstance(found, Mapping) and not any(isinstance(value, Tensor) for value in found.values()):
        inner = next((name for name in NESTS if isinstance(found.get(name), Mapping)), None)
        if inner is None:
            break
        found = found[inner]
    if not isinstance(found, Mapping):
        raise WeightsError(f"{path} holds a {type(found).__name__}; expected a state dict: names and tensors")
    state = {str(name): value for name, value in found.items() if isinstance(value, Tensor)}
    if not state:
        raise WeightsError(f"{path} holds no tensors, but {', '.join(map(str, found)) or 'nothing'}")
    return state


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


def fitted(state: Mapping[str, Tensor], network: nn.Module, *, heads: Collection[str] = ()) -> dict[str, Tensor]:
    """The tensors that a network takes, by its own names: as the file has them, or behind a prefix.

    Args:
        state: names and tensors.
        network: which they are for.
        heads: names of its parts that it has been made without.

    Raises:
        WeightsError: one that it needs is missing or has another shape, or one is left that it does not know.
    """
    own = network.state_dict()
    found = _without_prefix(state, own)
    counts = ("num_batches_tracked",)  # older files have none, and nothing depends on it
    missing = [name for name in own if name not in found and not name.endswith(counts)]
    left = [name for name in found if name not in own and not any(f"{name}.".startswith(f"{head}.") for head in heads)]
    if missing:
        beside = f", among {len(left)} that it does not know there is {left[0]}" if left else ""
        raise WeightsError(
            f"{len(missing)} of the network's {len(own)} tensors are missing, first {missing[0]}{beside}"
        )
    for name in own.keys() & found.keys():
        if own[name].shape != found[name].shape:
            raise WeightsError(f"{name} has shape {_shape(found[name])}, the network's {_shape(own[name])}")
    if left:
        raise WeightsError(f"{len(left)} tensors that the network does not have, first {left[0]}")
    return {name: found[name].to(own[name].dtype) if name in found else torch.zeros_like(own[name]) for name in own}


def _without_prefix(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The tensors behind the prefix that lets most of a network's names be found; a teacher's before a student's."""
    first = next(iter(own), "")
    prefixes = [name.removesuffix(first) for name in state if name == first or name.endswith(f".{first}")]
    if "" in prefixes or not prefixes:
        return state
    best = max(prefixes, key=lambda prefix: (sum(f"{prefix}{name}" in state for name in own), "teacher" in prefix))
    return {name.removeprefix(best): tensor for name, tensor in state.items() if name.startswith(best)}


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "one number"

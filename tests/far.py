"""A device that knows no float64 and no other device's tensors, as Apple's: in Python, on the CPU's memory.

What is made there, or comes there, is refused in float64; so is what mixes its tensors with the CPU's. Importing this
registers the device in the process, for good.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

backend_registration._setup_privateuseone_for_python_backend("far")  # since torch 2.10


class Far(torch.Tensor):
    """A tensor there; `near` is what it holds."""

    near: torch.Tensor

    @staticmethod
    def __new__(cls, near: torch.Tensor) -> Far:
        if near.dtype == torch.float64:
            raise TypeError("there is no float64 on this device")
        return torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, near.shape, strides=near.stride(), dtype=near.dtype, device="far:0"
        )

    def __init__(self, near: torch.Tensor) -> None:
        self.near = near

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _done(function, args, kwargs or {})


class Distance(TorchDispatchMode):
    """While it is entered, tensors can be made there."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _done(function, args, kwargs or {})


def _done(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    flat, _ = tree_flatten((args, kwargs))
    far = [value for value in flat if isinstance(value, Far)]
    asked = None if kwargs.get("device") is None else torch.device(kwargs["device"])
    copies = function.overloadpacket.__name__ in ("copy_", "_to_copy")
    if far and not copies:
        near = [v for v in flat if isinstance(v, torch.Tensor) and not isinstance(v, Far) and v.ndim]
        if near:
            raise RuntimeError(f"{function}: some tensors are on the far device and some on the CPU")
    if asked is not None:
        kwargs = {**kwargs, "device": torch.device("cpu") if asked.type == "far" else asked}
    told = tree_map(lambda value: value.near if isinstance(value, Far) else value, (list(args), dict(kwargs)))
    out = function(*told[0], **told[1])
    if function.overloadpacket.__name__ == "copy_":
        return args[0]
    there = bool(far) if asked is None else asked.type == "far"
    known = {id(value.near): value for value in far}  # what is changed in place stays the tensor that it is

    def wrapped(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        return known[id(value)] if id(value) in known else Far(value) if there else value

    return tree_map(wrapped, out)

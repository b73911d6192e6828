"""Where to compute: what a device is called, and which are here."""

from __future__ import annotations

import os
import re
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

from pipeline.errors import UsageError

if TYPE_CHECKING:
    import torch

Precision = Literal[32, "bf16-mixed", "16-mixed"]
"""What is computed in while it learns, as Lightning calls it."""
EXPECTED = "auto (cuda where there is a GPU for it, else cpu), cpu, cuda, cuda:N or mps"
DRIVERS = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/nvmap", "/dev/nvhost-gpu", "/dev/kfd", "/dev/dxg")
"""Files by which drivers of GPUs are called: NVIDIA's, of its boards, too; AMD's; Windows' for Linux in it."""
_KNOWN = re.compile(r"auto|cpu|mps|cuda(:\d+)?")
_MEANT = {
    "cuda": re.compile(r"(gpu|cuda|nvidia|rocm|hip)s?", re.IGNORECASE),
    "cuda:{}": re.compile(r"(?:gpu|cuda)?[: ]*(\d+)", re.IGNORECASE),
    "mps": re.compile(r"mps|metal|apple", re.IGNORECASE),
    "cpu": re.compile(r"cpu.*|none", re.IGNORECASE),
}


def check_device(name: object) -> str:
    """The device's name, if it is one.

    Raises:
        UsageError: it is none; what was likely meant and what is here are named.
    """
    if isinstance(name, str) and _KNOWN.fullmatch(name):
        return name
    text = str(name).strip()
    meant = next((form.format(*m.groups()) for form, words in _MEANT.items() if (m := words.fullmatch(text))), None)
    guess = f"did you mean {meant!r}? " if meant else ""
    raise UsageError(f"no device is called {name!r}: {guess}expected {EXPECTED}; this machine has {', '.join(here())}")


def here() -> list[str]:
    """The devices of this machine that torch can compute on."""
    try:
        import torch
    except ImportError:
        return ["no torch, which computes"]
    found = ["cpu", *(f"cuda:{n}" for n in range(torch.cuda.device_count()))]
    return [*found, "mps"] if torch.backends.mps.is_available() else found


def find_device(name: str) -> torch.device:
    """The device of that name.

    Raises:
        UsageError: no such name, or this machine has no such device.
    """
    import torch

    check_device(name)
    devices = here()
    if name == "auto":
        return torch.device("cuda" if "cuda:0" in devices else "cpu")
    if name not in devices and not (name == "cuda" and "cuda:0" in devices):
        built = (
            "" if torch.version.cuda or not name.startswith("cuda") else f", and torch {torch.__version__} has no CUDA"
        )
        raise UsageError(f"cannot compute on {name!r}: this machine has {', '.join(devices)}{built}; use one of these")
    return torch.device(name)


def kind_of(name: str) -> str:
    """What computes on the device of that name: "cpu", "cuda" or "mps". Torch, which takes seconds to import, is only
    asked where there may be a GPU.

    Raises:
        UsageError: see `find_device`.
        ModuleNotFoundError: torch is not installed.
    """
    check_device(name)
    if name != "cpu" and (name != "auto" or _may_have_gpu()):
        return find_device(name).type
    if find_spec("torch") is None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")
    return "cpu"


def _may_have_gpu() -> bool:
    """Whether this machine may have a GPU that "auto" would take: on Linux one has a driver, and that a file."""
    return not sys.platform.startswith("linux") or any(os.path.exists(file) for file in DRIVERS)


def check_devices(count: int, name: str, *, batch_size: int) -> None:
    """Go on only where so many processes can fit a model on a device of that name.

    Raises:
        UsageError: they cannot; it says what is here.
    """
    import torch

    device = find_device(name)
    if count == 1:
        return
    asked = f"training.devices: {count}"
    if count > batch_size:
        raise UsageError(
            f"{asked} processes would part batches of training.batch_size {batch_size}: give at most as many, or "
            "larger batches"
        )
    if not torch.distributed.is_available():
        raise UsageError(f"{asked} needs a torch that knows several processes; this one computes alone: set it to 1")
    if torch.distributed.is_initialized():
        raise UsageError(f"{asked} starts processes of its own, but this one belongs to others already: set it to 1")
    if device.type == "mps":
        raise UsageError(f"{asked} needs as many GPUs, and mps is one: set it to 1, or training.device to cpu")
    if device.index is not None:
        raise UsageError(f"{asked} takes several GPUs, and training.device {name!r} is one: give cuda")
    if device.type == "cuda" and count > torch.cuda.device_count():
        raise UsageError(f"{asked} GPUs, found {torch.cuda.device_count()}: give at most as many")


def check_precision(precision: Precision, device: torch.device) -> None:
    """Go on only where a device can learn in a precision.

    Raises:
        UsageError: it cannot; it says what it can.
    """
    import torch

    if precision == 32:
        return
    if device.type == "cuda":
        if precision == "bf16-mixed" and not torch.cuda.is_bf16_supported(including_emulation=False):
            name = torch.cuda.get_device_name(device)
            raise UsageError(f"training.precision: {name} has no bfloat16; use 16-mixed or 32")
        return
    if device.type != "cpu" or precision == "16-mixed":
        use = "bf16-mixed or 32" if device.type == "cpu" else "32"
        raise UsageError(f"training.precision: {device.type} cannot learn in {precision}; use {use}")

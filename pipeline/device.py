"""Where to compute: what a device is called, and which are here."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pipeline.errors import UsageError

if TYPE_CHECKING:
    import torch

EXPECTED = "auto (cuda where there is a GPU for it, else cpu), cpu, cuda, cuda:N or mps"
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

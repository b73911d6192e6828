"""A released encoder of the registry, with its weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from stages.encoder.backbone import Backbone
from stages.encoder.card import Readout
from stages.encoder.hub import HubError
from stages.encoder.layouts import Shapes, canonical, shapes_of
from stages.encoder.registry import Colour, Release
from stages.encoder.sources import RANDOM, Source, Weights, gather
from stages.encoder.vit import PARTS, TokenReadout, build_vit
from stages.encoder.weights import WeightsError, digest_of


def load_released(row: Release, weights: Weights, *, hub: Path | None, readout: Readout | None) -> Backbone:
    """The encoder of a row, by its authors' read-out or another of its tokens.

    Raises:
        WeightsError, HubError: its weights are not here, cannot be read, or are not its own.
        ImportError: timm is missing or broken.
    """
    if weights == RANDOM:
        raise ValueError(f"{row.name} with random weights is not {row.name}: for an untrained network name timm:MODEL")
    other = f"; {row.own_code}: export it to ONNX and give the file's path" if row.own_code else ""
    try:
        source = gather(row.hub, weights, hub=hub, gated=row.gated)
    except HubError as exc:
        raise HubError(f"{exc}{other}") from exc
    chosen = readout or row.readout
    try:
        tensors, layout = canonical(source.state)
        _refuse_another(row, shapes_of(tensors), chosen)
        vit, shapes = build_vit(
            tensors,
            heads=source.config.get("num_attention_heads") or row.size.heads,
            px=row.px,
            dynamic=row.dynamic,
            layout=layout,
            epsilon=source.config.get("layer_norm_eps"),
        )
    except WeightsError as exc:
        raise WeightsError(f"{source.place} is not {row.name}: {exc}{other}") from exc
    (mean, std), doubts = _colours(row, source)
    card = replace(
        row.card(),
        source=source.name,
        revision=source.revision,
        digest=digest_of(vit.state_dict()),
        readout=chosen,
        dim=shapes.width * PARTS[chosen],
        mean=mean,
        std=std,
        least=shapes.patch,
        step=shapes.patch if row.dynamic else None,
        notes=(*_otherwise(row, shapes), *doubts),
    )
    return Backbone(TokenReadout(vit, chosen), card)


def _refuse_another(row: Release, shapes: Shapes, readout: Readout) -> None:
    """Refuse what cannot be this release, whatever else fits."""
    channels = 1 if readout == "cls per channel" else 3
    for word, known, found in (
        ("values a token", row.size.width, shapes.width),
        ("colours in a picture", channels, shapes.channels),
    ):
        if known != found:
            raise WeightsError(f"expected {known} {word}, found {found}")


def _otherwise(row: Release, shapes: Shapes) -> tuple[str, ...]:
    """Where the weights' shapes say otherwise than the table; they count."""
    return tuple(
        f"{row.name} is known with {word} {known}, these weights have {found}: what they have counts"
        for word, known, found in (
            ("a depth of", row.size.depth, shapes.depth),
            ("patches of", row.patch, shapes.patch),
            ("registers:", row.registers, shapes.registers),
        )
        if known != found
    )


def _colours(row: Release, source: Source) -> tuple[tuple[Colour, Colour], tuple[str, ...]]:
    """Mean and deviation that pictures are normalised with, and what is doubtful about them."""
    if row.settled:
        return row.colours, ()
    own = source.config.get("pretrained_cfg", {})
    if "mean" in own and "std" in own:
        return (tuple(own["mean"]), tuple(own["std"])), ()
    mean, std = row.colours
    return row.colours, (
        f"{row.name}: sources disagree on its mean and deviation, and there is no config.json that decides: {mean} "
        f"and {std} are taken",
    )

"""Training on bags: what kind of model their tiles and features make, without a slide or an encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.cohort.cohort import CohortSlide
from pipeline.config import Config
from pipeline.errors import UsageError
from pipeline.model.spec import ModelSpec
from pipeline.model.tiles import same_encoder
from stages.amounts import counted
from stages.bags.bag import READ_SUFFIXES
from stages.bags.bag_slide import open_bag
from stages.bags.common import Tiles, most_have
from stages.encoder.registry import UNNAMED
from stages.slide.facts import SlideError

THUMBNAIL_MPP = 8.0
"""µm/px of the thumbnail of a slide that a model of bags is to read, about."""


def are_bags(slides: Sequence[CohortSlide], config: Config) -> bool:
    """Whether a cohort's slides are bags.

    Raises:
        UsageError: some are and others are not, or the model is none of bags.
    """
    bags = [slide for slide in slides if slide.path.suffix.lower() in READ_SUFFIXES]
    if not bags:
        return False
    if len(bags) < len(slides):
        other = next(slide for slide in slides if slide not in bags)
        raise UsageError(
            f"{len(bags)} of {len(slides)} slides are bags of features, as {bags[0].slide_id!r}, and others not, as "
            f"{other.slide_id!r}: give bags of all of them, or none"
        )
    if config.model.kind != "exhaustive":
        raise UsageError(
            "bags hold the features of all tiles, and a model that draws patches reads pixels: set model.kind: "
            "exhaustive (`saccade distil` makes a model that draws from bags and their slides)"
        )
    return True


def of_bags(spec: ModelSpec, slides: Sequence[CohortSlide], config: Config, say: Callable[[str], None]) -> ModelSpec:
    """The model's specification with what most of its bags say of tiles and features in place of the configuration's.

    Bags that differ are left out where they are looked at.

    Raises:
        UsageError: no bag can be used, or they are said to be of another encoder than the configured one.
    """
    found: list[Tiles] = []
    why = ""
    for slide in slides:
        try:
            if slide.problem:
                raise SlideError(slide.problem)
            assert isinstance(slide.path, Path)
            bag = open_bag(slide.path, mpp=slide.mpp)
            found.append(Tiles(bag.patch_px, bag.patch_mpp, bag.dim, bag.encoder))
        except SlideError as exc:
            why = why or f"{slide.slide_id}: {exc}"
    if not found:
        raise UsageError(f"none of {counted(len(slides), 'bag')} can be used: {why}")
    tiles = most_have(found)
    pitch = tiles.px * tiles.mpp
    named = config.encoder.name if "name" in config.encoder.model_fields_set else None
    if tiles.encoder is not None and named is not None and not same_encoder(named, tiles.encoder):
        raise UsageError(
            f"encoder.name is {named!r}, and the bags say that {tiles.encoder!r} made them: correct it, or leave it out"
        )
    encoder = named or tiles.encoder or UNNAMED
    say(
        f"bags: {counted(len(found), 'bag')} that can be read, most of tiles of {tiles.px} px at {tiles.mpp:.4g} µm/px "
        f"with features of length {tiles.dim} by {encoder}"
    )
    return replace(
        spec,
        attention_mpp=pitch / max(1, round(pitch / THUMBNAIL_MPP)),
        patch_mpp=tiles.mpp,
        patch_px=tiles.px,
        encoder=encoder,
        dim=tiles.dim,
        bags=tiles.encoder or "",
    )

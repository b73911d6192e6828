"""The section `augmentation`: how training varies what it learns from."""

from __future__ import annotations

from pydantic import Field

from pipeline.config.section import Section


class AugmentationConfig(Section):
    """How training varies what it learns from; the defaults are those that published results were made with."""

    turn: bool = Field(
        default=True, description="Turn and mirror patches at random: tissue has no up. Not with kind: encoder."
    )
    stain: float = Field(
        default=0.0,
        ge=0,
        le=2,
        description="Multiply the amount of each stain by up to exp(stain) either way; 0.3 is what laboratories differ "
        "by, and is worth it where slides come from several. Not with kind: encoder, which takes each slide's own "
        "stain out.",
    )
    shift: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Change the amount of each stain by up to so much optical density, such as 0.04. Not with kind: "
        "encoder.",
    )
    scale: float = Field(
        default=1.0,
        ge=1,
        le=4,
        description="Make tissue up to so many times larger or smaller, such as 1.25. Not with kind: encoder.",
    )
    focus: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Take away or add up to this share of the detail, such as 0.5. Not with kind: encoder.",
    )
    noise: float = Field(
        default=0.0,
        ge=0,
        le=10,
        description="Add normal noise of this share of their spread to the features, with kind: encoder only.",
    )
    dropout: float = Field(
        default=0.2,
        ge=0,
        lt=1,
        description="Share of the directions of features that each member does without in a step, with kind: encoder "
        "only.",
    )

"""The section `attention`: where to look, and how that is found."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from pipeline.config.section import Section


class AttentionConfig(Section):
    """How the thumbnail becomes an attention map."""

    kind: Literal["encoder", "learned", "hematoxylin", "uniform"] = Field(
        default="encoder",
        description="encoder: the frozen encoder sees all tissue at coarse_mpp, and evidence of each class is looked "
        "for there; learned: a small convolutional net on the thumbnail; hematoxylin, uniform: maps that need no "
        "training. The last three learn the encoder, too.",
    )
    coarse_mpp: float = Field(
        default=2.0,
        gt=0,
        description="Micrometres per pixel at which the encoder sees all tissue, with kind: encoder only; at 2, where "
        "the slide has such a level, that is some 7 % of its bytes. The cell pitch must be a whole multiple of it.",
    )
    enlarge: float = Field(
        default=2.0,
        ge=1,
        le=16,
        description="With kind: encoder, how many times the coarse patches are enlarged for it, which sees little in a "
        "few pixels; costs its square in time. Encoders of one size are always given that.",
    )
    context: tuple[int, ...] = Field(
        default=(3, 5, 7),
        min_length=1,
        strict=False,
        description="With kind: encoder, sides, in cells, of the squares around a cell that its features are averaged "
        "over: a lesion is told by cells that lie together. Odd; members of the ensemble take turns with them.",
    )
    against: tuple[Literal["slide", "cohort"], ...] = Field(
        default=("slide", "cohort"),
        min_length=1,
        strict=False,
        description="With kind: encoder, what a cell's coarse features are compared with: slide, whose own mean and "
        "spread are taken out, since stain moves all of a slide's features; cohort, since a lesion that fills its "
        "slide is the slide's mean. Of both, members of the ensemble take turns.",
    )
    components: int = Field(
        default=128,
        ge=2,
        le=4096,
        description="Directions of the coarse features that are looked at, with kind: encoder: the most varied.",
    )
    fine_components: int = Field(
        default=32, ge=2, le=4096, description="The same of the patches' features, with kind: encoder."
    )
    uniform: float = Field(
        default=0.25,
        gt=0,
        lt=1,
        description="Share of the draw that goes evenly over the tissue, with kind: encoder: what is everywhere on the "
        "slide is taken out of the patches' features.",
    )

    prior: Path | None = Field(
        default=None,
        strict=False,
        description="Folder, relative to this file, of maps that somebody else made: <slide>.npy, .png or .tif, one "
        "channel over the whole slide, .h5 of CLAM's attention scores, or .geojson of QuPath's objects, with "
        "FOLDER#MEASUREMENT; or an .onnx segmentation network that makes them of the thumbnail. Half of each draw goes "
        "by them, the rest by attention. What is estimated stays the same whatever they show; unset: "
        "attention alone.",
    )
    prior_mpp: float | None = Field(
        default=None,
        gt=0,
        description="Micrometres per pixel of the thumbnail that such a network is given; unset: what "
        "NETWORK.onnx.json says, else attention_mpp.",
    )
    prior_channel: int | None = Field(
        default=None, ge=0, description="Its channel that shows where to look, from 0; unset: its only one."
    )

    @field_validator("context")
    @classmethod
    def _odd_squares(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if any(side < 1 or side % 2 == 0 for side in value):
            raise ValueError(f"context must be odd numbers of cells, such as 5, found {list(value)}")
        return value

    inner_mpp: float | None = Field(
        default=None,
        gt=0,
        description="Micrometres per pixel of a second, learned attention inside regions that the first one opens, for "
        "what the thumbnail cannot show; unset: one level.",
    )
    region_cells: int = Field(
        default=4, ge=1, le=64, description="Cells along the side of a region; with inner_mpp only."
    )
    region_samples: int = Field(
        default=4,
        ge=2,
        le=4096,
        description="Patches read in each opened region, so samples / region_samples are opened; with inner_mpp only.",
    )

"""The section `sampling`: how many patches are read and how they are drawn."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from pipeline.config.section import Section
from stages.sampling.schemes import DEFAULT, SCHEMES, choices, in_words, listed


def _known(value: object) -> object:
    if value not in choices():
        raise PydanticCustomError("scheme", "{names}", {"names": listed(quote="'")})
    return value


SchemeName = Annotated[str, BeforeValidator(_known)]
"""One of the ways to draw that have intervals."""


class SamplingConfig(Section):
    """How many patches are read and how they are drawn."""

    scheme: SchemeName = Field(
        default=DEFAULT,
        description=f"How patches are drawn, all ways unbiased. {in_words()}.",
    )
    samples: int = Field(
        default=20,
        ge=2,
        le=1_000_000,
        description="Patches per slide at prediction, all told: what a prediction costs to read.",
    )
    train_samples: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="Patches per slide and training step, fewer to fit memory; unset: as many as samples.",
    )
    block: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Side in cells of the squares that are drawn, each with all of its tissue: neighbours share tiles, "
        "so that more patches come from as many bytes, but tell less than as many apart; 1: single cells.",
    )
    control_variate: bool = Field(
        default=False,
        description="Foretell each patch's feature from the thumbnail and sample only what that misses: stays "
        "unbiased; pays where the thumbnail tells much. One level and a learned attention only.",
    )
    snap: bool = Field(
        default=False,
        description="Move each patch onto the grid of the slide's own tiles, by half a tile at most: up to four times "
        "fewer tiles to decode. What is drawn stays unbiased for the moved patches, but attention saw the cell, not "
        "them, and where cells do not match tiles some tissue counts twice and some never.",
    )

    @model_validator(mode="after")
    def _told_variance(self) -> Self:
        if not SCHEMES[self.scheme].judges(self.samples):
            raise ValueError(
                f"samples must be at most {SCHEMES[self.scheme].most_judged} with {self.scheme}, whose variance takes "
                f"memory for their square, found {self.samples}; lower samples or use scheme: {DEFAULT}"
            )
        for name, fewest in (("samples", 2 * self.block**2), ("train_samples", self.block**2)):
            found = getattr(self, name)
            if self.block > 1 and found is not None and found < fewest:
                raise ValueError(f"{name} must be at least {fewest} with block: {self.block}, found {found}")
        return self

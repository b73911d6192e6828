"""The section `encoder`: what turns a patch into a feature."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from pipeline.config.section import Section
from stages.encoder.registry import is_known, unknown


class EncoderConfig(Section):
    """What turns a patch into a feature."""

    name: str = Field(
        default="lite0",
        min_length=1,
        description="With attention.kind: encoder, which is frozen: lite0, a small one of natural images that comes "
        "with Saccade, or a released one (`saccade encoders` lists them), timm:MODEL, or the path of an .onnx file. "
        "Else, and then trained end to end: small, the built-in one, or timm:MODEL.",
    )

    @field_validator("name")
    @classmethod
    def _known_encoder(cls, value: str) -> str:
        if value != "small" and not is_known(value):
            raise ValueError(f"{unknown(value)}; or small, which learns with attention.kind: learned")
        return value

    dim: int = Field(
        default=64,
        ge=2,
        le=65_536,
        description="Length of the unit feature vector of an encoder that learns; a frozen one has its own.",
    )
    weights: Path | None = Field(
        default=None,
        strict=False,
        description="Local checkpoint or hub folder of the encoder, relative to this file, so that it works offline.",
    )
    tune: int = Field(
        default=0,
        ge=0,
        description="Last blocks of a pretrained encoder that learn with the rest, with attention.kind: learned, "
        "hematoxylin or uniform; their steps fall from the last to the first. 0: none; an untrained one learns whole.",
    )
    precision: Literal["float32", "bfloat16"] = Field(
        default="float32",
        description="What a frozen encoder computes in; bfloat16 is faster where the processor knows it.",
    )

"""The section `model`: what becomes of the patches."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from pipeline.config.section import Section


class ModelConfig(Section):
    """What becomes of the patches, and whether all are read."""

    kind: Literal["sampled", "exhaustive"] = Field(
        default="sampled",
        description="sampled: a few patches a slide, drawn by attention; exhaustive: every tissue cell, at "
        "view.patch_mpp, through the frozen encoder: the baseline, slow the first time and exact.",
    )
    head: Literal["evidence", "gated", "mean", "transmil"] = Field(
        default="evidence",
        description="evidence: the product's own, evidence of each class in cells and their neighbours. With kind: "
        "exhaustive also gated: gated attention MIL (Ilse 2018); mean: of all cells; transmil: TransMIL (Shao 2021), "
        "whose time grows with the square of the cells.",
    )

    @model_validator(mode="after")
    def _heads_of_all_cells(self) -> Self:
        if self.kind == "sampled" and self.head != "evidence":
            raise ValueError(f"head {self.head} needs all cells: use kind: exhaustive, or leave head out")
        return self

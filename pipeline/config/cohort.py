"""The section `cohort`: which slides, and what is known about them."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from pipeline.config.section import Section


class CohortConfig(Section):
    """Which slides, and what is known about them."""

    table: Path = Field(
        strict=False,
        description="Cohort table (CSV), relative to this file: slide, patient, label, and mpp, split, fold, site.",
    )
    label: str = Field(
        default="label", min_length=1, description="Column of the table that holds the slide's label, a class name."
    )
    positive: str | None = Field(
        default=None,
        min_length=1,
        description="Which of two classes is the positive one in AUPRC, F1 and wherever classes are listed, where it "
        "is last; unset: the later one in the alphabet, or the greater number.",
    )

    @field_validator("positive", mode="before")
    @classmethod
    def _number_as_text(cls, value: object) -> object:
        return str(value) if type(value) is int else value  # YAML reads the class 1 as a number

    slide_column: str | None = Field(
        default=None, min_length=1, description="Column of the slides' files; unset: found by its name (docs/files.md)."
    )
    patient_column: str | None = Field(
        default=None,
        min_length=1,
        description="Column that says whose slide it is; unset: found by its name. The slides' own column says that "
        "every slide is another patient's.",
    )
    site_column: str | None = Field(
        default=None,
        min_length=1,
        description="Column that says at which hospital or laboratory the slide was made; unset: found by its name.",
    )
    slides: Path | None = Field(
        default=None,
        strict=False,
        description="Folder that relative slide paths start from, relative to this file; unset: the table's folder.",
    )

"""The section `cohort`: which slides, and what is known about them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from pipeline.config.section import Section
from stages.prediction.kinds import Kind


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

    unit: Literal["slide", "patient"] = Field(
        default="slide",
        description="What is predicted: slide, each by itself; patient: each patient of all of its slides, over which "
        "attention is one and sampling.samples patches are drawn, for labels that are of patients.",
    )

    @field_validator("positive", mode="before")
    @classmethod
    def _number_as_text(cls, value: object) -> object:
        return str(value) if type(value) is int else value  # YAML reads the class 1 as a number

    task: Kind | None = Field(
        default=None,
        description="What labels are: classification (classes), ordinal (grades that have an order), regression (a "
        "number), multilabel (several labels at once), survival (Cox: a risk) or discrete_survival (a risk, and the "
        "chance to be without the event at given times); unset: texts, and numbers of two values, are classes, "
        "fractions are a number; several columns in labels are several labels, time and event survival.",
    )
    labels: tuple[str, ...] = Field(
        default=(),
        strict=False,
        description="Of several labels at once, their columns: 1, 0, or empty where nobody looked.",
    )
    grades: tuple[str, ...] = Field(
        default=(), strict=False, description="Of ordinal labels, from the least; unset: whole numbers in their order."
    )
    time: str | None = Field(
        default=None,
        min_length=1,
        description="Of survival, the column of the time until the event, or until nobody looked any more, 0 or more, "
        "in any unit.",
    )
    event: str | None = Field(
        default=None, min_length=1, description="Of survival, the column that is 1 where the event was seen, else 0."
    )
    times: tuple[float, ...] = Field(
        default=(),
        strict=False,
        description="Of discrete survival, the ends of its intervals, rising, in the unit of the time.",
    )

    @field_validator("grades", "labels", mode="before")
    @classmethod
    def _numbers_as_texts(cls, value: object) -> object:
        return [str(one) if type(one) is int else one for one in value] if isinstance(value, list) else value

    @model_validator(mode="after")
    def _fits_the_task(self) -> Self:
        survival = ("survival", "discrete_survival")
        needs = {
            "labels": (self.kind == "multilabel", bool(self.labels)),
            "time": (self.kind in survival, self.time is not None),
            "event": (self.kind in survival, self.event is not None),
            "times": (self.kind == "discrete_survival", bool(self.times)),
        }
        for name, (wanted, given) in needs.items():
            if wanted and not given:
                raise ValueError(f"cohort.task {self.kind} needs cohort.{name}")
            if given and not wanted:
                raise ValueError(
                    f"cohort.{name} says nothing of {self.kind or 'classes'}: leave it out, or correct task"
                )
        if self.positive is not None and self.kind not in (None, "classification"):
            raise ValueError(f"cohort.positive is of two classes, and the task is {self.kind}: leave it out")
        if self.grades and self.kind != "ordinal":
            raise ValueError("cohort.grades are of cohort.task ordinal: set it, or leave them out")
        if len(set(self.labels)) < len(self.labels) or len(set(self.grades)) < len(self.grades):
            raise ValueError("cohort.labels and cohort.grades name each of theirs once")
        if list(self.times) != sorted(set(self.times)) or any(time <= 0 for time in self.times):
            raise ValueError("cohort.times must rise from above 0")
        return self

    @property
    def kind(self) -> Kind | None:
        """The task as far as the configuration says; None: the labels do."""
        if self.task is not None:
            return self.task
        if self.labels:
            return "multilabel"
        if self.time is not None or self.event is not None:
            return "discrete_survival" if self.times else "survival"
        return None

    @property
    def label_columns(self) -> tuple[str, ...]:
        """The columns that hold the label, where it is not the one."""
        return self.labels or tuple(name for name in (self.time, self.event) if name is not None)

    @property
    def columns(self) -> dict[str, str]:
        """The table's columns that are told, by what is in them, as `pipeline.cohort.table.read_table` takes them."""
        told = {"slide": self.slide_column, "patient": self.patient_column, "site": self.site_column}
        return {role: name for role, name in told.items() if name is not None}

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
    bags: Path | None = Field(
        default=None,
        strict=False,
        description="Folder, relative to this file, of <slide>.h5 with coords and features (CLAM's h5_files, TRIDENT's "
        "features_<encoder>), which are read instead of the slides, with model.kind: exhaustive; how large tiles are "
        "and how long features they say themselves. Unset: slides are read, or the bags that the table names.",
    )
    slides: Path | None = Field(
        default=None,
        strict=False,
        description="Folder that relative slide paths start from, relative to this file; unset: the table's folder.",
    )

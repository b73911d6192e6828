"""The configuration of `saccade distil`: strict, frozen, every field with its unit and its reason."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from pipeline.config.cohort import CohortConfig
from pipeline.config.encoder import EncoderConfig
from pipeline.config.reading import ReadingConfig
from pipeline.config.sampling import SchemeName
from pipeline.config.section import Section
from stages.sampling.schemes import DEFAULT, SCHEMES, in_words


class BagsConfig(Section):
    """The tiles of the slides with their features, as CLAM or TRIDENT wrote them."""

    folder: Path = Field(
        strict=False,
        description="Folder, relative to this file, of <slide>.h5 with coords and features: CLAM's h5_files, TRIDENT's "
        "features_<encoder>.",
    )
    patches: Path | None = Field(
        default=None,
        strict=False,
        description="CLAM's folder patches, relative to this file, whose <slide>.h5 say how large the tiles are: its "
        "features do not.",
    )
    patch_px: int | None = Field(
        default=None, ge=8, le=4096, description="Pixels along a tile's side, where no file says; with patch_mpp."
    )
    patch_mpp: float | None = Field(
        default=None, gt=0, description="Micrometres per pixel of a tile, where no file says; with patch_px."
    )

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if (self.patch_px is None) != (self.patch_mpp is None):
            raise ValueError("bags.patch_px and bags.patch_mpp belong together: give both, or leave both out")
        return self


class TeacherConfig(Section):
    """The model that reads every tile, whose prediction is estimated."""

    weights: Path | None = Field(
        default=None,
        strict=False,
        description="State dict, relative to this file, of CLAM_SB, CLAM_MB or gated attention MIL, as .pt or "
        ".safetensors; unset: one is trained on the bags of the slides to train on.",
    )
    classes: tuple[str, ...] | None = Field(
        default=None,
        min_length=2,
        strict=False,
        description="The table's labels in the order of the teacher's outputs; unset: as classes are listed anywhere.",
    )
    members: int = Field(default=8, ge=1, le=256, description="Networks that are averaged, where one is trained.")
    epochs: int = Field(default=30, ge=1, description="Passes over the bags, where one is trained.")


class StudentConfig(Section):
    """What foretells from a coarse scale where the teacher looks, and how slides are then read."""

    coarse_mpp: float = Field(
        default=2.0,
        gt=0,
        description="Micrometres per pixel at which the encoder sees all tissue of a slide; taken to the nearest that "
        "makes whole pixels of a tile's side.",
    )
    enlarge: float = Field(
        default=2.0, ge=1, le=16, description="How many times the coarse patches are enlarged for the encoder."
    )
    components: int = Field(
        default=128, ge=2, le=4096, description="Directions of the coarse features that are looked at: the most varied."
    )
    uniform: float = Field(
        default=0.1,
        gt=0,
        lt=1,
        description="Share of the draw that goes evenly over the tissue, for what the student does not foresee.",
    )
    samples: int = Field(
        default=20, ge=2, le=1_000_000, description="Patches per slide at prediction, unless the user says otherwise."
    )
    scheme: SchemeName = Field(default=DEFAULT, description=f"How patches are drawn, all ways unbiased. {in_words()}.")
    members: int = Field(
        default=4,
        ge=2,
        le=64,
        description="Students that are averaged, each fitted to all but its part of the patients; what it alone says "
        "of those calibrates the intervals.",
    )
    epochs: int = Field(default=20, ge=1, description="Passes over the slides that the student learns from.")
    calibration_slides: int = Field(
        default=48,
        ge=0,
        description="Slides whose bags calibrate the intervals, at most: those that the student was not fitted to; 0: "
        "intervals from each draw alone.",
    )
    seed: int = Field(default=0, ge=0, lt=2**32, description="Seed of weights, draws and splits.")

    @model_validator(mode="after")
    def _told_variance(self) -> Self:
        if not SCHEMES[self.scheme].judges(self.samples):
            most = SCHEMES[self.scheme].most_judged
            raise ValueError(f"samples must be at most {most} with {self.scheme}, found {self.samples}")
        return self


class DistilConfig(Section):
    """Everything that `saccade distil` needs to know."""

    cohort: CohortConfig
    bags: BagsConfig
    teacher: TeacherConfig = TeacherConfig()
    encoder: EncoderConfig = EncoderConfig()
    student: StudentConfig = StudentConfig()
    reading: ReadingConfig = ReadingConfig()

    @model_validator(mode="after")
    def _frozen(self) -> Self:
        if self.cohort.unit == "patient":
            raise ValueError(
                "cohort.unit: patient is of `saccade train`: what is distilled predicts slides; leave it out"
            )
        if self.cohort.bags is not None:
            raise ValueError("cohort.bags stand in for slides, and `distil` reads slides: name them as bags.folder")
        if self.encoder.name == "small" or self.encoder.tune:
            raise ValueError(
                "encoder must be the one that made the bags' features, which does not learn: name it, without "
                "encoder.tune"
            )
        return self

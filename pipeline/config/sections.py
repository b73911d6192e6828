"""The sections of a configuration: strict, frozen, every field with its unit and its reason.

Only the edges of the project (commands, training) see these objects; components take flat keyword arguments.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from pipeline.device import check_device
from pipeline.errors import UsageError
from stages.encoder.registry import is_exported, is_known, unknown
from stages.sampling.schemes import DEFAULT, SCHEMES, choices, in_words, listed

COARSEST_PX = 8
"""Coarse pixels along a cell's side, at least."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class CohortConfig(_Section):
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


class ViewConfig(_Section):
    """At which physical scales the slide is seen; micrometres, because magnifications mean different things."""

    attention_mpp: float = Field(
        default=8.0,
        gt=0,
        description="Micrometres per pixel of the thumbnail that attention looks at: coarser costs less to read and "
        "hides more. The cell pitch (patch_px * patch_mpp) must be a whole multiple of it, so that cells tile the "
        "thumbnail.",
    )
    patch_mpp: float = Field(
        default=1.0,
        gt=0,
        description="Micrometres per pixel of the patches: as fine as the encoder needs in order to tell the classes.",
    )
    patch_px: int = Field(
        default=128,
        ge=8,
        le=4096,
        description="Pixels along a patch's side; with patch_mpp it sets how much tissue one read covers.",
    )

    @property
    def pitch_um(self) -> float:
        """Micrometres along a cell's side: each cell of the attention map owns exactly one patch."""
        return self.patch_px * self.patch_mpp

    @property
    def cell_px(self) -> int:
        """Thumbnail pixels along a cell's side: the stride of the attention map over the thumbnail."""
        return round(self.pitch_um / self.attention_mpp)

    @model_validator(mode="after")
    def _cells_tile_the_thumbnail(self) -> Self:
        if self.attention_mpp < self.patch_mpp:
            raise ValueError(
                f"attention_mpp must not be finer than patch_mpp, found {self.attention_mpp:g} and {self.patch_mpp:g}; "
                f"attention_mpp {self.pitch_um / 8:.10g} would make cells of 8 thumbnail pixels"
            )
        ratio = self.pitch_um / self.attention_mpp
        whole = max(1, round(ratio))
        if abs(ratio - whole) > 1e-6:
            raise ValueError(
                f"the cell pitch, patch_px * patch_mpp = {self.pitch_um:g} um, must be a whole multiple of "
                f"attention_mpp, found {self.pitch_um:g} / {self.attention_mpp:g} = {ratio:.6g}; "
                f"the nearest attention_mpp that fits is {self.pitch_um / whole:.10g}"
            )
        return self


class AttentionConfig(_Section):
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
        description="Folder, relative to this file, of maps <slide>.npy, .png or .tif that somebody else made, one "
        "channel over the whole slide, or an .onnx segmentation network that makes them of the thumbnail: half of each "
        "draw goes by them, the rest by attention. What is estimated stays the same whatever they show; unset: "
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


class SamplingConfig(_Section):
    """How many patches are read and how they are drawn."""

    scheme: str = Field(
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

    @field_validator("scheme", mode="before")
    @classmethod
    def _known_scheme(cls, value: object) -> object:
        if value not in choices():
            raise PydanticCustomError("scheme", "{names}", {"names": listed(quote="'")})
        return value

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


class EncoderConfig(_Section):
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


class ModelConfig(_Section):
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


class TrainingConfig(_Section):
    """How the model is fitted."""

    epochs: int = Field(default=30, ge=1, description="Passes over the training slides.")
    batch_size: int = Field(
        default=8, ge=1, description="Slides per step; each brings train_samples patches into memory."
    )
    learning_rate: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Peak step size of the optimiser; unset: 0.02 on a frozen encoder, else 0.001, as the method's "
        "paper.",
    )
    members: int = Field(
        default=24,
        ge=1,
        le=1024,
        description="Models that are fitted together, with attention.kind: encoder, each to a part of the patients; "
        "they count by how well they do on the others.",
    )
    attention_rate: float = Field(
        default=0.1,
        gt=0,
        le=1000,
        description="Step size of a learned attention as a share of learning_rate: it starts warm and moves with care.",
    )
    warm_up: int = Field(
        default=4,
        ge=0,
        description="Passes that first fit a learned attention to hematoxylin, without labels; 0: start uniform.",
    )
    weight_decay: float = Field(
        default=1e-4, ge=0, description="Decoupled weight decay, per unit of learning rate: cohorts are small."
    )
    entropy_weight: float = Field(
        default=0.0,
        ge=0,
        description="Reward per nat of attention entropy: keeps attention from settling on one cell too early.",
    )
    class_weights: Literal["none", "balanced"] = Field(
        default="none",
        description="How much a slide's class counts in the loss: none: each slide alike; balanced: each class alike, "
        "so that a rare one is learnt too; probabilities are then those of classes that are equally frequent.",
    )
    gradient_clip: float = Field(
        default=1.0, gt=0, description="Largest gradient norm: draws are random and a rare one may be far off."
    )
    keep: Literal["best", "last"] = Field(
        default="best",
        description="Which epoch's weights are kept: best: the last one whose loss on the slides of split val is no "
        "higher than the lowest by more than its noise, over three epochs; without such slides, or with last: the "
        "last.",
    )
    patience: int | None = Field(
        default=None,
        ge=1,
        description="Epochs without a lower loss on the slides of split val after which training stops; unset: it "
        "never does, for only its last epochs have small steps.",
    )
    seed: int = Field(
        default=0, ge=0, lt=2**32, description="Seed of weights, draws and splits: the same seed, the same run."
    )
    folds: int | None = Field(
        default=None,
        ge=2,
        description="Cross-validation folds; unset: the table's split or fold column, else 5 folds.",
    )
    folds_by: Literal["patient", "site"] = Field(
        default="patient",
        description="What is never parted between folds: patient; or site, so that no fold is judged at a hospital "
        "that its model has learnt from (stain and scanner tell the site, and the site often the label).",
    )
    calibration_slides: int = Field(
        default=16,
        ge=0,
        description="Slides (of val first, then of train) that are read whole once after training, so that the stated "
        "95 % of the intervals is 95 %; 0: intervals from each draw alone.",
    )
    compare: bool = Field(
        default=False,
        description="Also fit plain ways to read a slide on the same splits and features, and write comparison.csv: "
        "gated attention MIL and the mean of all cells, as many cells as samples at random and of the largest "
        "attention, and 25 fixed ones. Reads every cell once; needs attention.kind: encoder.",
    )
    device: str = Field(
        default="auto",
        description="Where to compute: auto (cuda where there is a GPU for it, else cpu), cpu, cuda, cuda:N or mps.",
    )

    @field_validator("device", mode="before")
    @classmethod
    def _known_device(cls, value: object) -> str:
        try:
            return check_device(value)
        except UsageError as exc:
            raise ValueError(str(exc)) from exc


class AugmentationConfig(_Section):
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


class ReadingConfig(_Section):
    """What is kept of slides; the model does not depend on it."""

    cache: Path | None = Field(
        default=None,
        strict=False,
        description="Folder, relative to this file, that keeps what was read of slides in formats whose tiles only "
        "OpenSlide decodes (NDPI, MRXS, JPEG 2000 ...), so that it is there in the next epoch; several trainings may "
        "share it. Unset: nothing is kept.",
    )
    cache_gb: float = Field(
        default=50.0,
        gt=0,
        description="Gigabytes that the cache may fill, some 100 kB for 256 x 256 pixels; then the least recently used "
        "goes.",
    )

    features: Path | None = Field(
        default=None,
        strict=False,
        description="Folder, relative to this file, that keeps what a frozen encoder made of patches, for all "
        "trainings and runs of a machine; unset: $SACCADE_CACHE, else the user's cache folder.",
    )
    features_gb: float = Field(
        default=20.0, ge=0, description="Gigabytes that it may fill, some 2.5 kB for a patch; 0: nothing is kept."
    )


class Config(_Section):
    """Everything that `saccade train` needs to know."""

    cohort: CohortConfig
    view: ViewConfig = ViewConfig()
    attention: AttentionConfig = AttentionConfig()
    sampling: SamplingConfig = SamplingConfig()
    encoder: EncoderConfig = EncoderConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    reading: ReadingConfig = ReadingConfig()

    @model_validator(mode="after")
    def _levels_fit(self) -> Self:
        inner, view = self.attention.inner_mpp, self.view
        self._augmentation_fits()
        if self.model.kind == "exhaustive" or self.training.compare:
            self._all_can_be_read()
        if self.attention.kind == "encoder":
            self._coarse_fits()
        elif not (self.encoder.tune or self.encoder.name == "small" or self.encoder.name.startswith("timm:")):
            raise ValueError(
                f"attention.kind {self.attention.kind} learns the encoder, which {self.encoder.name!r} does not by "
                "itself: use attention.kind: encoder, let its last blocks learn with encoder.tune, or use "
                "encoder.name: small"
            )
        if self.encoder.tune and (self.attention.kind == "encoder" or self.encoder.name == "small"):
            raise ValueError(
                "encoder.tune is for a pretrained encoder with attention.kind: learned, hematoxylin or uniform; "
                f"found {self.encoder.name} with {self.attention.kind}"
            )
        if self.sampling.control_variate and (inner is not None or self.attention.kind != "learned"):
            raise ValueError(
                "sampling.control_variate needs attention.kind: learned and no attention.inner_mpp; switch one off"
            )
        network = self.attention.prior is not None and is_exported(str(self.attention.prior))
        for name in ("prior_mpp", "prior_channel"):
            if getattr(self.attention, name) is not None and not network:
                raise ValueError(f"attention.{name} is for an .onnx network as attention.prior; leave it out")
        if self.attention.prior is not None and (inner is not None or self.model.kind == "exhaustive"):
            raise ValueError(
                "attention.prior says which cells to draw: leave attention.inner_mpp out and use model.kind: sampled"
            )
        if inner is None:
            return self
        if self.sampling.block > 1:
            raise ValueError("attention.inner_mpp opens regions, not blocks: leave one of it and sampling.block out")
        if not view.patch_mpp <= inner <= view.attention_mpp:
            raise ValueError(
                f"attention.inner_mpp must lie between view.patch_mpp and view.attention_mpp, found {inner:g} for "
                f"{view.patch_mpp:g} and {view.attention_mpp:g}"
            )
        ratio = view.pitch_um / inner
        if abs(ratio - round(ratio)) > 1e-6:
            raise ValueError(
                f"the cell pitch, patch_px * patch_mpp = {view.pitch_um:g} um, must be a whole multiple of "
                f"attention.inner_mpp, found {ratio:.6g}; the nearest that fits is {view.pitch_um / round(ratio):.10g}"
            )
        for name in ("samples", "train_samples"):
            found = getattr(self.sampling, name)
            if found is not None and found < 4:
                raise ValueError(f"sampling.{name} must be at least 4 with attention.inner_mpp, found {found}")
        return self

    def _all_can_be_read(self) -> None:
        """What reading every cell asks of the other values."""
        wish = "model.kind: exhaustive" if self.model.kind == "exhaustive" else "training.compare"
        if self.attention.kind != "encoder":
            raise ValueError(f"{wish} needs a frozen encoder: use attention.kind: encoder, found {self.attention.kind}")
        if not self.reading.features_gb:
            raise ValueError(
                f"{wish} encodes every cell of every slide: give reading.features_gb room to keep that, "
                "some 2.5 kB for a patch, found 0"
            )

    def _augmentation_fits(self) -> None:
        """What would be without effect is refused: silence would be taken for a setting that does not matter."""
        told = self.augmentation
        patches = {"stain": told.stain, "shift": told.shift, "scale": told.scale - 1, "focus": told.focus}
        frozen = self.attention.kind == "encoder" or self.model.kind == "exhaustive"
        given = [name for name, value in (patches if frozen else {"noise": told.noise}).items() if value]
        if given:
            where = "a frozen encoder, whose features are kept" if frozen else "an encoder that learns"
            other = "noise or dropout" if frozen else "stain, shift, scale or focus"
            raise ValueError(f"augmentation.{given[0]} has no effect on {where}; leave it out, or use {other}")

    def _coarse_fits(self) -> None:
        """What attention by the encoder asks of the other values."""
        coarse, view = self.attention.coarse_mpp, self.view
        if self.encoder.name == "small":
            raise ValueError(
                "encoder.name small is not pretrained, which attention.kind: encoder needs; use lite0, or "
                "attention.kind: learned"
            )
        if self.attention.inner_mpp is not None:
            raise ValueError("attention.inner_mpp is for attention.kind: learned; leave one of them out")
        if self.model.kind == "exhaustive":
            return
        if view.pitch_um / coarse < COARSEST_PX:
            raise ValueError(
                f"attention.coarse_mpp {coarse:g} leaves {view.pitch_um / coarse:.3g} pixels of a cell to see; give at "
                f"most {view.pitch_um / COARSEST_PX:g}"
            )
        if not view.patch_mpp <= coarse:
            raise ValueError(
                f"attention.coarse_mpp must not be finer than view.patch_mpp, found {coarse:g} and {view.patch_mpp:g}"
            )
        ratio = view.pitch_um / coarse
        if abs(ratio - round(ratio)) > 1e-6 or round(ratio) < 1:
            raise ValueError(
                f"the cell pitch, patch_px * patch_mpp = {view.pitch_um:g} um, must be a whole multiple of "
                f"attention.coarse_mpp, found {ratio:.6g}; the nearest that fits is "
                f"{view.pitch_um / max(1, round(ratio)):.10g}"
            )

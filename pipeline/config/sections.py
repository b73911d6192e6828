"""The sections of a configuration: strict, frozen, every field with its unit and its reason.

Only the edges of the project (commands, training) see these objects; components take flat keyword arguments.
"""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from pipeline.config.attention import AttentionConfig
from pipeline.config.augmentation import AugmentationConfig
from pipeline.config.cohort import CohortConfig
from pipeline.config.encoder import EncoderConfig
from pipeline.config.model import ModelConfig
from pipeline.config.reading import ReadingConfig
from pipeline.config.sampling import SamplingConfig
from pipeline.config.section import Section
from pipeline.config.training import TrainingConfig
from pipeline.config.view import ViewConfig
from stages.encoder.registry import is_exported

COARSEST_PX = 8
"""Coarse pixels along a cell's side, at least."""


class Config(Section):
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
        if self.training.precision != 32 and (self.attention.kind == "encoder" or self.model.kind == "exhaustive"):
            raise ValueError(
                f"training.precision {self.training.precision} is for an encoder that learns; with one that is frozen "
                "leave it out, and see encoder.precision"
            )
        if self.training.read_ahead and (self.attention.kind == "encoder" or inner is not None):
            raise ValueError(
                "training.read_ahead is for an encoder that learns and attention of one level: leave it out with "
                "attention.kind: encoder, whose features are kept, and with attention.inner_mpp"
            )
        self._bags_fit()
        if self.model.kind == "exhaustive" or self.training.compare:
            self._all_can_be_read()
        if self.cohort.unit == "patient":
            self._of_patients()
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

    def _of_patients(self) -> None:
        """What a model of patients does not do."""
        inner, compared = self.attention.inner_mpp, self.training.compare
        given = {
            "attention.inner_mpp": inner is not None,
            "sampling.block above 1": self.sampling.block > 1,
            "training.compare": compared,
            "training.read_ahead": bool(self.training.read_ahead),
            "training.devices above 1": self.training.devices > 1,
        }
        found = next((name for name, there in given.items() if there), None)
        if found is not None:
            raise ValueError(f"cohort.unit: patient does without {found}: leave it out, or use cohort.unit: slide")

    def _bags_fit(self) -> None:
        """Bags in the slides' place have features of all tiles, and nothing else."""
        if self.cohort.bags is None:
            return
        if self.model.kind != "exhaustive":
            raise ValueError(
                "cohort.bags hold features of all tiles, and a model that draws patches reads pixels: use model.kind: "
                "exhaustive"
            )
        idle = [f"view.{name}" for name in sorted(self.view.model_fields_set)]
        idle += ["cohort.slides"] if self.cohort.slides is not None else []
        if idle:
            raise ValueError(
                f"{idle[0]} has no effect with cohort.bags, which say themselves how large tiles are: leave it out"
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

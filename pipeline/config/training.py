"""The section `training`: how the model is fitted."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from pipeline.config.section import Section
from pipeline.device import check_device
from pipeline.errors import UsageError


class TrainingConfig(Section):
    """How the model is fitted."""

    epochs: int = Field(default=30, ge=1, description="Passes over the training slides.")
    batch_size: int = Field(
        default=8, ge=1, description="Slides per step; each brings train_samples patches into memory."
    )
    accumulate: int = Field(
        default=1,
        ge=1,
        le=10_000,
        description="Batches whose gradients make one step together, as one batch so many times as large would, in the "
        "memory of one.",
    )
    precision: Literal[32, "bf16-mixed", "16-mixed"] = Field(
        default=32,
        description="What an encoder that learns computes in: 32: float32; bf16-mixed and 16-mixed: bfloat16 or "
        "float16 where that is safe, float32 elsewhere, in half the memory and less time on GPUs made for it. "
        "Attention and what patches add up to stay in full. A frozen encoder has encoder.precision.",
    )
    read_ahead: int = Field(
        default=0,
        ge=0,
        le=64,
        description="Steps by which patches are drawn before they are used, and read meanwhile, where the encoder "
        "learns and attention is of one level: drawn by the attention of so many steps before, with weights that stay "
        "exact. 0: each step reads its own. More than 1 or 2 helps where reading takes longer than a step.",
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
        description="Which epoch's weights are kept: best: the last one whose loss on the slides of val (the "
        "split, or inner_val) is no higher than the lowest by more than its noise, over three epochs; without such "
        "slides, or with last: the last.",
    )
    patience: int | None = Field(
        default=None,
        ge=1,
        description="Epochs without a lower loss on the slides of val after which training stops; unset: it "
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
    threshold_sensitivity: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Share of the positive slides that the threshold which a training states is to find where it is "
        "chosen: on val, else in cross-validation; unset: the most sensitivity + specificity (Youden). Of two classes.",
    )
    repeats: int = Field(
        default=1,
        ge=1,
        le=100,
        description="Cross-validations, each with folds of its own from the seed; what is reported is their mean.",
    )
    inner_val: float = Field(
        default=0.0,
        ge=0,
        le=0.5,
        description="Share of the patients of each class that every model holds out of its fit as val, which keep, "
        "patience and calibration go by; what is reported is of others, and has chosen nothing; 0: none.",
    )
    inner_val_by: Literal["patient", "site"] | None = Field(
        default=None,
        description="What is never parted between inner_val and the fit: patient; or site, so that an epoch is chosen "
        "at hospitals that the model has not learnt from, as near to that share as whole sites allow; unset: as "
        "folds_by.",
    )
    splits: Path | None = Field(
        default=None,
        strict=False,
        description="Splits that were made elsewhere, relative to this file, in place of the table's: slide_id and "
        "fold, split, or fold_0, fold_1 ...; or CLAM's splits_0.csv, or the folder of several.",
    )
    ensemble: bool = Field(
        default=False,
        description="Let the models of the folds predict together, too (ensemble.json, for `saccade run --ensemble`): "
        "their mean log-odds from one draw, whose intervals are calibrated on slides that are read whole once more.",
    )
    calibration_slides: int = Field(
        default=16,
        ge=0,
        description="Slides (of val first, then of train) that are read once after training, so that the stated 95 % "
        "of the intervals is 95 %, for the last model, whose rule those of folds share; 0: intervals from each draw "
        "alone. Another number trains nothing again.",
    )
    calibration_patches: int = Field(
        default=20_000,
        ge=64,
        description="Patches that are read of these slides at most, all told: of larger slides parts, evenly over the "
        "tissue, and of fewer slides where that leaves too little of each. Another number trains nothing again.",
    )
    compare: bool = Field(
        default=False,
        description="Also fit plain ways to read a slide on the same splits and features, and write comparison.csv: "
        "gated attention MIL and the mean of all cells, as many cells as samples at random and of the largest "
        "attention, and 25 fixed ones. Reads every cell once; needs attention.kind: encoder.",
    )
    tensorboard: bool = Field(
        default=False,
        description="Also write each fit's curve as TensorBoard events, into the folder tensorboard of the output; "
        "needs TensorBoard (pip install tensorboard). curve.csv and curve.png are always written.",
    )
    device: str = Field(
        default="auto",
        description="Where to compute: auto (cuda where there is a GPU for it, else cpu), cpu, cuda, cuda:N or mps.",
    )

    devices: int = Field(
        default=1,
        ge=1,
        le=256,
        description="Processes that fit a model together: on as many GPUs, or on the CPU, whose cores they part. Each "
        "takes a part of every batch, so that the same is learnt however many they are; at most batch_size.",
    )

    @field_validator("device", mode="before")
    @classmethod
    def _known_device(cls, value: object) -> str:
        try:
            return check_device(value)
        except UsageError as exc:
            raise ValueError(str(exc)) from exc

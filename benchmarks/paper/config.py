"""What a benchmark of the paper's tasks reads: the networks, how they are trained, and the rows of its table."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from pydantic import BaseModel, ConfigDict, Field

from benchmarks.paper.fitting import Fitting
from benchmarks.paper.layers import Classifier, LowViewAttention, PatchEncoder
from benchmarks.paper.models import AttentionSampling, FullCNN, GatedMIL
from benchmarks.paper.selection import PerturbedTopK, TopSelection


class Section(BaseModel):
    """Unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Networks(Section):
    """The networks that all rows share."""

    channels: int = Field(default=3, description="Of an image: 3 for colour, 1 for grey.")
    classes: int = Field(default=2, ge=2)
    widths: tuple[int, int, int] = Field(description="Channels of the patch encoder's convolutions.")
    pool: Literal["mean", "max"] = Field(default="mean", description="Over a patch; the full CNN always takes means.")
    attention_widths: tuple[int, int, int] = Field(description="Channels of the low-view attention's convolutions.")
    attention_strides: tuple[int, int, int] = Field(description="Their steps; the product is the pitch of the cells.")
    patch_px: int = Field(description="Pixels along a patch's side.")
    grid_stride: int = Field(description="Pixels between the patches of MIL.")
    smoothing: float = Field(default=0.0, ge=0, lt=1, description="Share of uniform attention that is mixed in.")


class Training(Section):
    """As `paper.fitting.Fitting`."""

    epochs: int
    batch_size: int
    learning_rate: float = 1e-3
    attention_rate: float = 1.0
    weight_decay: float = 1e-2
    entropy_weight: float = 1e-2
    gradient_clip: float = 1.0
    average: float = 0.0


class Row(Section):
    """One model of the table."""

    title: str
    kind: Literal["cnn", "half", "mil", "exhaustive", "ats", "uniform", "selection", "perturbed", "forest"]
    samples: int | None = Field(default=None, description="Patches that are drawn from an image, or kept of all.")
    noise: float = Field(default=0.0, ge=0, description="On the scores of perturbed top-k; 0 is a plain top-k.")
    scheme: str = Field(default="systematic", description="How they are drawn.")
    share: float = Field(default=1.0, description="Of the grid's patches that MIL sees, at random.")
    folds: Literal["random", "blocks"] = Field(default="random", description="Blocks: neighbouring images together.")
    repeats: int = Field(default=1, description="Seeds that are wanted.")
    warm_up: int = Field(default=0, description="Steps in which attention first learns to look at haematoxylin.")
    sharpness: float = Field(default=1.5, description="Of the attention that it then has, see colon.py.")
    draws: int = Field(default=1, description="Whose logits are averaged at prediction.")
    augmented: bool = Field(default=False, description="Each of these draws sees the image augmented anew.")
    self_supervised: int = Field(
        default=0, description="Steps in which the encoder first learns to tell patches apart."
    )
    training: dict[str, Any] = Field(default={}, description="What differs from the common training.")

    def fitting(self, common: Training) -> Fitting:
        """How this row is trained, given how rows are trained in common."""
        return Fitting(**Training.model_validate(common.model_dump() | self.training).model_dump())


class Benchmark(Section):
    """A task's configuration."""

    revision: int = Field(description="Raise it when the code changes what is computed: older records then lapse.")
    fold_seed: int = 0
    folds: int = 10
    low_factor: int = Field(description="Pixels of the image along one pixel of the low view.")
    stain_jitter: float = Field(default=0.0, description="Standard deviation of the log strength of each stain.")
    networks: Networks
    training: Training
    rows: dict[str, Row]

    def fitting(self, row: Row) -> Fitting:
        """How a row is trained."""
        return row.fitting(self.training)

    def digest(self, name: str) -> str:
        """Of everything in this file that a row's result depends on."""
        row = self.rows[name]
        # without defaults: a new option leaves the digests of rows that do not use it
        relevant = self.model_dump(mode="json", exclude={"rows", "training"}, exclude_defaults=True)
        relevant["row"] = row.model_dump(mode="json", exclude={"title", "training", "repeats"}, exclude_defaults=True)
        if row.kind == "forest":
            for key in ("networks", "stain_jitter", "low_factor"):
                relevant.pop(key, None)
        else:
            relevant["training"] = asdict(self.fitting(row))
        return hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()[:12]


def read_benchmark(path: Path) -> Benchmark:
    """Read a configuration; unknown keys and bad values are errors that name them."""
    return Benchmark.model_validate(yaml.safe_load(path.read_text()))


def build(row: Row, networks: Networks, *, seed: int, shared: bool = True) -> Classifier:
    """Make a row's model with seeded weights.

    Args:
        shared: MIL over all patches computes the convolutions that they share once, with the same result.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        cnn = row.kind in ("cnn", "half")
        encoder = PatchEncoder(
            channels=networks.channels, widths=networks.widths, pool="mean" if cnn else networks.pool
        )
        if cnn:
            return FullCNN(encoder, networks.classes)
        if row.kind == "mil":
            return GatedMIL(
                encoder,
                networks.classes,
                patch_px=networks.patch_px,
                grid_stride=networks.grid_stride,
                share=row.share,
                shared=shared and row.share == 1,
            )
        if row.kind == "selection":
            assert row.samples is not None
            return TopSelection(
                encoder,
                networks.classes,
                patch_px=networks.patch_px,
                grid_stride=networks.grid_stride,
                keep=row.samples,
            )
        attention = LowViewAttention(
            channels=networks.channels, widths=networks.attention_widths, strides=networks.attention_strides
        )
        if row.kind == "perturbed":
            assert row.samples is not None
            return PerturbedTopK(
                encoder,
                networks.classes,
                patch_px=networks.patch_px,
                attention=attention,
                samples=row.samples,
                noise=row.noise,
            )
        return AttentionSampling(
            encoder,
            networks.classes,
            patch_px=networks.patch_px,
            attention=None if row.kind == "uniform" else attention,
            samples=None if row.kind == "exhaustive" else row.samples,
            scheme=row.scheme,
            smoothing=networks.smoothing,
            cell_stride=attention.stride,
        )
